use proptest::prelude::*;

use super::super::chunk::MESSAGE_BYTES_MAX;
use super::super::testing::{HANDSHAKE_BYTES, Publisher, answers, commands, last_status, raw};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A session, a clock moved by hand, and a gate that lets everybody in unless told to wait.
struct Sim {
    session: Session,
    undecided: bool,
    now: Instant,
    deadline: Instant,
    sent: Vec<u8>,
    seen: Vec<String>,
}

impl Sim {
    fn new() -> Self {
        let now = Instant::now();
        let session = Session::new(Box::new([0; FILLER_BYTES]), now);
        Self { session, undecided: false, now, deadline: now, sent: Vec::new(), seen: Vec::new() }
    }

    fn say(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let result = self.session.handle_input(Input::Bytes(bytes), self.now);
        result.and(self.poll())
    }

    fn wait(&mut self, time: Duration) -> Result<(), SessionError> {
        self.now += time;
        let result = self.session.handle_input(Input::Deadline, self.now);
        result.and(self.poll())
    }

    fn poll(&mut self) -> Result<(), SessionError> {
        loop {
            let seen = match self.session.poll_output() {
                Output::Send(bytes) => {
                    self.sent.extend_from_slice(&bytes);
                    continue;
                }
                Output::Wait { until } => {
                    self.deadline = until;
                    return Ok(());
                }
                Output::Event(Event::PublishRequest { id, key }) => {
                    if !self.undecided {
                        self.session.accept(self.now)?;
                    }
                    format!("publish {id} with {}", key.expose())
                }
                Output::Event(Event::Announced(Announced { video, audio, .. })) => {
                    format!("announced video {video} audio {audio}")
                }
                Output::Event(Event::Video { stamp, body }) => format!("video {stamp} {}", text(&body)),
                Output::Event(Event::Audio { stamp, body }) => format!("audio {stamp} {}", text(&body)),
                Output::Event(Event::Unpublished) => "unpublished".to_owned(),
            };
            self.seen.push(seen);
        }
    }

    /// Result of what `publisher` says, all at once.
    fn hear(publisher: &mut Publisher) -> (Self, Result<(), SessionError>) {
        let mut sim = Self::new();
        let result = sim.say(&publisher.take());
        let _ = sim.poll();
        (sim, result)
    }
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap()
}

fn metadata() -> RawMessage {
    let metadata = Value::EcmaArray(vec![("videocodecid".to_owned(), Value::Number(7.0))]);
    raw(kind::DATA, 1, &amf::encode(&[Value::string("@setDataFrame"), Value::string("onMetaData"), metadata]))
}

#[test]
fn a_publisher_goes_live_and_leaves() {
    let mut publisher = Publisher::publishing("live", "x?key=k")
        .message(4, metadata())
        .video(0, b"config")
        .audio(0, b"")
        .video(33, b"key")
        .audio(40, b"aac")
        .command(0, "FCUnpublish", 6.0, &[Value::Null, Value::string("x?key=k")])
        .command(0, "deleteStream", 7.0, &[Value::Null, Value::Number(1.0)])
        .video(66, b"late");
    let (sim, result) = Sim::hear(&mut publisher);
    assert_eq!(result, Ok(()));
    assert_eq!(
        sim.seen,
        [
            "publish live/x with k",
            "announced video true audio false",
            "video 0 config",
            "video 33 key",
            "audio 40 aac",
            "unpublished"
        ]
    );
    let names: Vec<_> = commands(&sim.sent).into_iter().map(|c| (c.name, c.transaction, c.stream)).collect();
    let expected = [
        ("_result", 1.0, 0),
        ("_result", 2.0, 0),
        ("_result", 3.0, 0),
        ("onFCPublish", 0.0, 0),
        ("_result", 4.0, 0),
        ("onStatus", 0.0, 1),
        ("onStatus", 0.0, 1),
    ];
    assert_eq!(names, expected.map(|(name, transaction, stream)| (name.to_owned(), transaction, stream)));
    assert_eq!(last_status(&sim.sent).0, "NetStream.Unpublish.Success");
}

#[test]
fn connect_is_answered_with_window_bandwidth_and_success() {
    let (sim, _) = Sim::hear(&mut Publisher::new().connect("live"));
    let kinds: Vec<_> = answers(&sim.sent).iter().map(|answer| answer.kind).collect();
    assert_eq!(kinds, [kind::WINDOW_ACK_SIZE, kind::SET_PEER_BANDWIDTH, kind::COMMAND]);
    let connected = commands(&sim.sent).remove(0);
    assert_eq!(connected.arguments[1].get("code"), Some(&Value::string("NetConnection.Connect.Success")));
    assert_eq!(connected.arguments[1].get("objectEncoding"), Some(&Value::Number(0.0)));
}

fn connected(properties: Vec<(&str, Value)>) -> Command {
    let app = ("app".to_owned(), Value::string("live"));
    let rest = properties.into_iter().map(|(name, value)| (name.to_owned(), value));
    let object = Value::Object(std::iter::once(app).chain(rest).collect());
    let (sim, result) = Sim::hear(&mut Publisher::new().command(0, "connect", 1.0, &[object]));
    assert_eq!(result, Ok(()));
    commands(&sim.sent).remove(0)
}

/// Encoders offer HEVC, AV1 and several tracks only to a server that says it takes them.
#[test]
fn whoever_speaks_of_enhanced_rtmp_is_told_what_we_take() {
    let list = Value::StrictArray(vec![Value::string("hvc1")]);
    for asked in [("fourCcList", list), ("capsEx", Value::Number(7.0))] {
        let answer = connected(vec![asked]);
        let server = &answer.arguments[0];
        let fourccs = ["avc1", "hvc1", "av01", "mp4a", "Opus"].map(Value::string);
        assert_eq!(server.get("fourCcList"), Some(&Value::StrictArray(fourccs.into())));
        let forward = Value::object(["avc1", "hvc1", "av01"].map(|fourcc| (fourcc, Value::Number(4.0))));
        assert_eq!(server.get("videoFourCcInfoMap"), Some(&forward));
        assert!(server.get("audioFourCcInfoMap").unwrap().get("Opus").is_some());
        assert_eq!(server.get("capsEx"), Some(&Value::Number(6.0)));
    }
    assert_eq!(connected(vec![]).arguments[0].get("fourCcList"), None);
}

/// Flash Media Live Encoder asks for AMF3, and then wraps its commands in message type 17.
#[test]
fn a_publisher_may_speak_amf3() {
    let answer = connected(vec![("objectEncoding", Value::Number(3.0))]);
    assert_eq!(answer.arguments[1].get("objectEncoding"), Some(&Value::Number(3.0)));

    let amf3_null: &[u8] = &[0x11, 0x01];
    let name: &[u8] = b"\x11\x06\x0Fx?key=k";
    let transaction = [&[0][..], &4.0_f64.to_be_bytes()].concat();
    let publish = [&[0][..], b"\x02\x00\x07publish", &transaction, amf3_null, name].concat();
    // onMetaData in AMF3: a dynamic object with a codec id of 7.
    let object: &[u8] = b"\x11\x0A\x0B\x01\x19videocodecid\x04\x07\x01";
    let metadata = [&[0][..], b"\x02\x00\x0AonMetaData", object].concat();
    let mut publisher = Publisher::new()
        .connect("live")
        .message(3, raw(kind::COMMAND_AMF3, 1, &publish))
        .message(4, raw(kind::DATA_AMF3, 1, &metadata));
    let (sim, result) = Sim::hear(&mut publisher);
    assert_eq!(result, Ok(()));
    assert_eq!(sim.seen, ["publish live/x with k", "announced video true audio false"]);
}

/// Nothing a publisher sends ahead of the verdict is lost, and nothing of it comes out before.
#[test]
fn media_behind_publish_waits_for_the_verdict() {
    let mut sim = Sim { undecided: true, ..Sim::new() };
    sim.say(&Publisher::publishing("live", "x?key=k").video(0, b"config").take()).unwrap();
    assert_eq!(sim.seen, ["publish live/x with k"]);
    sim.session.accept(sim.now).unwrap();
    sim.poll().unwrap();
    assert_eq!(sim.seen[1..], ["video 0 config"]);
}

/// Encoders send nothing before the verdict, for which a cluster may have to be asked.
#[test]
fn a_publisher_that_waits_for_the_verdict_is_not_silent() {
    let mut sim = Sim { undecided: true, ..Sim::new() };
    sim.say(&Publisher::publishing("live", "x?key=k").take()).unwrap();
    sim.now += 20 * SECOND;
    sim.session.accept(sim.now).unwrap();
    sim.poll().unwrap();
    assert_eq!(sim.wait(9 * SECOND), Ok(()));
    assert_eq!(sim.wait(SECOND), Err(SessionError::Silent));
}

#[test]
fn a_refusal_is_said_in_words_and_ends_everything() {
    for (code, name) in [
        (RefusalCode::Denied, "NetStream.Publish.Denied"),
        (RefusalCode::BadName, "NetStream.Publish.BadName"),
        (RefusalCode::Rejected, "NetStream.Publish.Rejected"),
    ] {
        let mut sim = Sim { undecided: true, ..Sim::new() };
        let mut publisher = Publisher::publishing("live", "x?key=k").video(0, b"config");
        sim.say(&publisher.take()).unwrap();
        sim.session.refuse(code, "the publish key is missing or wrong");
        sim.say(&publisher.video(33, b"key").take()).unwrap();
        assert_eq!(
            last_status(&sim.sent),
            (name.to_owned(), "the publish key is missing or wrong".to_owned())
        );
        assert_eq!(sim.seen.len(), 1);
    }
}

#[test]
fn a_bad_name_is_refused_in_words() {
    for name in ["..", "a/b", "", "x%2e", "?key=k"] {
        let (sim, result) = Sim::hear(&mut Publisher::publishing("live", name));
        assert!(matches!(result, Err(SessionError::BadName(_))), "{name:?}");
        let (code, words) = last_status(&sim.sent);
        assert_eq!(code, "NetStream.Publish.BadName");
        assert!(words.contains("{stream}?key={publish key}"), "{words}");
        assert!(sim.seen.is_empty());
    }
}

#[test]
fn players_are_sent_to_http() {
    let play = |name: &str| {
        let arguments = [Value::Null, Value::string(name)];
        let mut player = Publisher::new()
            .connect("live")
            .command(0, "createStream", 2.0, &[Value::Null])
            .command(0, "getStreamLength", 3.0, &arguments)
            .command(1, "play", 4.0, &arguments);
        let (sim, result) = Sim::hear(&mut player);
        assert_eq!(result, Err(SessionError::Play));
        last_status(&sim.sent)
    };
    let (code, words) = play("x?key=canary");
    assert_eq!(code, "NetStream.Play.Failed");
    assert!(words.contains("/watch/live/x ") && words.contains("/hls/live/x/index.m3u8"), "{words}");
    assert!(!words.contains("canary"));
    assert!(play("..").1.contains("/watch/{app}/{stream}"));
}

#[test]
fn commands_out_of_order_are_refused() {
    let publish = [Value::Null, Value::string("x")];
    let second_connect = Publisher::new().connect("live").connect("live");
    let second_publish = Publisher::publishing("live", "x").command(1, "publish", 6.0, &publish);
    for mut publisher in
        [Publisher::new().command(1, "publish", 1.0, &publish), second_connect, second_publish]
    {
        assert_eq!(Sim::hear(&mut publisher).1, Err(SessionError::OutOfOrder));
    }
}

#[test]
fn unknown_calls_are_answered_and_answers_are_not() {
    let mut publisher = Publisher::new()
        .connect("live")
        .command(0, "setPeerInfo", 9.0, &[])
        .command(0, "setPeerInfo", 0.0, &[])
        .command(0, "_result", 10.0, &[])
        .command(0, "FCUnpublish", 0.0, &[Value::Null, Value::string("x")]);
    let (sim, result) = Sim::hear(&mut publisher);
    assert_eq!(result, Ok(()));
    let answers: Vec<_> = commands(&sim.sent).into_iter().map(|c| (c.name, c.transaction)).collect();
    assert_eq!(answers, [("_result".to_owned(), 1.0), ("_error".to_owned(), 9.0)]);
}

/// §5.4.3: an encoder that hears no acknowledgement may stop sending.
#[test]
fn received_bytes_are_acknowledged_once_per_window() {
    let window = raw(kind::WINDOW_ACK_SIZE, 0, &10_000_u32.to_be_bytes());
    let mut publisher = Publisher::publishing("live", "x").message(2, window);
    let (mut sim, _) = Sim::hear(&mut publisher);
    let mut received = 0;
    for stamp in 0..100 {
        publisher = publisher.video(stamp, &[b'v'; 1_000]);
        sim.say(&publisher.take()).unwrap();
        received += 1_000;
    }
    let acknowledged: Vec<_> = answers(&sim.sent)
        .into_iter()
        .filter(|answer| answer.kind == kind::ACKNOWLEDGEMENT)
        .map(|answer| u32::from_be_bytes(answer.body[..].try_into().unwrap()))
        .collect();
    assert!((9..=11).contains(&acknowledged.len()), "{acknowledged:?}");
    assert!(acknowledged.iter().is_sorted() && *acknowledged.last().unwrap() >= received - 10_000);
}

/// Threat: a window of one byte, so that every byte costs us a message.
#[test]
fn a_tiny_window_is_answered_once_per_read() {
    let window = raw(kind::WINDOW_ACK_SIZE, 0, &0_u32.to_be_bytes());
    let (mut sim, _) = Sim::hear(&mut Publisher::publishing("live", "x").message(2, window));
    let before = answers(&sim.sent).len();
    let mut publisher = Publisher::new();
    publisher.take();
    for stamp in 0..50 {
        publisher = publisher.video(stamp, b"v");
    }
    sim.say(&publisher.take()).unwrap();
    assert_eq!(answers(&sim.sent).len(), before + 1);
}

#[test]
fn pings_come_back() {
    let ping = raw(kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]);
    let (sim, _) = Sim::hear(&mut Publisher::new().connect("live").message(2, ping));
    let pong = answers(&sim.sent).pop().unwrap();
    assert_eq!((pong.kind, &pong.body[..]), (kind::USER_CONTROL, &[0, 7, 1, 2, 3, 4][..]));
}

/// Threat: a stranger holds a connection by dripping bytes.
#[test]
fn strangers_have_fixed_deadlines() {
    let mut sim = Sim::new();
    let bytes = Publisher::publishing("live", "x").take();
    for byte in &bytes[..4] {
        assert_eq!(sim.say(&[*byte]), Ok(()));
        sim.now += SECOND;
    }
    assert_eq!(sim.deadline, sim.now + SECOND);
    sim.now += SECOND;
    assert_eq!(sim.say(&[0]), Err(SessionError::NoHandshake));

    let mut sim = Sim::new();
    sim.say(&bytes[..HANDSHAKE_BYTES]).unwrap();
    for byte in &bytes[HANDSHAKE_BYTES..][..9] {
        sim.now += SECOND;
        assert_eq!(sim.say(&[*byte]), Ok(()));
    }
    assert_eq!(sim.wait(SECOND), Err(SessionError::NoPublish));
}

#[test]
fn a_silent_publisher_is_closed() {
    let mut publisher = Publisher::publishing("live", "x");
    let (mut sim, _) = Sim::hear(&mut publisher);
    for stamp in 0..3 {
        assert_eq!(sim.wait(9 * SECOND), Ok(()));
        publisher = publisher.video(stamp, b"v");
        sim.say(&publisher.take()).unwrap();
    }
    assert_eq!(sim.wait(10 * SECOND), Err(SessionError::Silent));
}

/// Threat: a stranger sends messages that only a publisher needs, or arguments that fill the memory.
#[test]
fn long_messages_are_for_publishers() {
    let long = vec![b'v'; 65_537];
    let (_, result) = Sim::hear(&mut Publisher::new().connect("live").video(0, &long));
    assert!(matches!(result, Err(SessionError::Chunk(ChunkError::TooLong { .. }))));
    let (sim, result) = Sim::hear(&mut Publisher::publishing("live", "x").video(0, &long));
    assert_eq!((result, sim.seen.len()), (Ok(()), 2));
    let longest = vec![b'v'; MESSAGE_BYTES_MAX as usize + 1];
    let (_, result) = Sim::hear(&mut Publisher::publishing("live", "x").video(0, &longest));
    assert!(matches!(result, Err(SessionError::Chunk(ChunkError::TooLong { .. }))));
}

/// The key is in what a publisher sends; it must not be in what we say about it.
#[test]
fn no_error_repeats_what_was_sent() {
    let canary = "x?key=canary";
    let values = [Value::Null, Value::string(canary)];
    let publishers = [
        Publisher::publishing("canary/..", canary),
        Publisher::publishing("live", "canary/x?key=canary"),
        Publisher::publishing("live", canary).command(1, "publish", 6.0, &values),
        Publisher::new().connect("live?key=canary").command(1, "play", 2.0, &values),
        Publisher::new().message(3, raw(kind::COMMAND, 0, b"\x02\x00\x06canary\x11")),
    ];
    for mut publisher in publishers {
        let (sim, result) = Sim::hear(&mut publisher);
        let error = result.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        assert!(!String::from_utf8_lossy(&sim.sent[HANDSHAKE_BYTES..]).contains("canary"), "{error:?}");
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(cuts in prop::collection::vec(1..2_000_usize, 1..40)) {
        let mut publisher = Publisher::publishing("live", "x?key=k")
            .message(4, metadata())
            .video(0, b"config")
            .video(33, &[b'v'; 3_000])
            .audio(40, b"aac")
            .command(0, "deleteStream", 7.0, &[Value::Null, Value::Number(1.0)]);
        let bytes = publisher.take();
        let mut whole = Sim::new();
        whole.say(&bytes).unwrap();
        let mut split = Sim::new();
        let mut rest = &bytes[..];
        let mut cuts = cuts.into_iter().cycle();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            rest = later;
            split.say(piece).unwrap();
        }
        prop_assert_eq!(split.seen, whole.seen);
        prop_assert_eq!(split.sent, whole.sent);
    }

    #[test]
    fn random_bytes_never_panic(
        head in 0..400_usize,
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let start = Publisher::publishing("live", "x").take();
        let mut sim = Sim::new();
        let _ = sim.say(&start[..(HANDSHAKE_BYTES + head).min(start.len())]);
        for piece in pieces {
            if sim.say(&piece).is_err() {
                break;
            }
        }
    }

    /// One wrong byte in an otherwise honest conversation reaches deeper than noise.
    #[test]
    fn a_flipped_byte_never_panics(at in 0..3_800_usize, flip in 1..=255_u8) {
        let mut bytes = Publisher::publishing("live", "x").message(4, metadata()).video(0, &[b'v'; 200]).take();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= flip;
        }
        let mut session = Sim::new().session;
        let _ = session.handle_input(Input::Bytes(&bytes), Instant::now());
        let _ = session.accept(Instant::now());
        while !matches!(session.poll_output(), Output::Wait { .. }) {}
    }
}
