//! Sound from one codec into the other.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use media::CodecConfig;
use pipe::{AudioJob, AudioTarget, Codec, RungUnit, SourceUnit, ToEncoder};

use crate::child::{Outcome, command, encode, encode_with, with_plugins};
use crate::clip::{Clip, clip, ffmpeg};

const RATE: u32 = 48_000;

fn job(source: &Codec, timescale: u32, target: AudioTarget) -> AudioJob {
    AudioJob { source: source.clone(), timescale, target, rate: RATE, channels: 2, kbit_s: 96 }
}

fn transcode(clip: &Clip, target: AudioTarget) -> Outcome {
    let outcome = encode(job(&clip.codec, clip.timescale, target), clip.messages());
    outcome.assert_clean();
    outcome
}

fn config(outcome: &Outcome) -> CodecConfig {
    outcome.inits()[&0].config().expect("a configuration that media reads")
}

/// Each frame begins where the one before ends, and together they cover the source.
fn assert_covers(outcome: &Outcome, clip: &Clip) {
    let units = &outcome.units[&0];
    for pair in units.windows(2) {
        let end = pair[0].pts + i64::from(pair[0].duration);
        assert!(
            (end - pair[1].pts).abs() <= 1,
            "{} ends at {end}, the next begins at {}",
            pair[0].pts,
            pair[1].pts
        );
    }
    let (first, last) = (units.first().expect("some"), units.last().expect("some"));
    let scaled = |ticks: i64| ticks * i64::from(RATE) / i64::from(clip.timescale);
    let source = clip.units.last().expect("some");
    // A codec begins with what its decoder needs to swing in, and ends with a whole frame.
    let begin: Range<i64> = scaled(clip.units[0].pts) - 2_048..scaled(clip.units[0].pts) + 1;
    let end = scaled(source.pts + i64::from(source.duration));
    assert!(begin.contains(&first.pts), "begins at {}", first.pts);
    assert!((last.pts + i64::from(last.duration) - end).abs() < 2_048, "ends at {}", last.pts);
    assert!(units.iter().all(|unit| unit.key && unit.rung == 0));
}

#[test]
fn aac_becomes_opus() {
    for name in ["aac", "aac 44.1 mono", "aac 5.1"] {
        let clip = clip(name);
        let outcome = transcode(&clip, AudioTarget::Opus);
        assert_eq!(outcome.encoder.as_deref(), Some("opusenc"));
        assert_eq!(
            (config(&outcome).rfc6381().as_str(), config(&outcome).channels()),
            ("opus", Some(2)),
            "{name}"
        );
        assert_covers(&outcome, &clip);
        let progress = outcome.progress.expect("at the end");
        assert_eq!(progress.units_in, clip.units.len() as u64);
        assert_eq!(progress.units_out, outcome.units[&0].len() as u64);
    }
}

#[test]
fn opus_becomes_aac() {
    for name in ["opus", "opus 5.1"] {
        let clip = clip(name);
        let outcome = transcode(&clip, AudioTarget::Aac);
        let config = config(&outcome);
        assert_eq!((config.rfc6381().as_str(), config.channels()), ("mp4a.40.2", Some(2)), "{name}");
        assert_covers(&outcome, &clip);
    }
}

/// A hole in the sound stays a hole of the same length, and what follows is where it belongs.
#[test]
fn a_gap_in_the_sound_stays_where_it_is() {
    let clip = clip("aac");
    let source = clip.moved(|index| if index < 100 { 0 } else { 5 * i64::from(RATE) });
    let hole = source[99].pts + 1_024..source[100].pts;
    let outcome =
        encode(job(&clip.codec, clip.timescale, AudioTarget::Opus), source.into_iter().map(ToEncoder::Unit));
    outcome.assert_clean();
    let units = &outcome.units[&0];
    let inside = |unit: &&RungUnit| unit.pts > hole.start && unit.pts + 960 < hole.end - 960;
    assert_eq!(units.iter().filter(inside).count(), 0);
    let last = units.last().expect("some");
    let end = clip.units.last().expect("some").pts + 5 * i64::from(RATE) + 1_024;
    assert!((last.pts + 960 - end).abs() < 2_000, "{} for {end}", last.pts);
}

/// A clap is heard when it is seen: what codecs delay is taken off the stamps, both ways, within a millisecond.
#[test]
fn a_click_stays_at_its_time() {
    let clip = clip("click");
    let opus = transcode(&clip, AudioTarget::Opus);
    let source: Vec<SourceUnit> = opus.units[&0]
        .iter()
        .map(|unit| SourceUnit {
            pts: unit.pts,
            dts: unit.pts,
            duration: unit.duration,
            key: true,
            force: false,
            data: unit.data.clone(),
        })
        .collect();
    let opus_codec = opus.inits()[&0].clone();
    let before = click(clip.units.iter().map(|unit| (unit.pts, &unit.data)));
    let folder = tempfile::tempdir().expect("a folder");
    let without_libav = ["coreelements", "app", "opus", "audioconvert", "audioresample", "voaacenc"];
    for (mut command, encoder) in
        [(command(), "avenc_aac"), (with_plugins(folder.path(), &without_libav), "voaacenc")]
    {
        let job = job(&opus_codec, RATE, AudioTarget::Aac);
        let aac = encode_with(&mut command, job, source.iter().cloned().map(ToEncoder::Unit));
        aac.assert_clean();
        assert_eq!(aac.encoder.as_deref(), Some(encoder));
        let after = click(aac.units[&0].iter().map(|unit| (unit.pts, &unit.data)));
        assert!(
            (before - after).abs() <= 48,
            "{encoder}: the click moved from {before} to {after}, in samples"
        );
    }
}

/// Where the loudest sample of an AAC stream at 48 kHz stereo is, on its clock.
fn click<'a>(frames: impl Iterator<Item = (i64, &'a Bytes)>) -> i64 {
    let (mut adts, mut first) = (BytesMut::new(), None);
    for (pts, frame) in frames {
        first.get_or_insert(pts);
        // ISO/IEC 14496-3, §1.A.2.2: AAC-LC, 48 kHz, two channels.
        let length = frame.len() + 7;
        adts.put_slice(&[
            0xFF,
            0xF1,
            0x4C,
            0x80 | (length >> 11) as u8,
            (length >> 3) as u8,
            (length << 5) as u8 | 0x1F,
            0xFC,
        ]);
        adts.put_slice(frame);
    }
    let decode = ["-f", "aac", "-i", "pipe:0", "-f", "s16le", "-ac", "1", "-"];
    let samples = ffmpeg(&[], &decode, &adts);
    let loudness = |sample: &[u8]| i16::from_le_bytes([sample[0], sample[1]]).unsigned_abs();
    let loudest = samples.chunks_exact(2).enumerate().max_by_key(|(_, sample)| loudness(sample));
    let (index, sample) = loudest.expect("some samples");
    assert!(loudness(sample) > 1_000, "no click to be heard");
    first.expect("some frames") + index as i64
}
