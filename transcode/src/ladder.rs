//! Which rungs and which sound a stream gets. What the publisher sends stays on top of them, untouched.

use media::CodecConfig;
use media::VideoConfig;
use media::codec::Chroma;
use pipe::{AudioTarget, EVERY_MAX, FrameRate, Preset, RUNGS_MAX};

mod cost;
#[cfg(test)]
mod tests;

pub use cost::CostModel;

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LadderConfig {
    /// What the publisher sends, and nothing else.
    Off,
    /// [`AUTO`], as far as it lies below the source.
    #[default]
    Auto,
    /// These, as far as they lie below the source.
    Rungs(Vec<RungConfig>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RungConfig {
    /// Of the shorter side, in pixels.
    pub height: u16,
    /// In bit/s, whatever the frame rate.
    pub bitrate: u32,
    /// In frames per second; without one, the source's.
    pub frame_rate_max: Option<u16>,
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Source {
    pub video: Option<Video>,
    pub audio: Option<Audio>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Video {
    /// As it is shown, in square pixels; neither is more than what is coded.
    pub width: u32,
    pub height: u32,
    /// In pixels per picture, as coded: what a decoder has to do.
    pub coded_pixels: u32,
    pub frame_rate: FrameRate,
    pub is_h264: bool,
    /// Whether everybody can be shown it by WebRTC as it is: H.264 of 8 bits and 4:2:0, without B-frames.
    pub suits_webrtc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audio {
    pub is_aac: bool,
    pub channels: u8,
}

/// For a source that does not say, and was not measured.
const FRAME_RATE_UNKNOWN: FrameRate = FrameRate { numerator: 30, denominator: 1 };

impl Video {
    /// `measured` goes before what the configuration announces. `reorders`: some unit's PTS was not its DTS. `None` if
    /// `config` is of sound.
    pub fn of(config: &CodecConfig, measured: Option<FrameRate>, reorders: bool) -> Option<Self> {
        let (width, height) = config.dimensions()?;
        let (config, pixel) = match config {
            CodecConfig::H264(config) => (VideoConfig::H264(config.clone()), config.pixel_aspect()),
            CodecConfig::H265(config) => (VideoConfig::H265(config.clone()), config.pixel_aspect()),
            CodecConfig::Av1(config) => (VideoConfig::Av1(config.clone()), None),
            CodecConfig::Vp8(config) => (VideoConfig::Vp8(config.clone()), None),
            CodecConfig::Vp9(config) => (VideoConfig::Vp9(config.clone()), None),
            CodecConfig::Aac(_) | CodecConfig::Opus(_) => return None,
        };
        let pixel = pixel.map_or(1.0, |pixel| f64::from(pixel.horizontal) / f64::from(pixel.vertical));
        let shrunk = |side: u32, by: f64| (f64::from(side) * by).round() as u32;
        let announces_b_frames = match &config {
            VideoConfig::H264(config) => config.reorder_frames_max().is_some_and(|frames| frames > 0),
            _ => false,
        };
        let is_h264 = matches!(config, VideoConfig::H264(_));
        let is_plain = is_h264 && config.chroma() == Chroma::Yuv420 && config.bit_depth() == 8;
        Some(Self {
            width: shrunk(width, pixel.min(1.0)),
            height: shrunk(height, pixel.recip().min(1.0)),
            coded_pixels: width * height,
            frame_rate: measured.or_else(|| config.frame_rate().map(fraction)).unwrap_or(FRAME_RATE_UNKNOWN),
            is_h264,
            suits_webrtc: is_plain && !reorders && !announces_b_frames,
        })
    }
}

impl Audio {
    /// `None` if `config` is of pictures.
    pub fn of(config: &CodecConfig) -> Option<Self> {
        Some(Self { is_aac: matches!(config, CodecConfig::Aac(_)), channels: config.channels()? })
    }
}

/// Of `rate`, at most 300: whole, a whole one slowed down as NTSC does it, or in thousandths.
pub fn fraction(rate: f64) -> FrameRate {
    let whole = rate.round().max(1.0);
    let is_near = |other: f64| (rate - other).abs() < 0.005;
    if is_near(whole) {
        FrameRate { numerator: whole as u32, denominator: 1 }
    } else if is_near(whole * 1_000.0 / 1_001.0) {
        FrameRate { numerator: whole as u32 * 1_000, denominator: 1_001 }
    } else {
        FrameRate { numerator: (rate * 1_000.0).round() as u32, denominator: 1_000 }
    }
}

/// What is made of a source beside what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The largest first; at most [`RUNGS_MAX`], no two of one name.
    pub video: Vec<VideoRung>,
    pub audio: Vec<AudioRendition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoRung {
    /// After the shorter side, as in `720p`.
    pub name: String,
    /// In pixels, both even.
    pub width: u16,
    pub height: u16,
    /// Of so many pictures of the source it has one.
    pub every: u8,
    /// If it is not the source's.
    pub frame_rate: Option<FrameRate>,
    /// In bit/s.
    pub bitrate: u32,
    pub preset: Preset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioRendition {
    pub name: &'static str,
    pub target: AudioTarget,
    /// In hertz.
    pub rate: u32,
    pub channels: u8,
    /// In bit/s.
    pub bitrate: u32,
}

/// The ladder of [`LadderConfig::Auto`]. Bitrates are for 30 frames per second or less.
pub const AUTO: [RungConfig; 4] = [
    RungConfig { height: 720, bitrate: 2_500_000, frame_rate_max: None },
    RungConfig { height: 480, bitrate: 1_200_000, frame_rate_max: None },
    RungConfig { height: 360, bitrate: 700_000, frame_rate_max: Some(30) },
    // For a crowd on bad data.
    RungConfig { height: 240, bitrate: 250_000, frame_rate_max: Some(30) },
];

/// A rung of [`AUTO`] that is hardly smaller than the source costs much and helps nobody: largest part of the source's
/// height.
const AUTO_HEIGHT_MAX: f64 = 0.85;
/// Below this, in lines, the source is a lowest rung itself.
const AUTO_SOURCE_HEIGHT_MIN: u32 = 300;

const PRESET: Preset = Preset::Superfast;

/// What a rung's sides may be; see `pipe::JobError::Size`.
const SIDE_MIN: f64 = 16.0;
const SIDE_MAX: f64 = 4096.0;
/// What a rung's bitrate may be; see `pipe::JobError::Bitrate`.
const BITRATE: std::ops::RangeInclusive<u32> = 16_000..=100_000_000;

/// What `source` gets under `config`, if the machine can do it all; see [`Plan::admit`].
pub fn plan(source: &Source, config: &LadderConfig) -> Plan {
    let below = |video: &Video| match config {
        LadderConfig::Off => Vec::new(),
        LadderConfig::Auto => auto(video),
        LadderConfig::Rungs(rungs) => rungs.iter().filter_map(|rung| video.rung(rung)).collect(),
    };
    let video = source.video.as_ref().map_or_else(Vec::new, |video| {
        let own = (*config != LadderConfig::Off && !video.suits_webrtc).then(|| video.own_size());
        let mut rungs = below(video);
        rungs.sort_by_key(|rung| std::cmp::Reverse((rung.shorter_side(), rung.bitrate)));
        rungs.dedup_by_key(|rung| rung.shorter_side());
        rungs.retain(|rung| own.as_ref().is_none_or(|own| rung.shorter_side() < own.shorter_side()));
        // The lower ones are needed more; who has the largest has the source.
        rungs.drain(..rungs.len().saturating_sub(RUNGS_MAX - usize::from(own.is_some())));
        own.into_iter().chain(rungs).collect()
    });
    let audio = source.audio.filter(|_| *config != LadderConfig::Off);
    let audio = audio.map(|audio| audio.aac().into_iter().chain(audio.opus()).collect());
    Plan { video, audio: audio.unwrap_or_default() }
}

fn auto(video: &Video) -> Vec<VideoRung> {
    let shorter = video.width.min(video.height);
    if shorter < AUTO_SOURCE_HEIGHT_MIN {
        return Vec::new();
    }
    let faster = faster(video.frame_rate);
    AUTO.iter()
        .filter(|rung| f64::from(rung.height) <= f64::from(shorter) * AUTO_HEIGHT_MAX)
        .filter_map(|rung| {
            let bitrate = if rung.frame_rate_max.is_some() { 1.0 } else { faster };
            video.rung(&RungConfig { bitrate: (f64::from(rung.bitrate) * bitrate) as u32, ..*rung })
        })
        .collect()
}

/// How many times the bits of 30 frames per second: at 60 half of the pictures are easily told from those beside them.
fn faster(rate: FrameRate) -> f64 {
    (1.0 + (per_second(rate) - 30.0) / 60.0).clamp(1.0, 2.0)
}

fn per_second(rate: FrameRate) -> f64 {
    f64::from(rate.numerator) / f64::from(rate.denominator)
}

impl Video {
    /// `None` if it would not lie below the source, or if no encoder takes it.
    fn rung(&self, config: &RungConfig) -> Option<VideoRung> {
        let shorter = self.width.min(self.height);
        let height = u32::from(config.height) / 2 * 2;
        if height >= shorter {
            return None;
        }
        let scale = f64::from(height) / f64::from(shorter);
        let every = config.frame_rate_max.map_or(1, |max| self.one_of(max));
        self.scaled(scale).map(|(width, height)| VideoRung {
            name: format!("{}p", width.min(height)),
            width,
            height,
            every,
            frame_rate: (every > 1).then(|| self.frame_rate.divided(every)),
            bitrate: config.bitrate.clamp(*BITRATE.start(), *BITRATE.end()),
            preset: PRESET,
        })
    }

    /// Or the largest that encoders take.
    fn own_size(&self) -> VideoRung {
        let longer = f64::from(self.width.max(self.height));
        let scale = (SIDE_MAX / longer).min(1.0);
        // Of a picture that is longer than wide beyond all measure, the shorter side becomes the shortest there is.
        let side = |side: u32| (f64::from(side) * scale / 2.0).floor().max(SIDE_MIN / 2.0) as u16 * 2;
        let (width, height) = (side(self.width), side(self.height));
        VideoRung {
            name: format!("{}p", width.min(height)),
            width,
            height,
            every: 1,
            frame_rate: None,
            bitrate: bitrate_for(f64::from(width) * f64::from(height), self.frame_rate),
            preset: PRESET,
        }
    }

    /// Even, and no larger than the source.
    fn scaled(&self, scale: f64) -> Option<(u16, u16)> {
        let side = |side: u32| {
            let scaled = (f64::from(side) * scale / 2.0).round() * 2.0;
            (SIDE_MIN..=SIDE_MAX).contains(&scaled).then_some(scaled as u16)
        };
        Some((side(self.width)?, side(self.height)?))
    }

    /// Of how many pictures one is left, so that there are at most `max` in a second, evenly spaced.
    fn one_of(&self, max: u16) -> u8 {
        // A measured rate is seldom round.
        const SLACK: f64 = 1.02;
        let every = per_second(self.frame_rate) / (f64::from(max.max(1)) * SLACK);
        every.ceil().clamp(1.0, f64::from(EVERY_MAX)) as u8
    }
}

/// In bit/s: the curve that the rungs of [`AUTO`] above the lowest lie on, to 100 kbit/s. More pixels need fewer bits
/// each.
fn bitrate_for(pixels: f64, rate: FrameRate) -> u32 {
    const PIXELS: f64 = 1280.0 * 720.0;
    const STEP: f64 = 100_000.0;
    let bitrate = f64::from(AUTO[0].bitrate) * (pixels / PIXELS).powf(0.9) * faster(rate);
    ((bitrate / STEP).round().max(1.0) * STEP) as u32
}

impl VideoRung {
    /// What a child is told of it. `number` is what its units carry; `preset` may be cheaper than the planned.
    pub fn to_pipe(&self, number: u16, preset: Preset) -> pipe::Rung {
        let &Self { width, height, bitrate, every, .. } = self;
        pipe::Rung { number, width, height, kbit_s: bitrate / 1_000, preset, every }
    }

    fn shorter_side(&self) -> u16 {
        self.width.min(self.height)
    }
}

impl Audio {
    /// AAC with one or two channels, which every player takes, if it is something else.
    fn aac(self) -> Option<AudioRendition> {
        if self.is_aac && self.channels <= 2 {
            return None;
        }
        let channels = self.channels.clamp(1, 2);
        Some(AudioRendition {
            name: "aac",
            target: AudioTarget::Aac,
            rate: 48_000,
            channels,
            bitrate: 64_000 * u32::from(channels),
        })
    }

    /// Opus with one or two channels, which every browser takes by WebRTC (RFC 7874, §3), if it is something else.
    fn opus(self) -> Option<AudioRendition> {
        if !self.is_aac && self.channels <= 2 {
            return None;
        }
        let channels = self.channels.clamp(1, 2);
        Some(AudioRendition {
            name: "opus",
            target: AudioTarget::Opus,
            rate: 48_000,
            channels,
            bitrate: 48_000 * u32::from(channels),
        })
    }
}
