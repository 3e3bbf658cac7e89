use bytes::Bytes;
use proptest::prelude::*;

use super::*;

#[test]
fn h264_messages_are_taken_apart_without_copying() {
    let header = Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 0x64]);
    assert_eq!(Video::parse(header.clone()), Ok(Video::SequenceHeader(Bytes::from_static(&[1, 0x64]))));

    let unit = Bytes::from_static(&[0x27, 1, 0, 0, 0x21, 0, 0, 0, 1, 0x41]);
    let Ok(Video::Unit { composition_offset_ms, data }) = Video::parse(unit.clone()) else { panic!() };
    assert_eq!(composition_offset_ms, 33);
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
    assert_eq!(audio(&[0xAF, 0, 0x12, 0x10]), Ok(Audio::SequenceHeader(Bytes::from_static(&[0x12, 0x10]))));
    // Mono encoders write 0xAE, others 0xA0: only the format counts.
    for first in [0xAF, 0xAE, 0xA0] {
        assert_eq!(audio(&[first, 1, 0x21, 0x1B]), Ok(Audio::Frame(Bytes::from_static(&[0x21, 0x1B]))));
    }
}

#[test]
fn unsupported_codecs_are_named_as_a_broadcaster_knows_them() {
    let cases: [(&[u8], &str); 9] = [
        (&[0x22, 0x00, 0x00], "H.263 video is not supported; send H.264"),
        (&[0x14, 0x00], "VP6 video is not supported; send H.264"),
        (&[0x1C, 0x00, 0, 0, 0], "HEVC video (codec 12) is not supported; send H.264"),
        (&[0x10, 0x00], "video codec 0 is not supported; send H.264"),
        (b"\x90hvc1\x01", "HEVC video (Enhanced RTMP) is not supported; send H.264"),
        (b"\x91av01\x0A", "AV1 video (Enhanced RTMP) is not supported; send H.264"),
        (b"\xA3vp09\x00", "VP9 video (Enhanced RTMP) is not supported; send H.264"),
        (b"\x96\x01avc1", "multitrack video (Enhanced RTMP) is not supported; send H.264"),
        (b"\x90\x1B[2J", "\"\\x1b[2J\" video (Enhanced RTMP) is not supported; send H.264"),
    ];
    for (body, message) in cases {
        assert_eq!(video(body).unwrap_err().to_string(), message);
    }
    let cases: [(&[u8], &str); 6] = [
        (&[0x2F, 0xFF], "MP3 audio is not supported; send AAC"),
        (&[0xB2, 0x00], "Speex audio is not supported; send AAC"),
        (&[0x3F, 0x00], "PCM audio is not supported; send AAC"),
        (b"\x90Opus\x00", "Opus audio (Enhanced RTMP) is not supported; send AAC"),
        (b"\x91fLaC\x00", "FLAC audio (Enhanced RTMP) is not supported; send AAC"),
        (b"\x95\x00mp4a", "multitrack audio (Enhanced RTMP) is not supported; send AAC"),
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
            prop_assert_eq!(&data[..], &body[5..]);
        }
        if let Ok(Audio::Frame(data)) = audio(&body) {
            prop_assert_eq!(&data[..], &body[2..]);
        }
    }
}

fn video(body: &[u8]) -> Result<Video, TagError> {
    Video::parse(Bytes::copy_from_slice(body))
}

fn audio(body: &[u8]) -> Result<Audio, TagError> {
    Audio::parse(Bytes::copy_from_slice(body))
}
