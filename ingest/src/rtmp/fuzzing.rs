//! The parsers that a publisher's bytes reach before its key is checked, each behind one function, for `fuzz/` and for
//! the replay of what it found; compiled for nothing else. Each says whether it understood the bytes, and panics where
//! a promise is broken.

use std::time::Instant;

use bytes::Bytes;

use super::address::Application;
use super::amf::{self, BYTES_MAX, DEPTH_MAX, NODES_MAX, Value};
use super::chunk::{ChunkDecoder, ChunkError, RawMessage};
use super::handshake::{FILLER_BYTES, Handshake, PACKET_BYTES, Progress};
use super::message::{Message, kind};
use super::session::{Event, Input, Output, RefusalCode, Session};
use crate::refusals::encoder_name;

/// C0 to C2 and what may follow, in any pieces: the first byte is their size.
pub fn handshake(bytes: &[u8]) -> bool {
    let Some((&size, bytes)) = bytes.split_first() else { return false };
    let mut handshake = Handshake::new(Box::new([0x5A; FILLER_BYTES]));
    let mut replied = 0;
    for piece in bytes.chunks(16 * usize::from(size) + 1) {
        match handshake.push(piece) {
            Ok(Progress::More { reply }) => replied += reply.len(),
            Ok(Progress::Done { reply, rest }) => {
                assert_eq!(replied + reply.len(), 1 + 2 * PACKET_BYTES);
                assert!(rest.len() < piece.len().max(1));
                return true;
            }
            Err(error) => {
                error.to_string();
                return false;
            }
        }
    }
    false
}

/// A chunk stream, whole and in pieces, which must come to the same. The first byte is the size of the pieces; its
/// lowest bit says whether the publisher is trusted with long messages.
pub fn chunks(bytes: &[u8]) -> bool {
    let Some((&size, bytes)) = bytes.split_first() else { return false };
    let decode = |size: usize, trusted: bool| {
        let mut decoder = ChunkDecoder::new();
        if trusted {
            decoder.trust();
        }
        let mut messages = Vec::new();
        for piece in bytes.chunks(size) {
            decoder.push(piece);
            if let Err(error) = take_all(&mut decoder, &mut messages) {
                return (messages, Some(error));
            }
        }
        (messages, None)
    };
    let trusted = size & 1 != 0;
    let (in_pieces, whole) =
        (decode(usize::from(size / 2) + 1, trusted), decode(bytes.len().max(1), trusted));
    assert!(in_pieces == whole, "another result in pieces");
    whole.1.is_none() && !whole.0.is_empty()
}

/// Kind, message stream, stamp and body.
type Fields = (u8, u32, u32, Bytes);

fn take_all(decoder: &mut ChunkDecoder, messages: &mut Vec<Fields>) -> Result<(), ChunkError> {
    while let Some(RawMessage { kind, stream, stamp, body }) = decoder.poll_message()? {
        messages.push((kind, stream, stamp, body));
    }
    Ok(())
}

pub fn amf0(bytes: &[u8]) -> bool {
    let Ok(values) = amf::decode(bytes).map_err(|error| error.to_string()) else { return false };
    let mut weight = Weight::default();
    values.iter().for_each(|value| weight.add(value, 0));
    assert!(weight.values <= NODES_MAX);
    // What is no UTF-8 becomes three bytes for one; and AMF3 gets numbers for names where an array has both.
    assert!(weight.text_bytes <= 3 * BYTES_MAX + 4 * NODES_MAX);
    !values.is_empty()
}

/// One value of AMF3, and behind it AMF0.
pub fn amf3(bytes: &[u8]) -> bool {
    const AVM_PLUS: u8 = 0x11;
    amf0(&[&[AVM_PLUS], bytes].concat())
}

/// What values take in memory.
#[derive(Default)]
struct Weight {
    values: usize,
    text_bytes: usize,
}

impl Weight {
    fn add(&mut self, value: &Value, depth: usize) {
        assert!(depth <= DEPTH_MAX);
        self.values += 1;
        match value {
            Value::String(text) => self.text_bytes += text.len(),
            Value::Object(properties) | Value::EcmaArray(properties) => {
                for (name, value) in properties {
                    self.text_bytes += name.len();
                    self.add(value, depth + 1);
                }
            }
            Value::StrictArray(elements) => elements.iter().for_each(|element| self.add(element, depth + 1)),
            Value::Number(_) | Value::Boolean(_) | Value::Date(_) | Value::Null | Value::Undefined => {}
        }
    }
}

/// One whole message; the first byte is its kind.
pub fn message(bytes: &[u8]) -> bool {
    let Some((&kind, body)) = bytes.split_first() else { return false };
    let length = body.len();
    let raw = RawMessage { kind, stream: 1, stamp: u32::MAX, body: Bytes::copy_from_slice(body) };
    match Message::parse(raw) {
        Ok(Message::Aggregate(tags)) => {
            assert!(tags.iter().map(|tag| tag.body.len()).sum::<usize>() <= length);
            assert!(tags.iter().all(|tag| tag.kind != kind::AGGREGATE));
            true
        }
        Ok(message) => !matches!(message, Message::Other),
        Err(error) => {
            error.to_string();
            false
        }
    }
}

/// A publisher from behind its handshake on, whose `publish` is accepted; the first byte is the size of its pieces.
pub fn session(bytes: &[u8]) -> bool {
    let Some((&size, conversation)) = bytes.split_first() else { return false };
    let mut hello = [0xA5; 1 + 2 * PACKET_BYTES];
    hello[0] = 3;
    let now = Instant::now();
    let mut session = Session::new(Box::new([0x5A; FILLER_BYTES]), now);
    let mut published = false;
    for piece in std::iter::once(&hello[..]).chain(conversation.chunks(4 * usize::from(size) + 1)) {
        let heard = session.handle_input(Input::Bytes(piece), now);
        if let Err(error) = heard.and_then(|()| answer(&mut session, now, &mut published)) {
            error.to_string();
            session.refuse(RefusalCode::Rejected, "the fuzzer goes on");
            break;
        }
    }
    let _told = answer(&mut session, now, &mut published);
    session.attempt();
    published
}

fn answer(
    session: &mut Session,
    now: Instant,
    published: &mut bool,
) -> Result<(), super::session::SessionError> {
    loop {
        match session.poll_output() {
            Output::Send(bytes) => assert!(!bytes.is_empty()),
            Output::Event(Event::PublishRequest { .. }) => {
                assert!(!*published, "at most one publish succeeds");
                *published = true;
                session.accept(now)?;
            }
            Output::Event(_) => assert!(*published, "media before publish"),
            Output::Wait { .. } => return Ok(()),
        }
    }
}

/// Application, URL, stream name and the encoder's own name, in a line each.
pub fn publish_address(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let application = Application { app: line().to_owned(), tc_url: line().to_owned() };
    let (name, encoder) = (line(), encoder_name(line()));
    assert!(
        encoder.is_none_or(|encoder| encoder.is_ascii() && !encoder.contains(['<', '>', '&', '"', '\'']))
    );
    let key = application.key(name);
    assert!(text.contains(key.expose()));
    let Ok(id) = application.stream(name) else { return false };
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    assert!(plain(id.app()) && plain(id.stream()));
    true
}

#[cfg(test)]
use crate::fuzzing::corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("rtmp_handshake", handshake);
    corpus::replay("rtmp_chunks", chunks);
    corpus::replay("amf0", amf0);
    corpus::replay("amf3", amf3);
    corpus::replay("rtmp_message", message);
    corpus::replay("rtmp_session", session);
    corpus::replay("publish_address", publish_address);
}
