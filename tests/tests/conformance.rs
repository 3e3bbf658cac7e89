//! Every shape of input, published in real time by ffmpeg, followed by a strict viewer, and looked into with ffprobe.
//!
//! All fixtures run at once against one server: they wait for real time far more than they compute. Give the test
//! runner as many threads as there are tests (`make test` does); with fewer it only takes longer.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use harness::ffprobe::{self, Packet};
use harness::fmp4;
use harness::media::{clip, output_dir};
use harness::publisher::Publisher;
use harness::server::{Profile, Tidecast};
use harness::viewer::{Kind, RecordedRendition, Recording, follow};

/// EBU R37 allows sound 40 ms before the picture and 60 ms after; this is stricter than both taken together.
const SKEW_MAX_S: f64 = 0.045;

/// Playlists and ffprobe round to a millisecond and to a microsecond.
const ROUNDING_S: f64 = 0.0015;

/// One kind of input and what must come of it.
struct Fixture {
    clip: &'static str,
    publish: fn(&str, &str) -> Result<Publisher>,
    /// EXTINF of every segment: the keyframe interval, or the multiple of it that reaches the target of 2 s.
    segment_s: f64,
    target_duration: u64,
    media: Duration,
}

impl Fixture {
    fn new(clip: &'static str, segment_s: f64, target_duration: u64) -> Self {
        // Three segments show a beginning, a middle and an end.
        let media = Duration::from_secs_f64((3.0 * segment_s).max(10.0));
        Self { clip, publish: Publisher::of_clip, segment_s, target_duration, media }
    }

    /// Published by Enhanced RTMP.
    fn enhanced(clip: &'static str) -> Self {
        Self { publish: Publisher::of_enhanced_clip, ..Self::new(clip, 2.0, 4) }
    }
}

#[test]
fn keyframes_every_half_second_give_segments_of_two_seconds() -> Result<()> {
    conforms(&Fixture::new("gop-0.5", 2.0, 3))
}

#[test]
fn keyframes_every_two_seconds_give_segments_of_two_seconds() -> Result<()> {
    conforms(&Fixture::new("gop-2", 2.0, 4))
}

#[test]
fn keyframes_every_3_84_seconds_set_the_segments() -> Result<()> {
    conforms(&Fixture::new("gop-3.84", 3.84, 6))
}

/// What OBS sends when nobody asks for a keyframe interval. Two segments: with the wait for the first, 25 s of a clip of 30.
#[test]
fn keyframes_every_8_3_seconds_as_obs_sends_them_set_the_segments() -> Result<()> {
    conforms(&Fixture { media: Duration::from_secs_f64(17.2), ..Fixture::new("gop-8.3", 25.0 / 3.0, 11) })
}

/// Another server measured parts by presentation times, and cut them out of order.
#[test]
fn mistake_2_mistake_9_b_frames_keep_their_order_and_times() -> Result<()> {
    conforms(&Fixture::new("b-frames", 2.0, 4))
}

#[test]
fn film_rate_of_25() -> Result<()> {
    conforms(&Fixture::new("fps-25", 2.0, 4))
}

#[test]
fn broadcast_rate_of_29_97() -> Result<()> {
    conforms(&Fixture::new("fps-29.97", 2.002, 4))
}

#[test]
fn sixty_frames_a_second() -> Result<()> {
    conforms(&Fixture::new("fps-60", 2.0, 4))
}

/// A part ends early rather than run over its target for a frame that does not come.
#[test]
fn variable_frame_rate() -> Result<()> {
    conforms(&Fixture::new("vfr", 2.0, 4))
}

#[test]
fn mono_sound_at_44_1_khz() -> Result<()> {
    conforms(&Fixture::new("mono-44.1k", 2.0, 4))
}

#[test]
fn surround_sound_passes_through() -> Result<()> {
    conforms(&Fixture::new("surround", 2.0, 4))
}

#[test]
fn picture_without_sound() -> Result<()> {
    conforms(&Fixture::new("video-only", 2.0, 4))
}

/// Every frame of sound is a place to cut, so segments keep to 2 s within one frame of 21 ms.
#[test]
fn sound_without_picture() -> Result<()> {
    conforms(&Fixture::new("audio-only", 2.0, 3))
}

#[test]
fn hevc_with_b_frames_and_aac() -> Result<()> {
    conforms(&Fixture::enhanced("hevc"))
}

#[test]
fn av1_and_opus() -> Result<()> {
    conforms(&Fixture::enhanced("av1-opus"))
}

#[test]
fn avc_and_opus() -> Result<()> {
    conforms(&Fixture::enhanced("h264-opus"))
}

/// The first picture and the first sound are a stream like any other.
#[test]
fn the_first_of_several_tracks_of_each_kind() -> Result<()> {
    conforms(&Fixture::enhanced("multitrack"))
}

/// One server for all tests that run at the same time; the last of them ends it.
fn shared_server() -> Result<Arc<Tidecast>> {
    static SERVER: Mutex<Weak<Tidecast>> = Mutex::new(Weak::new());
    let mut shared = SERVER.lock().expect("starting a server does not panic");
    if let Some(server) = shared.upgrade() {
        return Ok(server);
    }
    let server = Arc::new(Tidecast::start(Profile::Default)?);
    *shared = Arc::downgrade(&server);
    Ok(server)
}

fn conforms(fixture: &Fixture) -> Result<()> {
    let server = shared_server()?;
    let stream = format!("live/{}", fixture.clip.replace('.', "_"));
    let publisher = (fixture.publish)(fixture.clip, &server.publish_url(&stream))?;
    let recording = follow(&server.viewer_http(), &stream, fixture.media)
        .with_context(|| format!("server log:\n{}", server.log().join("\n")))?;
    publisher.stop()?;

    let told: Vec<String> = recording.violations.iter().map(ToString::to_string).collect();
    ensure!(told.is_empty(), "{} violations:\n{}", told.len(), told.join("\n"));
    check_segments(fixture, &recording)?;
    check_media(fixture, &recording)
}

fn check_segments(fixture: &Fixture, recording: &Recording) -> Result<()> {
    // Sound alone is cut between frames of its own; beside a picture it follows within one of them.
    let tolerance =
        if recording.renditions.iter().any(|rendition| rendition.kind == Kind::Audio) { 0.024 } else { 0.0 };
    for rendition in &recording.renditions {
        let playlist = rendition.playlists.last().context("no playlist")?;
        let kind = rendition.kind.name();
        ensure!(
            playlist.target_duration == fixture.target_duration,
            "{kind}: TARGETDURATION is {}, not {}",
            playlist.target_duration,
            fixture.target_duration
        );
        let tolerance = if rendition.kind == Kind::Audio { tolerance } else { ROUNDING_S };
        for segment in &playlist.segments {
            let Some(duration) = segment.duration() else { continue };
            let off = (duration.as_secs_f64() - fixture.segment_s).abs();
            ensure!(
                off <= tolerance,
                "{kind}: segment {} lasts {duration:?}, not {}",
                segment.msn,
                fixture.segment_s
            );
        }
    }
    Ok(())
}

/// A rendition as a demuxer saw it, with the packets the publisher sent.
struct Probed<'a> {
    rendition: &'a RecordedRendition,
    packets: Vec<Packet>,
    sent: Vec<Packet>,
}

fn check_media(fixture: &Fixture, recording: &Recording) -> Result<()> {
    let (clip, folder) = (clip(fixture.clip)?, output_dir()?);
    let mut skews = Vec::new();
    for rendition in &recording.renditions {
        let kind = rendition.kind.name();
        let file = rendition.write_to(&folder, fixture.clip)?;
        let stream = if rendition.kind == Kind::Video { "v:0" } else { "a:0" };
        // The file of a rendition has one stream only, whatever its kind.
        let packets = ffprobe::packets(&file, stream)?;
        let probed = Probed { rendition, packets, sent: ffprobe::packets(&clip, stream)? };
        skews.push(
            probed.check().with_context(|| format!("{kind} of {}, see {}", fixture.clip, file.display()))?,
        );
    }
    // Between what was sent and what came out, picture and sound moved by the same.
    if let [video, audio] = skews.as_slice() {
        let skew = (video.1 - audio.0).abs().max((audio.1 - video.0).abs());
        ensure!(skew <= SKEW_MAX_S, "picture moved by {video:?} s and sound by {audio:?} s: {skew} s apart");
    }
    Ok(())
}

impl Probed<'_> {
    /// Returns the least and the greatest shift of a packet's time on its way through the server.
    fn check(&self) -> Result<(f64, f64)> {
        self.check_decoding_times()?;
        self.check_parts()?;
        self.check_dates()?;
        self.shifts()
    }

    fn check_decoding_times(&self) -> Result<()> {
        for (packet, next) in self.packets.iter().zip(self.packets.iter().skip(1)) {
            ensure!(next.dts > packet.dts, "DTS {} does not rise after {}", next.dts, packet.dts);
        }
        Ok(())
    }

    /// Every part holds what its playlist says it holds, and begins where the one before ends.
    fn check_parts(&self) -> Result<()> {
        let timescale = f64::from(fmp4::timescale(&self.rendition.init)?);
        let mut bytes_start = self.rendition.init.len();
        let mut time_start = None;
        for part in &self.rendition.parts {
            let place = format!("part {}.{}", part.msn, part.number);
            let bytes_end = bytes_start + part.bytes.len();
            let first =
                self.packets.iter().find(|packet| (bytes_start..bytes_end).contains(&packet.position));
            let is_key = first.with_context(|| format!("{place} is empty"))?.is_key;
            ensure!(part.number > 0 || is_key, "{place} begins a segment, but not with a keyframe");
            ensure!(
                part.independent == is_key,
                "{place}: INDEPENDENT {}, but key {is_key}",
                part.independent
            );
            bytes_start = bytes_end;

            let [fragment] = <[_; 1]>::try_from(fmp4::fragments(&part.bytes)?)
                .map_err(|fragments| anyhow!("{place} has {} fragments", fragments.len()))?;
            let time_expected = time_start.replace(fragment.end()).unwrap_or(fragment.base);
            ensure!(
                fragment.base == time_expected,
                "{place} begins at {}, not {time_expected}",
                fragment.base
            );
            let seconds = (fragment.end() - fragment.base) as f64 / timescale;
            let off = (seconds - part.duration.as_secs_f64()).abs();
            ensure!(off < ROUNDING_S, "{place} holds {seconds} s, its DURATION is {:?}", part.duration);
        }
        Ok(())
    }

    /// PROGRAM-DATE-TIME and PTS are one clock with one offset.
    fn check_dates(&self) -> Result<()> {
        let mut offsets = Vec::new();
        let mut start = self.rendition.init.len();
        for part in &self.rendition.parts {
            if part.number == 0 {
                let first =
                    self.packets.iter().find(|packet| packet.position >= start).context("an empty part")?;
                let date = part.program_date_time.context("no date")?;
                offsets.push(date.as_millisecond() as f64 / 1000.0 - first.pts);
            }
            start += part.bytes.len();
        }
        let (least, greatest) = bounds(&offsets).context("no segment")?;
        ensure!(greatest - least < 2.0 * ROUNDING_S, "dates and PTS differ by {least} to {greatest} s");
        Ok(())
    }

    /// Nothing was lost, added or reordered: the packets are a stretch of those that were sent.
    fn shifts(&self) -> Result<(f64, f64)> {
        let hashes =
            |packets: &[Packet]| packets.iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>();
        let (received, sent) = (hashes(&self.packets), hashes(&self.sent));
        let start = sent
            .windows(received.len())
            .position(|window| window == received)
            .context("the packets are not a stretch of those that were sent")?;
        let pairs = self.packets.iter().zip(self.sent.iter().skip(start));
        let shifts: Vec<f64> = pairs.map(|(received, sent)| received.pts - sent.pts).collect();
        bounds(&shifts).context("no packet")
    }
}

fn bounds(values: &[f64]) -> Option<(f64, f64)> {
    let first = *values.first()?;
    Some(
        values
            .iter()
            .fold((first, first), |(least, greatest), value| (value.min(least), value.max(greatest))),
    )
}
