//! A real nats-server, on a port and in a folder of its own.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::media::root;
use crate::process::Process;

const READY_MAX: Duration = Duration::from_secs(10);

pub struct Nats {
    process: Process,
    address: SocketAddr,
    dir: TempDir,
}

impl Nats {
    /// # Errors
    /// If `scripts/setup.sh test` has not installed it, or it does not start.
    pub fn start() -> Result<Self> {
        // The port is free for as long as nobody else asks for one.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let dir = TempDir::new()?;
        Ok(Self { process: spawn(address, &dir)?, address, dir })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Ends it without asking. What it has on disk stays.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// After [`Nats::kill`]: forgets everything.
    ///
    /// # Errors
    /// From the system.
    pub fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.dir.path().join("jetstream"))?)
    }

    /// After [`Nats::kill`], on what is on disk.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(self.address, &self.dir)?;
        Ok(())
    }
}

fn spawn(address: SocketAddr, dir: &TempDir) -> Result<Process> {
    let program = root().join("target/tools/nats/bin/nats-server");
    ensure!(program.is_file(), "{} is missing: scripts/setup.sh test installs it", program.display());
    let mut command = Command::new(program);
    command.args(["-a", &address.ip().to_string(), "-p", &address.port().to_string(), "-js", "-sd"]);
    let process = Process::spawn("nats-server", command.arg(dir.path()))?;
    process.wait_for("line that it is ready", READY_MAX, |line| {
        line.contains("Server is ready").then_some(())
    })?;
    Ok(process)
}
