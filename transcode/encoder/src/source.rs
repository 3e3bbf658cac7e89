//! What comes in: its caps, who parses and decodes it, and what must be done to its units before.

use bytes::{Bytes, BytesMut};
use gstreamer as gst;
use media::CodecConfig;
use media::codec::captions;
use pipe::{Codec, Fault, FaultClass};

use crate::element::{self, package_of};
use crate::nal;

/// A codec with its decoder configuration.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    H264(media::codec::h264::Config),
    H265(media::codec::h265::Config),
    Av1(media::codec::av1::Config),
    Vp8,
    Vp9,
    Aac(media::codec::aac::Config),
    Opus(media::codec::opus::Config),
}

/// An element and what to set on it. One thread each: a decoder that works on several pictures at once holds them
/// back, and jobs run side by side anyway.
type Candidate = (&'static str, &'static [(&'static str, &'static str)]);

const ONE_THREAD: &[(&str, &str)] = &[("max-threads", "1")];

impl Source {
    /// # Errors
    /// [`FaultClass::Protocol`]: the worker must not have let it through.
    pub(crate) fn new(codec: &Codec) -> Result<Self, Fault> {
        let config = codec.config().map_err(|error| Fault {
            class: FaultClass::Protocol,
            text: format!("decoder configuration {}: {error}", codec.sample_entry.escape_ascii()),
        })?;
        Ok(match config {
            CodecConfig::H264(config) => Self::H264(config),
            CodecConfig::H265(config) => Self::H265(config),
            CodecConfig::Av1(config) => Self::Av1(config),
            CodecConfig::Vp8(_) => Self::Vp8,
            CodecConfig::Vp9(_) => Self::Vp9,
            CodecConfig::Aac(config) => Self::Aac(config),
            CodecConfig::Opus(config) => Self::Opus(config),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::H264(_) => "H.264",
            Self::H265(_) => "HEVC",
            Self::Av1(_) => "AV1",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::Aac(_) => "AAC",
            Self::Opus(_) => "Opus",
        }
    }

    pub(crate) fn is_video(&self) -> bool {
        !matches!(self, Self::Aac(_) | Self::Opus(_))
    }

    pub(crate) fn is_same_codec(&self, other: &Self) -> bool {
        self.name() == other.name()
    }

    pub(crate) fn caps(&self) -> gst::Caps {
        let codec_data = |record: &Bytes| gst::Buffer::from_slice(record.clone());
        match self {
            Self::H264(config) => gst::Caps::builder("video/x-h264")
                .field("stream-format", "avc")
                .field("alignment", "au")
                .field("codec_data", codec_data(config.avcc()))
                .build(),
            Self::H265(config) => gst::Caps::builder("video/x-h265")
                .field("stream-format", "hvc1")
                .field("alignment", "au")
                .field("codec_data", codec_data(config.hvcc()))
                .build(),
            Self::Av1(_) => gst::Caps::builder("video/x-av1")
                .field("stream-format", "obu-stream")
                .field("alignment", "tu")
                .build(),
            Self::Vp8 => gst::Caps::new_empty_simple("video/x-vp8"),
            Self::Vp9 => gst::Caps::new_empty_simple("video/x-vp9"),
            Self::Aac(config) => gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .field("rate", config.output_rate() as i32)
                .field("channels", i32::from(config.channels()))
                .field("codec_data", codec_data(config.asc()))
                .build(),
            Self::Opus(config) => opus_caps(config),
        }
    }

    pub(crate) fn parser(&self) -> Option<&'static str> {
        match self {
            Self::H264(_) => Some("h264parse"),
            Self::H265(_) => Some("h265parse"),
            Self::Av1(_) => Some("av1parse"),
            Self::Vp8 | Self::Vp9 | Self::Aac(_) | Self::Opus(_) => None,
        }
    }

    /// The decoders we know to be right, the best first. Not openh264dec, which stops without a word at the first
    /// damaged unit.
    fn candidates(&self) -> &'static [Candidate] {
        match self {
            Self::H264(_) => &[("avdec_h264", ONE_THREAD)],
            Self::H265(_) => &[("avdec_h265", ONE_THREAD)],
            Self::Av1(_) => &[
                ("dav1ddec", &[("n-threads", "1"), ("max-frame-delay", "1")]),
                ("avdec_av1", ONE_THREAD),
                ("av1dec", &[]),
            ],
            Self::Vp8 => &[("vp8dec", &[("threads", "1")]), ("avdec_vp8", ONE_THREAD)],
            Self::Vp9 => &[("vp9dec", &[("threads", "1")]), ("avdec_vp9", ONE_THREAD)],
            Self::Aac(_) => &[("avdec_aac", &[]), ("faad", &[])],
            Self::Opus(_) => &[("opusdec", &[])],
        }
    }

    /// # Errors
    /// [`FaultClass::MissingDecoder`], in words that say what to install.
    pub(crate) fn decoder(&self) -> Result<gst::Element, Fault> {
        let candidates = self.candidates();
        let Some((name, settings)) = candidates.iter().find(|(name, _)| element::exists(name)) else {
            let names: Vec<_> = candidates.iter().map(|(name, _)| *name).collect();
            let package = candidates.last().map_or("", |(name, _)| package_of(name));
            return Err(Fault {
                class: FaultClass::MissingDecoder,
                text: format!("no decoder for {}: there is no {}{package}", self.name(), names.join(" or ")),
            });
        };
        let decoder = element::make(name)?;
        for (property, value) in *settings {
            element::set(&decoder, property, value);
        }
        // There is no clock to be late for.
        element::set(&decoder, "qos", "false");
        Ok(decoder)
    }

    /// `unit` as the caps promise it.
    pub(crate) fn unit(&self, unit: Bytes, key: bool) -> Bytes {
        match self {
            // A publisher may leave the sequence header to the configuration record (AV1 in ISOBMFF, §2.4).
            Self::Av1(config) if key => match config.av1c().get(AV1C_HEADER_BYTES..) {
                Some(sequence_header) => {
                    let mut whole = BytesMut::with_capacity(sequence_header.len() + unit.len());
                    whole.extend_from_slice(sequence_header);
                    whole.extend_from_slice(&unit);
                    whole.freeze()
                }
                None => unit,
            },
            _ => unit,
        }
    }

    /// The captions in `unit`, as a SEI NAL unit of H.264.
    pub(crate) fn captions(&self, unit: &[u8]) -> Option<Bytes> {
        match self {
            Self::H264(config) => nal::captions(&captions::in_h264(unit, config.nal_length_bytes())),
            Self::H265(config) => nal::captions(&captions::in_h265(unit, config.nal_length_bytes())),
            _ => None,
        }
    }
}

/// Of an `av1C`, before its OBUs.
const AV1C_HEADER_BYTES: usize = 4;

/// Without the header itself: a decoder that knew the pre-skip would cut it off a stream that it joins in the middle.
fn opus_caps(config: &media::codec::opus::Config) -> gst::Caps {
    let caps = gst::Caps::builder("audio/x-opus")
        .field("rate", 48_000)
        .field("channels", i32::from(config.channels()));
    // Family 1 has a table behind the fixed fields (RFC 7845, §5.1.1).
    match config.head().get(18..) {
        Some([family, streams, coupled, mapping @ ..]) if *family > 0 => caps
            .field("channel-mapping-family", i32::from(*family))
            .field("stream-count", i32::from(*streams))
            .field("coupled-count", i32::from(*coupled))
            .field("channel-mapping", gst::Array::new(mapping.iter().map(|&channel| i32::from(channel))))
            .build(),
        _ => caps.field("channel-mapping-family", 0).build(),
    }
}
