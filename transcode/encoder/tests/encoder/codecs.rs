//! Sources other than plain H.264.

use media::codec::{vp8, vp9};
use pipe::{Codec, SourceUnit, ToEncoder, VideoJob};

use crate::child::{encode, ladder, lone_rung};
use crate::clip::{Clip, clip, ffmpeg, sorted};

fn assert_transcodes(clip: &Clip) {
    let outcome = encode(ladder(clip), clip.messages());
    outcome.assert_clean();
    for (rung, config) in outcome.inits() {
        assert_eq!(outcome.stamps(rung), clip.stamps(), "rung {rung}");
        assert_eq!(outcome.keys(rung), clip.keys(), "rung {rung}");
        assert!(config.config().is_ok_and(|config| config.rfc6381().starts_with("avc1.64")), "8 bit, 4:2:0");
    }
}

#[test]
fn hevc_with_b_frames() {
    assert_transcodes(&clip("hevc"));
}

#[test]
fn av1() {
    assert_transcodes(&clip("av1"));
}

#[test]
fn h264_with_ten_bits_and_more_colour() {
    assert_transcodes(&clip("4:2:2 10 bit"));
}

/// Larger rungs than the source are asked for by nobody, but a source may shrink.
#[test]
fn a_picture_of_one_macroblock() {
    assert_transcodes(&clip("tiny"));
}

#[test]
fn vp8_and_vp9() {
    for (sample_entry, encoder) in [(*b"vp08", "libvpx"), (*b"vp09", "libvpx-vp9")] {
        let source = "testsrc2=size=320x180:rate=30:duration=2";
        let arguments =
            ["-c:v", encoder, "-deadline", "realtime", "-cpu-used", "8", "-g", "30", "-f", "ivf", "-"];
        let units = ivf(&ffmpeg(&[source], &arguments, &[]));
        let codec = Codec { sample_entry, record: record(sample_entry, &units[0].data) };
        let job = VideoJob { source: codec, ..lone_rung(&clip("plain")) };
        let stamps = sorted(units.iter().map(|unit| unit.pts));
        let outcome = encode(job, units.into_iter().map(ToEncoder::Unit));
        outcome.assert_clean();
        assert_eq!(outcome.stamps(9), stamps, "{encoder}");
        assert_eq!(outcome.keys(9), [stamps[0], stamps[30]], "{encoder}");
    }
}

/// As ingest makes it of a keyframe.
fn record(sample_entry: [u8; 4], keyframe: &[u8]) -> bytes::Bytes {
    match &sample_entry {
        b"vp08" => vp8::Config::of_keyframe(keyframe).expect("it begins with a keyframe").record().clone(),
        _ => vp9::Config::of_keyframe(keyframe).expect("it begins with a keyframe").record().clone(),
    }
}

/// Frames behind a length and a number, after 32 bytes; keys as they were asked for.
fn ivf(file: &[u8]) -> Vec<SourceUnit> {
    let (mut units, mut at) = (Vec::new(), 32);
    while let Some(size) = file.get(at..at + 4) {
        let size = u32::from_le_bytes(size.try_into().expect("four")) as usize;
        let pts = units.len() as i64 * 3_000;
        let key = units.len() % 30 == 0;
        let data = bytes::Bytes::copy_from_slice(&file[at + 12..at + 12 + size]);
        units.push(SourceUnit { pts, dts: pts, duration: 3_000, key, force: key, data });
        at += 12 + size;
    }
    units
}
