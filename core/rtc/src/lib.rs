//! WebRTC without a browser: one UDP port for all peers, ICE-lite, DTLS, SRTP and RTP; what WHIP and WHEP share.

pub mod port;
pub mod srtp;
mod stun;
