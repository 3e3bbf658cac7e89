//! The words and formats every role shares: identity, media time, codec configurations, access units,
//! FLV tags in, CMAF boxes out.
//!
//! Pure by promise: no runtime, no socket, no clock. The manifest is the proof.

pub mod cmaf;
pub mod codec;
pub mod flv;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod id;
mod time;
mod unit;

pub use codec::captions::Captions;
pub use codec::{AudioConfig, CodecConfig, TrackKind, VideoCodec, VideoConfig};
pub use id::{NAME_BYTES_MAX, NameError, NodeId, NodeIdError, SessionId, StreamId, TrackId};
pub use time::{MediaTime, Timescale};
pub use unit::AccessUnit;
