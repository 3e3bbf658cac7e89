//! One `tidecast` of one's own: free ports, an empty data directory, a known publish key.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::Http;
use crate::process::Process;

/// What every server of the tests is told to take. It must never appear in a log.
pub const PUBLISH_KEY: &str = "canary-5d1f0c9be27a4e4a8f1d";

const START_MAX: Duration = Duration::from_secs(10);
/// Above the grace the server gives itself.
const STOP_MAX: Duration = Duration::from_secs(15);

pub struct Tidecast {
    pub(crate) process: Process,
    pub(crate) setup: Setup,
    pub(crate) data_dir: TempDir,
    /// An edge takes no publishers.
    rtmp: Option<SocketAddr>,
    http: SocketAddr,
    admin: SocketAddr,
    /// Of a node that is in a cluster.
    pub(crate) relay: Option<SocketAddr>,
}

/// Where a server listens: anywhere, or where it listened before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) rtmp: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) relay: SocketAddr,
}

impl Ports {
    pub(crate) fn any() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { rtmp: any, http: any, admin: any, relay: any }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    #[default]
    Default,
    Low,
}

/// What a server is told, beyond what all of them are.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    environment: Vec<(String, String)>,
}

/// How a server ends before it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As an operator does: SIGTERM, and the drain is waited for.
    Drained,
    /// SIGKILL: it has no time to do anything.
    Killed,
}

impl Setup {
    /// Sets a configuration key, as in "publish.linger".
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let variable = format!("TIDECAST__{}", key.replace('.', "__").to_uppercase());
        self.environment.push((variable, value.to_owned()));
        self
    }

    /// # Errors
    /// If it is not ready within ten seconds.
    pub fn start(self) -> Result<Tidecast> {
        Tidecast::run(self, TempDir::new()?, Ports::any())
    }
}

impl Tidecast {
    /// # Errors
    /// If it is not ready within ten seconds.
    pub fn start(profile: Profile) -> Result<Self> {
        let setup = Setup::default();
        match profile {
            Profile::Default => setup.start(),
            Profile::Low => setup.set("hls.profile", "low").start(),
        }
    }

    /// Ends it, and starts it again with the same data directory on the same ports.
    ///
    /// # Errors
    /// If it does not end clean, or does not start.
    pub fn restart(mut self, end: End) -> Result<Self> {
        match end {
            End::Drained => self.drain()?,
            End::Killed => self.process.kill()?,
        }
        let any = Ports::any();
        let ports = Ports {
            rtmp: self.rtmp.unwrap_or(any.rtmp),
            http: self.http,
            admin: self.admin,
            relay: self.relay.unwrap_or(any.relay),
        };
        Self::run(self.setup, self.data_dir, ports)
    }

    pub(crate) fn run(setup: Setup, data_dir: TempDir, ports: Ports) -> Result<Self> {
        let mut command = command(data_dir.path())?;
        let listeners =
            [("RTMP", ports.rtmp), ("HTTP", ports.http), ("ADMIN", ports.admin), ("RELAY", ports.relay)];
        for (listener, address) in listeners {
            command.env(format!("TIDECAST__{listener}__LISTEN"), address.to_string());
        }
        command.env("TIDECAST__AUTH__PUBLISH_KEY", PUBLISH_KEY);
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::spawn("tidecast", &mut command)?;
        let ready = process.wait_for("line that it is ready", START_MAX, |line| {
            line.contains("ready: ").then(|| line.to_owned())
        })?;
        let address = |line: &str, key: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
        };
        let needed = |key: &str| address(&ready, key).with_context(|| format!("no {key} in: {ready}"));
        let (http, admin) = (needed("http.listen")?, needed("admin.listen")?);
        let relay = process.lines().iter().find_map(|line| address(line, "relay.listen"));
        Ok(Self { rtmp: address(&ready, "rtmp.listen"), http, admin, relay, process, setup, data_dir })
    }

    /// Stands still, with its connections open, as a machine that hangs.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Goes on after [`Tidecast::freeze`].
    ///
    /// # Errors
    /// If it is gone already.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// The value of a metric without labels.
    ///
    /// # Errors
    /// If there is none.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let metrics = self.admin_http().get_ok("/metrics")?.text();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("no metric {name}"))?.parse().context("a number")
    }

    /// Where to publish `stream` ("live/name") with a right key.
    #[must_use]
    pub fn publish_url(&self, stream: &str) -> String {
        self.publish_url_with_key(stream, PUBLISH_KEY)
    }

    #[must_use]
    pub fn publish_url_with_key(&self, stream: &str, key: &str) -> String {
        let rtmp = self.rtmp.expect("an edge takes no publishers");
        format!("rtmp://{rtmp}/{stream}?key={key}")
    }

    /// Where viewers connect.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// What viewers ask.
    #[must_use]
    pub fn viewer_http(&self) -> Http {
        Http::new(self.http)
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
        self.drain()
    }

    fn drain(&mut self) -> Result<()> {
        self.process.terminate();
        let status = self.process.wait(STOP_MAX)?;
        ensure!(status.success(), "tidecast ended with {status}:\n{}", self.process.lines().join("\n"));
        Ok(())
    }
}

/// The server's program with nothing of this machine's environment.
pub(crate) fn command(data_dir: &Path) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.env_clear().envs(env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"));
    command.env("TIDECAST__DATA_DIR", data_dir);
    Ok(command)
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
