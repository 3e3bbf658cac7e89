//! Frames and viewers for the tests of this folder.

use std::sync::Arc;

use bytes::Bytes;
use media::AccessUnit;
use media::codec::h264;

use crate::packetize::{Frame, H264Packetizer, PAYLOAD_BYTES_MAX, Source};

const AVCC: &[u8] = &[
    0x01, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0x00, 0x19, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9,
    0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48, 0x01,
    0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];

/// A rendition at 30 frames per second.
pub(in crate::outbound) struct Video {
    packetizer: H264Packetizer,
    frames: i64,
}

impl Video {
    pub(in crate::outbound) fn new(source: Source) -> Self {
        let config = h264::Config::parse(Bytes::from_static(AVCC)).unwrap();
        Self { packetizer: H264Packetizer::new(source, config), frames: 0 }
    }

    /// The next picture, in `packets` packets: all full, but the last holds half of it.
    pub(in crate::outbound) fn frame(&mut self, packets: usize) -> Arc<Frame> {
        self.frame_with(packets, false)
    }

    /// A keyframe has one packet more, with its parameter sets.
    pub(in crate::outbound) fn frame_with(&mut self, packets: usize, key: bool) -> Arc<Frame> {
        let full = PAYLOAD_BYTES_MAX - 2;
        let bytes = 1 + (packets - 1) * full + full / 2;
        let mut nal = vec![self.frames as u8; bytes];
        // A keyframe that fits one packet would be gathered with its parameter sets.
        nal[0] = if key { 0x65 } else { 0x41 };
        let data = [&(bytes as u32).to_be_bytes(), nal.as_slice()].concat().into();
        let pts = self.frames * 3_000;
        self.frames += 1;
        let unit = AccessUnit { dts: pts, pts, duration: 3_000, key, data };
        Arc::new(self.packetizer.packetize(&unit, 0).unwrap().unwrap())
    }
}

pub(in crate::outbound) fn frame_of(source: Source, packets: usize) -> Arc<Frame> {
    Video::new(source).frame(packets)
}
