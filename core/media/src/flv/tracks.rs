//! Which of several tracks of one kind is taken.

use std::fmt;

use super::enhanced::{FourCc, codec_name};

/// Chooses among the tracks of one kind, video or audio, that a publisher sends: the first that comes. The others are
/// noted, so that the broadcaster can be told. One for each kind and publisher.
#[derive(Debug, Default)]
pub struct Tracks {
    taken: Option<u8>,
    /// At most one for each of the 255 other track ids.
    passed_over: Vec<PassedOver>,
}

/// A track that is not taken; shown as in `1 (HEVC)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedOver {
    track: u8,
    fourcc: FourCc,
}

impl Tracks {
    /// Whether `track` is the one. Messages without a track id are track 0 (Enhanced RTMP v2, "Multitrack").
    pub(super) fn takes(&mut self, track: u8, fourcc: FourCc) -> bool {
        let taken = *self.taken.get_or_insert(track) == track;
        if !taken && self.passed_over.iter().all(|other| other.track != track) {
            self.passed_over.push(PassedOver { track, fourcc });
        }
        taken
    }

    /// In the order in which they came; it only grows.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.track, codec_name(self.fourcc))
    }
}
