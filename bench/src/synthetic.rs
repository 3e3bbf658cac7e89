//! A publisher's media without a publisher: FLV messages of 720p30 video and AAC beside it, as large as real ones.

use std::time::Duration;

use bytes::Bytes;

pub(crate) const FRAMES_PER_SECOND: u64 = 30;
pub(crate) const AUDIO_HERTZ: u64 = 48_000;
pub(crate) const AUDIO_SAMPLES: u64 = 1_024;
const GOP_FRAMES: u64 = 2 * FRAMES_PER_SECOND;

/// 3.1 Mbit/s at 30 fps.
const VIDEO_UNIT_BYTES: usize = 13_000;
/// 128 kbit/s at 46.875 frames a second.
const AUDIO_UNIT_BYTES: usize = 341;

/// x264, High profile, 1280x720.
pub(crate) const AVCC: &[u8] =
    b"\x01\x64\x00\x1f\xff\xe1\x00\x18\x67\x64\x00\x1f\xac\xb2\x00\xa0\x0b\x76\x02\x20\x00\x00\x03\
    \x00\x20\x00\x00\x07\x81\xe3\x06\x49\x01\x00\x06\x68\xeb\xc3\xcb\x22\xc0\xfd\xf8\xf8\x00";
/// AAC-LC, 48 kHz, stereo.
pub(crate) const AUDIO_SPECIFIC_CONFIG: &[u8] = &[0x11, 0x90];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Track {
    Video,
    Audio,
}

/// One RTMP message. Each has a body of its own, as a socket would bring it.
pub(crate) struct Message {
    pub(crate) track: Track,
    /// Which unit of its track this is.
    pub(crate) unit: u64,
    /// Since the start of the stream; messages come in this order.
    pub(crate) time: Duration,
    pub(crate) body: Bytes,
}

impl Message {
    /// Of video: whether it is a keyframe.
    pub(crate) fn is_key(&self) -> bool {
        self.unit.is_multiple_of(GOP_FRAMES)
    }
}

/// The messages of an endless stream, without the two that carry the decoder configurations.
pub(crate) struct Messages {
    video: u64,
    audio: u64,
    key_body: Vec<u8>,
    delta_body: Vec<u8>,
    audio_body: Vec<u8>,
}

impl Messages {
    pub(crate) fn new() -> Self {
        Self {
            video: 0,
            audio: 0,
            key_body: video_body(0x17, 0x65),
            delta_body: video_body(0x27, 0x41),
            audio_body: [&[0xAF, 1][..], &[0x21; AUDIO_UNIT_BYTES]].concat(),
        }
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let video_time = video_time(self.video);
        let audio_time = audio_time(self.audio);
        if video_time <= audio_time {
            let body = if self.video.is_multiple_of(GOP_FRAMES) { &self.key_body } else { &self.delta_body };
            let body = Bytes::copy_from_slice(body);
            let message = Message { track: Track::Video, unit: self.video, time: video_time, body };
            self.video += 1;
            return Some(message);
        }
        let body = Bytes::copy_from_slice(&self.audio_body);
        let message = Message { track: Track::Audio, unit: self.audio, time: audio_time, body };
        self.audio += 1;
        Some(message)
    }
}

pub(crate) fn video_time(unit: u64) -> Duration {
    Duration::from_nanos(unit * 1_000_000_000 / FRAMES_PER_SECOND)
}

pub(crate) fn audio_time(unit: u64) -> Duration {
    Duration::from_nanos(unit * AUDIO_SAMPLES * 1_000_000_000 / AUDIO_HERTZ)
}

pub(crate) fn video_config() -> Bytes {
    [&[0x17, 0, 0, 0, 0], AVCC].concat().into()
}

pub(crate) fn audio_config() -> Bytes {
    [&[0xAF, 0], AUDIO_SPECIFIC_CONFIG].concat().into()
}

/// Kind of frame, kind of packet, and a composition time of zero.
pub(crate) const TAG_HEAD_BYTES: usize = 5;

/// One NAL unit behind its length.
fn video_body(frame: u8, nal: u8) -> Vec<u8> {
    let payload = vec![0x5A; VIDEO_UNIT_BYTES - 5];
    let length = (VIDEO_UNIT_BYTES as u32 - 4).to_be_bytes();
    [&[frame, 1, 0, 0, 0][..], &length, &[nal], &payload].concat()
}
