//! Which node a stream is read from: always the same one, or one that has it. Where several have it, who does not answer is passed
//! over for the next; and what is asked of a stream is asked of the one that is read, since another may be behind it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
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

    /// Another node than `url` that has `id` too, and has not failed of late.
    fn other(&self, id: &StreamId, url: &UpstreamUrl) -> Option<UpstreamUrl>;

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

    /// What the node says that has `id`, or another one that has it.
    async fn ask<T, F>(&self, id: &StreamId, ask: impl Fn(Upstream) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>> + Send,
    {
        loop {
            let upstream = self.of(id).await?;
            if let Some(answer) = self.settled(id, &upstream, ask(upstream.clone())).await {
                return answer;
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
        let answer = match self.other(id, upstream) {
            Some(_) => timeout(ANSWER_MAX, asked).await.unwrap_or_else(silent),
            // Its failure counts all the same: where all have failed, the next to be asked is not this one again.
            None => asked.await,
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

    fn other(&self, id: &StreamId, upstream: &Upstream) -> Option<Upstream> {
        match &self.0 {
            Which::One(_) => None,
            Which::Routed(dialer, route) => route.other(id, upstream.url()).map(|url| dialer.at(url)),
        }
    }

    /// Returns whether another has `id` too.
    fn failed(&self, id: &StreamId, upstream: &Upstream, failure: Failure) -> bool {
        match &self.0 {
            Which::One(_) => false,
            Which::Routed(_, route) => {
                route.failed((failure == Failure::OfStream).then_some(id), upstream.url());
                route.other(id, upstream.url()).is_some()
            }
        }
    }

    fn answered(&self, upstream: &Upstream) {
        if let Which::Routed(_, route) = &self.0 {
            route.answered(upstream.url());
        }
    }

    /// Waits until `id` is not to be read from `upstream` any more.
    async fn left(&self, id: &StreamId, upstream: &Upstream) {
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

/// Where one stream is read. Cloning shares it.
#[derive(Clone)]
pub(super) struct Source {
    upstreams: Upstreams,
    id: StreamId,
    /// The node that is subscribed to.
    read: Arc<ArcSwapOption<Upstream>>,
}

impl Source {
    pub(super) fn new(upstreams: Upstreams, id: StreamId) -> Self {
        Self { upstreams, id, read: Arc::default() }
    }

    pub(super) fn id(&self) -> &StreamId {
        &self.id
    }

    /// Subscribes at the node that has it, or at another one that has it. `path` and `resume` as of [`Upstream::subscribe`].
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn subscribe(
        &self,
        path: &str,
        resume: Option<&str>,
        hops: &Hops,
    ) -> Result<(Upstream, Subscription), UpstreamError> {
        let subscribe = |upstream: Upstream| async move {
            let subscription = upstream.subscribe(path, resume, hops.clone()).await?;
            Ok((upstream, subscription))
        };
        let (upstream, subscription) = self.upstreams.ask(&self.id, subscribe).await?;
        self.read.store(Some(Arc::new(upstream.clone())));
        Ok((upstream, subscription))
    }

    /// The subscription is over.
    pub(super) fn unsubscribed(&self) {
        self.read.store(None);
    }

    /// One answer, as of [`Upstream::get`].
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn get(&self, path: &str, hops: &Hops) -> Result<Vec<Bytes>, UpstreamError> {
        self.ask(|upstream| async move { upstream.get(path, hops.clone()).await }).await
    }

    /// As [`Upstream::tell`].
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub(super) async fn tell(&self, path: &str, hops: &Hops) -> Result<(), UpstreamError> {
        self.ask(|upstream| async move { upstream.tell(path, hops.clone()).await }).await
    }

    /// Of who is read first: another may have yet to read it itself.
    async fn ask<T, F>(&self, ask: impl Fn(Upstream) -> F) -> Result<T, UpstreamError>
    where
        F: Future<Output = Result<T, UpstreamError>> + Send,
    {
        let (upstreams, id) = (&self.upstreams, &self.id);
        if let Some(read) = self.read.load_full() {
            match upstreams.settled(id, &read, ask(Upstream::clone(&read))).await {
                Some(Err(UpstreamError::NotFound)) => {
                    let other = upstreams.other(id, &read).ok_or(UpstreamError::NotFound)?;
                    let answer = upstreams.settled(id, &other, ask(other.clone())).await;
                    return answer.unwrap_or(Err(UpstreamError::NotFound));
                }
                Some(answer) => return answer,
                None => {}
            }
        }
        upstreams.ask(id, ask).await
    }

    /// Returns whether another has it too.
    pub(super) fn failed(&self, upstream: &Upstream, failure: Failure) -> bool {
        self.upstreams.failed(&self.id, upstream, failure)
    }

    /// Waits until it is not to be read from `upstream` any more.
    pub(super) async fn left(&self, upstream: &Upstream) {
        self.upstreams.left(&self.id, upstream).await;
    }
}

#[cfg(test)]
pub(super) mod tests;
