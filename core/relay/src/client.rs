//! A node's side towards its upstream: subscriptions, and single answers over kept connections.

mod connect;
mod join;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use media::NodeId;
use tokio::time::timeout;

use self::connect::Connector;
use crate::server::{RENEW_PATH, TRUST_PATH};
use crate::tls::{Identity, words};
use crate::wire::{Decoder, Hello, Hops, Message, PATH_PREFIX, RelayLoop, WireError};

pub use self::join::{Fingerprint, JoinError, ask_to_join};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// From the request to the head of its answer; an upstream that is an edge itself may have to ask its own first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);

/// A peer that says nothing for so long is lost, though TCP has not noticed. Its clock ticks every 100 ms.
pub const SILENCE_MAX: Duration = Duration::from_millis(500);

/// Connections kept for bodies and states.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Longest single answer: a part that fits no frame, or the states of all streams.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Of a refusal, for the log.
const WORDS_BYTES_MAX: usize = 300;

/// Where an upstream is: `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamUrl(Authority);

impl FromStr for UpstreamUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no URL of an upstream");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| authority.port().is_some()).ok_or_else(wrong)?;
        let bare = uri.path_and_query().is_none_or(|path| path == "/") && !authority.as_str().contains('@');
        if uri.scheme() == Some(&Scheme::HTTPS) && bare { Ok(Self(authority.clone())) } else { Err(wrong()) }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

/// Why an upstream gives nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The network, the other node, or its certificate or ours.
    #[error("cannot reach {url}: {why}")]
    Unreachable { url: UpstreamUrl, why: String },
    #[error("no answer from {url} in time")]
    TimedOut { url: UpstreamUrl },
    #[error("the upstream does not have it")]
    NotFound,
    /// Which node to ask.
    #[error("no upstream: {why}")]
    Unknown { why: String },
    /// In the upstream's own words.
    #[error("the upstream refuses with {status}: {why}")]
    Refused { status: StatusCode, why: String },
    #[error(transparent)]
    Loop(#[from] RelayLoop),
    #[error("the upstream's answer is longer than allowed")]
    TooLong,
}

/// Why a subscription broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    #[error("nothing was heard for {} ms", SILENCE_MAX.as_millis())]
    Silent,
    #[error("the upstream closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Asks other nodes, whichever, over connections that it keeps.
#[derive(Debug, Clone)]
pub struct Dialer {
    client: Client<Connector, Full<Bytes>>,
    node: NodeId,
    format: u32,
}

/// The node that this one asks.
#[derive(Debug, Clone)]
pub struct Upstream {
    dialer: Dialer,
    url: UpstreamUrl,
}

impl Dialer {
    /// `format`: the version of playlists and parts that this node writes.
    pub fn new(identity: &Identity, format: u32) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .build(Connector::new(identity));
        Self { client, node: identity.node().clone(), format }
    }

    pub fn at(&self, url: UpstreamUrl) -> Upstream {
        Upstream { dialer: self.clone(), url }
    }
}

impl Upstream {
    pub fn url(&self) -> &UpstreamUrl {
        &self.url
    }

    /// Reads a stream from its beginning, or from where `resume` says. `path` is below the wire's prefix, with a query or without,
    /// and `hops` are those who asked this node.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn subscribe(
        &self,
        path: &str,
        resume: Option<&str>,
        hops: Hops,
    ) -> Result<Subscription, UpstreamError> {
        let mark = if path.contains('?') { '&' } else { '?' };
        let query = resume.map(|resume| format!("{mark}from={resume}")).unwrap_or_default();
        let body =
            self.request(Method::GET, &format!("{path}{query}"), hops, Bytes::new()).await?.into_body();
        Ok(Subscription { body, decoder: Decoder::default() })
    }

    /// Tells the upstream something that has no answer.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn tell(&self, path: &str, hops: Hops) -> Result<(), UpstreamError> {
        self.answer(Method::POST, path, hops).await.map(drop)
    }

    /// One answer, in the slices it came in. `path` is below the wire's prefix.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn get(&self, path: &str, hops: Hops) -> Result<Vec<Bytes>, UpstreamError> {
        self.answer(Method::GET, path, hops).await
    }

    /// A connection of its own on which both sides speak `protocol`, for what `path` asks (RFC 9110, §7.8).
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn upgrade(&self, path: &str, protocol: &str) -> Result<TokioIo<Upgraded>, UpstreamError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_str(protocol).map_err(|error| self.unreachable(&error))?);
        let answer = self.send(Method::POST, path, Hops::default(), headers, Bytes::new()).await?;
        let answer = self.accepted(answer, StatusCode::SWITCHING_PROTOCOLS).await?;
        let upgraded = hyper::upgrade::on(answer).await.map_err(|error| self.unreachable(&error))?;
        Ok(TokioIo::new(upgraded))
    }

    /// Asks for a certificate. What is sent and what comes is [`crate::server::Desk`]'s business.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn renew(&self, request: Bytes) -> Result<Vec<Bytes>, UpstreamError> {
        let path = RENEW_PATH.trim_start_matches(PATH_PREFIX);
        self.answer_to(Method::POST, path, Hops::default(), request).await
    }

    /// Whom the cluster trusts, as the upstream knows it.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn trust(&self) -> Result<Vec<Bytes>, UpstreamError> {
        self.get(TRUST_PATH.trim_start_matches(PATH_PREFIX), Hops::default()).await
    }

    async fn answer(&self, method: Method, path: &str, hops: Hops) -> Result<Vec<Bytes>, UpstreamError> {
        self.answer_to(method, path, hops, Bytes::new()).await
    }

    async fn answer_to(
        &self,
        method: Method,
        path: &str,
        hops: Hops,
        sent: Bytes,
    ) -> Result<Vec<Bytes>, UpstreamError> {
        let answer = async {
            let body = self.request(method, path, hops, sent).await?.into_body();
            self.collect(body).await
        };
        timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| UpstreamError::TimedOut { url: self.url.clone() })?
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        hops: Hops,
        sent: Bytes,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let answer = self.send(method, path, hops, HeaderMap::new(), sent).await?;
        self.accepted(answer, StatusCode::OK).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        hops: Hops,
        mut headers: HeaderMap,
        sent: Bytes,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let hops = hops.through(&self.dialer.node)?;
        let uri = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(self.url.0.clone())
            .path_and_query(format!("{PATH_PREFIX}{path}"))
            .build();
        let mut request = Request::new(Full::new(sent));
        *request.method_mut() = method;
        *request.uri_mut() = uri.map_err(|error| self.unreachable(&error))?;
        Hello { hops, format: self.dialer.format }.write(&mut headers);
        *request.headers_mut() = headers;
        let answer = timeout(ANSWER_TIMEOUT, self.dialer.client.request(request)).await;
        let answer = answer.map_err(|_| UpstreamError::TimedOut { url: self.url.clone() })?;
        answer.map_err(|error| self.unreachable(&error))
    }

    async fn accepted(
        &self,
        answer: Response<Incoming>,
        expected: StatusCode,
    ) -> Result<Response<Incoming>, UpstreamError> {
        match answer.status() {
            status if status == expected => Ok(answer),
            StatusCode::NOT_FOUND => Err(UpstreamError::NotFound),
            status => {
                let words = timeout(CONNECT_TIMEOUT, self.collect(answer.into_body())).await;
                let words = words.ok().and_then(Result::ok).unwrap_or_default().concat();
                let words = &words[..words.len().min(WORDS_BYTES_MAX)];
                let why = String::from_utf8_lossy(words).trim().to_owned();
                Err(UpstreamError::Refused { status, why })
            }
        }
    }

    async fn collect(&self, mut body: Incoming) -> Result<Vec<Bytes>, UpstreamError> {
        let (mut slices, mut bytes) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(slice) = frame.map_err(|error| self.unreachable(&error))?.into_data() else { continue };
            bytes += slice.len();
            if bytes > ANSWER_BYTES_MAX {
                return Err(UpstreamError::TooLong);
            }
            slices.push(slice);
        }
        Ok(slices)
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> UpstreamError {
        UpstreamError::Unreachable { url: self.url.clone(), why: words(error) }
    }
}

/// A stream as it comes from upstream. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    body: Incoming,
    decoder: Decoder,
}

impl Subscription {
    /// The next message. May be dropped at any time, and called again.
    ///
    /// # Errors
    /// [`Lost`]; then subscribe again, with a resume.
    pub async fn next(&mut self) -> Result<Message, Lost> {
        loop {
            if let Some(message) = self.decoder.poll_message()? {
                return Ok(message);
            }
            let frame = timeout(SILENCE_MAX, self.body.frame()).await.map_err(|_| Lost::Silent)?;
            let frame = frame.ok_or(Lost::Closed)?.map_err(|error| Lost::Broken(words(&error)))?;
            if let Ok(bytes) = frame.into_data() {
                self.decoder.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_secure_host_and_port_and_nothing_else() {
        for url in ["https://origin:7400", "https://192.0.2.1:7400/", "https://[2001:db8::1]:7400"] {
            let parsed: UpstreamUrl = url.parse().unwrap();
            assert_eq!(parsed.to_string(), url.trim_end_matches('/'));
        }
        for url in [
            "",
            "origin:7400",
            "http://origin:7400",
            "https://origin",
            "https://origin:7400/live",
            "https://a@b:1",
            "https://o:1?x",
        ] {
            assert!(url.parse::<UpstreamUrl>().is_err(), "{url}");
        }
    }
}
