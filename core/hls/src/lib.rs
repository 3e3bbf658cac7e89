//! LL-HLS: the segment index of every stream on this node, its playlists, and the HTTP service over them.
//!
//! ```text
//!   packager ─▶ StreamWriter ─▶ RenditionWriter ──render once──▶ Snapshot (ArcSwap) ─▶ http::respond ─▶ viewers
//!               (index.rs)      (rendition.rs)    (playlist/)        │                     ▲
//!                                                                    └─▶ Waiters ─wake─────┘ held requests
//! ```
//!
//! One writer per stream, any number of readers. A push costs the packager one rendering and one pointer
//! swap, whatever the audience: readers take no lock, and held requests are woken by a task of their own.
//! Every byte served is a function of what was pushed, so two nodes fed the same parts serve the same bytes.
//!
//! Section numbers of "rfc8216bis" are those of draft-pantos-hls-rfc8216bis.
//! What it demands of us, and where each of it is tested, is listed in `CONFORMANCE.md`.

mod backfill;
pub mod blocking;
mod catalog;
mod demand;
mod feed;
mod headers;
pub mod http;
mod index;
mod metrics;
mod playlist;
mod rendition;
mod segment;
mod viewers;
mod waiters;

pub use backfill::{Backfill, Fetch, FetchError};
pub use catalog::{Catalog, Settings};
pub use demand::{Demand, HeldByOrigin};
pub use feed::{Entry, FedPart, Feed, Progress, ResumeFrom};
pub use index::{Announcement, Bandwidth, State, Status, StreamHeader, StreamIndex, StreamWriter};
pub use metrics::Metrics;
pub use rendition::{Derived, NameError, PushError, RenditionHeader, RenditionName, RenditionWriter};
pub use segment::{Part, Position, SegmentStart};

/// Version of everything a viewer can fetch: the text of playlists and the bytes of parts. Part of every ETag,
/// because two nodes of different versions may write the same part differently; raise it with any such change.
pub const FORMAT_VERSION: u32 = 4;
