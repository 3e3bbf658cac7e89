//! Renditions below what the publisher sends: which ([`ladder`]), whether this machine has room for them ([`budget`]),
//! what becomes of a job whose child fails or falls behind ([`job`]), and the child itself ([`child`]).
//!
//! The first three are pure: numbers and times in, decisions out. Nothing here links GStreamer; that is in the
//! executable `tidecast-encoder`, which a machine may lack: then streams are passed through.

pub mod budget;
pub mod child;
pub mod executable;
pub mod job;
pub mod ladder;
pub mod probe;
