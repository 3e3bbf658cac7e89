//! The TOML file: which keys it sets, and at which line.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context;
use toml_edit::{Document, Item, TableLike};

use super::problem::{key_names, nearest_key};
use super::{KEYS, Key, Origin, Problem, Setting};

/// A configuration file, read but not understood yet.
pub(crate) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), text })
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn from_text(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.to_owned() }
    }

    /// What the file sets. A file that is no TOML has one problem, since nothing after it can be judged.
    pub(super) fn settings(&self, problems: &mut Vec<Problem>) -> Vec<Setting> {
        let mut settings = Vec::new();
        match Document::parse(self.text.as_str()) {
            Ok(document) => self.walk(None, document.as_table(), &mut settings, problems),
            Err(error) => {
                // Not `Display`, which quotes the line: it may hold the publish key.
                let what = error.message().lines().collect::<Vec<_>>().join(", ");
                problems
                    .push(Problem { origin: self.origin(error.span()), what: format!("not TOML: {what}") });
            }
        }
        settings
    }

    fn walk(
        &self,
        section: Option<&str>,
        table: &dyn TableLike,
        settings: &mut Vec<Setting>,
        problems: &mut Vec<Problem>,
    ) {
        for (part, item) in table.iter() {
            let name = section.map_or_else(|| part.to_owned(), |section| format!("{section}.{part}"));
            let name_span = table.key(part).and_then(toml_edit::Key::span);
            match item.as_table_like() {
                Some(inner) if !inner.is_empty() || is_section(&name) => {
                    self.walk(Some(&name), inner, settings, problems);
                    continue;
                }
                _ => {}
            }
            let Some(key) = Key::named(&name) else {
                let origin = self.origin(name_span.or(item.span()));
                problems.push(Problem { origin, what: unknown(&name) });
                continue;
            };
            let origin = self.origin(item.span().or(name_span));
            let number = || item.as_integer().map(|number| number.to_string());
            let bare = || number().or_else(|| Some(item.as_bool()?.to_string())).filter(|_| key.is_bare());
            match item.as_str().map(str::to_owned).or_else(bare) {
                Some(text) => settings.push(Setting { key, text, origin }),
                None => problems.push(Problem { origin, what: no_text(key, item) }),
            }
        }
    }

    fn origin(&self, span: Option<Range<usize>>) -> Origin {
        // Without a span the problem is told at the top of the file.
        let before = span.and_then(|span| self.text.get(..span.start)).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::File {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before.chars().count() - before[..line_start].chars().count() + 1,
        }
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section() == Some(name))
}

fn unknown(name: &str) -> String {
    if is_section(name) {
        let keys: Vec<_> =
            KEYS.iter().filter(|key| key.section() == Some(name)).map(|key| key.name).collect();
        return format!("{name}: is a section; its keys: {}", keys.join(", "));
    }
    match nearest_key(name) {
        Some(key) => format!("{name}: unknown key; did you mean {}?", key.name),
        None => format!("{name}: unknown key; the keys are {}", key_names()),
    }
}

/// Does not repeat the value: it may be a publish key of digits only.
fn no_text(key: &Key, item: &Item) -> String {
    format!("{}: is of type {}, not a text in quotes; allowed: {}", key.name, item.type_name(), key.allowed)
}
