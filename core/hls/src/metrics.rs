//! What an operator can see of LL-HLS delivery. No label ever names a stream or a viewer: both come from
//! strangers, and would grow the metrics without bound.

use std::sync::Arc;

use ::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::catalog::NotHeld;

/// Cheap to clone; all clones count into the same numbers.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Media playlists rendered. Equals parts published after the first playlist, plus one rendering per
    /// rendition for the first and the last playlist: if it grows with the audience, something renders per viewer.
    pub playlist_renders: Counter,
    /// Delta updates rendered: at most one for each playlist rendered, and none where nobody asks.
    pub playlist_delta_renders: Counter,
    pub parts_published: Counter,
    /// Parts longer than the part target their playlist promises.
    pub parts_over_target: Counter,
    /// Segments given up before their time because the stream reached its bound of bytes.
    pub segments_evicted: Counter,
    /// Requests being held for a part or segment that does not exist yet.
    pub held_requests: Gauge,
    /// Body bytes handed to connections.
    pub sent: Counter,
    not_held: Family<ReasonLabel, Counter>,
    requests: Arc<[[Counter; CLASSES.len()]; KINDS.len()]>,
}

/// What a request was for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestKind {
    Multivariant,
    MediaPlaylist,
    Part,
    Segment,
    Init,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// As labels, in the order of [`RequestKind`].
const KINDS: [&str; 6] = ["multivariant", "media_playlist", "part", "segment", "init", "other"];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        // A request finds its counter in the table, without the family's lock and hashing.
        let table = KINDS
            .map(|kind| CLASSES.map(|status| requests.get_or_create_owned(&RequestLabels { kind, status })));
        let metrics = Self { requests: Arc::new(table), ..Self::default() };
        let hls = registry.sub_registry_with_prefix("hls");
        hls.register("playlist_renders", "Media playlists rendered", metrics.playlist_renders.clone());
        hls.register(
            "playlist_delta_renders",
            "Delta updates of media playlists rendered",
            metrics.playlist_delta_renders.clone(),
        );
        hls.register("parts_published", "Parts published", metrics.parts_published.clone());
        hls.register("parts_over_target", "Parts longer than PART-TARGET", metrics.parts_over_target.clone());
        hls.register(
            "segments_evicted",
            "Segments dropped early because a stream reached its bound of bytes",
            metrics.segments_evicted.clone(),
        );
        hls.register("requests", "Requests answered, by kind and status class", requests);
        hls.register("held_requests", "Requests held for media to come", metrics.held_requests.clone());
        let not_held = metrics.not_held.clone();
        hls.register("not_held", "Requests refused because too many are held, by who has too many", not_held);
        hls.register_with_unit("sent", "Body bytes handed to connections", Unit::Bytes, metrics.sent.clone());
        metrics
    }

    pub(crate) fn not_held(&self, not_held: NotHeld) {
        let reason = match not_held {
            NotHeld::Node => "node",
            NotHeld::Stream => "stream",
            NotHeld::Address => "address",
        };
        self.not_held.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn request(&self, kind: RequestKind, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = self.requests[kind as usize].get(class) {
            counter.inc();
        }
    }
}
