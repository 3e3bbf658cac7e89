//! How long a peer may take, decided without a socket or a clock; `paced.rs` has both.

use std::time::{Duration, Instant};

/// From the first byte of a request's head to its last. A head is one packet or two.
pub(crate) const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a viewer may take nothing while we have something for it; it is somewhat longer than a target
/// duration, and a train in a tunnel comes back within it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Whoever takes less cannot even listen: 64 kbit/s, in bytes per second. An answer that is taken more slowly only
/// keeps media in memory that its player will never show.
pub(crate) const RATE_MIN: f64 = 8_000.0;

/// The peer's line or the peer itself is too slow, or means to be. Close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TooSlow {
    #[error("a request's head took more than {} s", HEAD_TIME_MAX.as_secs())]
    Head,
    #[error("took its answer at less than {RATE_MIN} bytes a second")]
    Body,
}

/// Time that a peer has left to take what we write. Waiting for it uses that time up; every byte it takes gives some
/// back. So a stall costs nothing afterwards, and a trickle ends however large the answer is.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
    /// Since when the socket takes no more.
    blocked: Option<Instant>,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { left: PATIENCE, blocked: None }
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// The socket took nothing. When that is too long.
    pub(crate) fn blocked(&mut self, now: Instant) -> Instant {
        *self.blocked.get_or_insert(now) + self.left
    }

    /// The socket took `bytes`.
    ///
    /// # Errors
    /// If it did so too late: bytes and the deadline may come together, and a trickle must not live on that.
    pub(crate) fn took(&mut self, bytes: usize, now: Instant) -> Result<(), TooSlow> {
        if self.blocked.is_none() && self.left == PATIENCE {
            return Ok(());
        }
        if let Some(since) = self.blocked.take() {
            let waited = now.saturating_duration_since(since);
            self.left = self.left.checked_sub(waited).ok_or(TooSlow::Body)?;
        }
        let earned = Duration::from_secs_f64(bytes as f64 / RATE_MIN);
        self.left = self.left.saturating_add(earned).min(PATIENCE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a viewer is served that takes `bytes` every `interval`; `None` if for an hour.
    fn served(bytes: usize, interval: Duration) -> Option<Duration> {
        let start = Instant::now();
        let (mut patience, mut now) = (Patience::new(), start);
        while now - start < Duration::from_secs(3_600) {
            let deadline = patience.blocked(now);
            now += interval;
            if patience.took(bytes, now).is_err() {
                return Some(deadline - start);
            }
        }
        None
    }

    /// Threat 13: slow readers, whether they stop or trickle.
    #[test]
    fn who_takes_too_little_is_cut_off_and_who_is_only_slow_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(served(0, 3_600 * second), Some(PATIENCE));
        let trickle = served(1_000, second).unwrap();
        assert!((15 * second..20 * second).contains(&trickle), "{trickle:?}");
        assert!(served(1, second).unwrap() < 16 * second);
        assert_eq!(served(9_000, second), None);
        assert_eq!(served(120_000, 14 * second), None, "a line that stalls, and then catches up");
    }

    #[test]
    fn time_without_anything_to_send_costs_nothing() {
        let now = Instant::now();
        let mut patience = Patience::new();
        patience.took(100, now).unwrap();
        let later = now + Duration::from_secs(3_600);
        assert_eq!(patience.blocked(later), later + PATIENCE);
    }
}
