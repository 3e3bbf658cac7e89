//! Where `tidecast-encoder` is, and what a process of it may know.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

pub const NAME: &str = "tidecast-encoder";

/// There is no encoder to start. The operator must install one, if rungs are wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    #[error("no {NAME} beside tidecast or on the PATH: streams are passed through")]
    Nowhere,
    #[error("{} is no program that can be started: streams are passed through", path.display())]
    Configured { path: PathBuf },
}

/// The one that is `configured`; without, the one beside this program, or the first on the `PATH`.
///
/// # Errors
/// [`Absent`], in words for the log.
pub fn find(configured: Option<&Path>) -> Result<PathBuf, Absent> {
    let own = std::env::current_exe().ok();
    find_in(configured, own.as_deref().and_then(Path::parent), std::env::var_os("PATH").as_deref())
}

fn find_in(
    configured: Option<&Path>,
    beside: Option<&Path>,
    path: Option<&OsStr>,
) -> Result<PathBuf, Absent> {
    if let Some(path) = configured {
        let absent = || Absent::Configured { path: path.to_owned() };
        return std::path::absolute(path).ok().filter(|path| is_program(path)).ok_or_else(absent);
    }
    let folders = path.into_iter().flat_map(std::env::split_paths);
    let mut candidates =
        beside.map(Path::to_owned).into_iter().chain(folders).map(|folder| folder.join(NAME));
    candidates.find(|path| is_program(path)).ok_or(Absent::Nowhere)
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// To start `executable` without anything of our environment, where keys and passwords may be, but what it needs. The
/// list of GStreamer's plugins is kept in `data_dir`: to make it takes seconds.
pub(crate) fn command(executable: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(executable);
    command.env_clear().env("LANG", "C.UTF-8").env("GST_REGISTRY", data_dir.join("gstreamer-registry.bin"));
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // What is typed at our terminal is for us: we end our children ourselves.
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn program(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\n").expect("a fresh folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        path
    }

    #[test]
    fn what_is_configured_goes_before_what_is_beside_and_that_before_the_path() {
        let folders = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
        let [own, beside, on_path] = folders.each_ref().map(|folder| folder.path());
        let path = std::env::join_paths([Path::new("/nonexistent"), on_path]).expect("no colon in it");
        let find = |configured: Option<&Path>| find_in(configured, Some(beside), Some(&path));

        assert_eq!(find(None), Err(Absent::Nowhere));
        assert_eq!(find_in(None, None, None), Err(Absent::Nowhere));
        let there = program(on_path, NAME, 0o755);
        assert_eq!(find(None), Ok(there.clone()));
        // Not one that cannot be started.
        let nearer = program(beside, NAME, 0o644);
        assert_eq!(find(None), Ok(there));
        fs::set_permissions(&nearer, fs::Permissions::from_mode(0o755)).expect("it is ours");
        assert_eq!(find(None), Ok(nearer));
        let other = program(own, "other", 0o755);
        assert_eq!(find(Some(&other)), Ok(other));
    }

    #[test]
    fn its_absence_is_told_in_words() {
        let words = Absent::Nowhere.to_string();
        assert_eq!(words, "no tidecast-encoder beside tidecast or on the PATH: streams are passed through");
        let missing =
            find_in(Some(Path::new("/nonexistent/encoder")), None, None).expect_err("it is not there");
        let words = "/nonexistent/encoder is no program that can be started: streams are passed through";
        assert_eq!(missing.to_string(), words);
    }
}
