//! WebRTC to viewers (WHEP).
//!
//!   HTTP ─▶ service.rs, programmes.rs ─▶ shard.rs, a thread with some of the viewers:
//!   the log ─▶ rendition.rs, packets ─▶ ring.rs ─▶ viewer.rs, for each: course.rs, `rtc::outbound` ─▶ the WebRTC port
//!
//! A viewer is a cursor into the rings of its stream: nothing is queued for it, and one that is slow loses frames of its own.

mod backlog;
mod course;
mod metrics;
mod pace;
mod place;
mod programme;
mod programmes;
mod rendition;
mod ring;
mod service;
mod shard;
mod viewer;

pub(crate) use metrics::Metrics;
pub use programmes::Programmes;
pub use service::{StartError, VIEWERS_MAX, Whep};
