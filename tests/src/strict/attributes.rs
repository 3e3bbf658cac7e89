//! Attribute lists (§4.2): taken apart once, then each attribute is taken out by its type, and nothing may be left.

use std::time::Duration;

use super::{Violation, integer, relative_uri, seconds};

#[derive(Debug)]
pub(super) struct Attributes<'a> {
    line: usize,
    left: Vec<(&'a str, Value<'a>)>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Quoted(&'a str),
    Bare(&'a str),
}

impl<'a> Attributes<'a> {
    pub(super) fn parse(line: usize, text: &'a str) -> Result<Self, Violation> {
        let mut attributes = Self { line, left: Vec::new() };
        let mut rest = text;
        loop {
            let Some((name, after)) = rest.split_once('=') else {
                return Err(attributes.wrong(format!("attribute without a value at {rest:?}")));
            };
            if name.is_empty()
                || !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-')
            {
                return Err(attributes.wrong(format!("{name:?} is not an attribute name")));
            }
            if attributes.left.iter().any(|(other, _)| *other == name) {
                return Err(attributes.wrong(format!("{name} appears twice")));
            }
            let (value, after) = attributes.value(name, after)?;
            attributes.left.push((name, value));
            if after.is_empty() {
                return Ok(attributes);
            }
            let Some(next) = after.strip_prefix(',') else {
                return Err(attributes.wrong(format!("no comma after {name}")));
            };
            rest = next;
        }
    }

    fn value(&self, name: &str, text: &'a str) -> Result<(Value<'a>, &'a str), Violation> {
        if let Some(quoted) = text.strip_prefix('"') {
            return match quoted.split_once('"') {
                Some((value, after)) => Ok((Value::Quoted(value), after)),
                None => Err(self.wrong(format!("{name} has no closing quote"))),
            };
        }
        let (value, after) = text.split_at(text.find(',').unwrap_or(text.len()));
        if value.is_empty() || value.contains(|c: char| c == '"' || c.is_whitespace()) {
            return Err(self.wrong(format!("{name} has the value {value:?}")));
        }
        Ok((Value::Bare(value), after))
    }

    fn wrong(&self, what: String) -> Violation {
        Violation::at_line(self.line, what)
    }

    fn take(&mut self, name: &str) -> Option<Value<'a>> {
        let index = self.left.iter().position(|(other, _)| *other == name)?;
        Some(self.left.remove(index).1)
    }

    pub(super) fn bare(&mut self, name: &str) -> Result<Option<&'a str>, Violation> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bare(value)) => Ok(Some(value)),
            Some(Value::Quoted(_)) => Err(self.wrong(format!("{name} must not be quoted"))),
        }
    }

    pub(super) fn quoted(&mut self, name: &str) -> Result<Option<&'a str>, Violation> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Quoted(value)) => Ok(Some(value)),
            Some(Value::Bare(_)) => Err(self.wrong(format!("{name} must be quoted"))),
        }
    }

    pub(super) fn uri(&mut self, name: &str) -> Result<Option<String>, Violation> {
        self.quoted(name)?.map(|text| relative_uri(self.line, text)).transpose()
    }

    pub(super) fn integer(&mut self, name: &str) -> Result<Option<u64>, Violation> {
        self.bare(name)?.map(|text| integer(self.line, text)).transpose()
    }

    pub(super) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, Violation> {
        self.bare(name)?.map(|text| seconds(self.line, text)).transpose()
    }

    /// An attribute whose only sensible value is YES; writing NO is allowed and means absent.
    pub(super) fn yes(&mut self, name: &str) -> Result<bool, Violation> {
        match self.bare(name)? {
            None | Some("NO") => Ok(false),
            Some("YES") => Ok(true),
            Some(other) => Err(self.wrong(format!("{name} is {other:?}, neither YES nor NO"))),
        }
    }

    pub(super) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Violation> {
        value.ok_or_else(|| self.wrong(format!("{name} is missing")))
    }

    /// Refuses what nobody asked for: players skip unknown attributes, so a misspelt one would go unnoticed.
    pub(super) fn finish(self) -> Result<(), Violation> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(self.wrong(format!("{name} is not an attribute of this tag"))),
        }
    }
}
