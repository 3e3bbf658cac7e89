//! Network namespaces: each has interfaces, addresses and ports of its own. Needs the right to make them: run by root, or within
//! `unshare --user --map-root-user --net`.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Process;

const MADE_MAX: Duration = Duration::from_secs(10);
/// Longer than any scenario, for a namespace whose scenario was killed.
const AGE_MAX_S: &str = "3600";

/// Lives as long as this value, and as whoever is inside.
pub(crate) struct Namespace {
    process: Process,
}

impl Namespace {
    /// One with a loopback interface and nothing else.
    ///
    /// # Errors
    /// If we may not, or the system lacks `ip`, `unshare` or `nsenter`.
    pub(crate) fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        let script = format!("ip link set lo up && echo made && exec sleep {AGE_MAX_S}");
        command.args(["--net", "sh", "-c", &script]);
        let process = Process::spawn("unshare", &mut command)?;
        let made = process.wait_for("network namespace", MADE_MAX, |line| (line == "made").then_some(()));
        made.context("run this as root, or within `unshare --user --map-root-user --net`")?;
        Ok(Self { process })
    }

    /// By which `ip` finds it.
    pub(crate) fn id(&self) -> String {
        self.process.id().to_string()
    }

    /// A program within it, by its arguments.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path()));
        command
    }

    /// What `act` does and starts is within.
    ///
    /// # Errors
    /// If the namespace is gone; and those of `act`.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(self.path())?;
        // Processes are called by the test that starts them.
        let name = thread::current().name().unwrap_or("test").to_owned();
        thread::scope(|scope| {
            let inside = thread::Builder::new().name(name).spawn_scoped(scope, move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                act()
            });
            inside?.join().expect("it returns its errors")
        })
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.process.id())
    }
}

/// Waits for a program that ends by itself.
///
/// # Errors
/// In its words, if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
