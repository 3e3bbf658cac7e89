//! What of a media section we can use: payload types, header extensions, feedback.

use super::attributes::Attributes;
use super::h264::ProfileLevelId;
use crate::packetize::Format;

/// IDs of header extensions in their short form, the only one we write (RFC 8285, §4.2).
const EXTENSION_IDS: std::ops::RangeInclusive<u8> = 1..=14;

/// IDs of the RTP header extensions that we may write, as far as they were offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extensions {
    pub transport_cc: Option<u8>,
    pub abs_send_time: Option<u8>,
    pub playout_delay: Option<u8>,
    pub mid: Option<u8>,
}

impl Extensions {
    const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
    const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

    /// With their names.
    pub(super) fn offered(&self) -> impl Iterator<Item = (u8, &'static str)> {
        [
            (self.transport_cc, Self::TRANSPORT_CC),
            (self.abs_send_time, Self::ABS_SEND_TIME),
            (self.playout_delay, Self::PLAYOUT_DELAY),
            (self.mid, Self::MID),
        ]
        .into_iter()
        .filter_map(|(id, name)| Some((id?, name)))
    }

    /// `value` of `a=extmap` (RFC 8285, §5).
    pub(super) fn note(&mut self, value: &str) {
        let mut words = value.split_whitespace();
        let (Some(id), Some(name)) = (words.next(), words.next()) else { return };
        // A direction may follow the number.
        let id = id.split('/').next().and_then(|id| id.parse().ok()).filter(|id| EXTENSION_IDS.contains(id));
        match name {
            Self::TRANSPORT_CC => self.transport_cc = id,
            Self::ABS_SEND_TIME => self.abs_send_time = id,
            Self::PLAYOUT_DELAY => self.playout_delay = id,
            Self::MID => self.mid = id,
            _ => {}
        }
    }
}

/// What the viewer will tell us about what it receives (`a=rtcp-fb`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
    pub remb: bool,
}

impl Feedback {
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (self.nack, "nack"),
            (self.pli, "nack pli"),
            (self.fir, "ccm fir"),
            (self.transport_cc, "transport-cc"),
            (self.remb, "goog-remb"),
        ]
        .into_iter()
        .filter_map(|(is_offered, name)| is_offered.then_some(name))
    }

    fn note(&mut self, name: &str) {
        match name {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "transport-cc" => self.transport_cc = true,
            "goog-remb" => self.remb = true,
            _ => {}
        }
    }
}

/// A payload type that the viewer can take and we can send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codec {
    pub(super) payload_type: u8,
    pub(super) rtx: Option<u8>,
    pub(super) feedback: Feedback,
    pub(super) kind: CodecKind,
    /// As the viewer wrote them.
    pub(super) parameters: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CodecKind {
    /// With packetization-mode=1: in mode 0 no picture may be larger than a packet.
    H264 {
        profile_level_id: ProfileLevelId,
        is_level_asymmetric: bool,
    },
    /// Profile 0 of each, which is 8 bits and 4:2:0 (of AV1 8 or 10).
    Av1,
    Vp8,
    Vp9,
    Opus {
        is_stereo: bool,
    },
}

impl CodecKind {
    pub(super) fn is_video(&self) -> bool {
        self.format() != Format::Opus
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Self::H264 { .. } => Format::H264,
            Self::Av1 => Format::Av1,
            Self::Vp8 => Format::Vp8,
            Self::Vp9 => Format::Vp9,
            Self::Opus { .. } => Format::Opus,
        }
    }
}

impl Codec {
    /// The payload type `format`, if we can send it.
    pub(super) fn read(format: &str, media: &str, attributes: Attributes<'_>) -> Option<Self> {
        // Others cannot be told from RTCP (RFC 5761, §4).
        let payload_type: u8 =
            format.parse().ok().filter(|number| !(64..96).contains(number) && *number < 128)?;
        let parameters = attributes.of_format("fmtp", format).unwrap_or_default();
        let map = attributes.of_format("rtpmap", format)?.to_ascii_lowercase();
        let kind = match (media, map.as_str()) {
            ("video", "h264/90000") => {
                if parameter(parameters, "packetization-mode") != Some("1") {
                    return None;
                }
                let profile_level_id = parameter(parameters, "profile-level-id");
                CodecKind::H264 {
                    profile_level_id: profile_level_id
                        .map_or(Some(ProfileLevelId::DEFAULT), |id| id.parse().ok())?,
                    is_level_asymmetric: parameter(parameters, "level-asymmetry-allowed") == Some("1"),
                }
            }
            // RTP Payload Format For AV1, §7.2.1; RFC 9628, §7.1.
            ("video", "av1/90000") if matches!(parameter(parameters, "profile"), None | Some("0")) => {
                CodecKind::Av1
            }
            ("video", "vp8/90000") => CodecKind::Vp8,
            ("video", "vp9/90000") if matches!(parameter(parameters, "profile-id"), None | Some("0")) => {
                CodecKind::Vp9
            }
            ("audio", "opus/48000/2") => {
                CodecKind::Opus { is_stereo: parameter(parameters, "stereo") == Some("1") }
            }
            _ => return None,
        };
        let mut feedback = Feedback::default();
        for format in [format, "*"] {
            for name in attributes.all_of_format("rtcp-fb", format) {
                feedback.note(name);
            }
        }
        let (rtx, parameters) = (retransmission(payload_type, attributes), parameters.to_owned());
        Some(Self { payload_type, rtx, feedback, kind, parameters })
    }
}

/// The payload type whose `apt` is `payload_type` (RFC 4588, §8.1).
fn retransmission(payload_type: u8, attributes: Attributes<'_>) -> Option<u8> {
    attributes.values("rtpmap").filter_map(|value| value.split_once(' ')).find_map(|(format, map)| {
        let is_rtx = map.trim().eq_ignore_ascii_case("rtx/90000");
        let associated = parameter(attributes.of_format("fmtp", format).unwrap_or_default(), "apt")?;
        (is_rtx && associated.parse() == Ok(payload_type)).then(|| format.parse().ok()).flatten()
    })
}

/// Of `a=fmtp`: `name=value;name=value`.
fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    parameters
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value.trim())
}
