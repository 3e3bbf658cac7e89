//! SRTP (RFC 3711, RFC 7714): keys out of the DTLS handshake, a sealer for each SSRC that we send, and RTCP both ways.
//! Of RTP nothing is opened here: who publishes is `ingest`'s.

mod cipher;
mod keys;
mod sealer;
mod srtcp;

pub use keys::{ExportedLengthError, Keys, Master, Profile, Role};
pub use sealer::{ExhaustedError, Sealer, Sealers, SsrcTakenError};
pub(crate) use srtcp::Srtcp;
