//! Why a publication does not begin, or does not go on; in words that the broadcaster reads.

use std::fmt;

use media::StreamId;
use media::codec::{AudioConfigError, VideoConfigError};
use media::flv::TagError;

use crate::hold::{HOLD_BYTES_MAX, HOLD_TIME_MAX, KEYFRAME_WAIT_MS};
use crate::publication::UNUSABLE_MAX;

/// Why a publisher may not go live. The broadcaster must act, but for the last.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// One text for every fault, and the same count: a stranger who tries keys learns nothing from it.
    #[error("the publish key is missing or wrong")]
    WrongKey(KeyFault),
    #[error("{0} is already being published")]
    NameTaken(StreamId),
    #[error("{id} is already being published, to node {node}")]
    TakenElsewhere { id: StreamId, node: String },
    /// The operator has ordered it.
    #[error("this node takes no publishers at the moment; publish to another node")]
    Draining,
    /// The operator must act: the system gives no random numbers.
    #[error("the server cannot make a session id")]
    NoRandomness,
}

/// What is wrong with a key, for those who have the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    Missing,
    /// The right key stands where the name of the application or the stream belongs.
    InName,
    Wrong,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "no key was given: the stream key must be the name, then ?key= and the publish key",
            Self::InName => {
                "the publish key stands where a name belongs: the stream key must be a name of your choice, then \
                 ?key= and the publish key"
            }
            Self::Wrong => "wrong key",
        })
    }
}

/// Why a running publication was closed. The broadcaster must act.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{0}")]
    Tag(#[from] TagError),
    #[error("{0}")]
    Video(#[from] VideoConfigError),
    #[error("{0}")]
    Audio(#[from] AudioConfigError),
    #[error("no keyframe in the first {} s of video", KEYFRAME_WAIT_MS / 1000)]
    NoKeyframe,
    #[error("more than {} MiB in the first seconds", HOLD_BYTES_MAX / 1024 / 1024)]
    TooMuchAtStart,
    #[error("the stamps of the first {} s do not advance", HOLD_TIME_MAX.as_secs())]
    NoProgress,
    /// The usual causes: no sequence header, or start codes (Annex B) instead of lengths.
    #[error("none of the {0} of the last {unusable} s could be used: no codec configuration, or damaged",
        unusable = UNUSABLE_MAX.as_secs())]
    Unusable(&'static str),
    #[error("the video codec changed; stop and start the stream")]
    VideoChanged,
    #[error("the audio format changed; stop and start the stream")]
    AudioChanged,
    #[error("another publisher has taken over this stream")]
    TakenOver,
    /// The operator has ordered it.
    #[error("this node takes no publishers any more; connect again, to another node")]
    Draining,
    /// Connected, but without media for so long that the session was given up.
    #[error("no media came for so long that the stream was ended; connect again")]
    Over,
}
