//! WebRTC without a browser: one UDP port for all peers, ICE-lite, DTLS, SRTP and RTP; what WHIP and WHEP share.

pub mod dtls;
pub mod estimate;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod outbound;
pub mod packetize;
pub mod peer;
pub mod port;
pub mod rtcp;
pub mod sdp;
pub mod signalling;
pub mod srtp;
mod stun;
