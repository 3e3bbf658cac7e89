//! One coded picture or audio frame.

use bytes::Bytes;

/// An access unit on its stream's clock: one coded picture (length-prefixed NAL units) or one audio frame.
/// Times are in ticks of the track's timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// Decoding time. Never decreases within a track; equals `pts` at every IDR.
    pub dts: i64,
    pub pts: i64,
    /// Nominal when the unit is handed on; the next unit or boundary of the track fixes the true one.
    pub duration: u32,
    /// Decoding can start here: an IDR found in the bitstream, or any audio frame.
    pub key: bool,
    pub data: Bytes,
}
