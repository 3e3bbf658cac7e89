//! For tests: a publisher that writes any chunk format and reads our answers, and a studio that takes its media.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use media::StreamId;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::amf::{self, Value};
use super::chunk::{ChunkDecoder, RawMessage};
use super::conn::{Admission, Arrival, StreamSink};
use super::message::{Command, Message, kind};
use crate::{Announced, KeyFault, PublishError, Refusal, Refused, Secret};

/// The length of C0 to C2, and of S0 to S2.
pub(super) const HANDSHAKE_BYTES: usize = 1 + 2 * 1_536;

/// Cuts messages into chunks as some encoder might. Takes the format that is asked for if the specification
/// allows it there, else the next fuller one.
pub(super) struct ChunkWriter {
    pub(super) chunk_bytes: usize,
    /// Type 3 chunks repeat the extended timestamp, as §5.3.1.3 wants; old ffmpeg and librtmp do not.
    pub(super) repeat_extended: bool,
    streams: HashMap<u32, Sending>,
}

struct Sending {
    message: RawMessage,
    time_field: u32,
    sent: usize,
}

impl ChunkWriter {
    pub(super) fn new() -> Self {
        Self { chunk_bytes: 128, repeat_extended: true, streams: HashMap::new() }
    }

    /// Begins `message`: its first chunk.
    pub(super) fn begin(&mut self, id: u32, format: u8, message: RawMessage) -> Vec<u8> {
        let (format, time_field) = match self.streams.get(&id) {
            None => (0, message.stamp),
            Some(last) => {
                let delta = message.stamp.wrapping_sub(last.message.stamp);
                let same_stream = last.message.stream == message.stream;
                let same_shape = same_stream
                    && last.message.kind == message.kind
                    && last.message.body.len() == message.body.len();
                match format {
                    3 if same_shape && delta == last.time_field => (3, delta),
                    2.. if same_shape => (2, delta),
                    1.. if same_stream => (1, delta),
                    _ => (0, message.stamp),
                }
            }
        };
        let mut out = header(id, format);
        if format <= 2 {
            out.put_uint(u64::from(time_field.min(0x00FF_FFFF)), 3);
        }
        if format <= 1 {
            out.put_uint(message.body.len() as u64, 3);
            out.put_u8(message.kind);
        }
        if format == 0 {
            out.put_u32_le(message.stream);
        }
        if time_field >= 0x00FF_FFFF && (format <= 2 || self.repeat_extended) {
            out.put_u32(time_field);
        }
        self.streams.insert(id, Sending { message, time_field, sent: 0 });
        self.payload(id, &mut out);
        out
    }

    /// The next chunk of the message on `id`, if there is one.
    pub(super) fn go_on(&mut self, id: u32) -> Option<Vec<u8>> {
        if self.is_whole(id) {
            return None;
        }
        let sending = self.streams.get(&id)?;
        let mut out = header(id, 3);
        if sending.time_field >= 0x00FF_FFFF && self.repeat_extended {
            out.put_u32(sending.time_field);
        }
        self.payload(id, &mut out);
        Some(out)
    }

    /// No chunk is left of the message on `id`.
    pub(super) fn is_whole(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|sending| sending.sent == sending.message.body.len())
    }

    /// All chunks of `message`, beginning with a type 0 header.
    pub(super) fn whole(&mut self, id: u32, message: RawMessage) -> Vec<u8> {
        let mut out = self.begin(id, 0, message);
        while let Some(chunk) = self.go_on(id) {
            out.extend(chunk);
        }
        out
    }

    pub(super) fn set_chunk_bytes(&mut self, chunk_bytes: u32) -> Vec<u8> {
        let out = self.whole(2, raw(1, 0, &chunk_bytes.to_be_bytes()));
        self.chunk_bytes = chunk_bytes as usize;
        out
    }

    fn payload(&mut self, id: u32, out: &mut Vec<u8>) {
        let sending = self.streams.get_mut(&id).unwrap();
        let left = &sending.message.body[sending.sent..];
        let taken = left.len().min(self.chunk_bytes);
        out.extend_from_slice(&left[..taken]);
        sending.sent += taken;
    }
}

/// The basic header, in its shortest form.
fn header(id: u32, format: u8) -> Vec<u8> {
    let format = format << 6;
    match id {
        2..64 => vec![format | id as u8],
        64..320 => vec![format, (id - 64) as u8],
        _ => {
            let [low, high] = ((id - 64) as u16).to_le_bytes();
            vec![format | 1, low, high]
        }
    }
}

pub(super) fn raw(kind: u8, stream: u32, body: &[u8]) -> RawMessage {
    RawMessage { kind, stream, stamp: 0, body: Bytes::copy_from_slice(body) }
}

/// What a publisher says, from the first byte on. Every method appends.
pub(super) struct Publisher {
    pub(super) chunks: ChunkWriter,
    pub(super) bytes: Vec<u8>,
}

impl Publisher {
    /// Begins with the handshake.
    pub(super) fn new() -> Self {
        let mut bytes = vec![0xA5; HANDSHAKE_BYTES];
        bytes[0] = 3;
        Self { chunks: ChunkWriter::new(), bytes }
    }

    /// As OBS and ffmpeg begin, up to and including `publish`.
    pub(super) fn publishing(app: &str, name: &str) -> Self {
        let name = Value::string(name);
        Self::new()
            .connect(app)
            .command(0, "releaseStream", 2.0, &[Value::Null, name.clone()])
            .command(0, "FCPublish", 3.0, &[Value::Null, name.clone()])
            .command(0, "createStream", 4.0, &[Value::Null])
            .command(1, "publish", 5.0, &[Value::Null, name, Value::string("live")])
    }

    pub(super) fn connect(self, app: &str) -> Self {
        let tc_url = format!("rtmp://127.0.0.1/{app}");
        let object = Value::object([
            ("app", Value::string(app)),
            ("tcUrl", Value::string(&tc_url)),
            ("flashVer", Value::string("FMLE/3.0 (compatible; Lavf59.27.100)")),
        ]);
        self.command(0, "connect", 1.0, &[object])
    }

    pub(super) fn command(self, stream: u32, name: &str, transaction: f64, arguments: &[Value]) -> Self {
        let mut values = vec![Value::string(name), Value::Number(transaction)];
        values.extend_from_slice(arguments);
        self.message(3, raw(kind::COMMAND, stream, &amf::encode(&values)))
    }

    pub(super) fn video(self, stamp: u32, body: &[u8]) -> Self {
        self.message(6, RawMessage { stamp, ..raw(kind::VIDEO, 1, body) })
    }

    pub(super) fn audio(self, stamp: u32, body: &[u8]) -> Self {
        self.message(4, RawMessage { stamp, ..raw(kind::AUDIO, 1, body) })
    }

    pub(super) fn message(mut self, id: u32, message: RawMessage) -> Self {
        let chunks = self.chunks.whole(id, message);
        self.raw(&chunks)
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// What was said since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Our answers, S0 to S2 included, as messages.
pub(super) fn answers(bytes: &[u8]) -> Vec<RawMessage> {
    let mut decoder = ChunkDecoder::new();
    decoder.push(bytes.get(HANDSHAKE_BYTES..).unwrap_or_default());
    std::iter::from_fn(|| decoder.poll_message().unwrap()).collect()
}

pub(super) fn commands(bytes: &[u8]) -> Vec<Command> {
    let parsed = answers(bytes).into_iter().map(|answer| Message::parse(answer).unwrap());
    parsed
        .filter_map(|message| if let Message::Command(command) = message { Some(command) } else { None })
        .collect()
}

/// Code and words of the last status sent.
pub(super) fn last_status(bytes: &[u8]) -> (String, String) {
    let command = commands(bytes).into_iter().rfind(|command| command.name == "onStatus").expect("a status");
    let text = |name| command.arguments[1].get(name).and_then(Value::as_str).unwrap().to_owned();
    (text("code"), text("description"))
}

/// Stands in for the rest of ingest: knows two keys, writes down what happens, fails when asked to.
#[derive(Clone, Default)]
pub(super) struct Studio {
    diary: Arc<Mutex<Vec<String>>>,
    changed: Arc<Notify>,
    pub(super) refused: Arc<Mutex<Vec<Refused>>>,
    /// What is published as `slow` waits for it.
    pub(super) verdict: Arc<Notify>,
}

pub(super) struct Recording {
    id: StreamId,
    studio: Studio,
}

impl Studio {
    const KEYS: [&str; 2] = ["k", "canary"];
    /// Video of which it says that it cannot be published.
    pub(super) const UNSUPPORTED: &[u8] = b"unsupported";
    /// Video over which it panics.
    pub(super) const POISON: &[u8] = b"poison";

    pub(super) fn seen(&self) -> Vec<String> {
        self.diary.lock().unwrap().clone()
    }

    /// Waits until `entry` is in the diary.
    pub(super) async fn saw(&self, entry: &str) {
        loop {
            let changed = self.changed.notified();
            if self.seen().iter().any(|seen| seen == entry) {
                return;
            }
            changed.await;
        }
    }

    fn note(&self, entry: String) {
        self.diary.lock().unwrap().push(entry);
        self.changed.notify_waiters();
    }
}

impl Admission for Studio {
    type Stream = Recording;

    async fn prepare(&self, id: &StreamId, _: &Secret) -> Result<(), Refusal> {
        if id.stream() == "slow" {
            self.note(format!("waits for {id}"));
            self.verdict.notified().await;
        }
        Ok(())
    }

    fn publish(&self, id: &StreamId, key: &Secret) -> Result<Recording, Refusal> {
        if !Self::KEYS.contains(&key.expose()) {
            return Err(Refusal::WrongKey(KeyFault::Wrong));
        }
        let of_it: Vec<_> =
            self.seen().into_iter().filter(|seen| seen.starts_with(&format!("{id} "))).collect();
        if of_it.last().is_some_and(|last| !last.ends_with("ends")) {
            return Err(Refusal::NameTaken(id.clone()));
        }
        self.note(format!("{id} begins"));
        Ok(Recording { id: id.clone(), studio: self.clone() })
    }

    fn turned_away(&self, refused: Refused) {
        self.refused.lock().unwrap().push(refused);
    }
}

impl StreamSink for Recording {
    fn announce(&mut self, _announced: Announced) {}

    fn video(&mut self, stamp: u32, body: Bytes, _arrived: Arrival) -> Result<(), PublishError> {
        assert_ne!(body, Studio::POISON, "the test asked for a panic");
        if body == Studio::UNSUPPORTED {
            return Err(PublishError::AudioChanged);
        }
        self.studio.note(format!("{} video {stamp}", self.id));
        Ok(())
    }

    fn audio(&mut self, stamp: u32, _body: Bytes, _arrived: Arrival) -> Result<(), PublishError> {
        self.studio.note(format!("{} audio {stamp}", self.id));
        Ok(())
    }

    fn lead(&self, _now: Instant) -> Duration {
        Duration::ZERO
    }

    fn goodbye(self) {
        self.studio.note(format!("{} goodbye", self.id));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.studio.note(format!("{} ends", self.id));
    }
}
