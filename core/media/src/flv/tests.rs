use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::VideoCodec;

#[test]
fn h264_messages_are_taken_apart_without_copying() {
    let header = video(&[0x17, 0, 0, 0, 0, 1, 0x64]);
    assert_eq!(header, Ok(sequence_header(VideoCodec::H264, &[1, 0x64])));

    let unit = Bytes::from_static(&[0x27, 1, 0, 0, 0x21, 0, 0, 0, 1, 0x41]);
    let Ok(Video::Unit { codec, composition_offset_ms, data }) =
        Video::parse(unit.clone(), &mut Tracks::default())
    else {
        panic!()
    };
    assert_eq!((codec, composition_offset_ms), (VideoCodec::H264, 33));
    assert_eq!(data.as_ptr(), unit[5..].as_ptr(), "the payload is a slice of the message");

    // With and without the offset that means nothing here.
    assert_eq!(video(&[0x17, 2, 0, 0, 0]), Ok(Video::EndOfSequence));
    assert_eq!(video(&[0x17, 2]), Ok(Video::EndOfSequence));
}

/// Encoders that do not delay their output write offsets below zero for B-frames.
#[test]
fn composition_offsets_keep_their_sign() {
    let cases = [
        ([0x00, 0x00, 0x00], 0),
        ([0x00, 0x00, 0x42], 66),
        ([0x7F, 0xFF, 0xFF], 8_388_607),
        ([0xFF, 0xFF, 0xFF], -1),
        ([0xFF, 0xFF, 0xDF], -33),
        ([0x80, 0x00, 0x00], -8_388_608),
    ];
    for ([high, middle, low], expected) in cases {
        let Ok(Video::Unit { composition_offset_ms, .. }) = video(&[0x27, 1, high, middle, low, 0x41]) else {
            panic!("{expected}")
        };
        assert_eq!(composition_offset_ms, expected);
    }
}

#[test]
fn messages_with_nothing_in_them_are_no_errors() {
    assert_eq!(video(&[]), Ok(Video::Info));
    assert_eq!(video(&[0x57, 0x00]), Ok(Video::Info), "a server's seek marker");
    assert_eq!(video(&[0x27, 1, 0, 0, 0]), Ok(Video::Info), "a unit without a byte");
    assert_eq!(audio(&[]), Ok(Audio::Silence));
    assert_eq!(audio(&[0xAF, 1]), Ok(Audio::Silence));
}

#[test]
fn aac_messages_are_taken_apart() {
    let record = Bytes::from_static(&[0x12, 0x10]);
    assert_eq!(audio(&[0xAF, 0, 0x12, 0x10]), Ok(Audio::SequenceHeader { codec: AudioCodec::Aac, record }));
    // Mono encoders write 0xAE, others 0xA0: only the format counts.
    for first in [0xAF, 0xAE, 0xA0] {
        assert_eq!(audio(&[first, 1, 0x21, 0x1B]), Ok(frame(AudioCodec::Aac, &[0x21, 0x1B])));
    }
}

/// Encoders from before Enhanced RTMP put HEVC into AVC's layout, under a number that no standard has.
#[test]
fn hevc_comes_in_the_old_form_too() {
    let header = video(&[0x1C, 0, 0, 0, 0, 1, 2]);
    assert_eq!(header, Ok(sequence_header(VideoCodec::H265, &[1, 2])));
    assert_eq!(video(&[0x2C, 1, 0, 0, 0x21, 7]), Ok(video_unit(VideoCodec::H265, 33, &[7])));
}

#[test]
fn enhanced_video_is_taken_apart() {
    let cases: [(&[u8], Video); 10] = [
        (b"\x90hvc1\x01\x02", sequence_header(VideoCodec::H265, &[1, 2])),
        (b"\x90avc1\x01\x02", sequence_header(VideoCodec::H264, &[1, 2])),
        (b"\x90av01\x81\x02", sequence_header(VideoCodec::Av1, &[0x81, 2])),
        (b"\xA1hvc1\xFF\xFF\xDF\x07", video_unit(VideoCodec::H265, -33, &[7])),
        (b"\xA3hvc1\x07\x08", video_unit(VideoCodec::H265, 0, &[7, 8])),
        (b"\xA3avc1\x07\x08", video_unit(VideoCodec::H264, 0, &[7, 8])),
        // AV1 has no composition offset in either.
        (b"\xA1av01\x0A\x0B\x0C\x0D", video_unit(VideoCodec::Av1, 0, &[10, 11, 12, 13])),
        (b"\xA3av01\x0A", video_unit(VideoCodec::Av1, 0, &[10])),
        (b"\x92hvc1", Video::EndOfSequence),
        (b"\xA1hvc1\x00\x00\x00", Video::Info),
    ];
    for (body, expected) in cases {
        assert_eq!(video(body), Ok(expected), "{body:02x?}");
    }
    assert_eq!(video(b"\x94hvc1\x02\x00\x09colorInfo"), Ok(Video::Info), "metadata");
    assert_eq!(video(b"\xD1\x00"), Ok(Video::Info), "a command, which has no FourCC");
    assert_eq!(video(b"\x95av01\x80\x04\x81"), Err(TagError::TransportStream));
    assert_eq!(video(b"\x98hvc1"), Err(TagError::PacketType { kind: 8 }));
}

#[test]
fn enhanced_audio_is_taken_apart() {
    let opus_head =
        Audio::SequenceHeader { codec: AudioCodec::Opus, record: Bytes::from_static(b"OpusHead") };
    assert_eq!(audio(b"\x90OpusOpusHead"), Ok(opus_head));
    assert_eq!(audio(b"\x91Opus\xFC\x01"), Ok(frame(AudioCodec::Opus, &[0xFC, 1])));
    assert_eq!(audio(b"\x91mp4a\x21"), Ok(frame(AudioCodec::Aac, &[0x21])));
    for quiet in [b"\x92Opus".as_slice(), b"\x91Opus", b"\x94Opus\x00\x02"] {
        assert_eq!(audio(quiet), Ok(Audio::Silence), "{quiet:02x?}");
    }
    assert_eq!(audio(b"\x93Opus"), Err(TagError::PacketType { kind: 3 }));
}

/// Modifiers stand before the FourCC, one after the other; what they say is for nobody here, known or not.
#[test]
fn modifiers_are_passed_over() {
    let nanoseconds: &[u8] = &[0x97, 2, 0, 0, 9, 0x01]; // 9 ns, then coded frames
    let body = [nanoseconds, b"av01\x0A"].concat();
    assert_eq!(video(&body), Ok(video_unit(VideoCodec::Av1, 0, &[10])));

    let unknown = [&[0x97, 0, 0xFF, 0xF7][..], &[1, 1, 2, 0xF3], b"hvc1\x07"].concat();
    assert_eq!(video(&unknown), Ok(video_unit(VideoCodec::H265, 0, &[7])), "two of them");

    let long = [&[0x97, 0xFF, 0x01, 0x2B][..], &[5; 300], &[0x01], b"Opus\xFC"].concat();
    assert_eq!(audio(&long), Ok(frame(AudioCodec::Opus, &[0xFC])), "300 bytes of it");
    for length in 1..long.len() - 1 {
        assert!(matches!(audio(&long[..length]), Err(TagError::Truncated { .. })), "{length} bytes");
    }
}

#[test]
fn of_several_tracks_the_first_is_taken_and_the_others_are_noted() {
    let mut tracks = Tracks::default();
    let mut video = |body: &[u8]| Video::parse(Bytes::copy_from_slice(body), &mut tracks);
    // As OBS and ffmpeg send it: the first track as if it were alone, the others one by one.
    assert_eq!(video(b"\x90avc1\x01"), Ok(sequence_header(VideoCodec::H264, &[1])));
    assert_eq!(video(b"\x96\x00avc1\x01\x02"), Ok(Video::Info));
    assert_eq!(video(b"\xA6\x03vp09\x02\x07"), Ok(Video::Info), "no codec of another track is refused");
    assert_eq!(video(b"\xA3avc1\x07"), Ok(video_unit(VideoCodec::H264, 0, &[7])));
    assert_eq!(video(b"\xA6\x03avc1\x01\x07"), Ok(Video::Info));
    assert_eq!(video(b"\x27\x01\0\0\0\x41"), Ok(video_unit(VideoCodec::H264, 0, &[0x41])), "the old form");
    let noted: Vec<_> = tracks.passed_over().iter().map(ToString::to_string).collect();
    assert_eq!(noted, ["1 (H.264)", "2 (VP9)"]);
}

#[test]
fn several_tracks_in_one_message_are_told_apart() {
    let mut tracks = Tracks::default();
    let mut video = |body: &[u8]| Video::parse(Bytes::copy_from_slice(body), &mut tracks);
    let one_codec = b"\x96\x10hvc1\x05\0\0\x02\x01\x02\x06\0\0\x01\x03";
    assert_eq!(video(one_codec), Ok(sequence_header(VideoCodec::H265, &[1, 2])));
    let many_codecs = b"\xA6\x23av01\x07\0\0\x01\x0Ahvc1\x05\0\0\x02\x08\x09";
    assert_eq!(video(many_codecs), Ok(video_unit(VideoCodec::H265, 0, &[8, 9])));
    for length in 2..many_codecs.len() {
        // Cut between two tracks, it is a message with fewer.
        let cut = video(&many_codecs[..length]);
        assert_eq!(cut == Ok(Video::Info), length == 11, "{length} bytes: {cut:?}");
    }
    let noted: Vec<_> = tracks.passed_over().iter().map(ToString::to_string).collect();
    assert_eq!(noted, ["6 (HEVC)", "7 (AV1)"]);

    let mut tracks = Tracks::default();
    let many = Bytes::from_static(b"\x95\x10Opus\x00\0\0\x02\xFC\x01\x01\0\0\x01\xFC");
    let first = Audio::SequenceHeader { codec: AudioCodec::Opus, record: Bytes::from_static(b"\xFC\x01") };
    assert_eq!(Audio::parse(many, &mut tracks), Ok(first));
    assert_eq!(audio(b"\x95\x31Opus\x00"), Err(TagError::Layout { kind: 3 }));
}

#[test]
fn unsupported_codecs_are_named_as_a_broadcaster_knows_them() {
    let cases: [(&[u8], &str); 7] = [
        (&[0x22, 0x00, 0x00], "H.263 video is not supported; send H.264, HEVC or AV1"),
        (&[0x14, 0x00], "VP6 video is not supported; send H.264, HEVC or AV1"),
        (&[0x10, 0x00], "video codec 0 is not supported; send H.264, HEVC or AV1"),
        (b"\xA3vp09\x00", "VP9 video (Enhanced RTMP) is not supported; send H.264, HEVC or AV1"),
        (b"\x90vp08\x00", "VP8 video (Enhanced RTMP) is not supported; send H.264, HEVC or AV1"),
        (b"\x96\x01vp09\x00", "VP9 video (Enhanced RTMP) is not supported; send H.264, HEVC or AV1"),
        (b"\x90\x1B[2J", "\"\\x1b[2J\" video (Enhanced RTMP) is not supported; send H.264, HEVC or AV1"),
    ];
    for (body, message) in cases {
        assert_eq!(video(body).unwrap_err().to_string(), message);
    }
    let cases: [(&[u8], &str); 7] = [
        (&[0x2F, 0xFF], "MP3 audio is not supported; send AAC or Opus"),
        (&[0xB2, 0x00], "Speex audio is not supported; send AAC or Opus"),
        (&[0x3F, 0x00], "PCM audio is not supported; send AAC or Opus"),
        (b"\x91fLaC\x00", "FLAC audio (Enhanced RTMP) is not supported; send AAC or Opus"),
        (b"\x91ac-3\x00", "AC-3 audio (Enhanced RTMP) is not supported; send AAC or Opus"),
        (b"\x91ec-3\x00", "E-AC-3 audio (Enhanced RTMP) is not supported; send AAC or Opus"),
        (b"\x91.mp3\x00", "MP3 audio (Enhanced RTMP) is not supported; send AAC or Opus"),
    ];
    for (body, message) in cases {
        assert_eq!(audio(body).unwrap_err().to_string(), message);
    }
}

#[test]
fn messages_cut_in_their_header_are_refused() {
    for body in [&[0x17][..], &[0x17, 0], &[0x27, 1, 0, 0], b"\x90hvc"] {
        assert_eq!(video(body), Err(TagError::Truncated { bytes: body.len() }), "{body:02x?}");
    }
    for body in [&[0xAF][..], b"\x90Opu"] {
        assert_eq!(audio(body), Err(TagError::Truncated { bytes: body.len() }), "{body:02x?}");
    }
    assert_eq!(video(&[0x17, 3, 0, 0, 0, 0]), Err(TagError::PacketType { kind: 3 }));
    assert_eq!(audio(&[0xAF, 2, 0]), Err(TagError::PacketType { kind: 2 }));
}

proptest! {
    #[test]
    fn any_body_never_panics(body in any::<Vec<u8>>()) {
        if let Ok(Video::Unit { data, .. }) = video(&body) {
            prop_assert!(body.windows(data.len()).any(|window| window == data));
        }
        if let Ok(Audio::Frame { data, .. }) = audio(&body) {
            prop_assert!(body.windows(data.len()).any(|window| window == data));
        }
    }

    /// Multitrack and modifiers are likelier here than in random bytes; no publisher makes us note more tracks than
    /// there are ids.
    #[test]
    fn nearly_valid_bodies_never_panic(
        bodies in prop::collection::vec((0x90..0xA8_u8, prop::collection::vec(0..0x30_u8, 0..60)), 0..40),
    ) {
        let (mut video, mut audio) = (Tracks::default(), Tracks::default());
        for (first, rest) in bodies {
            let body = Bytes::from([&[first], rest.as_slice()].concat());
            let _ = Video::parse(body.clone(), &mut video);
            let _ = Audio::parse(body, &mut audio);
        }
        prop_assert!(video.passed_over().len() < 256 && audio.passed_over().len() < 256);
    }
}

fn sequence_header(codec: VideoCodec, record: &'static [u8]) -> Video {
    Video::SequenceHeader { codec, record: Bytes::from_static(record) }
}

fn video_unit(codec: VideoCodec, composition_offset_ms: i32, data: &'static [u8]) -> Video {
    Video::Unit { codec, composition_offset_ms, data: Bytes::from_static(data) }
}

fn frame(codec: AudioCodec, data: &'static [u8]) -> Audio {
    Audio::Frame { codec, data: Bytes::from_static(data) }
}

fn video(body: &[u8]) -> Result<Video, TagError> {
    Video::parse(Bytes::copy_from_slice(body), &mut Tracks::default())
}

fn audio(body: &[u8]) -> Result<Audio, TagError> {
    Audio::parse(Bytes::copy_from_slice(body), &mut Tracks::default())
}
