//! What a viewer's path carries, and which rendition fits it.
//!
//! ```text
//! Batch ─▶ sent ──────────┐
//! transport-cc ─▶ feedback ├─▶ Estimator ─▶ Estimate ─▶ Chooser ─▶ which rung
//! REMB, reports ──────────┘
//! ```
//! Off the hot path: a batch costs one entry, feedback comes a few times a second.

mod bursts;
mod choose;
mod departures;
mod estimator;
mod queue;
mod received;
mod remb;
mod sent;
#[cfg(test)]
mod simulated;

pub use choose::{Chooser, HEADROOM};
pub use estimator::{Estimate, Estimator, Limits};
