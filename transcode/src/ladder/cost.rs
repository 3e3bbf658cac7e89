//! What a plan costs, before it is measured.
//!
//! In cores: seconds of processor time per second of media. The numbers are those of two shared virtual cores at
//! 2.5 GHz with GStreamer 1.22 and x264, measured with three rungs (720p, 480p, 360p) from 720p and 1080p at 30 frames
//! per second; they hold to a tenth there. What a job really costs replaces them as soon as it runs; see
//! [`Budget`](crate::budget::Budget).

use pipe::{AudioTarget, FrameRate, Preset};

use super::{Plan, Source, Video, VideoRung, per_second};

/// Nanoseconds of one core, per pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct CostModel {
    pub decode_h264: f64,
    pub decode_other: f64,
    /// For each pixel of the next larger picture.
    pub scale: f64,
    /// In the order of [`Preset::ALL`].
    pub encode: [f64; Preset::ALL.len()],
    /// In cores.
    pub audio_aac: f64,
    pub audio_opus: f64,
}

impl CostModel {
    pub const MEASURED: Self = Self {
        // 0.107 cores for 720p30, 0.232 for 1080p30.
        decode_h264: 3.8,
        // Not measured: twice as much.
        decode_other: 7.6,
        // What 1080p costs more than 720p with the same rungs, without the decoder.
        scale: 1.6,
        // What remains of 0.55 to 0.67, 0.78 to 1.18 and 1.12 to 1.45 cores. "faster" is not measured.
        encode: [9.0, 13.5, 20.0, 26.0],
        // 0.038 for the encoder; the decoder of six channels is the rest.
        audio_aac: 0.045,
        // 0.012 for the encoder.
        audio_opus: 0.015,
    };

    fn decode(&self, video: &Video) -> f64 {
        let nanos = if video.is_h264 { self.decode_h264 } else { self.decode_other };
        cores(nanos, f64::from(video.coded_pixels), video.frame_rate)
    }

    /// `above` is how many pixels it is scaled from.
    fn rung(&self, rung: &VideoRung, above: f64, source: &Video) -> f64 {
        let preset = Preset::ALL.iter().position(|preset| *preset == rung.preset).unwrap_or(0);
        let rate = rung.frame_rate.unwrap_or(source.frame_rate);
        cores(self.encode[preset], pixels(rung), rate) + cores(self.scale, above, rate)
    }

    /// Of a child that makes this of any sound.
    pub(crate) fn audio(&self, target: AudioTarget) -> f64 {
        match target {
            AudioTarget::Aac => self.audio_aac,
            AudioTarget::Opus => self.audio_opus,
        }
    }
}

fn cores(nanos: f64, pixels: f64, rate: FrameRate) -> f64 {
    nanos * 1e-9 * pixels * per_second(rate)
}

fn pixels(rung: &VideoRung) -> f64 {
    f64::from(rung.width) * f64::from(rung.height)
}

impl Plan {
    /// In cores.
    pub fn cost(&self, source: &Source, model: &CostModel) -> f64 {
        let audio: f64 = self.audio.iter().map(|audio| model.audio(audio.target)).sum();
        audio + video_cost(&self.video, source, model)
    }

    /// What of it `cores` are enough for: sound first, then rungs from the lowest on. What is left has its order.
    pub fn admit(mut self, source: &Source, cores: f64, model: &CostModel) -> Self {
        let mut left = cores;
        self.audio.retain(|audio| {
            let cost = model.audio(audio.target);
            let fits = cost <= left;
            left -= if fits { cost } else { 0.0 };
            fits
        });
        let first =
            (0..self.video.len()).find(|&first| video_cost(&self.video[first..], source, model) <= left);
        self.video.drain(..first.unwrap_or(self.video.len()));
        self
    }
}

/// Of the decoder and `rungs`, if there are any.
fn video_cost(rungs: &[VideoRung], source: &Source, model: &CostModel) -> f64 {
    let Some(video) = source.video.as_ref().filter(|_| !rungs.is_empty()) else { return 0.0 };
    let mut above = f64::from(video.coded_pixels);
    let mut cost = model.decode(video);
    for rung in rungs {
        cost += model.rung(rung, above, video);
        above = pixels(rung);
    }
    cost
}
