//! CMAF (ISO/IEC 23000-19): an init segment per codec configuration, and the header of each fragment.
//!
//! A fragment is the header written here followed by the access units themselves, each in the buffer it arrived
//! in: media is never copied. Same input, same bytes, on every node: nothing here counts or looks at a clock.

mod boxes;
mod fragment;
mod init;

pub use fragment::{Sample, fragment_header};
pub use init::{Init, init_segment};

/// Every init segment and fragment has one track, so every track has one number.
const TRACK_ID: u32 = 1;

#[cfg(test)]
mod tests;
