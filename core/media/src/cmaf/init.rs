//! The init segment: `ftyp` and `moov`.
//!
//! Written by hand, because the publisher's configuration must come through byte for byte: what a stranger
//! wrote into reserved bits or behind the High-profile extension would not survive being parsed and rebuilt,
//! and the hash of these bytes names the segment.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::TRACK_ID;
use super::boxes::Writer;
use crate::codec::{CodecConfig, PICTURE_SIDE, PixelAspect, TrackKind, aac};

/// An init segment and the name its content gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    pub bytes: Bytes,
    /// First 64 bits of the SHA-256 of `bytes`, as 16 hexadecimal digits.
    pub hash: String,
}

/// Every init segment without its codec configuration, and some room.
const BYTES_WITHOUT_CONFIG: usize = 768;

/// The unity matrix of ISO/IEC 14496-12, §6.2.2.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];
/// 1.0 as 16.16 and as 8.8 fixed-point numbers.
const ONE_16_16: u32 = 0x1_0000;
const ONE_8_8: u16 = 0x100;
const LANGUAGE_UNDETERMINED: u16 = 0x55C4;
/// `data_reference_index` and `sample_description_index` both start at 1.
const FIRST: u32 = 1;

/// The init segment of a track with this configuration.
pub fn init_segment(codec: &CodecConfig) -> Init {
    let mut w = Writer::with_capacity(BYTES_WITHOUT_CONFIG);
    // No CMAF brand (ISO/IEC 23000-19): `cmfc` wants an edit list for B-frames, which media source extensions and
    // HLS players handle unalike, and `cmf2` negative composition offsets, for which libavformat delays the picture.
    w.boxed(b"ftyp", |w| {
        w.bytes(b"iso6");
        w.u32(0);
        w.bytes(b"iso6mp41");
    });
    w.boxed(b"moov", |w| {
        movie_header(w, codec);
        w.boxed(b"trak", |w| {
            track_header(w, codec);
            w.boxed(b"mdia", |w| media(w, codec));
        });
        w.boxed(b"mvex", |w| {
            w.full(b"trex", 0, 0, |w| {
                w.u32(TRACK_ID);
                w.u32(FIRST);
                w.zeros(12); // default duration, size, flags: each fragment brings its own
            });
        });
    });

    let bytes = Bytes::from(w.finish());
    let hash = Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Init { bytes, hash }
}

fn movie_header(w: &mut Writer, codec: &CodecConfig) {
    w.full(b"mvhd", 0, 0, |w| {
        w.zeros(8); // creation and modification time
        w.u32(codec.timescale().hertz());
        w.u32(0); // duration: not known
        w.u32(ONE_16_16); // rate
        w.u16(ONE_8_8); // volume
        w.zeros(10);
        MATRIX.into_iter().for_each(|value| w.u32(value));
        w.zeros(24);
        w.u32(TRACK_ID + 1); // next_track_ID
    });
}

fn track_header(w: &mut Writer, codec: &CodecConfig) {
    const ENABLED_IN_MOVIE_IN_PREVIEW: u32 = 0x7;
    w.full(b"tkhd", 0, ENABLED_IN_MOVIE_IN_PREVIEW, |w| {
        w.zeros(8); // creation and modification time
        w.u32(TRACK_ID);
        w.zeros(4);
        w.u32(0); // duration: not known
        w.zeros(8);
        w.zeros(4); // layer, alternate group
        w.u16(match codec.kind() {
            TrackKind::Video => 0,
            TrackKind::Audio => ONE_8_8,
        });
        w.zeros(2);
        MATRIX.into_iter().for_each(|value| w.u32(value));
        let (width, height) = presentation_size(codec);
        w.u32(width);
        w.u32(height);
    });
}

/// Size to show in square pixels, as 16.16 fixed-point numbers: the height as coded, the width stretched by the
/// pixel aspect ratio.
fn presentation_size(codec: &CodecConfig) -> (u32, u32) {
    let Some((width, height)) = codec.dimensions() else { return (0, 0) };
    let mut width = u64::from(width) << 16;
    if let Some(aspect) = pixel_aspect(codec) {
        width = width * u64::from(aspect.horizontal) / u64::from(aspect.vertical);
    }
    (u32::try_from(width).unwrap_or(u32::MAX), height << 16)
}

fn pixel_aspect(codec: &CodecConfig) -> Option<PixelAspect> {
    match codec {
        CodecConfig::H264(config) => config.pixel_aspect(),
        CodecConfig::H265(config) => config.pixel_aspect(),
        CodecConfig::Av1(_) | CodecConfig::Vp8(_) | CodecConfig::Vp9(_) => None,
        CodecConfig::Aac(_) | CodecConfig::Opus(_) => None,
    }
}

fn media(w: &mut Writer, codec: &CodecConfig) {
    w.full(b"mdhd", 0, 0, |w| {
        w.zeros(8); // creation and modification time
        w.u32(codec.timescale().hertz());
        w.u32(0); // duration: not known
        w.u16(LANGUAGE_UNDETERMINED);
        w.zeros(2);
    });
    w.full(b"hdlr", 0, 0, |w| {
        w.zeros(4);
        w.bytes(match codec.kind() {
            TrackKind::Video => b"vide",
            TrackKind::Audio => b"soun",
        });
        w.zeros(12);
        w.u8(0); // no name
    });
    w.boxed(b"minf", |w| {
        match codec.kind() {
            TrackKind::Video => w.full(b"vmhd", 0, 1, |w| w.zeros(8)),
            TrackKind::Audio => w.full(b"smhd", 0, 0, |w| w.zeros(4)),
        }
        w.boxed(b"dinf", |w| {
            w.full(b"dref", 0, 0, |w| {
                const SAME_FILE: u32 = 1;
                w.u32(1);
                w.full(b"url ", 0, SAME_FILE, |_| {});
            });
        });
        w.boxed(b"stbl", |w| {
            w.full(b"stsd", 0, 0, |w| {
                w.u32(1);
                match codec {
                    CodecConfig::H264(config) => visual(w, b"avcC", config.avcc(), codec),
                    CodecConfig::H265(config) => visual(w, b"hvcC", config.hvcc(), codec),
                    CodecConfig::Av1(config) => visual(w, b"av1C", config.av1c(), codec),
                    CodecConfig::Vp8(config) => visual(w, b"vpcC", config.vpcc(), codec),
                    CodecConfig::Vp9(config) => visual(w, b"vpcC", config.vpcc(), codec),
                    CodecConfig::Aac(config) => {
                        audible(w, b"mp4a", config.channels(), config.sample_rate(), |w| {
                            w.full(b"esds", 0, 0, |w| elementary_stream(w, config.asc()));
                        });
                    }
                    CodecConfig::Opus(config) => {
                        audible(w, b"Opus", config.channels(), config.timescale().hertz(), |w| {
                            w.boxed(b"dOps", |w| w.bytes(&config.specific_box()));
                        });
                    }
                }
            });
            // No samples here: they are all in fragments.
            w.full(b"stts", 0, 0, |w| w.u32(0));
            w.full(b"stsc", 0, 0, |w| w.u32(0));
            w.full(b"stsz", 0, 0, |w| w.zeros(8));
            w.full(b"stco", 0, 0, |w| w.u32(0));
        });
    });
}

/// A VisualSampleEntry (ISO/IEC 14496-12, §12.1.3) around the codec's record. `hvc1`, not `hev1`: parameter sets stand
/// in the record, and Apple's players take nothing else.
fn visual(w: &mut Writer, record_box: &[u8; 4], record: &[u8], codec: &CodecConfig) {
    const DPI_72: u32 = 0x48_0000;
    const COLOUR_WITHOUT_ALPHA: u16 = 0x18;
    const { assert!(*PICTURE_SIDE.end() <= u16::MAX as u32) };
    let (entry, _) = codec.record();
    let (width, height) = codec.dimensions().unwrap_or_default();
    w.boxed(entry, |w| {
        w.zeros(6);
        w.u16(FIRST as u16);
        w.zeros(16);
        w.u16(width as u16);
        w.u16(height as u16);
        w.u32(DPI_72);
        w.u32(DPI_72);
        w.zeros(4);
        w.u16(1); // frame_count
        w.zeros(32); // compressorname
        w.u16(COLOUR_WITHOUT_ALPHA);
        w.u16(u16::MAX);
        w.boxed(record_box, |w| w.bytes(record));
        if let Some(colour) = codec.colour() {
            w.boxed(b"colr", |w| {
                w.bytes(b"nclx");
                w.u16(u16::from(colour.primaries));
                w.u16(u16::from(colour.transfer));
                w.u16(u16::from(colour.matrix));
                w.u8(u8::from(colour.full_range) << 7);
            });
        }
        if let Some(aspect) = pixel_aspect(codec) {
            w.boxed(b"pasp", |w| {
                w.u32(u32::from(aspect.horizontal));
                w.u32(u32::from(aspect.vertical));
            });
        }
    });
}

/// An AudioSampleEntry (ISO/IEC 14496-12, §12.2.3) around the codec's box.
fn audible(
    w: &mut Writer,
    entry: &[u8; 4],
    channels: u8,
    sample_rate: u32,
    content: impl FnOnce(&mut Writer),
) {
    w.boxed(entry, |w| {
        w.zeros(6);
        w.u16(FIRST as u16);
        w.zeros(8);
        w.u16(u16::from(channels));
        w.u16(16); // samplesize, a fixed word
        w.zeros(4);
        // 16.16 has no room for 88.2 and 96 kHz; zero then means: see the configuration.
        w.u32(u16::try_from(sample_rate).map_or(0, |hertz| u32::from(hertz) << 16));
        content(w);
    });
}

/// ES_Descriptor with its DecoderConfigDescriptor, DecoderSpecificInfo and SLConfigDescriptor
/// (ISO/IEC 14496-1, §7.2.6).
fn elementary_stream(w: &mut Writer, asc: &[u8]) {
    const MPEG4_AUDIO: u8 = 0x40;
    /// `streamType` 5, audio, and a reserved bit.
    const AUDIO_STREAM: u8 = 5 << 2 | 1;
    /// SLConfigDescriptor `predefined` 2: as in MP4 files.
    const SL_FOR_MP4: u8 = 2;

    let specific_bytes = DESCRIPTOR_HEADER_BYTES + asc.len();
    let config_bytes = 13 + specific_bytes;
    let stream_bytes = 3 + DESCRIPTOR_HEADER_BYTES + config_bytes + DESCRIPTOR_HEADER_BYTES + 1;
    descriptor_header(w, 0x03, stream_bytes);
    w.zeros(3); // ES_ID: none in files; no flags
    descriptor_header(w, 0x04, config_bytes);
    w.u8(MPEG4_AUDIO);
    w.u8(AUDIO_STREAM);
    w.zeros(11); // buffer size, peak and average bit rate: not known
    descriptor_header(w, 0x05, asc.len());
    w.bytes(asc);
    descriptor_header(w, 0x06, 1);
    w.u8(SL_FOR_MP4);
}

const DESCRIPTOR_HEADER_BYTES: usize = 5;

/// A tag, and a size in four groups of seven bits (ISO/IEC 14496-1, §8.3.3).
fn descriptor_header(w: &mut Writer, tag: u8, bytes: usize) {
    const { assert!(aac::ASC_BYTES_MAX + 64 < 1 << 14) };
    w.u8(tag);
    w.bytes(&[0x80, 0x80, 0x80 | (bytes >> 7) as u8, bytes as u8 & 0x7F]);
}
