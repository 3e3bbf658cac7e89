//! What a broadcaster should know of the stream: its last minutes in numbers, and in words what is wrong and how to
//! mend it. Pure: told of every unit, asked once a second.

use std::collections::VecDeque;
use std::time::Duration;

use media::VideoCodec;
use relay::{HEALTH_SAMPLES_MAX, Sample, Sound};

use crate::Announced;
use crate::cutter::Counts;

/// A keyframe distance above this, in seconds, makes every join slow.
pub(crate) const KEYFRAME_INTERVAL_GOOD_S: f64 = 4.0;

/// The same of a publisher that is asked for keyframes, every four seconds at the least, and takes a moment to answer.
const KEYFRAME_INTERVAL_ASKED_S: f64 = 5.0;

/// Media this much later than it could be is a connection that does not keep up, in milliseconds.
const LATE_MS: i64 = 1_500;

/// A track is missing after so long, in milliseconds: longer than an encoder's hiccup.
const MISSING_MS: i64 = 5_000;

/// Largest AAC frame of digital silence: ffmpeg's takes 4 bytes in mono, 6 in stereo and 19 in 5.1, and the quietest tone
/// 47. An encoder that fills its frames up to a constant size cannot be judged this way: its sound is "arriving".
const fn silent_bytes_max(channels: u8) -> usize {
    4 + 4 * channels as usize
}

/// Seconds that the sound must be this small: a pause in speech over a gated microphone is no fault.
const SILENT_SECONDS: u32 = 5;

/// Samples for judging the frame rate, and the bit rate; about as many seconds.
const FRAME_RATE_SAMPLES: usize = 10;
/// Fewer say nothing: the first seconds of a publisher come as they can.
const FRAME_RATE_SAMPLES_MIN: usize = 5;
const BIT_RATE_SAMPLES: usize = 60;
/// The bit rate is judged by blocks that hold two keyframes of a good stream.
const BIT_RATE_BLOCK: usize = 4;
/// The heaviest block weighs this many times the lightest one where the rate is not constant.
const BIT_RATE_SWING: f64 = 3.0;
/// Below this nobody's connection is surprised, in bits per second.
const BIT_RATE_SMALL: f64 = 500_000.0;

/// Share of the expected frames below which some are missing.
const FRAME_RATE_SHARE_MIN: f64 = 0.9;
/// Difference of the best and the worst second, as a share of the rate, above which it is unsteady.
const FRAME_RATE_SWING: f64 = 0.3;
/// A faster rate is no camera's: some muxers announce their timescale.
const FRAME_RATE_MAX: u32 = 240;

/// Loss is judged over so many samples; a share below this, or so few packets, mends itself at the next keyframe.
const LOSS_SAMPLES: usize = 15;
const LOSS_SHARE_MIN: f64 = 0.005;
const LOST_TOLD: u64 = 5;

/// Parts over target in a minute that are told: one may be a hiccup.
const PARTS_OVER_TARGET_TOLD: u64 = 3;

#[derive(Default)]
pub(crate) struct Health {
    /// The oldest first.
    seconds: VecDeque<Second>,
    /// How many of them are this publisher's.
    own: usize,
    video_last_ms: Option<i64>,
    audio_last_ms: Option<i64>,
    /// Since the last second was complete.
    audio_bytes: usize,
    audio_frame_bytes_max: usize,
    /// Seconds in a row whose every frame of sound was as small as silence.
    silent_seconds: u32,
    /// Smallest arrival − stamp since the last second was complete, in milliseconds.
    delay_ms: Option<i64>,
    /// Longest PTS − DTS seen: how far the encoder reorders.
    reorder_s: f64,
    /// As measured when the log opened.
    frame_rate: Option<f64>,
}

/// From the first second on until everything that a publisher starts with was seen.
const PREFLIGHT_SECONDS: usize = 10;

struct Second {
    sample: Sample,
    /// `None` where nothing came, and of a publisher before this one: clocks differ.
    delay_ms: Option<i64>,
    audio_bytes: usize,
    /// As they stood at its end.
    counts: Counts,
    packets: Packets,
}

/// Of a publisher whose line may lose some: since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packets {
    pub received: u64,
    /// And did not come when they were asked for again.
    pub lost: u64,
}

/// What else is known when a second is complete.
pub(crate) struct Circumstances {
    /// Stream time, in milliseconds.
    pub(crate) now_ms: i64,
    /// The newest distance of two keyframes, or the age of the newest one if that is more.
    pub(crate) keyframe_interval_s: Option<f64>,
    pub(crate) counts: Counts,
    pub(crate) announced: Announced,
    pub(crate) audio_channels: Option<u8>,
    /// The video is not 8-bit 4:2:0.
    pub(crate) rare_pixels: bool,
    pub(crate) video_codec: Option<VideoCodec>,
    /// `None` of a publisher whose connection loses nothing.
    pub(crate) packets: Option<Packets>,
    /// Somebody here makes other renditions of the video.
    pub(crate) has_ladder: bool,
}

/// What the broadcaster is told.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) warnings: Vec<String>,
    pub(crate) health: relay::Health,
}

impl Health {
    /// Of a publisher that goes on after one that was gone for `silence`: its last minutes are the stream's. `counts` are
    /// the session's as they stand.
    pub(crate) fn after(before: &relay::Health, silence: Duration, counts: Counts) -> Self {
        let mut health = Self::default();
        let span_ms = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
        let gap = Sample { span_ms, ..Sample::default() };
        for sample in before.samples.iter().copied().chain([gap]) {
            health.push(Second {
                sample,
                delay_ms: None,
                audio_bytes: 0,
                counts,
                packets: Packets::default(),
            });
        }
        health
    }

    fn push(&mut self, second: Second) {
        if self.seconds.len() == HEALTH_SAMPLES_MAX {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
    }

    /// The first seconds are over; `frame_rate` is what was measured in them.
    pub(crate) fn open(&mut self, frame_rate: Option<f64>) {
        self.frame_rate = frame_rate;
    }

    /// A picture stamped `millis` on the stream clock arrived at `arrival_ms` of an even-running one, and is shown
    /// `reorder_s` seconds after it is decoded.
    pub(crate) fn picture(&mut self, millis: i64, arrival_ms: i64, reorder_s: f64) {
        self.arrived(millis, arrival_ms);
        self.video_last_ms = self.video_last_ms.max(Some(millis));
        self.reorder_s = self.reorder_s.max(reorder_s);
    }

    /// A frame of sound arrived; see [`Self::picture`].
    pub(crate) fn sound(&mut self, millis: i64, arrival_ms: i64, bytes: usize) {
        self.arrived(millis, arrival_ms);
        self.audio_last_ms = self.audio_last_ms.max(Some(millis));
        self.audio_bytes += bytes;
        self.audio_frame_bytes_max = self.audio_frame_bytes_max.max(bytes);
    }

    fn arrived(&mut self, millis: i64, arrival_ms: i64) {
        let delay_ms = arrival_ms - millis;
        self.delay_ms = Some(self.delay_ms.map_or(delay_ms, |least| least.min(delay_ms)));
    }

    /// The publisher has been here for as long as it takes to tell what will go wrong for whom; said once.
    pub(crate) fn is_preflight(&self) -> bool {
        self.own == PREFLIGHT_SECONDS
    }

    /// A second is complete, with `sample` in it.
    pub(crate) fn second(&mut self, sample: Sample, now: &Circumstances) -> Report {
        let audio_bytes = std::mem::take(&mut self.audio_bytes);
        let frame_bytes_max = std::mem::take(&mut self.audio_frame_bytes_max);
        let silent = audio_bytes > 0 && frame_bytes_max <= silent_bytes_max(now.audio_channels.unwrap_or(1));
        self.silent_seconds = if silent { self.silent_seconds.saturating_add(1) } else { 0 };
        let delay_ms = self.delay_ms.take();
        let packets = now.packets.unwrap_or_default();
        self.push(Second { sample, delay_ms, audio_bytes, counts: now.counts, packets });
        self.own = self.seconds.len().min(self.own + 1);
        let sound = self.heard(now.now_ms);
        Report {
            warnings: self.warnings(sound, now),
            health: relay::Health {
                samples: self.seconds.iter().map(|second| second.sample).collect(),
                sound,
                late_ms: u32::try_from(self.late_ms()).unwrap_or(u32::MAX),
                hints: self.hints(sound, now),
            },
        }
    }

    fn warnings(&self, sound: Sound, now: &Circumstances) -> Vec<String> {
        [
            now.keyframe_interval_s
                .and_then(|interval_s| keyframes_far_apart(interval_s, now.packets.is_some())),
            self.late(),
            self.picture_missing(now),
            self.frames_missing(now),
            self.frames_unsteady(now),
            // One that measures its line follows it; that is no fault.
            self.bit_rate_unsteady().filter(|_| now.packets.is_none()),
            self.packets_lost(),
            sound_missing(sound, now.announced.audio),
            self.timestamps_jumped(),
            self.parts_over_target(),
            now.rare_pixels.then(|| {
                "Many devices play only 8-bit 4:2:0 video. Set the encoder's pixel format to NV12 or yuv420p."
                    .to_owned()
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn hints(&self, sound: Sound, now: &Circumstances) -> Vec<String> {
        let b_frames = (self.reorder_s > 0.0).then(|| {
            let who = match now.has_ladder {
                true => "are shown a rendition that is made of it here",
                false => "see nothing",
            };
            format!(
                "The encoder uses B-frames, which add about {:.0} ms of delay, and WebRTC cannot show them: its viewers \
                 {who}. Turn them off (in OBS: Settings → Output; Tune zerolatency with x264, B-frames 0 with NVENC).",
                self.reorder_s * 1000.0
            )
        });
        let channels = now.audio_channels.filter(|&channels| channels > 2).map(|channels| {
            format!(
                "The sound has {channels} channels; some phones and browsers play only stereo well. To mix it down \
                 yourself: in OBS, Settings → Audio → Channels: Stereo."
            )
        });
        let no_sound = (sound == Sound::None && !now.announced.audio).then(|| {
            "The stream has no sound. If it should have some, add a source of sound in the encoder."
                .to_owned()
        });
        [rare_codec(now), b_frames, channels, no_sound].into_iter().flatten().collect()
    }

    fn heard(&self, now_ms: i64) -> Sound {
        let Some(last_ms) = self.audio_last_ms else { return Sound::None };
        let missing_ms = now_ms - last_ms;
        if missing_ms >= MISSING_MS {
            return Sound::Stopped { seconds: u32::try_from(missing_ms / 1000).unwrap_or(u32::MAX) };
        }
        if self.silent_seconds >= SILENT_SECONDS {
            return Sound::ProbablySilent;
        }
        let (bytes, span_ms) = self.last(FRAME_RATE_SAMPLES).fold((0, 0), |(bytes, span_ms), second| {
            (bytes + second.audio_bytes as u64, span_ms + u64::from(second.sample.span_ms))
        });
        let bits_per_second = u32::try_from(bytes * 8_000 / span_ms.max(1)).unwrap_or(u32::MAX);
        Sound::Arriving { bits_per_second }
    }

    /// The newest `count` seconds of this publisher, the newest first: it is not judged by the one before, nor by the time
    /// between them.
    fn last(&self, count: usize) -> impl Iterator<Item = &Second> {
        self.seconds.iter().rev().take(count.min(self.own))
    }

    /// Clocks drift apart by less than this tells in the minutes that are kept.
    fn late_ms(&self) -> i64 {
        let least = self.seconds.iter().filter_map(|second| second.delay_ms).min();
        let newest = self.seconds.iter().rev().find_map(|second| second.delay_ms);
        newest.zip(least).map_or(0, |(newest, least)| newest - least)
    }

    fn late(&self) -> Option<String> {
        let late_ms = self.late_ms();
        (late_ms >= LATE_MS).then(|| {
            format!(
                "What you send arrives {:.1} s late: the connection to the server carries less than the encoder \
                 makes. Lower the bitrate, or use a cable instead of Wi-Fi.",
                late_ms as f64 / 1000.0
            )
        })
    }

    fn picture_missing(&self, now: &Circumstances) -> Option<String> {
        let missing_ms = now.now_ms - self.video_last_ms?;
        (missing_ms >= MISSING_MS).then(|| {
            format!(
                "No picture has arrived for {} s, though sound does. Look at the encoder.",
                missing_ms / 1000
            )
        })
    }

    fn frames_missing(&self, now: &Circumstances) -> Option<String> {
        let announced = now.announced.frames_per_second.filter(|rate| *rate <= FRAME_RATE_MAX).map(f64::from);
        if self.own < FRAME_RATE_SAMPLES_MIN {
            return None;
        }
        let expected = self.frame_rate?.max(announced.unwrap_or(0.0));
        let arriving = mean(self.last(FRAME_RATE_SAMPLES))?;
        (arriving > 0.0 && arriving < expected * FRAME_RATE_SHARE_MIN).then(|| {
            format!(
                "Only {arriving:.0} of {expected:.0} frames a second arrive: the encoder leaves frames out. In OBS, \
                 View → Stats tells whether the encoder or the network is overloaded."
            )
        })
    }

    fn frames_unsteady(&self, now: &Circumstances) -> Option<String> {
        if self.own < FRAME_RATE_SAMPLES_MIN || self.frames_missing(now).is_some() {
            return None;
        }
        let rate = mean(self.last(FRAME_RATE_SAMPLES)).filter(|rate| *rate > 0.0)?;
        let rates = || self.last(FRAME_RATE_SAMPLES).map(|second| f64::from(second.sample.frame_rate));
        let (least, most) = (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max));
        (most - least > rate * FRAME_RATE_SWING).then(|| {
            format!(
                "The frame rate swings between {least:.0} and {most:.0} a second. A constant one plays more \
                 smoothly: does the encoder's machine have enough to spare?"
            )
        })
    }

    fn bit_rate_unsteady(&self) -> Option<String> {
        let newest: Vec<_> = self.last(BIT_RATE_SAMPLES).map(|second| second.sample).collect();
        if newest.len() < BIT_RATE_SAMPLES {
            return None;
        }
        let rates = newest.chunks_exact(BIT_RATE_BLOCK).map(|block| {
            let bits: f64 = block.iter().map(|sample| f64::from(sample.bits_per_second)).sum();
            bits / BIT_RATE_BLOCK as f64
        });
        let (least, most) =
            rates.fold((f64::INFINITY, 0.0_f64), |(least, most), rate| (least.min(rate), most.max(rate)));
        (most > BIT_RATE_SMALL && most > least * BIT_RATE_SWING).then(|| {
            format!(
                "The bitrate swings between {:.1} and {:.1} Mb/s. Set the encoder to a constant bitrate (CBR): a \
                 viewer's connection must carry the peaks.",
                least / 1e6,
                most / 1e6
            )
        })
    }

    fn packets_lost(&self) -> Option<String> {
        let own = self.own.min(LOSS_SAMPLES);
        let (newest, oldest) =
            (self.seconds.back()?, self.seconds.get(self.seconds.len().checked_sub(own)?)?);
        let lost = newest.packets.lost.saturating_sub(oldest.packets.lost);
        let all = lost + newest.packets.received.saturating_sub(oldest.packets.received);
        let share = lost as f64 / all.max(1) as f64;
        (lost >= LOST_TOLD && share >= LOSS_SHARE_MIN).then(|| {
            format!(
                "{:.1} % of what you send is lost on its way, and viewers see the picture stand still. Use a cable \
                 instead of Wi-Fi, or lower the bitrate.",
                share * 100.0
            )
        })
    }

    fn timestamps_jumped(&self) -> Option<String> {
        let jumps = self
            .since(HEALTH_SAMPLES_MAX, |counts| counts.discontinuities.saturating_sub(counts.reconfigured));
        (jumps > 0).then(|| {
            let times = if jumps == 1 { "once".to_owned() } else { format!("{jumps} times") };
            format!(
                "The timestamps jumped {times} in the last minutes, and viewers saw a hitch. A lost connection, a \
                 source that loops and a computer that slept do that."
            )
        })
    }

    fn parts_over_target(&self) -> Option<String> {
        let parts = self.since(BIT_RATE_SAMPLES, |counts| counts.parts_over_target);
        (parts >= PARTS_OVER_TARGET_TOLD).then(|| {
            format!(
                "Frames come less evenly than when the stream began: {parts} parts of the last minute are longer \
                 than players were promised, and they may stall. Set a constant frame rate and start the stream anew."
            )
        })
    }

    /// How much a count has risen within the newest `samples`.
    fn since(&self, samples: usize, count: impl Fn(&Counts) -> u64) -> u64 {
        let oldest = self.seconds.get(self.seconds.len().saturating_sub(samples));
        let (Some(newest), Some(oldest)) = (self.seconds.back(), oldest) else { return 0 };
        count(&newest.counts).saturating_sub(count(&oldest.counts))
    }
}

/// For whom the codec is one that they cannot be shown.
fn rare_codec(now: &Circumstances) -> Option<String> {
    let (codec, who) = match now.video_codec? {
        VideoCodec::H264 => return None,
        VideoCodec::H265 => ("HEVC", "browsers on many phones and computers cannot show"),
        VideoCodec::Av1 => {
            ("AV1", "iPhones, but for the newest, and many older phones and computers cannot show")
        }
        VideoCodec::Vp9 => ("VP9", "iPhones and Safari cannot show by HLS"),
        VideoCodec::Vp8 => ("VP8", "viewers by HLS cannot be shown"),
    };
    let others = if now.has_ladder {
        "they see the renditions in H.264 that are made of it here"
    } else {
        "they see nothing"
    };
    Some(format!(
        "The video is {codec}, which {who}: {others}. Choose H.264 in the encoder to reach everybody (in OBS: Settings → \
         Output → Video Encoder; in a page of your own: setCodecPreferences)."
    ))
}

fn keyframes_far_apart(interval_s: f64, is_asked: bool) -> Option<String> {
    let good_s = if is_asked { KEYFRAME_INTERVAL_ASKED_S } else { KEYFRAME_INTERVAL_GOOD_S };
    (interval_s > good_s).then(|| {
        format!(
            "A keyframe comes only every {interval_s:.1} s, so new viewers wait for the picture. Set the keyframe \
             interval to 2 s (in OBS: Settings → Output → Streaming)."
        )
    })
}

fn sound_missing(sound: Sound, announced: bool) -> Option<String> {
    match sound {
        Sound::None if announced => Some(
            "The encoder announced sound, but none arrives. Is a source of sound missing in its mixer?"
                .to_owned(),
        ),
        Sound::Stopped { seconds } => {
            Some(format!("No sound has arrived for {seconds} s, though the picture does."))
        }
        Sound::ProbablySilent => Some(
            "The sound is probably silent: its frames are as small as an encoder makes them of silence. Is the \
             right microphone chosen, and not muted?"
                .to_owned(),
        ),
        Sound::None | Sound::Arriving { .. } => None,
    }
}

/// Frames per second over all of `seconds`.
fn mean<'a>(seconds: impl Iterator<Item = &'a Second>) -> Option<f64> {
    let (frames, span_ms) = seconds.fold((0.0, 0.0), |(frames, span_ms), Second { sample, .. }| {
        let span = f64::from(sample.span_ms);
        (frames + f64::from(sample.frame_rate) * span, span_ms + span)
    });
    (span_ms > 0.0).then(|| frames / span_ms)
}

#[cfg(test)]
mod tests;
