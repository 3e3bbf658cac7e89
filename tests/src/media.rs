//! The test media: see `scripts/media.sh`, which makes them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// For what people may want to look at after a test: screenshots, streams.
///
/// # Errors
/// If the folder cannot be made.
pub fn output_dir() -> Result<PathBuf> {
    let path = root().join("target/test-output");
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// An ffmpeg that speaks Enhanced RTMP, which Debian's does not: `scripts/setup.sh test` installs it.
///
/// # Errors
/// If it is not there.
pub fn recent_ffmpeg() -> Result<PathBuf> {
    let python = root().join("target/tools/ffmpeg/bin/python");
    let output = Command::new(&python)
        .args(["-c", "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())"])
        .output()
        .with_context(|| format!("{}: run scripts/setup.sh test", python.display()))?;
    ensure!(output.status.success(), "no recent ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

/// The path of a clip, which is made if it is not there.
///
/// # Errors
/// If there is no such clip or it cannot be made.
pub fn clip(name: &str) -> Result<PathBuf> {
    let script = root().join("scripts/media.sh");
    let output = Command::new(&script).arg(name).output().with_context(|| script.display().to_string())?;
    ensure!(output.status.success(), "no clip {name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}
