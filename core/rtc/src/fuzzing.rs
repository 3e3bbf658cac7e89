//! The parsers that a stranger's datagram or a viewer's offer reaches, each behind one function, for `fuzz/` and for the
//! replay of what it found; compiled for nothing else. Each says whether it understood the bytes, and panics where a
//! promise is broken.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use crate::dtls::{Dtls, Identity};
use crate::peer::Credentials;
use crate::port::{Candidate, Protocol};
use crate::rtcp::{Report, Reports, Status};
use crate::sdp::{AnswerSettings, Offer, ProfileLevelId, Ssrcs, VideoFormat};
use crate::srtp::Role;
use crate::stun::{self, Request};

static IDENTITY: LazyLock<Arc<Identity>> =
    LazyLock::new(|| Arc::new(Identity::generate().expect("there is randomness")));

/// A binding request: to whom it goes, and what becomes of it there.
pub fn binding_request(bytes: &[u8]) -> bool {
    let ufrag = stun::local_ufrag(bytes);
    let remote = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let Ok(request) = Request::check(bytes, "ours:theirs", "a password") else { return false };
    assert_eq!(ufrag, Some("ours"), "what is answered is routed");
    let answer = request.error("a password").unwrap_or_else(|| request.success(remote, "a password"));
    assert!(answer.len() <= bytes.len() + 64, "nobody gets much more than was sent");
    true
}

/// What a STUN server answers.
pub fn stun_answer(bytes: &[u8]) -> bool {
    stun::mapped_address(bytes).is_some()
}

/// An offer, and our answer to it.
pub fn offer(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Ok(offer) = Offer::parse(text).map_err(|error| error.to_string()) else { return false };
    let credentials = Credentials { ufrag: "ours".to_owned(), password: "a password".to_owned() };
    let address = (Ipv4Addr::LOCALHOST, 1).into();
    let answer = offer.answer(&AnswerSettings {
        session_id: 1,
        credentials: &credentials,
        fingerprint: IDENTITY.fingerprint(),
        candidates: &[Candidate { address, protocol: Protocol::Udp }],
        video: &[VideoFormat::Vp8, VideoFormat::H264(ProfileLevelId([0x64, 0, 0x28]))],
        audio: true,
        cname: "tidecast",
        ssrcs: Ssrcs { video: 1, video_rtx: 2, audio: 3 },
    });
    let Ok(answer) = answer.map_err(|error| error.to_string()) else { return false };
    let lines = |text: &str| text.lines().filter(|line| line.starts_with("m=")).count();
    assert!(lines(&answer.text) <= lines(text).max(1), "a section is answered once");
    assert!(answer.text.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')), "{}", answer.text);
    true
}

/// Datagrams to a server that waits for a ClientHello, each behind its length in two bytes.
pub fn dtls(mut bytes: &[u8]) -> bool {
    let now = Instant::now();
    let Ok(mut server) = Dtls::new(Arc::clone(&IDENTITY), Role::Server, vec![]) else { return false };
    while let Some((&length, rest)) = bytes.split_first_chunk() {
        let (datagram, after) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(length))));
        if server.handle_datagram(datagram, now).is_err() {
            break;
        }
        bytes = after;
    }
    assert!(!server.is_complete(), "there is no certificate that it would take");
    server.poll_transmit().is_some()
}

/// What a viewer reports, opened.
pub fn rtcp(bytes: &[u8]) -> bool {
    let mut is_understood = false;
    for report in Reports::new(bytes) {
        is_understood |= match report {
            Report::Receptions(receptions) => receptions.iter().count() <= 31,
            Report::Nack(nack) => nack.packets().count() <= bytes.len() * 17 / 4,
            Report::KeyframeRequest => true,
            Report::Remb(bits_per_second) => bits_per_second >= 0.0,
            Report::TransportCc(feedback) => {
                assert_eq!(feedback.statuses().count(), feedback.packets());
                assert!(feedback.packets() == 0 || feedback.statuses().last() != Some(Status::Lost));
                true
            }
            Report::Other => false,
        };
    }
    is_understood
}

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("webrtc_binding_request", binding_request);
    corpus::replay("webrtc_stun_answer", stun_answer);
    corpus::replay("webrtc_offer", offer);
    corpus::replay("webrtc_dtls", dtls);
    corpus::replay("webrtc_rtcp", rtcp);
}
