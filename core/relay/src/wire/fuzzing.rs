//! What reads another node's bytes, each behind one function, for `fuzz/` and for the replay of what it found; compiled
//! for nothing else. Each says whether it understood the bytes, and panics where a promise is broken.

use bytes::Buf;
use http::HeaderMap;
use media::NodeId;

use super::*;

/// A run of frames, in one piece and in others, which must come to the same; the first byte is their size. What was
/// understood is written again as it was.
pub fn frames(bytes: &[u8]) -> bool {
    let Some((&size, bytes)) = bytes.split_first() else { return false };
    let (whole, failed) = decode(bytes, bytes.len().max(1));
    let in_pieces = decode(bytes, usize::from(size) + 1);
    assert!(in_pieces == (whole.clone(), failed.clone()), "another result in pieces");

    let mut written = Vec::new();
    for message in &whole {
        let mut frame = message.clone().encode();
        written.extend_from_slice(&frame.copy_to_bytes(frame.remaining()));
    }
    assert!(
        decode(&written, written.len().max(1)) == (whole.clone(), None),
        "another result the second time"
    );
    failed.is_none() && !whole.is_empty()
}

/// Every message, with its body in one piece, and what went wrong then.
fn decode(bytes: &[u8], size: usize) -> (Vec<Message>, Option<String>) {
    let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
    for piece in bytes.chunks(size) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.poll_message() {
                Ok(None) => break,
                Ok(Some(mut message)) => {
                    if let Message::Part { part: Part { body: Some(body), .. }, .. } = &mut message {
                        *body = vec![Bytes::from(body.concat())];
                    }
                    messages.push(message);
                }
                Err(error) => return (messages, Some(error.to_string())),
            }
        }
    }
    (messages, None)
}

/// The versions, the format and the hops of a child's request, and where it goes on or what it wants, in a line each.
pub fn hello(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [WIRE, FORMAT, HOPS] {
        if let Ok(value) = http::HeaderValue::from_bytes(lines.next().unwrap_or_default()) {
            headers.insert(name, value);
        }
    }
    let query = lines.next().and_then(|line| str::from_utf8(line).ok()).unwrap_or_default();
    if let Ok(resume) = query.parse::<Resume>() {
        assert_eq!(resume.to_string().parse().as_ref(), Ok(&resume));
        assert!(!resume.places.is_empty());
    }
    if let Ok(resume) = query.parse::<UnitResume>() {
        assert_eq!(resume.to_string().parse().as_ref(), Ok(&resume));
    }
    if let Ok(wants) = query.parse::<Wants>() {
        assert_eq!(wants.to_string().parse().as_ref(), Ok(&wants));
    }
    match Hello::read(&headers, 2) {
        Ok(hello) => {
            let mut again = HeaderMap::new();
            hello.write(&mut again);
            assert_eq!(Hello::read(&again, 2).as_ref(), Ok(&hello));
            let here: NodeId = "edge1".parse().expect("a name");
            hello.hops.through(&here).map_err(|refusal| refusal.to_string()).is_ok()
        }
        Err(error) => {
            error.to_string();
            false
        }
    }
}

#[cfg(test)]
#[path = "../../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("wire_frames", frames);
    corpus::replay("wire_hello", hello);
}
