//! Composes the roles of this process and binds their ports.
//!
//!   rtmp ─▶ ingest ─▶ live log ─▶ origin ─▶ segment index ─▶ edge ─▶ http
//!
//! Drained from the left: publishers leave, then the origin stands still, then viewers get what they are being sent. No
//! session ends by it: the next process goes on with those that were open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use edge::{Listener, Site};
use hls::Catalog;
use ingest::rtmp::{Limits, Server as Rtmp};
use ingest::{Checkpoints, Gate, NoCheckpoints, Policy};
use origin::Origin;
use prometheus_client::registry::Registry;
use relay::StreamRegistry;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::admin::Admin;
use crate::backstage::{Backstage, OneKey};
use crate::checkpoints::FileCheckpoints;
use crate::config::Config;
use crate::descriptors;
use crate::keys::PublishKey;
use crate::listen;

/// Every role of this process, bound but not running.
pub(crate) struct Roles {
    gate: Gate,
    rtmp: Rtmp,
    origin: Origin,
    http: Listener,
    admin: Admin,
}

/// The addresses that were bound, with the real port where 0 was asked for.
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) rtmp: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Lets publishers in, and goes on with the sessions that the last process left behind.
fn gate(config: &Config, key: OneKey, streams: StreamRegistry, metrics: ingest::Metrics) -> Gate {
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
    let gate = Gate::new(streams, Arc::new(key), policy, checkpoints, metrics);
    for checkpoint in &left {
        gate.restore(checkpoint, Instant::now(), SystemTime::now());
    }
    gate
}

impl Roles {
    /// Binds every port.
    ///
    /// # Errors
    /// If one of them cannot be bound; nothing has been started then.
    pub(crate) fn build(config: &Config, key: PublishKey, mut metrics: Registry) -> anyhow::Result<Self> {
        let streams = StreamRegistry::new(relay::Metrics::register(&mut metrics));
        let catalog = Catalog::new(hls::Metrics::register(&mut metrics));
        let connections = descriptors::share();
        let limits = Limits { connections: connections.publishers, ..Limits::default() };
        let publications = ingest::Metrics::register(&mut metrics);
        let rtmp = ingest::rtmp::Metrics::register(&mut metrics);
        let http = edge::Metrics::register(&mut metrics, catalog.clone());
        let key = OneKey(key);
        let gate = gate(config, key.clone(), streams.clone(), publications);
        let backstage = Backstage::new(key, gate.refusals().clone(), &mut metrics);
        let rtmp = listen::bind("rtmp.listen", config.rtmp.listen, |address| {
            Rtmp::bind(address, gate.clone(), limits, rtmp)
        })?;
        let rtmp_port = rtmp.local_addr().context("rtmp.listen")?.port();
        let site = Site::new(streams.clone(), catalog.clone(), rtmp_port)
            .with_unlisted(config.streams.unlisted.clone())
            .with_backstage(Arc::new(backstage));
        Ok(Self {
            gate,
            rtmp,
            http: listen::bind("http.listen", config.http.listen, |address| {
                Listener::bind(address, site, connections.viewers, http)
            })?,
            origin: Origin::new(streams, catalog),
            // Last: whoever can ask for readiness may rely on the other ports.
            admin: Admin::bind(config.admin.listen, metrics)?,
        })
    }

    pub(crate) fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            http: self.http.local_addr().context("http.listen")?,
            rtmp: self.rtmp.local_addr().context("rtmp.listen")?,
            admin: self.admin.local_addr(),
        })
    }

    /// Runs until `drain`, then finishes what is open, role after role.
    pub(crate) async fn run(self, drain: CancellationToken) {
        let (origin_stop, http_drain, admin_stop) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let keeper = ingest::keep(self.gate.clone(), drain.clone());
        let rtmp = async {
            self.rtmp.run(drain.clone()).await;
            origin_stop.cancel();
        };
        let origin = async {
            self.origin.run(origin_stop.clone()).await;
            http_drain.cancel();
        };
        let http = async {
            self.http.run(http_drain.clone()).await;
            admin_stop.cancel();
        };
        tokio::join!(keeper, rtmp, origin, http, self.admin.run(drain.clone(), admin_stop.clone()));
        // Not before: with it go the sessions, and viewers would be told that they are over.
        drop(self.gate);
    }
}
