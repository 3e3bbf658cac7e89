//! Keeps whom this node trusts, and its own certificate, as the cluster's authority says, while the node runs.
//!
//! ```text
//!   commands (files) ─┐                              ┌─▶ files, for the next start
//!   the store (NATS) ─┼─▶ the newest list of trust ──┼─▶ Identity: connections are judged by it
//!   the upstream ─────┘                              └─▶ the store, where that has an older one
//! ```
//!
//! The list is signed, so it does not matter who brings it. A certificate is renewed when a third of its time is left, and when
//! the root that signs is another than the one that made it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use cluster::{Bucket, Fleet, Journal, Key, Kind, Store, Told, WriteError};
use futures_util::StreamExt;
use media::NodeId;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use relay::{Dialer, Identity, UpstreamUrl};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::authority::{ClusterFiles, LIST_BYTES_MAX, Validity};
use crate::membership::Membership;

/// How often the files are looked at: a command has to be heard.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often an upstream is asked, by a node that no store tells.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How often the store is given what it does not have.
const PUT_EVERY: Duration = Duration::from_secs(3);

/// After a renewal that failed; doubled by each that follows.
const RENEW_PAUSE_MIN: Duration = Duration::from_secs(5);
const RENEW_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// From here on a certificate's end is told: in the log each day, in `nodes`, and by the metric to whoever sets an alarm.
pub(crate) const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 3_600);
const TELL_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// The one value of its bucket.
const KEY: &str = "list";

/// When this node's certificate ends, in milliseconds since the Unix epoch; 0 without one. For what the node tells of itself.
pub(crate) type CertificateEnd = Arc<AtomicI64>;

/// Everything that this needs of the node.
pub(crate) struct Trust {
    files: ClusterFiles,
    identity: Identity,
    fleet: Fleet,
    journal: Journal,
    dialer: Dialer,
    upstream: Option<UpstreamUrl>,
    /// Of this node's relay, if others can reach it.
    address: Option<String>,
    end: CertificateEnd,
    expiry: Gauge,
    /// Of the list in force; `None` before it was read.
    number: Option<u64>,
    /// By the list in force.
    revoked: BTreeSet<NodeId>,
    /// Of the one in the store.
    stored: u64,
    asked_at: Option<Instant>,
    put_at: Option<Instant>,
    told_at: Option<Instant>,
    renew_at: Option<Instant>,
    renew_pause: Duration,
}

impl Trust {
    pub(crate) fn new(
        files: ClusterFiles,
        identity: Identity,
        membership: &Membership,
        dialer: Dialer,
        upstream: Option<UpstreamUrl>,
        metrics: &mut Registry,
    ) -> Self {
        let Membership { fleet, journal, certificate_end: end, .. } = membership.clone();
        let expiry = Gauge::default();
        metrics.register_with_unit(
            "cluster_certificate_expiry",
            "When this node's certificate in the cluster ends, since the Unix epoch",
            Unit::Seconds,
            expiry.clone(),
        );
        let trust = Self {
            files,
            identity,
            fleet,
            journal,
            dialer,
            upstream,
            address: None,
            end,
            expiry,
            number: None,
            revoked: BTreeSet::new(),
            stored: 0,
            asked_at: None,
            put_at: None,
            told_at: None,
            renew_at: None,
            renew_pause: RENEW_PAUSE_MIN,
        };
        trust.validity();
        trust
    }

    /// At the authority: nodes are told that they find it here.
    pub(crate) fn with_address(mut self, address: Option<String>) -> Self {
        self.address = address;
        self
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        if let Some(address) = self.address.take() {
            let told = self.on_disk(move |files| files.tell_address(&address)).await;
            if let Err(error) = told {
                warn!("nodes are not told where the authority is: {error:#}");
            }
        }
        // Before they are read, so that no change in between is missed.
        let mut stamp = self.files.stamp();
        self.reload().await;
        let store = self.fleet.store().clone();
        let mut told = store.watch(Bucket::Trust);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(told) = told.next() => match told {
                    Told::Anew => self.stored = 0,
                    Told::Changed(change) => match change.value {
                        Some(value) => self.hear(&value).await,
                        None => self.stored = 0,
                    },
                },
                _ = look.tick() => {
                    let now = self.files.stamp();
                    if now != stamp {
                        stamp = now;
                        self.reload().await;
                    }
                    self.ask_upstream().await;
                    self.put(&*store).await;
                    self.look_at_certificate().await;
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// A list from the store.
    async fn hear(&mut self, text: &[u8]) {
        match self.adopt(text).await {
            Ok(number) => self.stored = number,
            // The one that is signed replaces it.
            Err(error) => {
                self.stored = 0;
                warn!("the list of trust in the cluster's store is not taken: {error:#}");
            }
        }
    }

    /// The number of the list, which is in force from now on if it is newer.
    async fn adopt(&mut self, text: &[u8]) -> anyhow::Result<u64> {
        let text = std::str::from_utf8(text).context("this is no list of trust")?.to_owned();
        let (is_newer, theirs) = self
            .on_disk(move |files| {
                let theirs = files.read_list(&text)?.list.number;
                Ok((files.adopt(&text)?, theirs))
            })
            .await?;
        if is_newer {
            self.reload().await;
        }
        Ok(theirs)
    }

    /// What is on disk is in force.
    async fn reload(&mut self) {
        let identity = self.identity.clone();
        let reloaded =
            self.on_disk(move |files| files.reload(&identity).and_then(|()| in_force(&files))).await;
        match reloaded {
            Ok((number, revoked)) if self.number.is_none() => {
                (self.number, self.revoked) = (Some(number), revoked);
            }
            Ok((number, revoked)) if self.number != Some(number) => {
                self.number = Some(number);
                self.renew_at = None;
                info!("whom this node trusts has changed (list {number})");
                if revoked.contains(self.identity.node()) {
                    error!("this node was put out of the cluster: no other one speaks with it any more");
                }
                let before = std::mem::replace(&mut self.revoked, revoked);
                self.tell_revoked(&before).await;
            }
            Ok(_) => {}
            Err(error) => error!("this node goes on with the certificates of before: {error:#}"),
        }
        self.validity();
    }

    /// By the node of the operator who did it: the others hear of it at different times.
    async fn tell_revoked(&self, before: &BTreeSet<NodeId>) {
        if !self.files.has_authority() {
            return;
        }
        for node in self.revoked.difference(before) {
            let words = format!("{node} is put out of the cluster");
            self.journal.tell(Kind::NodeRevoked, node.to_string(), words).await;
        }
    }

    async fn ask_upstream(&mut self) {
        let Some(upstream) = self.upstream.clone() else { return };
        if self.asked_at.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return;
        }
        self.asked_at = Some(Instant::now());
        // One that is away is told of by who pulls streams from it.
        let Ok(slices) = self.dialer.at(upstream).trust().await else { return };
        let text = slices.concat();
        if text.len() <= LIST_BYTES_MAX
            && let Err(error) = self.adopt(&text).await
        {
            debug!("the upstream's list of trust is not taken: {error:#}");
        }
    }

    /// The store gets our list, if that is newer than its own.
    async fn put(&mut self, store: &dyn Store) {
        let is_known = self.number.is_none_or(|number| self.stored >= number);
        if is_known || self.put_at.is_some_and(|at| at.elapsed() < PUT_EVERY) {
            return;
        }
        self.put_at = Some(Instant::now());
        let Ok(Some(ours)) = self.on_disk(|files| files.trust()).await else { return };
        let key = Key::fixed(KEY);
        let text = Bytes::from(ours.text);
        let put = async {
            let Some(there) = store.get(Bucket::Trust, &key).await? else {
                return store.create(Bucket::Trust, &key, text).await.map(drop);
            };
            let files = self.files.clone();
            let theirs = std::str::from_utf8(&there.value).ok().and_then(|text| files.read_list(text).ok());
            let is_older = match theirs {
                Some(theirs) => theirs.list.number < ours.list.number,
                // Perhaps of a root that this node has not heard of: who has the key knows better.
                None => self.files.has_authority(),
            };
            if !is_older {
                return Ok(());
            }
            store.update(Bucket::Trust, &key, text, there.revision).await.map(drop)
        };
        match put.await {
            Ok(()) => self.stored = ours.list.number,
            Err(WriteError::Conflict) => {}
            Err(error) => debug!("the list of trust is not in the store yet: {error}"),
        }
    }

    fn validity(&self) -> Option<Validity> {
        let validity = self.files.validity();
        let validity = validity.inspect_err(|error| debug!("this node's certificate: {error:#}")).ok()?;
        let end = validity.ends.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.end.store(i64::try_from(end.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.expiry.set(i64::try_from(end.as_secs()).unwrap_or(i64::MAX));
        Some(validity)
    }

    async fn look_at_certificate(&mut self) {
        if self.renew_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        // Without trouble a certificate is looked at each minute.
        self.renew_at = Some(Instant::now() + Duration::from_secs(60));
        let Some(validity) = self.validity() else { return };
        let now = SystemTime::now();
        let soon = validity.ends.duration_since(now).unwrap_or_default() < ENDS_SOON;
        if soon && self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            self.told_at = Some(Instant::now());
            warn!("{}", ending(validity.ends, now));
        }
        if !is_due(validity, now) && !soon {
            return;
        }
        match self.renew().await {
            Ok(()) => {
                self.renew_pause = RENEW_PAUSE_MIN;
                self.told_at = None;
                self.renew_at = Some(Instant::now() + RENEW_PAUSE_MAX);
                info!("this node's certificate is renewed");
                self.reload().await;
            }
            Err(error) => {
                let pause = self.renew_pause;
                self.renew_pause = (pause * 2).min(RENEW_PAUSE_MAX);
                self.renew_at = Some(Instant::now() + pause);
                warn!(
                    "this node's certificate is not renewed, tried again in {} s: {error:#}",
                    pause.as_secs()
                );
            }
        }
    }

    /// Here, where the authority is, or by asking whoever may be it.
    async fn renew(&self) -> anyhow::Result<()> {
        let request = self.on_disk(|files| files.renewal()).await?;
        if self.files.has_authority() {
            let node: NodeId = self.identity.node().clone();
            return self
                .on_disk(move |files| {
                    let granted = files.renew(&node, &request)?;
                    files.finish_renewal(&granted)
                })
                .await;
        }
        let told = self.on_disk(|files| files.trust()).await?.and_then(|signed| signed.list.authority);
        let told = told.and_then(|url| url.parse().ok());
        let mut failures = Vec::new();
        for at in told.into_iter().chain(self.upstream.clone()) {
            match self.dialer.at(at).renew(request.clone().into()).await {
                Ok(slices) => {
                    let granted = String::from_utf8(slices.concat())?;
                    return self.on_disk(move |files| files.finish_renewal(&granted)).await;
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        if failures.is_empty() {
            bail!(
                "nobody has said where the authority is; `tidecast cluster invite` there makes a bundle by hand"
            );
        }
        bail!("{}", failures.join("; "))
    }

    /// What waits for the disk does not hold up a thread that carries media.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(ClusterFiles) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let files = self.files.clone();
        spawn_blocking(move || work(files)).await.context("a thread ended")?
    }
}

/// The number of the list, and whom it puts out.
fn in_force(files: &ClusterFiles) -> anyhow::Result<(u64, BTreeSet<NodeId>)> {
    let signed = files.trust()?;
    Ok(signed.map(|signed| (signed.list.number, signed.list.revoked())).unwrap_or_default())
}

/// When a third of its time is left, or another root signs now.
fn is_due(validity: Validity, now: SystemTime) -> bool {
    let lasts = validity.ends.duration_since(validity.begins).unwrap_or_default();
    !validity.is_of_newest_root || now + lasts / 3 >= validity.ends
}

fn ending(ends: SystemTime, now: SystemTime) -> String {
    let left = ends.duration_since(now).unwrap_or_default();
    let days = left.as_secs() / (24 * 3_600);
    format!("this node's certificate in the cluster ends in {days} days; other nodes refuse it then")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[test]
    fn a_certificate_is_renewed_when_a_third_is_left_or_another_root_signs() {
        let validity = |is_of_newest_root| Validity {
            begins: UNIX_EPOCH,
            ends: UNIX_EPOCH + 90 * DAY,
            is_of_newest_root,
        };
        let due = |is_of_newest_root, day| is_due(validity(is_of_newest_root), UNIX_EPOCH + day * DAY);
        assert_eq!([59, 60, 200].map(|day| due(true, day)), [false, true, true]);
        assert!(due(false, 1));
    }

    #[test]
    fn the_end_is_told_in_days() {
        let told = ending(UNIX_EPOCH + 10 * DAY, UNIX_EPOCH + DAY);
        assert!(told.contains("ends in 9 days"), "{told}");
    }
}
