use proptest::prelude::*;

use super::*;
use crate::codec::CodecConfig;

/// `OpusHead` as libopus writes it for stereo, through ffmpeg 9.0.2: 312 samples of pre-skip, fed at 48 kHz.
const STEREO: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xBB\x00\x00\x00\x00\x00";
/// The same for 5.1: four streams, two of them stereo.
const SURROUND: &[u8] =
    b"OpusHead\x01\x06\x38\x01\x80\xBB\x00\x00\x00\x00\x01\x04\x02\x00\x04\x01\x02\x03\x05";

#[test]
fn headers_of_a_real_encoder_are_read() {
    let stereo = parse(STEREO).unwrap();
    assert_eq!((stereo.channels(), stereo.pre_skip()), (2, 312));
    assert_eq!(stereo.timescale().hertz(), 48_000);
    assert_eq!(stereo.head()[..], *STEREO);
    assert_eq!(parse(SURROUND).unwrap().channels(), 6);

    let trailing = [STEREO, b"behind"].concat();
    assert_eq!(parse(&trailing).unwrap(), stereo, "what follows the header is not kept");
}

/// Little-endian there, big-endian here, and another version.
#[test]
fn the_specific_box_is_the_header_turned_round() {
    let mut head = STEREO.to_vec();
    head[16..18].copy_from_slice(&(-256_i16).to_le_bytes());
    let dops = parse(&head).unwrap().specific_box();
    assert_eq!(dops[..], [0, 2, 0x01, 0x38, 0, 0, 0xBB, 0x80, 0xFF, 0x00, 0]);
    assert_eq!(parse(SURROUND).unwrap().specific_box()[10..], [1, 4, 2, 0, 4, 1, 2, 3, 5]);
}

#[test]
fn headers_that_break_the_rules_are_refused_by_name() {
    let changed = |head: &[u8], at: usize, byte: u8| {
        let mut head = head.to_vec();
        head[at] = byte;
        parse(&head).unwrap_err()
    };
    assert_eq!(changed(STEREO, 0, b'o'), ConfigError::Magic);
    assert_eq!(changed(STEREO, 8, 16), ConfigError::Version { version: 16 });
    assert_eq!(changed(STEREO, 9, 0), ConfigError::Channels { channels: 0 });
    assert_eq!(changed(STEREO, 9, 3), ConfigError::Channels { channels: 3 });
    assert_eq!(changed(STEREO, 18, 255), ConfigError::Family { family: 255 });
    assert_eq!(changed(SURROUND, 9, 9), ConfigError::Channels { channels: 9 });
    assert_eq!(changed(SURROUND, 19, 0), ConfigError::Mapping, "no streams");
    assert_eq!(changed(SURROUND, 20, 5), ConfigError::Mapping, "more coupled streams than streams");
    assert_eq!(changed(SURROUND, 21, 6), ConfigError::Mapping, "a channel of no stream");
    for length in 8..SURROUND.len() {
        assert_eq!(parse(&SURROUND[..length]), Err(ConfigError::Truncated), "{length} bytes");
    }
}

/// RFC 6716, table 2 and §3.2.
#[test]
fn packets_last_as_long_as_their_first_byte_says() {
    let toc = |config: u8, code: u8| config << 3 | code;
    for (config, samples_per_frame) in [
        (0, 480),
        (1, 960),
        (2, 1920),
        (3, 2880),
        (11, 2880),
        (12, 480),
        (13, 960),
        (15, 960),
        (16, 120),
        (17, 240),
        (18, 480),
        (31, 960),
    ] {
        assert_eq!(samples(&[toc(config, 0), 0]), Some(samples_per_frame), "{config}");
        assert_eq!(samples(&[toc(config, 1), 0]), Some(2 * samples_per_frame), "{config}");
        assert_eq!(samples(&[toc(config, 2), 0]), Some(2 * samples_per_frame), "{config}");
    }
    assert_eq!(samples(&[toc(31, 3), 6]), Some(5760));
    assert_eq!(samples(&[toc(16, 3), 48]), Some(5760));
    assert_eq!(samples(&[toc(31, 3), 7]), None, "longer than 120 ms");
    assert_eq!(samples(&[toc(31, 3), 0]), None, "no frames");
    assert_eq!(samples(&[toc(31, 3)]), None);
    assert_eq!(samples(&[]), None);
}

proptest! {
    #[test]
    fn any_header_never_panics(rest in any::<Vec<u8>>()) {
        if let Ok(config) = parse(&[MAGIC, rest.as_slice()].concat()) {
            prop_assert!((1..=8).contains(&config.channels()));
            prop_assert!(config.head().len() <= HEAD_BYTES_MAX);
            config.pre_skip();
            crate::cmaf::init_segment(&CodecConfig::Opus(config));
        }
    }

    #[test]
    fn any_packet_lasts_no_longer_than_the_longest(packet in any::<Vec<u8>>()) {
        prop_assert!(samples(&packet).is_none_or(|samples| (1..=SAMPLES_MAX).contains(&samples)));
    }
}

fn parse(head: &[u8]) -> Result<Config, ConfigError> {
    Config::parse(Bytes::copy_from_slice(head))
}
