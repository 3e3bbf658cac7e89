//! Streams that are not for everybody's eyes: watched by who has the link, on no list.

use std::str::FromStr;

use media::StreamId;

/// Which streams are on no list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unlisted(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Stream(StreamId),
    /// Every stream of an application; holds a name that stands for any.
    App(StreamId),
}

impl Unlisted {
    pub fn holds(&self, id: &StreamId) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Stream(stream) => stream == id,
            Pattern::App(any) => any.app() == id.app(),
        })
    }
}

/// `live/backstage, test/*`
impl FromStr for Unlisted {
    type Err = String;

    /// # Errors
    /// Says in words which pattern is none.
    fn from_str(text: &str) -> Result<Self, String> {
        let patterns = text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
        let parsed = patterns.map(|pattern| {
            let (app, stream) =
                pattern.split_once('/').ok_or_else(|| format!("{pattern:?} names no application"))?;
            let wrong = |error| format!("{pattern:?} is no stream: {error}");
            match stream {
                "*" => StreamId::new(app, "any").map(Pattern::App).map_err(wrong),
                _ => StreamId::new(app, stream).map(Pattern::Stream).map_err(wrong),
            }
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }
}

impl std::fmt::Display for Unlisted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match pattern {
                Pattern::Stream(id) => write!(f, "{comma}{id}")?,
                Pattern::App(any) => write!(f, "{comma}{}/*", any.app())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_and_a_whole_application_can_be_unlisted() {
        let unlisted: Unlisted = "live/backstage , test/*".parse().unwrap();
        let holds = |app, stream| unlisted.holds(&StreamId::new(app, stream).unwrap());
        assert!(holds("live", "backstage") && holds("test", "a") && holds("test", "any"));
        assert!(!holds("live", "cam") && !holds("live", "any") && !holds("tests", "a"));
        assert_eq!(unlisted.to_string(), "live/backstage, test/*");
        assert_eq!("".parse(), Ok(Unlisted::default()));
    }

    #[test]
    fn what_names_no_stream_is_refused_in_words() {
        for (text, words) in [
            ("backstage", "names no application"),
            ("live/a*", "only letters"),
            ("*/a", "only letters"),
            ("live/", "is empty"),
            ("live/a, b/c/d", "\"b/c/d\" is no stream"),
        ] {
            let error = text.parse::<Unlisted>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
