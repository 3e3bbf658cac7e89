//! A value that the nodes of a cluster agree upon: in the store, on each node's disk, and newest wherever it is greatest.
//!
//! ```text
//!   this node proposes ─▶ number + 1 ─┐                 ┌─▶ disk, for a start without the store
//!   the store (NATS) ─────────────────┴─▶ the greatest ─┴─▶ the store, where that has a lesser one, or none
//! ```
//!
//! In the store a node vouches for it, so that whoever may write there, and has no certificate of the cluster, sets nothing; and
//! since numbers only grow, brings nothing back. A voucher is worth nothing once its node was put out, or its certificate has
//! ended; then another node that took the value while it was vouched for puts its own name to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use cluster::{Bucket, Entry, Key, Store, StoreError, WriteError};
use media::NodeId;
use relay::{Identity, Voucher};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::now_ms;
use crate::authority::{hex, unhex};
use crate::files::{PRIVATE, read_bounded, write_whole};

/// Of the text in the store, and of the file.
const BYTES_MAX: usize = 64 * 1024;
/// Certificates in a chain: as many as an identity has.
const CHAIN_MAX: usize = 4;
/// How often the store is compared with what this node has, though nobody told of a change: certificates end.
const COMPARE_EVERY: Duration = Duration::from_secs(60);
/// How long something in the store that nobody vouches for is left alone. This node may be the one that has not heard yet whom to
/// trust.
const DOUBT: Duration = Duration::from_secs(30);
/// How far ahead of this node's a clock may be. A number from further on would hold for ever.
const AHEAD_MAX_MS: i64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Agreed {
    /// The greatest holds: the time it was proposed, or one more than that of what was agreed upon before.
    pub(crate) number: u64,
    /// When, in milliseconds since the Unix epoch, and by which node.
    pub(crate) at_ms: i64,
    pub(crate) by: String,
    pub(crate) value: Value,
}

impl Agreed {
    /// Of two that were proposed at once, apart from each other, all nodes take the same.
    fn is_over(&self, other: &Self) -> bool {
        let order = |agreed: &Self| (agreed.number, agreed.at_ms, agreed.value.to_string());
        order(self) > order(other)
    }
}

/// As it lies in the store.
#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The very text that is signed: [`Agreed`], beneath the name of what it is.
    text: String,
    /// In hexadecimal digits.
    chain: Vec<String>,
    signature: String,
}

/// What is signed: nobody's publish key is taken for anything else.
#[derive(Serialize, Deserialize)]
struct Named {
    what: String,
    #[serde(flatten)]
    agreed: Agreed,
}

/// What [`Agreement::compare`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// There is nothing to do, or it is done.
    Settled,
    /// Another node's is in force from now on.
    Adopted,
    /// Neither this node nor the store has any.
    Nothing,
}

/// What came of [`Agreement::amend`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Amended {
    Done,
    /// Somebody else wrote meanwhile.
    Contested,
    /// What is there is of nobody that is trusted here, or of another release: what it says must not be lost.
    Unknown,
}

pub(crate) struct Agreement {
    key: &'static str,
    path: PathBuf,
    identity: Identity,
    store: Arc<dyn Store>,
    agreed: Option<Agreed>,
    /// When the store was found to have the same.
    compared_at: Option<Instant>,
    doubted_since: Option<Instant>,
}

impl Agreement {
    /// About `key`, with what this node kept of it at `path`.
    ///
    /// # Errors
    /// If that is there and cannot be read.
    pub(crate) fn new(
        key: &'static str,
        path: PathBuf,
        identity: Identity,
        store: Arc<dyn Store>,
    ) -> anyhow::Result<Self> {
        let agreed = kept(&path)?;
        Ok(Self { key, path, identity, store, agreed, compared_at: None, doubted_since: None })
    }

    pub(crate) fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// The store may have another.
    pub(crate) fn look_again(&mut self) {
        self.compared_at = None;
    }

    /// Brings the store and this node to the greater of what they have.
    ///
    /// # Errors
    /// If the store is away; then this node goes on with what it has.
    pub(crate) async fn compare(&mut self) -> Result<Compared, StoreError> {
        if self.compared_at.is_some_and(|at| at.elapsed() < COMPARE_EVERY) {
            return Ok(Compared::Settled);
        }
        let there = self.get().await?;
        let theirs = match there.as_ref().map(|entry| self.read(&entry.value)).transpose() {
            Ok(theirs) => theirs,
            Err(error) => {
                let since = *self.doubted_since.get_or_insert_with(|| {
                    warn!("what the cluster's store has as its {} is not taken: {error:#}", self.key);
                    Instant::now()
                });
                match self.agreed.clone() {
                    _ if since.elapsed() < DOUBT => {}
                    Some(ours) => self.put(&ours, there.as_ref()).await?,
                    // What is proposed then is written over it.
                    None => return Ok(Compared::Nothing),
                }
                return Ok(Compared::Settled);
            }
        };
        match (theirs, self.agreed.clone()) {
            (None, None) => return Ok(Compared::Nothing),
            (Some(theirs), ours) if ours.as_ref().is_none_or(|ours| theirs.is_over(ours)) => {
                self.take(theirs);
                self.settle();
                return Ok(Compared::Adopted);
            }
            (theirs, ours) if theirs == ours => self.settle(),
            (_, Some(ours)) => self.put(&ours, there.as_ref()).await?,
            (Some(_), None) => {}
        }
        Ok(Compared::Settled)
    }

    /// Takes what the store has, and puts nothing there.
    ///
    /// # Errors
    /// If the store is away.
    pub(crate) async fn listen(&mut self) -> Result<(), StoreError> {
        if self.compared_at.is_some_and(|at| at.elapsed() < COMPARE_EVERY) {
            return Ok(());
        }
        let there = self.get().await?;
        self.settle();
        let theirs = there.and_then(|entry| self.read(&entry.value).ok());
        if let Some(theirs) =
            theirs.filter(|theirs| self.agreed.as_ref().is_none_or(|ours| theirs.is_over(ours)))
        {
            self.take(theirs);
        }
        Ok(())
    }

    /// Agrees upon `value` with all nodes, whatever was agreed upon before. `false` if somebody else wrote meanwhile.
    ///
    /// # Errors
    /// If the store is away.
    pub(crate) async fn propose(&mut self, value: Value) -> Result<bool, StoreError> {
        let there = self.get().await?;
        let theirs = there.as_ref().and_then(|entry| self.read(&entry.value).ok());
        let known = theirs.iter().chain(&self.agreed).map(|agreed| agreed.number).max();
        self.put_next(known, value, there.as_ref()).await
    }

    /// Agrees with all nodes upon what `make` makes of what is agreed upon now, and over nothing else; `None` if it cannot.
    ///
    /// # Errors
    /// If the store is away.
    pub(crate) async fn amend(
        &mut self,
        make: impl FnOnce(Option<&Value>) -> Option<Value>,
    ) -> Result<Amended, StoreError> {
        let there = self.get().await?;
        let Ok(theirs) = there.as_ref().map(|entry| self.read(&entry.value)).transpose() else {
            return Ok(Amended::Unknown);
        };
        if let Some(theirs) =
            theirs.filter(|theirs| self.agreed.as_ref().is_none_or(|ours| theirs.is_over(ours)))
        {
            self.take(theirs);
        }
        let Some(value) = make(self.agreed.as_ref().map(|agreed| &agreed.value)) else {
            return Ok(Amended::Unknown);
        };
        let known = self.agreed.as_ref().map(|agreed| agreed.number);
        let is_in = self.put_next(known, value, there.as_ref()).await?;
        Ok(if is_in { Amended::Done } else { Amended::Contested })
    }

    async fn put_next(
        &mut self,
        known: Option<u64>,
        value: Value,
        there: Option<&Entry>,
    ) -> Result<bool, StoreError> {
        let at_ms = now_ms();
        let agreed = Agreed {
            number: known.map_or(0, |known| known.saturating_add(1)).max(at_ms.unsigned_abs()),
            at_ms,
            by: self.node().to_string(),
            value,
        };
        self.put(&agreed, there).await?;
        let is_in = self.compared_at.is_some();
        if is_in {
            self.take(agreed);
        }
        Ok(is_in)
    }

    pub(crate) fn node(&self) -> &NodeId {
        self.identity.node()
    }

    async fn get(&self) -> Result<Option<Entry>, StoreError> {
        self.store.get(Bucket::Config, &Key::fixed(self.key)).await
    }

    /// Over `there`, and over nothing else.
    async fn put(&mut self, agreed: &Agreed, there: Option<&Entry>) -> Result<(), StoreError> {
        self.compared_at = None;
        let text = match self.write(agreed) {
            Ok(text) => text,
            Err(error) => {
                warn!("the cluster's {} is not put in the store: {error:#}", self.key);
                return Ok(());
            }
        };
        let key = Key::fixed(self.key);
        let put = match there {
            Some(there) => self.store.update(Bucket::Config, &key, text, there.revision).await,
            None => self.store.create(Bucket::Config, &key, text).await,
        };
        match put {
            Ok(_) => {
                self.settle();
                Ok(())
            }
            Err(WriteError::Conflict) => Ok(()),
            Err(WriteError::Store(error)) => Err(error),
            Err(error) => {
                debug!("the cluster's {}: {error}", self.key);
                Ok(())
            }
        }
    }

    fn settle(&mut self) {
        self.compared_at = Some(Instant::now());
        self.doubted_since = None;
    }

    /// In force from now on, also for the next start.
    fn take(&mut self, agreed: Agreed) {
        let written = serde_json::to_string(&agreed)
            .map_err(io::Error::other)
            .and_then(|text| write_whole(&self.path, PRIVATE, &text));
        if let Err(error) = written {
            warn!("cannot keep the cluster's {} in {}: {error}", self.key, self.path.display());
        }
        self.agreed = Some(agreed);
    }

    /// With this node's voucher.
    fn write(&self, agreed: &Agreed) -> anyhow::Result<Bytes> {
        let named = Named { what: self.key.to_owned(), agreed: agreed.clone() };
        let text = serde_json::to_string(&named)?;
        let Voucher { chain, signature } = self.identity.vouch(text.as_bytes())?;
        let chain = chain.iter().map(|certificate| hex(certificate)).collect();
        let text = serde_json::to_vec(&Envelope { text, chain, signature: hex(&signature) })?;
        ensure!(text.len() <= BYTES_MAX, "it is longer than nodes read");
        Ok(text.into())
    }

    /// What a node that is trusted vouches for.
    fn read(&self, bytes: &[u8]) -> anyhow::Result<Agreed> {
        ensure!(bytes.len() <= BYTES_MAX, "it is too long");
        let Envelope { text, chain, signature } =
            serde_json::from_slice(bytes).context("it is nothing that a node has written")?;
        let unhex = |digits: &String| unhex(digits).context("its voucher is no hexadecimal number");
        let chain = chain.iter().take(CHAIN_MAX).map(unhex).collect::<anyhow::Result<_>>()?;
        let voucher = Voucher { chain, signature: unhex(&signature)? };
        self.identity.vouched(text.as_bytes(), &voucher)?;
        let Named { what, agreed } =
            serde_json::from_str(&text).context("a node of another release wrote it")?;
        ensure!(what == self.key, "it is a {what}");
        let latest = now_ms().saturating_add(AHEAD_MAX_MS).unsigned_abs();
        ensure!(
            agreed.number <= latest,
            "it is of the future: is the clock of {} right, and this one?",
            agreed.by
        );
        Ok(agreed)
    }
}

/// What a node kept at `path`; `None` if it never agreed upon anything.
///
/// # Errors
/// If it is there and cannot be read.
pub(crate) fn kept(path: &std::path::Path) -> anyhow::Result<Option<Agreed>> {
    let bytes = match read_bounded(path, BYTES_MAX as u64) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let agreed = serde_json::from_slice(&bytes);
    agreed
        .map(Some)
        .with_context(|| format!("{} is damaged; without it this node asks the others", path.display()))
}

#[cfg(test)]
mod tests {
    use cluster::Memory;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::authority::ClusterFiles;

    /// The nodes of a cluster, with a folder each.
    struct Nodes {
        dirs: Vec<TempDir>,
        store: Arc<Memory>,
    }

    impl Nodes {
        fn new(names: &[&str]) -> Self {
            let dirs: Vec<_> = names.iter().map(|_| tempfile::tempdir().unwrap()).collect();
            let files = |number: usize| ClusterFiles::new(dirs[number].path().to_owned());
            for (number, name) in names.iter().enumerate() {
                let name = name.parse().unwrap();
                match number {
                    0 => files(0).init(&name).unwrap(),
                    _ => drop(files(number).join(&files(0).invite(&name, 1).unwrap()).unwrap()),
                }
            }
            Self { dirs, store: Arc::default() }
        }

        fn files(&self, number: usize) -> ClusterFiles {
            ClusterFiles::new(self.dirs[number].path().to_owned())
        }

        /// As it starts.
        fn node(&self, number: usize) -> Agreement {
            let identity = self.files(number).identity().unwrap().unwrap();
            let path = self.dirs[number].path().join("kept");
            Agreement::new("publish-key", path, identity, self.store.clone()).unwrap()
        }

        async fn stored(&self) -> Entry {
            self.store.get(Bucket::Config, &Key::fixed("publish-key")).await.unwrap().unwrap()
        }

        async fn overwrite(&self, value: impl Into<Bytes>) {
            self.store.put(Bucket::Config, &Key::fixed("publish-key"), value.into()).await.unwrap();
        }
    }

    fn value(agreement: &Agreement) -> Option<&Value> {
        agreement.agreed().map(|agreed| &agreed.value)
    }

    async fn heard(agreement: &mut Agreement) -> Compared {
        agreement.look_again();
        agreement.compare().await.unwrap()
    }

    #[tokio::test]
    async fn what_one_node_proposes_is_in_force_on_all_and_after_a_start() {
        let nodes = Nodes::new(&["a", "b"]);
        let (mut a, mut b) = (nodes.node(0), nodes.node(1));
        assert_eq!(b.compare().await.unwrap(), Compared::Nothing);
        assert!(a.propose(json!("one")).await.unwrap());
        assert_eq!(heard(&mut b).await, Compared::Adopted);
        assert!(b.propose(json!("two")).await.unwrap());
        assert_eq!(heard(&mut a).await, Compared::Adopted);
        assert_eq!((value(&a), value(&nodes.node(1))), (Some(&json!("two")), Some(&json!("two"))));
        assert_eq!(a.agreed().map(|agreed| agreed.by.as_str()), Some("b"));
        assert_eq!(heard(&mut a).await, Compared::Settled);
    }

    #[tokio::test]
    async fn what_two_nodes_amend_at_once_is_lost_of_neither() {
        let nodes = Nodes::new(&["a", "b"]);
        let (mut a, mut b) = (nodes.node(0), nodes.node(1));
        let with = |key: &'static str| {
            move |before: Option<&Value>| {
                let mut all = before.cloned().unwrap_or_else(|| json!({}));
                all[key] = json!(1);
                Some(all)
            }
        };
        assert!(a.propose(json!({})).await.unwrap());
        // Both know the same.
        assert_eq!(heard(&mut b).await, Compared::Adopted);
        assert_eq!(a.amend(with("one")).await.unwrap(), Amended::Done);
        assert_eq!(b.amend(with("two")).await.unwrap(), Amended::Done);
        assert_eq!(value(&b), Some(&json!({ "one": 1, "two": 1 })));
        // What it does not know is left alone.
        nodes.overwrite("of nobody").await;
        assert_eq!(a.amend(with("three")).await.unwrap(), Amended::Unknown);
        assert_eq!(nodes.stored().await.value, "of nobody");
    }

    #[tokio::test]
    async fn a_store_that_was_emptied_is_filled_with_the_newest() {
        let mut nodes = Nodes::new(&["a", "b"]);
        let (mut a, mut b) = (nodes.node(0), nodes.node(1));
        assert!(a.propose(json!("one")).await.unwrap());
        assert_eq!(heard(&mut b).await, Compared::Adopted);
        assert!(b.propose(json!("two")).await.unwrap());
        nodes.store = Arc::default();
        // The one that has not heard of the second is the first to fill it.
        let (mut a, mut b) = (nodes.node(0), nodes.node(1));
        assert_eq!(a.compare().await.unwrap(), Compared::Settled);
        assert_eq!(b.compare().await.unwrap(), Compared::Settled);
        assert_eq!(heard(&mut a).await, Compared::Adopted);
        assert_eq!(value(&a), Some(&json!("two")));
    }

    /// Threat: whoever may write to NATS makes a publish key of its own, or brings an older one back.
    #[tokio::test(start_paused = true)]
    async fn what_no_node_vouches_for_or_is_older_is_not_taken_and_is_written_over() {
        let (nodes, others) = (Nodes::new(&["a", "b"]), Nodes::new(&["stranger"]));
        let (mut a, mut b) = (nodes.node(0), nodes.node(1));
        assert!(a.propose(json!("one")).await.unwrap());
        let first = nodes.stored().await.value;
        assert!(a.propose(json!("two")).await.unwrap());
        let good = nodes.stored().await.value;
        assert_eq!(heard(&mut b).await, Compared::Adopted);

        assert!(others.node(0).propose(json!("mine")).await.unwrap());
        let strangers = others.stored().await.value;
        let changed = String::from_utf8_lossy(&good).replace("two", "own");
        assert_ne!(changed.as_bytes(), good);
        for forged in [strangers, changed.into(), Bytes::from_static(b"{}"), Bytes::new()] {
            nodes.overwrite(forged).await;
            assert_eq!(heard(&mut b).await, Compared::Settled);
            assert_eq!(heard(&mut nodes.node(1)).await, Compared::Settled);
            assert_eq!(value(&b), Some(&json!("two")));
        }
        tokio::time::advance(DOUBT).await;
        assert_eq!(heard(&mut b).await, Compared::Settled);
        assert!(b.read(&nodes.stored().await.value).is_ok(), "written over");

        nodes.overwrite(first).await;
        assert_eq!(heard(&mut b).await, Compared::Settled);
        assert_eq!(value(&b), Some(&json!("two")));
        assert_eq!(b.read(&nodes.stored().await.value).unwrap().value, json!("two"), "brought back");
    }

    /// Threat: a node that is about to be put out leaves a value that nothing is greater than.
    #[tokio::test]
    async fn what_is_of_the_future_is_not_taken() {
        let nodes = Nodes::new(&["a", "b"]);
        let (mut a, mut b) = (nodes.node(0), nodes.node(1));
        let last = Agreed { number: u64::MAX, at_ms: i64::MAX, by: "b".to_owned(), value: json!("mine") };
        nodes.overwrite(b.write(&last).unwrap()).await;
        assert_eq!(heard(&mut a).await, Compared::Settled);
        assert!(a.propose(json!("one")).await.unwrap());
        assert_eq!(heard(&mut b).await, Compared::Adopted);
        assert_eq!(value(&b), Some(&json!("one")));
    }

    /// A cluster whose only node with a value is gone for good, and was put out.
    #[tokio::test(start_paused = true)]
    async fn where_nobody_has_any_what_is_worth_nothing_is_no_obstacle() {
        let nodes = Nodes::new(&["a"]);
        nodes.overwrite(Bytes::from_static(b"{}")).await;
        let mut a = nodes.node(0);
        assert_eq!(heard(&mut a).await, Compared::Settled);
        tokio::time::advance(DOUBT).await;
        assert_eq!(heard(&mut a).await, Compared::Nothing);
        assert!(a.propose(json!("one")).await.unwrap());
        assert_eq!(a.read(&nodes.stored().await.value).unwrap().value, json!("one"));
    }

    /// A node takes a value while it is vouched for, and vouches for it itself when who did was put out.
    #[tokio::test(start_paused = true)]
    async fn what_a_node_said_that_was_put_out_is_vouched_for_by_another() {
        let nodes = Nodes::new(&["a", "b"]);
        let (mut a, mut b) = (nodes.node(0), nodes.node(1));
        assert!(b.propose(json!("one")).await.unwrap());
        assert_eq!(heard(&mut a).await, Compared::Adopted);
        nodes.files(0).revoke(&"b".parse().unwrap()).unwrap();
        nodes.files(0).reload(&a.identity).unwrap();
        assert_eq!(heard(&mut a).await, Compared::Settled);
        tokio::time::advance(DOUBT).await;
        assert_eq!(heard(&mut a).await, Compared::Settled);
        let stored = nodes.stored().await;
        assert_eq!(a.read(&stored.value).unwrap().value, json!("one"));

        // What it says from now on nobody hears.
        assert!(b.propose(json!("two")).await.unwrap());
        assert_eq!(heard(&mut a).await, Compared::Settled);
        assert_eq!(value(&a), Some(&json!("one")));
    }
}
