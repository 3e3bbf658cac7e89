//! The state of streams as the pages poll it.

use hls::{Catalog, State};
use media::{CodecConfig, StreamId};
use relay::{Stream, StreamRegistry, TrackRecord};
use serde::Serialize;

use crate::audience::Audience;
use crate::unlisted::Unlisted;

/// `GET /state`: the streams that are starting or live, but for those that are unlisted.
#[derive(Debug, Serialize)]
pub(crate) struct List {
    streams: Vec<Entry>,
    #[serde(flatten)]
    ports: PublishPorts,
}

/// Where publishers go: the pages tell newcomers.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct PublishPorts {
    #[serde(rename = "rtmp_port")]
    pub(crate) rtmp: u16,
    /// `None` if encoders would not trust it.
    #[serde(rename = "rtmps_port", skip_serializing_if = "Option::is_none")]
    pub(crate) rtmps: Option<u16>,
}

/// `GET /state/{app}/{stream}`. Spans are in seconds, rates in bits per second.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    app: String,
    stream: String,
    state: Phase,
    /// For people: what a starting stream waits for, or why an interrupted one has no picture.
    reason: Option<String>,
    /// Since when there has been no media, in milliseconds since the Unix epoch.
    interrupted_since: Option<i64>,
    session: Option<String>,
    /// URL of the multivariant playlist, whether there is one now or not.
    playlist: String,
    /// When the publisher came, in milliseconds since the Unix epoch.
    since: Option<i64>,
    video: Option<Video>,
    audio: Option<Audio>,
    /// What the publisher sends its picture in at once (simulcast), the largest first: for viewers by WebRTC, beside no playlist
    /// but that of the largest. Absent of a publisher that sends one size.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Layer>,
    bitrate: Option<u32>,
    keyframe_interval: Option<f64>,
    viewers: u32,
    part_target: Option<f64>,
    target_latency: Option<f64>,
    /// For the broadcaster: what is not as it should be.
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    Offline,
    /// Published, but there is no playlist yet.
    Starting,
    Live,
    /// No media comes: the publisher is gone, and may come back.
    Interrupted,
    /// Over; its last window can still be watched.
    Ended,
}

#[derive(Debug, Serialize)]
struct Video {
    codec: String,
    width: u32,
    height: u32,
    frame_rate: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Layer {
    /// By which a viewer by WHEP asks for it.
    name: String,
    width: u32,
    height: u32,
    /// `None` until it is measured.
    bitrate: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Audio {
    codec: String,
    sample_rate: u32,
    channels: u8,
}

impl List {
    pub(crate) fn of(
        registry: &StreamRegistry,
        catalog: &Catalog,
        audience: &Audience,
        unlisted: &Unlisted,
        ports: PublishPorts,
    ) -> Self {
        let published = registry.streams();
        let listed = published.values().map(|stream| stream.id()).filter(|id| !unlisted.holds(id));
        let entries = listed.map(|id| Entry::of(id, registry, catalog, audience));
        let mut streams: Vec<_> = entries.filter(|entry| entry.state != Phase::Ended).collect();
        streams.sort_by(|a, b| (&a.app, &a.stream).cmp(&(&b.app, &b.stream)));
        Self { streams, ports }
    }
}

impl Entry {
    pub(crate) fn of(
        id: &StreamId,
        registry: &StreamRegistry,
        catalog: &Catalog,
        audience: &Audience,
    ) -> Self {
        let published = registry.get(id);
        let index = catalog.get(id);
        let status = index.as_ref().map(|index| index.status());
        let session = published.as_ref().map(|stream| stream.session());
        let current =
            status.as_ref().filter(|status| session.is_none_or(|session| status.session == session));
        let facts = published.as_ref().map(|stream| stream.facts());
        let interrupted_since = facts.as_ref().and_then(|facts| facts.interrupted_since_ms);
        let state = match (current.map(|status| status.state), session) {
            // Also while its publication is only being closed: viewers have read that it is over.
            (Some(State::Ended), _) => Phase::Ended,
            (Some(State::Live), _) if interrupted_since.is_some() => Phase::Interrupted,
            (Some(State::Live), _) => Phase::Live,
            (_, Some(_)) => Phase::Starting,
            (_, None) => Phase::Offline,
        };
        let reason = match state {
            Phase::Starting => facts.as_ref().and_then(|facts| facts.starting.clone()),
            Phase::Interrupted => Some("Nothing comes from the broadcaster at the moment.".to_owned()),
            _ => None,
        };
        let (video, audio) = match (&published, &index) {
            (Some(stream), _) => tracks(codecs_of(stream), record_rate(stream)),
            (None, Some(index)) => {
                let codecs = index.renditions().iter().map(|rendition| rendition.codec.clone());
                tracks(codecs.collect(), current.and_then(|status| status.frame_rate))
            }
            (None, None) => (None, None),
        };
        Self {
            app: id.app().to_owned(),
            stream: id.stream().to_owned(),
            state,
            reason,
            interrupted_since,
            session: session.or(current.map(|status| status.session)).map(|session| session.to_string()),
            playlist: format!("/hls/{id}/index.m3u8"),
            since: facts.as_ref().map(|facts| facts.since_ms),
            video,
            audio,
            layers: published.as_ref().map(|stream| layers(stream)).unwrap_or_default(),
            bitrate: facts.as_ref().map(|facts| facts.bits_per_second),
            keyframe_interval: facts.as_ref().and_then(|facts| facts.keyframe_interval_s),
            viewers: audience.with_hls(id, index.as_deref().filter(|_| current.is_some())),
            part_target: current.map(|status| f64::from(status.part_target_ms) / 1000.0),
            target_latency: current.map(|status| f64::from(status.part_hold_back_ms) / 1000.0),
            warnings: facts.map(|facts| facts.warnings.clone()).unwrap_or_default(),
        }
    }
}

fn codecs_of(stream: &Stream) -> Vec<CodecConfig> {
    stream.tracks().iter().map(|track| track.record().codec.clone()).collect()
}

fn layers(stream: &Stream) -> Vec<Layer> {
    let record = stream.record();
    let record = record.borrow();
    let Some(record) = record.as_ref() else { return Vec::new() };
    let sent = record.tracks.iter().zip(0..).filter(|(track, _)| track.is_sent());
    let layer = |(track, place): (&TrackRecord, usize)| {
        let (width, height) = track.codec.dimensions()?;
        let measured = record.live.as_ref().and_then(|live| live.bandwidth.get(place));
        let bitrate = measured.map(|bandwidth| bandwidth.average);
        Some(Layer { name: track.name.to_string(), width, height, bitrate })
    };
    let mut layers: Vec<_> = sent.filter_map(layer).collect();
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.height));
    if layers.len() > 1 { layers } else { Vec::new() }
}

fn record_rate(stream: &Stream) -> Option<f64> {
    stream.record().borrow().as_ref().and_then(|record| record.frame_rate)
}

fn tracks(codecs: Vec<CodecConfig>, frame_rate: Option<f64>) -> (Option<Video>, Option<Audio>) {
    let (mut video, mut audio) = (None, None);
    for config in codecs {
        let codec = config.rfc6381();
        if let Some((width, height)) = config.dimensions() {
            // The publisher's own come first.
            video.get_or_insert(Video { codec, width, height, frame_rate });
        } else if let Some((sample_rate, channels)) = config.sample_rate().zip(config.channels()) {
            audio.get_or_insert(Audio { codec, sample_rate, channels });
        }
    }
    (video, audio)
}
