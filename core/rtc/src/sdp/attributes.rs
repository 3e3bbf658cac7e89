//! `a=` lines.

use rtc_sdp::description::common::Attribute;

/// Those of a section, or of the session.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [Attribute]);

impl<'a> Attributes<'a> {
    pub(super) fn has(self, name: &str) -> bool {
        self.0.iter().any(|attribute| attribute.key == name)
    }

    pub(super) fn values(self, name: &str) -> impl Iterator<Item = &'a str> {
        let wanted = self.0.iter().filter(move |attribute| attribute.key == name);
        wanted.filter_map(|attribute| attribute.value.as_deref().map(str::trim))
    }

    pub(super) fn value(self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// What follows `format` in values that begin with it.
    pub(super) fn all_of_format(self, name: &str, format: &str) -> impl Iterator<Item = &'a str> {
        self.values(name)
            .filter_map(|value| value.split_once(' '))
            .filter(move |(of, _)| *of == format)
            .map(|(_, value)| value.trim())
    }

    pub(super) fn of_format(self, name: &str, format: &str) -> Option<&'a str> {
        self.all_of_format(name, format).next()
    }
}
