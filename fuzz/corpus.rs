//! Replays the committed inputs of a fuzz target as an ordinary unit test: beginnings of a search (`seeds/`) and
//! what broke a parser once (`regressions/`). Each crate with a `fuzzing` module includes this file.

use std::fs;
use std::path::{Path, PathBuf};

/// Runs `parser` over the inputs of `target`.
///
/// # Panics
/// If the parser panics, or understands no seed at all: a search that begins there would find nothing.
pub(crate) fn replay(target: &str, parser: fn(&[u8]) -> bool) {
    let folder = |kind: &str| root().join("fuzz").join(kind).join(target);
    let mut understood = 0;
    for path in files(&folder("seeds")) {
        // Shown if it panics.
        println!("{}", path.display());
        understood += usize::from(parser(&fs::read(&path).expect("a seed can be read")));
    }
    assert!(understood > 0, "{target} understands none of its seeds");
    for path in files(&folder("regressions")) {
        println!("{}", path.display());
        parser(&fs::read(&path).expect("a regression can be read"));
    }
}

/// The repository's, from any crate's folder.
fn root() -> PathBuf {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_root.ancestors().find(|folder| folder.join("fuzz/corpus.rs").is_file());
    root.expect("this file is in it").to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files
}
