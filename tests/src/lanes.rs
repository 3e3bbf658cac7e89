//! Only so many tests of a file at a time: what a machine has no time to encode is given up, and then there is nothing to compare.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `N` tests at a time.
pub struct Lanes<const N: usize> {
    lanes: [Mutex<()>; N],
    next: AtomicUsize,
}

impl<const N: usize> Lanes<N> {
    /// Nobody is there yet.
    #[must_use]
    pub const fn free() -> Self {
        Self { lanes: [const { Mutex::new(()) }; N], next: AtomicUsize::new(0) }
    }

    /// Waits for a turn, which lasts until what is returned is dropped.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        let lane = &self.lanes[self.next.fetch_add(1, Ordering::Relaxed) % N];
        lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
