//! Sound of before anybody listened, at the beginning of a reader. Pure.
//!
//! What is read first lies in the log already, or comes from a child that was started for this reader and first makes what it has
//! missed: seconds, all at once. Pictures of before are shown as fast as they come, since the newest needs them. Sound takes its time:
//! a browser that is given some seconds of it at once stays as far behind its pictures, and makes up five per cent of that a second.

use std::time::{Duration, Instant};

/// For what makes up so slowly that it never waits for its source: late sound is better than none.
const LAST_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Backlog {
    since: Instant,
    /// When the last frame came.
    before: Option<Instant>,
    is_over: bool,
}

impl Backlog {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, before: None, is_over: false }
    }

    /// Whether a frame that lasts for `duration` and has come `now` is left out. The first that had to be waited for is of now, and so
    /// are all behind it.
    pub(super) fn takes(&mut self, duration: Duration, now: Instant) -> bool {
        let waited = self.before.replace(now).map(|before| now.saturating_duration_since(before));
        self.is_over |= waited.is_some_and(|waited| waited >= duration / 2)
            || now.saturating_duration_since(self.since) >= LAST_MAX;
        !self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    #[test]
    fn what_comes_at_once_is_left_out_until_one_is_waited_for() {
        let mut now = Instant::now();
        let mut backlog = Backlog::new(now);
        // Two seconds, as fast as they are made.
        for _ in 0..100 {
            now += Duration::from_millis(1);
            assert!(backlog.takes(FRAME, now));
        }
        now += FRAME;
        assert!(!backlog.takes(FRAME, now));
        // Publishers send two at once, now and then.
        assert!(!backlog.takes(FRAME, now));
    }

    #[test]
    fn sound_that_never_catches_up_is_heard_all_the_same() {
        let mut now = Instant::now();
        let mut backlog = Backlog::new(now);
        let mut left_out = 0;
        while backlog.takes(FRAME, now) {
            now += Duration::from_millis(9);
            left_out += 1;
        }
        assert!((500..600).contains(&left_out), "{left_out} frames");
    }
}
