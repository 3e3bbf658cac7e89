//! Where a value came from, and what is wrong with it.

use std::fmt;
use std::path::PathBuf;

use super::{KEYS, Key};

/// Where a value came from. Ordered as a reader would go through them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Default,
    /// The settings of the whole cluster, of which this node set it.
    Cluster {
        by: String,
    },
    /// Line and column count from 1, the column in characters.
    File {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    Environment {
        variable: String,
    },
    /// Of the command line.
    Option {
        name: &'static str,
    },
}

impl Origin {
    /// Nothing of this node's own says otherwise.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Default | Self::Cluster { .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Cluster { by } => write!(f, "cluster, set on {by}"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            // A key of no section is an option of the same name; the others have one that says more.
            Self::Option { name: "tls.self_signed" } => f.write_str("option --tls-self-signed"),
            Self::Option { name: "acme.domain" } => f.write_str("option --domain"),
            Self::Option { name: "acme.terms_agreed" } => f.write_str("option --acme-agree"),
            Self::Option { name } => write!(f, "option --{name}"),
        }
    }
}

/// Something the operator has to change. Never holds the text of a secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) origin: Origin,
    /// The key, what is wrong with it, what is allowed.
    pub(crate) what: String,
}

/// All problems, one per line, in the order of the file.
#[derive(Debug)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Problem { origin, what } in &self.0 {
            writeln!(f, "{origin}: {what}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}

impl std::error::Error for Problems {}

/// The key somebody probably meant: one whose last part was given without its section, else a similar one.
pub(super) fn nearest_key(given: &str) -> Option<&'static Key> {
    /// Of 1.0; below it suggestions mislead more than they help.
    const SIMILARITY_MIN: f64 = 0.6;

    let last_part = |key: &&Key| key.name.rsplit_once('.').is_some_and(|(_, last)| last == given);
    let mut named_alike = KEYS.iter().filter(last_part);
    if let (Some(key), None) = (named_alike.next(), named_alike.next()) {
        return Some(key);
    }
    let similarity = |key: &&Key| strsim::normalized_damerau_levenshtein(key.name, given);
    KEYS.iter()
        .filter(|key| similarity(key) >= SIMILARITY_MIN)
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
}

pub(super) fn key_names() -> String {
    KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}
