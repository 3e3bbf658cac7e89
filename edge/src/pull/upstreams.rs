//! Which node a stream is read from: always the same one, or one that has it. Where several have it, who does not answer is passed
//! over for the next.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use media::StreamId;
use relay::wire::Hops;
use relay::{Dialer, Subscription, Upstream, UpstreamError, UpstreamUrl};
use tokio::time::timeout;

/// For a node to answer that another can stand in for. A viewer who comes waits no longer than for both.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// Where streams are, as the cluster knows. `server` plugs in the real one.
#[async_trait]
pub trait Route: Send + Sync {
    /// The node that has `id`, the first of several. `Ok(None)` if none has.
    ///
    /// # Errors
    /// In words: it is not known, or that node cannot be reached at present.
    async fn of(&self, id: &StreamId) -> Result<Option<UpstreamUrl>, String>;

    /// Waits until `id` is better read from another node than `url`.
    async fn left(&self, id: &StreamId, url: &UpstreamUrl);

    /// Whether another node than `url` has `id` too, and has not failed of late.
    fn has_other(&self, id: &StreamId, url: &UpstreamUrl) -> bool;

    /// `url` does not answer, or has no more of `stream` alone: for a while it is asked last.
    fn failed(&self, stream: Option<&StreamId>, url: &UpstreamUrl);

    /// `url` answers: what is said against all of it is no more true.
    fn answered(&self, url: &UpstreamUrl);

    /// Every node that takes publishers.
    fn all(&self) -> Vec<UpstreamUrl>;
}

/// Of what an upstream that gives nothing more is believed to have no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It does not answer: of anything.
    OfNode,
    /// It answers, and does not have it: of one stream.
    OfStream,
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

    /// Subscribes at the node that has `id`, or at another one that has it. `path` and `resume` as of [`Upstream::subscribe`].
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn subscribe(
        &self,
        id: &StreamId,
        path: &str,
        resume: Option<&str>,
        hops: &Hops,
    ) -> Result<(Upstream, Subscription), UpstreamError> {
        loop {
            let upstream = self.of(id).await?;
            let asked = upstream.subscribe(path, resume, hops.clone());
            if let Some(subscribed) = self.settled(id, &upstream, asked).await {
                return subscribed.map(|subscription| (upstream, subscription));
            }
        }
    }

    /// One answer, as of [`Upstream::get`].
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn get(
        &self,
        id: &StreamId,
        path: &str,
        hops: &Hops,
    ) -> Result<Vec<Bytes>, UpstreamError> {
        loop {
            let upstream = self.of(id).await?;
            let asked = upstream.get(path, hops.clone());
            if let Some(answer) = self.settled(id, &upstream, asked).await {
                return answer;
            }
        }
    }

    /// As [`Upstream::tell`].
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn tell(&self, id: &StreamId, path: &str, hops: &Hops) -> Result<(), UpstreamError> {
        loop {
            let upstream = self.of(id).await?;
            let asked = upstream.tell(path, hops.clone());
            if let Some(told) = self.settled(id, &upstream, asked).await {
                return told;
            }
        }
    }

    /// `None` if `upstream` did not answer, and another is to be asked: at most once each, since who failed is not asked first
    /// any more.
    async fn settled<T>(
        &self,
        id: &StreamId,
        upstream: &Upstream,
        asked: impl Future<Output = Result<T, UpstreamError>> + Send,
    ) -> Option<Result<T, UpstreamError>> {
        let silent = |_| Err(UpstreamError::TimedOut { url: upstream.url().clone() });
        let answer = match self.has_other(id, upstream) {
            true => timeout(ANSWER_MAX, asked).await.unwrap_or_else(silent),
            // Its failure counts all the same: where all have failed, the next to be asked is not this one again.
            false => asked.await,
        };
        let failure = match &answer {
            Err(UpstreamError::Unreachable { .. }) => Failure::OfNode,
            // It may itself wait for who publishes it.
            Err(UpstreamError::Refused { .. } | UpstreamError::TimedOut { .. }) => Failure::OfStream,
            _ => {
                self.answered(upstream);
                return Some(answer);
            }
        };
        if self.failed(id, upstream, failure) { None } else { Some(answer) }
    }

    async fn of(&self, id: &StreamId) -> Result<Upstream, UpstreamError> {
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

    fn has_other(&self, id: &StreamId, upstream: &Upstream) -> bool {
        match &self.0 {
            Which::One(_) => false,
            Which::Routed(_, route) => route.has_other(id, upstream.url()),
        }
    }

    /// Returns whether another has `id` too.
    pub(super) fn failed(&self, id: &StreamId, upstream: &Upstream, failure: Failure) -> bool {
        match &self.0 {
            Which::One(_) => false,
            Which::Routed(_, route) => {
                route.failed((failure == Failure::OfStream).then_some(id), upstream.url());
                route.has_other(id, upstream.url())
            }
        }
    }

    fn answered(&self, upstream: &Upstream) {
        if let Which::Routed(_, route) = &self.0 {
            route.answered(upstream.url());
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

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Mutex;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use relay::{CLUSTER_NAME, Identity};

    use super::*;

    /// Of a node in a cluster of its own.
    pub(in crate::pull) fn dialer() -> Dialer {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let names = ["edge1", CLUSTER_NAME].map(str::to_owned).to_vec();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap().pem();
        let key = key.serialize_pem();
        let identity = Identity::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes());
        Dialer::new(&identity.unwrap(), 1)
    }

    /// Two nodes have everything. Those that have failed are asked last, the latest of them at the very end.
    struct Two {
        urls: [UpstreamUrl; 2],
        failed: Mutex<Vec<UpstreamUrl>>,
    }

    #[async_trait]
    impl Route for Two {
        async fn of(&self, _: &StreamId) -> Result<Option<UpstreamUrl>, String> {
            let failed = self.failed.lock().unwrap();
            let since = |url: &&UpstreamUrl| failed.iter().position(|known| known == *url);
            Ok(self.urls.iter().min_by_key(since).cloned())
        }

        async fn left(&self, _: &StreamId, _: &UpstreamUrl) {
            pending::<()>().await;
        }

        fn has_other(&self, _: &StreamId, url: &UpstreamUrl) -> bool {
            let failed = self.failed.lock().unwrap();
            self.urls.iter().any(|other| other != url && !failed.contains(other))
        }

        fn failed(&self, _: Option<&StreamId>, url: &UpstreamUrl) {
            let mut failed = self.failed.lock().unwrap();
            failed.retain(|known| known != url);
            failed.push(url.clone());
        }

        fn answered(&self, url: &UpstreamUrl) {
            self.failed.lock().unwrap().retain(|known| known != url);
        }

        fn all(&self) -> Vec<UpstreamUrl> {
            self.urls.to_vec()
        }
    }

    /// One of them may only have been silent for a moment, and the other be gone for good.
    #[tokio::test]
    async fn where_all_have_failed_they_are_asked_in_turn() {
        // Nobody listens at either.
        let urls = ["https://127.0.0.1:1", "https://127.0.0.1:2"].map(|url| url.parse().unwrap());
        let route = Two { urls: urls.clone(), failed: Mutex::default() };
        let upstreams = Upstreams::routed(dialer(), Arc::new(route));
        let [first, second] = urls;
        for expected in [&second, &first, &second] {
            let answer =
                upstreams.get(&StreamId::new("live", "cam").unwrap(), "/state", &Hops::default()).await;
            assert!(
                matches!(&answer, Err(UpstreamError::Unreachable { url, .. }) if url == expected),
                "{answer:?}"
            );
        }
    }
}
