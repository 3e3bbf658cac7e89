//! The wire between nodes: what a child reads when it subscribes to the CMAF parts of a stream, or to its access units. Pure.
//!
//! One long HTTP response is a run of frames, each behind the 32-byte header of `frame.rs`; a reader skips kinds it does not
//! know by their length, so that nodes of different versions can work together.
//!
//! Parts, below `/x/1/{app}/{stream}`; `track` is the rendition's place in the record:
//!
//! ```text
//!   { Record  Index  { Init | Part (listed, or with its bytes) }*  IndexComplete  { Record | Init | Part | TrackEnd | Clock }* }+  End
//! ```
//!
//! The index is every part that can be fetched, oldest first; a child serves no playlist before it is complete. Bytes
//! that it lists but does not carry are fetched when a viewer asks, below the same path.
//!
//! Access units of what WebRTC can show, below `/x/1/webrtc/{app}/{stream}`; `track` is the track's number, and each frame is
//! what lies in the log, untouched:
//!
//! ```text
//!   Stream  Condition  { Stream | Condition | Frame | Clock }*  End
//! ```
//!
//! A track begins with the newest keyframe, behind the configuration and the boundary in force there, or where the child says
//! it was; a child that falls behind finds itself at a newer keyframe, in the same way. What its viewers want, it tells by a
//! POST of [`Wants`] to the same path.

mod decode;
mod encode;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hello;
mod record;
mod resume;
mod slices;
mod units;
mod wants;

use bytes::Bytes;
use media::{Captions, CodecConfig, SessionId};

use crate::frame::Frame;
use crate::record::StreamRecord;

pub use decode::{Decoder, WireError};
pub use hello::{FORMAT, HOPS, Hello, HelloError, Hops, RelayLoop, WIRE, chosen_version};
pub use resume::{Place, Resume, ResumeError};
pub use slices::Slices;
pub use units::{UnitPlace, UnitResume};
pub use wants::{Wants, WantsError};

/// Versions of this wire that we speak, oldest first.
pub const VERSIONS: &[u32] = &[1];

/// Longest frame, header included. Ingest closes a group at 16 MiB, so no honest part comes near it; a longer part is
/// listed without its bytes.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Longest frame of any kind but a part or a unit: a record of every rendition with its codec configuration.
pub const SMALL_FRAME_BYTES_MAX: usize = 256 * 1024;

/// Renditions of one stream. A ladder has six.
pub const RENDITIONS_MAX: usize = 32;

/// Every path of the wire begins so; the number is the version of the paths.
pub const PATH_PREFIX: &str = "/x/1/";

/// Below the prefix: a POST with `Upgrade` borrows an encoder, and `cost` in its query says of how many cores. From the answer on
/// the connection is the encoder's, and outlives a drain of the relay.
pub const ENCODE: &str = "encode";

/// Below the prefix: what a node has of each stream, as JSON, for an operator who asks another node.
pub const STREAMS: &str = "streams";

/// In the query of a subscription to parts: nothing is wanted for the child itself, which has to be ready for others. Whether somebody
/// watches there, it tells by [`Wants`].
pub const UNWATCHED: &str = "unwatched";

/// In the query of what is asked of a session, before the epoch of the publication that the child knows of it. Whoever goes on with a
/// session may give other bytes the same names; of an owner before the one it knows a child takes nothing.
pub const EPOCH: &str = "epoch=";

/// Before a stream's name: its access units, of the tracks that WebRTC can show.
pub const WEBRTC: &str = "webrtc";

const KIND_RECORD: u8 = 16;
const KIND_INDEX: u8 = 17;
const KIND_INIT: u8 = 18;
const KIND_PART: u8 = 19;
const KIND_INDEX_COMPLETE: u8 = 20;
const KIND_TRACK_END: u8 = 21;
const KIND_CLOCK: u8 = 22;
const KIND_END: u8 = 23;
const KIND_STREAM: u8 = 24;
const KIND_CONDITION: u8 = 25;

/// The part begins with a unit that can be decoded alone.
const FLAG_INDEPENDENT: u8 = 1 << 0;
const FLAG_GAP: u8 = 1 << 1;
const FLAG_LAST_IN_SEGMENT: u8 = 1 << 2;
/// The frame ends with the record: the bytes are fetched by URL.
const FLAG_LISTED: u8 = 1 << 3;
/// No part of this rendition follows.
const FLAG_LAST_OF_TRACK: u8 = 1 << 4;
/// The index goes on where the child said it was.
const FLAG_RESUMED: u8 = 1 << 5;

/// Bytes of a part's record, before its media.
const PART_RECORD_BYTES: usize = 44;

/// One thing that a node tells its child.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Record(Record),
    /// The index begins: with everything there is, or right after what the child has. Comes again when another publication
    /// has taken over: what was told before does not hold any more.
    Index {
        resumed: bool,
        /// Of the publication; zero from a node of an earlier release.
        epoch: u32,
    },
    Init {
        track: u16,
        init: Init,
    },
    Part {
        track: u16,
        part: Part,
    },
    /// Everything that exists has been told; what follows is live.
    IndexComplete,
    /// The rendition is over, and its last part was sent before.
    TrackEnd {
        track: u16,
    },
    /// The peer is alive. Its wall clock, milliseconds since the Unix epoch.
    Clock {
        sent_ms: i64,
    },
    /// The session is over for good.
    End,
    /// Of a subscription to access units, the record: first, and again when it changes.
    Stream(Box<StreamRecord>),
    Condition(Condition),
    /// An entry of a track's log.
    Frame(Frame),
}

/// How the publisher does, as far as viewers are served by it. Told when it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Condition {
    pub keyframe_interval_s: Option<f64>,
    /// Since when no media has come, in milliseconds since the Unix epoch.
    pub interrupted_since_ms: Option<i64>,
}

/// What a child renders from. Sent first, and again when the announcement comes or rises.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub session: SessionId,
    /// Version of playlists and parts: nodes of different versions would give one URL different bytes.
    pub format: u32,
    pub part_hold_back_ms: u32,
    /// In the order of the multivariant playlist.
    pub renditions: Vec<Rendition>,
    /// `None` while the first segment is incomplete.
    pub live: Option<Live>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rendition {
    pub name: String,
    pub part_target_ms: u32,
    /// Bits per second; zero before the announcement.
    pub peak: u64,
    pub average: u64,
    /// Made by a transcode worker, which may give no media for a while, or never.
    pub derived: Option<Derived>,
    pub codec: CodecConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// One of so many pictures of its source; at least 1.
    pub every: u8,
    /// Made only while somebody watches it. Whoever subscribes does.
    pub on_demand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Live {
    pub target_duration_s: u32,
    pub window_ms: u32,
    pub frame_rate: Option<f64>,
    pub captions: Captions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// As it stands in URLs, read as a number.
    pub hash: u64,
    pub bytes: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub msn: u64,
    pub part: u32,
    /// Oldest segment that the sender still keeps: children let go of what is before it.
    pub oldest_msn: u64,
    /// Ticks of the rendition's timescale.
    pub duration: u32,
    pub independent: bool,
    pub gap: bool,
    pub last_in_segment: bool,
    pub last_of_track: bool,
    /// Of the segment's first sample, milliseconds since the Unix epoch.
    pub program_date_time_ms: i64,
    pub discontinuity_sequence: u64,
    /// Hash of the init segment in force.
    pub init: u64,
    /// Length of the media, carried here or not.
    pub bytes: u32,
    /// `None` if it is to be fetched.
    pub body: Option<Vec<Bytes>>,
}

#[cfg(test)]
mod tests;
