//! Video out of RTP: packets in their order in, whole access units out, as a file holds them. Pure.
//!
//!   packet ─▶ the payloads of one timestamp ─▶ h264.rs, h265.rs, vp8.rs, vp9.rs, av1.rs ─▶ the sample
//!
//! Every unit that is given out can be decoded: one with a hole is dropped, and so is all that may lean on it, up to
//! the next keyframe.

mod av1;
mod h264;
mod h265;
mod nals;
mod vp8;
mod vp9;

use std::fmt;

use bytes::Bytes;
use media::{VideoCodec, VideoConfig};

use super::reorder::Ordered;

/// Largest access unit, in bytes. A keyframe of a second at 60 Mbit/s has 7.5 MB.
pub(super) const UNIT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One picture that can be decoded after those given out before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) timestamp: u32,
    pub(super) key: bool,
    /// As a file holds it: of H.264 and HEVC NAL units behind lengths of four bytes, without parameter sets.
    pub(super) sample: Bytes,
    /// Of a keyframe, if it is another one than before.
    pub(super) config: Option<VideoConfig>,
}

/// What a packet made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    Picture(Picture),
    /// Nothing can be decoded from here on until a keyframe comes, which must be asked for.
    Broken,
}

/// What a codec's payloads are made into, one picture after the other.
trait Depacketize: fmt::Debug + Send {
    /// One more of the picture that is open, not empty. `None` if it makes no sense there, or is more than a picture has.
    fn payload(&mut self, payload: &Bytes) -> Option<()>;

    /// There are no more; the next payload is of the next picture.
    fn finish(&mut self) -> Finished;

    /// Of the keyframe that was finished last. `None` if nobody can play it.
    fn config(&self, sample: &Bytes) -> Option<VideoConfig>;
}

/// The payloads of one picture.
struct Finished {
    /// Empty if there is nothing to show.
    sample: Bytes,
    key: bool,
    /// Its end is missing.
    is_cut: bool,
}

#[derive(Debug)]
pub(super) struct AccessUnits {
    depacketizer: Box<dyn Depacketize>,
    open: Option<Open>,
    /// In force for what is given out.
    config: Option<VideoConfig>,
    /// What comes can be decoded.
    whole: bool,
    /// That it cannot was told.
    told: bool,
}

/// The access unit that packets are still coming for.
#[derive(Debug)]
struct Open {
    timestamp: u32,
    /// A packet of it is missing or makes no sense.
    damaged: bool,
}

impl AccessUnits {
    pub(super) fn new(codec: VideoCodec) -> Self {
        let depacketizer: Box<dyn Depacketize> = match codec {
            VideoCodec::H264 => Box::<h264::Depacketizer>::default(),
            VideoCodec::H265 => Box::<h265::Depacketizer>::default(),
            VideoCodec::Av1 => Box::<av1::Depacketizer>::default(),
            VideoCodec::Vp8 => Box::<vp8::Depacketizer>::default(),
            VideoCodec::Vp9 => Box::<vp9::Depacketizer>::default(),
        };
        Self { depacketizer, open: None, config: None, whole: false, told: false }
    }

    /// A packet in its turn makes at most one picture: the one before it, or its own.
    pub(super) fn push(&mut self, ordered: Ordered, made: &mut Vec<Made>) {
        let Ordered { packet, lost } = ordered;
        if self.open.as_ref().is_some_and(|open| open.timestamp != packet.timestamp) {
            // Its last packet, with the marker, is lost, or the publisher sets none.
            self.close(lost > 0, made);
        } else if lost > 0 && self.open.is_none() {
            self.broken(made);
        }
        let open = self.open.get_or_insert(Open { timestamp: packet.timestamp, damaged: false });
        open.damaged |= lost > 0;
        // An empty packet is how some publishers probe the line; it has no say about any picture.
        if !packet.payload.is_empty() {
            open.damaged |= self.depacketizer.payload(&packet.payload).is_none();
        }
        if packet.marker {
            self.close(false, made);
        }
    }

    /// `cut`: the end of the unit is missing.
    fn close(&mut self, cut: bool, made: &mut Vec<Made>) {
        let Some(open) = self.open.take() else { return };
        let Finished { sample, key, is_cut } = self.depacketizer.finish();
        let damaged = open.damaged || cut || is_cut;
        if sample.is_empty() && !damaged {
            return;
        }
        if damaged || !key && !self.whole {
            // What was asked for has come, and is of no use: who is asked for all layers at once must be asked again.
            self.told &= !key;
            return self.broken(made);
        }
        let mut config = None;
        if key {
            let Some(now) = self.depacketizer.config(&sample) else { return self.broken(made) };
            if self.config.as_ref() != Some(&now) {
                config = Some(now.clone());
                self.config = Some(now);
            }
            (self.whole, self.told) = (true, false);
        }
        made.push(Made::Picture(Picture { timestamp: open.timestamp, key, sample, config }));
    }

    fn broken(&mut self, made: &mut Vec<Made>) {
        self.whole = false;
        if !std::mem::replace(&mut self.told, true) {
            made.push(Made::Broken);
        }
    }
}

#[cfg(test)]
mod tests;
