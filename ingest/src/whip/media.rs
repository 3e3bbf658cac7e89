//! A publisher's media, from RTP to what a publication takes. Pure.
//!
//!   packet ─▶ reorder.rs ─▶ access_units.rs ─▶ clock.rs ─▶ layers.rs ─▶ [`Unit`]
//!                               └▶ keyframes.rs: when to ask for one
//!
//! Of several layers (simulcast) one at a time is the stream's picture, and all are told as layers besides.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use media::codec::opus;
use media::flv::AudioCodec;
use media::{AudioConfig, VideoCodec, VideoConfig};

use super::access_units::{AccessUnits, Made, Picture};
use super::clock::Clock;
use super::keyframes::Keyframes;
use super::layers::{Layers, Seen};
use super::offer::LAYERS_MAX;
use super::reorder::{Counts, Flow, Packet, Reorder};
use crate::VideoUnit;

/// Samples that an Opus decoder leaves out at the start, at 48 kHz: what libopus runs behind (RFC 7845, §4.2).
const OPUS_PRE_SKIP: u16 = 312;

/// What a publication is told, in this order. Stamps are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    VideoConfig(VideoConfig),
    Video(u32, VideoUnit),
    /// Of one of several layers.
    LayerConfig(usize, VideoConfig),
    Layer(usize, u32, Bytes),
    Audio(u32, Bytes),
}

pub(super) struct Media {
    codec: VideoCodec,
    /// One, or as many as there are layers.
    video: Vec<Video>,
    audio: Reorder,
    layers: Layers<Own>,
    clock: Clock,
    keyframes: Keyframes,
    made: Vec<Made>,
}

/// A picture of one layer, which may become the stream's.
struct Own {
    stamp: u32,
    sample: Bytes,
    /// Of a keyframe.
    config: Option<VideoConfig>,
    is_changed: bool,
}

struct Video {
    reorder: Reorder,
    units: AccessUnits,
    config: Option<VideoConfig>,
    /// A picture was left out since its last keyframe, because nobody knew when it was taken.
    has_hole: bool,
}

impl Video {
    fn new(codec: VideoCodec) -> Self {
        Self { reorder: Reorder::default(), units: AccessUnits::new(codec), config: None, has_hole: false }
    }
}

impl Media {
    /// `codec`: of the video, if there is any. `layers`: how many of it the offer has; 0 is one without a name.
    pub(super) fn new(codec: Option<VideoCodec>, layers: usize, start: Instant) -> Self {
        let count = layers.clamp(1, LAYERS_MAX);
        let codec = codec.unwrap_or(VideoCodec::H264);
        Self {
            codec,
            video: std::iter::repeat_with(|| Video::new(codec)).take(count).collect(),
            audio: Reorder::default(),
            layers: Layers::new(count),
            clock: Clock::new(start),
            keyframes: Keyframes::new(),
            made: Vec::new(),
        }
    }

    pub(super) fn packet(&mut self, flow: Flow, packet: Packet) {
        // Some publishers keep their line open with packets that hold nothing; their numbers count all the same.
        match flow {
            Flow::Video(layer) => {
                if let Some(video) = self.video.get_mut(layer) {
                    video.reorder.push(packet);
                }
            }
            Flow::Audio => self.audio.push(packet),
        }
    }

    pub(super) fn report(&mut self, flow: Flow, ntp: u64, timestamp: u32) {
        self.clock.report(flow, ntp, timestamp);
    }

    /// A viewer cannot begin without a keyframe.
    pub(super) fn want_keyframe(&mut self) {
        self.keyframes.want();
    }

    /// How old the newest group may become before a keyframe is asked for.
    pub(super) fn limit_groups(&mut self, age_max: Duration) {
        self.keyframes.limit(age_max);
    }

    /// Whether to ask the publisher for a keyframe now; then it counts as asked.
    pub(super) fn keyframe_due(&mut self, now: Instant) -> bool {
        self.keyframes.take_due(now)
    }

    /// Adds what is complete to `units`.
    pub(super) fn poll(&mut self, now: Instant, units: &mut Vec<Unit>) {
        for layer in 0..self.video.len() {
            self.poll_video(layer, now, units);
        }
        while let Some(ordered) = self.audio.poll(now) {
            let packet = ordered.packet;
            // What is lost is not filled: players fill it better, and the clock counts on from the next stamp.
            if !packet.payload.is_empty() {
                let stamp = self.clock.stamp(Flow::Audio, packet.timestamp, packet.arrived);
                units.extend(stamp.map(|stamp| Unit::Audio(stamp, packet.payload)));
            }
        }
    }

    fn poll_video(&mut self, layer: usize, now: Instant, units: &mut Vec<Unit>) {
        let mut made = std::mem::take(&mut self.made);
        while let Some(video) = self.video.get_mut(layer)
            && let Some(ordered) = video.reorder.poll(now)
        {
            let arrived = ordered.packet.arrived;
            video.units.push(ordered, &mut made);
            for made in made.drain(..) {
                match made {
                    Made::Broken => {
                        if self.layers.is_leading(layer) {
                            self.keyframes.picture(false, now);
                        }
                        self.keyframes.want();
                    }
                    Made::Picture(picture) => self.picture(layer, picture, arrived, now, units),
                }
            }
        }
        self.made = made;
    }

    fn picture(
        &mut self,
        layer: usize,
        picture: Picture,
        arrived: Instant,
        now: Instant,
        units: &mut Vec<Unit>,
    ) {
        let Picture { timestamp, key, sample, config } = picture;
        let is_layered = self.video.len() > 1;
        let Some(video) = self.video.get_mut(layer) else { return };
        let is_changed = config.is_some();
        video.config = config.or(video.config.take());
        let Some(config) = video.config.clone() else { return };
        if is_layered && is_changed {
            units.push(Unit::LayerConfig(layer, config.clone()));
        }
        if self.layers.is_leading(layer) {
            self.keyframes.picture(key, now);
        }
        let stamp = self.clock.stamp(Flow::Video(layer), timestamp, arrived);
        let video = &mut self.video[layer];
        let had_hole = video.has_hole;
        video.has_hole = stamp.is_none() || had_hole && !key;
        let Some(stamp) = stamp else { return };
        if video.has_hole {
            self.keyframes.want();
            return;
        }
        let (width, height) = config.dimensions();
        let seen = Seen { layer, key, pixels: u64::from(width) * u64::from(height), stamp };
        let waited = self.layers.wants_keyframe();
        if is_layered {
            units.push(Unit::Layer(layer, stamp, sample.clone()));
        }
        let own = Own { stamp, sample, config: key.then_some(config), is_changed };
        let mut taken = Vec::new();
        self.layers.picture(seen, own, now, &mut taken);
        for taken in taken {
            let Own { stamp, sample, config, is_changed } = taken.picture;
            units.extend(config.filter(|_| taken.is_first || is_changed).map(Unit::VideoConfig));
            // WebRTC has no pictures out of order (RFC 7742, §6.2), so that PTS is DTS.
            let unit = VideoUnit { codec: self.codec, composition_offset_ms: 0, data: sample };
            units.push(Unit::Video(stamp, unit));
        }
        if self.layers.wants_keyframe() && !waited {
            self.keyframes.want();
        }
    }

    /// When there is something to do without any packet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let video = self.video.iter().filter_map(|video| video.reorder.deadline());
        video.chain([self.audio.deadline(), self.keyframes.due()].into_iter().flatten()).min()
    }

    /// Of all tracks.
    pub(super) fn counts(&self) -> Counts {
        let video = self.video.iter().map(|video| video.reorder.counts());
        video.fold(self.audio.counts(), |sum, of| Counts {
            received: sum.received + of.received,
            lost: sum.lost + of.lost,
            reordered: sum.reordered + of.reordered,
            late: sum.late + of.late,
        })
    }
}

impl Unit {
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
        let (mut media, mut units) = (Media::new(None, 0, start), Vec::new());
        for (sequence, at) in [(1, 0_u64), (3, 40), (2, 41), (5, 80)] {
            let timestamp = 1_000 + u32::from(sequence) * 960;
            media
                .packet(Flow::Audio, packet(sequence, timestamp, b"opus", start + Duration::from_millis(at)));
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

    /// A layer is of no use until reports have said when it was taken; what leans on a keyframe from before is not either.
    #[test]
    fn a_layer_begins_with_a_keyframe_that_has_a_time() {
        let start = Instant::now();
        let (mut media, mut units) = (Media::new(Some(VideoCodec::Vp8), 2, start), Vec::new());
        let key: &[u8] = &[0x10, 0x50, 0x07, 0, 0x9D, 1, 0x2A, 0x40, 1, 0xB4, 0, 9];
        let delta: &[u8] = &[0x10, 0x51, 0x07, 0, 9];
        let mut told = Vec::new();
        for (number, payload) in [(0_u16, key), (1, delta), (2, delta), (3, key), (4, delta)] {
            let arrived = start + Duration::from_millis(u64::from(number) * 40);
            for layer in 0..2 {
                let timestamp = 1_000_000 * layer as u32 + u32::from(number) * 3_600;
                let payload = Bytes::from_static(payload);
                let packet = Packet { sequence: number, timestamp, marker: true, payload, arrived };
                media.packet(Flow::Video(layer), packet);
                if number == 1 {
                    media.report(Flow::Video(layer), 1 << 62, timestamp);
                }
            }
            media.poll(arrived, &mut units);
            let of_second = |unit: &Unit| matches!(unit, Unit::Layer(1, ..));
            told.extend(units.drain(..).filter(of_second).map(|_| number));
            if number == 2 {
                assert!(media.keyframe_due(arrived + Duration::from_secs(1)), "it asks for one");
            }
        }
        assert_eq!(told, [3, 4]);
    }

    /// A browser sends a keyframe only if it is asked for one.
    #[test]
    fn a_picture_that_nothing_can_be_made_of_asks_for_a_keyframe() {
        let start = Instant::now();
        let (mut media, mut units) = (Media::new(None, 0, start), Vec::new());
        assert_eq!(media.deadline(), None);
        media.packet(Flow::Video(0), packet(1, 0, &[0x41, 1, 2, 3], start));
        media.poll(start, &mut units);
        assert!(units.is_empty());
        assert!(media.keyframe_due(start) && !media.keyframe_due(start));
        assert_eq!(media.deadline(), Some(start + Duration::from_secs(1)));
    }
}
