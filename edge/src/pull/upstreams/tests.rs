//! Two nodes that have a stream, and one that reads it from them.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response, StatusCode};
use media::NodeId;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use relay::server::{Body, Listener, SOCKET, Service, full};
use relay::{CLUSTER_NAME, Identity, WireMetrics};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;

/// Answers with its name, whatever it is asked, while it has the stream.
#[derive(Clone)]
struct Named {
    name: &'static str,
    has_it: Arc<AtomicBool>,
}

impl Service for Named {
    async fn respond(&self, _: &NodeId, _: Request<()>) -> Response<Body> {
        let mut response = Response::new(full(self.name));
        if !self.has_it.load(Ordering::Relaxed) {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }
}

struct Origin {
    url: UpstreamUrl,
    has_it: Arc<AtomicBool>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Origin {
    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

/// The first of them is asked first. Those that have failed are asked last, the latest of them at the very end.
#[derive(Default)]
struct Ranked {
    urls: Mutex<Vec<UpstreamUrl>>,
    failed: Mutex<Vec<UpstreamUrl>>,
}

impl Ranked {
    fn well(&self) -> Vec<UpstreamUrl> {
        let failed = self.failed.lock().unwrap();
        self.urls.lock().unwrap().iter().filter(|url| !failed.contains(url)).cloned().collect()
    }

    fn turn(&self) {
        self.urls.lock().unwrap().reverse();
    }
}

#[async_trait]
impl Route for Ranked {
    async fn of(&self, _: &StreamId) -> Result<Option<UpstreamUrl>, String> {
        let failed = self.failed.lock().unwrap();
        let since = |url: &&UpstreamUrl| failed.iter().position(|known| known == *url);
        Ok(self.urls.lock().unwrap().iter().min_by_key(since).cloned())
    }

    async fn left(&self, _: &StreamId, _: &UpstreamUrl) {
        pending::<()>().await;
    }

    fn other(&self, _: &StreamId, url: &UpstreamUrl) -> Option<UpstreamUrl> {
        self.well().into_iter().find(|other| other != url)
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
        Vec::new()
    }
}

/// Who lets nodes in.
pub(in crate::pull) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(in crate::pull) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(in crate::pull) fn node(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names = [name, CLUSTER_NAME].map(str::to_owned).to_vec();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        Identity::from_pem(self.pem.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    fn origin(&self, name: &'static str) -> Origin {
        let socket = net::bind((Ipv4Addr::LOCALHOST, 0).into(), SOCKET).unwrap();
        let listener = Listener::new(socket, &self.node(name), WireMetrics::default());
        let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (has_it, stop) = (Arc::new(AtomicBool::new(true)), CancellationToken::new());
        let running = tokio::spawn(listener.run(Named { name, has_it: has_it.clone() }, stop.clone()));
        Origin { url, has_it, stop, running }
    }

    /// Of a stream that these nodes have.
    fn reader(&self, urls: [UpstreamUrl; 2]) -> (Arc<Ranked>, Source) {
        let route = Arc::new(Ranked::default());
        route.urls.lock().unwrap().extend(urls);
        let upstreams = Upstreams::routed(Dialer::new(&self.node("edge"), 1), route.clone());
        (route, Source::new(upstreams, StreamId::new("live", "cam").unwrap()))
    }
}

/// Who answers.
async fn told(source: &Source) -> String {
    String::from_utf8(source.get("state/live/cam", &Hops::default()).await.unwrap().concat()).unwrap()
}

/// Who is first may have just come, and have nothing yet.
#[tokio::test]
async fn what_is_asked_of_a_stream_is_asked_where_it_is_read_and_then_of_another() {
    let authority = Authority::new();
    let (a, b) = (authority.origin("a"), authority.origin("b"));
    let (route, source) = authority.reader([a.url.clone(), b.url.clone()]);
    let (upstream, subscription) = source.subscribe("live/cam", None, &Hops::default()).await.unwrap();
    assert_eq!(*upstream.url(), a.url);
    route.turn();
    assert_eq!(told(&source).await, "a");
    b.has_it.store(false, Ordering::Relaxed);
    assert_eq!(told(&source).await, "a");
    source.tell("webrtc/live/cam", &Hops::default()).await.unwrap();

    // It has let go of what it told of, and the other has not.
    a.has_it.store(false, Ordering::Relaxed);
    b.has_it.store(true, Ordering::Relaxed);
    assert_eq!(told(&source).await, "b");
    source.tell("webrtc/live/cam", &Hops::default()).await.unwrap();
    assert!(route.failed.lock().unwrap().is_empty(), "they answer");
    b.has_it.store(false, Ordering::Relaxed);
    let absent = source.get("state/live/cam", &Hops::default()).await;
    assert!(matches!(absent, Err(UpstreamError::NotFound)), "{absent:?}");

    // It is gone.
    a.has_it.store(true, Ordering::Relaxed);
    b.has_it.store(true, Ordering::Relaxed);
    drop(subscription);
    a.stop().await;
    assert_eq!(told(&source).await, "b");
}

#[tokio::test]
async fn what_is_not_read_is_asked_of_who_is_first() {
    let authority = Authority::new();
    let (a, b) = (authority.origin("a"), authority.origin("b"));
    let (route, source) = authority.reader([a.url.clone(), b.url.clone()]);
    assert_eq!(told(&source).await, "a");
    let (_, _subscription) = source.subscribe("live/cam", None, &Hops::default()).await.unwrap();
    source.unsubscribed();
    route.turn();
    assert_eq!(told(&source).await, "b");
    // Names that nobody has cost one question each.
    b.has_it.store(false, Ordering::Relaxed);
    let absent = source.get("state/live/cam", &Hops::default()).await;
    assert!(matches!(absent, Err(UpstreamError::NotFound)), "{absent:?}");
}

/// One of them may only have been silent for a moment, and the other be gone for good.
#[tokio::test]
async fn where_all_have_failed_they_are_asked_in_turn() {
    // Nobody listens at either.
    let urls = ["https://127.0.0.1:1", "https://127.0.0.1:2"].map(|url| url.parse().unwrap());
    let (_, source) = Authority::new().reader(urls.clone());
    let [first, second] = urls;
    for expected in [&second, &first, &second] {
        let answer = source.get("state/live/cam", &Hops::default()).await;
        assert!(
            matches!(&answer, Err(UpstreamError::Unreachable { url, .. }) if url == expected),
            "{answer:?}"
        );
    }
}
