//! Whether a server stayed as large as it was. Pure.
//!
//! ```text
//!   |- settling -|-- early --|· · · · · · · ·|-- late --|
//!   0          5 min      10 min                       end
//! ```
//!
//! The median of the late window may be at most so much above that of the early one. A median, because at any moment
//! some sessions are ending and others beginning; windows of the same length, because the load is the same in both.
//! The line of least squares through everything after the settling must not rise by more either: it also sees what
//! a last window might have missed by luck.

use std::ops::Range;
use std::time::Duration;

use crate::measure::Samples;

/// The store of a stream is full after a minute or two, and the heap some time later.
const SETTLING_MAX: Duration = Duration::from_secs(5 * 60);
const WINDOW_MAX: Duration = Duration::from_secs(5 * 60);

/// One look at the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) resident_mb: f64,
    pub(crate) descriptors: f64,
    pub(crate) threads: f64,
    /// Since it began.
    pub(crate) cpu_s: f64,
    /// What the viewers have got, since they began.
    pub(crate) viewed_mb: f64,
}

/// What is compared with what, since the start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Windows {
    pub(crate) early: Range<Duration>,
    pub(crate) late: Range<Duration>,
}

impl Windows {
    /// In a run too short for all of them, half of it is for settling, and the windows share the rest.
    pub(crate) fn of(run: Duration) -> Self {
        let settled = SETTLING_MAX.min(run / 2);
        let length = WINDOW_MAX.min((run - settled) / 2);
        Self { early: settled..settled + length, late: run - length..run }
    }

    /// Both windows and everything between them.
    pub(crate) fn judged(&self) -> Range<Duration> {
        self.early.start..self.late.end
    }
}

pub(crate) fn median(samples: &[Sample], window: &Range<Duration>, what: fn(&Sample) -> f64) -> f64 {
    let mut values = Samples::default();
    samples.iter().filter(|sample| window.contains(&sample.at)).for_each(|sample| values.push(what(sample)));
    values.median()
}

/// How much a total grew per second.
pub(crate) fn rate(samples: &[Sample], window: &Range<Duration>, total: fn(&Sample) -> f64) -> f64 {
    let mut inside = samples.iter().filter(|sample| window.contains(&sample.at));
    let (Some(first), Some(last)) = (inside.next(), inside.next_back()) else { return f64::NAN };
    (total(last) - total(first)) / (last.at - first.at).as_secs_f64()
}

/// Of the line of least squares, per second.
pub(crate) fn slope(samples: &[Sample], window: &Range<Duration>, what: fn(&Sample) -> f64) -> f64 {
    let points: Vec<_> = samples
        .iter()
        .filter(|sample| window.contains(&sample.at))
        .map(|sample| (sample.at.as_secs_f64(), what(sample)))
        .collect();
    let count = points.len() as f64;
    let (mean_x, mean_y) =
        points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (covariance, variance) = points.iter().fold((0.0, 0.0), |(covariance, variance), (x, y)| {
        (covariance + (x - mean_x) * (y - mean_y), variance + (x - mean_x).powi(2))
    });
    covariance / variance
}

/// In percent of `before`.
pub(crate) fn growth(before: f64, after: f64) -> f64 {
    (after / before - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A sample every five seconds.
    fn run(minutes: u32, resident_mb: impl Fn(f64) -> f64) -> Vec<Sample> {
        let times = (0..minutes * 12).map(|sample| Duration::from_secs(5) * sample);
        let sample = |at: Duration| Sample {
            at,
            resident_mb: resident_mb(at.as_secs_f64()),
            descriptors: 100.0,
            threads: 5.0,
            cpu_s: at.as_secs_f64() / 10.0,
            viewed_mb: 0.0,
        };
        times.map(sample).collect()
    }

    #[test]
    fn minutes_five_to_ten_are_compared_with_the_last_five() {
        let windows = Windows::of(60 * MINUTE);
        assert_eq!(windows, Windows { early: 5 * MINUTE..10 * MINUTE, late: 55 * MINUTE..60 * MINUTE });
        assert_eq!(windows.judged(), 5 * MINUTE..60 * MINUTE);
    }

    #[test]
    fn the_windows_of_a_short_run_never_overlap() {
        for seconds in [2, 120, 300, 600, 700, 900, 1_000] {
            let run = Duration::from_secs(seconds);
            let Windows { early, late } = Windows::of(run);
            assert!(early.end <= late.start && late.end == run, "{seconds} s");
            assert_eq!(early.end - early.start, late.end - late.start);
        }
    }

    #[test]
    fn a_leak_is_seen_by_both_measures_and_the_settling_by_none() {
        let windows = Windows::of(60 * MINUTE);
        let resident = |sample: &Sample| sample.resident_mb;
        // Grows to 50 MB within four minutes, then by a byte and a half for each 1,000 and minute.
        let leaking = run(60, |s| 50.0 * (s / 240.0).min(1.0) + s / 60.0 * 0.075);
        let (early, late) =
            (median(&leaking, &windows.early, resident), median(&leaking, &windows.late, resident));
        assert!((growth(early, late) - 7.4).abs() < 0.1, "{}", growth(early, late));
        let slope_per_minute = slope(&leaking, &windows.judged(), resident) * 60.0;
        assert!((slope_per_minute - 0.075).abs() < 1e-6, "{slope_per_minute}");

        let flat = run(60, |s| 50.0 * (s / 240.0).min(1.0));
        assert_eq!(median(&flat, &windows.early, resident), median(&flat, &windows.late, resident));
        assert!(slope(&flat, &windows.judged(), resident).abs() < 1e-9);
    }

    #[test]
    fn one_peak_is_no_growth() {
        let windows = Windows::of(10 * MINUTE);
        let peak = run(10, |s| if (560.0..580.0).contains(&s) { 90.0 } else { 50.0 });
        assert_eq!(median(&peak, &windows.late, |sample| sample.resident_mb), 50.0);
    }

    #[test]
    fn a_rate_is_that_of_the_window() {
        assert!((rate(&run(10, |_| 0.0), &(MINUTE..2 * MINUTE), |sample| sample.cpu_s) - 0.1).abs() < 1e-9);
        assert!(rate(&[], &(MINUTE..2 * MINUTE), |sample| sample.cpu_s).is_nan());
    }
}
