//! Settings of the whole cluster: what a node's own configuration leaves open it takes from here at its start.
//!
//! ```text
//!   `config set` ─▶ the node asked ─▶ agreed upon (`agreed.rs`) ─▶ kept by every node ─▶ in force there from its next start
//! ```
//!
//! Of a node that runs nothing changes: an operator restarts one after the other, drained, and no stream is cut. At its start a
//! node asks the store, and takes what it kept where that does not answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Bucket, Journal, Kind, Store, StoreError, Told};
use futures_util::StreamExt;
use relay::Identity;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::agreed::{Agreed, Agreement, Amended, kept};
use crate::config::{Effective, Origin, SHARED, UNLISTED, judged};
use crate::membership::Membership;

/// Of the one value, in the store.
const KEY: &str = "settings";
/// Beside the certificate, since another cluster has others.
const FILE: &str = "settings.agreed";

/// Whoever has told of a change is heard at once; this is for what was missed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Of one change, where others are made at the same moment.
const ATTEMPTS: usize = 5;
/// For an answer to who asked for it, who waits for no longer.
const CHANGED_WITHIN: Duration = Duration::from_secs(4);
/// What a start waits for a store that was reached, and how often it is asked meanwhile: it may be about to elect a leader.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Changes that wait for the store.
const CHANGES_MAX: usize = 8;

/// What is set for all nodes, by key.
type Commons = BTreeMap<String, Common>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Common {
    /// As a file would have it.
    value: String,
    /// The node on which it was set.
    by: String,
}

fn triples(commons: &Commons) -> impl Iterator<Item = (&str, &str, &str)> {
    commons.iter().map(|(key, Common { value, by })| (key.as_str(), value.as_str(), by.as_str()))
}

/// What this node kept, where it is in a cluster and has heard of any.
///
/// # Errors
/// If that is there and cannot be read.
pub(crate) fn take_kept(loaded: &mut Effective) -> anyhow::Result<()> {
    if !loaded.config.cluster.nats.is_empty()
        && let Some(agreed) = kept(&loaded.config.cluster_dir().join(FILE))?
    {
        loaded.take_from_cluster(triples(&read(&agreed.value).unwrap_or_default()));
    }
    Ok(())
}

/// `None` where a later release has them otherwise.
fn read(value: &Value) -> Option<Commons> {
    Commons::deserialize(value).ok()
}

fn read_of(agreement: &Agreement) -> Commons {
    agreement.agreed().and_then(|agreed: &Agreed| read(&agreed.value)).unwrap_or_default()
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(
        "this node is in no cluster that shares settings (cluster.nats is not set): write it in the configuration file"
    )]
    Alone,
    #[error(
        "this node does not know what is set: another release has set it, or a node that is not trusted here; set it there"
    )]
    Unknown,
    #[error("the cluster's store takes too long; `tidecast config show` tells later whether it is set")]
    TooLong,
    #[error("{key} is each node's own; settings of the whole cluster are {}", SHARED.join(", "))]
    NotShared { key: String },
    /// What is wrong, and what is allowed.
    #[error("{0}")]
    Value(String),
    #[error("others change settings at this moment; try again")]
    Contested,
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Change {
    key: &'static str,
    /// `None` takes it back.
    text: Option<String>,
    reply: oneshot::Sender<Result<(), ChangeError>>,
}

/// The way to them. Cloning shares it.
#[derive(Clone)]
pub(crate) struct SharedSettings {
    /// `None` without NATS.
    cluster: Option<(mpsc::Sender<Change>, watch::Receiver<Commons>)>,
    own: Arc<Own>,
}

/// What is in force here, and where it comes from.
type Own = BTreeMap<&'static str, (Option<String>, Origin)>;

impl SharedSettings {
    pub(crate) fn alone() -> Self {
        Self { cluster: None, own: Arc::default() }
    }

    /// What `/api/v1/settings` says.
    pub(crate) fn told(&self) -> Value {
        let commons = self.cluster.as_ref().map(|(_, known)| known.borrow().clone()).unwrap_or_default();
        let own = self.own.iter().map(|(key, (value, origin))| {
            json!({ "key": key, "cluster": commons.get(*key), "here": value, "origin": origin.to_string() })
        });
        json!({ "settings": own.collect::<Vec<_>>() })
    }

    /// Sets `key` for all nodes, or takes that back; what is to be said of it.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) async fn change(&self, key: &str, text: Option<String>) -> Result<String, ChangeError> {
        let (changes, _) = self.cluster.as_ref().ok_or(ChangeError::Alone)?;
        let Some(shared) = SHARED.iter().find(|shared| **shared == key) else {
            return Err(ChangeError::NotShared { key: key.to_owned() });
        };
        // As everybody writes it.
        let text = text.map(|text| judged(shared, &text)).transpose().map_err(ChangeError::Value)?;
        let (reply, replied) = oneshot::channel();
        let change = Change { key: shared, text: text.clone(), reply };
        let gone = || ChangeError::Store(StoreError::Unreachable("this node stops".to_owned()));
        let changed = async {
            changes.send(change).await.map_err(|_| gone())?;
            replied.await.map_err(|_| gone())?
        };
        timeout(CHANGED_WITHIN, changed).await.map_err(|_| ChangeError::TooLong)??;
        Ok(self.words(shared, text.as_ref()))
    }

    fn words(&self, key: &str, text: Option<&String>) -> String {
        let all = match text {
            Some(text) => {
                format!("{key} is {} for all nodes of the cluster, from the next start of each", json!(text))
            }
            None => format!("{key} is each node's own again, from its next start"),
        };
        match self.own.get(key) {
            Some((value, origin)) if text.is_some() && text != value.as_ref() && !origin.is_open() => {
                format!("{all}; this node keeps its own, {} ({origin})", json!(value))
            }
            _ => all,
        }
    }
}

/// Keeps this node's in step with the cluster's.
pub(crate) struct SettingsKeeper {
    agreement: Agreement,
    store: Arc<dyn Store>,
    journal: Journal,
    changes: mpsc::Receiver<Change>,
    known: watch::Sender<Commons>,
    own: Arc<Own>,
}

impl SettingsKeeper {
    /// With what the cluster has taken into `loaded`; `None` without NATS.
    pub(crate) async fn start(
        loaded: &mut Effective,
        membership: &Membership,
        identity: Option<&Identity>,
    ) -> (SharedSettings, Option<Self>) {
        let is_in_cluster = !loaded.config.cluster.nats.is_empty();
        let mut agreement = identity.filter(|_| is_in_cluster).and_then(|identity| {
            let path = loaded.config.cluster_dir().join(FILE);
            let store = membership.fleet.store().clone();
            let agreement = Agreement::new(KEY, path, identity.clone(), store);
            // It costs what others have set, and nothing that a node cannot do without.
            agreement.inspect_err(|error| warn!("settings of the cluster are passed over: {error:#}")).ok()
        });
        if let Some(agreement) = &mut agreement {
            hear(agreement, membership.has_reached_store).await;
            loaded.take_from_cluster(triples(&read_of(agreement)));
        }
        for words in &loaded.passed_over {
            warn!("{words}");
        }
        let own = |key: &'static str| (key, (loaded.config.shown(key), loaded.origin(key).clone()));
        let own: Arc<Own> = Arc::new(SHARED.into_iter().map(own).collect());
        for (key, (value, origin)) in own.iter() {
            if matches!(origin, Origin::Cluster { .. }) {
                info!(%origin, "setting: {key} is {}", json!(value));
            }
        }
        let Some(agreement) = agreement else { return (SharedSettings { cluster: None, own }, None) };
        let known = watch::Sender::default();
        let (to, changes) = mpsc::channel(CHANGES_MAX);
        let shared = SharedSettings { cluster: Some((to, known.subscribe())), own: own.clone() };
        let (store, journal) = (membership.fleet.store().clone(), membership.journal.clone());
        (shared, Some(Self { agreement, store, journal, changes, known, own }))
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.tell();
        let mut told = self.store.watch(Bucket::Config);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(Told::Anew | Told::Changed(_)) = told.next() => self.agreement.look_again(),
                _ = look.tick() => {}
                Some(change) = self.changes.recv() => {
                    // Who asked was told that it took too long.
                    if change.reply.is_closed() {
                        continue;
                    }
                    let changed = self.change(change.key, change.text).await;
                    // Whoever asked may have gone.
                    let _unheard = change.reply.send(changed);
                    continue;
                }
                () = stop.cancelled() => return,
            }
            match self.agreement.compare().await {
                Ok(_) => self.tell(),
                // Whoever keeps the node's place in the cluster has told of that.
                Err(error) => debug!("settings of the cluster: {error}"),
            }
        }
    }

    async fn change(&mut self, key: &'static str, text: Option<String>) -> Result<(), ChangeError> {
        let node = self.agreement.node().to_string();
        for _ in 0..ATTEMPTS {
            let amended = self.agreement.amend(|before| {
                let mut commons = before.map_or_else(|| Some(Commons::new()), read)?;
                match &text {
                    Some(text) => {
                        commons.insert(key.to_owned(), Common { value: text.clone(), by: node.clone() })
                    }
                    None => commons.remove(key),
                };
                Some(json!(commons))
            });
            match amended.await? {
                Amended::Done => {
                    let words = match &text {
                        Some(text) => {
                            format!("{key} is {} for all nodes, from the next start of each", told(key, text))
                        }
                        None => format!("{key} is each node's own again"),
                    };
                    self.journal.tell(Kind::SettingChanged, node, words).await;
                    self.tell();
                    return Ok(());
                }
                Amended::Contested => {}
                Amended::Unknown => return Err(ChangeError::Unknown),
            }
        }
        Err(ChangeError::Contested)
    }

    /// What is new, and not in force here.
    fn tell(&self) {
        let commons = read_of(&self.agreement);
        let before = self.known.send_replace(commons.clone());
        for (key, (value, origin)) in self.own.iter() {
            match commons.get(*key) {
                same if same == before.get(*key) => {}
                Some(Common { value: text, by }) => {
                    let what = format!("setting of the cluster, made on {by}: {key} is {}", told(key, text));
                    match judged(key, text) {
                        Ok(text) if Some(&text) == value.as_ref() => {}
                        Ok(_) if origin.is_open() => info!("{what}; in force here from the next start"),
                        Ok(_) => warn!("{what}; not in force here, where {origin} says otherwise"),
                        Err(error) => warn!("{what}; not to be in force here: {error}"),
                    }
                }
                None if matches!(origin, Origin::Cluster { .. }) => {
                    info!(
                        "setting of the cluster, taken back: {key} is this node's own again from the next start"
                    );
                }
                None => {}
            }
        }
    }
}

/// The value for logs and events, from which names that are on no list stay out.
fn told(key: &str, text: &str) -> String {
    if key == UNLISTED { "another".to_owned() } else { json!(text).to_string() }
}

/// Waits a moment for what the store has.
async fn hear(agreement: &mut Agreement, is_reached: bool) {
    let heard = async {
        while let Err(error) = agreement.compare().await {
            debug!("settings of the cluster: {error}");
            sleep(ASK_EVERY).await;
        }
    };
    if !is_reached || timeout(HEARD_WITHIN, heard).await.is_err() {
        info!("settings of the cluster: NATS does not answer, so this node takes what it kept of them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_nobodys_or_wrong_is_refused_before_anybody_is_asked() {
        let refused = |error: Result<String, ChangeError>| error.unwrap_err().to_string();
        let low = || Some("low".to_owned());
        let alone = SharedSettings::alone().change("hls.profile", low()).await;
        assert!(refused(alone).contains("cluster.nats is not set"));

        let (to, mut changes) = mpsc::channel(1);
        let cluster = Some((to, watch::channel(Commons::new()).1));
        let shared = SharedSettings { cluster, own: Arc::default() };
        let own = shared.change("rtmp.listen", Some(":1".to_owned())).await;
        assert!(refused(own).starts_with("rtmp.listen is each node's own; "));
        let wrong = shared.change("hls.profile", Some("lowest".to_owned())).await;
        assert!(refused(wrong).contains("allowed: "));
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn names_that_are_on_no_list_are_not_told() {
        assert_eq!(told("hls.profile", "low"), "\"low\"");
        assert_eq!(told("streams.unlisted", "live/backstage"), "another");
    }

    /// What a later release has otherwise is neither taken nor written over.
    #[test]
    fn settings_of_a_later_release_are_not_understood() {
        assert_eq!(read(&json!({ "hls.profile": "low" })), None);
        let common = json!({ "hls.profile": { "value": "low", "by": "a", "since": "tomorrow" } });
        let [(key, Common { value, by })] = &read(&common).unwrap().into_iter().collect::<Vec<_>>()[..]
        else {
            panic!("it is one")
        };
        assert_eq!((key.as_str(), value.as_str(), by.as_str()), ("hls.profile", "low", "a"));
    }
}
