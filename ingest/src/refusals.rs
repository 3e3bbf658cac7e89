//! The last publishers that were turned away, for whoever holds the key: encoders show their user only a general
//! failure, whatever we answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use media::StreamId;

/// Kept in all, and of one address, so that somebody who tries keys does not push everybody else out.
const REFUSALS_MAX: usize = 20;
const REFUSALS_PER_ADDRESS_MAX: usize = 5;

/// A name of this length, told without a key beside it, may be the key: the shortest has 16 characters.
const KEY_CHARS_MIN: usize = 16;

/// Longest encoder name kept, in characters.
const ENCODER_CHARS_MAX: usize = 48;

/// One publisher turned away, or the same one again and again. Never holds a key, nor what could be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The last time.
    pub at: SystemTime,
    pub times: u32,
    pub peer: IpAddr,
    /// What it wanted to publish; `None` if it named nothing that can be told.
    pub stream: Option<StreamId>,
    pub encoder: Option<String>,
    /// For the broadcaster.
    pub words: String,
}

/// The newest refusals of this node; clones share them.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<VecDeque<Refused>>>);

impl Refusals {
    /// The newest first.
    pub fn newest_first(&self) -> Vec<Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    pub(crate) fn note(&self, mut refused: Refused) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |other: &Refused| {
            (other.peer, &other.stream, &other.words) == (refused.peer, &refused.stream, &refused.words)
        };
        if let Some(earlier) = kept.iter().position(same).and_then(|index| kept.remove(index)) {
            refused.times = earlier.times.saturating_add(refused.times);
        }
        let from_here = |other: &Refused| other.peer == refused.peer;
        if kept.iter().filter(|other| from_here(other)).count() == REFUSALS_PER_ADDRESS_MAX {
            let oldest = kept.iter().position(from_here);
            oldest.and_then(|index| kept.remove(index));
        } else if kept.len() == REFUSALS_MAX {
            kept.pop_front();
        }
        kept.push_back(refused);
    }
}

/// Whether a name may be told that came without a key: people paste the bare key where the name belongs.
pub(crate) fn may_be_told(id: &StreamId) -> bool {
    id.app().len() < KEY_CHARS_MIN && id.stream().len() < KEY_CHARS_MIN
}

/// The encoder's name as it calls itself in RTMP (`flashVer`), if that is one. Nearly all claim to be Adobe's encoder and
/// "compatible" with what they are: `FMLE/3.0 (compatible; Lavf59.27.100)`.
pub(crate) fn encoder_name(claimed: &str) -> Option<String> {
    let claimed = claimed.split_once("(compatible; ").map_or(claimed, |(_, name)| name.trim_end_matches(')'));
    let plain = |char: char| char.is_ascii_alphanumeric() || " ./_-+(),;:".contains(char);
    let name: String = claimed.chars().filter(|&char| plain(char)).take(ENCODER_CHARS_MAX).collect();
    let name = name.trim();
    // What librtmp says of itself, and OBS with it.
    if name.starts_with("FMSc/") {
        return Some("OBS or another encoder with librtmp".to_owned());
    }
    match name.strip_prefix("Lavf") {
        Some(version) => Some(format!("ffmpeg (Lavf {version})")),
        None => (!name.is_empty()).then(|| name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn refused(second: u64, host: u8, words: &str) -> Refused {
        Refused {
            at: UNIX_EPOCH + Duration::from_secs(second),
            times: 1,
            peer: IpAddr::from([203, 0, 113, host]),
            stream: StreamId::new("live", "cam").ok(),
            encoder: None,
            words: words.to_owned(),
        }
    }

    /// An encoder that reconnects by itself is one line, with how often and when it last was.
    #[test]
    fn the_same_refusal_again_is_counted_and_becomes_the_newest() {
        let refusals = Refusals::default();
        for (second, words) in [(1, "wrong key"), (2, "name taken"), (3, "wrong key")] {
            refusals.note(refused(second, 7, words));
        }
        let kept = refusals.newest_first();
        assert_eq!(kept, [Refused { times: 2, ..refused(3, 7, "wrong key") }, refused(2, 7, "name taken")]);
    }

    /// Threat: a stranger fills the list so that the broadcaster's own refusal cannot be seen, or so that it grows.
    #[test]
    fn one_address_cannot_push_the_others_out_and_the_list_is_bounded() {
        let refusals = Refusals::default();
        refusals.note(refused(0, 1, "wrong key"));
        for second in 1..1_000 {
            refusals.note(refused(second, 66, &format!("words {second}")));
        }
        let kept = refusals.newest_first();
        assert_eq!(kept.len(), 1 + REFUSALS_PER_ADDRESS_MAX);
        assert_eq!(kept[0].words, "words 999");
        assert_eq!(kept.last(), Some(&refused(0, 1, "wrong key")));
        for host in 0..=255 {
            refusals.note(refused(2_000, host, "wrong key"));
        }
        assert_eq!(refusals.newest_first().len(), REFUSALS_MAX);
    }

    /// Threat: markup, control characters or a megabyte in a name that is shown to the operator.
    #[test]
    fn encoder_names_are_short_and_plain() {
        for (claimed, name) in [
            ("FMLE/3.0 (compatible; Lavf59.27.100)", Some("ffmpeg (Lavf 59.27.100)")),
            ("FMLE/3.0 (compatible; FMSc/1.0)", Some("OBS or another encoder with librtmp")),
            ("Larix/1.3", Some("Larix/1.3")),
            ("<script>alert(1)</script>", Some("scriptalert(1)/script")),
            ("\u{0}\r\n\u{202e}", None),
            ("", None),
        ] {
            assert_eq!(encoder_name(claimed).as_deref(), name, "{claimed:?}");
        }
        assert_eq!(encoder_name(&"x".repeat(1_000_000)).unwrap().len(), ENCODER_CHARS_MAX);
    }
}
