//! The opening of every RTMP connection: version byte, then 1,536 bytes each way, twice (RTMP 1.0, §5.2).
//!
//! A client that signs its packet is answered with signed ones (`digest.rs`), all others as the document says.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::digest::{Packet, Signed};

/// Length of C1, S1, C2 and S2 (§5.2.3).
pub(super) const PACKET_BYTES: usize = 1536;
/// Length of the filler in C1 and S1, after two four-byte fields.
pub(super) const FILLER_BYTES: usize = PACKET_BYTES - 8;
/// What a server that signs says of itself in S1, where others send zeros: players look for signatures from 3 on.
const SIGNING_VERSION: [u8; 4] = [4, 5, 0, 1];
/// The only version of RTMP there is (§5.2.2).
const VERSION: u8 = 3;

/// The server's half of the handshake. Push bytes until [`Progress::Done`].
pub(super) struct Handshake {
    stage: Stage,
    received: BytesMut,
    filler: Box<[u8; FILLER_BYTES]>,
}

enum Stage {
    /// C0 and C1 are missing.
    Hello,
    /// C2 is missing. Clients fill it with all kinds of things; nobody gains by comparing it.
    Echo,
}

pub(super) enum Progress {
    /// More bytes are needed; `reply` may already have to be sent.
    More { reply: Bytes },
    /// The handshake is over. `rest` belongs to the chunk stream.
    Done { reply: Bytes, rest: Bytes },
}

/// Why a connection does not begin as RTMP. Whoever connected must act: wrong program, wrong port or wrong scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("this looks like HTTP; this port speaks RTMP")]
    Http,
    #[error("this looks like RTMPS or another TLS protocol; this port speaks plain RTMP: use rtmp://")]
    Tls,
    #[error("encrypted RTMP (RTMPE, version {0}) is not supported: use rtmp://")]
    Encrypted(u8),
    #[error("version {0} is not RTMP's version 3")]
    Version(u8),
}

impl Handshake {
    /// `filler` goes out as S1. It need only differ from the client's own (§5.2.3), so any bytes will do.
    pub(super) fn new(filler: Box<[u8; FILLER_BYTES]>) -> Self {
        Self { stage: Stage::Hello, received: BytesMut::new(), filler }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Progress, HandshakeError> {
        self.received.extend_from_slice(bytes);
        let mut reply = BytesMut::new();
        if let Stage::Hello = self.stage {
            // Judged on the first byte: whoever speaks another protocol may never send 1,537.
            if let Some(version) = self.received.first() {
                check_version(*version)?;
            }
            if self.received.len() < 1 + PACKET_BYTES {
                return Ok(Progress::More { reply: Bytes::new() });
            }
            self.received.advance(1);
            if let Some(hello) = self.received.split_to(PACKET_BYTES).first_chunk() {
                reply = self.answer(hello);
            }
            self.stage = Stage::Echo;
        }
        if self.received.len() < PACKET_BYTES {
            return Ok(Progress::More { reply: reply.freeze() });
        }
        self.received.advance(PACKET_BYTES);
        Ok(Progress::Done { reply: reply.freeze(), rest: self.received.split().freeze() })
    }

    /// S0, S1 and S2 in one write. Our clock stands at zero in all of them: nothing here measures a round trip.
    fn answer(&self, hello: &Packet) -> BytesMut {
        let (mut s1, mut s2) = ([0; PACKET_BYTES], *hello);
        s1[PACKET_BYTES - FILLER_BYTES..].copy_from_slice(&self.filler[..]);
        if let Some(client) = Signed::verify(hello) {
            s1[4..8].copy_from_slice(&SIGNING_VERSION);
            client.sign_hello(&mut s1);
            client.sign_echo(&mut s2);
        }
        let mut reply = BytesMut::with_capacity(1 + 2 * PACKET_BYTES);
        reply.put_u8(VERSION);
        reply.put_slice(&s1);
        reply.put_slice(&s2);
        reply
    }
}

fn check_version(version: u8) -> Result<(), HandshakeError> {
    match version {
        VERSION => Ok(()),
        6 | 8 | 9 => Err(HandshakeError::Encrypted(version)),
        // The first letters of GET, POST, PUT, HEAD, OPTIONS, DELETE and CONNECT.
        b'G' | b'P' | b'H' | b'O' | b'D' | b'C' => Err(HandshakeError::Http),
        // A TLS record that carries a ClientHello (RFC 8446, §5.1).
        0x16 => Err(HandshakeError::Tls),
        other => Err(HandshakeError::Version(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handshake() -> Handshake {
        Handshake::new(Box::new([0x5A; FILLER_BYTES]))
    }

    fn client_bytes(rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend((0..PACKET_BYTES).map(|at| at as u8));
        bytes.extend([0; PACKET_BYTES]);
        bytes.extend_from_slice(rest);
        bytes
    }

    /// S0 to S2 are answered as soon as C1 is whole: a client that waits for S2 before it sends C2 must not hang.
    #[test]
    fn the_server_answers_before_the_second_packet() {
        let mut server = handshake();
        let client = client_bytes(&[]);
        let Progress::More { reply } = server.push(&client[..1 + PACKET_BYTES]).unwrap() else {
            panic!("C2 is missing");
        };
        assert_eq!(reply.len(), 1 + 2 * PACKET_BYTES);
        assert_eq!(reply[0], VERSION);
        assert_eq!(reply[9..1 + PACKET_BYTES], [0x5A; FILLER_BYTES]);
        assert_eq!(reply[1 + PACKET_BYTES..], client[1..1 + PACKET_BYTES], "S2 echoes C1");
    }

    #[test]
    fn other_protocols_are_told_apart_by_their_first_byte() {
        let told = |first: u8| handshake().push(&[first]).err();
        assert_eq!(told(b'G'), Some(HandshakeError::Http));
        assert_eq!(told(b'P'), Some(HandshakeError::Http));
        assert_eq!(told(0x16), Some(HandshakeError::Tls));
        assert_eq!(told(6), Some(HandshakeError::Encrypted(6)));
        assert_eq!(told(0), Some(HandshakeError::Version(0)));
        assert_eq!(told(3), None);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_handshake(
            rest in prop::collection::vec(any::<u8>(), 0..64),
            cuts in prop::collection::vec(1..1_600_usize, 1..20),
        ) {
            let client = client_bytes(&rest);
            let mut server = handshake();
            let (mut replied, mut left) = (0, Vec::new());
            let mut bytes = &client[..];
            let mut cuts = cuts.into_iter().cycle();
            let mut done = false;
            while !bytes.is_empty() {
                let (piece, later) = bytes.split_at(cuts.next().unwrap().min(bytes.len()));
                bytes = later;
                if done {
                    left.extend_from_slice(piece);
                    continue;
                }
                match server.push(piece).unwrap() {
                    Progress::More { reply } => replied += reply.len(),
                    Progress::Done { reply, rest } => {
                        replied += reply.len();
                        left.extend_from_slice(&rest);
                        done = true;
                    }
                }
            }
            prop_assert!(done);
            prop_assert_eq!(replied, 1 + 2 * PACKET_BYTES);
            prop_assert_eq!(left, rest);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4_000)) {
            let _ = handshake().push(&bytes);
        }
    }
}
