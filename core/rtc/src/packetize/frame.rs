//! One access unit, cut.

use std::ops::Range;

/// Most payloads of one burst. A keyframe of a hundred packets sent at once overruns the short queues of home
/// routers, so the sender gets it in pieces it can space.
pub const SEGMENTS_MAX: usize = 32;

/// Payload numbers of one frame that may leave in one call, and no more than [`SEGMENTS_MAX`]: all as long as the
/// first, only the last may be shorter.
pub type Burst = Range<usize>;

/// Whose payload numbers these are: one packetizer. Never used for a second one in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(pub u64);

/// How payloads are laid out: what a payload type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    H264,
    Av1,
    Vp8,
    Vp9,
    Opus,
}

/// What a packetizer knows of a frame beside its payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) source: Source,
    pub(super) format: Format,
    pub(super) first_packet: u64,
    pub(super) group: u32,
    pub(super) pts: i64,
    pub(super) key: bool,
    pub(super) marker: bool,
}

/// The RTP payloads of one access unit, in one buffer. Shared by all viewers behind an `Arc`.
#[derive(Debug)]
pub struct Frame {
    meta: Meta,
    bytes: Vec<u8>,
    /// Where each payload ends in `bytes`.
    ends: Vec<u32>,
    bursts: Vec<Burst>,
}

impl Frame {
    pub fn source(&self) -> Source {
        self.meta.source
    }

    pub fn format(&self) -> Format {
        self.meta.format
    }

    /// Number of the first payload, counted over all frames of [`Frame::source`]. The next frame goes on behind the
    /// last, so a gap means that frames were left out.
    pub fn first_packet(&self) -> u64 {
        self.meta.first_packet
    }

    /// The group of the log that it belongs to.
    pub fn group(&self) -> u32 {
        self.meta.group
    }

    /// When it is shown, in ticks of the stream's clock at RTP's rate: 90 kHz video, 48 kHz Opus.
    pub fn pts(&self) -> i64 {
        self.meta.pts
    }

    /// Decoding can start here.
    pub fn is_key(&self) -> bool {
        self.meta.key
    }

    /// Whether the last packet has RTP's marker bit: video has, it ends the picture (RFC 6184, §5.1).
    pub fn marker(&self) -> bool {
        self.meta.marker
    }

    /// Never zero.
    pub fn packets(&self) -> usize {
        self.ends.len()
    }

    /// Of all payloads together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// `None` behind the last.
    pub fn payload(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        Some(&self.bytes[start..end])
    }

    /// All payloads, cut into what may leave in one call each.
    pub fn bursts(&self) -> &[Burst] {
        &self.bursts
    }
}

/// Payloads being collected.
#[derive(Debug)]
pub(super) struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Payloads {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::new() }
    }

    /// One payload, of `parts` one after the other.
    pub(super) fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.ends.push(self.bytes.len() as u32);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// `None` if there is no payload.
    pub(super) fn frame(self, meta: Meta) -> Option<Frame> {
        if self.ends.is_empty() {
            return None;
        }
        let bursts = bursts(&self.ends);
        Some(Frame { meta, bytes: self.bytes, ends: self.ends, bursts })
    }
}

/// As few runs as the sizes allow: a run ends behind a payload that is shorter than its first, before one that is
/// longer, and when it is full.
fn bursts(ends: &[u32]) -> Vec<Burst> {
    let mut bursts = Vec::with_capacity(ends.len().div_ceil(SEGMENTS_MAX));
    let size = |at: usize| ends[at] - at.checked_sub(1).map_or(0, |before| ends[before]);
    let mut first = 0;
    for at in 1..=ends.len() {
        let full = at - first == SEGMENTS_MAX;
        if at == ends.len() || full || size(at - 1) < size(first) || size(at) > size(first) {
            bursts.push(first..at);
            first = at;
        }
    }
    bursts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many payloads each burst has.
    fn bursts_of(sizes: &[u32]) -> Vec<usize> {
        let end = |end: &mut u32, size: &u32| {
            *end += size;
            Some(*end)
        };
        let ends: Vec<u32> = sizes.iter().scan(0, end).collect();
        let bursts = bursts(&ends);
        assert!(bursts.windows(2).all(|pair| pair[0].end == pair[1].start));
        bursts.iter().map(ExactSizeIterator::len).collect()
    }

    #[test]
    fn only_the_last_of_a_burst_may_be_shorter() {
        assert_eq!(bursts_of(&[1200, 1200, 300]), [3]);
        // Parameter sets before a keyframe: smaller than what follows.
        assert_eq!(bursts_of(&[40, 1200, 1200, 7]), [1, 3]);
        // Two slices.
        assert_eq!(bursts_of(&[1200, 300, 1200, 1200]), [2, 2]);
        assert_eq!(bursts_of(&[1200, 300, 200]), [2, 1]);
        assert_eq!(bursts_of(&[9]), [1]);
    }

    #[test]
    fn a_keyframe_leaves_in_pieces() {
        assert_eq!(bursts_of(&[1200; 100]), [32, 32, 32, 4]);
    }
}
