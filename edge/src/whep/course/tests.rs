//! A viewer behind a path with a bottleneck, on a clock moved by hand: a publisher's frames and those of a rung, what the viewer is
//! sent of them, the queue they wait in or overflow, and what a browser tells of it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rtc::outbound::Batch;
use rtc::rtcp::{Report, Reports};

use super::super::place::Next;
use super::super::ring::{Entry, Ring};
use super::*;

const SOURCE: usize = 0;
const RUNG: usize = 1;
const LADDER: [f64; 2] = [600e3, 3_000e3];
const FRAMES_PER_SECOND: u32 = 30;
const TICKS: i64 = 3_000;
/// Where the source has keyframes, and its rungs too.
const GROUP: u32 = 60;
const PACKET_BYTES: usize = 1_200;
const TICK: Duration = Duration::from_millis(1);
const WIDE: f64 = 4e6;
const NARROW: f64 = 800e3;

#[derive(Debug, Clone, Copy)]
struct Setting {
    seed: u64,
    /// Each way.
    delay: Duration,
    /// What the bottleneck holds before it drops.
    queue: Duration,
    /// A rung's frames come so much after the source's.
    rung_late: Duration,
    /// Whether a keyframe of the rung is made when it is asked for.
    encoder_listens: bool,
    /// The machine has now and then something else to do, for as long as this.
    stalls: Duration,
}

/// One packet of a frame.
#[derive(Debug, Clone, Copy)]
struct Part {
    rendition: usize,
    key: bool,
    /// Number of packets of the frame that have not left, this one not counted.
    behind: usize,
}

struct Scene {
    setting: Setting,
    random: fastrand::Rng,
    start: Instant,
    now: Instant,
    course: Course,
    rings: [Ring<usize>; 2],
    frames: [u32; 2],
    /// Frames of the rung that are to be keyframes.
    asked: BTreeSet<u32>,
    /// The frame that is being sent.
    current: Option<Part>,
    next_number: u64,
    busy_until: Instant,
    arrivals: VecDeque<(u64, Instant)>,
    told: u64,
    next_feedback: Instant,
    /// On their way back.
    feedbacks: VecDeque<(Instant, Vec<u8>)>,
    stalled_until: Instant,
    /// When a keyframe of which was there as a whole.
    shown: Vec<(Duration, usize)>,
    /// When the keyframe that is being received is there, as far as it has been sent.
    complete: Instant,
    turns: Vec<Duration>,
}

impl Scene {
    fn new(setting: Setting) -> Self {
        let start = Instant::now();
        Self {
            setting,
            random: fastrand::Rng::with_seed(setting.seed),
            start,
            now: start,
            course: Course::new(LADDER.into(), |chosen| chosen, start),
            rings: [Ring::default(), Ring::default()],
            frames: [0; 2],
            asked: BTreeSet::new(),
            current: None,
            next_number: 0,
            busy_until: start,
            arrivals: VecDeque::new(),
            told: 0,
            next_feedback: start,
            feedbacks: VecDeque::new(),
            stalled_until: start,
            shown: Vec::new(),
            complete: start,
            turns: Vec::new(),
        }
    }

    /// The path carries `bits_per_second` for so long.
    fn run(&mut self, duration: Duration, bits_per_second: f64) {
        let end = self.now + duration;
        while self.now < end {
            self.now += TICK;
            self.make_frames();
            self.feed_back();
            if self.random.u32(0..500) == 0 {
                self.stalled_until = self.now + self.setting.stalls.mul_f64(self.random.f64());
            }
            if self.stalled_until <= self.now {
                self.hear();
                self.send(bits_per_second);
            }
        }
    }

    /// They vary by a third; a keyframe is four times as large.
    fn make_frames(&mut self) {
        for (rendition, late) in [(SOURCE, Duration::ZERO), (RUNG, self.setting.rung_late)] {
            let number = self.frames[rendition];
            if self.start + Duration::from_secs(number.into()) / FRAMES_PER_SECOND + late > self.now {
                continue;
            }
            self.frames[rendition] += 1;
            let key = number.is_multiple_of(GROUP) || rendition == RUNG && self.asked.contains(&number);
            let mean = LADDER[LADDER.len() - 1 - rendition] / f64::from(FRAMES_PER_SECOND) / 8.0;
            let bytes = mean * if key { 4.0 } else { 0.62 + self.random.f64() * 0.66 };
            let packets = (bytes / PACKET_BYTES as f64).ceil() as usize;
            let (pts, arrived) = (i64::from(number) * TICKS, self.now);
            self.rings[rendition].push(Entry { pts, key, arrived, bytes: bytes as usize, packets });
        }
    }

    /// What a browser tells: every 50 to 100 ms.
    fn feed_back(&mut self) {
        if self.now < self.next_feedback {
            return;
        }
        self.next_feedback = self.now + Duration::from_millis(self.random.u64(50..100));
        let mut statuses = Vec::new();
        while let Some((number, at)) = self.arrivals.front().copied().filter(|(_, at)| *at <= self.now) {
            self.arrivals.pop_front();
            statuses.resize((number - self.told) as usize, None);
            statuses.push(Some(at - self.start));
        }
        if !statuses.is_empty() {
            let packet = transport_cc(self.told as u16, &statuses);
            self.told += statuses.len() as u64;
            self.feedbacks.push_back((self.now + self.setting.delay, packet));
        }
    }

    fn hear(&mut self) {
        while let Some((_, packet)) = self.feedbacks.pop_front_if(|(at, _)| *at <= self.now) {
            for report in Reports::new(&packet) {
                let Report::TransportCc(feedback) = report else { panic!("{report:?}") };
                self.course.estimator.feedback(&feedback, self.now);
            }
            let Some(turn) = self.course.choose(self.now) else { continue };
            self.turns.push(self.now - self.start);
            if turn.is_flight && self.setting.encoder_listens {
                self.asked.insert(self.frames[SOURCE]);
            }
        }
    }

    /// As viewer.rs does.
    fn send(&mut self, bits_per_second: f64) {
        loop {
            if self.current.is_some() && self.course.pace.due(self.now).is_some() {
                return;
            }
            if let Some(part) = self.current.take() {
                let packets = self.course.pace.packets().min(part.behind + 1);
                self.course.pace.sent(packets * PACKET_BYTES, self.now);
                self.leave(packets, part, bits_per_second);
                let behind = (part.behind + 1).checked_sub(packets + 1);
                self.current = behind.map(|behind| Part { behind, ..part });
                if self.current.is_none() && part.key {
                    self.shown.push((self.complete - self.start, part.rendition));
                }
                continue;
            }
            match self.course.place.next(&self.rings, self.now) {
                Next::Send(entry) => {
                    let (key, behind) = (entry.key, entry.packets - 1);
                    let rendition = self.course.place.rendition().expect("it is sent one");
                    self.current = Some(Part { rendition, key, behind });
                    self.complete = self.now;
                    self.course.began();
                }
                Next::Lost => {}
                Next::Wait(_) | Next::WaitForKey => {
                    self.course.pace.rest();
                    return;
                }
            }
        }
    }

    fn leave(&mut self, packets: usize, part: Part, bits_per_second: f64) {
        let bytes = vec![0; packets * PACKET_BYTES];
        let first = Some(self.next_number);
        let batch = Batch { bytes: &bytes, segment: PACKET_BYTES, packets, transport_sequence: first };
        self.course.estimator.sent(&batch, self.now);
        for _ in 0..packets {
            let arrival = self.enqueue(self.now, bits_per_second);
            if let Some(at) = arrival {
                self.arrivals.push_back((self.next_number, at));
            }
            self.next_number += 1;
            // What is lost is asked for and sent again, until it is there.
            let repaired = arrival.unwrap_or_else(|| {
                let again = self.busy_until + 3 * self.setting.delay + Duration::from_millis(50);
                again + Duration::from_secs_f64(PACKET_BYTES as f64 * 8.0 / bits_per_second)
            });
            if part.key {
                self.complete = self.complete.max(repaired);
            }
        }
    }

    fn enqueue(&mut self, at: Instant, bits_per_second: f64) -> Option<Instant> {
        let starts = self.busy_until.max(at);
        if starts - at > self.setting.queue {
            return None;
        }
        self.busy_until = starts + Duration::from_secs_f64(PACKET_BYTES as f64 * 8.0 / bits_per_second);
        Some(self.busy_until + self.setting.delay)
    }

    /// How long after the path became narrow the rung was there, and how often the viewer was turned in the minute behind that.
    fn narrow(setting: Setting) -> (Duration, usize) {
        let mut scene = Self::new(setting);
        scene.run(Duration::from_secs(20), WIDE);
        let since = scene.now - scene.start;
        scene.run(Duration::from_secs(75), NARROW);
        let turned = scene.shown.iter().find(|(at, rendition)| *rendition == RUNG && *at >= since);
        let fell = turned.map_or(Duration::MAX, |(at, _)| *at - since);
        let turned = since.saturating_add(fell);
        let in_minute = |at: &&Duration| at.saturating_sub(turned) < Duration::from_secs(60) && **at > turned;
        let turns = scene.turns.iter().filter(in_minute).count();
        (fell, turns)
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Feedback of packets from number `base` on, in which each has a chunk of its own
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01, §3.1).
fn transport_cc(base: u16, arrivals: &[Option<Duration>]) -> Vec<u8> {
    let quarters = |at: Duration| (at.as_micros() / 250) as i64;
    let reference = arrivals.iter().flatten().next().map_or(0, |at| at.as_millis() as u32 / 64);
    let mut clock = i64::from(reference) * 256;
    let (mut chunks, mut deltas) = (Vec::new(), Vec::new());
    for arrival in arrivals {
        let symbol: u16 = if arrival.is_some() { 2 } else { 0 };
        chunks.extend_from_slice(&(symbol << 13 | 1).to_be_bytes());
        if let Some(at) = arrival {
            let delta = quarters(*at) - std::mem::replace(&mut clock, quarters(*at));
            deltas.extend_from_slice(&i16::try_from(delta).unwrap().to_be_bytes());
        }
    }
    let mut packet = vec![0x8F, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11];
    packet.extend_from_slice(&base.to_be_bytes());
    packet.extend_from_slice(&(arrivals.len() as u16).to_be_bytes());
    packet.extend_from_slice(&(reference << 8).to_be_bytes());
    packet.extend_from_slice(&[chunks, deltas].concat());
    packet.resize(packet.len().next_multiple_of(4), 0);
    let words = (packet.len() / 4 - 1) as u16;
    packet[2..4].copy_from_slice(&words.to_be_bytes());
    packet
}

/// From 4 Mbit/s to 0.8.
#[test]
fn a_path_that_shrinks_has_the_rung_on_the_screen_within_three_seconds() {
    let mut slowest = Duration::ZERO;
    for (delay, queue) in [(5, 60), (5, 300), (40, 60), (40, 300), (40, 1_000), (100, 300), (100, 1_000)] {
        for seed in 1..9 {
            let setting = Setting {
                seed,
                delay: ms(delay),
                queue: ms(queue),
                rung_late: ms(100 + 25 * seed),
                encoder_listens: true,
                stalls: Duration::ZERO,
            };
            let (fell, turns) = Scene::narrow(setting);
            assert!(fell <= Duration::from_secs(3) && turns <= 2, "{fell:?}, {turns} turns: {setting:?}");
            slowest = slowest.max(fell);
        }
    }
    println!("the slowest after {slowest:?}");
}

/// Keyframes and repairs would only wait there, or be lost, and what the viewer flees to behind them.
#[test]
fn a_queue_that_stands_is_sent_at_a_pace_without_slack() {
    let setting = Setting {
        seed: 1,
        delay: ms(40),
        queue: ms(300),
        rung_late: ms(100),
        encoder_listens: true,
        stalls: Duration::ZERO,
    };
    let mut scene = Scene::new(setting);
    scene.run(Duration::from_secs(20), WIDE);
    let mut seen = [0; 2];
    for _ in 0..300 {
        scene.run(ms(10), NARROW);
        if scene.course.estimator.estimate(scene.now).is_queued {
            let rendition = scene.course.place.rendition().expect("it is sent one");
            // Of what each needs on average, in 50 ms.
            let most = [15, 4][rendition];
            assert!(scene.course.pace.packets() <= most, "rendition {rendition}: {:?}", scene.course.pace);
            seen[rendition] += 1;
        }
    }
    assert!(seen.iter().all(|moments| *moments > 0), "{seen:?}");
}

/// The thread is kept from its viewers, rungs are made late, and nobody answers: it takes longer, and not for ever.
#[test]
fn on_a_busy_machine_a_viewer_leaves_what_its_path_does_not_carry_too() {
    let mut slowest = Duration::ZERO;
    for seed in 1..33 {
        let setting = Setting {
            seed,
            delay: ms(40),
            queue: ms(if seed.is_multiple_of(3) { 1_000 } else { 300 }),
            rung_late: ms(60 * seed),
            encoder_listens: seed.is_multiple_of(2),
            stalls: ms(800),
        };
        let (fell, _) = Scene::narrow(setting);
        assert!(fell <= Duration::from_secs(10), "{fell:?}: {setting:?}");
        slowest = slowest.max(fell);
    }
    println!("the slowest after {slowest:?}");
}
