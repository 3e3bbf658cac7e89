//! What a child shall do.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use bytes::Bytes;
use media::CodecConfig;
use media::codec::ConfigError;

use crate::{ENCODERS_MAX, EVERY_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, RUNGS_MAX};

/// One child, one job: pictures and sound never share one, so that a picture no decoder survives leaves the sound
/// alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    Video(VideoJob),
    Audio(AudioJob),
}

impl From<VideoJob> for Job {
    fn from(job: VideoJob) -> Self {
        Self::Video(job)
    }
}

impl From<AudioJob> for Job {
    fn from(job: AudioJob) -> Self {
        Self::Audio(job)
    }
}

/// Decode once, scale and encode for each rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoJob {
    pub source: Codec,
    /// Of the source's stamps and of every rung's, in ticks per second.
    pub timescale: u32,
    /// As it was measured; what encoders plan their bits with, and what every rung announces.
    pub frame_rate: FrameRate,
    /// Names of GStreamer's elements, the best first; the first that is there is taken. Without any, the encoder's
    /// own order.
    pub encoders: Vec<String>,
    pub rungs: Vec<Rung>,
}

/// One encoding of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// What its units and its configuration carry.
    pub number: u16,
    /// In pixels, both even. Another shape than the source's gets borders.
    pub width: u16,
    pub height: u16,
    pub kbit_s: u32,
    pub preset: Preset,
    /// Of so many pictures one is encoded: 1 for all. One with a forced key always is, and they are counted from it.
    pub every: u8,
}

/// Speed against quality, named as x264 names it. All give the same decoder configuration; the slower ones of x264 do
/// not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preset {
    Ultrafast,
    Superfast,
    Veryfast,
    Faster,
}

impl Preset {
    /// From the cheapest on.
    pub const ALL: [Self; 4] = [Self::Ultrafast, Self::Superfast, Self::Veryfast, Self::Faster];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ultrafast => "ultrafast",
            Self::Superfast => "superfast",
            Self::Veryfast => "veryfast",
            Self::Faster => "faster",
        }
    }
}

/// Frames per second, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    pub numerator: u32,
    pub denominator: u32,
}

impl FrameRate {
    /// Longest part of the fraction: what GStreamer can hold.
    const PART_MAX: u32 = i32::MAX as u32;
    const RATE_MAX: u32 = 300;

    /// Of every n-th picture.
    pub fn divided(self, by: u8) -> Self {
        let (Self { numerator, denominator }, by) = (self, u32::from(by.max(1)));
        match denominator.checked_mul(by).filter(|product| *product <= Self::PART_MAX) {
            Some(denominator) => Self { numerator, denominator },
            None => Self { numerator: (numerator / by).max(1), denominator },
        }
    }

    /// Of at most 300 frames a second.
    fn is_sound(self) -> bool {
        let Self { numerator, denominator } = self;
        let parts = 1..=Self::PART_MAX;
        parts.contains(&numerator)
            && parts.contains(&denominator)
            && u64::from(numerator) <= u64::from(denominator) * u64::from(Self::RATE_MAX)
    }
}

/// Sound into another codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioJob {
    pub source: Codec,
    /// Of the source's stamps, in ticks per second.
    pub timescale: u32,
    pub target: AudioTarget,
    /// Of the target, in hertz; also the timescale of its stamps.
    pub rate: u32,
    /// Of the target: 1 or 2.
    pub channels: u8,
    pub kbit_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioTarget {
    Aac,
    Opus,
}

/// A decoder configuration by its bytes, as [`CodecConfig::record`] gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codec {
    pub sample_entry: [u8; 4],
    pub record: Bytes,
}

impl Codec {
    /// # Errors
    /// [`ConfigError`]: no configuration that `media` knows.
    pub fn config(&self) -> Result<CodecConfig, ConfigError> {
        CodecConfig::from_record(&self.sample_entry, self.record.clone())
    }
}

impl From<&CodecConfig> for Codec {
    fn from(config: &CodecConfig) -> Self {
        let (sample_entry, record) = config.record();
        Self { sample_entry: *sample_entry, record: record.clone() }
    }
}

/// Width and height of a rung, in pixels: what every encoder in the table takes.
const SIDE: RangeInclusive<u16> = 16..=4096;
const VIDEO_KBIT_S: RangeInclusive<u32> = 16..=100_000;
const AUDIO_KBIT_S: RangeInclusive<u32> = 8..=512;
const TIMESCALE: RangeInclusive<u32> = 1..=10_000_000;
/// Opus knows no other (RFC 7845, §4).
const OPUS_RATE: u32 = 48_000;
const AAC_RATE: RangeInclusive<u32> = 8_000..=96_000;

/// Why a job is none. Whoever made it is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    #[error("a decoder configuration of more than {RECORD_BYTES_MAX} bytes")]
    Record,
    #[error("a timescale of {0}")]
    Timescale(u32),
    #[error("a frame rate that no video has")]
    FrameRate,
    #[error("{0} rungs; 1 to {RUNGS_MAX} can be made")]
    Rungs(usize),
    #[error("two rungs with the number {0}")]
    RungTwice(u16),
    #[error("a rung of {width}x{height}; sides are even, from {} to {}", SIDE.start(), SIDE.end())]
    Size { width: u16, height: u16 },
    #[error("one of {0} pictures; one of 1 to {EVERY_MAX} can be made")]
    Every(u8),
    #[error("a bitrate of {0} kbit/s")]
    Bitrate(u32),
    #[error("more than {ENCODERS_MAX} encoders, or a name of more than {NAME_BYTES_MAX} bytes")]
    Encoders,
    #[error("a sample rate of {0} Hz")]
    Rate(u32),
    #[error("{0} channels; 1 or 2 can be made")]
    Channels(u8),
}

impl Job {
    /// Whether a child would take it.
    ///
    /// # Errors
    /// [`JobError`]: what is wrong with it.
    pub fn check(&self) -> Result<(), JobError> {
        match self {
            Self::Video(job) => job.check(),
            Self::Audio(job) => job.check(),
        }
    }
}

impl VideoJob {
    fn check(&self) -> Result<(), JobError> {
        check_source(&self.source, self.timescale)?;
        if !self.frame_rate.is_sound() {
            return Err(JobError::FrameRate);
        }
        if self.encoders.len() > ENCODERS_MAX || self.encoders.iter().any(|name| name.len() > NAME_BYTES_MAX)
        {
            return Err(JobError::Encoders);
        }
        if !(1..=RUNGS_MAX).contains(&self.rungs.len()) {
            return Err(JobError::Rungs(self.rungs.len()));
        }
        let mut numbers = BTreeSet::new();
        for &Rung { number, width, height, kbit_s, preset: _, every } in &self.rungs {
            if !numbers.insert(number) {
                return Err(JobError::RungTwice(number));
            }
            let is_sound = |side: u16| SIDE.contains(&side) && side.is_multiple_of(2);
            if !is_sound(width) || !is_sound(height) {
                return Err(JobError::Size { width, height });
            }
            if !VIDEO_KBIT_S.contains(&kbit_s) {
                return Err(JobError::Bitrate(kbit_s));
            }
            if !(1..=EVERY_MAX).contains(&every) {
                return Err(JobError::Every(every));
            }
        }
        Ok(())
    }
}

impl AudioJob {
    fn check(&self) -> Result<(), JobError> {
        check_source(&self.source, self.timescale)?;
        let rates = match self.target {
            AudioTarget::Aac => AAC_RATE,
            AudioTarget::Opus => OPUS_RATE..=OPUS_RATE,
        };
        if !rates.contains(&self.rate) {
            return Err(JobError::Rate(self.rate));
        }
        if !(1..=2).contains(&self.channels) {
            return Err(JobError::Channels(self.channels));
        }
        if !AUDIO_KBIT_S.contains(&self.kbit_s) {
            return Err(JobError::Bitrate(self.kbit_s));
        }
        Ok(())
    }
}

fn check_source(source: &Codec, timescale: u32) -> Result<(), JobError> {
    if source.record.len() > RECORD_BYTES_MAX {
        return Err(JobError::Record);
    }
    if !TIMESCALE.contains(&timescale) {
        return Err(JobError::Timescale(timescale));
    }
    Ok(())
}
