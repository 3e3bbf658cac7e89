//! Patience with a peer that has several requests open at once on one connection (HTTP/2).
//!
//! There the peer says how much it will take of each answer, and the connection itself is never blocked: it may hold
//! an answer for ever while it reads everything else. So what counts is not what the socket takes but what is taken
//! of the answers.
//!
//!   a request ─▶ [`OpenStream`] ─▶ each piece of its answer is [`Owed`], until the connection has written it
//!   [`Streams::ended`] looks at the sums every now and then

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::sleep;

use crate::pace::{PATIENCE, RATE_MIN};

/// How often is looked. So whoever is idle or slow is found out up to this much later than on HTTP/1.1.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// No request is open, and none has come for so long.
    Idle,
    /// It takes what it asked for too slowly.
    TooSlow,
}

/// What one connection has open. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    sums: Arc<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    begun: AtomicU64,
    over: AtomicU64,
    /// Bytes of answers that were handed to the connection, and which it has not written.
    owed: AtomicU64,
    /// Bytes of answers that it has written.
    taken: AtomicU64,
}

/// A request, from its head to the end of its answer; dropped at the end.
#[derive(Debug)]
pub struct OpenStream {
    sums: Arc<Sums>,
}

/// A piece of an answer on its way.
#[derive(Debug)]
pub struct Owed {
    bytes: Bytes,
    sums: Arc<Sums>,
}

impl Streams {
    #[must_use]
    pub fn open(&self) -> OpenStream {
        self.sums.begun.fetch_add(1, Ordering::Relaxed);
        OpenStream { sums: Arc::clone(&self.sums) }
    }

    /// Waits until the peer has been idle for `idle_time_max`, or is too slow.
    pub async fn ended(&self, idle_time_max: Duration) -> Ended {
        let mut watch = Watch::new(idle_time_max);
        loop {
            sleep(LOOK_INTERVAL).await;
            if let Some(ended) = watch.look(self.sums.sample()) {
                return ended;
            }
        }
    }
}

impl Sums {
    fn sample(&self) -> Sample {
        let over = self.over.load(Ordering::Relaxed);
        let begun = self.begun.load(Ordering::Relaxed);
        Sample {
            begun,
            is_open: begun > over,
            owed: self.owed.load(Ordering::Relaxed) > 0,
            taken: self.taken.load(Ordering::Relaxed),
        }
    }
}

impl OpenStream {
    /// A piece of its answer, to be handed to the connection.
    #[must_use]
    pub fn owe(&self, bytes: Bytes) -> Owed {
        self.sums.owed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Owed { bytes, sums: Arc::clone(&self.sums) }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.sums.over.fetch_add(1, Ordering::Relaxed);
    }
}

impl Buf for Owed {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.sums.owed.fetch_sub(count as u64, Ordering::Relaxed);
        self.sums.taken.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// What is left of an answer that its peer has given up is not owed any more.
impl Drop for Owed {
    fn drop(&mut self) {
        self.sums.owed.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    begun: u64,
    is_open: bool,
    owed: bool,
    taken: u64,
}

/// Judges by samples that are [`LOOK_INTERVAL`] apart. The rules are those of [`crate::pace::Patience`]: waiting for the
/// peer uses time up, every byte it takes gives some back.
#[derive(Debug)]
struct Watch {
    idle_time_max: Duration,
    last: Sample,
    idle: Duration,
    patience: Duration,
}

impl Watch {
    fn new(idle_time_max: Duration) -> Self {
        Self { idle_time_max, last: Sample::default(), idle: Duration::ZERO, patience: PATIENCE }
    }

    fn look(&mut self, sample: Sample) -> Option<Ended> {
        let last = std::mem::replace(&mut self.last, sample);
        let earned = Duration::from_secs_f64((sample.taken - last.taken) as f64 / RATE_MIN);
        // Owed at both looks: all the time between them, as far as one can tell from here.
        let waited = if last.owed && sample.owed { LOOK_INTERVAL } else { Duration::ZERO };
        self.patience = self.patience.saturating_add(earned).saturating_sub(waited).min(PATIENCE);
        if self.patience.is_zero() {
            return Some(Ended::TooSlow);
        }
        // What is owed may outlive the request that it answers: the connection has all of it, and the peer has not.
        let quiet = !sample.is_open && !sample.owed && sample.begun == last.begun;
        self.idle = if quiet { self.idle + LOOK_INTERVAL } else { Duration::ZERO };
        (self.idle >= self.idle_time_max).then_some(Ended::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(15);
    const AN_HOUR: u32 = 720;

    /// After how many looks a connection ends on which `next` happens before each.
    fn looks(mut next: impl FnMut(u32, &mut Sample)) -> Option<(u32, Ended)> {
        let (mut watch, mut sample) = (Watch::new(IDLE), Sample::default());
        (1..=AN_HOUR).find_map(|look| {
            next(look, &mut sample);
            Some((look, watch.look(sample)?))
        })
    }

    /// Threat 13: slow readers, whether they stop or trickle.
    #[test]
    fn who_takes_too_little_is_cut_off_and_who_is_only_slow_is_not() {
        let reading = |bytes_per_second: u64| {
            looks(move |_, sample| {
                (sample.begun, sample.is_open, sample.owed) = (1, true, true);
                sample.taken += 5 * bytes_per_second;
            })
        };
        assert_eq!(reading(0), Some((4, Ended::TooSlow)), "15 s after it was seen to wait");
        let all_handed_over = looks(|_, sample| (sample.begun, sample.owed) = (1, true));
        assert_eq!(all_handed_over, Some((4, Ended::TooSlow)), "slow, not idle");
        assert!(reading(1_000).is_some_and(|(look, _)| look <= 5));
        assert_eq!(reading(9_000), None);
        // A line that stalls for ten seconds, and then catches up.
        let stalling = looks(|look, sample| {
            (sample.begun, sample.is_open, sample.owed) = (1, true, true);
            sample.taken += if look % 3 == 0 { 120_000 } else { 0 };
        });
        assert_eq!(stalling, None);
    }

    #[test]
    fn a_request_that_we_hold_is_neither_idle_nor_slow() {
        let held = looks(|_, sample| (sample.begun, sample.is_open) = (1, true));
        assert_eq!(held, None);
    }

    #[test]
    fn who_asks_for_nothing_is_idle_and_who_asks_now_and_then_is_not() {
        assert_eq!(looks(|_, _| ()), Some((3, Ended::Idle)));
        // Asked and answered between two looks.
        assert_eq!(looks(|look, sample| sample.begun += u64::from(look % 2)), None);
    }

    #[test]
    fn what_is_owed_is_what_was_not_written_of_answers_that_are_wanted() {
        let streams = Streams::default();
        let stream = streams.open();
        let mut piece = stream.owe(Bytes::from_static(b"0123456789"));
        assert!(streams.sums.sample().is_open && streams.sums.sample().owed);
        piece.advance(4);
        assert_eq!((piece.chunk(), streams.sums.sample().taken), (&b"456789"[..], 4));
        drop(piece);
        assert!(!streams.sums.sample().owed, "given up");
        assert_eq!(streams.sums.sample().taken, 4);
        drop(stream);
        assert!(!streams.sums.sample().is_open);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_by_itself() {
        let start = tokio::time::Instant::now();
        assert_eq!(Streams::default().ended(IDLE).await, Ended::Idle);
        assert_eq!(start.elapsed(), IDLE);
    }
}
