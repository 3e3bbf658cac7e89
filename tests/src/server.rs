//! One `tidecast` of one's own: free ports, an empty data directory, a known publish key.

use std::env;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::Http;
use crate::ports;
use crate::process::Process;

/// What every server of the tests is told to take. It must never appear in a log.
pub const PUBLISH_KEY: &str = "canary-5d1f0c9be27a4e4a8f1d";

/// Thirty scenarios of a file start their servers at once, on two cores.
const START_MAX: Duration = Duration::from_secs(60);
/// Above the grace the server gives itself, which tells whether its drain was clean.
const STOP_MAX: Duration = Duration::from_secs(40);

/// A free port of this machine.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub struct Tidecast {
    pub(crate) process: Process,
    pub(crate) setup: Setup,
    pub(crate) data_dir: TempDir,
    /// An edge takes no publishers.
    rtmp: Option<SocketAddr>,
    http: Option<SocketAddr>,
    /// Of a node with a certificate.
    https: Option<SocketAddr>,
    rtmps: Option<SocketAddr>,
    admin: SocketAddr,
    /// UDP and TCP.
    webrtc: Option<SocketAddr>,
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
        let [rtmp, http, admin, relay] = [(); 4].map(|()| ports::free());
        Self { rtmp, http, admin, relay }
    }
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

/// What a server is told, beyond what all of them are.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    environment: Vec<(String, String)>,
    keeps_key: bool,
}

/// A command that asks a server, and goes on.
pub struct Asking {
    process: Process,
}

impl Asking {
    /// Waits for a line from which `pick` makes something; errors are lines as well.
    ///
    /// # Errors
    /// If it ends, or `within` passes before.
    pub fn wait_for<T>(&self, what: &str, within: Duration, pick: impl Fn(&str) -> Option<T>) -> Result<T> {
        self.process.wait_for(what, within, pick)
    }

    /// What it says last when it is refused.
    ///
    /// # Errors
    /// If it goes on, or ends well.
    pub fn refused(mut self, within: Duration) -> Result<String> {
        let status = self.process.wait(within)?;
        ensure!(status.code() == Some(1), "it ended with {status}");
        Ok(self.process.lines().pop().unwrap_or_default())
    }
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
    pub fn set(self, key: &str, value: &str) -> Self {
        let variable = format!("TIDECAST__{}", key.replace('.', "__").to_uppercase());
        self.variable(&variable, value)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        self.environment.iter().map(|(name, value)| (name, value))
    }

    /// No publish key is configured: it has the one that it makes, or its cluster's.
    #[must_use]
    pub fn with_kept_key(self) -> Self {
        Self { keeps_key: true, ..self }
    }

    /// # Errors
    /// If it is not ready in time.
    pub fn start(self) -> Result<Tidecast> {
        Tidecast::run(Command::new(binary()?), self, TempDir::new()?, Ports::any())
    }
}

impl Tidecast {
    /// # Errors
    /// If it is not ready in time.
    pub fn start(profile: Profile) -> Result<Self> {
        let setup = Setup::default();
        match profile {
            Profile::Default => setup.start(),
            Profile::Low => setup.set("hls.profile", "low").start(),
        }
    }

    /// Sets a configuration key, from the next [`Tidecast::restart`] on.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.setup = self.setup.set(key, value);
        self
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
        let command = Command::new(binary()?);
        let any = Ports::any();
        let ports = Ports {
            rtmp: self.rtmp.unwrap_or(any.rtmp),
            http: self.http.unwrap_or(any.http),
            admin: self.admin,
            relay: self.relay.unwrap_or(any.relay),
        };
        Self::run(command, self.setup, self.data_dir, ports)
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
        let setup = Setup::default().set("hls.profile", "low");
        Self::run(command, setup, TempDir::new()?, Ports::any())
    }

    pub(crate) fn run(mut command: Command, setup: Setup, data_dir: TempDir, ports: Ports) -> Result<Self> {
        bare(&mut command, data_dir.path());
        let listeners =
            [("RTMP", ports.rtmp), ("HTTP", ports.http), ("ADMIN", ports.admin), ("RELAY", ports.relay)];
        for (listener, address) in listeners {
            command.env(format!("TIDECAST__{listener}__LISTEN"), address.to_string());
        }
        command.env("TIDECAST__WEBRTC__LISTEN", ANY.to_string());
        // Listened on only with a certificate.
        for listener in ["HTTPS", "RTMPS"] {
            command.env(format!("TIDECAST__{listener}__LISTEN"), ANY.to_string());
        }
        if !setup.keeps_key {
            command.env("TIDECAST__AUTH__PUBLISH_KEY", PUBLISH_KEY);
        }
        // A ladder takes the time of two cores; tests of it turn it on.
        command.env("TIDECAST__TRANSCODE__LADDER", "off");
        // Nobody is waited for, but where a test is of that.
        command.env("TIDECAST__DRAIN__TIMEOUT", "0s");
        command.envs(setup.variables());
        let mut process = Process::spawn("tidecast", &mut command)?;
        let ready = process.wait_for("line that it is ready", START_MAX, |line| {
            line.contains("ready: ").then(|| line.to_owned())
        });
        let ready = ready.map_err(|error| match process.wait(Duration::ZERO) {
            Ok(status) => error.context(status),
            Err(_) => error,
        })?;
        let address = |line: &str, key: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
        };
        let needed = |key: &str| address(&ready, key).with_context(|| format!("no {key} in: {ready}"));
        // A node that only encodes has neither viewers nor publishers.
        let (http, admin) = (address(&ready, "http.listen"), needed("admin.listen")?);
        let relay = process.lines().iter().find_map(|line| address(line, "relay.listen"));
        let webrtc = process.lines().iter().find_map(|line| address(line, "webrtc.listen"));
        ensure!(http.is_some() == webrtc.is_some(), "viewers have one of two ports: {ready}");
        let (https, rtmps) = (address(&ready, "https.listen"), address(&ready, "rtmps.listen"));
        let rtmp = address(&ready, "rtmp.listen");
        Ok(Self { rtmp, http, https, rtmps, webrtc, admin, relay, process, setup, data_dir })
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

    /// Where to publish `stream` ("live/name") with a right key.
    #[must_use]
    pub fn publish_url(&self, stream: &str) -> String {
        self.publish_url_with_key(stream, PUBLISH_KEY)
    }

    #[must_use]
    pub fn publish_url_with_key(&self, stream: &str, key: &str) -> String {
        format!("rtmp://{}/{stream}?key={key}", self.rtmp_address())
    }

    /// Where to publish `stream` by WHIP, with [`PUBLISH_KEY`] as the bearer token.
    #[must_use]
    pub fn whip_url(&self, stream: &str) -> String {
        self.page_url(&format!("/whip/{stream}"))
    }

    /// Where to watch `stream` by WHEP.
    #[must_use]
    pub fn whep_url(&self, stream: &str) -> String {
        self.page_url(&format!("/whep/{stream}"))
    }

    #[must_use]
    pub fn webrtc_address(&self) -> SocketAddr {
        self.webrtc.expect("it has viewers")
    }

    /// What viewers ask.
    #[must_use]
    pub fn viewer_http(&self) -> Http {
        Http::new(self.http_address())
    }

    #[must_use]
    pub fn rtmp_address(&self) -> SocketAddr {
        self.rtmp.expect("an edge takes no publishers")
    }

    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http.expect("it has viewers")
    }

    #[must_use]
    pub fn https_address(&self) -> SocketAddr {
        self.https.expect("started with a certificate")
    }

    #[must_use]
    pub fn rtmps_address(&self) -> SocketAddr {
        self.rtmps.expect("started with a certificate")
    }

    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
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

    /// A page of the admin port.
    #[must_use]
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// What a command prints that asks this server, as `tidecast nodes` or `tidecast nodes drain edge1`: lines of JSON.
    ///
    /// # Errors
    /// If the command fails, or prints something else.
    pub fn ask(&self, command: &str) -> Result<Vec<serde_json::Value>> {
        let text = self.asked_for_people(&format!("{command} --json"))?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// As [`Tidecast::ask`], as people read it.
    ///
    /// # Errors
    /// If the command fails.
    pub fn asked_for_people(&self, command: &str) -> Result<String> {
        let mut process = Command::new(binary()?);
        bare(&mut process, self.data_dir.path());
        process.env("TIDECAST__ADMIN__LISTEN", self.admin.to_string());
        let output = process.args(command.split(' ')).output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// As [`Tidecast::ask`], of a command that goes on until it is dropped, as `events --follow`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn asking(&self, command: &str) -> Result<Asking> {
        let mut process = Command::new(binary()?);
        bare(&mut process, self.data_dir.path());
        process.env("TIDECAST__ADMIN__LISTEN", self.admin.to_string());
        process.args(command.split(' ')).arg("--json");
        Ok(Asking { process: Process::spawn("asking", &mut process)? })
    }

    #[must_use]
    pub fn watch_url(&self, stream: &str) -> String {
        self.page_url(&format!("/watch/{stream}"))
    }

    #[must_use]
    pub fn page_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http_address())
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

    /// Ends it without asking.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
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

/// Takes everything of this machine's environment away.
pub(crate) fn bare(command: &mut Command, data_dir: &Path) {
    command.env_clear().envs(env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"));
    command.env("TIDECAST__DATA_DIR", data_dir);
}

/// `TIDECAST_BIN`, or what cargo built beside this test.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TIDECAST_BIN") {
        return Ok(path.into());
    }
    built("tidecast")
}

/// An executable of this workspace, as the tests run it.
///
/// # Errors
/// If it was not built.
pub fn built(name: &str) -> Result<PathBuf> {
    // target/debug/deps/scenario-1234 and target/debug/tidecast
    let test = env::current_exe()?;
    let path = test.ancestors().nth(2).context("a test has a folder")?.join(name);
    ensure!(
        path.is_file(),
        "{} is not there: `cargo build -p {name}` first, or set TIDECAST_BIN",
        path.display()
    );
    Ok(path)
}
