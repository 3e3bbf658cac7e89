//! Publishers in. A protocol session (`rtmp/`) hands FLV messages to a [`Publication`], which puts them on
//! the stream's clock, lets the cutter draw the boundaries, and writes the live log.
//!
//!   rtmp/ ─▶ publication.rs ─▶ timeline.rs ─▶ hold.rs (the first 2 s) ─▶ cutter.rs on grid.rs ─▶ log.rs ─▶ relay
//!
//! All but `rtmp/conn.rs` and `rtmp/server.rs` is pure: bytes and time in, log entries out.

mod cutter;
mod error;
mod grid;
mod health;
mod hold;
mod log;
mod meter;
mod metrics;
mod publication;
mod refusals;
pub mod rtmp;
mod secret;
mod timeline;

pub use error::{KeyFault, PublishError, Refusal};
pub use metrics::Metrics;
pub use publication::{Announced, Authorize, Gate, Publication};
pub use refusals::{Refusals, Refused};
pub use secret::Secret;
