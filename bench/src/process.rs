//! Server processes under measurement: `tidecast` and nginx.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use relay::Identity;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;

use crate::http::Connection;
use crate::measure::sleep;

const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// Of `utime` and `stime` in /proc: USER_HZ, which is 100 on every Linux we know.
const TICKS_PER_SECOND: f64 = 100.0;

/// A child that is asked to end when this is dropped.
pub(crate) struct Process {
    child: Child,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) resident_mb: f64,
    pub(crate) resident_peak_mb: f64,
    pub(crate) threads: f64,
    /// Open files and sockets.
    pub(crate) descriptors: f64,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self { child: child.with_context(|| format!("cannot start {:?}", command.get_program()))? })
    }

    /// Of the process and its children.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut left = vec![self.child.id()];
        while let Some(pid) = left.pop() {
            usage += Usage::of(pid)?;
            left.extend(children(pid)?);
        }
        Ok(usage)
    }

    /// Of the process without its children.
    pub(crate) fn usage_alone(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Fails if it ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "it ended by itself: {ended:?}");
        Ok(())
    }
}

impl Usage {
    fn of(pid: u32) -> Result<Self> {
        // The name in parentheses may hold anything; what is counted comes behind it (proc(5)).
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = (ticks(11).context("utime")?, ticks(12).context("stime")?);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            cpu_s: (user + system) / TICKS_PER_SECOND,
            resident_mb: megabytes(&status, "VmRSS:")?,
            resident_peak_mb: megabytes(&status, "VmHWM:")?,
            threads: value(&status, "Threads:")?.parse()?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64,
        })
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu_s += other.cpu_s;
        self.resident_mb += other.resident_mb;
        self.resident_peak_mb += other.resident_peak_mb;
        self.threads += other.threads;
        self.descriptors += other.descriptors;
    }
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            sleep(POLL);
        }
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(value.with_context(|| name.to_owned())?.trim())
}

fn megabytes(status: &str, name: &str) -> Result<f64> {
    let kibibytes: f64 = value(status, name)?.trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}

/// All viewers come from one address.
pub(crate) const CROWD: (&str, &str) = ("HTTP__CONNECTIONS_PER_ADDRESS", "10000");

/// The product, on free ports and with an empty data directory.
pub(crate) struct Tidecast {
    pub(crate) process: Process,
    rtmp: Option<SocketAddr>,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: PathBuf,
    _data_dir: TempDir,
}

pub(crate) const PUBLISH_KEY: &str = "benchmark-0123456789abcdef";

/// A cluster's files, and a node's in it, as `tidecast cluster` makes them.
pub(crate) struct Cluster {
    authority: TempDir,
}

impl Cluster {
    pub(crate) fn new() -> Result<Self> {
        let authority = TempDir::new()?;
        run(authority.path(), &["cluster", "init"])?;
        Ok(Self { authority })
    }

    /// A data directory with the certificate of `name`.
    pub(crate) fn join(&self, name: &str) -> Result<TempDir> {
        let data_dir = TempDir::new()?;
        let bundle = data_dir.path().join("bundle");
        fs::write(&bundle, run(self.authority.path(), &["cluster", "invite", name])?)?;
        run(data_dir.path(), &["cluster", "join", &bundle.to_string_lossy()])?;
        Ok(data_dir)
    }

    /// The certificate of `name`, for a node in this process.
    pub(crate) fn identity(&self, name: &str) -> Result<Identity> {
        let data_dir = self.join(name)?;
        let read = |file: &str| fs::read(data_dir.path().join("cluster").join(file));
        Ok(Identity::from_pem(&read("ca.pem")?, &read("node.pem")?, &read("node.key")?)?)
    }
}

fn run(data_dir: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(binary()?).env("TIDECAST__DATA_DIR", data_dir).args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

impl Tidecast {
    /// Passes streams through. `profile` as in the configuration: "default" or "low".
    pub(crate) fn start(profile: &str) -> Result<Self> {
        Self::start_in(TempDir::new()?, &[("HLS__PROFILE", profile)])
    }

    /// Makes these renditions, as in the configuration.
    pub(crate) fn start_with_ladder(ladder: &str) -> Result<Self> {
        let encoder = encoder_binary()?;
        let settings = [("TRANSCODE__LADDER", ladder), ("TRANSCODE__ENCODER", &encoder.to_string_lossy())];
        Self::start_in(TempDir::new()?, &settings)
    }

    /// Lets one address, from which all our viewers come, have as many connections as there can be.
    pub(crate) fn start_for_crowd() -> Result<Self> {
        Self::start_in(TempDir::new()?, &[CROWD])
    }

    /// In a cluster whose nodes find each other by NATS.
    pub(crate) fn start_member(
        cluster: &Cluster,
        name: &str,
        nats: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let settings: Vec<_> = settings.iter().copied().chain([("CLUSTER__NATS", nats)]).collect();
        Self::start_in(cluster.join(name)?, &settings)
    }

    fn start_in(data_dir: TempDir, settings: &[(&str, &str)]) -> Result<Self> {
        let log = data_dir.path().join("log");
        let mut command = Command::new(binary()?);
        for listener in ["RTMP", "WEBRTC", "HTTP", "ADMIN", "RELAY"] {
            command.env(format!("TIDECAST__{listener}__LISTEN"), "127.0.0.1:0");
        }
        command.env("TIDECAST__TRANSCODE__LADDER", "off");
        command.envs(settings.iter().map(|(key, value)| (format!("TIDECAST__{key}"), value)));
        command
            .env("TIDECAST__DATA_DIR", data_dir.path())
            .env("TIDECAST__AUTH__PUBLISH_KEY", PUBLISH_KEY)
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let mut process = Process::spawn(&mut command)?;
        let deadline = Instant::now() + START_MAX;
        loop {
            let said = fs::read_to_string(&log)?;
            let address = |key: &str| {
                said.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse::<SocketAddr>().ok())
            };
            // The last that is told.
            if let (Some(http), Some(admin)) = (address("http.listen="), address("admin.listen=")) {
                let rtmp = address("rtmp.listen=");
                return Ok(Self { process, rtmp, http, admin, log, _data_dir: data_dir });
            }
            process.check().with_context(|| format!("tidecast said:\n{said}"))?;
            if Instant::now() > deadline {
                bail!("tidecast is not ready after {START_MAX:?}; it said:\n{said}");
            }
            sleep(POLL);
        }
    }

    pub(crate) fn rtmp(&self) -> SocketAddr {
        self.rtmp.expect("an edge takes no publishers")
    }

    pub(crate) fn publish_url(&self, stream: &str) -> String {
        format!("rtmp://{}/{stream}?key={PUBLISH_KEY}", self.rtmp())
    }

    /// What it counts, now.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let text = Connection::open(self.admin)?.get_ok("/metrics")?.text()?;
        Ok(Metrics { text })
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }
}

/// One answer of `/metrics`.
pub(crate) struct Metrics {
    text: String,
}

impl Metrics {
    /// The sum over all labels; fails if there is no metric of that name.
    pub(crate) fn sum(&self, name: &str) -> Result<f64> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix(name));
        let mut values = lines
            .filter(|rest| rest.starts_with([' ', '{']))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .peekable();
        ensure!(values.peek().is_some(), "no metric is called {name}");
        Ok(values.sum())
    }
}

/// Asks for all the descriptors that the system grants this process and its children, and says how many.
pub(crate) fn raise_open_files() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let files = if raised.is_ok() { maximum } else { current };
    files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// `TIDECAST_BIN`, or what cargo built beside this program.
fn binary() -> Result<PathBuf> {
    built("TIDECAST_BIN", "tidecast")
}

pub(crate) fn encoder_binary() -> Result<PathBuf> {
    built("TIDECAST_ENCODER_BIN", "tidecast-encoder")
}

/// Where the environment says, or beside this program.
fn built(variable: &str, name: &str) -> Result<PathBuf> {
    let path = match env::var_os(variable) {
        Some(path) => path.into(),
        None => env::current_exe()?.with_file_name(name),
    };
    ensure!(path.is_file(), "{} is not there: run `make build`, or set {variable}", path.display());
    Ok(path)
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {within:?}");
        }
        sleep(POLL);
    }
}
