//! Composes the roles of this process and binds their ports.
//!
//!   rtmp ─▶ ingest ─▶ live log ─▶ origin ─▶ segment index ─▶ edge ─▶ http
//!
//! Drained from the left: publishers leave, the origin packages what they left behind, viewers get it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use edge::{Listener, Site};
use hls::Catalog;
use ingest::rtmp::{self, Server as Rtmp};
use ingest::{Authorize, Gate, Secret};
use media::StreamId;
use net::{Guesses, Limits};
use origin::Origin;
use prometheus_client::registry::Registry;
use relay::StreamRegistry;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::config::Config;
use crate::descriptors;
use crate::keys::PublishKey;
use crate::listen::Handed;

/// Every role of this process, bound but not running.
pub(crate) struct Roles {
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

/// One key for every stream.
struct OneKey(PublishKey);

impl Authorize for OneKey {
    fn may_publish(&self, _: &StreamId, key: &Secret) -> bool {
        self.0.verify(key.expose())
    }
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
        let part_target = config.hls.profile.part_target();
        let gate = Gate::new(streams.clone(), Arc::new(OneKey(key)), part_target, publications);
        let rtmp = Rtmp::new(
            handed.listen("rtmp", config.rtmp.listen, rtmp::SOCKET)?,
            gate,
            Limits { total: connections.publishers, ..rtmp::CONNECTIONS },
            guesses,
            rtmp::Metrics::register(&mut metrics),
        );
        let rtmp_port = rtmp.local_addr().context("rtmp.listen")?.port();
        let http = Listener::new(
            handed.listen("http", config.http.listen, edge::SOCKET)?,
            Site::new(streams.clone(), catalog.clone(), rtmp_port),
            Limits { total: connections.viewers, per_address },
            edge::Metrics::register(&mut metrics, catalog.clone()),
        );
        Ok(Self {
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

    /// Runs until `drain`, then finishes what is open, role after role.
    pub(crate) async fn run(self, drain: CancellationToken) {
        let (origin_stop, http_drain, admin_stop) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
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
        tokio::join!(rtmp, origin, http, self.admin.run(drain.clone(), admin_stop.clone()));
    }
}
