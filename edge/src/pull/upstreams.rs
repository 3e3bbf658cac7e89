//! Which node a stream is read from: always the same one, or the one that has it.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use media::StreamId;
use relay::{Dialer, Upstream, UpstreamError, UpstreamUrl};

/// Where streams are, as the cluster knows. `server` plugs in the real one.
#[async_trait]
pub trait Route: Send + Sync {
    /// The node that has `id`. `Ok(None)` if none has.
    ///
    /// # Errors
    /// In words: it is not known, or that node cannot be reached at present.
    async fn of(&self, id: &StreamId) -> Result<Option<UpstreamUrl>, String>;

    /// Waits until another node than `url` has `id`.
    async fn left(&self, id: &StreamId, url: &UpstreamUrl);

    /// Every node that has streams.
    fn all(&self) -> Vec<UpstreamUrl>;
}

/// Cloning shares it.
#[derive(Clone)]
pub struct Upstreams(Which);

#[derive(Clone)]
enum Which {
    One(Upstream),
    Routed(Dialer, Arc<dyn Route>),
}

impl Upstreams {
    /// All streams are those of one node.
    pub fn one(upstream: Upstream) -> Self {
        Self(Which::One(upstream))
    }

    /// Each stream is where `route` says.
    pub fn routed(dialer: Dialer, route: Arc<dyn Route>) -> Self {
        Self(Which::Routed(dialer, route))
    }

    /// # Errors
    /// [`UpstreamError`], if nobody has it or nobody knows who.
    pub(super) async fn of(&self, id: &StreamId) -> Result<Upstream, UpstreamError> {
        let (dialer, route) = match &self.0 {
            Which::One(upstream) => return Ok(upstream.clone()),
            Which::Routed(dialer, route) => (dialer, route),
        };
        match route.of(id).await {
            Ok(Some(url)) => Ok(dialer.at(url)),
            Ok(None) => Err(UpstreamError::NotFound),
            Err(why) => Err(UpstreamError::Unknown { why }),
        }
    }

    /// Waits until `id` is not to be read from `upstream` any more.
    pub(super) async fn left(&self, id: &StreamId, upstream: &Upstream) {
        match &self.0 {
            Which::One(_) => pending().await,
            Which::Routed(_, route) => route.left(id, upstream.url()).await,
        }
    }

    pub(super) fn all(&self) -> Vec<Upstream> {
        match &self.0 {
            Which::One(upstream) => vec![upstream.clone()],
            Which::Routed(dialer, route) => route.all().into_iter().map(|url| dialer.at(url)).collect(),
        }
    }
}
