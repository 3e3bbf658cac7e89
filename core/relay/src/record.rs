//! What is known of a stream as a whole. Every node renders from these records, never from its own configuration.

use std::sync::Arc;

use media::codec::Chroma;
use media::{Captions, CodecConfig, SessionId, TrackId};

/// Most bytes of parts that an origin keeps for one stream. Ingest stamps a window that fits, and the origin
/// enforces it.
pub const STORE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Written when the log opens, and again when [`Live`] is known or added to.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamRecord {
    pub session: SessionId,
    /// Counter of the publication's owners; part of every cursor.
    pub epoch: u32,
    /// PART-HOLD-BACK, equal in all playlists.
    pub part_hold_back_ms: u32,
    /// Frames per second of the video, as measured.
    pub frame_rate: Option<f64>,
    pub tracks: Vec<TrackRecord>,
    /// `None` while the first segment is incomplete: the stream is *starting* and has no playlist.
    pub live: Option<Live>,
}

/// One track, and the rendition its bytes become.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackRecord {
    pub id: TrackId,
    /// Rendition name in URLs: `v` is the publisher's own video, `a` its audio.
    pub name: Arc<str>,
    /// Of a derived track what it will be at most; the encoder's own comes in the log, before the first unit.
    pub codec: CodecConfig,
    /// PART-TARGET.
    pub part_target_ms: u32,
    /// How much earlier than in the log units are decoded in the boxes, in ticks: the encoder's reorder delay. The
    /// log has DTS = PTS at every IDR; with it, no composition offset in the boxes is negative.
    pub reorder_delay: u32,
    /// It shows what another track of this stream shows. `None` for what is the publisher's own.
    pub derived: Option<Derived>,
}

impl TrackRecord {
    /// Whether WebRTC shows it as it is, if the viewer has a decoder for it: H.264, AV1, VP8 or VP9 of 8 bits and 4:2:0 whose
    /// pictures come in the order they are shown, or Opus of at most two channels. (HEVC few browsers take; none of the
    /// others is without H.264.)
    pub fn suits_webrtc(&self) -> bool {
        let is_plain =
            |chroma, bit_depth| self.reorder_delay == 0 && bit_depth == 8 && chroma == Chroma::Yuv420;
        match &self.codec {
            CodecConfig::H264(config) => {
                is_plain(config.chroma(), config.bit_depth())
                    && config.reorder_frames_max().is_none_or(|frames| frames == 0)
            }
            CodecConfig::Av1(config) => is_plain(config.chroma(), config.bit_depth()),
            CodecConfig::Vp8(_) => self.reorder_delay == 0,
            CodecConfig::Vp9(config) => is_plain(config.chroma(), config.bit_depth()),
            CodecConfig::Opus(_) => self.codec.channels().is_some_and(|channels| channels <= 2),
            CodecConfig::H265(_) | CodecConfig::Aac(_) => false,
        }
    }

    /// By the publisher itself: nobody has to make it.
    pub fn is_sent(&self) -> bool {
        self.derived.is_none_or(|derived| derived.layer)
    }
}

/// A track that shows the same as another. A worker makes it, if there is one, or it is a layer that the publisher sends
/// (simulcast). It may have no media for a while, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    pub from: TrackId,
    /// Of so many pictures of the source it has one. At least 1; sound has all of itself.
    pub every: u8,
    /// As configured: what is measured of it says more about the scene than about the rung.
    pub bandwidth: Bandwidth,
    /// Made only while somebody watches it, and gaps otherwise; see [`Demand`](crate::Demand).
    pub on_demand: bool,
    /// For viewers by WebRTC only: it is in no playlist.
    pub for_webrtc: bool,
    /// Sent by the publisher beside the other, smaller (RFC 8853). No worker makes it, and its keyframes are where the
    /// other has its own.
    pub layer: bool,
}

/// What the first complete segment settles for the life of the session; bandwidths and captions are added to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// EXT-X-TARGETDURATION, seconds.
    pub target_duration_s: u32,
    /// Length of the playlist window, milliseconds.
    pub window_ms: u32,
    /// One for each track, in the order of [`StreamRecord::tracks`].
    pub bandwidth: Vec<Bandwidth>,
    /// That came with the publisher's pictures so far. For who packages them: it is in no record on the wire.
    pub captions: Captions,
}

/// Bits per second of one rendition, boxes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bandwidth {
    pub peak: u32,
    pub average: u32,
}

/// How the publisher is doing right now, for people; nothing is computed from it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// When the publisher was accepted, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// All tracks together, over the last second or so.
    pub bits_per_second: u32,
    pub frame_rate: Option<f64>,
    /// The newest distance of two keyframes.
    pub keyframe_interval_s: Option<f64>,
    /// Why there is no playlist yet, in words for the broadcaster and the waiting viewer.
    pub starting: Option<String>,
    /// Since when no media has come, in milliseconds since the Unix epoch: the publisher is gone, and may come back.
    pub interrupted_since_ms: Option<i64>,
    /// What is wrong with what arrives and how to mend it, in words for the broadcaster.
    pub warnings: Vec<String>,
    pub health: Health,
}

/// The last minutes of a publication, for its broadcaster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Health {
    /// About one for each second of media, the oldest first; at most [`HEALTH_SAMPLES_MAX`].
    pub samples: Vec<Sample>,
    pub sound: Sound,
    /// How much later than in the best of the last minutes media arrives.
    pub late_ms: u32,
    /// What could be better though nothing is wrong, in words.
    pub hints: Vec<String>,
}

/// Five minutes: long enough to see what a change of the encoder's settings did.
pub const HEALTH_SAMPLES_MAX: usize = 300;

/// What arrived within one span of media.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    pub span_ms: u32,
    /// All tracks together.
    pub bits_per_second: u32,
    pub frame_rate: f32,
}

/// What can be said of the sound without decoding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sound {
    /// There never was any.
    #[default]
    None,
    Arriving {
        bits_per_second: u32,
    },
    /// It arrives, in frames as small as an encoder makes of digital silence.
    ProbablySilent,
    /// None has come for so long.
    Stopped {
        seconds: u32,
    },
}
