//! What reads the other end's bytes, for `fuzz/` and for the replay of what it found; compiled for nothing else.

use bytes::{Buf, BytesMut};

use crate::{FromEncoder, Message, PipeError, ToEncoder, decode, read_message};

/// A run of messages; the first byte says in which direction, and in pieces of what size they come. Any size must come
/// to the same, and so must a descriptor; what was understood is written again as it was.
pub fn messages(bytes: &[u8]) -> bool {
    let Some((&size, bytes)) = bytes.split_first() else { return false };
    let piece_bytes = usize::from(size >> 1) + 1;
    if size & 1 == 0 { run::<ToEncoder>(bytes, piece_bytes) } else { run::<FromEncoder>(bytes, piece_bytes) }
}

fn run<M: Message + Clone + PartialEq>(bytes: &[u8], piece_bytes: usize) -> bool {
    let (whole, failed) = in_pieces::<M>(bytes, bytes.len().max(1));
    assert!(in_pieces(bytes, piece_bytes) == (whole.clone(), failed), "another result in pieces");

    let mut reader = bytes;
    for message in &whole {
        assert!(
            read_message(&mut reader).ok().flatten().as_ref() == Some(message),
            "another result by reading"
        );
    }
    let written: Vec<u8> = whole.iter().flat_map(written).collect();
    assert!(
        in_pieces(&written, written.len().max(1)) == (whole.clone(), None),
        "another result the second time"
    );
    failed.is_none() && !whole.is_empty()
}

fn in_pieces<M: Message>(bytes: &[u8], size: usize) -> (Vec<M>, Option<PipeError>) {
    let (mut received, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size) {
        received.extend_from_slice(piece);
        loop {
            match decode::<M>(&mut received) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    error.to_string();
                    return (messages, Some(error));
                }
            }
        }
    }
    (messages, None)
}

fn written<M: Message>(message: &M) -> Vec<u8> {
    let mut bytes = message.encode().expect("what was read can be written");
    bytes.copy_to_bytes(bytes.remaining()).to_vec()
}

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("pipe_messages", messages);
}
