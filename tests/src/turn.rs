//! A TURN server, coturn, for browsers that are let through to nothing else.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::ports;
use crate::process::Process;

const START_MAX: Duration = Duration::from_secs(20);

pub struct Turn {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Turn {
    /// Lets in who has credentials made of `secret` (draft-uberti-behave-turn-rest).
    ///
    /// # Errors
    /// If it is not installed (`scripts/setup.sh test` does that), or does not start.
    pub fn start(secret: &str) -> Result<Self> {
        let address = ports::free();
        let folder = TempDir::new()?;
        let mut command = Command::new("turnserver");
        command.args([
            "-n",
            "--verbose",
            "--log-file=stdout",
            "--simple-log",
            "--no-cli",
            "--no-tls",
            "--no-dtls",
        ]);
        command.args([
            "--realm=tidecast",
            "--use-auth-secret",
            "--allow-loopback-peers",
            "--relay-threads=1",
        ]);
        command.args(["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1"]);
        command
            .arg(format!("--static-auth-secret={secret}"))
            .arg(format!("--listening-port={}", address.port()));
        for (option, file) in [("--userdb", "users"), ("--pidfile", "pid")] {
            command.arg(format!("{option}={}", folder.path().join(file).display()));
        }
        let process = Process::spawn("turnserver", &mut command)?;
        process.wait_for("listener", START_MAX, |line| {
            (line.contains("UDP listener opened on") && line.contains(&address.to_string())).then_some(())
        })?;
        Ok(Self { process, address, _folder: folder })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("turn:{}?transport=udp", self.address)
    }

    /// Waits until somebody has been given a relay.
    ///
    /// # Errors
    /// If nobody is.
    pub fn wait_for_allocation(&self, user: impl Fn(&str) -> bool, within: Duration) -> Result<()> {
        self.process.wait_for("allocation", within, |line| {
            let is_allocation = line.contains("ALLOCATE processed, success");
            let name = line.split("user <").nth(1).and_then(|rest| rest.split('>').next());
            (is_allocation && name.is_some_and(&user)).then_some(())
        })
    }
}
