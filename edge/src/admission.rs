//! Whether this node takes another viewer.
//!
//! ```text
//!   a newcomer ─▶ another node has room? ─▶ sent there
//!                 nobody has             ─▶ welcome, or fewer renditions, or "full", by how little room there is here
//! ```
//!
//! Only who is new is judged, by what they ask for first: a page, a multivariant playlist, a session of WHEP. Media
//! playlists, parts and sessions are of who is there already, and always served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Whom this node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Takes {
    #[default]
    Everybody,
    /// Who finds no other node with room.
    WhoeverIsLeft,
    /// Those by HLS alone, and for the lower renditions.
    LowerOnly,
    Nobody,
}

/// As `server` says it, at any moment. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    takes: AtomicU8,
    drained: AtomicBool,
}

impl Admission {
    pub fn set(&self, takes: Takes) {
        self.0.takes.store(takes as u8, Ordering::Relaxed);
    }

    pub fn get(&self) -> Takes {
        let all = [Takes::Everybody, Takes::WhoeverIsLeft, Takes::LowerOnly, Takes::Nobody];
        let said = self.0.takes.load(Ordering::Relaxed);
        all.into_iter().find(|takes| *takes as u8 == said).unwrap_or_default()
    }

    /// Who is here already is to go, too, as soon as that can be without an interruption.
    pub fn set_drained(&self, drained: bool) {
        self.0.drained.store(drained, Ordering::Relaxed);
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.0.drained.load(Ordering::Relaxed)
    }
}

/// What a newcomer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newcomer {
    Page,
    /// The multivariant one.
    Playlist,
    WebRtc,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Welcome,
    /// A multivariant playlist of the lower renditions.
    Lower,
    /// The origin (RFC 6454) of a node with room.
    Other(String),
    Full,
}

/// `other`: the origin of another node that has room, asked for only if it matters.
pub(crate) fn judge(newcomer: Newcomer, takes: Takes, other: impl FnOnce() -> Option<String>) -> Answer {
    if takes == Takes::Everybody {
        return Answer::Welcome;
    }
    match (other(), takes, newcomer) {
        (Some(origin), ..) => Answer::Other(origin),
        (None, Takes::Everybody | Takes::WhoeverIsLeft, _) => Answer::Welcome,
        // What it plays is asked for next.
        (None, Takes::LowerOnly, Newcomer::Page) => Answer::Welcome,
        (None, Takes::LowerOnly, Newcomer::Playlist) => Answer::Lower,
        (None, Takes::LowerOnly, Newcomer::WebRtc) | (None, Takes::Nobody, _) => Answer::Full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Newcomer; 3] = [Newcomer::Page, Newcomer::Playlist, Newcomer::WebRtc];

    #[test]
    fn while_there_is_room_nobody_else_is_asked() {
        for newcomer in ALL {
            let asked = || panic!("nobody has to be asked");
            assert_eq!(judge(newcomer, Takes::Everybody, asked), Answer::Welcome);
        }
    }

    #[test]
    fn newcomers_go_to_another_node_that_has_room_however_they_watch() {
        for takes in [Takes::WhoeverIsLeft, Takes::LowerOnly, Takes::Nobody] {
            for newcomer in ALL {
                let answer = judge(newcomer, takes, || Some("https://edge2".to_owned()));
                assert_eq!(answer, Answer::Other("https://edge2".to_owned()), "{takes:?} {newcomer:?}");
            }
        }
    }

    #[test]
    fn without_another_they_are_taken_then_with_less_and_then_not_at_all() {
        let alone = |takes| ALL.map(|newcomer| judge(newcomer, takes, || None));
        assert_eq!(alone(Takes::WhoeverIsLeft), [Answer::Welcome, Answer::Welcome, Answer::Welcome]);
        assert_eq!(alone(Takes::LowerOnly), [Answer::Welcome, Answer::Lower, Answer::Full]);
        assert_eq!(alone(Takes::Nobody), [Answer::Full, Answer::Full, Answer::Full]);
    }

    #[test]
    fn what_was_said_last_holds_for_all() {
        let admission = Admission::default();
        let other = admission.clone();
        assert_eq!(other.get(), Takes::Everybody);
        for takes in [Takes::Nobody, Takes::LowerOnly, Takes::WhoeverIsLeft, Takes::Everybody] {
            admission.set(takes);
            assert_eq!(other.get(), takes);
        }
    }
}
