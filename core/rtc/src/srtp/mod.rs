//! SRTP for what we send (RFC 3711, RFC 7714): keys out of the DTLS handshake, and a sealer for each SSRC.
//! What we receive, and SRTCP, goes through `rtc-srtp` with the same master keys.

mod cipher;
mod keys;
mod sealer;

pub use keys::{ExportedLengthError, Keys, Master, Profile, Role};
pub use sealer::{ExhaustedError, Sealer, Sealers, SsrcTakenError};
