//! The chunk stream: messages cut into interleaved chunks (RTMP 1.0, §5.3).
//!
//!   socket bytes ─▶ ChunkDecoder ─▶ RawMessage ─▶ message.rs
//!
//! Set Chunk Size and Abort concern only this layer, so the decoder obeys them itself and never hands them out.
//! What a hostile publisher can make us hold is what it has really sent: a body grows as its bytes arrive,
//! never by the length that its header announces.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest message from a publisher, in bytes. One second at 60 Mbit/s is 7.5 MB, so no honest keyframe comes near it.
pub(super) const MESSAGE_BYTES_MAX: u32 = 10 * 1024 * 1024;
/// Largest message from a stranger, before its `publish` was accepted: no honest command is longer.
pub(super) const STRANGER_MESSAGE_BYTES_MAX: u32 = 64 * 1024;
/// Chunk streams on one connection. Encoders use up to six; each costs us a header record while the connection
/// lives.
pub(super) const CHUNK_STREAMS_MAX: usize = 64;
/// Memory for unfinished messages on one connection, in bytes: one of the largest, and something beside it.
const PARTIAL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The same for a stranger, who has commands to send and nothing else.
const STRANGER_PARTIAL_BYTES_MAX: usize = 2 * STRANGER_MESSAGE_BYTES_MAX as usize;

/// Chunk payload until somebody says otherwise, in bytes (§5.4.1).
const CHUNK_BYTES_DEFAULT: u32 = 128;
/// Smaller chunks are allowed by the letter of §5.4.1, but they make us parse a header per byte; nobody sends them.
const CHUNK_BYTES_MIN: u32 = 128;
/// No message is longer than its 24-bit length says, so any larger chunk size means this one (§5.4.1).
const CHUNK_BYTES_MAX: u32 = 0x00FF_FFFF;
/// In the 24-bit field: the true value follows in four bytes (§5.3.1.3).
const EXTENDED: u32 = 0x00FF_FFFF;

const SET_CHUNK_SIZE: u8 = 1;
const ABORT: u8 = 2;

/// One whole message. Has no `Debug` outside tests: a command's body holds the publish key.
#[cfg_attr(test, derive(Debug, Clone, PartialEq, Eq))]
pub(super) struct RawMessage {
    /// Message type id (§5.4, §7.1).
    pub(super) kind: u8,
    /// Message stream id: 0 for the connection, else what `createStream` gave out.
    pub(super) stream: u32,
    /// Milliseconds; wraps.
    pub(super) stamp: u32,
    /// An allocation of exactly this length: what is held until the log opens must not pin slack.
    pub(super) body: Bytes,
}

/// Why reassembling the chunk stream stopped. Every variant is the publisher's fault; close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChunkError {
    /// A type 2 or 3 header on a chunk stream without a header to continue (§5.3.1.2).
    #[error("chunk stream {id} continues a message that never began")]
    NoPreviousHeader { id: u32 },
    /// A type 0–2 header, which begins a message, before the last one was whole.
    #[error("chunk stream {id} begins a message inside another")]
    Interrupted { id: u32 },
    #[error("message of {bytes} bytes is above the limit of {limit}")]
    TooLong { bytes: u32, limit: u32 },
    #[error("more than {CHUNK_STREAMS_MAX} chunk streams")]
    TooManyStreams,
    #[error("unfinished messages hold more than {limit} bytes")]
    TooMuchUnfinished { limit: usize },
    #[error("chunk size {bytes} is outside {CHUNK_BYTES_MIN} to 2147483647")]
    ChunkSize { bytes: u32 },
    #[error("protocol control message {kind} of {bytes} bytes instead of 4")]
    Control { kind: u8, bytes: usize },
}

/// Reassembles messages. Push bytes in any split, then poll until `None`.
pub(super) struct ChunkDecoder {
    /// Not parsed yet. Payload leaves at once, so this is at most one push and an unfinished header.
    received: BytesMut,
    chunk_bytes: u32,
    message_bytes_max: u32,
    partial_bytes_max: usize,
    /// At most [`CHUNK_STREAMS_MAX`], usually four: a scan beats a map.
    streams: Vec<ChunkStream>,
    /// The chunk whose header is parsed and whose payload is not all there.
    current: Option<Chunk>,
    /// Capacity of all unfinished bodies, in bytes.
    partial_bytes: usize,
}

/// What a chunk stream remembers from one header to the next, and its unfinished message.
struct ChunkStream {
    id: u32,
    header: Header,
    body: Vec<u8>,
    /// A message has begun and is not whole.
    open: bool,
}

#[derive(Clone, Copy)]
struct Header {
    stamp: u32,
    /// The time field as it was sent, absolute (type 0) or a difference (types 1 and 2): a type 3 header that
    /// begins a message adds it again (§5.3.1.2.4).
    time_field: u32,
    /// The time field did not fit in 24 bits.
    extended: bool,
    bytes: u32,
    kind: u8,
    stream: u32,
}

#[derive(Clone, Copy)]
struct Chunk {
    /// Position in [`ChunkDecoder::streams`].
    stream: usize,
    bytes_left: usize,
}

impl ChunkDecoder {
    pub(super) fn new() -> Self {
        Self {
            received: BytesMut::new(),
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            message_bytes_max: STRANGER_MESSAGE_BYTES_MAX,
            partial_bytes_max: STRANGER_PARTIAL_BYTES_MAX,
            streams: Vec::new(),
            current: None,
            partial_bytes: 0,
        }
    }

    /// The publisher is no stranger any more: its messages may be [`MESSAGE_BYTES_MAX`] long.
    pub(super) fn trust(&mut self) {
        (self.message_bytes_max, self.partial_bytes_max) = (MESSAGE_BYTES_MAX, PARTIAL_BYTES_MAX);
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more bytes are pushed.
    pub(super) fn poll_message(&mut self) -> Result<Option<RawMessage>, ChunkError> {
        loop {
            let chunk = match self.current.take() {
                Some(chunk) => chunk,
                None => match self.parse_header()? {
                    Some(chunk) => chunk,
                    None => return Ok(None),
                },
            };
            let Some(message) = self.take_payload(chunk)? else {
                if self.current.is_some() {
                    return Ok(None);
                }
                continue;
            };
            if !self.obey(&message)? {
                return Ok(Some(message));
            }
        }
    }

    /// Moves what has arrived of `chunk` into its message, and hands the message out when it is whole.
    fn take_payload(&mut self, chunk: Chunk) -> Result<Option<RawMessage>, ChunkError> {
        let available = chunk.bytes_left.min(self.received.len());
        let stream = &mut self.streams[chunk.stream];
        let capacity = grown_capacity(&stream.body, available, stream.header.bytes as usize);
        self.partial_bytes += capacity - stream.body.capacity();
        if self.partial_bytes > self.partial_bytes_max {
            return Err(ChunkError::TooMuchUnfinished { limit: self.partial_bytes_max });
        }
        stream.body.reserve_exact(capacity - stream.body.len());
        stream.body.extend_from_slice(&self.received[..available]);
        self.received.advance(available);

        let bytes_left = chunk.bytes_left - available;
        if bytes_left > 0 {
            self.current = Some(Chunk { bytes_left, ..chunk });
            return Ok(None);
        }
        if stream.body.len() < stream.header.bytes as usize {
            return Ok(None);
        }
        let body = std::mem::take(&mut stream.body);
        stream.open = false;
        self.partial_bytes -= body.capacity();
        let Header { kind, stream, stamp, .. } = stream.header;
        Ok(Some(RawMessage { kind, stream, stamp, body: body.into() }))
    }

    /// Carries out what is addressed to this layer (§5.4.1, §5.4.2). True if `message` was.
    fn obey(&mut self, message: &RawMessage) -> Result<bool, ChunkError> {
        let kind = message.kind;
        if !matches!(kind, SET_CHUNK_SIZE | ABORT) {
            return Ok(false);
        }
        let Ok(value) = <[u8; 4]>::try_from(&message.body[..]).map(u32::from_be_bytes) else {
            return Err(ChunkError::Control { kind, bytes: message.body.len() });
        };
        if kind == ABORT {
            self.abort(value);
        } else if (CHUNK_BYTES_MIN..=i32::MAX as u32).contains(&value) {
            self.chunk_bytes = value.min(CHUNK_BYTES_MAX);
        } else {
            return Err(ChunkError::ChunkSize { bytes: value });
        }
        Ok(true)
    }

    fn abort(&mut self, id: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            self.partial_bytes -= stream.body.capacity();
            stream.body = Vec::new();
            stream.open = false;
        }
    }

    /// Parses the next chunk's headers (§5.3.1). Consumes nothing and says `None` while they are not all there.
    fn parse_header(&mut self) -> Result<Option<Chunk>, ChunkError> {
        let mut bytes = &self.received[..];
        let Some((format, id)) = basic_header(&mut bytes) else { return Ok(None) };
        let known = self.streams.iter().position(|stream| stream.id == id);
        let previous = known.map(|at| &self.streams[at]);

        let open = previous.is_some_and(|stream| stream.open);
        if open && format != 3 {
            return Err(ChunkError::Interrupted { id });
        }
        let header = match previous {
            Some(stream) => stream.header,
            // librtmp opens its control stream with a type 1 header; all that is missing is a stream id,
            // and that is 0 there.
            None if format <= 1 => Header::FIRST,
            None => return Err(ChunkError::NoPreviousHeader { id }),
        };
        let Some(header) = header.follow(format, open, &mut bytes) else { return Ok(None) };
        if header.bytes > self.message_bytes_max {
            return Err(ChunkError::TooLong { bytes: header.bytes, limit: self.message_bytes_max });
        }

        let stream = match known {
            Some(at) => at,
            None if self.streams.len() == CHUNK_STREAMS_MAX => return Err(ChunkError::TooManyStreams),
            None => {
                self.streams.push(ChunkStream { id, header, body: Vec::new(), open: false });
                self.streams.len() - 1
            }
        };
        let parsed = self.received.len() - bytes.len();
        self.received.advance(parsed);
        let message = &mut self.streams[stream];
        message.header = header;
        message.open = true;
        let missing = header.bytes as usize - message.body.len();
        Ok(Some(Chunk { stream, bytes_left: missing.min(self.chunk_bytes as usize) }))
    }

    #[cfg(test)]
    fn bytes_held(&self) -> usize {
        self.received.capacity()
            + self.streams.capacity() * size_of::<ChunkStream>()
            + self.streams.iter().map(|stream| stream.body.capacity()).sum::<usize>()
    }
}

impl Header {
    const FIRST: Self = Self { stamp: 0, time_field: 0, extended: false, bytes: 0, kind: 0, stream: 0 };

    /// The header after `self` on the same chunk stream. `open` says that a message is being continued.
    fn follow(self, format: u8, open: bool, bytes: &mut &[u8]) -> Option<Self> {
        let mut header = self;
        if format <= 2 {
            header.time_field = take_u24(bytes)?;
            header.extended = header.time_field == EXTENDED;
        }
        if format <= 1 {
            header.bytes = take_u24(bytes)?;
            header.kind = bytes.try_get_u8().ok()?;
        }
        if format == 0 {
            // The one little-endian field of RTMP (§5.3.1.2.1).
            header.stream = bytes.try_get_u32_le().ok()?;
        }
        if header.extended && format <= 2 {
            header.time_field = bytes.try_get_u32().ok()?;
        } else if header.extended {
            // §5.3.1.3 repeats the field in type 3 headers, and some encoders leave it out. Whoever repeats it
            // repeats its value; the first byte that differs is payload already.
            let repeated = header.time_field.to_be_bytes();
            let arrived = bytes.len().min(repeated.len());
            if bytes[..arrived] == repeated[..arrived] {
                bytes.try_get_u32().ok()?;
            }
        }
        if !open {
            header.stamp = match format {
                0 => header.time_field,
                _ => self.stamp.wrapping_add(header.time_field),
            };
        }
        Some(header)
    }
}

/// Format and chunk stream id, in one to three bytes (§5.3.1.1).
fn basic_header(bytes: &mut &[u8]) -> Option<(u8, u32)> {
    let first = bytes.try_get_u8().ok()?;
    let id = match first & 0x3F {
        0 => 64 + u32::from(bytes.try_get_u8().ok()?),
        1 => 64 + u32::from(bytes.try_get_u16_le().ok()?),
        id => u32::from(id),
    };
    Some((first >> 6, id))
}

fn take_u24(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from(bytes.try_get_u8().ok()?) << 16 | u32::from(bytes.try_get_u16().ok()?))
}

/// Capacity of `body` for `more` bytes of a message of `announced`: doubled, so that copying stays linear, and never
/// beyond the end, so that a whole message fills its allocation exactly.
fn grown_capacity(body: &Vec<u8>, more: usize, announced: usize) -> usize {
    let needed = body.len() + more;
    if needed <= body.capacity() {
        return body.capacity();
    }
    needed.max(2 * body.capacity()).min(announced)
}

/// Cuts our own few messages into chunks. Every message begins with a type 0 header and has stamp 0: we send no media.
pub(super) struct ChunkEncoder {
    chunk_bytes: u32,
}

impl ChunkEncoder {
    pub(super) fn new() -> Self {
        Self { chunk_bytes: CHUNK_BYTES_DEFAULT }
    }

    /// Announces larger chunks and uses them from here on.
    pub(super) fn set_chunk_bytes(&mut self, chunk_bytes: u32, out: &mut BytesMut) {
        self.encode(2, SET_CHUNK_SIZE, 0, &chunk_bytes.to_be_bytes(), out);
        self.chunk_bytes = chunk_bytes;
    }

    /// `chunk_stream` is 2 to 63, so that its header is one byte.
    pub(super) fn encode(&self, chunk_stream: u8, kind: u8, stream: u32, body: &[u8], out: &mut BytesMut) {
        out.put_u8(chunk_stream);
        out.put_uint(0, 3);
        out.put_uint(body.len() as u64, 3);
        out.put_u8(kind);
        out.put_u32_le(stream);
        for (at, piece) in body.chunks(self.chunk_bytes as usize).enumerate() {
            if at > 0 {
                out.put_u8(0xC0 | chunk_stream);
            }
            out.put_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::testing::{ChunkWriter, raw};
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Vec<RawMessage>, ChunkError> {
        let mut decoder = ChunkDecoder::new();
        decoder.trust();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.poll_message().transpose()).collect()
    }

    /// A type 0 header that announces `bytes` of payload.
    fn announcing(id: u8, bytes: u32) -> Vec<u8> {
        let mut header = vec![id, 0, 0, 0];
        header.extend_from_slice(&bytes.to_be_bytes()[1..]);
        header.extend_from_slice(&[9, 1, 0, 0, 0]);
        header
    }

    fn set_chunk_size(bytes: u32) -> Vec<u8> {
        ChunkWriter::new().whole(2, raw(SET_CHUNK_SIZE, 0, &bytes.to_be_bytes()))
    }

    #[test]
    fn a_type_3_header_after_type_0_adds_its_stamp_again() {
        let first = RawMessage { stamp: 23, ..raw(8, 1, b"ab") };
        let second = RawMessage { stamp: 46, ..raw(8, 1, b"cd") };
        let mut writer = ChunkWriter::new();
        let mut bytes = writer.begin(4, 0, first.clone());
        bytes.extend(writer.begin(4, 3, second.clone()));
        assert_eq!(bytes.len(), 12 + 2 + 1 + 2);
        assert_eq!(decode(&bytes), Ok(vec![first, second]));
    }

    /// The 32-bit clock wraps after 49.7 days; the 24-bit field gives way to the extended one after 4.7 hours.
    #[test]
    fn stamps_run_over_24_and_32_bits() {
        for start in [0x00FF_FFFF - 40, 0xFFFF_FFFF_u32 - 40] {
            let messages: Vec<_> = (0..5_u32)
                .map(|frame| RawMessage { stamp: start.wrapping_add(frame * 20), ..raw(9, 1, &[7; 300]) })
                .collect();
            for repeat_extended in [true, false] {
                for format in 0..=3 {
                    let mut writer = ChunkWriter::new();
                    writer.repeat_extended = repeat_extended;
                    let mut bytes = Vec::new();
                    for message in &messages {
                        bytes.extend(writer.begin(6, format, message.clone()));
                        bytes.extend(std::iter::from_fn(|| writer.go_on(6)).flatten());
                    }
                    assert_eq!(
                        decode(&bytes).as_ref(),
                        Ok(&messages),
                        "type {format}, repeated: {repeat_extended}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_abort_drops_the_unfinished_message() {
        let mut writer = ChunkWriter::new();
        let mut bytes = writer.begin(6, 0, raw(9, 1, &[1; 500]));
        bytes.extend(writer.whole(2, raw(ABORT, 0, &6_u32.to_be_bytes())));
        let next = raw(9, 1, &[2; 300]);
        bytes.extend(ChunkWriter::new().whole(6, next.clone()));
        assert_eq!(decode(&bytes), Ok(vec![next]));
    }

    /// librtmp's first control message has a type 1 header.
    #[test]
    fn a_chunk_stream_may_begin_with_type_1() {
        let bytes = [0x42, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 9];
        assert_eq!(decode(&bytes), Ok(vec![raw(5, 0, &[0, 0, 0, 9])]));
        assert_eq!(decode(&[0x82, 0, 0, 0]), Err(ChunkError::NoPreviousHeader { id: 2 }));
        assert_eq!(decode(&[0xC2]), Err(ChunkError::NoPreviousHeader { id: 2 }));
        assert_eq!(decode(&[0xC0, 7]), Err(ChunkError::NoPreviousHeader { id: 71 }));
    }

    #[test]
    fn a_message_cannot_begin_inside_another() {
        let mut bytes = announcing(6, 500);
        bytes.extend([0; 128]);
        bytes.extend(announcing(6, 500));
        assert_eq!(decode(&bytes), Err(ChunkError::Interrupted { id: 6 }));
    }

    /// Threat: a peer announces chunks of 2 GiB. They mean no more than the longest message, and reserve nothing.
    #[test]
    fn a_huge_chunk_size_costs_nothing() {
        let mut decoder = ChunkDecoder::new();
        decoder.trust();
        decoder.push(&set_chunk_size(0x7FFF_FFFF));
        decoder.push(&announcing(6, MESSAGE_BYTES_MAX));
        decoder.push(&[0]);
        assert_eq!(decoder.poll_message(), Ok(None));
        assert_eq!(decoder.chunk_bytes, CHUNK_BYTES_MAX);
        assert!(decoder.bytes_held() < 1_024, "{} bytes held", decoder.bytes_held());

        assert_eq!(decode(&set_chunk_size(0x8000_0000)), Err(ChunkError::ChunkSize { bytes: 0x8000_0000 }));
    }

    /// Threat: chunks of one byte make us parse a header per byte.
    #[test]
    fn tiny_chunks_are_refused() {
        assert_eq!(decode(&set_chunk_size(128)), Ok(vec![]));
        for bytes in [0, 1, 127] {
            assert_eq!(decode(&set_chunk_size(bytes)), Err(ChunkError::ChunkSize { bytes }));
        }
    }

    /// Threat: the longest message announced on every chunk stream, and no more sent than it takes to go on to
    /// the next.
    #[test]
    fn announced_lengths_reserve_nothing() {
        let mut decoder = ChunkDecoder::new();
        decoder.trust();
        for id in 0..CHUNK_STREAMS_MAX {
            // Ids of two bytes: there are enough of them.
            let mut chunk = announcing(0, MESSAGE_BYTES_MAX);
            chunk.insert(1, id as u8);
            chunk.extend([0; CHUNK_BYTES_DEFAULT as usize]);
            decoder.push(&chunk);
            assert_eq!(decoder.poll_message(), Ok(None));
        }
        assert_eq!(decoder.streams.len(), CHUNK_STREAMS_MAX);
        assert!(decoder.bytes_held() < 32 * 1024, "{} bytes held", decoder.bytes_held());
    }

    #[test]
    fn chunk_streams_are_counted() {
        let streams = |count: usize| {
            let mut writer = ChunkWriter::new();
            (0..count).flat_map(|id| writer.whole(2 + id as u32, raw(9, 1, b"x"))).collect::<Vec<_>>()
        };
        assert_eq!(decode(&streams(CHUNK_STREAMS_MAX)).map(|messages| messages.len()), Ok(CHUNK_STREAMS_MAX));
        assert_eq!(decode(&streams(CHUNK_STREAMS_MAX + 1)), Err(ChunkError::TooManyStreams));
    }

    /// Threat: a stranger announces what only a publisher needs.
    #[test]
    fn long_messages_are_refused_by_their_header() {
        let mut stranger = ChunkDecoder::new();
        stranger.push(&announcing(6, STRANGER_MESSAGE_BYTES_MAX + 1));
        let too_long = |limit| ChunkError::TooLong { bytes: limit + 1, limit };
        assert_eq!(stranger.poll_message(), Err(too_long(STRANGER_MESSAGE_BYTES_MAX)));
        assert_eq!(decode(&announcing(6, STRANGER_MESSAGE_BYTES_MAX + 1)), Ok(vec![]));
        assert_eq!(decode(&announcing(6, MESSAGE_BYTES_MAX + 1)), Err(too_long(MESSAGE_BYTES_MAX)));
    }

    /// Threat: many long messages, all of them sent but for their last chunk.
    #[test]
    fn unfinished_messages_share_one_limit() {
        let mut decoder = ChunkDecoder::new();
        decoder.trust();
        let piece = vec![0; 64 * 1024];
        decoder.push(&set_chunk_size(piece.len() as u32));
        let mut sent = 0;
        let refused = (0..100).find_map(|round| {
            for id in 3..11 {
                decoder.push(&if round == 0 { announcing(id, MESSAGE_BYTES_MAX) } else { vec![0xC0 | id] });
                decoder.push(&piece);
                sent += piece.len();
                if let Err(error) = decoder.poll_message() {
                    return Some(error);
                }
            }
            None
        });
        assert_eq!(refused, Some(ChunkError::TooMuchUnfinished { limit: PARTIAL_BYTES_MAX }));
        assert!(
            sent > PARTIAL_BYTES_MAX / 2 && sent <= PARTIAL_BYTES_MAX + piece.len(),
            "{sent} bytes were sent"
        );
        assert!(decoder.bytes_held() <= PARTIAL_BYTES_MAX + 1024 * 1024);
    }

    /// Threat: a thousand strangers, each with 64 messages of 64 kB that never end.
    #[test]
    fn a_stranger_pins_little() {
        let mut decoder = ChunkDecoder::new();
        let refused = (3..64_u8).find_map(|id| {
            // Type 0 on chunk stream `id`: no stamp, a length of 65,535, and all but the last byte of one chunk.
            decoder.push(&[&[id, 0, 0, 0, 0x00, 0xFF, 0xFF, 20, 0, 0, 0, 0], [0; 128].as_slice()].concat());
            for _ in 0..500 {
                decoder.push(&[&[0xC0 | id], [0; 128].as_slice()].concat());
                if let Err(error) = decoder.poll_message() {
                    return Some(error);
                }
            }
            None
        });
        assert_eq!(refused, Some(ChunkError::TooMuchUnfinished { limit: STRANGER_PARTIAL_BYTES_MAX }));
        assert!(decoder.bytes_held() <= 2 * STRANGER_PARTIAL_BYTES_MAX, "{}", decoder.bytes_held());
    }

    /// Media is held until the log opens: a body must own its bytes and nothing beside them.
    #[test]
    fn a_whole_message_has_no_slack() {
        let mut decoder = ChunkDecoder::new();
        decoder.trust();
        let bytes = ChunkWriter::new().whole(6, raw(9, 1, &[5; 70_001]));
        let message = bytes.chunks(1_400).find_map(|piece| {
            decoder.push(piece);
            decoder.poll_message().unwrap()
        });
        let body = message.unwrap().body.try_into_mut().expect("nobody else holds it");
        assert_eq!((body.len(), body.capacity()), (70_001, 70_001));
        assert_eq!(decoder.partial_bytes, 0);
    }

    #[test]
    fn our_own_messages_are_read_back() {
        let mut out = BytesMut::new();
        let mut encoder = ChunkEncoder::new();
        let long = raw(20, 1, &[1; 1_000]);
        encoder.encode(3, long.kind, long.stream, &long.body, &mut out);
        encoder.set_chunk_bytes(4_096, &mut out);
        let before = out.len();
        encoder.encode(5, long.kind, long.stream, &long.body, &mut out);
        assert_eq!(out.len() - before, 12 + 1_000, "one chunk");
        assert_eq!(decode(&out), Ok(vec![long.clone(), long]));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin { lane: usize, format: u8, elapsed: u32, kind: u8, bytes: usize },
        GoOn { lane: usize },
        ChunkBytes(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let lane = 0..LANES.len();
        let elapsed = prop_oneof![Just(0), Just(23), Just(33), 0..50_u32, Just(0x0100_0000), any::<u32>()];
        let bytes = prop_oneof![Just(0), Just(200), 0..5_000_usize];
        let begin = (lane.clone(), 0..=3_u8, elapsed, 8..=9_u8, bytes).prop_map(
            |(lane, format, elapsed, kind, bytes)| Step::Begin { lane, format, elapsed, kind, bytes },
        );
        let step = prop_oneof![
            3 => begin,
            6 => lane.prop_map(|lane| Step::GoOn { lane }),
            1 => (128..5_000_u32).prop_map(Step::ChunkBytes),
        ];
        prop::collection::vec(step, 0..60)
    }

    /// Chunk stream ids of one, two and three header bytes.
    const LANES: [u32; 6] = [3, 63, 64, 319, 320, 65_599];

    proptest! {
        /// Whatever the formats, the interleaving, the chunk sizes and the way TCP cuts it: the same messages, in
        /// the order in which their last chunks were sent.
        #[test]
        fn messages_survive_any_chunking(
            steps in steps(),
            repeat_extended in any::<bool>(),
            cuts in prop::collection::vec(1..3_000_usize, 1..30),
        ) {
            let mut writer = ChunkWriter::new();
            writer.repeat_extended = repeat_extended;
            let mut stamps = [0_u32; LANES.len()];
            let mut open: [Option<RawMessage>; LANES.len()] = Default::default();
            let (mut wire, mut sent) = (Vec::new(), VecDeque::new());
            let tail = (0..LANES.len()).flat_map(|lane| vec![Step::GoOn { lane }; 60]);
            for (at, step) in steps.into_iter().chain(tail).enumerate() {
                let (lane, chunk) = match step {
                    Step::ChunkBytes(bytes) => {
                        wire.extend(writer.set_chunk_bytes(bytes));
                        continue;
                    }
                    Step::Begin { lane, .. } | Step::GoOn { lane } if open[lane].is_some() => {
                        (lane, writer.go_on(LANES[lane]))
                    }
                    Step::GoOn { .. } => continue,
                    Step::Begin { lane, format, elapsed, kind, bytes } => {
                        stamps[lane] = stamps[lane].wrapping_add(elapsed);
                        let message = RawMessage { stamp: stamps[lane], ..raw(kind, 1, &vec![at as u8; bytes]) };
                        open[lane] = Some(message.clone());
                        (lane, Some(writer.begin(LANES[lane], format, message)))
                    }
                };
                wire.extend(chunk.expect("an open message has another chunk"));
                if writer.is_whole(LANES[lane]) {
                    sent.extend(open[lane].take());
                }
            }

            // A last payload byte may look like the beginning of a repeated stamp; whatever follows settles it.
            wire.extend(writer.whole(2, raw(4, 0, &[0; 6])));
            sent.push_back(raw(4, 0, &[0; 6]));

            let mut decoder = ChunkDecoder::new();
            decoder.trust();
            let mut cuts = cuts.into_iter().cycle();
            let mut bytes = &wire[..];
            while !bytes.is_empty() {
                let (piece, rest) = bytes.split_at(cuts.next().unwrap().min(bytes.len()));
                bytes = rest;
                decoder.push(piece);
                while let Some(message) = decoder.poll_message().unwrap() {
                    prop_assert_eq!(Some(message), sent.pop_front());
                }
            }
            prop_assert!(sent.is_empty(), "{} messages missing", sent.len());
        }

        #[test]
        fn random_bytes_never_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut decoder = ChunkDecoder::new();
            for piece in pieces {
                decoder.push(&piece);
                while let Ok(Some(_)) = decoder.poll_message() {}
            }
        }
    }
}
