use proptest::prelude::*;

use super::*;
use crate::codec::CodecConfig;

/// (bytes, what, CODECS, core rate, output rate, channels)
type Sent = (&'static [u8], &'static str, &'static str, u32, u32, u8);

/// What ffmpeg 5.1's AAC encoder writes into FLV: five bytes, of which the last three say "no SBR".
const SENT: [Sent; 8] = [
    (&[0x12, 0x08, 0x56, 0xE5, 0x00], "44.1 kHz mono", "mp4a.40.2", 44_100, 44_100, 1),
    (&[0x11, 0x90, 0x56, 0xE5, 0x00], "48 kHz stereo", "mp4a.40.2", 48_000, 48_000, 2),
    (&[0x10, 0x10, 0x56, 0xE5, 0x00], "96 kHz stereo", "mp4a.40.2", 96_000, 96_000, 2),
    (&[0x12, 0x20, 0x56, 0xE5, 0x00], "44.1 kHz 4.0", "mp4a.40.2", 44_100, 44_100, 4),
    (&[0x11, 0xB0, 0x56, 0xE5, 0x00], "48 kHz 5.1", "mp4a.40.2", 48_000, 48_000, 6),
    (&[0x11, 0xB8, 0x56, 0xE5, 0x00], "48 kHz 7.1", "mp4a.40.2", 48_000, 48_000, 8),
    (FIVE_ON_THE_SIDE, "48 kHz 5.0(side)", "mp4a.40.2", 48_000, 48_000, 5),
    (OCTAGONAL, "48 kHz octagonal", "mp4a.40.2", 48_000, 48_000, 8),
];

/// Layouts without a number bring a program_config_element, with the encoder's name as its comment.
const FIVE_ON_THE_SIDE: &[u8] = b"\x11\x80\x04\xC8\x40\x00\x20\x08\x80\x0DLavc59.37.100V\xE5\x00";
const OCTAGONAL: &[u8] = b"\x11\x80\x04\xC8\x48\x00\x20\x08\xC8\x20\x0DLavc59.37.100V\xE5\x00";

#[test]
fn configurations_of_a_real_encoder_are_read_as_it_was_told() {
    for (asc, what, rfc6381, core, output, channels) in SENT {
        let config = parse(asc).expect(what);
        assert_eq!(config.rfc6381(), rfc6381, "{what}");
        assert_eq!((config.sample_rate(), config.output_rate()), (core, output), "{what}");
        assert_eq!((config.channels(), config.samples_per_frame()), (channels, 1024), "{what}");
        assert_eq!(config.timescale(), Timescale::from_hertz(core).unwrap(), "{what}");
        assert_eq!(config.asc()[..], *asc, "{what}");
    }
    let short = parse(&[0x12, 0x10]).unwrap();
    assert_eq!((short.sample_rate(), short.channels()), (44_100, 2));
}

/// HE-AAC's clock is that of its core: 1024 samples a frame at half the rate one hears.
#[test]
fn he_aac_counts_at_the_core_rate() {
    let cases: [(&[u8], &str, u32, u32, u8); 6] = [
        // Hierarchical: object type 5, 24 kHz core, stereo, 48 kHz, then AAC-LC.
        (&[0x2B, 0x11, 0x88, 0x00], "mp4a.40.5", 24_000, 48_000, 2),
        // Object type 29, 22.05 kHz mono core, 44.1 kHz, then AAC-LC.
        (&[0xEB, 0x8A, 0x08, 0x00], "mp4a.40.29", 22_050, 44_100, 2),
        // Appended for those who know: sync word, object type 5, SBR at 48 kHz; without and with stereo.
        (&[0x13, 0x10, 0x56, 0xE5, 0x98], "mp4a.40.5", 24_000, 48_000, 2),
        (&[0x13, 0x08, 0x56, 0xE5, 0x9D, 0x48, 0x80], "mp4a.40.29", 24_000, 48_000, 2),
        (&[0x13, 0x08, 0x56, 0xE5, 0x9D, 0x48, 0x00], "mp4a.40.5", 24_000, 48_000, 1),
        // Not said at all: an AAC-LC decoder hears 24 kHz, an HE-AAC decoder finds out by itself.
        (&[0x13, 0x10], "mp4a.40.2", 24_000, 24_000, 2),
    ];
    for (asc, rfc6381, core, output, channels) in cases {
        let config = parse(asc).unwrap();
        assert_eq!(config.rfc6381(), rfc6381, "{asc:02x?}");
        assert_eq!((config.sample_rate(), config.output_rate()), (core, output), "{asc:02x?}");
        assert_eq!(config.timescale().hertz(), core, "{asc:02x?}");
        assert_eq!(config.channels(), channels, "{asc:02x?}");
    }
}

#[test]
fn frames_of_960_samples_and_rates_without_an_index_are_read() {
    assert_eq!(parse(&[0x11, 0x94]).unwrap().samples_per_frame(), 960);
    // Object type 2, index 15, then 0x00BB80 = 48,000 in 24 bits, stereo.
    let explicit = parse(&[0x17, 0x80, 0x5D, 0xC0, 0x10]).unwrap();
    assert_eq!((explicit.sample_rate(), explicit.channels()), (48_000, 2));
}

#[test]
fn what_players_do_not_play_is_refused_in_words() {
    let message = |asc: &[u8]| parse(asc).unwrap_err().to_string();
    assert!(message(&[0x09, 0x90]).starts_with("AAC Main audio is not supported"));
    // The escape: 31, then 7 and 10 above 32.
    assert!(message(&[0xF8, 0xE6, 0x40]).starts_with("AAC-ELD audio"));
    assert!(message(&[0xF9, 0x46, 0x40]).starts_with("xHE-AAC audio"));
    assert!(message(&[0xFB, 0xE6, 0x40]).starts_with("MPEG-4 object type 63 audio"));

    assert_eq!(parse(&[0x16, 0x90]), Err(ConfigError::SampleRateIndex { index: 13 }));
    assert_eq!(parse(&[0x17, 0x80, 0x00, 0x00, 0x10]), Err(ConfigError::SampleRate { hertz: 0 }));
    assert_eq!(parse(&[0x17, 0xFF, 0xFF, 0xFF, 0x90]), Err(ConfigError::SampleRate { hertz: 0xFF_FFFF }));
    assert_eq!(parse(&[0x11, 0xD8]), Err(ConfigError::ChannelLayout { layout: 11 }));
    // A program_config_element without a channel, and one with eight pairs.
    assert_eq!(parse(&[0x11, 0x80, 0x04, 0xC0, 0, 0, 0, 0, 0]), Err(ConfigError::Channels { channels: 0 }));
    let pairs = [0x11, 0x80, 0x04, 0xE0, 0x00, 0x00, 0x21, 0x08, 0x42, 0x10, 0x84, 0x00, 0x00];
    assert_eq!(parse(&pairs), Err(ConfigError::Channels { channels: 16 }));
    let bytes = ASC_BYTES_MAX + 1;
    assert_eq!(parse(&vec![0x11; bytes]), Err(ConfigError::TooLong { bytes }));
}

#[test]
fn a_configuration_cut_anywhere_is_refused_or_says_the_same() {
    for (asc, what, _, core, _, channels) in SENT {
        for length in 0..asc.len() {
            match parse(&asc[..length]) {
                Ok(config) => {
                    assert!(length >= asc.len() - 3, "{what}: {length} bytes");
                    assert_eq!((config.sample_rate(), config.channels()), (core, channels), "{what}");
                }
                Err(error) => assert_eq!(error, ConfigError::Truncated, "{what}: {length} bytes"),
            }
        }
    }
}

fn check_any(asc: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(config) = parse(asc) {
        prop_assert!(
            SAMPLE_RATE.contains(&config.sample_rate()) && SAMPLE_RATE.contains(&config.output_rate())
        );
        prop_assert!((1..=8).contains(&config.channels()));
        crate::cmaf::init_segment(&CodecConfig::Aac(config));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_never_panic(asc in any::<Vec<u8>>()) {
        check_any(&asc)?;
    }

    /// Random bytes rarely get past the object type; these do.
    #[test]
    fn any_bytes_behind_a_valid_start_never_panic(start in 0..SENT.len(), rest in any::<Vec<u8>>()) {
        check_any(&[&SENT[start].0[..2], &rest].concat())?;
    }
}

fn parse(asc: &[u8]) -> Result<Config, ConfigError> {
    Config::parse(Bytes::copy_from_slice(asc))
}
