//! Segments and parts as they are kept: counted, timed, and in as many slices as the packager wrote.

use std::fmt;
use std::sync::Arc;

use ::http::HeaderValue;
use bytes::Bytes;
use media::SessionId;
use media::cmaf::Init;
use tokio::sync::OnceCell;

use crate::FORMAT_VERSION;
use crate::rendition::RenditionName;

/// Where a part stands: the media sequence number of its segment, and its number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub msn: u64,
    pub part: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.msn, self.part)
    }
}

/// One part, as the packager hands it over.
#[derive(Debug, Clone)]
pub struct Part {
    pub msn: u64,
    pub part: u32,
    /// In ticks of the rendition's timescale.
    pub duration: u32,
    /// The first unit is a keyframe; audio always.
    pub independent: bool,
    /// The media of this part is lost: it is listed, and answered with 404.
    pub gap: bool,
    /// No other part follows in this segment.
    pub last: bool,
    /// The same for all parts of a segment; read from the first.
    pub segment: SegmentStart,
    /// `moof` and `mdat` header, then the payload as it came, never copied together.
    pub body: Vec<Bytes>,
}

/// What holds from the first part of a segment on.
#[derive(Debug, Clone)]
pub struct SegmentStart {
    /// Wall clock at the segment's first sample: milliseconds since the Unix epoch.
    pub program_date_time_ms: i64,
    /// Grows by one at each discontinuity, never otherwise.
    pub discontinuity_sequence: u64,
    /// May change only at a discontinuity, or where there were only gaps before.
    pub init: Arc<Init>,
}

#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) msn: u64,
    pub(crate) start: SegmentStart,
    pub(crate) parts: Vec<Arc<StoredPart>>,
    /// Sum over `parts`, in ticks.
    pub(crate) duration: u64,
    /// Sum over `parts`.
    pub(crate) bytes: u64,
    pub(crate) complete: bool,
    pub(crate) etag: HeaderValue,
}

#[derive(Debug)]
pub(crate) struct StoredPart {
    pub(crate) duration: u32,
    pub(crate) independent: bool,
    pub(crate) gap: bool,
    /// As it was pushed: nothing follows in this segment. A segment cut short has no such part.
    pub(crate) last: bool,
    /// Empty until somebody asks, for a part that this node only lists; see `backfill.rs`.
    pub(crate) body: OnceCell<Vec<Bytes>>,
    /// Length of the body, here or not.
    pub(crate) bytes: u64,
    pub(crate) etag: HeaderValue,
}

impl Segment {
    /// A segment that lacks any of its media cannot be served whole, so it is a gap altogether.
    pub(crate) fn gap(&self) -> bool {
        self.parts.iter().any(|part| part.gap)
    }

    pub(crate) fn starts_independent(&self) -> bool {
        self.parts.first().is_some_and(|part| part.independent)
    }
}

/// A strong ETag, the same on every node that serves the same bytes. Made of names and numbers only, never a
/// hash over the content: it must be known before the content is, and equal on nodes that never saw each other.
pub(crate) fn etag(session: SessionId, rendition: &RenditionName, item: fmt::Arguments<'_>) -> HeaderValue {
    header_value(format!("\"{session}.{rendition}.{item}.{FORMAT_VERSION}\""))
}

pub(crate) fn header_value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("ids, names and numbers are visible ASCII")
}
