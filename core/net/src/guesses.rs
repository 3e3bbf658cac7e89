//! Whoever gives wrong publish keys waits longer and longer before the next one is looked at.
//!
//! The delay is not what keeps a key of 128 bits safe; it keeps guessing from being free, and a misconfigured
//! encoder that tries ten times a second from costing anything.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::accountable;

/// Wrong keys that cost nothing: a person who mistypes, or an encoder that retries while the person looks for the key.
const FREE: u32 = 5;
/// After the first that costs; doubled by each that follows.
const DELAY_MIN: Duration = Duration::from_secs(1);
/// The longest wait. Others behind the same address (a venue, a mobile network) wait with the guesser.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// Without a wrong key for this long, and at most twice this long, an address is new again.
const MEMORY: Duration = Duration::from_secs(600);
/// Addresses in one generation. Two generations take about 400 kB; a guesser with more addresses than this makes us
/// forget the oldest, and has five free guesses at each address anyway.
const ADDRESSES_MAX: usize = 2_048;

/// The key is not even looked at; the publisher must wait. Says nothing about whether this key is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many wrong keys from this address; try again in {} s", retry_after.as_millis().div_ceil(1_000))]
pub struct TooManyGuesses {
    /// More than zero.
    pub retry_after: Duration,
}

/// Wrong keys by address; clones share them. One for everything a key opens, or each would be five more guesses.
#[derive(Debug, Clone, Default)]
pub struct Guesses {
    record: Arc<Mutex<Record>>,
}

impl Guesses {
    /// Looks at a key by `attempt`, unless its `address` must wait. `is_wrong` says whether the attempt was a wrong key;
    /// one that failed for another reason had the right one.
    ///
    /// # Errors
    /// [`TooManyGuesses`]; the key was not looked at.
    pub fn attempt<T>(
        &self,
        address: IpAddr,
        now: Instant,
        attempt: impl FnOnce() -> T,
        is_wrong: impl FnOnce(&T) -> bool,
    ) -> Result<T, TooManyGuesses> {
        let address = accountable(address);
        self.record().may_try(address, now)?;
        // Not under the lock: it is foreign code. Guesses at once from many connections are each counted, and those
        // that come after them wait.
        let answer = attempt();
        let mut record = self.record();
        if is_wrong(&answer) {
            record.wrong(address, now);
        } else {
            record.forget(address);
        }
        Ok(answer)
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        // A panic while it was held could only have lost one count.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two generations, so that forgetting costs nothing per address.
#[derive(Debug, Default)]
struct Record {
    young: HashMap<IpAddr, Wrong>,
    old: HashMap<IpAddr, Wrong>,
    turned: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Wrong {
    count: u32,
    until: Instant,
}

impl Record {
    fn may_try(&self, address: IpAddr, now: Instant) -> Result<(), TooManyGuesses> {
        let wrong = self.young.get(&address).or_else(|| self.old.get(&address));
        match wrong.map(|wrong| wrong.until.saturating_duration_since(now)) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(retry_after) => Err(TooManyGuesses { retry_after }),
        }
    }

    fn wrong(&mut self, address: IpAddr, now: Instant) {
        let age = now.saturating_duration_since(*self.turned.get_or_insert(now));
        if age >= 2 * MEMORY {
            self.young.clear();
        }
        let is_full = self.young.len() >= ADDRESSES_MAX && !self.young.contains_key(&address);
        if age >= MEMORY || is_full {
            self.old = std::mem::take(&mut self.young);
            self.turned = Some(now);
        }
        let before = self.young.get(&address).copied().or_else(|| self.old.remove(&address));
        let count = before.map_or(0, |wrong| wrong.count).saturating_add(1);
        self.young.insert(address, Wrong { count, until: now + delay(count) });
    }

    fn forget(&mut self, address: IpAddr) {
        self.young.remove(&address);
        self.old.remove(&address);
    }
}

fn delay(count: u32) -> Duration {
    match count.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        // 2^5 s is above the longest wait already; more would overflow in the end.
        Some(doublings) => (DELAY_MIN * 2_u32.pow(doublings.min(5))).min(DELAY_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESSER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn guess(guesses: &Guesses, address: IpAddr, now: Instant, right: bool) -> Result<bool, TooManyGuesses> {
        guesses.attempt(address, now, || right, |right| !right)
    }

    fn wrong(guesses: &Guesses, address: IpAddr, now: Instant) -> Result<bool, TooManyGuesses> {
        guess(guesses, address, now, false)
    }

    /// Threat 26.
    #[test]
    fn the_wait_grows_to_its_bound_and_nobody_else_waits() {
        let (guesses, mut now) = (Guesses::default(), Instant::now());
        for _ in 0..=FREE {
            assert_eq!(wrong(&guesses, GUESSER, now), Ok(false), "nobody waits for having mistyped");
        }
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = wrong(&guesses, GUESSER, now).unwrap_err().retry_after;
            let looked = guesses.attempt(GUESSER, now, || unreachable!("looked at"), |(): &()| true);
            assert_eq!(looked, Err(TooManyGuesses { retry_after: wait }));
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(wrong(&guesses, GUESSER, now), Ok(false));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(guess(&guesses, [192, 0, 2, 2].into(), now, true), Ok(true));
    }

    #[test]
    fn a_right_key_and_time_make_good() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let mistype = |now| (0..FREE).for_each(|_| assert_eq!(wrong(&guesses, GUESSER, now), Ok(false)));
        mistype(now);
        assert_eq!(guess(&guesses, GUESSER, now, true), Ok(true));
        mistype(now);
        assert!(wrong(&guesses, GUESSER, now).is_ok());
        assert!(wrong(&guesses, GUESSER, now).is_err());

        let later = now + 2 * MEMORY;
        mistype(later);
        assert!(wrong(&guesses, GUESSER, later).is_ok(), "new again");
        // The same while others turn the generations.
        for turn in 3..=4 {
            assert!(wrong(&guesses, [192, 0, 2, 2].into(), now + turn * MEMORY).is_ok());
        }
        let later = now + 4 * MEMORY;
        mistype(later);
        assert!(wrong(&guesses, GUESSER, later).is_ok(), "new again");
    }

    /// Threat 26: guesses from ever new addresses, or from all addresses of one network.
    #[test]
    fn ten_thousand_guessers_take_no_more_memory_than_the_bound() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for number in 0..10_000_u32 {
            assert_eq!(wrong(&guesses, IpAddr::from((0x0A00_0000 + number).to_be_bytes()), now), Ok(false));
        }
        let record = guesses.record();
        assert!(record.young.len() <= ADDRESSES_MAX && record.old.len() <= ADDRESSES_MAX);
        drop(record);

        let network = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, host]);
        let refused = (0..100).filter(|&host| wrong(&guesses, network(host), now).is_err()).count();
        assert_eq!(refused, 94, "one /64 is one guesser");
        let mapped = "::ffff:203.0.113.1".parse().unwrap();
        (0..=FREE).for_each(|_| assert_eq!(wrong(&guesses, mapped, now), Ok(false)));
        assert!(wrong(&guesses, "203.0.113.1".parse().unwrap(), now).is_err());
    }
}
