//! Composes the roles of this process and binds their ports.
//!
//!   rtmp ─▶ ingest ─▶ live log ─▶ origin ─▶ segment index ─▶ edge ─▶ http, WebRTC
//!                       ▲  │   ▲                  ▲     └─▶ relay ─▶ other nodes
//!                    transcode └ upstream ─▶ pull ┘
//!
//! A drain ends no session: publishers are told to connect again, viewers get what they are being sent, and the next
//! process goes on with what was open.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use cluster::Node;
use edge::{Admission, Neighbours, Others, Programmes, PullMetrics, Puller, Purpose, Site, Upstreams, Whep};
use hls::Catalog;
use ingest::rtmp::{self, Server as Rtmp};
use ingest::whip::{self, Whip};
use ingest::{Checkpoints, Gate, NoCheckpoints, Policy};
use net::tls::Protocols;
use net::{Guesses, Limits, Places};
use origin::{Origin, Relay, RelayMetrics};
use prometheus_client::registry::Registry;
use relay::{Dialer, Identity, StreamRegistry, UpstreamUrl, WireMetrics};
use rtc::port::{Port, PortDriver, PortSettings, Reason, StunServer};
use rtc::signalling::IceServers;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transcode::Lender;

use crate::admin::Admin;
use crate::ahead::open_ahead;
use crate::api::Api;
use crate::authority::ClusterFiles;
use crate::backstage::Backstage;
use crate::certificates::Certificates;
use crate::checkpoints::{FileCheckpoints, SharedCheckpoints};
use crate::claims::Claims;
use crate::config::{Config, Publish};
use crate::descriptors;
use crate::desk::FrontDesk;
use crate::keeper::OneKey;
use crate::lending::ForNodes;
use crate::listen::{self, Handed};
use crate::membership::{Counts, Membership};
use crate::offer::Offer;
use crate::origins::{keep_ready, miss};
use crate::paths::{Here, Paths};
use crate::publishing::Publishing;
use crate::route::FleetRoute;
use crate::standing::Doors;
use crate::transcoding::Transcoding;
use crate::trust::Trust;
use crate::viewers::{Encrypted, Viewers};

/// Every role of this process, bound but not running.
pub(crate) struct Roles {
    source: Source,
    relay: Option<RelayRole>,
    viewers: Viewers,
    /// Of everything that is encrypted for the open internet; `None` if nothing is.
    certificates: Option<Certificates>,
    admin: Admin,
    membership: Membership,
    doors: Doors,
    /// `None` on a node that is in no cluster.
    trust: Option<Trust>,
    counted: Counted,
}

/// What a node's load is made of.
struct Counted {
    hls: hls::Metrics,
    port: Port,
    catalog: Catalog,
    audience: edge::Audience,
    streams: Option<StreamRegistry>,
    transcoding: Option<Arc<Transcoding>>,
}

impl Counted {
    fn read(&self) -> Counts {
        let by_webrtc: u32 = self.audience.all().values().sum();
        let by_hls: u32 = self.catalog.streams().iter().map(|stream| stream.status().viewers).sum();
        let streams = self.streams.as_ref().map_or(0, |streams| streams.streams().len());
        let lender = self.transcoding.as_ref().and_then(|transcoding| transcoding.lender());
        Counts {
            sent_bytes: self.hls.sent.get() + self.port.counters().sent_bytes.get(),
            viewers: by_webrtc.saturating_add(by_hls),
            streams: u32::try_from(streams).unwrap_or(u32::MAX),
            encode_free: lender.map(Lender::free),
        }
    }
}

/// Where the streams come from.
enum Source {
    /// Published here.
    Own(Box<Own>),
    /// Of another node.
    Pulled(Box<Pulled>),
}

struct Pulled {
    puller: Puller,
    /// `None` if the cluster knows it of each stream.
    upstream: Option<UpstreamUrl>,
    webrtc: WebRtc,
    /// For the streams of others.
    transcoding: Option<Arc<Transcoding>>,
    /// Edges read from here.
    is_origin: bool,
}

/// The one port for everybody who speaks WebRTC, and those who watch by it.
struct WebRtc {
    driver: PortDriver,
    listen: SocketAddr,
    whep: Whep,
}

/// The roles around the live log.
struct Own {
    gate: Gate,
    rtmp: Rtmp,
    whip: Whip,
    webrtc: WebRtc,
    /// When the sessions on it have said goodbye.
    whip_drain: CancellationToken,
    origin: Origin,
    transcoding: Arc<Transcoding>,
    streams: StreamRegistry,
    claims: Claims,
    /// Edges read from here, and not from others that read from here.
    is_origin: bool,
}

/// For other nodes.
pub(crate) struct RelayRole {
    pub(crate) listener: relay::server::Listener,
    pub(crate) service: ForNodes,
}

/// The addresses that were bound, with the real port where 0 was asked for.
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<Encrypted>,
    pub(crate) rtmp: Option<SocketAddr>,
    /// UDP and TCP.
    pub(crate) webrtc: SocketAddr,
    pub(crate) rtmps: Option<SocketAddr>,
    pub(crate) relay: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
}

impl Addresses {
    /// Before the path of a page, for people.
    pub(crate) fn pages(&self) -> String {
        match &self.https {
            Some(https) => https.origin(),
            None => format!("http://{}:{}", listen::host_in_url(self.http), self.http.port()),
        }
    }

    /// The server to write into an encoder. Encoders cannot be told to trust a self-signed certificate.
    pub(crate) fn publish(&self, rtmp: SocketAddr) -> String {
        match (&self.https, self.rtmps) {
            (Some(https), Some(rtmps)) if https.self_signed.is_none() => {
                format!("rtmps://{}:{}/{{app}}", https.host(), rtmps.port())
            }
            _ => format!("rtmp://{}:{}/{{app}}", listen::host_in_url(rtmp), rtmp.port()),
        }
    }
}

/// Lets publishers in, and goes on with the sessions that the last process left behind.
fn gate(
    config: &Config,
    key: OneKey,
    streams: StreamRegistry,
    ladder: Arc<Transcoding>,
    claims: Claims,
    metrics: ingest::Metrics,
) -> Gate {
    let policy = Policy {
        part_target: config.hls.profile.part_target(),
        on_conflict: config.publish.on_conflict,
        linger: config.publish.linger,
    };
    let (checkpoints, left): (Arc<dyn Checkpoints>, _) = match FileCheckpoints::open(&config.data_dir) {
        Ok(files) => {
            let left = files.load(SystemTime::now());
            (Arc::new(files), left)
        }
        Err(error) => {
            warn!("sessions will not survive a restart: {error:#}");
            (Arc::new(NoCheckpoints), Vec::new())
        }
    };
    let checkpoints = Arc::new(SharedCheckpoints::new(checkpoints, &claims));
    let gate = Gate::new(streams, Arc::new(key), policy, checkpoints, ladder, metrics);
    let gate = gate.with_claims(Arc::new(claims));
    for checkpoint in &left {
        gate.restore(checkpoint, Instant::now(), SystemTime::now());
    }
    gate
}

/// Of an address's connections a quarter is left for what is there already.
fn catalog(config: &Config, metrics: &mut Registry) -> (Catalog, hls::Metrics) {
    let per_address = config.http.connections_per_address;
    let metrics = hls::Metrics::register(metrics);
    let settings = hls::Settings {
        held_per_address: per_address - per_address / 4,
        has_steering: !config.cluster.nats.is_empty(),
    };
    (Catalog::with_settings(metrics.clone(), settings), metrics)
}

impl Roles {
    /// Binds every port of a node that takes publishers, but for those that are `handed` over.
    ///
    /// # Errors
    /// If one of them cannot be bound; nothing has been started then.
    pub(crate) fn build(
        config: &Config,
        key: OneKey,
        membership: Membership,
        identity: Option<Identity>,
        certificates: Option<Certificates>,
        handed: &mut Handed,
        mut metrics: Registry,
    ) -> anyhow::Result<Self> {
        let streams = StreamRegistry::new(relay::Metrics::register(&mut metrics));
        let (catalog, hls) = catalog(config, &mut metrics);
        let connections = descriptors::share();
        let publications = ingest::Metrics::register(&mut metrics);
        // One for everything that the publish key opens.
        let guesses = Guesses::default();
        let transcoding = Arc::new(transcoding(config, &membership, &mut metrics));
        let Publish { linger, on_conflict } = config.publish;
        let claims = Claims::new(&membership, on_conflict, linger, config.streams.unlisted.clone());
        let gate =
            gate(config, key.clone(), streams.clone(), transcoding.clone(), claims.clone(), publications);
        let backstage = Backstage::new(key, gate.refusals().clone(), guesses.clone(), &mut metrics);
        let rtmp = Rtmp::new(
            handed.listen("rtmp", config.rtmp.listen, rtmp::SOCKET)?,
            gate.clone(),
            Limits { total: connections.publishers, ..rtmp::CONNECTIONS },
            guesses.clone(),
            rtmp::Metrics::register(&mut metrics),
        );
        let rtmp = match &certificates {
            Some(certificates) => {
                let listener = handed.listen("rtmps", config.rtmps.listen, rtmp::SOCKET)?;
                rtmp.with_tls(listener, certificates.tls(Protocols::Unnamed)?)
            }
            None => rtmp,
        };
        let whip_drain = CancellationToken::new();
        let whip_metrics = whip::Metrics::register(&mut metrics);
        let edge_metrics = edge::Metrics::register(&mut metrics, catalog.clone());
        let (port, webrtc) = bind_webrtc(config, Programmes::Own(streams.clone()), &edge_metrics)?;
        crate::metrics::port::register(&mut metrics, port.clone());
        let whip_settings = whip::Settings { limits: whip::PUBLISHERS, ice_servers: ice_servers(config)? };
        let counted = Counted {
            hls,
            port: port.clone(),
            catalog: catalog.clone(),
            audience: edge_metrics.audience().clone(),
            streams: Some(streams.clone()),
            transcoding: Some(transcoding.clone()),
        };
        let whip = Whip::new(port, gate.clone(), &whip_settings, guesses, whip_metrics, whip_drain.clone())?;
        let rtmp_port = rtmp.local_addr().context("rtmp.listen")?.port();
        let rtmps = rtmp.encrypted_addr().context("rtmps.listen")?.map(|addr| addr.port());
        // Encoders cannot be told to trust a self-signed certificate.
        let rtmps = rtmps.filter(|_| certificates.as_ref().is_some_and(|own| own.trust().is_none()));
        let site = || {
            let site = Site::new(streams.clone(), catalog.clone(), rtmp_port).with_rtmps(rtmps);
            site.with_audience(edge_metrics.audience().clone())
                .with_unlisted(config.streams.unlisted.clone())
                .with_alternates(config.http.alternates.clone())
        };
        let mut here = Here::new(&membership)
            .with_published(site(), streams.clone(), transcoding.clone())
            .with_watched(catalog.clone(), edge_metrics.audience().clone());
        let offer = Offer::Own { catalog: catalog.clone(), streams: streams.clone(), site: site() };
        let relay = bind_relay(config, identity.as_ref(), handed, &mut metrics, |identity, metrics| {
            here.with_readers(&metrics);
            let relay = Relay::new(identity, catalog.clone(), streams.clone(), offer, metrics);
            ForNodes::new(relay, config.roles.transcode.then(|| transcoding.clone()), here.clone())
        })?;
        let api = Api::new(&membership, ClusterFiles::new(config.cluster_dir()))
            .with_paths(Paths::new(&membership, here), config.cluster.zone.clone());
        let trust = identity.map(|identity| trust(config, &membership, identity, &mut metrics));
        let backstage = Arc::new(backstage);
        let route = route(config, &membership);
        let neighbours = neighbours(&membership, || route.clone());
        let others = membership.dialer.clone().map(|dialer| Upstreams::routed(dialer, route));
        let others = others.map(|upstreams| Arc::new(Others::new(upstreams)));
        let doors = Doors {
            gate: Some(gate.clone()),
            admission: Admission::default(),
            whep: webrtc.whep.clone(),
            neighbours: neighbours.clone(),
        };
        let viewers = Viewers::bind(
            config,
            certificates.as_ref(),
            handed,
            || {
                site()
                    .with_prefer(config.player.prefer)
                    .with_neighbours(neighbours.clone())
                    .with_others(others.clone())
                    .with_admission(doors.admission.clone())
                    .with_backstage(backstage.clone())
                    .with_endpoint(Arc::new(Publishing(whip.clone())))
                    .with_endpoint(Arc::new(webrtc.whep.clone()))
            },
            viewer_places(config, connections),
            edge_metrics.clone(),
        )?;
        Ok(Self {
            viewers,
            certificates,
            relay,
            source: Source::Own(Box::new(Own {
                gate,
                rtmp,
                whip,
                webrtc,
                whip_drain,
                origin: Origin::new(streams.clone(), catalog.clone()),
                transcoding,
                streams: streams.clone(),
                claims,
                is_origin: config.roles.origin,
            })),
            membership,
            doors,
            trust,
            counted,
            // Last: whoever can ask for readiness may rely on the other ports.
            admin: Admin::bind(config.admin.listen, handed, metrics, api)?,
        })
    }

    /// Binds every port of a node that serves the streams of another.
    ///
    /// # Errors
    /// As [`Roles::build`], and if the node is in no cluster.
    pub(crate) fn build_edge(
        config: &Config,
        membership: Membership,
        identity: Option<Identity>,
        certificates: Option<Certificates>,
        handed: &mut Handed,
        mut metrics: Registry,
    ) -> anyhow::Result<Self> {
        let identity = identity.with_context(|| {
            format!(
                "an edge or origin needs a certificate of its cluster in {}: `tidecast cluster token` on the other machine \
                 prints a line, `tidecast cluster join` here takes it",
                config.cluster_dir().display()
            )
        })?;
        let route = route(config, &membership);
        let neighbours = neighbours(&membership, || route.clone());
        let (catalog, hls) = catalog(config, &mut metrics);
        let streams = StreamRegistry::new(relay::Metrics::register(&mut metrics));
        let connections = descriptors::share();
        let http = edge::Metrics::register(&mut metrics, catalog.clone());
        let dialer = Dialer::new(&identity, hls::FORMAT_VERSION);
        let upstreams = match &config.upstream {
            Some(url) => Upstreams::one(dialer.at(url.clone())),
            None => Upstreams::routed(dialer, route.clone()),
        };
        let pulled = PullMetrics::register(&mut metrics);
        let audience = http.audience().clone();
        let purpose = if config.roles.origin { Purpose::Nodes } else { Purpose::Viewers };
        let puller = Puller::new(upstreams, purpose, catalog.clone(), streams.clone(), audience, pulled);
        let (port, webrtc) = bind_webrtc(config, Programmes::Pulled(puller.clone()), &http)?;
        crate::metrics::port::register(&mut metrics, port.clone());
        let transcoding = config.roles.transcode;
        let transcoding = transcoding.then(|| Arc::new(self::transcoding(config, &membership, &mut metrics)));
        let counted = Counted {
            hls,
            port,
            catalog: catalog.clone(),
            audience: http.audience().clone(),
            streams: None,
            transcoding: transcoding.clone(),
        };
        let mut here = Here::new(&membership).with_watched(catalog.clone(), http.audience().clone());
        let offer = Offer::Pulled { catalog: catalog.clone(), puller: puller.clone() };
        let relay = bind_relay(config, Some(&identity), handed, &mut metrics, |identity, metrics| {
            here.with_readers(&metrics);
            let relay = Relay::new(identity, catalog.clone(), streams.clone(), offer, metrics);
            ForNodes::new(relay, transcoding.clone(), here.clone())
        })?;
        let api = Api::new(&membership, ClusterFiles::new(config.cluster_dir()))
            .with_paths(Paths::new(&membership, here), config.cluster.zone.clone());
        let doors = Doors {
            gate: None,
            admission: Admission::default(),
            whep: webrtc.whep.clone(),
            neighbours: neighbours.clone(),
        };
        let trust = Some(trust(config, &membership, identity, &mut metrics));
        let site = || {
            Site::remote(puller.clone())
                .with_neighbours(neighbours.clone())
                .with_admission(doors.admission.clone())
                .with_alternates(config.http.alternates.clone())
                .with_prefer(config.player.prefer)
                .with_endpoint(Arc::new(webrtc.whep.clone()))
        };
        let places = viewer_places(config, connections);
        Ok(Self {
            viewers: Viewers::bind(config, certificates.as_ref(), handed, site, places, http)?,
            certificates,
            relay,
            source: Source::Pulled(Box::new(Pulled {
                puller,
                upstream: config.upstream.clone(),
                webrtc,
                transcoding,
                is_origin: config.roles.origin,
            })),
            membership,
            doors,
            trust,
            counted,
            admin: Admin::bind(config.admin.listen, handed, metrics, api)?,
        })
    }

    /// This node, as it tells the others.
    pub(crate) fn node(&self, config: &Config) -> anyhow::Result<Node> {
        let bound = self.addresses()?;
        Ok(self.membership.describe(config, bound.relay, Some(bound.http)))
    }

    /// The node whose streams this one serves.
    pub(crate) fn upstream(&self) -> String {
        match &self.source {
            Source::Own(_) => String::new(),
            Source::Pulled(pulled) => match &pulled.upstream {
                Some(upstream) => upstream.to_string(),
                None if pulled.is_origin => "whoever only takes publishers".to_owned(),
                None => "whoever has a stream".to_owned(),
            },
        }
    }

    /// Edges read from here what others take.
    pub(crate) fn is_origin_of_others(&self) -> bool {
        matches!(&self.source, Source::Pulled(pulled) if pulled.is_origin)
    }

    pub(crate) fn addresses(&self) -> anyhow::Result<Addresses> {
        let https = self.certificates.as_ref().zip(self.viewers.encrypted_addr()?);
        Ok(Addresses {
            http: self.viewers.plain_addr()?,
            https: https.map(|(certificates, addr)| Encrypted::new(certificates, addr)),
            rtmps: match &self.source {
                Source::Own(own) => own.rtmp.encrypted_addr().context("rtmps.listen")?,
                Source::Pulled(_) => None,
            },
            rtmp: match &self.source {
                Source::Own(own) => Some(own.rtmp.local_addr().context("rtmp.listen")?),
                Source::Pulled(_) => None,
            },
            webrtc: match &self.source {
                Source::Own(own) => own.webrtc.listen,
                Source::Pulled(pulled) => pulled.webrtc.listen,
            },
            relay: match &self.relay {
                Some(relay) => Some(relay.listener.local_addr().context("relay.listen")?),
                None => None,
            },
            admin: self.admin.local_addr(),
        })
    }

    /// Runs until `drain`, then finishes what is open. The admin port tells how it goes until the end.
    pub(crate) async fn run(self, node: Node, drain: CancellationToken) {
        let (admin_stop, pull_stop) = (CancellationToken::new(), CancellationToken::new());
        let standing = self.membership.standing();
        let relay = async {
            if let Some(RelayRole { listener, service }) = self.relay {
                listener.run(service, drain.clone()).await;
            }
        };
        let http = async {
            self.viewers.run(drain.clone()).await;
            pull_stop.cancel();
        };
        let roles = async {
            let gate = match self.source {
                Source::Own(own) => {
                    let Own { gate, rtmp, whip, webrtc, whip_drain, origin, transcoding, .. } = *own;
                    let WebRtc { driver, whep, .. } = webrtc;
                    let streams = own.streams;
                    let keeper = ingest::keep(gate.clone(), drain.clone());
                    let claiming = own.claims.run(&streams, &gate, drain.clone());
                    let missing = async {
                        if !own.is_origin {
                            miss(&self.membership.fleet, &streams, drain.clone()).await;
                        }
                    };
                    let work_stop = CancellationToken::new();
                    let work =
                        transcoding.run(Some(streams.clone()), standing, drain.clone(), work_stop.clone());
                    let webrtc_stop = CancellationToken::new();
                    let sessions = async {
                        drain.cancelled().await;
                        whep.drain();
                        whip_drain.cancel();
                        whip.drained().await;
                        webrtc_stop.cancel();
                    };
                    let others = async {
                        let publishers = async { tokio::join!(rtmp.run(drain.clone()), sessions) };
                        let packets = driver.run(webrtc_stop.clone());
                        tokio::join!(keeper, publishers, packets, origin.run(drain.clone()), relay, http);
                        // Not before: with a job go its rungs, and viewers would be told that they are over.
                        work_stop.cancel();
                    };
                    tokio::join!(work, claiming, missing, others);
                    Some(gate)
                }
                // Streams go on until their viewers were answered.
                Source::Pulled(pulled) => {
                    let Pulled { puller, webrtc, transcoding, is_origin, .. } = *pulled;
                    let WebRtc { driver, whep, .. } = webrtc;
                    let lending = async {
                        if let Some(transcoding) = transcoding {
                            transcoding.run(None, standing, drain.clone(), drain.clone()).await;
                        }
                    };
                    let goodbye = async {
                        drain.cancelled().await;
                        whep.drain();
                    };
                    let packets = driver.run(pull_stop.clone());
                    let ahead = open_ahead(&self.membership.fleet, &puller, drain.clone());
                    let pulling = puller.run(pull_stop.clone());
                    let ready = async {
                        if is_origin {
                            keep_ready(&self.membership.fleet, &puller, pull_stop.clone()).await;
                        }
                    };
                    tokio::join!(pulling, packets, goodbye, ahead, ready, relay, http, lending);
                    None
                }
            };
            admin_stop.cancel();
            gate
        };
        let certificate = async {
            if let Some(certificates) = self.certificates {
                certificates.run(admin_stop.clone()).await;
            }
        };
        let admin = self.admin.run(drain.clone(), admin_stop.clone());
        let doors = self.doors.keep(self.membership.standing(), drain.clone());
        let trust = self.trust.map(|trust| trust.with_address(reached(&node)).run(admin_stop.clone()));
        let trust = async {
            if let Some(trust) = trust {
                trust.await;
            }
        };
        let counted = self.counted;
        let membership =
            self.membership.clone().run(node, move || counted.read(), drain.clone(), admin_stop.clone());
        let (gate, (), (), (), (), ()) = tokio::join!(roles, admin, certificate, membership, doors, trust);
        // Not before: with it go the sessions, and viewers would be told that they are over.
        drop(gate);
    }
}

fn route(config: &Config, membership: &Membership) -> Arc<FleetRoute> {
    Arc::new(FleetRoute::new(membership.fleet.clone(), config.cluster.zone.clone(), config.roles))
}

/// `None` where there can be no other node: nothing is looked up for each request then.
fn neighbours(
    membership: &Membership,
    route: impl FnOnce() -> Arc<FleetRoute>,
) -> Option<Arc<dyn Neighbours>> {
    membership.dialer.is_some().then(|| -> Arc<dyn Neighbours> { route() })
}

fn trust(config: &Config, membership: &Membership, identity: Identity, metrics: &mut Registry) -> Trust {
    let (files, dialer) =
        (ClusterFiles::new(config.cluster_dir()), Dialer::new(&identity, hls::FORMAT_VERSION));
    Trust::new(files, identity, membership, dialer, config.upstream.clone(), metrics)
}

/// Where others reach this node's relay, if that is known here.
fn reached(node: &Node) -> Option<String> {
    let url = node.relay.as_ref()?;
    let host = url.strip_prefix("https://")?.parse::<SocketAddr>();
    let is_any = host.is_ok_and(|addr| addr.ip().is_unspecified());
    (!is_any).then(|| url.clone())
}

/// Of all listeners of viewers together.
fn viewer_places(config: &Config, connections: descriptors::Share) -> Places {
    Places::new(Limits { total: connections.viewers, per_address: config.http.connections_per_address })
}

/// The port of WebRTC, and the viewers of `programmes` on it.
fn bind_webrtc(
    config: &Config,
    programmes: Programmes,
    metrics: &edge::Metrics,
) -> anyhow::Result<(Port, WebRtc)> {
    let settings = PortSettings {
        listen: config.webrtc.listen,
        public: config.webrtc.public.clone(),
        stun: config.webrtc.stun.clone(),
        // For whose network lets no UDP through.
        tcp: true,
    };
    let (port, driver) = Port::bind(&settings)
        .with_context(|| format!("webrtc.listen: cannot take UDP and TCP {}", config.webrtc.listen))?;
    let listen = SocketAddr::new(config.webrtc.listen.ip(), port.local_addr().port());
    info!("{}", offered(&port, config.webrtc.stun.as_ref()));
    let limits = Limits { total: edge::VIEWERS_MAX, per_address: config.http.connections_per_address };
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let whep = Whep::start(programmes, port.clone(), threads, limits, ice_servers(config)?, metrics)?;
    Ok((port, WebRtc { driver, listen, whep }))
}

fn ice_servers(config: &Config) -> anyhow::Result<IceServers> {
    let (urls, secret) = (config.webrtc.ice_servers.clone(), config.webrtc.turn_secret.clone());
    IceServers::new(urls, secret).context("webrtc.ice_servers")
}

/// For the operator: who cannot connect has been told addresses of no use.
fn offered(port: &Port, stun: Option<&StunServer>) -> String {
    let told = port.addresses().iter().map(|(address, reason)| match reason {
        Reason::Configured => format!("{address} (webrtc.public)"),
        Reason::Own => format!("{address} (of this machine)"),
    });
    let told = told.collect::<Vec<_>>().join(", ");
    let is_configured = port.addresses().iter().any(|(_, reason)| *reason == Reason::Configured);
    let more = match (is_configured, stun) {
        (true, None) => String::new(),
        (true, Some(_)) => "; webrtc.stun is not asked, since webrtc.public is set".to_owned(),
        (false, None) => ", and the one that each of them has asked for pages".to_owned(),
        (false, Some(server)) => {
            format!(", the one that each of them has asked for pages, and what {server} says (webrtc.stun)")
        }
    };
    format!("WebRTC peers are offered {told}{more}")
}

/// With the encoders of other nodes, where there can be any.
pub(crate) fn transcoding(config: &Config, membership: &Membership, metrics: &mut Registry) -> Transcoding {
    let metrics = transcode::Metrics::register(metrics);
    Transcoding::new(config, membership.workers(config), metrics)
}

/// The relay's listener, on a node that is in a cluster, and what it answers.
pub(crate) fn bind_relay(
    config: &Config,
    identity: Option<&Identity>,
    handed: &mut Handed,
    metrics: &mut Registry,
    service: impl FnOnce(&Identity, RelayMetrics) -> ForNodes,
) -> anyhow::Result<Option<RelayRole>> {
    let Some(identity) = identity else { return Ok(None) };
    let connections = WireMetrics::register(metrics);
    let service = service(identity, RelayMetrics::register(metrics));
    let socket = handed.listen("relay", config.relay.listen, relay::server::SOCKET)?;
    let desk = FrontDesk::new(ClusterFiles::new(config.cluster_dir()));
    let listener = relay::server::Listener::new(socket, identity, connections).with_desk(Arc::new(desk));
    Ok(Some(RelayRole { listener, service }))
}
