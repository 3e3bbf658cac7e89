//! Where a child goes on in a stream of access units after a break: `from={session}.{epoch};{track}:{group}.{frame},…`, each
//! the next frame it wants.

use std::fmt;
use std::str::FromStr;

use media::{SessionId, TrackId};

use super::{RENDITIONS_MAX, ResumeError};

/// Longest text of a resume: session and epoch, and the largest place of every track.
const TEXT_BYTES_MAX: usize = 16 + 12 + RENDITIONS_MAX * 28;

/// The next frame that a child wants of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitPlace {
    pub track: TrackId,
    pub group: u32,
    pub frame: u32,
}

/// Groups are never used twice within a session, so a place means the same whoever owns the publication by now; of an owner
/// before the one it knows a child takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitResume {
    pub session: SessionId,
    /// The highest that the child has seen.
    pub epoch: u32,
    pub places: Vec<UnitPlace>,
}

impl fmt::Display for UnitResume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{};", self.session, self.epoch)?;
        for (number, UnitPlace { track, group, frame }) in self.places.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{}:{group}.{frame}", track.0)?;
        }
        Ok(())
    }
}

impl FromStr for UnitResume {
    type Err = ResumeError;

    fn from_str(text: &str) -> Result<Self, ResumeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ResumeError);
        }
        let (owner, places) = text.split_once(';').ok_or(ResumeError)?;
        let (session, epoch) = owner.split_once('.').ok_or(ResumeError)?;
        let session = session.parse().map_err(|_| ResumeError)?;
        let epoch = epoch.parse().map_err(|_| ResumeError)?;
        let places: Option<Vec<_>> = places.split(',').map(place).collect();
        Ok(Self { session, epoch, places: places.ok_or(ResumeError)? })
    }
}

fn place(text: &str) -> Option<UnitPlace> {
    let (track, position) = text.split_once(':')?;
    let (group, frame) = position.split_once('.')?;
    Some(UnitPlace {
        track: TrackId(track.parse().ok()?),
        group: group.parse().ok()?,
        frame: frame.parse().ok()?,
    })
}
