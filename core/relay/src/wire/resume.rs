//! Where a child goes on after a break: `from={session};{rendition}:{msn}.{part},…`, each the next part it wants.

use std::fmt;
use std::str::FromStr;

use media::SessionId;

use super::RENDITIONS_MAX;

/// Longest text of a resume: session, and the largest place of every rendition.
const TEXT_BYTES_MAX: usize = 17 + RENDITIONS_MAX * 64;

/// The next part that a child wants of one rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub rendition: String,
    pub msn: u64,
    pub part: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    pub session: SessionId,
    pub places: Vec<Place>,
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};", self.session)?;
        for (number, Place { rendition, msn, part }) in self.places.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{rendition}:{msn}.{part}")?;
        }
        Ok(())
    }
}

/// A resume that cannot be read; the child starts from the whole index instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("from= is not a session and places in it")]
pub struct ResumeError;

impl FromStr for Resume {
    type Err = ResumeError;

    fn from_str(text: &str) -> Result<Self, ResumeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ResumeError);
        }
        let (session, places) = text.split_once(';').ok_or(ResumeError)?;
        let session = session.parse().map_err(|_| ResumeError)?;
        let places: Option<Vec<_>> = places.split(',').map(place).collect();
        Ok(Self { session, places: places.ok_or(ResumeError)? })
    }
}

fn place(text: &str) -> Option<Place> {
    let (rendition, position) = text.split_once(':')?;
    let (msn, part) = position.split_once('.')?;
    let named = !rendition.is_empty() && rendition.bytes().all(|byte| byte.is_ascii_alphanumeric());
    Some(Place {
        rendition: named.then(|| rendition.to_owned())?,
        msn: msn.parse().ok()?,
        part: part.parse().ok()?,
    })
}
