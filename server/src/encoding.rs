//! A node that does nothing but encode, for the streams of other nodes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use cluster::Node;
use hls::Catalog;
use origin::Relay;
use prometheus_client::registry::Registry;
use relay::{Identity, StreamRegistry};
use tokio_util::sync::CancellationToken;
use tracing::info;
use transcode::{Lender, executable};

use crate::admin::Admin;
use crate::api::Api;
use crate::authority::ClusterFiles;
use crate::cli;
use crate::config::Config;
use crate::descriptors;
use crate::lending::ForNodes;
use crate::listen::Handed;
use crate::membership::{Counts, Membership};
use crate::offer::Offer;
use crate::paths::{Here, Paths};
use crate::roles::{RelayRole, bind_relay, transcoding};
use crate::transcoding::Transcoding;

/// Bound but not running.
pub(crate) struct Encoding {
    relay: RelayRole,
    transcoding: Arc<Transcoding>,
    membership: Membership,
    admin: Admin,
}

impl Encoding {
    /// # Errors
    /// If a port cannot be bound, or the node is in no cluster.
    pub(crate) fn build(
        config: &Config,
        membership: Membership,
        identity: Option<&Identity>,
        handed: &mut Handed,
        mut metrics: Registry,
    ) -> anyhow::Result<Self> {
        descriptors::raise();
        let transcoding = Arc::new(transcoding(config, &membership, &mut metrics));
        ensure!(transcoding.has_encoder(), "a node that only encodes needs {}", executable::NAME);
        let relay = bind_relay(config, identity, handed, &mut metrics, |identity, metrics| {
            let (catalog, streams) = (Catalog::new(hls::Metrics::default()), StreamRegistry::default());
            let relay = Relay::new(identity, catalog, streams, Offer::Nothing, metrics);
            ForNodes::new(relay, Some(transcoding.clone()), Here::new(&membership))
        })?;
        let relay = relay.context("who encodes for other nodes needs a certificate of their cluster")?;
        let paths = Paths::new(&membership, Here::new(&membership));
        let api = Api::new(&membership, ClusterFiles::new(config.cluster_dir()))
            .with_paths(paths, config.cluster.zone.clone());
        let admin = Admin::bind(config.admin.listen, handed, metrics, api)?;
        Ok(Self { relay, transcoding, membership, admin })
    }

    fn relay_addr(&self) -> anyhow::Result<SocketAddr> {
        self.relay.listener.local_addr().context("relay.listen")
    }

    /// This node, as it tells the others.
    pub(crate) fn node(&self, config: &Config) -> anyhow::Result<Node> {
        Ok(self.membership.describe(config, Some(self.relay_addr()?), None))
    }

    pub(crate) fn announce(&self) -> anyhow::Result<()> {
        let (relay, admin) = (self.relay_addr()?, self.admin.local_addr());
        info!(version = cli::VERSION, relay.listen = %relay, admin.listen = %admin, "ready: encodes for other nodes");
        Ok(())
    }

    /// Runs until `drain`, then until the jobs have gone on elsewhere.
    pub(crate) async fn run(self, node: Node, drain: CancellationToken) {
        let admin_stop = CancellationToken::new();
        let RelayRole { listener, service } = self.relay;
        let standing = self.membership.standing();
        let work = async {
            let lending = self.transcoding.run(None, standing, drain.clone(), drain.clone());
            tokio::join!(listener.run(service, drain.clone()), lending);
            admin_stop.cancel();
        };
        let lender = self.transcoding.clone();
        let counts = move || Counts {
            sent_bytes: 0,
            viewers: 0,
            streams: 0,
            encode_free: lender.lender().map(Lender::free),
        };
        let admin = self.admin.run(drain.clone(), admin_stop.clone());
        let membership = self.membership.run(node, counts, drain.clone(), admin_stop.clone());
        tokio::join!(work, admin, membership);
    }
}
