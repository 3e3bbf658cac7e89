//! Publishers in. A protocol session (`rtmp/`, `whip/`) hands messages to a [`Publication`], which puts them on the stream's
//! clock and hands them to the session: that lets the cutter draw the boundaries, and writes the live log. Publishers
//! come and go; the session stays until its last one has been gone for too long.
//!
//!   rtmp/ ─▶ gate.rs ─▶ publication.rs ─▶ hold.rs (the first 2 s) ─▶ session.rs ─▶ log.rs ─▶ relay
//!             who may      timeline.rs     tracks, frame rate          gaps       cutter.rs, grid.rs
//!
//! All but `keeper.rs` and the protocols' `conn.rs` and `server.rs` is pure: bytes and time in, log entries out.

mod checkpoint;
mod claims;
mod cutter;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod grid;
mod health;
mod hold;
mod keeper;
mod ladder;
mod layers;
mod log;
mod meter;
mod metrics;
mod publication;
mod refusals;
pub mod rtmp;
mod secret;
mod session;
#[cfg(test)]
mod testing;
mod timeline;
mod warnings;
pub mod whip;

pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints, NoCheckpoints};
pub use claims::{Claims, Elsewhere, NoOtherNodes};
pub use error::{KeyFault, PublishError, Refusal};
pub use gate::{Authorize, Gate, OnConflict, Policy};
pub use health::Packets;
pub use keeper::keep;
pub use ladder::{Ladder, PassThrough};
pub use metrics::Metrics;
pub use publication::{Announced, Publication, VideoUnit};
pub use refusals::{Refusals, Refused};
pub use secret::Secret;
