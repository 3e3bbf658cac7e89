//! Which publish key is in force here, while the node runs.
//!
//! ```text
//!   auth.publish_key ─────────────────────────────────────────▶ in force, whatever comes
//!   the file (`keys new`) ──▶ in force here ──▶ agreed upon ──▶ in force on all nodes (`agreed.rs`)
//! ```
//!
//! Without NATS there is the file alone. With it the first node of a cluster brings the key that it has, and who comes later takes
//! the cluster's; the text of a key stays on the node where it was made.

mod hashed;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use cluster::{Bucket, Journal, Kind, Store, StoreError, Told};
use futures_util::StreamExt;
use relay::Identity;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use hashed::HashedKey;

use crate::agreed::{Agreed, Agreement, Compared, kept};
use crate::config::{Config, Effective};
use crate::files::{PRIVATE, write_whole};
use crate::keys::{KeyFile, PublishKey};
use crate::membership::Membership;

/// How often the file is read: `keys new` has to be heard.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Of the one value, in the store.
const KEY: &str = "publish-key";
/// Beside the certificate, since another cluster has another: the cluster's, hashed.
const CLUSTER_FILE: &str = "publish_key.agreed";
/// In `data_dir`: [`Wish`].
const WISH_FILE: &str = "publish_key.new";

/// One key for every stream, which may be replaced while publishers come and go; those that are there stay. Cloning shares it.
#[derive(Clone)]
pub(crate) struct OneKey(Arc<ArcSwap<Accepted>>);

enum Accepted {
    /// Nobody has told this node yet.
    Nothing,
    Text(PublishKey),
    Hashed(HashedKey),
}

impl OneKey {
    #[cfg(test)]
    pub(crate) fn new(key: PublishKey) -> Self {
        Self::of(Accepted::Text(key))
    }

    fn of(accepted: Accepted) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(accepted)))
    }

    pub(crate) fn verify(&self, given: &str) -> bool {
        match &**self.0.load() {
            Accepted::Nothing => false,
            Accepted::Text(key) => key.verify(given),
            Accepted::Hashed(key) => key.verify(given),
        }
    }

    fn is(&self, key: &PublishKey) -> bool {
        self.verify(key.expose())
    }

    fn replace(&self, accepted: Accepted) {
        self.0.store(Arc::new(accepted));
    }
}

/// Everything that this needs of the node.
pub(crate) struct KeyKeeper {
    key: OneKey,
    configured: Option<PublishKey>,
    file: Arc<KeyFile>,
    /// `None` without NATS.
    cluster: Option<InCluster>,
    /// What was wrong with the file when it was read last, which is told once.
    told: Option<String>,
}

struct InCluster {
    agreement: Agreement,
    store: Arc<dyn Store>,
    journal: Journal,
    wish: Wish,
    /// Whose key is not the configured one, which is told once.
    told: Option<Agreed>,
    /// What went wrong last, which is told once.
    trouble: Option<String>,
}

/// What `keys new` has made, hashed, until the cluster has agreed upon it. One that is lost costs a second `keys new`, and no other key
/// that a node still has, from whenever that is, is ever everybody's.
pub(crate) struct Wish {
    path: PathBuf,
}

impl Wish {
    fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join(WISH_FILE) }
    }

    /// `key` is to be that of the whole cluster.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub(crate) fn make(data_dir: &Path, key: &PublishKey) -> anyhow::Result<()> {
        let Self { path } = Self::of(data_dir);
        let text = serde_json::to_string(&HashedKey::of(key)?)?;
        write_whole(&path, PRIVATE, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn is(&self, key: &PublishKey) -> bool {
        let wished = std::fs::read(&self.path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        wished.is_some_and(|wished: HashedKey| wished.is_of(key))
    }

    fn forget(&self) {
        // Mostly there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl KeyKeeper {
    /// With the key that is in force from the start.
    ///
    /// # Errors
    /// If what is kept cannot be read, or no key can be made.
    pub(crate) fn new(
        loaded: &Effective,
        membership: &Membership,
        identity: Option<&Identity>,
    ) -> anyhow::Result<Self> {
        let config = &loaded.config;
        let file = KeyFile::new(&config.data_dir);
        let identity = identity.filter(|_| !config.cluster.nats.is_empty());
        let in_cluster = |identity: &Identity| {
            let store = membership.fleet.store().clone();
            let path = config.cluster_dir().join(CLUSTER_FILE);
            anyhow::Ok(InCluster {
                agreement: Agreement::new(KEY, path, identity.clone(), store.clone())?,
                store,
                journal: membership.journal.clone(),
                wish: Wish::of(&config.data_dir),
                told: None,
                trouble: None,
            })
        };
        let cluster = identity.map(in_cluster).transpose()?;
        let configured = config.auth.publish_key.clone();
        let path = file.path().display();
        let accepted = match (&configured, &cluster) {
            (Some(key), _) => {
                info!(origin = %loaded.origin("auth.publish_key"), "publish key: configured");
                Accepted::Text(key.clone())
            }
            (None, None) => {
                let kept = file.read_or_make()?;
                let what = if kept.is_new { "made and kept" } else { "kept" };
                info!("publish key: {what} in {path}; `tidecast keys show` prints it");
                Accepted::Text(kept.key)
            }
            (None, Some(cluster)) => match (cluster.agreed(), file.read()?) {
                (Some((agreed, key)), own) if own.as_ref().is_none_or(|own| !cluster.is_new(own)) => {
                    info!("publish key: the cluster's, made on {}", agreed.by);
                    Accepted::Hashed(key)
                }
                (_, Some(own)) => {
                    info!("publish key: kept in {path}, if the cluster has no other");
                    Accepted::Text(own)
                }
                (_, None) => {
                    info!(
                        "publish key: the cluster's, which is asked for; until NATS answers nobody can publish here"
                    );
                    Accepted::Nothing
                }
            },
        };
        Ok(Self { key: OneKey::of(accepted), configured, file: Arc::new(file), cluster, told: None })
    }

    pub(crate) fn key(&self) -> OneKey {
        self.key.clone()
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut told = match &self.cluster {
            Some(cluster) => cluster.store.watch(Bucket::Config),
            None => futures_util::stream::pending().boxed(),
        };
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(Told::Anew | Told::Changed(_)) = told.next() => {
                    if let Some(cluster) = &mut self.cluster {
                        cluster.agreement.look_again();
                    }
                }
                _ = look.tick() => {}
                () = stop.cancelled() => return,
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let file = self.file.clone();
        let own = match spawn_blocking(move || file.read()).await.context("a thread ended").flatten() {
            Ok(own) => {
                self.told = None;
                own
            }
            Err(error) => {
                tell_once(&mut self.told, format!("this node's own publish key is passed over: {error:#}"));
                None
            }
        };
        match (&mut self.cluster, &self.configured) {
            (Some(cluster), Some(configured)) => cluster.compare_configured(configured).await,
            (Some(cluster), None) => cluster.look(own, &self.file, &self.key).await,
            (None, Some(_)) => {}
            (None, None) => {
                if let Some(own) = own.filter(|own| !self.key.is(own)) {
                    info!("publish key: the new one in {} is in force", self.file.path().display());
                    self.key.replace(Accepted::Text(own));
                }
            }
        }
    }
}

impl InCluster {
    fn agreed(&self) -> Option<(&Agreed, HashedKey)> {
        let agreed = self.agreement.agreed()?;
        Some((agreed, hashed(&agreed.value)?))
    }

    /// Whether `own` is to be the cluster's, and is not yet.
    fn is_new(&self, own: &PublishKey) -> bool {
        let is_agreed = self.agreed().is_some_and(|(_, agreed)| agreed.is_of(own));
        !is_agreed && self.wish.is(own)
    }

    /// Without the store this node goes on with what it has, and is heard later.
    async fn look(&mut self, own: Option<PublishKey>, file: &Arc<KeyFile>, key: &OneKey) {
        let is_agreed = self.agreement.agreed().is_some();
        let is_new = own.as_ref().is_some_and(|own| self.is_new(own));
        if let Some(own) = own.as_ref().filter(|own| (is_new || !is_agreed) && !key.is(own)) {
            info!("publish key: the new one in {} is in force here", file.path().display());
            key.replace(Accepted::Text(own.clone()));
        }
        let looked = match own {
            Some(own) if is_agreed && is_new => self.propose(&own).await,
            own => self.compare(own, file, key).await,
        };
        match looked {
            Ok(()) => self.trouble = None,
            // Whoever keeps the node's place in the cluster has told of that.
            Err(error) if error.is::<StoreError>() => debug!("the cluster's publish key: {error:#}"),
            Err(error) => tell_once(&mut self.trouble, format!("the cluster's publish key: {error:#}")),
        }
    }

    async fn compare(
        &mut self,
        own: Option<PublishKey>,
        file: &Arc<KeyFile>,
        key: &OneKey,
    ) -> anyhow::Result<()> {
        let is_first = self.agreement.agreed().is_none();
        match (self.agreement.compare().await?, own) {
            (Compared::Settled, _) => {}
            (Compared::Adopted, own) => self.adopted(own.as_ref(), is_first, file, key),
            (Compared::Nothing, Some(own)) => self.propose(&own).await?,
            // It is seen when the file is read next.
            (Compared::Nothing, None) => make(file.clone()).await?,
        }
        Ok(())
    }

    async fn propose(&mut self, own: &PublishKey) -> anyhow::Result<()> {
        let value = serde_json::to_value(HashedKey::of(own)?)?;
        if self.agreement.propose(value).await? {
            self.wish.forget();
            let node = self.agreement.node().to_string();
            let words = format!(
                "the cluster's publish key is the one that {node} has; who publishes already goes on"
            );
            info!("publish key: {words}");
            self.journal.tell(Kind::KeyChanged, node, words).await;
        }
        Ok(())
    }

    /// `is_first`: this node was not in the cluster before.
    fn adopted(&mut self, own: Option<&PublishKey>, is_first: bool, file: &KeyFile, key: &OneKey) {
        let Some((agreed, theirs)) = self.agreed() else {
            warn!("publish key: the cluster's is of another release, and not in force here");
            return;
        };
        let by = agreed.by.clone();
        if is_first {
            self.wish.forget();
        }
        match own.filter(|own| is_first && !theirs.is_of(own)) {
            Some(_) => {
                warn!(
                    "publish key: the cluster's is in force, which was made on {by}, and not the one in {}, which this node had; \
                     `tidecast keys new` here makes another one for all",
                    file.path().display()
                );
            }
            None => info!("publish key: the cluster's is in force, which was made on {by}"),
        }
        key.replace(Accepted::Hashed(theirs));
    }

    async fn compare_configured(&mut self, configured: &PublishKey) {
        // Nobody is told of a configured key; it is in the files of who wants it.
        if let Err(error) = self.agreement.listen().await {
            debug!("the cluster's publish key: {error}");
        }
        let Some((agreed, theirs)) = self.agreed() else { return };
        if !theirs.is_of(configured) && self.told.as_ref() != Some(agreed) {
            warn!(
                "publish key: this node's is configured (auth.publish_key), and another than the cluster's, which was made on {}: a \
                 broadcaster with the one is refused where the other is in force. Configure it on all nodes, or on none",
                agreed.by
            );
            self.told = Some(agreed.clone());
        }
    }
}

fn tell_once(told: &mut Option<String>, words: String) {
    if told.as_ref() != Some(&words) {
        warn!("{words}");
        *told = Some(words);
    }
}

async fn make(file: Arc<KeyFile>) -> anyhow::Result<()> {
    spawn_blocking(move || file.read_or_make()).await.context("a thread ended")?.map(drop)
}

fn hashed(value: &Value) -> Option<HashedKey> {
    HashedKey::deserialize(value).ok()
}

/// The node that has the text of the key in force, if `own`, in this node's file, is not that key.
///
/// # Errors
/// If what is kept cannot be read.
pub(crate) fn made_elsewhere(config: &Config, own: Option<&PublishKey>) -> anyhow::Result<Option<String>> {
    let Some(agreed) = kept(&config.cluster_dir().join(CLUSTER_FILE))? else { return Ok(None) };
    let wish = Wish::of(&config.data_dir);
    let is_in_force = own.is_some_and(|own| {
        let is_agreed = hashed(&agreed.value).is_some_and(|key| key.is_of(own));
        // Made while no tidecast ran.
        is_agreed || wish.is(own)
    });
    Ok((!is_in_force).then_some(agreed.by))
}
