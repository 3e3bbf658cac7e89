//! The live log. Each track of a stream is a ring of groups (a group opens with a keyframe); one writer
//! appends and never waits; readers hold cursors.
//!
//!   ingest ─▶ [`StreamWriter`] ─▶ [`Ring`] per track ─▶ [`Cursor`]s: origin now, edges and WebRTC viewers later
//!
//! It is a log with consumer offsets, (epoch, group, frame), and nothing else: what a frame means is decided
//! by who reads it. `frame.rs`, `ring.rs` are pure; `stream.rs` adds the lock and the wake-up. What is made on demand only is
//! made while [`Demand`] says that somebody watches.
//!
//! And the wire between nodes: `wire/` is what they say (pure), `tls.rs` who they are, `judged.rs` whether they still are,
//! `server.rs` and `client.rs` the sockets.

mod client;
mod demand;
mod frame;
mod judged;
mod metrics;
mod record;
mod registry;
mod ring;
pub mod server;
mod stream;
mod tls;
mod vouch;
pub mod wire;

pub use client::{
    Dialer, Fingerprint, JoinError, Lost, SILENCE_MAX, Subscription, Upstream, UpstreamError, UpstreamUrl,
    ask_to_join,
};
pub use demand::{Demand, Hold, LINGER, Wanted};
pub use frame::{Boundary, Frame, FrameError, HEADER_BYTES, Kind};
pub use metrics::{Metrics, WireMetrics};
pub use record::{
    Bandwidth, Derived, Facts, HEALTH_SAMPLES_MAX, Health, Live, STORE_BYTES_MAX, Sample, Sound,
    StreamRecord, TrackRecord,
};
pub use registry::{StreamRegistry, Streams, Taken};
pub use ring::{AppendError, Cursor, GROUP_BYTES_MAX, RING_BYTES_MAX, Read, Ring};
pub use stream::{Stream, StreamWriter, Track, TrackWriter};
pub use tls::{CLUSTER_NAME, Identity, IdentityError};
pub use vouch::{VouchError, Voucher};
