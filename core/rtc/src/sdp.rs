//! The offer of a viewer, and our answer (RFC 8829, cut down to what WHEP needs: one video and one audio section that
//! we send in, one transport for both).

mod answer;
mod attributes;
mod codec;
mod h264;
mod offer;

pub use self::answer::{Answer, AnswerSettings, Negotiated, Ssrcs, VideoFormat};
pub use self::codec::{Extensions, Feedback};
pub use self::h264::ProfileLevelId;
pub use self::offer::{Offer, OfferError, Transport};

#[cfg(test)]
mod tests;
