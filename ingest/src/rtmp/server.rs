//! Accepts publishers, and those who want it so over TLS (RTMPS).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use net::tls::{HandshakeError, Tls};
use net::{Accepted, Acceptor, Full, Guesses, Limits, Options, Panicked, Places, Throttle};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug, error, field, info, info_span};

use super::conn::{self, Admission, Closed, ConnError, House};
use super::handshake::FILLER_BYTES;
use super::metrics::Metrics;
use super::session::Session;
use crate::{Gate, Refusal};

/// Connections at once. A stranger costs 200 kB at most until its `publish` is accepted, so 1,000 stay below the
/// memory of a few streams; a studio behind one address has a dozen encoders.
pub const CONNECTIONS: Limits = Limits { total: 1_000, per_address: 64 };
/// What the listening socket must be. We send publishers a few hundred bytes in all.
pub const SOCKET: Options = Options { backlog: 1_024, unsent_bytes_max: None };
/// Lines a second about connections that ended badly: strangers must not fill a disk with them.
const CLOSED_LINES_MAX: u32 = 10;

/// The RTMP server: bound first, run later, so that a taken port fails the start and not the first publisher.
pub struct Server {
    plain: Acceptor,
    /// RTMPS.
    encrypted: Option<(Acceptor, Tls)>,
    /// Of both.
    places: Places,
    gate: Gate,
    guesses: Guesses,
    metrics: Metrics,
}

impl Server {
    /// On a `listener` made with [`SOCKET`].
    pub fn new(
        listener: TcpListener,
        gate: Gate,
        limits: Limits,
        guesses: Guesses,
        metrics: Metrics,
    ) -> Self {
        let places = Places::new(limits);
        let plain = Acceptor::new("RTMP", listener, places.clone());
        Self { plain, encrypted: None, places, gate, guesses, metrics }
    }

    /// Takes publishers over TLS too, on another `listener` made with [`SOCKET`].
    #[must_use]
    pub fn with_tls(mut self, listener: TcpListener, tls: Tls) -> Self {
        self.encrypted = Some((Acceptor::new("RTMPS", listener, self.places.clone()), tls));
        self
    }

    /// Where it listens; tells the port if that was left to the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.plain.local_addr()
    }

    /// Where it listens for RTMPS.
    pub fn encrypted_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.encrypted.as_ref().map(|(acceptor, _)| acceptor.local_addr()).transpose()
    }

    /// Serves until `drain` is cancelled; then takes nobody new, says goodbye to every publisher, and returns
    /// when the last connection is closed.
    pub async fn run(self, drain: CancellationToken) {
        let Self { plain, encrypted, places: _, gate: admission, guesses, metrics } = self;
        let house = Arc::new(House { admission, guesses, metrics, drain });
        let encrypted = async {
            if let Some((acceptor, tls)) = encrypted {
                accept(acceptor, Some(tls), Arc::clone(&house)).await;
            }
        };
        tokio::join!(accept(plain, None, Arc::clone(&house)), encrypted);
    }
}

async fn accept<A: Admission>(mut acceptor: Acceptor, tls: Option<Tls>, house: Arc<House<A>>) {
    let tasks = TaskTracker::new();
    let log = Arc::new(Throttle::per_second(CLOSED_LINES_MAX));
    loop {
        let refused = |full: Full| {
            house.metrics.accepted.inc();
            house.metrics.refused(full.into()).inc();
        };
        let accepted = tokio::select! {
            accepted = acceptor.next(refused) => accepted,
            () = house.drain.cancelled() => break,
        };
        house.metrics.accepted.inc();
        tasks.spawn(supervise(accepted, tls.clone(), Arc::clone(&house), Arc::clone(&log)));
    }
    drop(acceptor);
    tasks.close();
    tasks.wait().await;
}

async fn run<A: Admission>(
    socket: TcpStream,
    peer: IpAddr,
    tls: Option<Tls>,
    house: &House<A>,
) -> Result<Closed, ConnError> {
    // Our answers are small, and the publisher waits for each.
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return converse(socket, peer, house).await };
    let handshake = tls.accept(peer, socket);
    let stream = tokio::select! {
        stream = handshake => stream.map_err(ConnError::Handshake)?,
        () = house.drain.cancelled() => return Ok(Closed::ByDrain),
    };
    converse(stream, peer, house).await
}

async fn converse<A: Admission>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    house: &House<A>,
) -> Result<Closed, ConnError> {
    let mut filler = Box::new([0; FILLER_BYTES]);
    getrandom::fill(&mut filler[..]).expect("the operating system has random bytes");
    let mut session = Session::new(filler, Instant::now().into_std());
    let ended = conn::run(stream, peer, &mut session, house).await;
    if let (Err(error), Some(attempt)) = (&ended, session.attempt())
        && let Some(refused) = error.refused(attempt, peer, SystemTime::now())
    {
        house.admission.turned_away(refused);
    }
    ended
}

/// Runs one connection so that a panic in it ends it alone, and tells how it ended.
async fn supervise<A: Admission>(
    accepted: Accepted,
    tls: Option<Tls>,
    house: Arc<House<A>>,
    log: Arc<Throttle>,
) {
    let Accepted { socket, peer, place } = accepted;
    let span = info_span!(
        "publisher",
        proto = if tls.is_some() { "rtmps" } else { "rtmp" },
        peer.addr = %peer,
        stream.id = field::Empty,
        session = field::Empty
    );
    let metrics = &house.metrics;
    metrics.connections.inc();
    let ended = net::contain(run(socket, peer.ip(), tls, &house).instrument(span.clone())).await;
    metrics.connections.dec();
    drop(place);
    report(&span, metrics, &log, ended);
}

/// The one line that every connection leaves behind, unless there are too many of them.
fn report(
    span: &Span,
    metrics: &Metrics,
    log: &Throttle,
    ended: Result<Result<Closed, ConnError>, Panicked>,
) {
    let _entered = span.enter();
    match ended {
        Ok(Ok(Closed::ByPeer)) => debug!("publisher left"),
        Ok(Ok(Closed::ByDrain)) => debug!("publisher sent away: draining"),
        Ok(Err(ConnError::Lost(error))) => debug!(%error, "publisher lost"),
        // It hung up in its handshake: it does not trust our certificate, or was no publisher.
        Ok(Err(ConnError::Handshake(HandshakeError::Failed(error))))
            if error.kind() != io::ErrorKind::InvalidData =>
        {
            debug!(%error, "publisher left in its handshake");
        }
        Ok(Err(error)) => {
            if let Some(reason) = error.reason() {
                metrics.refused(reason).inc();
            }
            match error {
                ConnError::Refused(Refusal::NoRandomness) => error!(%error, "publisher closed"),
                _ => {
                    if let Some(left_out) = log.pass(Instant::now().into_std()) {
                        info!(%error, left_out = (left_out > 0).then_some(left_out), "publisher closed");
                    }
                }
            }
        }
        Err(Panicked) => {
            metrics.panics.inc();
            error!("publisher closed: its session panicked; this is a bug");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use media::StreamId;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;
    use tracing::subscriber::DefaultGuard;

    use super::super::session::SessionError;
    use super::super::testing::{Publisher, Studio, last_status};
    use super::*;

    struct Running {
        address: SocketAddr,
        studio: Studio,
        metrics: Metrics,
        registry: Registry,
        drain: CancellationToken,
        server: JoinHandle<()>,
        log: Log,
        /// In every test, not only in the one that reads the log: a thread that logs before anybody listens may
        /// switch the line off for all.
        _logging: DefaultGuard,
    }

    async fn start(limits: Limits) -> Running {
        start_with(limits, None).await
    }

    async fn start_with(limits: Limits, tls: Option<Tls>) -> Running {
        let (log, _logging) = Log::capture();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (studio, mut registry, drain) =
            (Studio::default(), Registry::default(), CancellationToken::new());
        let metrics = Metrics::register(&mut registry);
        let (admission, guesses) = (studio.clone(), Guesses::default());
        let house = House { admission, guesses, metrics: metrics.clone(), drain: drain.clone() };
        let acceptor = Acceptor::new("RTMP", listener, Places::new(limits));
        let server = tokio::spawn(accept(acceptor, tls, Arc::new(house)));
        Running { address, studio, metrics, registry, drain, server, log, _logging }
    }

    impl Running {
        async fn publish(&self, name: &str) -> (TcpStream, Publisher) {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            let mut publisher = Publisher::publishing("live", name);
            socket.write_all(&publisher.take()).await.unwrap();
            (socket, publisher)
        }
    }

    fn exposition(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    async fn read_all(socket: &mut TcpStream) -> Vec<u8> {
        let mut said = Vec::new();
        socket.read_to_end(&mut said).await.unwrap();
        said
    }

    /// Threat: one publisher finds a bug of ours. It loses its connection, and nobody else notices.
    #[tokio::test]
    async fn a_panic_ends_one_connection_only() {
        let running = start(CONNECTIONS).await;
        let (mut good, mut honest) = running.publish("good?key=k").await;
        let (mut bad, publisher) = running.publish("bad?key=k").await;
        running.studio.saw("live/good begins").await;

        bad.write_all(&publisher.video(0, Studio::POISON).take()).await.unwrap();
        running.studio.saw("live/bad ends").await;
        let _ = read_all(&mut bad).await;

        honest = honest.video(33, b"still here");
        good.write_all(&honest.take()).await.unwrap();
        running.studio.saw("live/good video 33").await;
        let (_again, _) = running.publish("bad?key=k").await;
        running.studio.saw("live/bad begins").await;

        running.drain.cancel();
        drop((good, bad, _again));
        running.server.await.unwrap();
        assert_eq!(running.metrics.panics.get(), 1);
        assert_eq!(running.metrics.connections.get(), 0);
    }

    #[tokio::test]
    async fn draining_takes_nobody_new_and_waits_for_the_last() {
        let running = start(CONNECTIONS).await;
        let (mut socket, _) = running.publish("x?key=k").await;
        running.studio.saw("live/x begins").await;
        running.drain.cancel();
        assert_eq!(last_status(&read_all(&mut socket).await).0, "NetConnection.Connect.Closed");
        assert!(!running.server.is_finished(), "the publisher has not closed its half yet");
        drop(socket);
        running.server.await.unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
        assert_eq!(running.studio.seen(), ["live/x begins", "live/x ends"]);
    }

    /// Who hangs up and comes again must not find its own dead connection in its place.
    #[tokio::test]
    async fn who_hangs_up_before_the_verdict_is_gone() {
        let running = start(CONNECTIONS).await;
        let (socket, _) = running.publish("slow?key=k").await;
        running.studio.saw("waits for live/slow").await;
        drop(socket);
        let gone = async {
            while running.metrics.connections.get() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), gone).await.expect("it is still waited for");
        assert_eq!(running.studio.seen(), ["waits for live/slow"]);
    }

    #[tokio::test]
    async fn draining_sends_away_who_waits_for_the_verdict() {
        let running = start(CONNECTIONS).await;
        let (mut socket, _) = running.publish("slow?key=k").await;
        running.studio.saw("waits for live/slow").await;
        running.drain.cancel();
        assert_eq!(last_status(&read_all(&mut socket).await).0, "NetConnection.Connect.Closed");
        drop(socket);
        running.server.await.unwrap();
        assert_eq!(running.studio.seen(), ["waits for live/slow"]);
    }

    #[tokio::test]
    async fn what_is_sent_before_the_verdict_is_heard_behind_it() {
        let running = start(CONNECTIONS).await;
        let (mut socket, publisher) = running.publish("slow?key=k").await;
        running.studio.saw("waits for live/slow").await;
        // More than is read meanwhile.
        let media = publisher.video(0, &[7; 100_000]).video(33, b"and more").take();
        let (mut from_us, mut to_us) = socket.split();
        let sending = async { to_us.write_all(&media).await.unwrap() };
        let hearing = async {
            running.studio.verdict.notify_one();
            running.studio.saw("live/slow video 33").await;
        };
        tokio::join!(sending, hearing);
        assert_eq!(
            running.studio.seen(),
            ["waits for live/slow", "live/slow begins", "live/slow video 0", "live/slow video 33"]
        );
        running.drain.cancel();
        from_us.read_to_end(&mut Vec::new()).await.unwrap();
    }

    /// Threat: more connections than we have memory for, or all of them from one place.
    #[tokio::test]
    async fn connections_are_capped() {
        let running = start(Limits { total: 10, per_address: 1 }).await;
        let (socket, _) = running.publish("x?key=k").await;
        running.studio.saw("live/x begins").await;
        let mut refused = TcpStream::connect(running.address).await.unwrap();
        assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);

        drop(socket);
        running.studio.saw("live/x ends").await;
        running.drain.cancel();
        running.server.await.unwrap();
        let exposition = exposition(&running.registry);
        assert!(exposition.contains("rtmp_refused_total{reason=\"address_full\"} 1"), "{exposition}");
    }

    /// RTMPS: the same conversation, over TLS. And whoever speaks RTMP to that port is told apart from a publisher.
    #[tokio::test]
    async fn a_publisher_is_taken_over_tls_too() {
        let made = rcgen::generate_simple_self_signed(vec!["live.example".to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        let certificate =
            net::tls::Certificate::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
        let served = Arc::new(net::tls::Served::new(Some(certificate)));
        let tls = Tls::new(served, net::tls::Protocols::Unnamed).unwrap();
        let running = start_with(CONNECTIONS, Some(tls)).await;

        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let socket = TcpStream::connect(running.address).await.unwrap();
        let mut socket = connector.connect("live.example".try_into().unwrap(), socket).await.unwrap();
        let mut publisher = Publisher::publishing("live", "x?key=k");
        socket.write_all(&publisher.take()).await.unwrap();
        running.studio.saw("live/x begins").await;
        publisher = publisher.video(33, b"encrypted");
        socket.write_all(&publisher.take()).await.unwrap();
        running.studio.saw("live/x video 33").await;

        let (mut plain, _) = running.publish("y?key=k").await;
        let _ = plain.read_to_end(&mut Vec::new()).await;
        running.drain.cancel();
        let mut said = Vec::new();
        socket.read_to_end(&mut said).await.unwrap();
        assert_eq!(last_status(&said).0, "NetConnection.Connect.Closed");
        drop((socket, plain));
        running.server.await.unwrap();
        let exposition = exposition(&running.registry);
        assert!(exposition.contains("rtmp_refused_total{reason=\"bad_handshake\"} 1"), "{exposition}");
        let text = running.log.text();
        assert!(text.contains("proto=\"rtmps\"") && text.contains("publisher closed error=no TLS"), "{text}");
    }

    /// What a subscriber at the finest level would have written.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            io::Write::write(&mut *self.0.lock().unwrap(), line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// Everything that this thread logs while the guard lives.
        fn capture() -> (Self, DefaultGuard) {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            (log, tracing::subscriber::set_default(subscriber))
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Threat: a key ends up in a log, where more people read it than may publish.
    #[tokio::test]
    async fn every_connection_leaves_one_line_and_none_holds_the_key() {
        let running = start(CONNECTIONS).await;
        for (app, name) in [
            ("live", "good?key=canary"),
            ("live", "wrong?key=canary-wrong"),
            ("live", "canary/x?key=canary"),
            ("live?key=canary-wrong", "x"),
            ("canary/..", "x?key=canary"),
            ("live", "canary-alone"),
        ] {
            let mut socket = TcpStream::connect(running.address).await.unwrap();
            socket.write_all(&Publisher::publishing(app, name).take()).await.unwrap();
            socket.shutdown().await.unwrap();
            read_all(&mut socket).await;
        }
        let mut web = TcpStream::connect(running.address).await.unwrap();
        web.write_all(b"GET /?key=canary HTTP/1.1\r\n\r\n").await.unwrap();
        read_all(&mut web).await;
        drop(web);
        running.drain.cancel();
        running.server.await.unwrap();

        let text = running.log.text();
        assert_eq!(text.matches(" INFO ").count(), 7, "{text}");
        assert_eq!(text.matches("publishing").count(), 1, "{text}");
        assert_eq!(text.matches("publisher closed").count(), 6, "{text}");
        assert_eq!(text.matches("publisher left").count(), 1, "{text}");
        assert!(text.contains("stream.id=live/good"), "{text}");
        assert!(text.contains("this looks like HTTP"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    /// Threat: a flood of refused connections fills the disk with our words about them.
    #[tokio::test]
    async fn a_flood_of_bad_endings_is_ten_lines_and_a_count() {
        let running = start(CONNECTIONS).await;
        let ended = || ConnError::Session(SessionError::NoHandshake);
        let log = Throttle::per_second(CLOSED_LINES_MAX);
        for _ in 0..1_000 {
            report(&Span::none(), &running.metrics, &log, Ok(Err(ended())));
        }
        let lines = running.log.text().matches("publisher closed").count();
        assert!((10..=20).contains(&lines), "{lines}: within a second, or over the end of one");
        let exposition = exposition(&running.registry);
        assert!(exposition.contains("rtmp_refused_total{reason=\"timeout\"} 1000"), "{exposition}");
        running.drain.cancel();
        running.server.await.unwrap();
    }

    /// OBS shows its user nothing of our words, so they are kept for whoever has the key. Threat: with them a key that
    /// was typed into the wrong field.
    #[tokio::test]
    async fn who_is_turned_away_is_kept_in_words_without_what_could_be_a_key() {
        let running = start(CONNECTIONS).await;
        let bare_key = "canary-of-twenty-six-chars";
        for (app, name) in [
            ("live", "cam?key=canary-wrong"),
            ("live", bare_key),
            (bare_key, "cam"),
            ("live", "a.b?key=canary"),
        ] {
            let mut socket = TcpStream::connect(running.address).await.unwrap();
            socket.write_all(&Publisher::publishing(app, name).take()).await.unwrap();
            socket.shutdown().await.unwrap();
            read_all(&mut socket).await;
        }
        let mut web = TcpStream::connect(running.address).await.unwrap();
        web.write_all(b"GET /?key=canary HTTP/1.1\r\n\r\n").await.unwrap();
        read_all(&mut web).await;
        drop(web);
        running.drain.cancel();
        running.server.await.unwrap();

        let refused = running.studio.refused.lock().unwrap().clone();
        assert_eq!(refused.len(), 4, "a web browser is nobody's publisher: {refused:?}");
        assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
        let streams: Vec<_> = refused.iter().map(|refused| refused.stream.clone()).collect();
        assert_eq!(streams, [StreamId::new("live", "cam").ok(), None, None, None]);
        assert_eq!(refused[0].words, "wrong key");
        assert!(refused.iter().all(|refused| refused.peer.is_loopback()));
        assert_eq!(refused[0].encoder.as_deref(), Some("ffmpeg (Lavf 59.27.100)"));
        assert!(refused[3].words.starts_with("bad application or stream name"), "{}", refused[3].words);
    }

    #[tokio::test]
    async fn endings_are_counted_by_reason_and_never_by_name() {
        let running = start(CONNECTIONS).await;
        let (mut socket, _) = running.publish("canary?key=canary-wrong").await;
        assert_eq!(last_status(&read_all(&mut socket).await).0, "NetStream.Publish.Denied");
        drop(socket);
        running.drain.cancel();
        running.server.await.unwrap();
        let exposition = exposition(&running.registry);
        assert!(exposition.contains("rtmp_refused_total{reason=\"wrong_key\"} 1"), "{exposition}");
        assert!(exposition.contains("rtmp_received_bytes_total "), "{exposition}");
        assert!(!exposition.contains("canary"));
    }
}
