//! One `tidecast` of one's own: free ports, an empty data directory, a known publish key.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tempfile::TempDir;

use crate::http::Http;
use crate::process::Process;

/// What every server of the tests is told to take. It must never appear in a log.
pub const PUBLISH_KEY: &str = "canary-5d1f0c9be27a4e4a8f1d";

const START_MAX: Duration = Duration::from_secs(10);
/// Above the grace the server gives itself.
const STOP_MAX: Duration = Duration::from_secs(15);

pub struct Tidecast {
    process: Process,
    _data_dir: TempDir,
    rtmp: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
}

/// Listening sockets that outlive the servers that use them: a service manager's part.
pub struct Sockets {
    rtmp: TcpListener,
    http: TcpListener,
}

impl Sockets {
    /// # Errors
    /// From the system.
    pub fn listen() -> Result<Self> {
        let socket = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        Ok(Self { rtmp: socket()?, http: socket()? })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    #[default]
    Default,
    Low,
}

impl Tidecast {
    /// # Errors
    /// If it is not ready within ten seconds.
    pub fn start(profile: Profile) -> Result<Self> {
        Self::start_with(profile, &[])
    }

    /// With more variables in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(profile: Profile, variables: &[(&str, &str)]) -> Result<Self> {
        Self::spawn(Command::new(binary()?), profile, variables)
    }

    /// On sockets that listen already, as a service manager hands them over (`sd_listen_fds(3)`).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(sockets: &Sockets) -> Result<Self> {
        // Only these copies are left open for children, and only for this moment.
        let inherited = [&sockets.rtmp, &sockets.http].map(|socket| -> Result<OwnedFd> {
            let copy = fcntl_dupfd_cloexec(socket, 10)?;
            fcntl_setfd(&copy, FdFlags::empty())?;
            Ok(copy)
        });
        let [rtmp, http] = inherited;
        let (rtmp, http) = (rtmp?, http?);
        let mut command = Command::new("bash");
        command.args([
            "-c",
            r#"exec 3<&"$1" 4<&"$2"; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=rtmp:http exec "$0""#,
        ]);
        command.arg(binary()?).args([&rtmp, &http].map(|socket| socket.as_raw_fd().to_string()));
        Self::spawn(command, Profile::Low, &[])
    }

    fn spawn(mut command: Command, profile: Profile, variables: &[(&str, &str)]) -> Result<Self> {
        let data_dir = TempDir::new()?;
        command.env_clear().envs(env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"));
        for listener in ["RTMP", "HTTP", "ADMIN"] {
            command.env(format!("TIDECAST__{listener}__LISTEN"), "127.0.0.1:0");
        }
        command.env("TIDECAST__DATA_DIR", data_dir.path()).env("TIDECAST__AUTH__PUBLISH_KEY", PUBLISH_KEY);
        if profile == Profile::Low {
            command.env("TIDECAST__HLS__PROFILE", "low");
        }
        command.envs(variables.iter().copied());
        let process = Process::spawn("tidecast", &mut command)?;
        let address = |key: &str| {
            process.wait_for(&format!("address as {key}="), START_MAX, |line| {
                line.split_whitespace()
                    .find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
            })
        };
        let (rtmp, http, admin) =
            (address("rtmp.listen")?, address("http.listen")?, address("admin.listen")?);
        Ok(Self { process, _data_dir: data_dir, rtmp, http, admin })
    }

    /// Where to publish `stream` ("live/name") with a right key.
    #[must_use]
    pub fn publish_url(&self, stream: &str) -> String {
        self.publish_url_with_key(stream, PUBLISH_KEY)
    }

    #[must_use]
    pub fn publish_url_with_key(&self, stream: &str, key: &str) -> String {
        format!("rtmp://{}/{stream}?key={key}", self.rtmp)
    }

    /// What viewers ask.
    #[must_use]
    pub fn viewer_http(&self) -> Http {
        Http::new(self.http)
    }

    #[must_use]
    pub fn rtmp_address(&self) -> SocketAddr {
        self.rtmp
    }

    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Memory in RAM, in bytes.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// CPU time so far, of all threads.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
        let ticks: Vec<u64> =
            fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Duration::from_millis(10 * ticks.iter().sum::<u64>()))
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id()))?)
    }

    /// A metric's value, by its name without the prefix and with its labels; 0 if it is not there, as a counter that
    /// nothing has counted yet.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.admin_http().get_ok("/metrics")?.text();
        let prefix = format!("tidecast_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
        value.map_or(Ok(0.0), |value| value.parse().context(prefix))
    }

    /// Health and metrics.
    #[must_use]
    pub fn admin_http(&self) -> Http {
        Http::new(self.admin)
    }

    #[must_use]
    pub fn watch_url(&self, stream: &str) -> String {
        format!("http://{}/watch/{stream}", self.http)
    }

    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.process.lines()
    }

    /// # Errors
    /// If no such line comes `within` that time.
    pub fn wait_for_log<T>(
        &self,
        what: &str,
        within: Duration,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        self.process.wait_for(what, within, pick)
    }

    /// Ends it as an operator does.
    ///
    /// # Errors
    /// If it does not end, or not clean.
    pub fn stop(mut self) -> Result<()> {
        self.process.terminate();
        let status = self.process.wait(STOP_MAX)?;
        ensure!(status.success(), "tidecast ended with {status}:\n{}", self.process.lines().join("\n"));
        Ok(())
    }
}

/// `TIDECAST_BIN`, or what cargo built beside this test.
fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TIDECAST_BIN") {
        return Ok(path.into());
    }
    // target/debug/deps/scenario-1234 and target/debug/tidecast
    let test = env::current_exe()?;
    let path = test.ancestors().nth(2).context("a test has a folder")?.join("tidecast");
    ensure!(
        path.is_file(),
        "{} is not there: `cargo build -p tidecast` first, or set TIDECAST_BIN",
        path.display()
    );
    Ok(path)
}
