//! A script that says what it has come to: one JSON object per line, each with an `event`. Between two events the scenario acts
//! on the server.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::process::Process;

pub struct Script {
    process: Process,
}

impl Script {
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        Ok(Self { process: Process::spawn(name, command)? })
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.process.terminate();
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
