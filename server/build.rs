//! Puts the git commit into `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    println!("cargo::rustc-env=TIDECAST_COMMIT={}", commit.as_deref().unwrap_or("unknown"));

    // A checkout changes HEAD, a commit the branch below refs/heads (which may be new, hence the folder),
    // and `git gc` moves branches into packed-refs. Git resolves the paths, so that linked worktrees work too.
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        // Cargo takes a path that does not exist for one that changed, at every build.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git prints, or `None` outside a repository, before its first commit, or without git.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
