//! How much room an edge has for viewers.
//!
//! By the larger of the shares that it uses of what it has. A level is left again only some way below where it was
//! reached: who is sent away for one reading, and let in for the next, would be sent to and fro.

use serde::{Deserialize, Serialize};

/// From here on new viewers go to another edge while one has room.
pub const SHARE_LITTLE: f64 = 0.85;
/// From here on it takes nobody new, but by HLS for the lower renditions if no other edge has room.
pub const SHARE_SCARCE: f64 = 0.95;
/// From here on it takes nobody new at all. Who is there is served all the same.
const SHARE_NONE: f64 = 1.0;

/// So far below its beginning a level ends. More than one viewer of a small edge, and less than between two levels' uses.
pub const RELIEF: f64 = 0.05;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Room {
    #[default]
    Plenty,
    Little,
    Scarce,
    /// And whatever a later release calls it.
    #[serde(other)]
    None,
}

impl Room {
    /// By one reading alone.
    pub fn of(share: f64) -> Self {
        match share {
            share if share >= SHARE_NONE => Self::None,
            share if share >= SHARE_SCARCE => Self::Scarce,
            share if share >= SHARE_LITTLE => Self::Little,
            _ => Self::Plenty,
        }
    }

    /// What it is by the next reading: less room at once, more only when there is clearly more.
    #[must_use]
    pub fn next(self, share: f64) -> Self {
        Self::of(share).max(self.min(Self::of(share + RELIEF)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(shares: &[f64]) -> Vec<Room> {
        let next = |room: &mut Room, share: &f64| {
            *room = room.next(*share);
            Some(*room)
        };
        shares.iter().scan(Room::Plenty, next).collect()
    }

    #[test]
    fn room_shrinks_at_once() {
        assert_eq!(
            readings(&[0.0, 0.84, 0.85, 0.95, 1.0, 7.0]),
            [Room::Plenty, Room::Plenty, Room::Little, Room::Scarce, Room::None, Room::None]
        );
        assert_eq!(readings(&[1.2]), [Room::None]);
    }

    #[test]
    fn a_share_that_wavers_about_a_level_changes_nothing() {
        let wavering = [0.86, 0.84, 0.86, 0.81, 0.85];
        assert!(readings(&wavering).iter().all(|room| *room == Room::Little), "{:?}", readings(&wavering));
        assert_eq!(readings(&[0.96, 0.91, 0.94])[2], Room::Scarce);
    }

    #[test]
    fn who_has_clearly_more_room_says_so() {
        assert_eq!(readings(&[0.86, 0.79])[1], Room::Plenty);
        assert_eq!(
            readings(&[1.1, 0.94, 0.89, 0.79]),
            [Room::None, Room::Scarce, Room::Little, Room::Plenty]
        );
        assert_eq!(readings(&[1.1, 0.1])[1], Room::Plenty);
    }
}
