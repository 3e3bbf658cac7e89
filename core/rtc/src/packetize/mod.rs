//! Access units cut into RTP payloads, once per rendition; every viewer of it is sent the same bytes.
//!
//! Payloads are cut so that most of a frame leaves in one call: a datagram of segments that are all as long as the
//! first, but for the last (`UDP_SEGMENT`). [`Frame::bursts`] says which payloads go together.

mod av1;
mod frame;
mod h264;
mod opus;
mod vpx;

pub use av1::Av1Packetizer;
pub use frame::{Burst, Format, Frame, SEGMENTS_MAX, Source};
pub use h264::H264Packetizer;
pub use opus::{OpusPacketizer, TooLongError};
pub use vpx::VpxPacketizer;

/// Longest RTP payload of video, in bytes. With everything that is put around it (`outbound::OVERHEAD_BYTES_MAX`) it
/// fits the smallest MTU of IPv6, 1280 bytes, which is also what tunnels of phones leave.
pub const PAYLOAD_BYTES_MAX: usize = 1184;
