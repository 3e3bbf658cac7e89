//! Clocks and samples.

use std::fs;
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Measurements of one thing, in the unit of whoever took them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.quantile(1.0)
    }

    /// Of an even number the mean of the two in the middle: of two rounds it must not be the better one.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.get(half) {
            Some(upper) if sorted.len().is_multiple_of(2) => (sorted[half - 1] + upper) / 2.0,
            Some(middle) => *middle,
            None => f64::NAN,
        }
    }

    /// The value that `share` of all are not above; NaN, which meets no target, without any.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Measures all `sides` in turn, round after round, so that whatever else the machine does disturbs them alike. A
/// first round warms up and is not counted.
pub(crate) fn interleaved<const N: usize>(
    rounds: usize,
    mut sides: [&mut dyn FnMut() -> f64; N],
) -> [Samples; N] {
    let mut samples = [const { Samples(Vec::new()) }; N];
    for round in 0..=rounds {
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            let value = side();
            if round > 0 {
                samples.push(value);
            }
        }
    }
    samples
}

/// Runs `work` on this thread, and says how much CPU time it took.
pub(crate) fn cpu_time_of(work: impl FnOnce()) -> Duration {
    let before = thread_cpu_time();
    work();
    thread_cpu_time() - before
}

pub(crate) fn thread_cpu_time() -> Duration {
    cpu_time(ClockId::ThreadCPUTime)
}

/// Of all threads of this process, since it began.
pub(crate) fn process_cpu_time() -> Duration {
    cpu_time(ClockId::ProcessCPUTime)
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Of the last minute, and on how many cores: a reader must know what else the machine was doing.
pub(crate) fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    format!("{load} on {} cores", thread::available_parallelism().map_or(0, NonZero::get))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark plays in real time and looks at rounds of fixed length"
)]
pub(crate) fn sleep_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

pub(crate) fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_medians_of_few_samples_do_not_flatter() {
        let samples = |values: &[f64]| Samples(values.to_vec());
        assert_eq!(samples(&[3.0, 1.0]).median(), 2.0);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).quantile(0.99), 3.0);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).min(), 1.0);
        assert!(Samples::default().median().is_nan() && Samples::default().quantile(0.5).is_nan());
    }
}
