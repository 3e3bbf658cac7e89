//! Composes the roles of this process and binds their ports.
//!
//!   rtmp ─▶ ingest ─▶ live log ─▶ origin ─▶ segment index ─▶ edge ─▶ http
//!
//! A drain ends no session: publishers are told to connect again, viewers get what they are being sent, and the next
//! process goes on with what was open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context;
use edge::{Listener, Site};
use hls::Catalog;
use ingest::rtmp::{self, Server as Rtmp};
use ingest::{Checkpoints, Gate, NoCheckpoints, Policy};
use net::{Guesses, Limits};
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
use crate::listen::Handed;

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
    /// Binds every port, but for those that are `handed` over.
    ///
    /// # Errors
    /// If one of them cannot be bound; nothing has been started then.
    pub(crate) fn build(
        config: &Config,
        key: PublishKey,
        mut handed: Handed,
        mut metrics: Registry,
    ) -> anyhow::Result<Self> {
        let streams = StreamRegistry::new(relay::Metrics::register(&mut metrics));
        let per_address = config.http.connections_per_address;
        let held_per_address = per_address - per_address / 4;
        let catalog = Catalog::with_held_per_address(hls::Metrics::register(&mut metrics), held_per_address);
        let connections = descriptors::share();
        let publications = ingest::Metrics::register(&mut metrics);
        // One for everything that the publish key opens.
        let guesses = Guesses::default();
        let key = OneKey(key);
        let gate = gate(config, key.clone(), streams.clone(), publications);
        let backstage = Backstage::new(key, gate.refusals().clone(), guesses.clone(), &mut metrics);
        let rtmp = Rtmp::new(
            handed.listen("rtmp", config.rtmp.listen, rtmp::SOCKET)?,
            gate.clone(),
            Limits { total: connections.publishers, ..rtmp::CONNECTIONS },
            guesses,
            rtmp::Metrics::register(&mut metrics),
        );
        let rtmp_port = rtmp.local_addr().context("rtmp.listen")?.port();
        let site = Site::new(streams.clone(), catalog.clone(), rtmp_port)
            .with_unlisted(config.streams.unlisted.clone())
            .with_backstage(Arc::new(backstage));
        let http = Listener::new(
            handed.listen("http", config.http.listen, edge::SOCKET)?,
            site,
            Limits { total: connections.viewers, per_address },
            edge::Metrics::register(&mut metrics, catalog.clone()),
        );
        Ok(Self {
            gate,
            rtmp,
            http,
            origin: Origin::new(streams, catalog),
            // Last: whoever can ask for readiness may rely on the other ports.
            admin: Admin::bind(config.admin.listen, &mut handed, metrics)?,
        })
    }

    pub(crate) fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            http: self.http.local_addr().context("http.listen")?,
            rtmp: self.rtmp.local_addr().context("rtmp.listen")?,
            admin: self.admin.local_addr(),
        })
    }

    /// Runs until `drain`, then finishes what is open. The admin port tells how it goes until the end.
    pub(crate) async fn run(self, drain: CancellationToken) {
        let admin_stop = CancellationToken::new();
        let roles = async {
            tokio::join!(
                ingest::keep(self.gate.clone(), drain.clone()),
                self.rtmp.run(drain.clone()),
                self.origin.run(drain.clone()),
                self.http.run(drain.clone()),
            );
            admin_stop.cancel();
        };
        tokio::join!(roles, self.admin.run(drain.clone(), admin_stop.clone()));
        // Not before: with it go the sessions, and viewers would be told that they are over.
        drop(self.gate);
    }
}
