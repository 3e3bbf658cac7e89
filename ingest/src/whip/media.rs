//! A publisher's media, from RTP to what a publication takes. Pure.
//!
//!   packet ─▶ reorder.rs ─▶ access_units.rs ─▶ clock.rs ─▶ [`Unit`]
//!                               └▶ keyframes.rs: when to ask for one

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use media::codec::{h264, opus};
use media::flv::{AudioCodec, VideoCodec};
use media::{AudioConfig, TrackKind, VideoConfig};

use super::access_units::{AccessUnits, Made};
use super::clock::Clock;
use super::keyframes::Keyframes;
use super::reorder::{Counts, Packet, Reorder};
use crate::VideoUnit;

/// Samples that an Opus decoder leaves out at the start, at 48 kHz: what libopus runs behind (RFC 7845, §4.2).
const OPUS_PRE_SKIP: u16 = 312;

/// What a publication is told, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    VideoConfig(h264::Config),
    /// With its stamp in milliseconds.
    Video(u32, Bytes),
    Audio(u32, Bytes),
}

pub(super) struct Media {
    video: Reorder,
    audio: Reorder,
    units: AccessUnits,
    clock: Clock,
    keyframes: Keyframes,
    made: Vec<Made>,
}

impl Media {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            video: Reorder::default(),
            audio: Reorder::default(),
            units: AccessUnits::default(),
            clock: Clock::new(start),
            keyframes: Keyframes::new(),
            made: Vec::new(),
        }
    }

    pub(super) fn packet(&mut self, kind: TrackKind, packet: Packet) {
        // Some publishers keep their line open with packets that hold nothing; their numbers count all the same.
        match kind {
            TrackKind::Video => self.video.push(packet),
            TrackKind::Audio => self.audio.push(packet),
        }
    }

    pub(super) fn report(&mut self, kind: TrackKind, ntp: u64, timestamp: u32) {
        self.clock.report(kind, ntp, timestamp);
    }

    /// A viewer cannot begin without a keyframe.
    pub(super) fn want_keyframe(&mut self) {
        self.keyframes.want();
    }

    /// Whether to ask the publisher for a keyframe now; then it counts as asked.
    pub(super) fn keyframe_due(&mut self, now: Instant) -> bool {
        self.keyframes.take_due(now)
    }

    /// Adds what is complete to `units`.
    pub(super) fn poll(&mut self, now: Instant, units: &mut Vec<Unit>) {
        while let Some(ordered) = self.video.poll(now) {
            let arrived = ordered.packet.arrived;
            self.units.push(ordered, &mut self.made);
            for made in self.made.drain(..) {
                match made {
                    Made::Broken => {
                        self.keyframes.picture(false, now);
                        self.keyframes.want();
                    }
                    Made::Picture(picture) => {
                        self.keyframes.picture(picture.key, now);
                        units.extend(picture.config.map(Unit::VideoConfig));
                        let stamp = self.clock.stamp(TrackKind::Video, picture.timestamp, arrived);
                        units.push(Unit::Video(stamp, picture.sample));
                    }
                }
            }
        }
        while let Some(ordered) = self.audio.poll(now) {
            let packet = ordered.packet;
            // What is lost is not filled: players fill it better, and the clock counts on from the next stamp.
            if !packet.payload.is_empty() {
                let stamp = self.clock.stamp(TrackKind::Audio, packet.timestamp, packet.arrived);
                units.push(Unit::Audio(stamp, packet.payload));
            }
        }
    }

    /// When there is something to do without any packet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.video.deadline(), self.audio.deadline(), self.keyframes.due()].into_iter().flatten().min()
    }

    /// Of both tracks.
    pub(super) fn counts(&self) -> Counts {
        let (video, audio) = (self.video.counts(), self.audio.counts());
        Counts {
            received: video.received + audio.received,
            lost: video.lost + audio.lost,
            reordered: video.reordered + audio.reordered,
            late: video.late + audio.late,
        }
    }
}

impl Unit {
    /// A sample, as a publication takes it. WebRTC has no pictures out of order (RFC 7742, §6.2), so that PTS is DTS.
    pub(super) fn video(data: Bytes) -> VideoUnit {
        VideoUnit { codec: VideoCodec::H264, composition_offset_ms: 0, data }
    }

    pub(super) fn video_config(config: h264::Config) -> VideoConfig {
        VideoConfig::H264(config)
    }

    pub(super) const AUDIO_CODEC: AudioCodec = AudioCodec::Opus;

    /// Of the sound of every WebRTC publisher: two channels, whatever each packet has (RFC 7587, §7), which decoders make
    /// of one by themselves.
    pub(super) fn audio_config() -> AudioConfig {
        let mut head = BytesMut::from(&b"OpusHead\x01\x02"[..]);
        head.extend_from_slice(&OPUS_PRE_SKIP.to_le_bytes());
        head.extend_from_slice(&48_000_u32.to_le_bytes());
        // No gain, mapping family 0.
        head.extend_from_slice(&[0, 0, 0]);
        AudioConfig::Opus(opus::Config::parse(head.freeze()).expect("the head is as RFC 7845 wants it"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn packet(sequence: u16, timestamp: u32, payload: &'static [u8], arrived: Instant) -> Packet {
        Packet { sequence, timestamp, marker: true, payload: Bytes::from_static(payload), arrived }
    }

    #[test]
    fn every_publishers_sound_has_a_configuration() {
        let AudioConfig::Opus(config) = Unit::audio_config() else { panic!("not Opus") };
        assert_eq!((config.channels(), config.pre_skip()), (2, OPUS_PRE_SKIP));
    }

    #[test]
    fn sound_comes_out_in_order_with_stamps_20_ms_apart() {
        let start = Instant::now();
        let (mut media, mut units) = (Media::new(start), Vec::new());
        for (sequence, at) in [(1, 0_u64), (3, 40), (2, 41), (5, 80)] {
            let timestamp = 1_000 + u32::from(sequence) * 960;
            media.packet(
                TrackKind::Audio,
                packet(sequence, timestamp, b"opus", start + Duration::from_millis(at)),
            );
        }
        media.poll(start + Duration::from_millis(80), &mut units);
        let stamp = |unit: &Unit| match unit {
            Unit::Audio(stamp, _) => *stamp,
            other => panic!("{other:?}"),
        };
        assert_eq!(units.drain(..).map(|unit| stamp(&unit)).collect::<Vec<_>>(), [0, 20, 40]);
        let deadline = media.deadline().unwrap();
        media.poll(deadline, &mut units);
        assert_eq!(units.iter().map(stamp).collect::<Vec<_>>(), [80]);
        assert_eq!(media.counts(), Counts { received: 4, lost: 1, reordered: 1, late: 0 });
    }

    /// A browser sends a keyframe only if it is asked for one.
    #[test]
    fn a_picture_that_nothing_can_be_made_of_asks_for_a_keyframe() {
        let start = Instant::now();
        let (mut media, mut units) = (Media::new(start), Vec::new());
        assert_eq!(media.deadline(), None);
        media.packet(TrackKind::Video, packet(1, 0, &[0x41, 1, 2, 3], start));
        media.poll(start, &mut units);
        assert!(units.is_empty());
        assert!(media.keyframe_due(start) && !media.keyframe_due(start));
        assert_eq!(media.deadline(), Some(start + Duration::from_secs(1)));
    }
}
