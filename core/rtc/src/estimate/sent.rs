//! Bits per second that leave. Pure.

use std::time::{Duration, Instant};

/// In which bytes are counted: of the pictures that are sent the large ones may be two seconds apart.
const WINDOW: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Sent {
    /// Of the window that runs.
    since: Instant,
    bytes: usize,
    /// In the window before.
    bits_per_second: Option<f64>,
}

impl Sent {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, bits_per_second: None }
    }

    pub(super) fn add(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            self.bits_per_second = Some(self.bytes as f64 * 8.0 / elapsed.as_secs_f64());
            (self.since, self.bytes) = (now, 0);
        }
    }

    /// `None` in the first two seconds.
    pub(super) fn bits_per_second(&self) -> Option<f64> {
        self.bits_per_second
    }
}
