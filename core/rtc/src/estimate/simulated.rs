//! A viewer behind a path with a bottleneck, on a clock moved by hand: frames leave at the rung's rate, queue up, are
//! dropped when the queue is full, and the browser tells of the rest every 50 ms.

use std::time::{Duration, Instant};

use super::{Chooser, Estimator, Limits};
use crate::outbound::Batch;
use crate::rtcp::testing::transport_cc;
use crate::rtcp::{Report, Reports, Status};

const LADDER: [f64; 3] = [600e3, 1_200e3, 3_000e3];
const FRAMES_PER_SECOND: u32 = 30;
const KEYFRAME_EVERY: u64 = 60;
const PACKET_BYTES: usize = 1_200;
/// Each way.
const DELAY: Duration = Duration::from_millis(20);
const FEEDBACK_EVERY: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(1);

/// What the bottleneck holds before it drops: a home router's, and a phone network's.
const QUEUE: Duration = Duration::from_millis(300);
const DEEP_QUEUE: Duration = Duration::from_millis(1_500);

struct Path {
    queue: Duration,
    /// What Wi-Fi adds at most to a packet's way.
    jitter: Duration,
    random: fastrand::Rng,
    start: Instant,
    now: Instant,
    estimator: Estimator,
    chooser: Chooser,
    frames: u64,
    next_number: u64,
    /// When the bottleneck is through with what is in it.
    busy_until: Instant,
    /// Number and arrival of packets that the browser has not told of.
    arrivals: Vec<(u64, Instant)>,
    told: u64,
    next_feedback: Instant,
    /// Bursts still to leave, with when and their packets.
    bursts: Vec<(Instant, usize)>,
    switches: Vec<(Duration, usize)>,
    /// How much larger a keyframe is than other pictures.
    keyframes: f64,
}

impl Path {
    fn new(seed: u64, estimate: f64, queue: Duration, jitter: Duration) -> Self {
        println!("seed {seed}");
        let start = Instant::now();
        let limits = Limits { initial: estimate, min: 100e3, max: 6e6 };
        Self {
            queue,
            jitter,
            random: fastrand::Rng::with_seed(seed),
            start,
            now: start,
            estimator: Estimator::new(limits, start),
            chooser: Chooser::new(LADDER.into(), estimate),
            frames: 0,
            next_number: 0,
            busy_until: start,
            arrivals: Vec::new(),
            told: 0,
            next_feedback: start,
            bursts: Vec::new(),
            switches: Vec::new(),
            keyframes: 4.0,
        }
    }

    /// The path carries `bits_per_second` for this long.
    fn run(&mut self, seconds: u64, bits_per_second: f64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.now += TICK;
            while self.start + Duration::from_secs(self.frames) / FRAMES_PER_SECOND <= self.now {
                self.frame();
            }
            while let Some(at) = self.bursts.iter().position(|(at, _)| *at <= self.now) {
                let (_, packets) = self.bursts.remove(at);
                self.send(packets, bits_per_second);
            }
            if self.next_feedback <= self.now {
                self.next_feedback += FEEDBACK_EVERY;
                self.feed_back();
                let estimate = self.estimator.estimate(self.now).bits_per_second;
                if let Some(rung) = self.chooser.update(estimate, self.now) {
                    self.switches.push((self.now - self.start, rung));
                }
            }
        }
    }

    /// The others vary by a third. In pieces of 32 packets, 5 ms apart.
    fn frame(&mut self) {
        let key = self.frames.is_multiple_of(KEYFRAME_EVERY);
        self.frames += 1;
        let mean = LADDER[self.chooser.rung()] / f64::from(FRAMES_PER_SECOND) / 8.0 * 60.0 / 63.0;
        let bytes = mean * if key { self.keyframes } else { 0.67 + self.random.f64() * 0.66 };
        let packets = (bytes / PACKET_BYTES as f64).ceil() as usize;
        for (piece, from) in (0..packets).step_by(32).enumerate() {
            let at = self.now + Duration::from_millis(5) * piece as u32;
            self.bursts.push((at, (packets - from).min(32)));
        }
    }

    fn send(&mut self, packets: usize, bits_per_second: f64) {
        let bytes = vec![0; packets * PACKET_BYTES];
        let first = self.next_number;
        let batch = Batch { bytes: &bytes, segment: PACKET_BYTES, packets, transport_sequence: Some(first) };
        self.estimator.sent(&batch, self.now);
        let on_the_wire = Duration::from_secs_f64(PACKET_BYTES as f64 * 8.0 / bits_per_second);
        for _ in 0..packets {
            let starts = self.busy_until.max(self.now);
            if starts - self.now <= self.queue {
                self.busy_until = starts + on_the_wire;
                // Long ones are rare; packets do not overtake each other.
                let jitter = self.jitter.mul_f64(self.random.f64() * self.random.f64());
                let before = self.arrivals.last().map_or(self.now, |(_, at)| *at);
                let at = (self.busy_until + DELAY + jitter).max(before);
                self.arrivals.push((self.next_number, at));
            }
            self.next_number += 1;
        }
    }

    /// What has arrived and is told has had [`DELAY`] to come back.
    fn feed_back(&mut self) {
        let seen = self.now - DELAY;
        let arrived: Vec<_> = self.arrivals.iter().copied().filter(|(_, at)| *at <= seen).collect();
        self.arrivals.retain(|(_, at)| *at > seen);
        let Some(&(last, _)) = arrived.last() else { return };
        let mut arrived = arrived.into_iter().peekable();
        let statuses = (self.told..=last).map(|number| {
            let at = arrived.next_if(|(arrived, _)| *arrived == number);
            at.map_or(Status::Lost, |(_, at)| Status::Arrived(Some(at - self.start)))
        });
        let packet = transport_cc(self.told as u16, &statuses.collect::<Vec<_>>());
        self.told = last + 1;
        for report in Reports::new(&packet) {
            let Report::TransportCc(feedback) = report else { panic!("{report:?}") };
            self.estimator.feedback(&feedback, self.now);
        }
    }
}

const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// 4 Mbit/s carry the highest rung; then the path is cut to what carries only the lowest.
#[test]
fn a_path_that_shrinks_is_followed_within_three_seconds() {
    for seed in SEEDS {
        let mut path = Path::new(seed, 4e6, QUEUE, Duration::ZERO);
        path.run(30, 4e6);
        assert_eq!(path.switches, [], "a path that carries the rung");
        path.run(30, 800e3);
        let lowest =
            path.switches.iter().find(|(_, rung)| *rung == 0).map(|(at, _)| *at - Duration::from_secs(30));
        assert!(lowest.is_some_and(|after| after < Duration::from_secs(3)), "{:?}", path.switches);
        path.run(120, 800e3);
        let climbs: Vec<Duration> =
            path.switches.windows(2).filter(|pair| pair[1].1 > pair[0].1).map(|pair| pair[1].0).collect();
        assert!(climbs.windows(3).all(|three| three[2] - three[0] >= Duration::from_secs(60)), "{climbs:?}");
        assert!(climbs.len() <= 4, "tries that fail become rare: {climbs:?}");
    }
}

#[test]
fn a_path_that_recovers_is_used_again() {
    for seed in SEEDS {
        let mut path = Path::new(seed, 4e6, QUEUE, Duration::ZERO);
        path.run(10, 4e6);
        path.run(20, 800e3);
        assert_eq!(path.chooser.rung(), 0, "{:?}", path.switches);
        path.run(180, 6e6);
        assert_eq!(path.chooser.rung(), 2, "{:?}", path.switches);
    }
}

/// A buffer that is deep enough loses nothing; without a look at the delay itself the viewer would be 1.5 s late.
#[test]
fn a_deep_queue_does_not_stay_full() {
    for (seed, bits_per_second) in [(1, 2_800e3), (2, 2_500e3), (3, 2_000e3), (4, 1_000e3)] {
        let mut path = Path::new(seed, 4e6, DEEP_QUEUE, Duration::ZERO);
        path.run(30, 4e6);
        path.run(3, bits_per_second);
        let fell = path.switches.first().map(|(at, rung)| (at.as_secs(), *rung < 2));
        assert!(fell.is_some_and(|(at, fell)| (30..33).contains(&at) && fell), "{:?}", path.switches);
        path.run(5, bits_per_second);
        // Seconds in which the queue is longer than what is felt.
        let mut late = 0;
        for _ in 0..120 {
            path.run(1, bits_per_second);
            let queue = path.busy_until.saturating_duration_since(path.now);
            late += u32::from(queue > Duration::from_millis(400));
        }
        assert!(late <= 12, "{late} of 120 s late, {:?}", path.switches);
    }
}

#[test]
fn jitter_is_not_taken_for_a_queue() {
    for seed in SEEDS {
        let mut path = Path::new(seed, 4e6, QUEUE, Duration::from_millis(60));
        path.run(120, 3_500e3);
        assert_eq!(path.switches, []);
    }
}

/// What publishers by RTMP send: a tenth of a second and more of the path for each keyframe.
#[test]
fn large_keyframes_are_not_taken_for_a_path_that_is_overrun() {
    for seed in SEEDS {
        let mut path = Path::new(seed, 5e6, QUEUE, Duration::ZERO);
        path.keyframes = 10.0;
        path.run(120, 4_500e3);
        assert_eq!(path.switches, []);
    }
}
