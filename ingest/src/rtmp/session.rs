//! One RTMP publisher, from the first byte of the handshake to the last message.
//!
//!   socket bytes ─▶ Handshake, then ChunkDecoder ─▶ Message ─▶ Session (here) ─▶ Event
//!
//! Owns no socket and reads no clock; `conn.rs` drives it. Invariants:
//! - at most one `publish` succeeds per connection, and media comes out only after it was accepted;
//! - whatever made the session end, what is left to tell the publisher is in [`Session::poll_output`];
//! - no error, and nothing with a `Debug`, holds a string that the publisher sent: it may be the key.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use media::flv::{AUDIO_FOURCCS, VIDEO_FOURCCS};
use media::{NameError, StreamId};

use super::address::Application;
use super::amf::{self, Value};
use super::chunk::{ChunkDecoder, ChunkEncoder, ChunkError, RawMessage};
use super::handshake::{FILLER_BYTES, Handshake, HandshakeError, Progress};
use super::message::{Command, Message, MessageError, PING_RESPONSE, kind};
use crate::refusals::encoder_name;
use crate::{Announced, Secret};

/// From the first byte to the end of the handshake. Three round trips fit many times.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// From the handshake to an accepted `publish`. Encoders take six round trips and no human.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte from a publisher: its connection has died half-open. Longer than a network hiccup; whoever comes back
/// under the same name need not wait for it.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often we want to hear acknowledgements, and how often we send our own until the publisher says. An
/// encoder that gets none may stop sending (§5.4.3).
const WINDOW_BYTES: u32 = 2_500_000;
/// Our chunks: all that we ever send fits in one.
const CHUNK_BYTES: u32 = 4_096;

/// Chunk streams for what we send: 2 is protocol control by §5.4; the others are what Flash servers used.
const CONTROL_CHUNKS: u8 = 2;
const COMMAND_CHUNKS: u8 = 3;
const STATUS_CHUNKS: u8 = 5;

/// The one message stream that `createStream` gives out, however often it is called: nobody publishes twice.
const MEDIA_STREAM: u32 = 1;

/// `objectEncoding` of a connection whose commands may have AMF3 in them.
const AMF3: f64 = 3.0;

/// `FourCcInfoMask` and `CapsExMask` of Enhanced RTMP v2: we forward what we are sent; we read multitrack messages (2)
/// and those with modifiers (4).
const CAN_FORWARD: f64 = 4.0;
const MULTITRACK_AND_MODIFIERS: f64 = 6.0;

pub(super) enum Input<'a> {
    Bytes(&'a [u8]),
    /// The time given by [`Output::Wait`] is reached.
    Deadline,
}

/// What the driver does next. After every input, poll until `Wait`.
pub(super) enum Output {
    Send(Bytes),
    Event(Event),
    Wait { until: Instant },
}

/// Has no `Debug`: it holds the publish key.
pub(super) enum Event {
    /// Answer with [`Session::accept`] or [`Session::refuse`]; until then nothing more comes out.
    PublishRequest { id: StreamId, key: Secret },
    /// What the publisher says it will send; it may say so again.
    Announced(Announced),
    /// The body of one FLV video tag.
    Video { stamp: u32, body: Bytes },
    /// The body of one FLV audio tag.
    Audio { stamp: u32, body: Bytes },
    /// The publisher said goodbye.
    Unpublished,
}

/// How a publisher is turned away. Each code makes librtmp, and so OBS, give up at once with its "could not
/// access the specified channel or stream key", words in its log; ffmpeg and GStreamer print the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalCode {
    /// The name is taken, or is none.
    BadName,
    /// The key is wrong.
    Denied,
    /// What is sent cannot be published.
    Rejected,
}

/// Why a session ended badly. The publisher must act; close the connection once what is left is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("no RTMP handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    NoHandshake,
    #[error("nothing published within {} s of the handshake", PUBLISH_TIMEOUT.as_secs())]
    NoPublish,
    #[error("nothing received for {} s", SILENCE_TIMEOUT.as_secs())]
    Silent,
    #[error("a command before connect, or a second connect or publish")]
    OutOfOrder,
    #[error("bad application or stream name: {0}")]
    BadName(#[from] NameError),
    #[error("tried to play over RTMP")]
    Play,
}

pub(super) struct Session {
    stage: Stage,
    /// When `stage` began.
    since: Instant,
    bytes_last: Instant,
    decoder: ChunkDecoder,
    encoder: ChunkEncoder,
    outgoing: BytesMut,
    /// At most what one input held.
    events: VecDeque<Event>,
    window: Window,
    /// From `connect` on: strangers who speak something else are nobody's publisher.
    attempt: Option<Attempt>,
}

/// Who wants to publish what, as far as it was said and may be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Attempt {
    /// `None` for a name that is none.
    pub(super) stream: Option<StreamId>,
    /// No key came with it, so the name itself may be one.
    pub(super) keyless: bool,
    pub(super) encoder: Option<String>,
}

enum Stage {
    Handshake(Handshake),
    Connecting,
    /// `connect` was answered; `publish` is missing.
    Connected(Application),
    /// The driver owes an answer. What arrived behind `publish` waits in the decoder. The number is the message
    /// stream to answer on.
    Requested(u32),
    Publishing(u32),
    /// Nothing more is read; what is left is sent.
    Over,
}

impl Session {
    /// `filler` makes up our part of the handshake: any bytes but the publisher's own.
    pub(super) fn new(filler: Box<[u8; FILLER_BYTES]>, now: Instant) -> Self {
        Self {
            stage: Stage::Handshake(Handshake::new(filler)),
            since: now,
            bytes_last: now,
            decoder: ChunkDecoder::new(),
            encoder: ChunkEncoder::new(),
            outgoing: BytesMut::new(),
            events: VecDeque::new(),
            window: Window { bytes: WINDOW_BYTES, received: 0, acknowledged: 0 },
            attempt: None,
        }
    }

    pub(super) fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    pub(super) fn handle_input(&mut self, input: Input<'_>, now: Instant) -> Result<(), SessionError> {
        if let Input::Bytes(_) = input {
            self.bytes_last = now;
        }
        // Before `publish` the deadline does not move, so that dripping bytes wins a stranger no time.
        if now >= self.deadline() {
            return Err(self.overdue());
        }
        let Input::Bytes(bytes) = input else { return Ok(()) };
        if let Stage::Over = self.stage {
            return Ok(());
        }
        self.window.received = self.window.received.wrapping_add(bytes.len() as u32);
        if let Stage::Handshake(handshake) = &mut self.stage {
            match handshake.push(bytes)? {
                Progress::More { reply } => self.outgoing.put(reply),
                Progress::Done { reply, rest } => {
                    self.outgoing.put(reply);
                    self.decoder.push(&rest);
                    self.stage = Stage::Connecting;
                    self.since = now;
                }
            }
        } else {
            self.decoder.push(bytes);
        }
        self.read_messages()
    }

    pub(super) fn poll_output(&mut self) -> Output {
        if !self.outgoing.is_empty() {
            return Output::Send(self.outgoing.split().freeze());
        }
        match self.events.pop_front() {
            Some(event) => Output::Event(event),
            None => Output::Wait { until: self.deadline() },
        }
    }

    /// The publisher may go live. Goes on with what arrived behind its `publish`; until `now` it was silent because it waited for us.
    pub(super) fn accept(&mut self, now: Instant) -> Result<(), SessionError> {
        let Stage::Requested(stream) = self.stage else { return Ok(()) };
        self.stage = Stage::Publishing(stream);
        self.bytes_last = now;
        self.decoder.trust();
        self.send_status(stream, "status", "NetStream.Publish.Start", "publishing");
        self.read_messages()
    }

    /// The publisher may not go live, or not go on. `words` are for the person at the encoder.
    pub(super) fn refuse(&mut self, code: RefusalCode, words: &str) {
        let code = match code {
            RefusalCode::BadName => "NetStream.Publish.BadName",
            RefusalCode::Denied => "NetStream.Publish.Denied",
            RefusalCode::Rejected => "NetStream.Publish.Rejected",
        };
        self.end("error", code, words);
    }

    /// We go; the publisher did nothing wrong and may connect again.
    pub(super) fn close(&mut self, words: &str) {
        self.end("status", "NetConnection.Connect.Closed", words);
    }

    fn end(&mut self, level: &str, code: &str, words: &str) {
        match self.stage {
            Stage::Requested(stream) | Stage::Publishing(stream) => {
                self.send_status(stream, level, code, words);
            }
            Stage::Connecting | Stage::Connected(_) => self.send_status(0, level, code, words),
            // Chunks make no sense before the handshake is over, nor after the last word.
            Stage::Handshake(_) | Stage::Over => {}
        }
        self.stage = Stage::Over;
        self.events.clear();
    }

    fn deadline(&self) -> Instant {
        match self.stage {
            Stage::Handshake(_) => self.since + HANDSHAKE_TIMEOUT,
            Stage::Connecting | Stage::Connected(_) | Stage::Requested(_) => self.since + PUBLISH_TIMEOUT,
            Stage::Publishing(_) | Stage::Over => self.bytes_last + SILENCE_TIMEOUT,
        }
    }

    fn overdue(&self) -> SessionError {
        match self.stage {
            Stage::Handshake(_) => SessionError::NoHandshake,
            Stage::Connecting | Stage::Connected(_) | Stage::Requested(_) => SessionError::NoPublish,
            Stage::Publishing(_) | Stage::Over => SessionError::Silent,
        }
    }

    fn read_messages(&mut self) -> Result<(), SessionError> {
        while !matches!(self.stage, Stage::Requested(_) | Stage::Over) {
            let Some(raw) = self.decoder.poll_message()? else { break };
            self.handle_message(raw)?;
        }
        // Once per input, so that a window of one byte does not make us answer every byte.
        if let Some(received) = self.window.due() {
            self.send_control(kind::ACKNOWLEDGEMENT, &received.to_be_bytes());
        }
        Ok(())
    }

    fn handle_message(&mut self, raw: RawMessage) -> Result<(), SessionError> {
        match Message::parse(raw)? {
            Message::WindowAckSize(bytes) => self.window.bytes = bytes.max(1),
            Message::Ping { stamp } => {
                let mut pong = [0; 6];
                pong[..2].copy_from_slice(&PING_RESPONSE.to_be_bytes());
                pong[2..].copy_from_slice(&stamp.to_be_bytes());
                self.send_control(kind::USER_CONTROL, &pong);
            }
            Message::Command(command) => self.handle_command(command)?,
            Message::Aggregate(tags) => {
                for tag in tags {
                    self.handle_media(Message::parse(tag)?);
                }
            }
            media => self.handle_media(media),
        }
        Ok(())
    }

    /// Media and metadata. Whatever comes before `publish` was accepted has no stream to go to.
    fn handle_media(&mut self, message: Message) {
        if !matches!(self.stage, Stage::Publishing(_)) {
            return;
        }
        let event = match message {
            Message::Metadata(announced) => Event::Announced(announced),
            // An empty body is not even a tag header.
            Message::Video { stamp, body } if !body.is_empty() => Event::Video { stamp, body },
            Message::Audio { stamp, body } if !body.is_empty() => Event::Audio { stamp, body },
            _ => return,
        };
        self.events.push_back(event);
    }

    fn handle_command(&mut self, command: Command) -> Result<(), SessionError> {
        let name = command.name.as_str();
        if name == "connect" {
            return self.connect(&command);
        }
        if let Stage::Handshake(_) | Stage::Connecting = self.stage {
            return Err(SessionError::OutOfOrder);
        }
        match name {
            "createStream" => self.reply(&command, Value::Number(f64::from(MEDIA_STREAM))),
            "publish" => return self.publish(&command),
            "play" | "play2" => return self.refuse_play(&command),
            "FCUnpublish" | "closeStream" | "deleteStream" => self.unpublish(),
            // A Flash Media Server told which publication begins; old encoders wait for it.
            "FCPublish" => {
                self.reply(&command, Value::Undefined);
                let status = status("status", "NetStream.Publish.Start", "ready");
                self.send_command(
                    0,
                    &[Value::string("onFCPublish"), Value::Number(0.0), Value::Null, status],
                );
            }
            "releaseStream" | "_checkbw" => self.reply(&command, Value::Undefined),
            // Players ask before they play.
            "getStreamLength" => self.reply(&command, Value::Number(0.0)),
            // Answers to calls that we never make.
            "_result" | "_error" | "onStatus" => {}
            _ => self.reply_unknown(&command),
        }
        Ok(())
    }

    /// §7.2.1.1, with the window and chunk sizes before the answer, where all servers put them.
    fn connect(&mut self, command: &Command) -> Result<(), SessionError> {
        let Stage::Connecting = self.stage else { return Err(SessionError::OutOfOrder) };
        let text = |name| {
            let value = command.arguments.first().and_then(|object| object.get(name));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        self.attempt = Some(Attempt { encoder: encoder_name(&text("flashVer")), ..Attempt::default() });
        self.stage = Stage::Connected(Application { app: text("app"), tc_url: text("tcUrl") });

        self.send_control(kind::WINDOW_ACK_SIZE, &WINDOW_BYTES.to_be_bytes());
        let mut bandwidth = [0; 5];
        bandwidth[..4].copy_from_slice(&WINDOW_BYTES.to_be_bytes());
        // Limit type 2, dynamic (§5.4.5).
        bandwidth[4] = 2;
        self.send_control(kind::SET_PEER_BANDWIDTH, &bandwidth);
        self.encoder.set_chunk_bytes(CHUNK_BYTES, &mut self.outgoing);

        let asked = command.arguments.first();
        let server = capabilities(asked);
        let mut success = status("status", "NetConnection.Connect.Success", "connected");
        if let Value::Object(properties) = &mut success {
            // Whoever asks for AMF3 may send it. Our own commands are AMF0, which is always allowed (§7.2.1.1).
            let amf3 = asked.and_then(|object| object.get("objectEncoding")) == Some(&Value::Number(AMF3));
            properties.push(("objectEncoding".to_owned(), Value::Number(if amf3 { AMF3 } else { 0.0 })));
        }
        let transaction = Value::Number(command.transaction);
        self.send_command(0, &[Value::string("_result"), transaction, server, success]);
        Ok(())
    }

    /// §7.2.2.6: a null, the name, and a type ("live", "record") that means nothing here.
    fn publish(&mut self, command: &Command) -> Result<(), SessionError> {
        let Stage::Connected(application) = &self.stage else { return Err(SessionError::OutOfOrder) };
        let name = command.arguments.get(1).and_then(Value::as_str).unwrap_or_default();
        match application.stream(name) {
            Ok(id) => {
                let key = application.key(name);
                if let Some(attempt) = &mut self.attempt {
                    attempt.stream = Some(id.clone());
                    attempt.keyless = key.expose().is_empty();
                }
                self.events.push_back(Event::PublishRequest { id, key });
                self.stage = Stage::Requested(command.stream);
                Ok(())
            }
            Err(error) => {
                self.stage = Stage::Requested(command.stream);
                let words = format!(
                    "bad application or stream name: {error}. \
                     Server: rtmp://host/{{app}}, stream key: {{stream}}?key={{publish key}}"
                );
                self.refuse(RefusalCode::BadName, &words);
                Err(error.into())
            }
        }
    }

    fn refuse_play(&mut self, command: &Command) -> Result<(), SessionError> {
        let name = command.arguments.get(1).and_then(Value::as_str).unwrap_or_default();
        let id = match &self.stage {
            Stage::Connected(application) => application.stream(name).ok(),
            _ => None,
        };
        let id = id.map_or_else(|| "{app}/{stream}".to_owned(), |id| id.to_string());
        let words =
            format!("this server plays by HTTP: /watch/{id} in a browser, /hls/{id}/index.m3u8 in a player");
        self.send_status(command.stream, "error", "NetStream.Play.Failed", &words);
        self.stage = Stage::Over;
        Err(SessionError::Play)
    }

    /// Encoders say goodbye with up to three of these, and some clear away a stream of that name before they begin.
    fn unpublish(&mut self) {
        if let Stage::Publishing(stream) = self.stage {
            self.send_status(stream, "status", "NetStream.Unpublish.Success", "unpublished");
            self.stage = Stage::Over;
            self.events.push_back(Event::Unpublished);
        }
    }

    fn reply(&mut self, command: &Command, value: Value) {
        let transaction = Value::Number(command.transaction);
        self.send_command(0, &[Value::string("_result"), transaction, Value::Null, value]);
    }

    fn reply_unknown(&mut self, command: &Command) {
        if command.transaction != 0.0 {
            let transaction = Value::Number(command.transaction);
            let status = status("error", "NetConnection.Call.Failed", "unknown command");
            self.send_command(0, &[Value::string("_error"), transaction, Value::Null, status]);
        }
    }

    fn send_status(&mut self, stream: u32, level: &str, code: &str, words: &str) {
        let values = [Value::string("onStatus"), Value::Number(0.0), Value::Null, status(level, code, words)];
        let body = amf::encode(&values);
        self.encoder.encode(STATUS_CHUNKS, kind::COMMAND, stream, &body, &mut self.outgoing);
    }

    fn send_command(&mut self, stream: u32, values: &[Value]) {
        let body = amf::encode(values);
        self.encoder.encode(COMMAND_CHUNKS, kind::COMMAND, stream, &body, &mut self.outgoing);
    }

    fn send_control(&mut self, kind: u8, body: &[u8]) {
        self.encoder.encode(CONTROL_CHUNKS, kind, 0, body, &mut self.outgoing);
    }
}

/// What we say of ourselves to a publisher that said `asked` of itself.
fn capabilities(asked: Option<&Value>) -> Value {
    let mut properties = vec![
        // Hardware encoders look for a Flash Media Server's name; 31 is every capability of one.
        ("fmsVer".to_owned(), Value::string("FMS/3,0,1,123")),
        ("capabilities".to_owned(), Value::Number(31.0)),
    ];
    // Only those who speak of Enhanced RTMP are answered (v2, "Enhancing NetConnection connect Command"): encoders
    // older than it may stumble over what they do not know.
    let enhanced = ["capsEx", "fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap"];
    if enhanced.iter().any(|name| asked.is_some_and(|object| object.get(name).is_some())) {
        let info = |fourccs: &[&str]| {
            let info = |fourcc: &&str| ((*fourcc).to_owned(), Value::Number(CAN_FORWARD));
            Value::Object(fourccs.iter().map(info).collect())
        };
        let all = VIDEO_FOURCCS.iter().chain(&AUDIO_FOURCCS);
        properties.extend([
            ("capsEx".to_owned(), Value::Number(MULTITRACK_AND_MODIFIERS)),
            ("fourCcList".to_owned(), Value::StrictArray(all.map(|fourcc| Value::string(fourcc)).collect())),
            ("videoFourCcInfoMap".to_owned(), info(&VIDEO_FOURCCS)),
            ("audioFourCcInfoMap".to_owned(), info(&AUDIO_FOURCCS)),
        ]);
    }
    Value::Object(properties)
}

/// The information object of `onStatus` and of most answers (§7.2.2).
fn status(level: &str, code: &str, words: &str) -> Value {
    Value::object([
        ("level", Value::string(level)),
        ("code", Value::string(code)),
        ("description", Value::string(words)),
    ])
}

/// Acknowledgements owed to the publisher (§5.4.3). Counts wrap at 32 bits, as the message's field does.
struct Window {
    bytes: u32,
    received: u32,
    acknowledged: u32,
}

impl Window {
    /// The sequence number to send, if a window is full.
    fn due(&mut self) -> Option<u32> {
        if self.received.wrapping_sub(self.acknowledged) < self.bytes {
            return None;
        }
        self.acknowledged = self.received;
        Some(self.received)
    }
}

#[cfg(test)]
mod tests;
