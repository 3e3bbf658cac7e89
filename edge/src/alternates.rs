//! Other nodes that have the same streams: where a page turns to when this one is gone.

use std::fmt;
use std::str::FromStr;

/// More would be a list for machines; a page asks one after the other.
const ALTERNATES_MAX: usize = 16;

/// Origins (RFC 6454), as in `https://edge2.example`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alternates(Vec<String>);

impl Alternates {
    pub fn origins(&self) -> &[String] {
        &self.0
    }

    /// These, or if the operator has listed none, `others`.
    pub(crate) fn or(&self, others: impl FnOnce() -> Vec<String>) -> Self {
        if self.0.is_empty() {
            Self(others().into_iter().take(ALTERNATES_MAX).collect())
        } else {
            self.clone()
        }
    }
}

/// The policy of a page that may also talk to `others`, and play from them.
pub(crate) fn widened(policy: &str, others: &str) -> String {
    let directives = ["connect-src 'self'", "media-src 'self'"];
    directives.iter().fold(policy.to_owned(), |policy, directive| {
        policy.replace(directive, &format!("{directive} {others}"))
    })
}

/// `https://edge2.example, https://edge3.example:8443`
impl FromStr for Alternates {
    type Err = String;

    /// # Errors
    /// Says in words which one is no origin.
    fn from_str(text: &str) -> Result<Self, String> {
        let origins: Vec<_> =
            text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(str::to_owned).collect();
        if let Some(wrong) = origins.iter().find(|origin| !is_origin(origin)) {
            return Err(format!("{wrong:?} is no origin like https://edge2.example"));
        }
        if origins.len() > ALTERNATES_MAX {
            return Err(format!("more than {ALTERNATES_MAX} are too many"));
        }
        Ok(Self(origins))
    }
}

/// Nothing here can end a header or a directive of a policy.
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let allowed = |char: char| char.is_ascii_alphanumeric() || "-._:[]".contains(char);
    authority.is_some_and(|authority| !authority.is_empty() && authority.chars().all(allowed))
}

impl fmt::Display for Alternates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_are_taken_and_they_are_shown_as_given() {
        let two: Alternates = "https://edge2.example,http://[::1]:8080".parse().unwrap();
        assert_eq!(two.to_string(), "https://edge2.example, http://[::1]:8080");
        assert_eq!("".parse(), Ok(Alternates::default()));
        let bad = [
            "edge2.example",
            "https://",
            "https://a/b",
            "https://a; script-src *",
            "https://a b",
            "ftp://a",
            "*",
        ];
        for origin in bad {
            assert!(origin.parse::<Alternates>().is_err(), "{origin}");
        }
    }

    #[test]
    fn a_page_may_talk_to_the_alternates_and_to_nobody_else() {
        let policy = widened(
            "default-src 'none'; media-src 'self' blob:; connect-src 'self'; worker-src 'self'",
            "https://edge2.example",
        );
        assert_eq!(
            policy,
            "default-src 'none'; media-src 'self' https://edge2.example blob:; connect-src 'self' \
             https://edge2.example; worker-src 'self'"
        );
    }
}
