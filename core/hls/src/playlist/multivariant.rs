//! The multivariant playlist: which renditions there are, and what a player must be able to do to play them.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, MasterPlaylist, QuotedOrUnquoted, Resolution, VariantStream,
};
use media::{CodecConfig, SessionId, TrackKind};

use super::Rendered;
use super::filter::{Filter, Selection};
use crate::FORMAT_VERSION;
use crate::index::{Bandwidth, Offered};
use crate::rendition::{RenditionHeader, RenditionName};
use crate::segment::header_value;

/// Name of the one group of audio renditions.
const AUDIO_GROUP: &str = "audio";

/// The multivariant playlist of a stream, whole and filtered, each rendered for the first who asks.
///
/// Kept by what is left, not by what was asked for: there is one slot for each outcome a filter can have, so a stranger
/// who asks for `?max=1`, `?max=2`, … fills none but these.
#[derive(Debug)]
pub(crate) struct Multivariants {
    session: SessionId,
    offered: Offered,
    renditions: Vec<(RenditionHeader, Bandwidth)>,
    frame_rate: Option<f64>,
    /// Different ones, lowest first.
    heights: Vec<u32>,
    has_audio: bool,
    slots: Vec<OnceLock<Rendered>>,
}

impl Multivariants {
    pub(crate) fn new(
        session: SessionId,
        offered: Offered,
        all: &[(RenditionHeader, Bandwidth)],
        frame_rate: Option<f64>,
    ) -> Self {
        let renditions: Vec<_> = offered.of(all).cloned().collect();
        let heights = renditions.iter().filter_map(|(rendition, _)| height(rendition));
        let mut heights: Vec<_> = heights.collect();
        heights.sort_unstable();
        heights.dedup();
        let has_audio = renditions.iter().any(|(rendition, _)| rendition.codec.kind() == TrackKind::Audio);
        // Audio, and each height with it and without it.
        let slots = (0..1 + 2 * heights.len()).map(|_| OnceLock::new()).collect();
        Self { session, offered, renditions, frame_rate, heights, has_audio, slots }
    }

    pub(crate) fn get(&self, filter: Filter) -> &Rendered {
        let selection = filter.select(&self.heights, self.has_audio);
        let slot = match selection {
            Selection::Audio => 0,
            Selection::Video { level, with_audio } => 1 + 2 * level + usize::from(with_audio),
        };
        self.slots[slot].get_or_init(|| self.render(selection))
    }

    fn render(&self, selection: Selection) -> Rendered {
        let selected = |rendition: &RenditionHeader| match (selection, rendition.codec.kind()) {
            (Selection::Audio, kind) => kind == TrackKind::Audio,
            (Selection::Video { with_audio, .. }, TrackKind::Audio) => with_audio,
            (Selection::Video { level, .. }, TrackKind::Video) => {
                height(rendition) <= Some(self.heights[level])
            }
        };
        let renditions = self.renditions.iter().filter(|(rendition, _)| selected(rendition));
        let renditions: Vec<_> = renditions.map(|(rendition, bandwidth)| (rendition, *bandwidth)).collect();
        let Bandwidth { peak, average } =
            Bandwidth::total(renditions.iter().map(|(_, bandwidth)| *bandwidth));
        let text = render(self.session, &renditions, self.frame_rate);
        Rendered::uncompressed(text, |encoding| {
            // Within a session only what is offered ever changes, and the bandwidths, which only grow.
            let Self { session, offered, .. } = self;
            header_value(format!(
                "\"{session}.{offered}.{peak}.{average}.{selection}.{encoding}.{FORMAT_VERSION}\""
            ))
        })
    }
}

/// As part of an ETag.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audio => f.write_str("a"),
            Self::Video { level, with_audio: true } => write!(f, "v{level}a"),
            Self::Video { level, with_audio: false } => write!(f, "v{level}"),
        }
    }
}

fn height(rendition: &RenditionHeader) -> Option<u32> {
    rendition.codec.dimensions().map(|(_, height)| height)
}

/// Renders the playlist of these renditions.
///
/// Each video rendition is a variant, with the first audio rendition beside it; without video, the audio is the
/// variant. EXT-X-INDEPENDENT-SEGMENTS is left to the media playlists: it would bind every rendition for good,
/// and a pass-through one cannot promise it.
fn render(
    session: SessionId,
    renditions: &[(&RenditionHeader, Bandwidth)],
    frame_rate: Option<f64>,
) -> String {
    let of_kind =
        |kind| renditions.iter().copied().filter(move |(rendition, _)| rendition.codec.kind() == kind);
    let uri = |name: &RenditionName| format!("{session}/{name}/index.m3u8");
    let audio = of_kind(TrackKind::Audio).next();
    let variant = |(rendition, bandwidth): (&RenditionHeader, Bandwidth)| VariantStream {
        uri: uri(&rendition.name),
        bandwidth: bandwidth.peak,
        average_bandwidth: Some(bandwidth.average),
        codecs: Some(rendition.codec.rfc6381()),
        ..VariantStream::default()
    };

    let mut variants: Vec<VariantStream> = of_kind(TrackKind::Video)
        .map(|video| {
            let mut variant = variant(video);
            variant.resolution = resolution(&video.0.codec);
            variant.other_attributes = video_range(&video.0.codec);
            // Three decimals, rfc8216bis §4.4.6.2.
            variant.frame_rate = frame_rate.map(|rate| (rate * 1000.0).round() / 1000.0);
            if let Some((audio, bandwidth)) = audio {
                variant.bandwidth = variant.bandwidth.saturating_add(bandwidth.peak);
                variant.average_bandwidth =
                    variant.average_bandwidth.map(|video| video.saturating_add(bandwidth.average));
                variant.codecs = variant.codecs.map(|video| format!("{video},{}", audio.codec.rfc6381()));
                variant.audio = Some(AUDIO_GROUP.into());
            }
            variant
        })
        .collect();
    let mut alternatives = Vec::new();
    match audio {
        Some(audio) if variants.is_empty() => variants.push(variant(audio)),
        Some((audio, _)) => alternatives.push(AlternativeMedia {
            media_type: AlternativeMediaType::Audio,
            uri: Some(uri(&audio.name)),
            group_id: AUDIO_GROUP.into(),
            name: "Audio".into(),
            default: true,
            autoselect: true,
            channels: channels(&audio.codec),
            ..AlternativeMedia::default()
        }),
        None => {}
    }

    let playlist = MasterPlaylist { version: Some(6), variants, alternatives, ..MasterPlaylist::default() };
    let mut text = Vec::with_capacity(512);
    playlist.write_to(&mut text).expect("writing to memory cannot fail");
    String::from_utf8(text).expect("made of strings")
}

fn resolution(codec: &CodecConfig) -> Option<Resolution> {
    let (width, height) = codec.dimensions()?;
    Some(Resolution { width: width.into(), height: height.into() })
}

/// VIDEO-RANGE, rfc8216bis §4.4.6.2, of what is not SDR: players without such a screen take another variant.
fn video_range(codec: &CodecConfig) -> Option<HashMap<String, QuotedOrUnquoted>> {
    // ITU-T H.273, table 3: SMPTE ST 2084, and ARIB STD-B67.
    let range = match codec.colour()?.transfer {
        16 => "PQ",
        18 => "HLG",
        _ => return None,
    };
    Some(HashMap::from([("VIDEO-RANGE".into(), QuotedOrUnquoted::Unquoted(range.into()))]))
}

fn channels(codec: &CodecConfig) -> Option<String> {
    codec.channels().map(|channels| channels.to_string())
}

#[cfg(test)]
mod tests;
