//! Settings of the whole cluster: what a node's own configuration leaves open it takes from here at its start.
//!
//! ```text
//!   `config set` ─▶ the node asked ─▶ agreed upon (`agreed.rs`) ─▶ kept by every node ─▶ in force there from its next start
//! ```
//!
//! Of a node that runs nothing changes: an operator restarts one after the other, drained, and no stream is cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cluster::{Bucket, Journal, Kind, Store, StoreError, Told};
use futures_util::StreamExt;
use relay::Identity;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::agreed::{Agreed, Agreement, kept};
use crate::config::{Config, Effective, Origin, SHARED, judged};
use crate::membership::Membership;

/// Of the one value, in the store.
const KEY: &str = "settings";
/// Beside the certificate, since another cluster has others.
const FILE: &str = "settings.agreed";

/// Whoever has told of a change is heard at once; this is for what was missed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Of one change, where others are made at the same moment.
const ATTEMPTS: usize = 5;
/// Changes that wait for the store.
const CHANGES_MAX: usize = 8;

/// By key, as a file would have them.
type Texts = BTreeMap<String, String>;

/// What all nodes of the cluster have, as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Settings {
    pub(crate) texts: Texts,
    /// The node on which they were changed last.
    pub(crate) by: String,
}

impl Settings {
    fn of(agreed: &Agreed) -> Self {
        // Of a later release, which has them otherwise, nothing is taken.
        let texts = Texts::deserialize(&agreed.value).unwrap_or_default();
        Self { texts, by: agreed.by.clone() }
    }

    /// As this node kept them; none where it is in no cluster, or has never heard of any.
    ///
    /// # Errors
    /// If they are there and cannot be read.
    pub(crate) fn kept(config: &Config) -> anyhow::Result<Self> {
        if config.cluster.nats.is_empty() {
            return Ok(Self::default());
        }
        Ok(kept(&config.cluster_dir().join(FILE))?.as_ref().map(Self::of).unwrap_or_default())
    }
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(
        "this node is in no cluster that shares settings (cluster.nats is not set): write it in the configuration file"
    )]
    Alone,
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
    reply: oneshot::Sender<Result<Settings, ChangeError>>,
}

/// The way to them. Cloning shares it.
#[derive(Clone)]
pub(crate) struct SharedSettings {
    /// `None` without NATS.
    cluster: Option<(mpsc::Sender<Change>, watch::Receiver<Settings>)>,
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
        let settings = self.cluster.as_ref().map(|(_, known)| known.borrow().clone()).unwrap_or_default();
        let own = self.own.iter().map(|(key, (value, origin))| {
            json!({ "key": key, "cluster": settings.texts.get(*key), "here": value, "origin": origin.to_string() })
        });
        json!({ "settings": own.collect::<Vec<_>>(), "by": settings.by })
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
        let change = Change { key: shared, text, reply };
        let gone = || ChangeError::Store(StoreError::Unreachable("this node stops".to_owned()));
        changes.send(change).await.map_err(|_| gone())?;
        let settings = replied.await.map_err(|_| gone())??;
        Ok(self.words(shared, settings.texts.get(*shared)))
    }

    fn words(&self, key: &str, text: Option<&String>) -> String {
        let all = match text {
            Some(text) => {
                format!("{key} is {} for all nodes of the cluster, from the next start of each", json!(text))
            }
            None => format!("{key} is each node's own again, from its next start"),
        };
        match self.own.get(key) {
            Some((Some(value), origin)) if text.is_some() && !origin.is_open() => {
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
    known: watch::Sender<Settings>,
    own: Arc<Own>,
}

impl SettingsKeeper {
    /// `None` without NATS.
    ///
    /// # Errors
    /// If what is kept cannot be read.
    pub(crate) fn new(
        loaded: &Effective,
        membership: &Membership,
        identity: Option<&Identity>,
    ) -> anyhow::Result<(SharedSettings, Option<Self>)> {
        let config = &loaded.config;
        let own = |key: &'static str| (key, (config.shown(key), loaded.origin(key).clone()));
        let own: Arc<Own> = Arc::new(SHARED.into_iter().map(own).collect());
        let Some(identity) = identity.filter(|_| !config.cluster.nats.is_empty()) else {
            return Ok((SharedSettings { cluster: None, own }, None));
        };
        for (key, (value, origin)) in
            own.iter().filter(|(_, (_, origin))| matches!(origin, Origin::Cluster { .. }))
        {
            info!(%origin, "setting: {key} is {}", json!(value));
        }
        let store = membership.fleet.store().clone();
        let path = config.cluster_dir().join(FILE);
        let agreement =
            Agreement::new(KEY, path, identity.clone(), store.clone()).context("settings of the cluster")?;
        let known = watch::Sender::default();
        let (to, changes) = mpsc::channel(CHANGES_MAX);
        let shared = SharedSettings { cluster: Some((to, known.subscribe())), own: own.clone() };
        let journal = membership.journal.clone();
        Ok((shared, Some(Self { agreement, store, journal, changes, known, own })))
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

    async fn change(&mut self, key: &'static str, text: Option<String>) -> Result<Settings, ChangeError> {
        for _ in 0..ATTEMPTS {
            self.agreement.look_again();
            self.agreement.compare().await?;
            let mut settings = self.agreement.agreed().map(Settings::of).unwrap_or_default();
            let before = match &text {
                Some(text) => settings.texts.insert(key.to_owned(), text.clone()),
                None => settings.texts.remove(key),
            };
            if before == text {
                return Ok(settings);
            }
            if self.agreement.propose(json!(settings.texts)).await? {
                let words = match &text {
                    Some(text) => {
                        format!("{key} is {} for all nodes, from the next start of each", json!(text))
                    }
                    None => format!("{key} is each node's own again"),
                };
                self.journal.tell(Kind::SettingChanged, self.agreement.node().to_string(), words).await;
                self.tell();
                return Ok(settings);
            }
        }
        Err(ChangeError::Contested)
    }

    /// What is new, and not in force here.
    fn tell(&self) {
        let settings = self.agreement.agreed().map(Settings::of).unwrap_or_default();
        let before = self.known.send_replace(settings.clone());
        for (key, (value, origin)) in self.own.iter() {
            let Settings { texts, by } = &settings;
            match texts.get(*key) {
                same if same == before.texts.get(*key) => {}
                Some(text) if judged(key, text).ok() == *value => {}
                Some(text) if origin.is_open() => {
                    info!(
                        "setting of the cluster, made on {by}: {key} is {}; in force here from the next start",
                        json!(text)
                    );
                }
                Some(text) => warn!(
                    "setting of the cluster, made on {by}: {key} is {}; not in force here, where {origin} says otherwise",
                    json!(text)
                ),
                None if matches!(origin, Origin::Cluster { .. }) => {
                    info!(
                        "setting of the cluster, taken back on {by}: {key} is this node's own again from the next start"
                    );
                }
                None => {}
            }
        }
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
        let cluster = Some((to, watch::channel(Settings::default()).1));
        let shared = SharedSettings { cluster, own: Arc::default() };
        let own = shared.change("rtmp.listen", Some(":1".to_owned())).await;
        assert!(refused(own).starts_with("rtmp.listen is each node's own; "));
        let wrong = shared.change("hls.profile", Some("lowest".to_owned())).await;
        assert!(refused(wrong).contains("allowed: "));
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn settings_of_a_later_release_are_none() {
        let value = json!({ "hls.profile": { "value": "low" } });
        let agreed = Agreed { number: 1, at_ms: 1, by: "a".to_owned(), value };
        assert_eq!(Settings::of(&agreed).texts, Texts::new());
    }
}
