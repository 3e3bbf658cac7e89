//! Identity: what a stream, a session of it, and a track in it are called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest application or stream name, in bytes. Names stand in URLs, logs and file names; 64 is more than
/// people type and keeps every table of them small.
pub const NAME_BYTES_MAX: usize = 64;

/// One live programme: the application it was published to and its name, as in `live/cam1`.
///
/// Both halves are `[A-Za-z0-9_-]{1,64}`, checked once, here: whoever holds a `StreamId` may put it into a
/// path, a URL or a log line.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    app: Arc<str>,
    stream: Arc<str>,
}

impl StreamId {
    /// # Errors
    /// [`NameError`] if either half is empty, too long, or holds a character outside `[A-Za-z0-9_-]`.
    pub fn new(app: &str, stream: &str) -> Result<Self, NameError> {
        check(app)?;
        check(stream)?;
        Ok(Self { app: app.into(), stream: stream.into() })
    }

    pub fn app(&self) -> &str {
        &self.app
    }

    pub fn stream(&self) -> &str {
        &self.stream
    }
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err(NameError::Character);
    }
    Ok(())
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.stream)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a name is not one. The publisher or the viewer who sent it must change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name is longer than {NAME_BYTES_MAX} characters")]
    TooLong,
    #[error("a name may hold only letters, digits, '-' and '_'")]
    Character,
}

/// One publication of a stream, from its first publisher to its ENDLIST; part of every media URL, so that a
/// URL never names two different bytes. 64 random bits, written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    pub const fn from_random(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // Of each request for media: one pass, which also refuses capitals and signs.
        let digits: &[u8; 16] = text.as_bytes().try_into().map_err(|_| NameError::Character)?;
        let append = |id: u64, digit: &u8| match digit {
            b'0'..=b'9' => Ok(id << 4 | u64::from(digit - b'0')),
            b'a'..=b'f' => Ok(id << 4 | u64::from(digit - b'a' + 10)),
            _ => Err(NameError::Character),
        };
        digits.iter().try_fold(0, append).map(Self)
    }
}

/// Longest name of a node: a label of the domain name system, RFC 1035 §2.3.1.
const NODE_ID_BYTES_MAX: usize = 63;

/// A node of the cluster, as its certificate names it: `[a-z][a-z0-9-]*`, not ending with `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

/// Why a text is not the name of a node. The operator chooses another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node's name is a letter and up to 62 more letters, digits and '-', all in lower case, and does not end with '-'"
)]
pub struct NodeIdError;

impl NodeId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = text.len() <= NODE_ID_BYTES_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-')
            && text.bytes().all(allowed);
        if is_name { Ok(Self(text.into())) } else { Err(NodeIdError) }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Number of an elementary stream within its stream; on the wire and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    /// Threat: a stream name that climbs out of a directory, splits a URL, or is a wildcard somewhere behind us.
    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let bad = [
            "",
            "..",
            ".",
            "a/b",
            "a\\b",
            "%2e%2e",
            "a%00",
            "a\0b",
            "a b",
            "a?b",
            "a#b",
            "*",
            ">",
            "a.b",
            "\u{2024}\u{2024}",
            "é",
            "a\r\nb",
            "~token",
            &long,
        ];
        for name in bad {
            assert!(StreamId::new("live", name).is_err(), "{name:?} as a stream");
            assert!(StreamId::new(name, "cam").is_err(), "{name:?} as an application");
        }
        assert_eq!(StreamId::new("live", "Cam_1-a").unwrap().to_string(), "live/Cam_1-a");
    }

    #[test]
    fn session_ids_have_one_spelling() {
        let session = SessionId::from_random(0xAB);
        assert_eq!(session.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(session));
        for other in ["ab", "00000000000000AB", "+0000000000000ab", "00000000000000ab0"] {
            assert!(other.parse::<SessionId>().is_err(), "{other}");
        }
    }

    #[test]
    fn names_of_nodes_can_stand_in_certificates_headers_and_paths() {
        for name in ["a", "edge1", "eu-west-1-edge-2"] {
            assert!(name.parse::<NodeId>().is_ok(), "{name}");
        }
        for name in ["", "1", "-a", "a-", "A", "a.b", "a b", "a,b", "ä", &"a".repeat(64)] {
            assert!(name.parse::<NodeId>().is_err(), "{name:?}");
        }
    }
}
