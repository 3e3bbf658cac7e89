//! The registry every role adds its metrics to, and what the process tells about itself.

pub(crate) mod port;

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::cli;

/// Ticks per second of the CPU times in /proc: `USER_HZ`, which is 100 for programs on every Linux.
const CPU_TICKS_PER_SECOND: f64 = 100.0;

pub(crate) fn registry() -> Registry {
    let mut registry = Registry::with_prefix("tidecast");
    let build = Info::new([("version", cli::VERSION_NUMBER), ("commit", cli::COMMIT)]);
    registry.register("build", "The running build", build);
    registry.register_collector(Box::new(Process { start: SystemTime::now() }));
    registry
}

/// Reads /proc when it is asked, so that nothing runs between scrapes. Where there is no /proc, values are missing
/// rather than zero.
#[derive(Debug)]
struct Process {
    start: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Unit, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, Some(&unit), gauge.metric_type())?)
        };
        let start = self.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge(
            "process_start_time",
            "When the process started, since the Unix epoch",
            Unit::Seconds,
            start.as_secs_f64(),
        )?;
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes)
        {
            gauge("process_resident_memory", "Memory in RAM", Unit::Bytes, bytes)?;
        }
        if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
            let cpu = ConstCounter::new(seconds);
            let help = "CPU time used by all threads, in user space and in the kernel";
            cpu.encode(encoder.encode_descriptor(
                "process_cpu",
                help,
                Some(&Unit::Seconds),
                cpu.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// proc_pid_status(5): `VmRSS:      1234 kB`.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// proc_pid_stat(5): fields 14 (utime) and 15 (stime). Field 2, the name in parentheses, may hold spaces and
/// parentheses itself, so fields are counted from the last one.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / CPU_TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_as_documented() {
        let stat = "42 (tide) cast) S 1 42 42 0 -1 4194560 100 0 0 0 150 75 0 0 20 0 3 0 900 1000 200";
        assert_eq!(cpu_seconds(stat), Some(2.25));
        assert_eq!(resident_bytes("Name:\ttidecast\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        for broken in ["", "42 (tidecast", "42 (tidecast) S 1", "VmRSS: many kB"] {
            assert_eq!(cpu_seconds(broken), None);
            assert_eq!(resident_bytes(broken), None);
        }
    }

    #[test]
    fn names_carry_the_prefix_and_the_unit() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry()).unwrap();
        for sample in [
            "tidecast_build_info{version=\"",
            "tidecast_process_start_time_seconds ",
            "tidecast_process_resident_memory_bytes ",
            "tidecast_process_cpu_seconds_total ",
        ] {
            assert!(text.contains(&format!("\n{sample}")), "{sample} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
