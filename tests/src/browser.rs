//! Chromium on a page of the server, driven by a script in `tests/browser/`.

use std::env;
use std::ops::Deref;
use std::process::Command;

use anyhow::Result;

use crate::media::root;
use crate::network::Network;
use crate::script::Script;

pub struct Browser {
    script: Script,
}

impl Deref for Browser {
    type Target = Script;

    fn deref(&self) -> &Script {
        &self.script
    }
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
        Ok(Self { script: Script::start(script, &mut command)? })
    }
}
