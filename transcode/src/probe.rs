//! Which encoders work on this machine: `tidecast-encoder probe` tries each, and prints a line for it.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::executable;

/// For all encoders: each has 3 s of its own, half a dozen are known, and the first time GStreamer looks through all of
/// its plugins.
const LIMIT: Duration = Duration::from_secs(60);

/// A verdict has at most 4 KiB.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;
/// What it says when it fails is for the log.
const WORDS_BYTES_MAX: u64 = 1024;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probe {
    /// Names of those that work, in the order in which the executable prefers them.
    pub encoders: Vec<String>,
    /// Those that are installed and do not, and why.
    pub failed: Vec<(String, String)>,
}

/// Why there are no rungs. The operator must act, if some are wanted.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{} does not start: {error}: streams are passed through", executable::NAME)]
    Start { error: std::io::Error },
    #[error("{} gave no answer within {} s: streams are passed through", executable::NAME, limit.as_secs())]
    Silent { limit: Duration },
    #[error("{} ended with {status}: {words}: streams are passed through", executable::NAME)]
    Failed { status: ExitStatus, words: String },
    #[error("{} speaks another language than this tidecast; install both from one release", executable::NAME)]
    Verdict,
    #[error(
        "GStreamer has no encoder of H.264 that works here{}: streams are passed through; \
         install gstreamer1.0-plugins-ugly",
        reasons(failed)
    )]
    NoEncoder { failed: Vec<(String, String)> },
}

fn reasons(failed: &[(String, String)]) -> String {
    if failed.is_empty() {
        return String::new();
    }
    let reasons: Vec<_> = failed.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    format!(" ({})", reasons.join("; "))
}

#[derive(Deserialize)]
struct Verdict {
    encoder: String,
    works: bool,
    why: Option<String>,
}

impl Probe {
    /// Tries all encoders that `executable` knows and finds. Takes about a second for each.
    ///
    /// # Errors
    /// [`ProbeError`], in words for the log.
    pub async fn run(executable: &Path, data_dir: &Path) -> Result<Self, ProbeError> {
        Self::run_within(executable, data_dir, LIMIT).await
    }

    async fn run_within(executable: &Path, data_dir: &Path, limit: Duration) -> Result<Self, ProbeError> {
        let start = |error| ProbeError::Start { error };
        let mut process = executable::command(executable, data_dir).arg("probe").spawn().map_err(start)?;
        // Nothing is said to it.
        drop(process.stdin.take());
        let (output, words) = (process.stdout.take(), process.stderr.take());
        let heard = async {
            let (mut lines, mut said) = (Vec::new(), Vec::new());
            let lines_read = async {
                match output {
                    Some(output) => output.take(OUTPUT_BYTES_MAX).read_to_end(&mut lines).await,
                    None => Ok(0),
                }
            };
            let words_read = async {
                let Some(mut words) = words else { return Ok(0) };
                (&mut words).take(WORDS_BYTES_MAX).read_to_end(&mut said).await?;
                tokio::io::copy(&mut words, &mut tokio::io::sink()).await
            };
            tokio::try_join!(lines_read, words_read).map_err(start)?;
            let status = process.wait().await.map_err(start)?;
            Ok((status, lines, said))
        };
        // Dropped, the process is killed.
        let (status, lines, said) =
            timeout(limit, heard).await.map_err(|_| ProbeError::Silent { limit })??;
        if !status.success() {
            let words = String::from_utf8_lossy(&said).trim().to_owned();
            return Err(ProbeError::Failed { status, words });
        }
        Self::of(&lines)
    }

    fn of(lines: &[u8]) -> Result<Self, ProbeError> {
        let mut probe = Self::default();
        for verdict in serde_json::Deserializer::from_slice(lines).into_iter::<Verdict>() {
            match verdict.map_err(|_| ProbeError::Verdict)? {
                Verdict { encoder, works: true, .. } => probe.encoders.push(encoder),
                Verdict { encoder, why, .. } => probe.failed.push((encoder, why.unwrap_or_default())),
            }
        }
        if probe.encoders.is_empty() {
            return Err(ProbeError::NoEncoder { failed: probe.failed });
        }
        Ok(probe)
    }

    /// Those that work, in the order of `preferred` and no others; all, if there is no preference.
    pub fn order(&self, preferred: &[String]) -> Vec<String> {
        if preferred.is_empty() {
            return self.encoders.clone();
        }
        preferred.iter().filter(|name| self.encoders.contains(name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn probe_of(script: &str, limit: Duration) -> Result<Probe, ProbeError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("encoder");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a fresh folder");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        Probe::run_within(&path, folder.path(), limit).await
    }

    const WORKS: &str = r#"{"encoder":"x264enc","works":true,"ms":90}"#;
    const FAILS: &str = r#"{"encoder":"nvh264enc","works":false,"why":"no card"}"#;

    #[tokio::test]
    async fn verdicts_are_sorted() {
        let probe = probe_of(&format!("echo '{FAILS}'; echo '{WORKS}'"), LIMIT).await.expect("one works");
        assert_eq!(probe.encoders, ["x264enc"]);
        assert_eq!(probe.failed, [("nvh264enc".to_owned(), "no card".to_owned())]);
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_in_words() {
        let words = async |script: &str, limit| probe_of(script, limit).await.expect_err(script).to_string();
        let none = "GStreamer has no encoder of H.264 that works here: streams are passed through; \
                    install gstreamer1.0-plugins-ugly";
        assert_eq!(words(":", LIMIT).await, none);
        let one = words(&format!("echo '{FAILS}'"), LIMIT).await;
        assert!(one.contains("works here (nvh264enc: no card): streams"), "{one}");
        let failed = words("echo it is broken >&2; exit 3", LIMIT).await;
        assert_eq!(
            failed,
            "tidecast-encoder ended with exit status: 3: it is broken: streams are passed through"
        );
        let silent = words("exec sleep 1000", Duration::from_secs(1)).await;
        assert_eq!(silent, "tidecast-encoder gave no answer within 1 s: streams are passed through");
        let foreign = words("echo hello", LIMIT).await;
        assert!(foreign.contains("install both from one release"), "{foreign}");
        // However much it says.
        let flood = words("head -c 300000 /dev/zero >&2; exit 1", LIMIT).await;
        assert!(flood.len() < 2_000, "{} bytes", flood.len());

        let missing = Probe::run(Path::new("/nonexistent/encoder"), Path::new("/nonexistent")).await;
        let missing = missing.expect_err("it is not there").to_string();
        assert!(missing.starts_with("tidecast-encoder does not start: No such file"), "{missing}");
    }

    #[test]
    fn a_preference_leaves_out_what_does_not_work() {
        let names = |names: &[&str]| -> Vec<_> { names.iter().map(ToString::to_string).collect() };
        let probe = Probe { encoders: names(&["x264enc", "openh264enc"]), failed: Vec::new() };
        assert_eq!(probe.order(&[]), names(&["x264enc", "openh264enc"]));
        let preferred = names(&["nvh264enc", "openh264enc", "x264enc"]);
        assert_eq!(probe.order(&preferred), names(&["openh264enc", "x264enc"]));
        assert_eq!(probe.order(&names(&["nvh264enc"])), names(&[]));
    }
}
