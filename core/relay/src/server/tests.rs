//! Who is let in, and what one bad child can do to the others.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use http::StatusCode;
use http_body_util::StreamBody;
use hyper::body::Frame;
use media::{NodeId, StreamId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::client::{Dialer, Upstream, UpstreamError};
use crate::tls::CLUSTER_NAME;
use crate::wire::{Hops, Message};

/// An authority, and the nodes it lets in.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Files {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, names: &[&str], not_after: i32) -> Files {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Files { certificate, key: key.serialize_pem() }
    }

    fn node(&self, name: &str) -> Identity {
        let Files { certificate, key } = self.sign(&[name, CLUSTER_NAME], 4000);
        Identity::from_pem(self.pem.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

/// What a listener says to whoever connects as `client` does.
async fn refusal<F: Future<Output = ()>>(server: &Identity, client: impl FnOnce(TcpStream) -> F) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = async {
        handshake(listener.accept().await.unwrap().0, server, None, || unreachable!("it is no desk")).await
    };
    let client = async { client(TcpStream::connect(addr).await.unwrap()).await };
    match tokio::join!(accepted, client).0 {
        Err(why) => why,
        Ok(Caller::Child(_, child, _)) => panic!("{child} was let in"),
        Ok(Caller::Joiner(..)) => panic!("a joiner was let in"),
    }
}

async fn connect(stream: TcpStream, config: ClientConfig) {
    let name = CLUSTER_NAME.try_into().unwrap();
    if let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        // TLS 1.3: the server judges our certificate after we took its own.
        let _ = stream.read_u8().await;
    }
}

fn client_with(authority: &Authority, files: Option<Files>) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    match files {
        None => builder.with_no_client_auth(),
        Some(Files { certificate, key }) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    }
}

#[tokio::test]
async fn who_has_no_certificate_of_the_cluster_is_refused_in_words() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let origin = ours.node("origin");
    let none = client_with(&ours, None);
    let told = refusal(&origin, |stream| connect(stream, none)).await;
    assert!(told.contains("presented no certificate"), "{told}");

    let foreign = client_with(&ours, Some(theirs.sign(&["edge1", CLUSTER_NAME], 4000)));
    let told = refusal(&origin, |stream| connect(stream, foreign)).await;
    assert!(told.contains("another authority"), "{told}");

    let expired = client_with(&ours, Some(ours.sign(&["edge1", CLUSTER_NAME], 2021)));
    let told = refusal(&origin, |stream| connect(stream, expired)).await;
    assert!(told.contains("has expired"), "{told}");

    let nameless = client_with(&ours, Some(ours.sign(&[CLUSTER_NAME], 4000)));
    let told = refusal(&origin, |stream| connect(stream, nameless)).await;
    assert!(told.contains("names no node"), "{told}");

    let plain = async |mut stream: TcpStream| {
        stream.write_all(b"GET /x/1/state HTTP/1.1\r\nHost: origin\r\n\r\n").await.unwrap();
        let _ = stream.read_u8().await;
    };
    let told = refusal(&origin, plain).await;
    assert!(told.contains("does not speak TLS"), "{told}");
}

#[test]
fn files_that_peers_would_refuse_are_refused_at_the_start() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let node = |authority: &Authority, Files { certificate, key }: Files| {
        Identity::from_pem(authority.pem.as_bytes(), certificate.as_bytes(), key.as_bytes())
    };
    assert_eq!(ours.node("edge1").node().as_str(), "edge1");
    for wrong in [
        node(&ours, theirs.sign(&["edge1", CLUSTER_NAME], 4000)),
        node(&ours, ours.sign(&["edge1", CLUSTER_NAME], 2021)),
        node(&ours, ours.sign(&[CLUSTER_NAME], 4000)),
        node(&ours, Files { key: ours.sign(&["x"], 4000).key, ..ours.sign(&["edge1", CLUSTER_NAME], 4000) }),
        node(&ours, Files { key: String::new(), ..ours.sign(&["edge1", CLUSTER_NAME], 4000) }),
    ] {
        assert!(wrong.is_err());
    }
}

/// Sends parts for ever, as fast as they are taken.
#[derive(Clone, Default)]
struct Endless {
    sent: Arc<[AtomicUsize; 2]>,
}

const PIECE_BYTES: usize = 64 * 1024;

impl Service for Endless {
    async fn respond(&self, _: &NodeId, request: Request<()>) -> Response<Body> {
        let which = usize::from(request.uri().path().ends_with("reads"));
        let sent = self.sent.clone();
        let piece = Bytes::from(vec![0; PIECE_BYTES]);
        let pieces = stream::unfold(piece, move |piece| {
            sent[which].fetch_add(PIECE_BYTES, Ordering::Relaxed);
            async move { Some((Ok::<_, Infallible>(Frame::data(Slices::from(piece.clone()))), piece)) }
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(pieces)))
    }
}

struct Running {
    addr: SocketAddr,
    stop: CancellationToken,
}

fn run<S: Service>(origin: &Identity, service: S) -> (Running, WireMetrics) {
    let metrics = WireMetrics::default();
    let listener =
        Listener::new(net::bind((Ipv4Addr::LOCALHOST, 0).into(), SOCKET).unwrap(), origin, metrics.clone());
    let (addr, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(listener.run(service, stop.clone()));
    (Running { addr, stop }, metrics)
}

async fn open(
    addr: SocketAddr,
    config: ClientConfig,
    path: &str,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(addr).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(CLUSTER_NAME.try_into().unwrap(), stream).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: origin\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

/// Threat: what a slow peer does not read piles up. It does not: it is never made. And the peer is not kept for ever.
#[tokio::test]
async fn a_child_that_stops_reading_costs_a_few_megabytes_and_nobody_else_anything() {
    let authority = Authority::new();
    let service = Endless::default();
    let sent = service.sent.clone();
    let (running, metrics) = run(&authority.node("origin"), service);
    let child = |name: &str| client_with(&authority, Some(authority.sign(&[name, CLUSTER_NAME], 4000)));
    let stalled = open(running.addr, child("stalled"), "/stalls").await;
    let mut reader = open(running.addr, child("reader"), "/reads").await;
    let mut buffer = vec![0; 1024 * 1024];
    let mut read = 0;
    while read < 128 * 1024 * 1024 {
        read += reader.read(&mut buffer).await.unwrap();
    }
    let [stalled_bytes, reader_bytes] = [0, 1].map(|which| sent[which].load(Ordering::Relaxed));
    assert!(reader_bytes >= read);
    // Buffers of hyper and TLS, and of both kernels.
    assert!(stalled_bytes < 16 * 1024 * 1024, "{stalled_bytes} bytes were made for nobody");

    drop(reader);
    // From here on time passes whenever nothing else happens.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    while metrics.connections.get() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(start.elapsed() <= 2 * WRITE_TIMEOUT, "it is kept");
    }
    drop(stalled);
    running.stop.cancel();
}

/// Threat: strangers at one address take every place, before they have said who they are.
#[tokio::test]
async fn who_has_no_place_is_closed_and_counted() {
    let (authority, metrics) = (Authority::new(), WireMetrics::default());
    let socket = net::bind((Ipv4Addr::LOCALHOST, 0).into(), SOCKET).unwrap();
    let (addr, stop) = (socket.local_addr().unwrap(), CancellationToken::new());
    let acceptor = Acceptor::new("relay", socket, Places::new(Limits { per_address: 1, ..CONNECTIONS }));
    let identity = authority.node("origin");
    let listener = Listener { acceptor, identity, desk: None, metrics: metrics.clone() };
    tokio::spawn(listener.run(Endless::default(), stop.clone()));
    let _silent = TcpStream::connect(addr).await.unwrap();
    let mut second = TcpStream::connect(addr).await.unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(metrics.refused.get(), 1);
    stop.cancel();
}

/// One that answers everything with what it is given.
struct Always(StatusCode, &'static [u8]);

impl Service for Always {
    async fn respond(&self, _: &NodeId, _: Request<()>) -> Response<Body> {
        let mut response = Response::new(full(Bytes::from_static(self.1)));
        *response.status_mut() = self.0;
        response
    }
}

fn id() -> StreamId {
    StreamId::new("live", "cam1").unwrap()
}

fn upstream(addr: SocketAddr, identity: &Identity) -> Upstream {
    Dialer::new(identity, 1).at(format!("https://{addr}").parse().unwrap())
}

#[tokio::test]
async fn an_upstream_that_refuses_is_quoted() {
    let authority = Authority::new();
    let (running, _) = run(&authority.node("origin"), Always(StatusCode::NOT_ACCEPTABLE, b"speak slower\n"));
    let upstream = upstream(running.addr, &authority.node("edge1"));
    let error = upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the upstream refuses with 406 Not Acceptable: speak slower");
    let hops = Hops::default().through(&"edge1".parse().unwrap()).unwrap();
    let error = upstream.subscribe(&id().to_string(), None, hops).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Loop(_)), "{error}");
}

#[tokio::test]
async fn an_upstream_of_another_cluster_is_not_asked() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (running, metrics) = run(&theirs.node("origin"), Always(StatusCode::OK, b""));
    let upstream = upstream(running.addr, &ours.node("edge1"));
    let error = upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap_err().to_string();
    assert!(error.contains("another authority"), "{error}");
    assert_eq!(metrics.connections.get(), 0);
}

/// Garbage after the head of an answer ends the subscription, not the node.
#[tokio::test]
async fn an_upstream_that_sends_no_frames_is_left() {
    let authority = Authority::new();
    let (running, _) = run(&authority.node("origin"), Always(StatusCode::OK, &[0xFF; 64]));
    let upstream = upstream(running.addr, &authority.node("edge1"));
    let mut subscription = upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap();
    let lost = subscription.next().await.unwrap_err().to_string();
    assert!(lost.contains("frame longer than allowed"), "{lost}");
}

/// A machine that hangs keeps its sockets, and says nothing.
#[tokio::test]
async fn a_silent_upstream_is_lost_after_half_a_second() {
    let authority = Authority::new();
    struct Silent;
    impl Service for Silent {
        async fn respond(&self, _: &NodeId, _: Request<()>) -> Response<Body> {
            let first =
                stream::once(async { Ok::<_, Infallible>(Frame::data(Message::IndexComplete.encode())) });
            let body = StreamBody::new(stream::StreamExt::chain(first, stream::pending()));
            Response::new(UnsyncBoxBody::new(body))
        }
    }
    let (running, _) = run(&authority.node("origin"), Silent);
    let upstream = upstream(running.addr, &authority.node("edge1"));
    let mut subscription = upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap();
    assert_eq!(subscription.next().await.unwrap(), Message::IndexComplete);
    let since = Instant::now();
    assert!(matches!(subscription.next().await, Err(crate::client::Lost::Silent)));
    assert!(since.elapsed() >= crate::client::SILENCE_MAX && since.elapsed() < Duration::from_secs(5));
    running.stop.cancel();
}

fn replace_by(authority: &Authority, identity: &Identity, revoked: &[&str]) {
    let Files { certificate, key } = authority.sign(&[identity.node().as_str(), CLUSTER_NAME], 4000);
    let revoked = revoked.iter().map(|name| name.parse().unwrap()).collect();
    identity.replace(authority.pem.as_bytes(), certificate.as_bytes(), key.as_bytes(), revoked).unwrap();
}

/// It reads when it is put out, and another one reads on.
#[tokio::test]
async fn a_child_that_is_put_out_is_cut_off_and_nobody_else() {
    let authority = Authority::new();
    let origin = authority.node("origin");
    let (running, metrics) = run(&origin, Endless::default());
    let child = |name: &str| client_with(&authority, Some(authority.sign(&[name, CLUSTER_NAME], 4000)));
    let mut outcast = open(running.addr, child("outcast"), "/stalls").await;
    let mut reader = open(running.addr, child("reader"), "/reads").await;
    let mut buffer = vec![0; 1024 * 1024];
    for stream in [&mut outcast, &mut reader] {
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
    }
    replace_by(&authority, &origin, &["outcast"]);
    // What was sent before is read, and then it is over.
    while outcast.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
    let (mut read, wanted) = (0, 64 * 1024 * 1024);
    while read < wanted {
        read += reader.read(&mut buffer).await.unwrap();
    }
    let told = refusal(&origin, |stream| connect(stream, child("outcast"))).await;
    assert!(told.contains("was put out of the cluster"), "{told}");
    assert_eq!(metrics.connections.get(), 1);
    running.stop.cancel();
}

/// The other way around: who reads from a node that is put out reads no further.
#[tokio::test]
async fn an_upstream_that_is_put_out_is_left() {
    let authority = Authority::new();
    let (running, _) = run(&authority.node("origin"), Ticking);
    let edge = authority.node("edge1");
    let upstream = upstream(running.addr, &edge);
    let mut subscription = upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap();
    assert!(matches!(subscription.next().await, Ok(Message::Clock { .. })));
    replace_by(&authority, &edge, &["origin"]);
    let lost = loop {
        if let Err(lost) = subscription.next().await {
            break lost.to_string();
        }
    };
    assert!(lost.contains("was put out of the cluster"), "{lost}");
    let error = upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap_err().to_string();
    assert!(error.contains("was put out of the cluster"), "{error}");
    running.stop.cancel();
}

/// A clock, for ever.
struct Ticking;

impl Service for Ticking {
    async fn respond(&self, _: &NodeId, _: Request<()>) -> Response<Body> {
        let ticks = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, Infallible>(Frame::data(Message::Clock { sent_ms: 1 }.encode())), ()))
        });
        Response::new(UnsyncBoxBody::new(StreamBody::new(ticks)))
    }
}

/// Open connections go on, and those that come see the new certificate.
#[tokio::test]
async fn a_certificate_is_changed_without_a_connection_lost() {
    let (old, new) = (Authority::new(), Authority::new());
    let (origin, edge) = (old.node("origin"), old.node("edge1"));
    let (running, _) = run(&origin, Ticking);
    let upstream = upstream(running.addr, &edge);
    let mut subscription = upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap();
    let both = format!("{}{}", new.pem, old.pem);
    for identity in [&origin, &edge] {
        let Files { certificate, key } = new.sign(&[identity.node().as_str(), CLUSTER_NAME], 4000);
        let replaced = identity.replace(
            both.as_bytes(),
            certificate.as_bytes(),
            key.as_bytes(),
            std::collections::BTreeSet::new(),
        );
        replaced.unwrap();
    }
    for _ in 0..3 {
        subscription.next().await.unwrap();
    }
    upstream.subscribe(&id().to_string(), None, Hops::default()).await.unwrap();
    let Files { certificate, key } = new.sign(&["edge2", CLUSTER_NAME], 4000);
    let other = edge.replace(both.as_bytes(), certificate.as_bytes(), key.as_bytes(), Default::default());
    assert!(matches!(other, Err(crate::tls::IdentityError::OtherNode { .. })), "it has become another");
    running.stop.cancel();
}

/// Lets in whoever says "please".
struct Polite;

impl Desk for Polite {
    fn lets_in(&self) -> bool {
        true
    }

    fn join(&self, peer: std::net::IpAddr, request: &str) -> Answer {
        let (status, text) = match request {
            "please" => (StatusCode::OK, format!("welcome, {peer}")),
            _ => (StatusCode::FORBIDDEN, "say please".to_owned()),
        };
        Answer { status, text }
    }

    fn renew(&self, node: &NodeId, request: &str) -> Answer {
        Answer { status: StatusCode::OK, text: format!("{node}: {request}") }
    }

    fn trust(&self) -> Answer {
        Answer { status: StatusCode::OK, text: "everybody".to_owned() }
    }
}

#[tokio::test]
async fn who_has_no_certificate_may_ask_for_one_and_for_nothing_else() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = authority.node("origin");
    let socket = net::bind((Ipv4Addr::LOCALHOST, 0).into(), SOCKET).unwrap();
    let listener = Listener::new(socket, &origin, WireMetrics::default()).with_desk(Arc::new(Polite));
    let (addr, stop) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
    tokio::spawn(listener.run(Endless::default(), stop.clone()));
    let root = |authority: &Authority| {
        let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &root).as_ref().try_into().unwrap()
    };
    let ask = async |request: &str| {
        crate::ask_to_join(&addr, root(&authority), request.to_owned().into())
            .await
            .map_err(|why| why.to_string())
    };
    assert_eq!(ask("please").await.unwrap(), "welcome, 127.0.0.1");
    assert!(ask("now").await.unwrap_err().ends_with("refuses: say please"));
    assert!(ask(&"a".repeat(100_000)).await.is_err(), "it reads what has no end");

    let other = crate::ask_to_join(&addr, root(&stranger), "please".into()).await.unwrap_err().to_string();
    assert!(other.contains("of another cluster than the token"), "{other}");
    // The door for joiners leads nowhere else.
    let mut joiner = client_with(&authority, None);
    joiner.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
    let mut joiner = open(addr.parse().unwrap(), joiner, "/x/1/live/cam1").await;
    let mut answer = Vec::new();
    let _ = joiner.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&answer));

    // Nodes ask by their certificates.
    let upstream = upstream(addr.parse().unwrap(), &authority.node("edge1"));
    assert_eq!(upstream.renew("another".into()).await.unwrap().concat(), b"edge1: another");
    assert_eq!(upstream.trust().await.unwrap().concat(), b"everybody");
    stop.cancel();
}

#[tokio::test]
async fn a_node_without_the_authority_shakes_no_joiners_hand() {
    let authority = Authority::new();
    let mut joiner = client_with(&authority, None);
    joiner.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
    let told = refusal(&authority.node("edge1"), |stream| connect(stream, joiner)).await;
    assert!(told.contains("the authority is not here"), "{told}");
}
