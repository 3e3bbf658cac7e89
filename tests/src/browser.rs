//! Chromium on a page of the server, driven by a script in `tests/browser/`.
//!
//! The script prints one JSON object per line, each with an `event`; between two events the scenario acts on the server.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::media::root;
use crate::network::Network;
use crate::process::Process;

pub struct Browser {
    process: Process,
}

impl Browser {
    /// Starts `tests/browser/{script}` with Node.js.
    ///
    /// # Errors
    /// If Node.js cannot be started.
    pub fn run(script: &str, arguments: &[&str]) -> Result<Self> {
        Self::run_with(script, arguments, &[])
    }

    /// As [`Self::run`], with variables in its environment.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_with(script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        Self::start(Command::new("node"), script, arguments, variables)
    }

    /// As [`Self::run`], at the far end of `network`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_in(network: &Network, script: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(network.command("node"), script, arguments, &[])
    }

    fn start(
        mut command: Command,
        script: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        command.arg(root().join("tests/browser").join(script)).args(arguments);
        command.envs(variables.iter().copied());
        // Where scripts/setup.sh puts Node.js if the distribution's is too old.
        let own = root().join("target/tools/node/bin");
        let path = env::var_os("PATH").unwrap_or_default();
        command.env("PATH", env::join_paths([own].into_iter().chain(env::split_paths(&path)))?);
        Ok(Self { process: Process::spawn(script, &mut command)? })
    }

    /// Waits for the script to reach `event`, and returns what it says about it.
    ///
    /// # Errors
    /// If it does not come, or the script reports a failure first.
    pub fn wait_for<T: DeserializeOwned>(&self, event: &str, within: Duration) -> Result<T> {
        let told = self.process.wait_for(&format!("event {event}"), within, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value["event"] == event || value["event"] == "failed").then_some(value)
        })?;
        if told["event"] != event {
            bail!("waiting for {event}: {}", told["message"].as_str().unwrap_or_default());
        }
        serde_json::from_value(told.clone()).with_context(|| told.to_string())
    }

    /// Waits for an `event` that is as wanted, or has come already, and returns it.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn wait_until<T: DeserializeOwned>(
        &self,
        event: &str,
        within: Duration,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let found = self.process.wait_for(&format!("{event} as wanted"), within, |line| {
            let value: Value = serde_json::from_str(line).ok()?;
            if value["event"] == "failed" {
                return Some(Err(value["message"].as_str().unwrap_or_default().to_owned()));
            }
            let value = (value["event"] == event).then(|| serde_json::from_value(value))?.ok()?;
            is_wanted(&value).then_some(Ok(value))
        })?;
        found.map_err(|message| anyhow!("waiting for {event}: {message}"))
    }

    /// All events of this name so far.
    #[must_use]
    pub fn all<T: DeserializeOwned>(&self, event: &str) -> Vec<T> {
        let lines = self.process.lines();
        let values = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let values = values.filter(|value| value["event"] == event);
        values.filter_map(|value| serde_json::from_value(value).ok()).collect()
    }
}
