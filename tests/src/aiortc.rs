//! aiortc, which speaks WebRTC without a line of a browser's or of ours: the scripts in `tests/aiortc/`.

use std::process::Command;

use anyhow::{Context, Result};

use crate::media::root;
use crate::script::Script;

/// A moving picture of 320x180 and a tone, published by WHIP until the script is stopped.
///
/// # Errors
/// If `scripts/setup.sh test` has not installed aiortc.
pub fn publish(url: &str, key: &str) -> Result<Script> {
    run("whip.py", &[url, key])
}

/// A viewer by WHEP, who says after some seconds of pictures and sound what they were, and stays until the end.
///
/// # Errors
/// If `scripts/setup.sh test` has not installed aiortc.
pub fn watch(url: &str, seconds: u32) -> Result<Script> {
    run("whep.py", &[url, &seconds.to_string()])
}

fn run(script: &str, arguments: &[&str]) -> Result<Script> {
    let python = root().join("target/tools/aiortc/bin/python");
    let mut command = Command::new(&python);
    // Not `__pycache__` beside the scripts.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(root().join("tests/aiortc").join(script)).args(arguments);
    Script::start(script, &mut command)
        .with_context(|| format!("{}: run scripts/setup.sh test", python.display()))
}
