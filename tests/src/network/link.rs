//! What one direction of a bad network does to packets. Pure: time is an argument, chance is seeded.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// How a network is at the moment, each way alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// From one end to the other, without anything in between.
    pub delay: Duration,
    /// What is added to a packet's way at most. Packets do not overtake each other.
    pub jitter: Duration,
    /// Share of the packets that are lost, 0 to 1, each by itself.
    pub loss: f64,
    /// What the bottleneck carries in bit/s; `None` for as much as is sent.
    pub rate: Option<u32>,
    /// The longest that a packet waits before the bottleneck; one that would wait longer is dropped.
    pub queue: Duration,
}

impl Link {
    /// A good line to somewhere else on the continent: 80 ms there and back.
    #[must_use]
    pub const fn good() -> Self {
        Self {
            delay: Duration::from_millis(40),
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: Duration::from_millis(300),
        }
    }

    #[must_use]
    pub const fn lossy(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    #[must_use]
    pub const fn jittery(self, jitter: Duration) -> Self {
        Self { jitter, ..self }
    }

    #[must_use]
    pub const fn narrow(self, bits_per_second: u32) -> Self {
        Self { rate: Some(bits_per_second), ..self }
    }
}

/// One direction.
#[derive(Debug)]
pub(super) struct Direction {
    link: Link,
    random: Rng,
    /// When the bottleneck is through with what was sent.
    busy_until: Instant,
    /// When the packet before is delivered.
    delivered: Instant,
    cut_until: Instant,
}

impl Direction {
    pub(super) fn new(link: Link, random: Rng, now: Instant) -> Self {
        Self { link, random, busy_until: now, delivered: now, cut_until: now }
    }

    pub(super) fn set(&mut self, link: Link) {
        self.link = link;
    }

    /// Nothing gets through before then.
    pub(super) fn cut(&mut self, until: Instant) {
        self.cut_until = until;
    }

    /// When a packet of `bytes` that is sent `now` comes out at the other end; `None` if it never does.
    pub(super) fn send(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        // Drawn for every packet, so that a schedule goes on as its seed says whatever else befalls a packet.
        let (is_lost, jitter) = (self.random.f64() < self.link.loss, self.random.f64());
        if is_lost || now < self.cut_until {
            return None;
        }
        let mut leaves = now;
        if let Some(rate) = self.link.rate {
            let starts = self.busy_until.max(now);
            if starts.saturating_duration_since(now) > self.link.queue {
                return None;
            }
            leaves = starts + Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(rate));
            self.busy_until = leaves;
        }
        let arrives = leaves + self.link.delay + self.link.jitter.mul_f64(jitter);
        self.delivered = self.delivered.max(arrives);
        Some(self.delivered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    fn direction(link: Link, now: Instant) -> Direction {
        Direction::new(link, Rng::with_seed(SEED), now)
    }

    #[test]
    fn as_many_are_lost_as_was_asked_for_and_the_same_ones_for_a_seed() {
        let now = Instant::now();
        let lost = || {
            let mut direction = direction(Link::good().lossy(0.1), now);
            (0..10_000).filter(|_| direction.send(1_200, now).is_none()).collect::<Vec<_>>()
        };
        assert!((900..1_100).contains(&lost().len()), "{}", lost().len());
        assert_eq!(lost(), lost());
    }

    #[test]
    fn jitter_delays_and_reorders_nothing() {
        let now = Instant::now();
        let link = Link::good().jittery(Duration::from_millis(20));
        let mut direction = direction(link, now);
        let mut before = now;
        for number in 0..1_000 {
            let sent = now + Duration::from_millis(number);
            let arrives = direction.send(1_200, sent).expect("nothing is lost");
            assert!(arrives >= before && arrives >= sent + link.delay);
            assert!(arrives <= sent + link.delay + link.jitter);
            before = arrives;
        }
    }

    #[test]
    fn a_bottleneck_carries_its_rate_and_holds_no_more_than_its_queue() {
        let now = Instant::now();
        // 1250 bytes take 10 ms.
        let mut direction = direction(Link::good().narrow(1_000_000), now);
        let arrivals: Vec<_> = (0..100).filter_map(|_| direction.send(1_250, now)).collect();
        assert_eq!(arrivals.len(), 31);
        let waited: Vec<_> = arrivals.iter().map(|at| (*at - now).as_millis()).collect();
        assert_eq!((waited[0], waited[1], waited[30]), (50, 60, 350));
        let later = now + Duration::from_millis(310);
        assert_eq!(direction.send(1_250, later), Some(later + Duration::from_millis(50)));
    }

    #[test]
    fn nothing_gets_through_a_cut() {
        let now = Instant::now();
        let mut direction = direction(Link::good(), now);
        let back = now + Duration::from_secs(5);
        direction.cut(back);
        assert_eq!(direction.send(1_200, now + Duration::from_secs(4)), None);
        assert_eq!(direction.send(1_200, back), Some(back + Duration::from_millis(40)));
    }
}
