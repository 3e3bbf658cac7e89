//! Whether anybody watches a track that is made on demand only.
//!
//! Viewers tell it with each request, which costs them a store and a load; the worker looks, and sleeps until it is woken
//! or what it saw has run out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// For so long after the last sign of a viewer a track is wanted. Players ask for a playlist at least once in a target
/// duration, which is at most 12 s; one that changes its mind and comes back shall find its rendition still there.
pub const LINGER: Duration = Duration::from_secs(30);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// By nobody. The next who wants it wakes [`Demand::woken`].
    No,
    /// Until then, if nobody else comes.
    Until(Instant),
    /// For as long as somebody holds it. That this is over wakes [`Demand::woken`] too.
    Held,
}

/// Of one track.
#[derive(Debug)]
pub struct Demand {
    opened: Instant,
    /// Milliseconds from `opened` to the last sign of a viewer, and one; zero if there was none.
    touched: AtomicU64,
    holds: AtomicUsize,
    /// The worker sleeps until somebody comes.
    is_cold: AtomicBool,
    /// One for all tracks of a stream: one worker waits for them together.
    woken: Arc<Notify>,
}

/// Somebody who wants the track until this is dropped.
#[derive(Debug)]
pub struct Hold(Arc<Demand>);

impl Demand {
    pub(crate) fn new(woken: Arc<Notify>) -> Self {
        Self {
            opened: Instant::now(),
            touched: AtomicU64::new(0),
            holds: AtomicUsize::new(0),
            is_cold: AtomicBool::new(false),
            woken,
        }
    }

    /// A viewer asked for something of it, now.
    pub fn touch(&self) {
        self.touch_at(Instant::now());
    }

    fn touch_at(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.opened).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1;
        // Of two viewers at once either may be the last: they are milliseconds apart.
        self.touched.store(millis, Ordering::SeqCst);
        self.wake();
    }

    /// For a reader who does not ask again and again, such as a node that follows the whole stream.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::SeqCst);
        self.wake();
        Hold(self.clone())
    }

    /// Sequentially consistent with [`Demand::look`]: either this sees that the worker sleeps, or the worker sees what was
    /// stored before this.
    fn wake(&self) {
        if self.is_cold.load(Ordering::SeqCst) && self.is_cold.swap(false, Ordering::SeqCst) {
            self.woken.notify_waiters();
        }
    }

    /// Waits until a look at some track of the stream would find something else than before; a look that found until
    /// when it is wanted is to be repeated then. Of what comes after this call none is missed, so it goes before the look.
    pub fn woken(&self) -> Notified<'_> {
        self.woken.notified()
    }

    /// Whether anybody wants it. For the one worker that makes it.
    pub fn look(&self, now: Instant) -> Wanted {
        // Before looking: whoever comes after the look then wakes the worker.
        self.is_cold.store(true, Ordering::SeqCst);
        let wanted = self.wanted(now);
        if wanted != Wanted::No {
            self.is_cold.store(false, Ordering::SeqCst);
        }
        wanted
    }

    fn wanted(&self, now: Instant) -> Wanted {
        if self.holds.load(Ordering::SeqCst) > 0 {
            return Wanted::Held;
        }
        let Some(millis) = self.touched.load(Ordering::SeqCst).checked_sub(1) else { return Wanted::No };
        let until = self.opened.checked_add(Duration::from_millis(millis)).map(|touched| touched + LINGER);
        until.filter(|until| now < *until).map_or(Wanted::No, Wanted::Until)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A last sign before it goes: who was held lingers too.
        self.0.touch();
        if self.0.holds.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.woken.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn demand() -> Arc<Demand> {
        Arc::new(Demand::new(Arc::default()))
    }

    #[test]
    fn a_track_is_wanted_from_the_first_request_until_a_while_after_the_last() {
        let demand = demand();
        let now = demand.opened + Duration::from_secs(100);
        assert_eq!(demand.look(now), Wanted::No);
        demand.touch_at(now);
        assert_eq!(demand.look(now), Wanted::Until(now + LINGER));
        let later = now + LINGER - Duration::from_millis(1);
        assert_eq!(demand.look(later), Wanted::Until(now + LINGER));
        demand.touch_at(later);
        assert_eq!(demand.look(now + LINGER), Wanted::Until(later + LINGER));
        assert_eq!(demand.look(later + LINGER), Wanted::No);
    }

    #[test]
    fn only_the_viewer_who_finds_it_cold_wakes_the_worker() {
        let demand = demand();
        let now = demand.opened + Duration::from_secs(1);
        let woken = demand.woken();
        assert_eq!(demand.look(now), Wanted::No);
        demand.touch_at(now);
        assert!(woken.now_or_never().is_some());
        let woken = demand.woken();
        assert_ne!(demand.look(now), Wanted::No);
        demand.touch_at(now);
        assert!(woken.now_or_never().is_none(), "it is made already");
        let woken = demand.woken();
        assert_eq!(demand.look(now + LINGER), Wanted::No);
        // By a clock that was read a moment before the worker's: it comes after the look, so it wakes all the same.
        demand.touch_at(now + LINGER - Duration::from_millis(1));
        assert!(woken.now_or_never().is_some());
    }

    #[test]
    fn a_node_that_follows_the_stream_wants_it_for_as_long_as_it_does() {
        let demand = demand();
        let woken = demand.woken();
        let now = demand.opened + Duration::from_secs(1_000);
        assert_eq!(demand.look(now), Wanted::No);
        let (first, second) = (demand.hold(), demand.hold());
        assert!(woken.now_or_never().is_some());
        assert_eq!(demand.look(now + LINGER * 100), Wanted::Held);
        let woken = demand.woken();
        drop(first);
        assert_eq!(demand.look(now), Wanted::Held);
        drop(second);
        assert!(woken.now_or_never().is_some(), "the worker has to look when that runs out");
        assert!(matches!(demand.look(Instant::now()), Wanted::Until(_)));
    }
}
