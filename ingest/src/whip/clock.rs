//! RTP time of a publisher's tracks onto one clock in milliseconds, which `timeline.rs` takes for the publisher's. Pure.
//!
//! Every track counts from a random number, at its own rate. Until more is known, a track's first packet is when it
//! arrived. Sender reports then tell one time of both (RFC 3550, §6.4.1): the sound is moved to where it belongs beside
//! the picture. The picture is never moved, so that its frames stay as even as they were taken.

use std::time::Instant;

use media::TrackKind;

/// Sound is moved only if it is further off than this, in milliseconds: it cannot be seen (ITU-R BT.1359 tolerates 45 ms
/// of sound that leads), and stays within what `timeline.rs` counts samples over.
const SKEW_MIN_MS: f64 = 15.0;

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
    video: Track,
    audio: Track,
}

#[derive(Debug)]
struct Track {
    /// Ticks in a second.
    rate: f64,
    anchor: Option<Anchor>,
    /// The newest sender report: RTP time, unwrapped, and the sender's seconds.
    report: Option<(i64, f64)>,
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
        Self { start, video: Track::new(90_000.0), audio: Track::new(48_000.0) }
    }

    /// The stamp of what was taken at RTP time `timestamp` and arrived `now`, as a publisher that counts in milliseconds
    /// would have written it; it wraps at 32 bits.
    pub(super) fn stamp(&mut self, kind: TrackKind, timestamp: u32, arrived: Instant) -> u32 {
        let arrived_ms = arrived.saturating_duration_since(self.start).as_secs_f64() * 1000.0;
        let millis = self.track(kind).millis(timestamp, arrived_ms);
        millis.round() as i64 as u32
    }

    /// A sender report: at `ntp` (RFC 3550, §4: 32.32 bits of seconds) the track's clock showed `timestamp`.
    pub(super) fn report(&mut self, kind: TrackKind, ntp: u64, timestamp: u32) {
        let seconds = ntp as f64 / (1_u64 << 32) as f64;
        let track = self.track(kind);
        let Some(anchor) = track.anchor else { return };
        track.report = Some((unwrap(timestamp, anchor.newest), seconds));
        self.align();
    }

    /// Moves the sound to where the picture of the same moment is.
    fn align(&mut self) {
        let (Some(video), Some(audio)) = (self.video.sender_offset_ms(), self.audio.sender_offset_ms())
        else {
            return;
        };
        let skew = video - audio;
        if let Some(anchor) = &mut self.audio.anchor
            && (SKEW_MIN_MS..SKEW_MAX_MS).contains(&skew.abs())
        {
            anchor.millis += skew;
        }
    }

    fn track(&mut self, kind: TrackKind) -> &mut Track {
        match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }
}

impl Track {
    fn new(rate: f64) -> Self {
        Self { rate, anchor: None, report: None }
    }

    fn millis(&mut self, timestamp: u32, arrived_ms: f64) -> f64 {
        let anchor = match self.anchor {
            Some(anchor)
                if (-BEHIND_MAX_MS..AHEAD_MAX_MS).contains(&(self.at(&anchor, timestamp) - arrived_ms)) =>
            {
                anchor
            }
            _ => {
                self.report = None;
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

    /// What is added to the sender's time, in milliseconds, to get ours.
    fn sender_offset_ms(&self) -> Option<f64> {
        let (ticks, seconds) = self.report?;
        let anchor = self.anchor?;
        let millis = anchor.millis + (ticks - anchor.ticks) as f64 * 1000.0 / self.rate;
        Some(millis - seconds * 1000.0)
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
                clock.stamp(TrackKind::Video, first.wrapping_add(n * 3_000), at(start, u64::from(n) * 33))
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
        assert_eq!(clock.stamp(TrackKind::Video, 7, at(start, 50)), 50);
        assert_eq!(clock.stamp(TrackKind::Video, 7 + 9_000, at(start, 400)), 150);
        // B-frames are stamped out of order.
        assert_eq!(clock.stamp(TrackKind::Video, 7 + 4_500, at(start, 410)), 100);
    }

    #[test]
    fn sender_reports_move_the_sound_to_the_picture() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        // The picture of second 0 took 200 ms to be encoded and sent, the sound of it 20 ms.
        assert_eq!(clock.stamp(TrackKind::Audio, 1_000, at(start, 20)), 20);
        assert_eq!(clock.stamp(TrackKind::Video, 500_000, at(start, 200)), 200);
        clock.report(TrackKind::Video, ntp(1.0), 500_000 + 90_000);
        assert_eq!(
            clock.stamp(TrackKind::Audio, 1_000 + 48_000, at(start, 1_020)),
            1_020,
            "one report says nothing"
        );
        clock.report(TrackKind::Audio, ntp(1.0), 1_000 + 48_000);
        assert_eq!(clock.stamp(TrackKind::Audio, 1_000 + 96_000, at(start, 2_020)), 2_200);
        assert_eq!(clock.stamp(TrackKind::Video, 500_000 + 180_000, at(start, 2_200)), 2_200);
        // Once is enough: what is left is below what can be seen.
        clock.report(TrackKind::Audio, ntp(2.01), 1_000 + 96_000);
        assert_eq!(clock.stamp(TrackKind::Audio, 1_000 + 96_000, at(start, 2_020)), 2_200);
    }

    /// Threat: a report whose clock is hours away.
    #[test]
    fn a_report_of_another_clock_moves_nothing() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.report(TrackKind::Audio, ntp(0.0), 5);
        assert_eq!(clock.stamp(TrackKind::Audio, 1_000, start), 0);
        assert_eq!(clock.stamp(TrackKind::Video, 1_000, start), 0);
        clock.report(TrackKind::Video, ntp(0.0), 1_000);
        for seconds in [-3_600.0, 3_600.0] {
            clock.report(TrackKind::Audio, ntp(seconds), 1_000);
            assert_eq!(clock.stamp(TrackKind::Audio, 1_000 + 4_800, at(start, 100)), 100);
        }
        clock.report(TrackKind::Audio, 0, 0);
        clock.report(TrackKind::Audio, u64::MAX, u32::MAX);
        assert_eq!(clock.stamp(TrackKind::Audio, 1_000 + 4_800, at(start, 100)), 100);
    }

    /// A browser that changes its camera begins to count anew, and its reports are of the new count.
    #[test]
    fn another_clock_begins_when_it_comes() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.stamp(TrackKind::Video, 1_000, start), 0);
        assert_eq!(clock.stamp(TrackKind::Video, 2_000_000_000, at(start, 5_000)), 5_000);
        assert_eq!(clock.stamp(TrackKind::Video, 2_000_000_000 + 9_000, at(start, 5_100)), 5_100);
    }
}
