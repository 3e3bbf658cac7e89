//! The multivariant playlist: which renditions there are, and what a player must be able to do to play them.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;

use m3u8_rs::{
    AlternativeMedia, AlternativeMediaType, ClosedCaptionGroupId, ExtTag, InstreamId, MasterPlaylist,
    QuotedOrUnquoted, Resolution, VariantStream,
};
use media::codec::captions::Channel;
use media::{Captions, CodecConfig, SessionId, StreamId, TrackKind};

use super::Rendered;
use super::filter::{Filter, Selection};
use crate::FORMAT_VERSION;
use crate::index::{Bandwidth, Offered};
use crate::rendition::{RenditionHeader, RenditionName};
use crate::segment::header_value;

/// Name of the group of the publisher's own sound; others have that of their rendition.
const AUDIO_GROUP: &str = "audio";

/// Name of the group of captions.
const CAPTIONS_GROUP: &str = "captions";

/// Where players hear which other nodes have the stream (rfc8216bis, §7).
fn steering_path(id: &StreamId) -> String {
    format!("/where/{id}/steering.json")
}

/// The multivariant playlist of a stream, whole and filtered, each rendered for the first who asks.
///
/// Kept by what is left, not by what was asked for: there is one slot for each outcome a filter can have, so a stranger
/// who asks for `?max=1`, `?max=2`, … fills none but these.
#[derive(Debug)]
pub(crate) struct Multivariants {
    session: SessionId,
    /// Whose steering is told of, if it is.
    steering: Option<StreamId>,
    offered: Offered,
    renditions: Vec<(RenditionHeader, Bandwidth)>,
    frame_rate: Option<f64>,
    captions: Captions,
    /// Different ones, lowest first.
    heights: Vec<u32>,
    has_audio: bool,
    slots: Vec<OnceLock<Rendered>>,
}

impl Multivariants {
    pub(crate) fn new(
        session: SessionId,
        steering: Option<&StreamId>,
        offered: Offered,
        all: &[(RenditionHeader, Bandwidth)],
        frame_rate: Option<f64>,
        captions: Captions,
    ) -> Self {
        let renditions: Vec<_> = offered.of(all).cloned().collect();
        let heights = renditions.iter().filter_map(|(rendition, _)| height(rendition));
        let mut heights: Vec<_> = heights.collect();
        heights.sort_unstable();
        heights.dedup();
        let has_audio = renditions.iter().any(|(rendition, _)| rendition.codec.kind() == TrackKind::Audio);
        // Audio, and each height with it and without it.
        let slots = (0..1 + 2 * heights.len()).map(|_| OnceLock::new()).collect();
        let steering = steering.cloned();
        Self { session, steering, offered, renditions, frame_rate, captions, heights, has_audio, slots }
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
        let steering = self.steering.as_ref();
        let text = render(self.session, steering, &renditions, self.frame_rate, self.captions);
        Rendered::uncompressed(text, |encoding| {
            // Within a session only what is offered ever changes, and bandwidths and captions, which only grow.
            let (Self { session, offered, .. }, captions) = (self, self.captions.to_bits());
            // Not all nodes that have a session need be of one cluster.
            let steered = if steering.is_some() { "s" } else { "" };
            header_value(format!(
                "\"{session}.{offered}.{peak}.{average}.{captions}.{selection}{steered}.{encoding}.{FORMAT_VERSION}\""
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
/// Each video rendition is a variant with each audio rendition beside it, which is a group of its own: members of one
/// group are coded alike (rfc8216bis §4.4.6.1.1). Without video, each audio is a variant; beside a ladder it is the
/// lowest one, for whoever has no data for a picture. EXT-X-INDEPENDENT-SEGMENTS is left to the media playlists: it
/// would bind every rendition for good, and a pass-through one cannot promise it. Captions are in all pictures alike; of
/// NONE nothing is ever said, as they may come yet.
fn render(
    session: SessionId,
    steering: Option<&StreamId>,
    renditions: &[(&RenditionHeader, Bandwidth)],
    frame_rate: Option<f64>,
    captions: Captions,
) -> String {
    let of_kind = |kind| {
        let kind = renditions.iter().copied().filter(move |(rendition, _)| rendition.codec.kind() == kind);
        kind.collect::<Vec<_>>()
    };
    let uri = |name: &RenditionName| format!("{session}/{name}/index.m3u8");
    let (videos, audios) = (of_kind(TrackKind::Video), of_kind(TrackKind::Audio));
    let variant = |(rendition, bandwidth): (&RenditionHeader, Bandwidth)| VariantStream {
        uri: uri(&rendition.name),
        bandwidth: bandwidth.peak,
        average_bandwidth: Some(bandwidth.average),
        codecs: Some(rendition.codec.rfc6381()),
        ..VariantStream::default()
    };
    let picture = |video: (&RenditionHeader, Bandwidth)| {
        let mut variant = variant(video);
        variant.resolution = resolution(&video.0.codec);
        variant.other_attributes = video_range(&video.0.codec);
        variant.closed_captions =
            (!captions.is_empty()).then(|| ClosedCaptionGroupId::GroupId(CAPTIONS_GROUP.to_owned()));
        let every = f64::from(video.0.derived.as_ref().map_or(1, |derived| derived.every).max(1));
        // Three decimals, rfc8216bis §4.4.6.2.
        variant.frame_rate = frame_rate.map(|rate| (rate / every * 1000.0).round() / 1000.0);
        variant
    };
    let beside = |video, (audio, bandwidth): (&RenditionHeader, Bandwidth)| {
        let alone = picture(video);
        VariantStream {
            bandwidth: alone.bandwidth.saturating_add(bandwidth.peak),
            average_bandwidth: alone.average_bandwidth.map(|video| video.saturating_add(bandwidth.average)),
            codecs: alone.codecs.map(|video| format!("{video},{}", audio.codec.rfc6381())),
            audio: Some(group(audio).to_owned()),
            ..alone
        }
    };

    let has_ladder = videos.iter().any(|(video, _)| video.derived.is_some());
    let mut variants: Vec<VariantStream> = match audios.as_slice() {
        [] => videos.iter().map(|video| picture(*video)).collect(),
        audios => audios.iter().flat_map(|audio| videos.iter().map(|video| beside(*video, *audio))).collect(),
    };
    if videos.is_empty() {
        variants.extend(audios.iter().map(|audio| variant(*audio)));
    } else if has_ladder {
        let alone = |audio: &(&RenditionHeader, Bandwidth)| VariantStream {
            audio: Some(group(audio.0).to_owned()),
            ..variant(*audio)
        };
        variants.extend(audios.iter().map(alone));
    }
    let alternatives = audios.iter().filter(|_| !videos.is_empty()).map(|(audio, _)| AlternativeMedia {
        media_type: AlternativeMediaType::Audio,
        uri: Some(uri(&audio.name)),
        group_id: group(audio).to_owned(),
        name: "Audio".into(),
        default: true,
        autoselect: true,
        channels: channels(&audio.codec),
        ..AlternativeMedia::default()
    });
    // rfc8216bis §8: services want 7.
    let version = if captions.iter().any(|channel| matches!(channel, Channel::Service(_))) { 7 } else { 6 };
    let captions = captions.iter().filter(|_| !videos.is_empty()).map(caption_channel);
    let alternatives = alternatives.chain(captions).collect();

    let steering = steering.map(|id| ExtTag {
        tag: "X-CONTENT-STEERING".into(),
        rest: Some(format!("SERVER-URI=\"{}\"", steering_path(id))),
    });
    let playlist = MasterPlaylist {
        version: Some(version),
        variants,
        alternatives,
        unknown_tags: steering.into_iter().collect(),
        ..MasterPlaylist::default()
    };
    let mut text = Vec::with_capacity(512);
    playlist.write_to(&mut text).expect("writing to memory cannot fail");
    String::from_utf8(text).expect("made of strings")
}

fn caption_channel(channel: Channel) -> AlternativeMedia {
    let (id, number) = match channel {
        Channel::Cc(number) => (InstreamId::CC(number), number),
        Channel::Service(number) => (InstreamId::Service(number), number),
    };
    // Their language is known to nobody here.
    let name = if number == 1 { "Captions".to_owned() } else { format!("Captions {number}") };
    AlternativeMedia {
        media_type: AlternativeMediaType::ClosedCaptions,
        group_id: CAPTIONS_GROUP.to_owned(),
        name,
        autoselect: true,
        instream_id: Some(id),
        ..AlternativeMedia::default()
    }
}

fn group(audio: &RenditionHeader) -> &str {
    if audio.derived.is_some() { audio.name.as_str() } else { AUDIO_GROUP }
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
