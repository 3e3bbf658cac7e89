//! This node among the others: what it tells of itself, and what it knows of them.
//!
//! Without NATS it is a cluster of one, and everything here works on what is in the process.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use cluster::{
    Boot, Directory, Fleet, Holder, Journal, Kind, Load, Memory, Nats, NatsSettings, Node, Phase, Presence,
    Role, State, Store, place,
};
use relay::{Dialer, Identity};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;
use transcode::workers::Workers;

use crate::authority::hex;
use crate::cli;
use crate::config::{Config, RoleSet, SHARED, UNLISTED};
use crate::listen;
use crate::settings::SharedSettings;
use crate::standing::Standing;
use crate::trust::CertificateEnd;
use crate::workers::{FleetWorkers, Loans};

/// How often the load is read.
const READ_EVERY: Duration = Duration::from_secs(1);

/// What rates are of: parts leave in bursts.
const RATE_OVER: Duration = Duration::from_secs(3);

/// What a start waits for NATS: the connection has just been begun.
const REACHED_WITHIN: Duration = Duration::from_secs(3);

/// Of a node that is in no cluster.
const ALONE: &str = "this-node";

/// What this process knows of the cluster. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Membership {
    pub(crate) fleet: Fleet,
    pub(crate) journal: Journal,
    holder: Holder,
    /// To ask other nodes; `None` if there are none.
    pub(crate) dialer: Option<Dialer>,
    pub(crate) standing: watch::Sender<Standing>,
    load: watch::Sender<Load>,
    pub(crate) certificate_end: CertificateEnd,
    pub(crate) settings: SharedSettings,
    /// Whether NATS was reached at the start, if it is configured.
    pub(crate) has_reached_store: bool,
    /// What other nodes encode for this one.
    pub(crate) loans: Loans,
}

impl Membership {
    /// # Errors
    /// If NATS is configured, and this node has no name, its credentials cannot be read, or an operator has to mend NATS: two nodes
    /// without a store would take one stream both.
    pub(crate) async fn join(config: &Config, identity: Option<&Identity>) -> anyhow::Result<Self> {
        let node = match identity {
            Some(identity) => identity.node().clone(),
            None => ALONE.parse().expect("a name of a node"),
        };
        let boot = getrandom::u64().context("the system has no random numbers")?;
        let holder = Holder { node: node.clone(), boot: Boot(boot) };
        let (store, has_reached_store): (Arc<dyn Store>, _) = match config.cluster.nats.as_slice() {
            [] => (Arc::new(Memory::default()), true),
            servers => {
                identity.with_context(|| {
                    format!(
                        "cluster.nats is set, and there is no certificate of a cluster in {}: `tidecast cluster join` takes a \
                         token of `tidecast cluster token`",
                        config.cluster_dir().display()
                    )
                })?;
                let settings = NatsSettings {
                    servers: servers.to_vec(),
                    credentials: config.cluster.nats_credentials.clone(),
                    replicas: config.cluster.nats_replicas,
                    name: format!("tidecast/{node}"),
                };
                let nats = Nats::connect(settings).await.context("cluster.nats")?;
                let is_reached = nats.prepare(REACHED_WITHIN).await.context("cluster.nats")?;
                (Arc::new(nats), is_reached)
            }
        };
        let identity = identity.filter(|_| !config.cluster.nats.is_empty());
        let dialer = identity.map(|identity| Dialer::new(identity, hls::FORMAT_VERSION));
        Ok(Self { dialer, has_reached_store, ..Self::of(holder, store) })
    }

    pub(crate) fn of(holder: Holder, store: Arc<dyn Store>) -> Self {
        let fleet = Fleet::new(store.clone(), Directory::new(store.clone(), holder.clone()));
        let journal = Journal::new(store, holder.node.clone(), holder.boot);
        Self {
            fleet,
            journal,
            holder,
            dialer: None,
            standing: watch::Sender::default(),
            load: watch::Sender::default(),
            certificate_end: CertificateEnd::default(),
            settings: SharedSettings::alone(),
            has_reached_store: true,
            loans: Loans::default(),
        }
    }

    /// How this node stands, from now on.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Sends viewers to other nodes, for up to `within`: done when none is left, or has nowhere to go.
    pub(crate) async fn leave(self, within: Duration) {
        let mut load = self.load.subscribe();
        let is_empty = |load: &Load| load.viewers == 0;
        if within.is_zero() || is_empty(&load.borrow_and_update()) || !self.has_others() {
            return;
        }
        self.standing.send_modify(|standing| standing.leaves_within = Some(within));
        info!("viewers go to other nodes, for up to {} s; another signal ends that", within.as_secs());
        tokio::select! {
            _ = load.wait_for(is_empty) => {}
            () = self.are_others_gone() => {}
            () = sleep(within) => {}
        }
        info!(viewers = self.load.borrow().viewers, "viewers had time to go to other nodes");
    }

    /// Encoders of other nodes; `None` if there can be none.
    pub(crate) fn workers(&self, config: &Config) -> Option<Arc<dyn Workers>> {
        let (own, zone) = (self.holder.node.clone(), config.cluster.zone.clone());
        let dialer = self.dialer.clone()?;
        Some(Arc::new(FleetWorkers::new(self, own, zone, dialer)))
    }

    /// As this node tells of itself before its load is known.
    pub(crate) fn describe(
        &self,
        config: &Config,
        relay: Option<SocketAddr>,
        viewers: Option<SocketAddr>,
    ) -> Node {
        let RoleSet { ingest, origin, transcode, edge } = config.roles;
        let roles = [
            (Role::Ingest, ingest),
            (Role::Transcode, transcode),
            (Role::Origin, origin),
            (Role::Edge, edge),
        ];
        let roles = roles.into_iter().filter_map(|(role, has)| has.then_some(role)).collect();
        let from = address_towards(config);
        let url = |scheme: &str, addr: SocketAddr| format!("{scheme}://{}", reachable(addr, from));
        let relay_public = config.relay.public.as_ref().map(ToString::to_string);
        let relay = relay_public.or_else(|| Some(url("https", relay?)));
        let viewers = viewers.map(|addr| config.http.public.clone().unwrap_or_else(|| url("http", addr)));
        Node {
            id: self.holder.node.clone(),
            boot: self.holder.boot,
            roles,
            zone: config.cluster.zone.clone(),
            version: cli::VERSION.to_owned(),
            phase: Phase::Serving,
            relay,
            viewers,
            load: Load { egress_max: config.http.egress_max, ..Load::default() },
            room: None,
            certificate_ends_ms: None,
            settings: if ingest { equal_on_all(config) } else { BTreeMap::new() },
        }
    }

    /// Listens, and tells of this node, until `stop`. `counts`: what the node has sent and has.
    pub(crate) async fn run(
        self,
        node: Node,
        counts: impl FnMut() -> Counts + Send,
        drain: CancellationToken,
        stop: CancellationToken,
    ) {
        let news = Arc::new(Notify::new());
        self.load.send_replace(node.load);
        let look = {
            let (node, drain) = (node.clone(), drain.clone());
            let (load, standing) = (self.load.subscribe(), self.standing.subscribe());
            let end = self.certificate_end.clone();
            move || {
                let standing = *standing.borrow();
                let is_draining = standing.is_draining() || drain.is_cancelled();
                Node {
                    load: *load.borrow(),
                    room: Some(standing.room),
                    certificate_ends_ms: Some(end.load(Ordering::Relaxed)).filter(|end| *end > 0),
                    phase: if is_draining { Phase::Draining } else { Phase::Serving },
                    ..node.clone()
                }
            }
        };
        let presence = Presence::new(self.fleet.store().clone(), look, news.clone());
        let measuring = self.measure(counts, &news);
        let obeying = self.obey(&node, &news);
        let until_stop = async {
            tokio::select! {
                never = measuring => never,
                never = obeying => never,
                () = stop.cancelled() => {}
            }
        };
        let events = async {
            tokio::select! {
                () = self.fleet.wait_for(&node.id) => {}
                () = stop.cancelled() => return,
            }
            let tell = async |kind: Kind, words: String| {
                self.journal.tell(kind, node.id.to_string(), words).await;
            };
            tell(Kind::NodeStarted, format!("{} is there, version {}", node.id, node.version)).await;
            let mut standing = self.standing.subscribe();
            tokio::select! {
                _ = standing.wait_for(|standing| standing.leaves_within.is_some()) => {}
                () = drain.cancelled() => {}
            }
            news.notify_one();
            let ending = standing.borrow().ending();
            tell(Kind::NodeDraining, format!("{} {ending}", node.id)).await;
            stop.cancelled().await;
            tell(Kind::NodeStopped, format!("{} has ended", node.id)).await;
        };
        tokio::join!(
            self.fleet.run(self.journal.clone(), stop.clone()),
            self.journal.run(stop.clone()),
            presence.run(stop.clone()),
            until_stop,
            events
        );
        self.journal.finish().await;
    }

    /// Reads the load, and what room it leaves. Never ends.
    async fn measure(&self, counts: impl FnMut() -> Counts + Send, news: &Notify) {
        let load = &self.load;
        let mut meter = Meter::new(counts);
        let mut tick = interval(READ_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let read = Load { egress_max: load.borrow().egress_max, ..meter.read() };
            load.send_replace(read);
            // For want of processors nobody is sent away whom no other node could take.
            let share = if self.has_others() { read.share() } else { read.egress_share() };
            let is_other = self.standing.send_if_modified(|standing| {
                let before = standing.room;
                standing.room = before.next(share);
                before != standing.room
            });
            if is_other {
                let room = self.standing.borrow().room;
                info!(share, ?room, "room for viewers");
                news.notify_one();
            }
        }
    }

    /// Whether another node could take viewers.
    fn has_others(&self) -> bool {
        self.fleet.look(|nodes| {
            let others = nodes.filter(|candidate| {
                candidate.node.id != self.holder.node
                    && candidate.state == State::Serving
                    && place::shows_any(candidate.node)
            });
            others.count() > 0
        })
    }

    async fn are_others_gone(&self) {
        let mut changed = self.fleet.changed();
        while self.has_others() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes nothing new for as long as that is ordered. Never ends.
    async fn obey(&self, node: &Node, news: &Notify) {
        let (mut changed, orders) = (self.fleet.changed(), self.fleet.orders());
        loop {
            let (drained, was_drained) = (self.fleet.is_drained(&node.id), self.standing.borrow().drained);
            // What is not heard of any more may only be heard again in a moment, when listening has begun anew.
            if drained != was_drained && (drained || matches!(orders.is_drained(&node.id).await, Ok(false))) {
                self.standing.send_modify(|standing| standing.drained = drained);
                news.notify_one();
                let (kind, words) = if drained {
                    (Kind::NodeDraining, format!("{} takes nothing new, as was ordered", node.id))
                } else {
                    (Kind::NodeResumed, format!("{} takes publishers and viewers again", node.id))
                };
                info!("{words}");
                self.journal.tell(kind, node.id.to_string(), words).await;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// As `config show` has each, but for names that are on no list, of which nobody else should hear.
fn equal_on_all(config: &Config) -> BTreeMap<String, String> {
    let told = SHARED.iter().filter_map(|name| {
        let value = config.shown(name)?;
        let value = match *name {
            UNLISTED => hex(&digest(&SHA256, value.as_bytes()).as_ref()[..4]),
            _ => value,
        };
        Some(((*name).to_owned(), value))
    });
    told.collect()
}

/// `addr` as others reach it: `from`, if it is every address of the machine.
fn reachable(addr: SocketAddr, from: Option<IpAddr>) -> String {
    let ip = if addr.ip().is_unspecified() { from.unwrap_or(addr.ip()) } else { addr.ip() };
    let addr = SocketAddr::new(ip, addr.port());
    format!("{}:{}", listen::host_in_url(addr), addr.port())
}

/// The address by which this machine reaches NATS, and so most likely the other nodes. Sends nothing.
fn address_towards(config: &Config) -> Option<IpAddr> {
    let server = config.cluster.nats.first()?;
    let towards = |any: &str| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect((server.host(), server.port())).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    ["0.0.0.0:0", "[::]:0"].into_iter().find_map(towards)
}

/// Of this process since it began, or now.
pub(crate) struct Counts {
    pub(crate) sent_bytes: u64,
    pub(crate) viewers: u32,
    pub(crate) streams: u32,
    /// Cores; `None` if nothing is lent.
    pub(crate) encode_free: Option<f64>,
}

/// Makes rates of what is counted.
struct Meter<F> {
    counts: F,
    /// Of [`RATE_OVER`], the oldest first: when, seconds of processors, bytes sent.
    readings: VecDeque<(Instant, f64, u64)>,
}

impl<F: FnMut() -> Counts> Meter<F> {
    fn new(counts: F) -> Self {
        Self { counts, readings: VecDeque::new() }
    }

    fn read(&mut self) -> Load {
        let counts = (self.counts)();
        let used = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "seconds of a process")]
        let used_s = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        let now = Instant::now();
        let Counts { viewers, streams, encode_free, .. } = counts;
        self.readings.push_back((now, used_s, counts.sent_bytes));
        // Of two that are long enough the shorter one.
        while self.readings.get(1).is_some_and(|(at, ..)| now - *at >= RATE_OVER) {
            self.readings.pop_front();
        }
        let (at, used_before_s, sent_before) = self.readings[0];
        let elapsed_s = (now - at).as_secs_f64();
        if elapsed_s == 0.0 {
            return Load { viewers, streams, encode_free, ..Load::default() };
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let bits = counts.sent_bytes.saturating_sub(sent_before).saturating_mul(8);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "rates"
        )]
        let egress = (bits as f64 / elapsed_s) as u64;
        #[expect(clippy::cast_precision_loss, reason = "a machine's processors")]
        let cpu = (used_s - used_before_s) / elapsed_s / cores as f64;
        Load { cpu, egress, egress_max: 0, viewers, streams, encode_free }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::testing;

    #[tokio::test(start_paused = true)]
    async fn the_event_of_a_node_that_is_about_to_end_says_whom_it_takes_until_then() {
        for (leaves_within, words) in [
            (
                Some(Duration::from_secs(15)),
                "a is about to end: viewers are sent to other nodes first, and publishers are let in until then",
            ),
            (None, "a takes nothing new, and is about to end"),
        ] {
            let holder = Holder { node: "a".parse().unwrap(), boot: Boot(1) };
            let membership = Membership::of(holder, Arc::new(Memory::default()));
            let mut events = membership.journal.follow(cluster::Sequence(0));
            let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
            let node = testing::node("a", &[]);
            let counts = || Counts { sent_bytes: 0, viewers: 0, streams: 0, encode_free: None };
            let running = membership.clone().run(node, counts, drain.clone(), stop.clone());
            let running = tokio::spawn(running);
            assert_eq!(events.next().await.unwrap().event.kind, Kind::NodeStarted);
            match leaves_within {
                Some(_) => membership.standing.send_modify(|standing| standing.leaves_within = leaves_within),
                None => drain.cancel(),
            }
            let event = events.next().await.unwrap().event;
            assert_eq!((event.kind, event.words.as_str()), (Kind::NodeDraining, words));
            stop.cancel();
            running.await.unwrap();
        }
    }
}
