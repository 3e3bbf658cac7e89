//! Renditions below what the publisher sends: which ([`ladder`]), whether this machine has room for them ([`budget`]),
//! what becomes of a job whose child fails or falls behind ([`job`]), the child itself ([`child`]), and the worker that
//! makes them.
//!
//!   record ─▶ worker.rs ─▶ task.rs ─▶ source.rs ─units─▶ child ─units─▶ cut.rs ─▶ the rung's log
//!                             └─▶ job: start, stop, cheaper, given up
//!
//! A job whose child is another node's ([`workers`]) differs in nothing but where the pipes lead; there, lender.rs has the child.
//!
//! `ladder`, `budget`, `job`, `derive.rs`, `order.rs` and `cut.rs` are pure: numbers and times in, decisions out. Nothing
//! here links GStreamer; that is in the executable `tidecast-encoder`, which a machine may lack: then streams are passed
//! through.

pub mod budget;
pub mod child;
mod cut;
mod derive;
pub mod executable;
pub mod job;
pub mod ladder;
mod ladders;
mod lender;
mod metrics;
mod order;
pub mod probe;
mod source;
mod task;
mod worker;
pub mod workers;

pub use derive::derive;
pub use ladders::Ladders;
pub use lender::{Lender, Refused};
pub use metrics::Metrics;
pub use worker::Worker;
