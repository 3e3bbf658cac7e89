//! This node among the others: what it tells of itself, and what it knows of them.
//!
//! Without NATS it is a cluster of one, and everything here works on what is in the process.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use cluster::{
    Boot, Directory, Fleet, Holder, Journal, Kind, Load, Memory, Nats, NatsSettings, Node, Phase, Presence,
    Role, Store,
};
use relay::{Dialer, Identity};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use transcode::workers::Workers;

use crate::cli;
use crate::config::{Config, RoleSet};
use crate::listen;
use crate::workers::FleetWorkers;

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
}

impl Membership {
    /// # Errors
    /// If NATS is configured, and this node has no name, or its credentials cannot be read.
    pub(crate) async fn join(config: &Config, identity: Option<&Identity>) -> anyhow::Result<Self> {
        let node = match identity {
            Some(identity) => identity.node().clone(),
            None => ALONE.parse().expect("a name of a node"),
        };
        let boot = getrandom::u64().context("the system has no random numbers")?;
        let holder = Holder { node: node.clone(), boot: Boot(boot) };
        let store: Arc<dyn Store> = match config.cluster.nats.as_slice() {
            [] => Arc::new(Memory::default()),
            servers => {
                identity.with_context(|| {
                    format!(
                        "cluster.nats is set, and there is no certificate of a cluster in {}: `tidecast cluster join` takes a \
                         bundle of `tidecast cluster invite`",
                        config.cluster_dir().display()
                    )
                })?;
                let settings = NatsSettings {
                    servers: servers.to_vec(),
                    credentials: config.cluster.nats_credentials.clone(),
                    replicas: config.cluster.nats_replicas,
                    name: format!("tidecast/{node}"),
                };
                Arc::new(Nats::connect(settings).await.context("cluster.nats")?)
            }
        };
        let identity = identity.filter(|_| !config.cluster.nats.is_empty());
        let dialer = identity.map(|identity| Dialer::new(identity, hls::FORMAT_VERSION));
        Ok(Self { dialer, ..Self::of(holder, store) })
    }

    pub(crate) fn of(holder: Holder, store: Arc<dyn Store>) -> Self {
        let fleet = Fleet::new(store.clone(), Directory::new(store.clone(), holder.clone()));
        let journal = Journal::new(store, holder.node.clone(), holder.boot);
        Self { fleet, journal, holder, dialer: None }
    }

    /// Encoders of other nodes; `None` if there can be none.
    pub(crate) fn workers(&self, config: &Config) -> Option<Arc<dyn Workers>> {
        let (own, zone) = (self.holder.node.clone(), config.cluster.zone.clone());
        let dialer = self.dialer.clone()?;
        Some(Arc::new(FleetWorkers::new(self.fleet.clone(), own, zone, dialer)))
    }

    /// As this node tells of itself before its load is known.
    pub(crate) fn describe(
        &self,
        config: &Config,
        relay: Option<SocketAddr>,
        viewers: Option<SocketAddr>,
    ) -> Node {
        let RoleSet { ingest, transcode, edge } = config.roles;
        let roles = [
            (Role::Ingest, ingest),
            (Role::Transcode, transcode),
            (Role::Origin, ingest),
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
        let tell = async |kind: Kind, words: String| {
            self.journal.tell(kind, node.id.to_string(), words).await;
        };
        let mut meter = Meter::new(counts);
        let look = {
            let (node, drain) = (node.clone(), drain.clone());
            move || Node {
                load: Load { egress_max: node.load.egress_max, ..meter.read() },
                phase: if drain.is_cancelled() { Phase::Draining } else { Phase::Serving },
                ..node.clone()
            }
        };
        let presence = Presence::new(self.fleet.store().clone(), look);
        let events = async {
            tokio::select! {
                () = self.fleet.wait_for(&node.id) => {}
                () = stop.cancelled() => return,
            }
            tell(Kind::NodeStarted, format!("{} is there, version {}", node.id, node.version)).await;
            drain.cancelled().await;
            tell(Kind::NodeDraining, format!("{} takes nothing new", node.id)).await;
            stop.cancelled().await;
            tell(Kind::NodeStopped, format!("{} has ended", node.id)).await;
        };
        tokio::join!(self.fleet.run(self.journal.clone(), stop.clone()), presence.run(stop.clone()), events);
    }
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
    pub(crate) encode_free: f64,
}

/// Makes rates of what is counted.
struct Meter<F> {
    counts: F,
    last: Option<(Instant, f64, u64)>,
}

impl<F: FnMut() -> Counts> Meter<F> {
    fn new(counts: F) -> Self {
        Self { counts, last: None }
    }

    fn read(&mut self) -> Load {
        let counts = (self.counts)();
        let used = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "seconds of a process")]
        let used_s = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        let now = Instant::now();
        let (cpu, egress) = match self.last.replace((now, used_s, counts.sent_bytes)) {
            None => (0.0, 0),
            Some((at, used_before_s, sent_before)) => {
                let elapsed_s = (now - at).as_secs_f64().max(f64::EPSILON);
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                let bits = counts.sent_bytes.saturating_sub(sent_before).saturating_mul(8);
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_sign_loss,
                    clippy::cast_possible_truncation,
                    reason = "rates"
                )]
                let rate = (bits as f64 / elapsed_s) as u64;
                #[expect(clippy::cast_precision_loss, reason = "a machine's processors")]
                let share = (used_s - used_before_s) / elapsed_s / cores as f64;
                (share, rate)
            }
        };
        let Counts { viewers, streams, encode_free, .. } = counts;
        Load { cpu, egress, egress_max: 0, viewers, streams, encode_free }
    }
}
