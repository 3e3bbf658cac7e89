//! H.264 out of RTP (RFC 6184): packets in their order in, whole access units out, as a file holds them. Pure.
//!
//!   packet ─▶ NAL units: single, STAP-A, FU-A ─▶ the access unit of one timestamp ─▶ parameter sets, and the sample
//!
//! The depacketizer of `rtc-rtp` is not used: it reads behind the end of a STAP-A that is cut short, and a publisher must
//! not be able to panic us.
//!
//! Every unit that is given out can be decoded: one with a hole is dropped, and so is all that may lean on it, up to
//! the next keyframe.

use bytes::{BufMut, Bytes, BytesMut};
use media::codec::h264;

use super::reorder::Ordered;

/// Largest access unit, in bytes. A keyframe of a second at 60 Mbit/s has 7.5 MB.
pub(super) const UNIT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most NAL units in one: slices of 8 macroblock rows of the largest picture are 64, and there is SEI beside them.
const UNIT_NALS_MAX: usize = 1_024;

/// Most parameter sets of each kind kept. Browsers send one, encoders with layers a few.
const SETS_MAX: usize = 8;

/// `nal_unit_type`, H.264 table 7-1 and RFC 6184, table 1.
const SLICE: u8 = 1;
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// RFC 6184, §5.8.
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;

/// One picture that can be decoded after those given out before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) timestamp: u32,
    pub(super) key: bool,
    /// NAL units behind lengths of four bytes, without parameter sets.
    pub(super) sample: Bytes,
    /// Of a keyframe, if it is another one than before.
    pub(super) config: Option<h264::Config>,
}

/// What a packet made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    Picture(Picture),
    /// Nothing can be decoded from here on until a keyframe comes, which must be asked for.
    Broken,
}

#[derive(Debug, Default)]
pub(super) struct AccessUnits {
    open: Option<Open>,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
    /// In force for what is given out.
    config: Option<h264::Config>,
    /// What comes can be decoded.
    whole: bool,
    /// That it cannot was told.
    told: bool,
}

/// The access unit that packets are still coming for.
#[derive(Debug)]
struct Open {
    timestamp: u32,
    nals: Vec<Bytes>,
    bytes: usize,
    fragment: Option<BytesMut>,
    /// A packet of it is missing or makes no sense.
    damaged: bool,
}

impl AccessUnits {
    /// A packet in its turn makes at most one picture: the one before it, or its own.
    pub(super) fn push(&mut self, ordered: Ordered, made: &mut Vec<Made>) {
        let Ordered { packet, lost } = ordered;
        if self.open.as_ref().is_some_and(|open| open.timestamp != packet.timestamp) {
            // Its last packet, with the marker, is lost, or the publisher sets none.
            self.close(lost > 0, made);
        } else if lost > 0 && self.open.is_none() {
            self.broken(made);
        }
        let open = self.open.get_or_insert_with(|| Open::new(packet.timestamp));
        open.damaged |= lost > 0;
        open.payload(&packet.payload);
        if packet.marker {
            self.close(false, made);
        }
    }

    /// `cut`: the end of the unit is missing.
    fn close(&mut self, cut: bool, made: &mut Vec<Made>) {
        let Some(open) = self.open.take() else { return };
        let damaged = open.damaged || cut || open.fragment.is_some();
        let key = open.nals.iter().any(|nal| kind(nal) == IDR);
        // Parameter sets are whole in themselves, whatever else of their unit is missing.
        for nal in &open.nals {
            match kind(nal) {
                SPS => keep(&mut self.sps, nal),
                PPS => keep(&mut self.pps, nal),
                _ => {}
            }
        }
        let sample = open.sample();
        if sample.is_empty() && !damaged {
            return;
        }
        if damaged || !key && !self.whole {
            return self.broken(made);
        }
        let mut config = None;
        if key {
            let Ok(now) = h264::Config::from_parameter_sets(&self.sps, &self.pps) else {
                return self.broken(made);
            };
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

impl Open {
    fn new(timestamp: u32) -> Self {
        Self { timestamp, nals: Vec::new(), bytes: 0, fragment: None, damaged: false }
    }

    fn payload(&mut self, payload: &Bytes) {
        // An empty packet is how some publishers probe the line; it has no say about any picture.
        let Some(&header) = payload.first() else { return };
        let taken = match header & 0x1F {
            SLICE..=23 => self.nal(payload.clone()),
            STAP_A => self.aggregate(payload),
            FU_A => self.fragment(header, payload),
            // STAP-B, MTAPs and FU-B belong to the interleaved mode, which is not negotiated.
            _ => None,
        };
        self.damaged |= taken.is_none();
    }

    fn nal(&mut self, nal: Bytes) -> Option<()> {
        self.bytes = self.bytes.saturating_add(nal.len() + 4);
        if self.bytes > UNIT_BYTES_MAX || self.nals.len() >= UNIT_NALS_MAX {
            return None;
        }
        self.nals.push(nal);
        Some(())
    }

    /// §5.7.1
    fn aggregate(&mut self, payload: &Bytes) -> Option<()> {
        let mut at = 1;
        while at < payload.len() {
            let length = payload.get(at..at + 2)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let end = at + 2 + length;
            if length == 0 || end > payload.len() {
                return None;
            }
            self.nal(payload.slice(at + 2..end))?;
            at = end;
        }
        Some(())
    }

    /// §5.8
    fn fragment(&mut self, indicator: u8, payload: &Bytes) -> Option<()> {
        let &header = payload.get(1)?;
        let bytes = payload.get(2..)?;
        if header & FU_START != 0 {
            let mut begun = BytesMut::with_capacity(8 * bytes.len());
            begun.put_u8(indicator & 0xE0 | header & 0x1F);
            // A fragment before it that has no end is one that has lost it.
            self.damaged |= self.fragment.replace(begun).is_some();
        }
        let fragment = self.fragment.as_mut()?;
        if self.bytes + fragment.len() + bytes.len() > UNIT_BYTES_MAX {
            self.fragment = None;
            return None;
        }
        fragment.extend_from_slice(bytes);
        if header & FU_END != 0 {
            let nal = self.fragment.take()?.freeze();
            self.nal(nal)?;
        }
        Some(())
    }

    /// Without what a sample must not have (ISO/IEC 14496-15, §5.3.2: parameter sets are in the record) or has no use for.
    fn sample(&self) -> Bytes {
        let nals = || self.nals.iter().filter(|nal| !matches!(kind(nal), SPS | PPS | DELIMITER | FILLER));
        if !nals().any(|nal| (SLICE..=IDR).contains(&kind(nal))) {
            return Bytes::new();
        }
        let mut sample = BytesMut::with_capacity(nals().map(|nal| nal.len() + 4).sum());
        for nal in nals() {
            // Bounded by UNIT_BYTES_MAX.
            sample.put_u32(nal.len() as u32);
            sample.extend_from_slice(nal);
        }
        sample.freeze()
    }
}

fn kind(nal: &Bytes) -> u8 {
    nal.first().map_or(0, |header| header & 0x1F)
}

/// A set with the id of one that is there takes its place; ids stand at the front, so that only the newest of a kind
/// is kept as the first.
fn keep(sets: &mut Vec<Bytes>, set: &Bytes) {
    if sets.contains(set) {
        return;
    }
    let id = id(set);
    if let Some(same) = sets.iter_mut().find(|other| self::id(other) == id) {
        *same = set.clone();
    } else if sets.len() < SETS_MAX {
        sets.push(set.clone());
    }
}

/// `seq_parameter_set_id` or `pic_parameter_set_id`, the first Exp-Golomb number of a set; of the first kind it
/// stands behind three bytes of profile and level (§7.3.2.1.1, §7.3.2.2). `None` if it is none.
fn id(set: &Bytes) -> Option<u32> {
    let begin = if kind(set) == SPS { 4 } else { 1 };
    // No emulation prevention can stand this early: the number is over within two bytes.
    let mut window = [0; 4];
    let bytes = set.get(begin..)?;
    for (to, from) in window.iter_mut().zip(bytes) {
        *to = *from;
    }
    let bits = u32::from_be_bytes(window);
    let zeros = bits.leading_zeros();
    // Ids are at most 255 (§7.4.2.2).
    (zeros <= 8).then(|| (bits >> (31 - 2 * zeros)) - 1)
}

#[cfg(test)]
mod tests;
