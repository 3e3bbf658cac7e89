//! What the viewers of a child want of a stream, told to its upstream: `keyframe&rung-keyframe&parts&tracks={track},{track}`.

use std::fmt;
use std::str::FromStr;

use media::TrackId;

use super::RENDITIONS_MAX;

/// Longest text: all words, and the longest number of every track.
const TEXT_BYTES_MAX: usize = 40 + RENDITIONS_MAX * 6;

/// Told again and again for as long as it is so: a child that is gone wants nothing more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// One of them cannot begin, or not go on, without one.
    pub keyframe: bool,
    /// The same, of a rung.
    pub rung_keyframe: bool,
    /// Somebody watches it in parts, by way of a child that subscribed [unwatched](super::UNWATCHED).
    pub parts: bool,
    /// Somebody watches these, of those that are made on demand only.
    pub tracks: Vec<TrackId>,
}

/// Wants that cannot be read. The other node is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("none of keyframe, rung-keyframe, parts and tracks= is wanted")]
pub struct WantsError;

impl fmt::Display for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keyframe = self.keyframe.then(|| "keyframe".to_owned());
        let rung_keyframe = self.rung_keyframe.then(|| "rung-keyframe".to_owned());
        let parts = self.parts.then(|| "parts".to_owned());
        let tracks: Vec<_> = self.tracks.iter().map(|track| track.0.to_string()).collect();
        let tracks = (!tracks.is_empty()).then(|| format!("tracks={}", tracks.join(",")));
        let words: Vec<_> = [keyframe, rung_keyframe, parts, tracks].into_iter().flatten().collect();
        f.write_str(&words.join("&"))
    }
}

impl FromStr for Wants {
    type Err = WantsError;

    fn from_str(text: &str) -> Result<Self, WantsError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(WantsError);
        }
        let mut wants = Self::default();
        for word in text.split('&') {
            match word.split_once('=') {
                None if word == "keyframe" => wants.keyframe = true,
                None if word == "rung-keyframe" => wants.rung_keyframe = true,
                None if word == "parts" => wants.parts = true,
                Some(("tracks", tracks)) => {
                    let tracks = tracks.split(',').map(|track| track.parse().map(TrackId));
                    wants.tracks = tracks.collect::<Result<_, _>>().map_err(|_| WantsError)?;
                }
                // Of a newer version.
                _ => {}
            }
        }
        if wants == Self::default() { Err(WantsError) } else { Ok(wants) }
    }
}
