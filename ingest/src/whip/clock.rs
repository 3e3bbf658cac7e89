//! RTP time of a publisher's tracks onto one clock in milliseconds, which `timeline.rs` takes for the publisher's. Pure.
//!
//! Every track counts from a random number, at its own rate. Until more is known, a track's first packet is when it
//! arrived. Sender reports then tell one time of both (RFC 3550, §6.4.1): the sound is moved to where it belongs beside
//! the picture, and left out for as long as that is before what has been heard. The picture is never moved, so that its frames
//! stay as even as they were taken.
//!
//! Layers of the picture are encoded of the same frames, and each counts from a random number of its own. The first of them
//! that comes is the picture of above; another is put beside it by sender reports, too, and is of no use before. Reports of browsers
//! are exact to a millisecond or two. That is all the difference there is between the stamps of one frame in two layers: from
//! there on both count the same clock.

use std::collections::VecDeque;
use std::time::Instant;

use super::offer::LAYERS_MAX;
use super::reorder::Flow;

/// Sound is moved only if it is further off than this, in milliseconds: it cannot be seen (ITU-R BT.1359 tolerates 45 ms
/// of sound that leads), and stays within what `timeline.rs` counts samples over.
const SKEW_MIN_MS: f64 = 15.0;

/// Of so many sender reports the one counts that was written soonest after its media was taken. Some senders (aiortc) write the time
/// of the last packet beside the time at which it was sent, which is later by what encoding and a busy machine take, each time
/// another; sound that followed each of them would be cut every few seconds.
const REPORTS: usize = 8;

/// The same of a layer that stands already where a report has put it.
const LAYER_SKEW_MIN_MS: f64 = 8.0;

/// A report that would move a track further than this, in milliseconds, is one of a broken clock.
const SKEW_MAX_MS: f64 = 5_000.0;

/// A stamp further behind its arrival than this, in milliseconds, is of another clock, and not late on its way.
const BEHIND_MAX_MS: f64 = 10_000.0;
/// Nothing arrives before it is taken: what is further ahead is of another clock, or of one that is too fast and was so
/// for hours.
const AHEAD_MAX_MS: f64 = 2_000.0;

#[derive(Debug)]
pub(super) struct Clock {
    /// Milliseconds of it are told from here on.
    start: Instant,
    layers: [Track; LAYERS_MAX],
    /// The layer that the others are put beside.
    first: Option<usize>,
    audio: Track,
}

#[derive(Debug)]
struct Track {
    /// Ticks in a second.
    rate: f64,
    anchor: Option<Anchor>,
    /// The newest sender reports: RTP time, unwrapped, and the sender's seconds.
    reports: VecDeque<(i64, f64)>,
    /// In milliseconds, since it began to count.
    stamped: f64,
    /// Stands where it belongs beside the picture.
    is_aligned: bool,
}

/// RTP time and what it is in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    ticks: i64,
    millis: f64,
    /// The newest time seen.
    newest: i64,
}

impl Clock {
    pub(super) fn new(start: Instant) -> Self {
        let layers = std::array::from_fn(|_| Track::new(90_000.0));
        Self { start, layers, first: None, audio: Track::new(48_000.0) }
    }

    /// The stamp of what was taken at RTP time `timestamp` and arrived `now`, as a publisher that counts in milliseconds
    /// would have written it; it wraps at 32 bits. `None` of a layer that nobody has said yet when it was taken, and of sound that
    /// has been moved back to before what was stamped already.
    pub(super) fn stamp(&mut self, flow: Flow, timestamp: u32, arrived: Instant) -> Option<u32> {
        let arrived_ms = arrived.saturating_duration_since(self.start).as_secs_f64() * 1000.0;
        let is_first = match flow {
            Flow::Audio => true,
            Flow::Video(layer) => *self.first.get_or_insert(layer) == layer,
        };
        let track = self.track(flow);
        let millis = track.millis(timestamp, arrived_ms);
        track.is_aligned |= is_first;
        if flow == Flow::Audio && millis < track.stamped {
            return None;
        }
        track.stamped = millis;
        track.is_aligned.then_some(millis.round() as i64 as u32)
    }

    /// A sender report: at `ntp` (RFC 3550, §4: 32.32 bits of seconds) the track's clock showed `timestamp`.
    pub(super) fn report(&mut self, flow: Flow, ntp: u64, timestamp: u32) {
        let seconds = ntp as f64 / (1_u64 << 32) as f64;
        let track = self.track(flow);
        let Some(anchor) = track.anchor else { return };
        if track.reports.len() == REPORTS {
            track.reports.pop_front();
        }
        track.reports.push_back((unwrap(timestamp, anchor.newest), seconds));
        self.align();
    }

    /// Moves the sound and the other layers to where the picture of the same moment is.
    fn align(&mut self) {
        let Some(first) = self.first else { return };
        let Some(video) = self.layers[first].sender_offset_ms() else { return };
        for (layer, track) in self.layers.iter_mut().enumerate() {
            if layer != first {
                let skew_min = if track.is_aligned { LAYER_SKEW_MIN_MS } else { 0.0 };
                track.align(video, skew_min);
            }
        }
        self.audio.align(video, SKEW_MIN_MS);
    }

    fn track(&mut self, flow: Flow) -> &mut Track {
        match flow {
            // The offer has no more.
            Flow::Video(layer) => &mut self.layers[layer.min(LAYERS_MAX - 1)],
            Flow::Audio => &mut self.audio,
        }
    }
}

impl Track {
    fn new(rate: f64) -> Self {
        Self { rate, anchor: None, reports: VecDeque::new(), stamped: f64::NEG_INFINITY, is_aligned: false }
    }

    fn millis(&mut self, timestamp: u32, arrived_ms: f64) -> f64 {
        let anchor = match self.anchor {
            Some(anchor)
                if (-BEHIND_MAX_MS..AHEAD_MAX_MS).contains(&(self.at(&anchor, timestamp) - arrived_ms)) =>
            {
                anchor
            }
            _ => {
                self.reports.clear();
                (self.stamped, self.is_aligned) = (f64::NEG_INFINITY, false);
                let ticks = i64::from(timestamp);
                Anchor { ticks, millis: arrived_ms, newest: ticks }
            }
        };
        let ticks = unwrap(timestamp, anchor.newest);
        self.anchor = Some(Anchor { newest: anchor.newest.max(ticks), ..anchor });
        self.at(&anchor, timestamp)
    }

    fn at(&self, anchor: &Anchor, timestamp: u32) -> f64 {
        let ticks = unwrap(timestamp, anchor.newest) - anchor.ticks;
        anchor.millis + ticks as f64 * 1000.0 / self.rate
    }

    /// `video`: what is added to the sender's time, in milliseconds, to get the picture's.
    fn align(&mut self, video: f64, skew_min: f64) {
        let Some(own) = self.sender_offset_ms() else { return };
        let skew = video - own;
        if skew.abs() >= SKEW_MAX_MS {
            return;
        }
        self.is_aligned = true;
        if let Some(anchor) = &mut self.anchor
            && skew.abs() >= skew_min
        {
            anchor.millis += skew;
        }
    }

    /// What is added to the sender's time, in milliseconds, to get ours.
    fn sender_offset_ms(&self) -> Option<f64> {
        let anchor = self.anchor?;
        let offsets = self.reports.iter().map(|(ticks, seconds)| {
            let millis = anchor.millis + (ticks - anchor.ticks) as f64 * 1000.0 / self.rate;
            millis - seconds * 1000.0
        });
        offsets.max_by(f64::total_cmp)
    }
}

/// The time nearest to `near` whose low 32 bits are `timestamp`.
fn unwrap(timestamp: u32, near: i64) -> i64 {
    near + i64::from(timestamp.wrapping_sub(near as u32) as i32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ntp(seconds: f64) -> u64 {
        // Of 2026, where 32.32 bits have 31 of seconds.
        ((3_990_000_000.0 + seconds) * (1_u64 << 32) as f64) as u64
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// Threat 24: 90 kHz wraps every 13 hours, and begins anywhere.
    #[test]
    fn rtp_time_goes_on_over_its_wrap() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        let first = u32::MAX - 90_000;
        let stamps: Vec<_> = (0..100)
            .map(|n| {
                clock
                    .stamp(Flow::Video(0), first.wrapping_add(n * 3_000), at(start, u64::from(n) * 33))
                    .unwrap()
            })
            .collect();
        assert_eq!(stamps[0], 0);
        assert!(stamps.windows(2).all(|two| (33..=34).contains(&(two[1] - two[0]))), "{stamps:?}");
        assert_eq!(stamps[99], 3_300);
    }

    /// A picture that is late on its way has the time at which it was taken.
    #[test]
    fn arrival_matters_for_the_first_only() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.stamp(Flow::Video(0), 7, at(start, 50)), Some(50));
        assert_eq!(clock.stamp(Flow::Video(0), 7 + 9_000, at(start, 400)), Some(150));
        // B-frames are stamped out of order.
        assert_eq!(clock.stamp(Flow::Video(0), 7 + 4_500, at(start, 410)), Some(100));
    }

    #[test]
    fn sender_reports_move_the_sound_to_the_picture() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        // The picture of second 0 took 200 ms to be encoded and sent, the sound of it 20 ms.
        assert_eq!(clock.stamp(Flow::Audio, 1_000, at(start, 20)), Some(20));
        assert_eq!(clock.stamp(Flow::Video(0), 500_000, at(start, 200)), Some(200));
        clock.report(Flow::Video(0), ntp(1.0), 500_000 + 90_000);
        assert_eq!(
            clock.stamp(Flow::Audio, 1_000 + 48_000, at(start, 1_020)),
            Some(1_020),
            "one report says nothing"
        );
        clock.report(Flow::Audio, ntp(1.0), 1_000 + 48_000);
        assert_eq!(clock.stamp(Flow::Audio, 1_000 + 96_000, at(start, 2_020)), Some(2_200));
        assert_eq!(clock.stamp(Flow::Video(0), 500_000 + 180_000, at(start, 2_200)), Some(2_200));
        // Once is enough: what is left is below what can be seen.
        clock.report(Flow::Audio, ntp(2.01), 1_000 + 96_000);
        assert_eq!(clock.stamp(Flow::Audio, 1_000 + 96_000, at(start, 2_020)), Some(2_200));
    }

    /// As ffmpeg does when the handshake has taken half a second: all of that comes at once, and the picture begins later.
    #[test]
    fn sound_that_is_moved_back_is_left_out_until_it_is_new() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.stamp(Flow::Audio, 0, at(start, 600)), Some(600));
        assert_eq!(clock.stamp(Flow::Video(0), 180_000, at(start, 2_067)), Some(2_067));
        assert_eq!(clock.stamp(Flow::Audio, 240_000, at(start, 5_067)), Some(5_600));
        clock.report(Flow::Video(0), ntp(5.0), 450_000);
        clock.report(Flow::Audio, ntp(5.0), 240_000);
        assert_eq!(clock.stamp(Flow::Audio, 240_960, at(start, 5_087)), None);
        assert_eq!(clock.stamp(Flow::Audio, 265_536, at(start, 5_599)), None);
        assert_eq!(clock.stamp(Flow::Audio, 266_496, at(start, 5_619)), Some(5_619));
        assert_eq!(clock.stamp(Flow::Video(0), 499_500, at(start, 5_620)), Some(5_617));
        // Another clock is no sound of before.
        assert_eq!(clock.stamp(Flow::Audio, 4_000_000_000, at(start, 5_600)), Some(5_600));
    }

    /// As aiortc does on a busy machine: each report is late, now by this much and now by that.
    #[test]
    fn reports_that_are_late_do_not_push_the_sound_to_and_fro() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.stamp(Flow::Video(0), 0, at(start, 0));
        clock.stamp(Flow::Audio, 0, at(start, 0));
        let late = [[0.0, 0.05], [0.09, 0.0], [0.04, 0.03], [0.0, 0.07], [0.08, 0.01]];
        let mut moves = 0;
        let mut before = 0;
        for (second, [video, audio]) in (1_u32..).zip(late.into_iter().cycle().take(30)) {
            clock.report(Flow::Video(0), ntp(f64::from(second) + video), second * 90_000);
            clock.report(Flow::Audio, ntp(f64::from(second) + audio), second * 48_000);
            let now =
                clock.stamp(Flow::Audio, second * 48_000, at(start, u64::from(second) * 1_000)).unwrap();
            let skew = i64::from(now) - i64::from(second) * 1_000;
            moves += u32::from(skew != before);
            before = skew;
        }
        assert!(before.abs() <= 15, "the sound is {before} ms from where it belongs");
        assert!(moves <= 2, "it was moved {moves} times");
    }

    /// Threat: a report whose clock is hours away.
    #[test]
    fn a_report_of_another_clock_moves_nothing() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.report(Flow::Audio, ntp(0.0), 5);
        assert_eq!(clock.stamp(Flow::Audio, 1_000, start), Some(0));
        assert_eq!(clock.stamp(Flow::Video(0), 1_000, start), Some(0));
        clock.report(Flow::Video(0), ntp(0.0), 1_000);
        for seconds in [-3_600.0, 3_600.0] {
            clock.report(Flow::Audio, ntp(seconds), 1_000);
            assert_eq!(clock.stamp(Flow::Audio, 1_000 + 4_800, at(start, 100)), Some(100));
        }
        clock.report(Flow::Audio, 0, 0);
        clock.report(Flow::Audio, u64::MAX, u32::MAX);
        assert_eq!(clock.stamp(Flow::Audio, 1_000 + 4_800, at(start, 100)), Some(100));
    }

    /// A browser that changes its camera begins to count anew, and its reports are of the new count.
    #[test]
    fn another_clock_begins_when_it_comes() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.stamp(Flow::Video(0), 1_000, start), Some(0));
        assert_eq!(clock.stamp(Flow::Video(0), 2_000_000_000, at(start, 5_000)), Some(5_000));
        assert_eq!(clock.stamp(Flow::Video(0), 2_000_000_000 + 9_000, at(start, 5_100)), Some(5_100));
    }

    /// Two layers of one frame, each with a count of its own, one of them later on its way.
    #[test]
    fn sender_reports_put_layers_beside_the_first() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.stamp(Flow::Video(2), 1_000, at(start, 40)), Some(40));
        assert_eq!(clock.stamp(Flow::Video(0), 4_000_000_000, at(start, 90)), None, "nobody knows");
        clock.report(Flow::Video(0), ntp(0.5), 4_000_000_000 + 45_000);
        assert_eq!(clock.stamp(Flow::Video(0), 4_000_003_000, at(start, 120)), None);
        clock.report(Flow::Video(2), ntp(0.5), 1_000 + 45_000);
        assert_eq!(clock.stamp(Flow::Video(0), 4_000_000_000 + 90_000, at(start, 1_100)), Some(1_040));
        assert_eq!(clock.stamp(Flow::Video(2), 1_000 + 90_000, at(start, 1_045)), Some(1_040));
        // What a report is inexact by does not make the frames uneven.
        clock.report(Flow::Video(0), ntp(1.503), 4_000_000_000 + 135_000);
        assert_eq!(clock.stamp(Flow::Video(0), 4_000_000_000 + 180_000, at(start, 2_100)), Some(2_040));
        // It was turned off, and begins anew with another count.
        assert_eq!(clock.stamp(Flow::Video(0), 77, at(start, 60_000)), None);
        clock.report(Flow::Video(0), ntp(60.0), 77);
        assert_eq!(clock.stamp(Flow::Video(0), 77 + 9_000, at(start, 60_150)), Some(60_140));
    }
}
