//! Drives one session over its socket.

use std::future::{pending, ready};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use media::StreamId;
use net::tls::HandshakeError;
use net::{Guesses, TooManyGuesses};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Span, field, info};

use super::metrics::{Metrics, Reason};
use super::session::{Attempt, Event, Input, Output, RefusalCode, Session, SessionError};
use crate::refusals::may_be_told;
use crate::{Announced, Gate, KeyFault, Publication, PublishError, Refusal, Refused, Secret};

/// One read. 20 ms at 6 Mbit/s; more would only sit idle in every connection.
const READ_BYTES: usize = 16 * 1024;
/// For a publisher to take what we write, a few hundred bytes at most.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// After our last word, for the publisher to read it: closing at once over unread media resets the
/// connection, and a reset discards what is under way.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Who decides about publishers; a trait so that a test can admit, refuse, record and panic.
pub(super) trait Admission: Clone + Send + Sync + 'static {
    type Stream: StreamSink;

    /// Before [`Admission::publish`]: what takes time.
    fn prepare(&self, id: &StreamId, key: &Secret) -> impl Future<Output = Result<(), Refusal>> + Send;

    fn publish(&self, id: &StreamId, key: &Secret) -> Result<Self::Stream, Refusal>;

    /// A publisher was turned away.
    fn turned_away(&self, refused: Refused);
}

/// What a connection asks and tells while it lasts.
pub(super) struct House<A> {
    pub(super) admission: A,
    /// Wrong keys so far, of everybody.
    pub(super) guesses: Guesses,
    pub(super) metrics: Metrics,
    pub(super) drain: CancellationToken,
}

/// Where a publisher's media goes; dropping it ends the stream.
pub(super) trait StreamSink: Send + 'static {
    fn announce(&mut self, announced: Announced);
    fn video(&mut self, stamp: u32, body: Bytes, arrived: Arrival) -> Result<(), PublishError>;
    fn audio(&mut self, stamp: u32, body: Bytes, arrived: Arrival) -> Result<(), PublishError>;

    /// How long to leave the publisher unread.
    fn lead(&self, now: Instant) -> Duration;

    /// The publisher says that it is over, and did not merely lose its connection.
    fn goodbye(self);
}

/// When bytes came out of the socket, on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    now: Instant,
    wall: SystemTime,
}

impl Admission for Gate {
    type Stream = Publication;

    async fn prepare(&self, id: &StreamId, key: &Secret) -> Result<(), Refusal> {
        Self::prepare(self, id, key).await
    }

    fn publish(&self, id: &StreamId, key: &Secret) -> Result<Publication, Refusal> {
        Self::publish(self, id, key, Instant::now().into_std())
    }

    fn turned_away(&self, refused: Refused) {
        Self::turned_away(self, refused);
    }
}

impl StreamSink for Publication {
    fn announce(&mut self, announced: Announced) {
        Self::announce(self, announced);
    }

    fn video(&mut self, stamp: u32, body: Bytes, arrived: Arrival) -> Result<(), PublishError> {
        Self::video(self, stamp, body, arrived.now.into_std(), arrived.wall)
    }

    fn audio(&mut self, stamp: u32, body: Bytes, arrived: Arrival) -> Result<(), PublishError> {
        Self::audio(self, stamp, body, arrived.now.into_std(), arrived.wall)
    }

    fn lead(&self, now: Instant) -> Duration {
        Self::lead(self, now.into_std())
    }

    fn goodbye(self) {
        Self::goodbye(self);
    }
}

/// How a connection ended when nobody is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    ByPeer,
    ByDrain,
}

/// How a connection ended otherwise.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnError {
    /// The publisher broke the protocol, or was too slow.
    #[error("{0}")]
    Session(#[from] SessionError),
    /// The publisher has the wrong key or the wrong moment; [`Refusal`] says when it is us.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The publisher, or somebody at its address, had the wrong key too often.
    #[error("{0}")]
    Guessing(#[from] TooManyGuesses),
    /// The publisher sends what cannot be published.
    #[error("{0}")]
    Publish(#[from] PublishError),
    /// The publisher does not read what we write.
    #[error("took no answer for {} s", WRITE_TIMEOUT.as_secs())]
    WriteTimeout,
    /// No TLS (RTMPS) could be agreed on.
    #[error("no TLS: {0}")]
    Handshake(HandshakeError),
    /// The network, or a publisher that left without a word.
    #[error("{0}")]
    Lost(#[from] io::Error),
}

impl ConnError {
    /// `None` if it was not us who ended the connection.
    pub(super) fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::Session(error) => match error {
                SessionError::NoHandshake | SessionError::NoPublish | SessionError::Silent => Reason::Timeout,
                SessionError::BadName(_) => Reason::BadName,
                SessionError::Play => Reason::Play,
                SessionError::Handshake(_)
                | SessionError::Chunk(_)
                | SessionError::Message(_)
                | SessionError::OutOfOrder => Reason::Protocol,
            },
            Self::Refused(Refusal::WrongKey(_)) => Reason::WrongKey,
            Self::Refused(Refusal::NameTaken(_) | Refusal::TakenElsewhere { .. }) => Reason::NameTaken,
            Self::Refused(Refusal::Draining) | Self::Publish(PublishError::Draining) => Reason::Draining,
            Self::Refused(Refusal::NoRandomness) => Reason::Failed,
            Self::Publish(PublishError::TakenOver) => Reason::TakenOver,
            Self::Publish(PublishError::Over) => Reason::Timeout,
            Self::Guessing(_) => Reason::TooManyGuesses,
            Self::Publish(_) => Reason::Unsupported,
            Self::WriteTimeout => Reason::Timeout,
            Self::Handshake(HandshakeError::Full(_)) => Reason::HandshakesFull,
            Self::Handshake(HandshakeError::TooSlow) => Reason::Timeout,
            Self::Handshake(_) => Reason::BadHandshake,
            Self::Lost(_) => return None,
        })
    }

    /// What there is to tell the holder of the key about it.
    pub(super) fn refused(&self, attempt: &Attempt, peer: IpAddr, at: SystemTime) -> Option<Refused> {
        self.reason()?;
        let stream = attempt.stream.as_ref().filter(|id| !attempt.keyless || may_be_told(id));
        let (stream, words) = match self {
            Self::Refused(Refusal::WrongKey(KeyFault::InName)) => (None, KeyFault::InName.to_string()),
            Self::Refused(Refusal::WrongKey(fault)) => (stream, fault.to_string()),
            error => (stream, error.to_string()),
        };
        let encoder = attempt.encoder.clone();
        Some(Refused { at, times: 1, peer, stream: stream.cloned(), encoder, words })
    }
}

/// Drives one publisher until it leaves, we drain, or the protocol is broken; then lets it read why.
pub(super) async fn run<A: Admission>(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    session: &mut Session,
    house: &House<A>,
) -> Result<Closed, ConnError> {
    // The stream ends with this call, before the last words and not after them.
    let ended = converse(&mut io, peer, session, house).await;
    match &ended {
        Err(ConnError::Lost(_) | ConnError::WriteTimeout) => {}
        Ok(Closed::ByPeer) => part(&mut io, session, false).await,
        _ => part(&mut io, session, true).await,
    }
    ended
}

async fn converse<A: Admission>(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    peer: IpAddr,
    session: &mut Session,
    house: &House<A>,
) -> Result<Closed, ConnError> {
    let mut stream = None;
    let mut received = BytesMut::with_capacity(READ_BYTES);
    let mut arrived = Arrival { now: Instant::now(), wall: SystemTime::now() };
    loop {
        let deadline = loop {
            match session.poll_output() {
                Output::Send(bytes) => write(io, &bytes).await?,
                Output::Event(Event::PublishRequest { id, key }) => {
                    let prepared = tokio::select! {
                        biased;
                        prepared = house.admission.prepare(&id, &key) => prepared,
                        () = house.drain.cancelled() => return Ok(drained(session)),
                        left = hangs_up(io, &mut received) => return left.map(|()| Closed::ByPeer),
                    };
                    stream = Some(admit(session, house, peer, &id, &key, prepared)?);
                    // What is in hand has waited for that, and is not late.
                    arrived = Arrival { now: Instant::now(), wall: SystemTime::now() };
                }
                Output::Event(Event::Unpublished) => {
                    if let Some(stream) = stream {
                        stream.goodbye();
                    }
                    return Ok(Closed::ByPeer);
                }
                Output::Event(event) => {
                    let stream = stream.as_mut().expect("a session hands out media only after accept");
                    apply(session, stream, event, arrived)?;
                }
                Output::Wait { until } => break until,
            }
        };
        // A publisher that sends a file as fast as it can is slowed down to real time, by not reading it.
        let lead = stream.as_ref().map_or(Duration::ZERO, |stream| stream.lead(Instant::now()));
        if !lead.is_zero() {
            tokio::select! {
                () = sleep(lead) => {}
                () = house.drain.cancelled() => {}
            }
        }
        let input = tokio::select! {
            // What has arrived counts before the deadline: we may have left it unread ourselves.
            biased;
            () = house.drain.cancelled() => return Ok(drained(session)),
            () = ready(()), if !received.is_empty() => Input::Bytes(&received),
            read = io.read_buf(&mut received) => match read? {
                0 => return Ok(Closed::ByPeer),
                _ => Input::Bytes(&received),
            },
            () = sleep_until(deadline.into()) => Input::Deadline,
        };
        house.metrics.bytes.inc_by(received.len() as u64);
        arrived = Arrival { now: Instant::now(), wall: SystemTime::now() };
        session.handle_input(input, arrived.now.into_std())?;
        received.clear();
    }
}

fn drained(session: &mut Session) -> Closed {
    session.close("the server is going down; connect again");
    Closed::ByDrain
}

/// Until the publisher leaves. What it sends meanwhile is read as far as there is room for it: it is in front of the news that it
/// has left.
async fn hangs_up(io: &mut (impl AsyncRead + Unpin), received: &mut BytesMut) -> Result<(), ConnError> {
    while received.len() < READ_BYTES {
        if io.read_buf(received).await? == 0 {
            return Ok(());
        }
    }
    pending().await
}

fn admit<A: Admission>(
    session: &mut Session,
    house: &House<A>,
    peer: IpAddr,
    id: &StreamId,
    key: &Secret,
    prepared: Result<(), Refusal>,
) -> Result<A::Stream, ConnError> {
    let publish = || prepared.and_then(|()| house.admission.publish(id, key));
    let is_wrong = |answer: &Result<_, Refusal>| matches!(answer, Err(Refusal::WrongKey(_)));
    let now = Instant::now().into_std();
    let admitted = house.guesses.attempt(peer, now, publish, is_wrong).inspect_err(|guessing| {
        session.refuse(RefusalCode::Denied, &guessing.to_string());
    })?;
    match admitted {
        Ok(stream) => {
            // Not before: people paste the bare key where the name belongs, and then the refused name is the key.
            Span::current().record("stream.id", field::display(id));
            session.accept(Instant::now().into_std())?;
            info!("publishing");
            Ok(stream)
        }
        Err(refusal) => {
            let code = match refusal {
                Refusal::WrongKey(_) => RefusalCode::Denied,
                Refusal::NameTaken(_) | Refusal::TakenElsewhere { .. } => RefusalCode::BadName,
                Refusal::Draining | Refusal::NoRandomness => RefusalCode::Rejected,
            };
            session.refuse(code, &refusal.to_string());
            Err(refusal.into())
        }
    }
}

fn apply(
    session: &mut Session,
    stream: &mut impl StreamSink,
    event: Event,
    arrived: Arrival,
) -> Result<(), ConnError> {
    let applied = match event {
        Event::Video { stamp, body } => stream.video(stamp, body, arrived),
        Event::Audio { stamp, body } => stream.audio(stamp, body, arrived),
        Event::Announced(announced) => {
            stream.announce(announced);
            Ok(())
        }
        Event::PublishRequest { .. } | Event::Unpublished => Ok(()),
    };
    applied.map_err(|error| {
        session.refuse(RefusalCode::Rejected, &error.to_string());
        error.into()
    })
}

async fn write(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), ConnError> {
    match timeout(WRITE_TIMEOUT, io.write_all(bytes)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(ConnError::WriteTimeout),
    }
}

/// Says what is left to say and waits for the publisher to hang up. We do so first only if the publisher meant to
/// stay: after its own goodbye GStreamer takes our hanging up for an error. How the connection ended is decided
/// already, so trouble here changes nothing.
async fn part(io: &mut (impl AsyncRead + AsyncWrite + Unpin), session: &mut Session, hang_up: bool) {
    while let Output::Send(bytes) = session.poll_output() {
        if write(io, &bytes).await.is_err() {
            return;
        }
    }
    let _ = timeout(LINGER_TIMEOUT, async {
        if hang_up {
            io.shutdown().await?;
        }
        tokio::io::copy(io, &mut tokio::io::sink()).await
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::super::testing::{HANDSHAKE_BYTES, Publisher, Studio, last_status};
    use super::*;

    /// One connection over a pipe; time runs only while everybody waits.
    struct Pipe {
        client: DuplexStream,
        studio: Studio,
        drain: CancellationToken,
        server: JoinHandle<Result<Closed, ConnError>>,
    }

    fn connect() -> Pipe {
        let (client, io) = duplex(64 * 1024);
        let (studio, drain) = (Studio::default(), CancellationToken::new());
        let mut session = Session::new(Box::new([0; _]), Instant::now().into_std());
        let server = tokio::spawn({
            let (studio, drain) = (studio.clone(), drain.clone());
            let guesses = Guesses::default();
            let house = House { admission: studio, guesses, metrics: Metrics::default(), drain };
            async move { run(io, Ipv4Addr::LOCALHOST.into(), &mut session, &house).await }
        });
        Pipe { client, studio, drain, server }
    }

    /// Everything the server said, read after it hung up.
    async fn read_all(client: &mut DuplexStream) -> Vec<u8> {
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        said
    }

    #[tokio::test(start_paused = true)]
    async fn media_reaches_the_stream_until_the_publisher_leaves() {
        let Pipe { mut client, studio, server, .. } = connect();
        let mut publisher = Publisher::publishing("live", "x?key=k").video(0, b"config").audio(21, b"aac");
        client.write_all(&publisher.take()).await.unwrap();
        client.shutdown().await.unwrap();
        read_all(&mut client).await;
        assert!(matches!(server.await.unwrap(), Ok(Closed::ByPeer)));
        assert_eq!(studio.seen(), ["live/x begins", "live/x video 0", "live/x audio 21", "live/x ends"]);
    }

    /// The words arrive even though the publisher is still sending, and the stream's name is free before them.
    #[tokio::test(start_paused = true)]
    async fn a_wrong_key_is_explained_and_hung_up_on() {
        let Pipe { mut client, studio, server, .. } = connect();
        let mut publisher = Publisher::publishing("live", "x?key=wrong").video(0, &[0; 4_000]);
        client.write_all(&publisher.take()).await.unwrap();
        let (code, words) = last_status(&read_all(&mut client).await);
        assert_eq!(code, "NetStream.Publish.Denied");
        assert_eq!(words, "the publish key is missing or wrong");
        drop(client);
        let error = server.await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::WrongKey));
        assert!(studio.seen().is_empty());
    }

    /// Threat 26: guessing costs nothing, until it does; and the words do not tell a right key from a wrong one.
    #[tokio::test(start_paused = true)]
    async fn whoever_guesses_keys_waits_and_nobody_else() {
        let studio = Studio::default();
        let guesses = Guesses::default();
        let ask = async |address: [u8; 4], key: &str| {
            let (mut client, io) = duplex(64 * 1024);
            let mut session = Session::new(Box::new([0; _]), Instant::now().into_std());
            let (admission, guesses, drain) = (studio.clone(), guesses.clone(), CancellationToken::new());
            let house = House { admission, guesses, metrics: Metrics::default(), drain };
            let server = tokio::spawn(async move { run(io, address.into(), &mut session, &house).await });
            client.write_all(&Publisher::publishing("live", &format!("x?key={key}")).take()).await.unwrap();
            client.shutdown().await.unwrap();
            let (code, words) = last_status(&read_all(&mut client).await);
            let reason = server.await.unwrap().err().and_then(|error| error.reason());
            (code, words, reason)
        };
        let guesser = [192, 0, 2, 1];
        let denied = "NetStream.Publish.Denied";
        for _ in 0..6 {
            assert_eq!(ask(guesser, "wrong").await.2, Some(Reason::WrongKey));
        }
        let (code, words, reason) = ask(guesser, "wrong").await;
        assert_eq!((code.as_str(), reason), (denied, Some(Reason::TooManyGuesses)));
        assert_eq!(words, "too many wrong keys from this address; try again in 1 s");
        assert_eq!(ask(guesser, "k").await, (code, words, reason), "a right key is not looked at either");
        assert_eq!(ask([192, 0, 2, 2], "k").await.0, "NetStream.Publish.Start");
        assert_eq!(studio.seen(), ["live/x begins", "live/x ends"]);
    }

    /// Threat 21: a name that is the key, told to whoever has another one.
    #[test]
    fn a_key_in_the_place_of_a_name_is_told_to_nobody() {
        let refused = |fault, keyless| {
            let stream = StreamId::new("live", "cam").ok();
            let attempt = Attempt { stream, keyless, ..Attempt::default() };
            let error = ConnError::Refused(Refusal::WrongKey(fault));
            error.refused(&attempt, Ipv4Addr::LOCALHOST.into(), SystemTime::now()).unwrap()
        };
        assert_eq!(refused(KeyFault::Wrong, false).stream, StreamId::new("live", "cam").ok());
        for keyless in [true, false] {
            let refused = refused(KeyFault::InName, keyless);
            assert_eq!((refused.stream, refused.words), (None, KeyFault::InName.to_string()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_taken_name_is_explained() {
        let Pipe { mut client, studio, server, .. } = connect();
        let _first = studio.publish(&StreamId::new("live", "x").unwrap(), &Secret::new("k".to_owned()));
        client.write_all(&Publisher::publishing("live", "x?key=k").take()).await.unwrap();
        let (code, words) = last_status(&read_all(&mut client).await);
        assert_eq!(
            (code.as_str(), words.as_str()),
            ("NetStream.Publish.BadName", "live/x is already being published")
        );
        drop(client);
        assert_eq!(server.await.unwrap().unwrap_err().reason(), Some(Reason::NameTaken));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_published_is_explained() {
        let Pipe { mut client, studio, server, .. } = connect();
        let mut publisher = Publisher::publishing("live", "x?key=k").video(0, Studio::UNSUPPORTED);
        client.write_all(&publisher.take()).await.unwrap();
        let (code, words) = last_status(&read_all(&mut client).await);
        assert_eq!(code, "NetStream.Publish.Rejected");
        assert_eq!(words, PublishError::AudioChanged.to_string());
        drop(client);
        assert_eq!(server.await.unwrap().unwrap_err().reason(), Some(Reason::Unsupported));
        assert_eq!(studio.seen(), ["live/x begins", "live/x ends"]);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_says_goodbye() {
        let Pipe { mut client, studio, drain, server } = connect();
        client.write_all(&Publisher::publishing("live", "x?key=k").take()).await.unwrap();
        studio.saw("live/x begins").await;
        drain.cancel();
        assert_eq!(last_status(&read_all(&mut client).await).0, "NetConnection.Connect.Closed");
        drop(client);
        assert!(matches!(server.await.unwrap(), Ok(Closed::ByDrain)));
        assert_eq!(studio.seen(), ["live/x begins", "live/x ends"]);
    }

    /// GStreamer says goodbye in three commands and reports an error if we hang up after the first.
    #[tokio::test(start_paused = true)]
    async fn a_publisher_that_says_goodbye_hangs_up_first() {
        let Pipe { mut client, studio, server, .. } = connect();
        let mut publisher = Publisher::publishing("live", "x?key=k").command(0, "FCUnpublish", 0.0, &[]);
        client.write_all(&publisher.take()).await.unwrap();
        studio.saw("live/x ends").await;
        let hung_up = timeout(LINGER_TIMEOUT / 2, client.read_to_end(&mut Vec::new())).await;
        assert!(hung_up.is_err(), "the server hung up first");
        client.shutdown().await.unwrap();
        assert!(matches!(server.await.unwrap(), Ok(Closed::ByPeer)));
    }

    /// Threat: a publisher that reads its last words never, or keeps its half open for ever.
    #[tokio::test(start_paused = true)]
    async fn lingering_ends() {
        let Pipe { mut client, server, .. } = connect();
        let started = Instant::now();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(server.await.unwrap().unwrap_err().reason(), Some(Reason::Protocol));
        assert_eq!(started.elapsed(), LINGER_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_says_nothing_is_closed_in_time() {
        let Pipe { client, server, .. } = connect();
        let started = Instant::now();
        assert_eq!(server.await.unwrap().unwrap_err().reason(), Some(Reason::Timeout));
        assert_eq!(started.elapsed(), Duration::from_secs(5) + LINGER_TIMEOUT);
        drop(client);
    }

    /// Threat: a publisher that makes us answer and does not read.
    #[tokio::test(start_paused = true)]
    async fn a_publisher_that_reads_nothing_is_closed() {
        let Pipe { mut client, server, .. } = connect();
        let started = Instant::now();
        client.write_all(&Publisher::new().connect("live").take()).await.unwrap();
        let call = Publisher::new().command(0, "setPeerInfo", 1.0, &[]).take().split_off(HANDSHAKE_BYTES);
        let calls = tokio::spawn(async move { while client.write_all(&call).await.is_ok() {} });
        assert!(matches!(server.await.unwrap(), Err(ConnError::WriteTimeout)));
        // Neither the deadline for its publication nor anything else ended it.
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        calls.await.unwrap();
    }
}
