//! The configuration file behind one function, for `fuzz/` and for the replay of what it found; compiled for nothing
//! else.

use super::*;

/// A file, and everything that is said of it. True if it could be run with.
pub(crate) fn file(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let source = Source::from_text("tidecast.toml", text);
    match Effective::load(Some(&source), &Environment::empty()) {
        Ok(loaded) => {
            let shown = loaded.show();
            let key = loaded.config.auth.publish_key.as_ref();
            assert!(key.is_none() || shown.contains("(hidden)"));
            true
        }
        Err(problems) => {
            assert!(!problems.to_string().is_empty());
            false
        }
    }
}

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("config_file", file);
}
