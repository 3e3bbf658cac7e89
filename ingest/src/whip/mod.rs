//! WHIP publishers (RFC 9725): browsers and encoders that send WebRTC.
//!
//!   HTTP ─▶ request.rs ─▶ server.rs: offer.rs, session.rs ─▶ a task for each session, conn.rs:
//!   the WebRTC port ─▶ peer.rs (tap.rs, repair.rs) ─▶ media.rs: reorder.rs ─▶ access_units.rs ─▶ clock.rs ─▶ `Publication`
//!                                                                └▶ keyframes.rs, layers.rs
//!
//! All but `conn.rs` and `server.rs` is pure. `webrtc` itself is not used but its heart, `rtc`: it binds the sockets that it
//! hands to its runtime itself, so that sessions could not share a port.

mod access_units;
mod clock;
mod conn;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod keyframes;
mod layers;
mod media;
mod metrics;
mod offer;
mod peer;
mod recall;
mod reorder;
mod repair;
mod request;
mod server;
mod session;
mod tap;

pub use metrics::Metrics;
pub use request::{BODY_BYTES_MAX, PREFIX};
pub use server::{PUBLISHERS, Settings, StartError, Whip};
