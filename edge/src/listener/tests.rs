use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{Either, Full};
use net::Limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep, timeout};

use super::*;

/// Larger than every buffer between us and a viewer.
pub(super) const LARGE: usize = 1024 * 1024;

/// Panics at /panic, waits for the drain at /held and for ten seconds at /late, is large at /large and says "fine"
/// elsewhere.
#[derive(Default)]
pub(super) struct Stage {
    drained: CancellationToken,
}

impl Respond for Stage {
    async fn respond(&self, _: IpAddr, request: Request<()>) -> Response<Body> {
        let body = match request.uri().path() {
            "/panic" => panic!("the test asked for it"),
            "/large" => Bytes::from(vec![b'x'; LARGE]),
            "/held" => {
                self.drained.cancelled().await;
                Bytes::from_static(b"drained")
            }
            "/late" => {
                sleep(Duration::from_secs(10)).await;
                Bytes::from_static(b"late")
            }
            _ => Bytes::from_static(b"fine"),
        };
        Response::new(Either::Right(Full::new(body)))
    }

    /// Bodies are read at /body only.
    fn body_bytes_max(&self, request: &Request<()>) -> Option<usize> {
        (request.uri().path() == "/body").then_some(1_000)
    }

    /// Says it back.
    async fn respond_to(&self, _: IpAddr, request: Request<Bytes>) -> Response<Body> {
        Response::new(Either::Right(Full::new(request.into_body())))
    }

    fn drain(&self) {
        self.drained.cancel();
    }
}

/// One connection over a pipe; time runs only while everybody waits.
fn connect() -> (DuplexStream, JoinHandle<hyper::Result<()>>) {
    let (client, server) = duplex(8 * 1024);
    let viewer = Ipv4Addr::LOCALHOST.into();
    let drain = Arc::new(Drain::new(CancellationToken::new()));
    (client, tokio::spawn(h1::serve(server, viewer, Arc::new(Stage::default()), drain)))
}

async fn end_of(server: JoinHandle<hyper::Result<()>>) -> Option<Reason> {
    server.await.unwrap().err().and_then(|error| h1::reason(&error))
}

async fn read_all(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut said = Vec::new();
    // A reset after the answer is how a connection with an unread body may end.
    let _ = socket.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

/// What follows the head, as far as it is there.
fn body_of(answer: &[u8]) -> &[u8] {
    let head_end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    head_end.map_or(&[], |end| &answer[end + 4..])
}

struct Running {
    address: SocketAddr,
    metrics: Metrics,
    drain: CancellationToken,
    server: JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    start_with(limits, None).await
}

async fn start_with(limits: Limits, tls: Option<Tls>) -> Running {
    let listener = net::bind((Ipv4Addr::LOCALHOST, 0).into(), SOCKET).unwrap();
    let address = listener.local_addr().unwrap();
    let (metrics, drain) = (Metrics::default(), CancellationToken::new());
    let acceptor = Acceptor::new("HTTP", listener, Places::new(limits));
    let server = tokio::spawn(accept(acceptor, tls, Stage::default(), metrics.clone(), drain.clone()));
    Running { address, metrics, drain, server }
}

impl Running {
    async fn ask(&self, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(get(path).as_bytes()).await.unwrap();
        socket
    }
}

/// A listener's side, and what a browser needs that trusts its certificate.
fn encryption() -> (Tls, rustls::ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["live.example".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let certificate = net::tls::Certificate::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
    let served = Arc::new(net::tls::Served::new(Some(certificate)));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Tls::new(served, net::tls::Protocols::Http).unwrap(), client)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

const MANY: Limits = Limits { total: 100, per_address: 100 };

/// Threat 27: one viewer finds a bug of ours. It loses its connection, and nobody else notices.
#[tokio::test]
async fn a_panic_ends_one_connection_only() {
    let running = start(MANY).await;
    let mut held = running.ask("/held").await;
    let mut broken = running.ask("/panic").await;
    assert_eq!(read_all(&mut broken).await, "");
    let mut next = running.ask("/").await;
    let mut answer = [0; 15];
    next.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(running.metrics.panics.get(), 1);

    running.drain.cancel();
    assert!(read_all(&mut held).await.ends_with("drained"));
    running.server.await.unwrap();
    assert_eq!(running.metrics.connections.get(), 0, "the broken one was counted out");
}

#[tokio::test]
async fn a_drain_answers_what_is_held_and_closes() {
    let running = start(MANY).await;
    let mut held = running.ask("/held").await;
    let mut idle = running.ask("/").await;
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    // Accepted before it by a drain that begins now; one of them is used in time.
    let mut late = TcpStream::connect(running.address).await.unwrap();
    let mut unused = TcpStream::connect(running.address).await.unwrap();
    while running.metrics.connections.get() < 4 {
        tokio::task::yield_now().await;
    }
    running.drain.cancel();
    late.write_all(get("/").as_bytes()).await.unwrap();
    assert!(read_all(&mut late).await.ends_with("fine"));
    assert_eq!(read_all(&mut unused).await, "");
    let answer = read_all(&mut held).await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("drained"), "{answer}");
    read_all(&mut idle).await;
    running.server.await.unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody new");
}

#[tokio::test]
async fn an_encrypted_listener_speaks_what_the_browser_prefers_and_drains() {
    let (tls, client) = encryption();
    let running = start_with(MANY, Some(tls)).await;
    let mut connections = Vec::new();
    for protocols in [&[&b"h2"[..], b"http/1.1"][..], &[b"http/1.1"], &[]] {
        let mut client = client.clone();
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let socket = TcpStream::connect(running.address).await.unwrap();
        let name = "live.example".try_into().unwrap();
        connections.push(connector.connect(name, socket).await.unwrap());
    }
    let (mut http1, mut unnamed) = (connections.remove(1), connections.remove(1));
    let (mut requests, h2) = ::h2::client::handshake(connections.remove(0)).await.unwrap();
    let h2 = tokio::spawn(h2);
    let request = Request::get("https://live.example/held").body(()).unwrap();
    let (held, _) = requests.send_request(request, true).unwrap();
    for socket in [&mut http1, &mut unnamed] {
        socket.write_all(get("/held").as_bytes()).await.unwrap();
    }
    // Nothing but the head of it, which is no TLS.
    let mut plain = running.ask("/").await;
    assert!(!read_all(&mut plain).await.contains("fine"));
    assert_eq!(running.metrics.refusals(Reason::BadHandshake), 1);

    running.drain.cancel();
    assert_eq!(held.await.unwrap().status(), http::StatusCode::OK);
    h2.await.unwrap().expect("told with GOAWAY");
    for socket in [&mut http1, &mut unnamed] {
        assert!(read_all(socket).await.ends_with("drained"));
    }
    running.server.await.unwrap();
    assert_eq!(running.metrics.connections.get(), 0);
}

#[tokio::test]
async fn connections_are_capped_by_address_and_counted() {
    let running = start(Limits { total: 100, per_address: 1 }).await;
    let mut first = running.ask("/").await;
    first.read_exact(&mut [0; 15]).await.unwrap();
    let mut second = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(read_all(&mut second).await, "");
    assert_eq!(running.metrics.refusals(Reason::AddressFull), 1);
    running.drain.cancel();
    running.server.await.unwrap();
}

/// Threat 13: a head that never ends.
#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut_off_and_an_idle_viewer_is_not_blamed() {
    let (mut client, server) = connect();
    let start = Instant::now();
    for byte in get("/").bytes().cycle().filter(|byte| *byte != b'\n') {
        if client.write_all(&[byte]).await.is_err() {
            break;
        }
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(end_of(server).await, Some(Reason::SlowHead));
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());

    let (client, server) = connect();
    let start = Instant::now();
    assert_eq!(end_of(server).await, None);
    assert!(start.elapsed() < Duration::from_secs(16), "{:?}", start.elapsed());
    drop(client);
}

/// Threat 13: nothing is read while an answer is waited for or taken, and yet what comes after it is timed.
#[tokio::test(start_paused = true)]
async fn an_idle_viewer_loses_its_place_whatever_its_answer_waited_for() {
    for (path, body_bytes) in [("/", 4), ("/late", 4), ("/large", LARGE)] {
        let (mut client, server) = connect();
        client.write_all(get(path).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while body_of(&answer).len() < body_bytes {
            client.read_buf(&mut answer).await.unwrap();
        }
        let answered = Instant::now();
        timeout(Duration::from_secs(100), server).await.expect(path).unwrap().unwrap();
        assert_eq!(answered.elapsed().as_secs(), 15, "{path}");
        drop(client);
    }
}

/// Threat 23: a viewer that trickles pins what it was given.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_cut_off_and_a_thin_line_is_not() {
    for (bytes_per_second, expected) in [(1_000, Some(Reason::SlowReader)), (16_000, None)] {
        let (mut client, server) = connect();
        client.write_all(get("/large").as_bytes()).await.unwrap();
        let mut buffer = vec![0; bytes_per_second];
        let mut taken = 0;
        while let Ok(bytes) = client.read(&mut buffer).await
            && bytes > 0
            && taken < LARGE
        {
            taken += bytes;
            advance(Duration::from_secs(1)).await;
        }
        if expected.is_some() {
            assert_eq!(end_of(server).await, expected);
            assert!(taken < 64 * 1024, "{taken} bytes");
        } else {
            assert!(taken >= LARGE, "{taken} bytes");
        }
    }
}

/// Threat 13: a viewer that takes nothing more keeps a node from going down.
#[tokio::test(start_paused = true)]
async fn a_drain_waits_five_seconds_for_who_is_still_receiving() {
    let (mut client, server) = duplex(8 * 1024);
    let (site, drain) = (Arc::new(Stage::default()), CancellationToken::new());
    let server = tokio::spawn(h1::serve(
        server,
        Ipv4Addr::LOCALHOST.into(),
        site,
        Arc::new(Drain::new(drain.clone())),
    ));
    client.write_all(get("/large").as_bytes()).await.unwrap();
    client.read_exact(&mut [0; 15]).await.unwrap();
    drain.cancel();
    let start = Instant::now();
    assert_eq!(end_of(server).await, None, "nobody is to blame");
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

/// Threat 23: what a viewer does not take hides in the kernel, by the megabyte, and the viewer does not seem slow.
#[tokio::test]
async fn the_kernel_is_given_little_beyond_what_a_viewer_takes() {
    let listener = net::bind((Ipv4Addr::LOCALHOST, 0).into(), SOCKET).unwrap();
    let viewer = TcpSocket::new_v4().unwrap();
    viewer.set_recv_buffer_size(4_096).unwrap();
    let viewer = viewer.connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let mut given = 0;
    while let Ok(bytes) = socket.try_write(&[b'x'; 16 * 1024]) {
        given += bytes;
    }
    assert!(given <= 512 * 1024, "{given} bytes");
    drop(viewer);
}

#[tokio::test]
async fn a_body_is_refused_unread_and_an_endless_head_too() {
    let (mut client, server) = connect();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nsome of it")
        .await
        .unwrap();
    let answer = read_all(&mut client).await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    let _ = server.await.unwrap();

    let (mut client, server) = connect();
    client.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(client);
    let flood = tokio::spawn(async move { while writer.write_all(&[b'x'; 1024]).await.is_ok() {} });
    assert!(read_all(&mut reader).await.starts_with("HTTP/1.1 431 "));
    assert_eq!(end_of(server).await, Some(Reason::BadRequest));
    flood.abort();

    // Larger than a head may be, and smaller than every buffer.
    let (mut client, server) = connect();
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(17 * 1024));
    let (_, answer) = tokio::join!(client.write_all(long.as_bytes()), async { end_of(server).await });
    assert_eq!(answer, Some(Reason::BadRequest));
}

/// Of those that publish. The connection is good for the next request.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_asked_for_is_read_and_bounded_in_bytes_and_time() {
    let (mut client, server) = connect();
    let post = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\noffer";
    client.write_all(post.as_bytes()).await.unwrap();
    client.write_all(post.replace("offer", "again").as_bytes()).await.unwrap();
    client.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n").await.unwrap();
    client.write_all(&[b'x'; 1_001]).await.unwrap();
    let said = read_all(&mut client).await;
    assert!(said.contains("offer") && said.contains("again") && said.contains(" 413 "), "{said}");
    assert_eq!(said.matches("connection: close").count(), 1, "{said}");
    assert_eq!(end_of(server).await, None);

    let (mut client, _server) = connect();
    client.write_all(&post.as_bytes()[..post.len() - 1]).await.unwrap();
    let begun = Instant::now();
    let said = read_all(&mut client).await;
    assert!(said.contains(" 408 "), "{said}");
    assert!(begun.elapsed() >= body::BODY_TIME_MAX);
}
