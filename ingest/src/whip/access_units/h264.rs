//! H.264 out of RTP (RFC 6184).
//!
//!   payload ─▶ NAL units: single, STAP-A, FU-A ─▶ parameter sets, and the sample
//!
//! The depacketizer of `rtc-rtp` is not used: it reads behind the end of a STAP-A that is cut short, and a publisher must
//! not be able to panic us.

use bytes::Bytes;
use media::VideoConfig;
use media::codec::h264;

use super::nals::{self, Nals};
use super::{Depacketize, Finished};

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
pub(super) const FU_A: u8 = 28;

/// RFC 6184, §5.8.
pub(super) const FU_START: u8 = 0x80;
pub(super) const FU_END: u8 = 0x40;

#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    nals: Nals,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
}

impl Depacketize for Depacketizer {
    fn payload(&mut self, payload: &Bytes) -> Option<()> {
        let &header = payload.first()?;
        match header & 0x1F {
            SLICE..=23 => self.nals.push(payload.clone()),
            STAP_A => self.nals.aggregate(payload, 1),
            FU_A => {
                let &fragment = payload.get(1)?;
                let whole = [header & 0xE0 | fragment & 0x1F];
                let begin = (fragment & FU_START != 0).then_some(&whole[..]);
                self.nals.fragment(begin, payload.get(2..)?, fragment & FU_END != 0)
            }
            // STAP-B, MTAPs and FU-B belong to the interleaved mode, which is not negotiated.
            _ => None,
        }
    }

    fn finish(&mut self) -> Finished {
        let (nals, is_cut) = self.nals.take();
        // Parameter sets are whole in themselves, whatever else of their unit is missing.
        for nal in &nals {
            match kind(nal) {
                SPS => keep(&mut self.sps, nal),
                PPS => keep(&mut self.pps, nal),
                _ => {}
            }
        }
        let key = nals.iter().any(|nal| kind(nal) == IDR);
        let has_picture = nals.iter().any(|nal| (SLICE..=IDR).contains(&kind(nal)));
        // Without what a sample must not have, since parameter sets are in the record, or has no use for.
        let is_kept = |nal: &Bytes| has_picture && !matches!(kind(nal), SPS | PPS | DELIMITER | FILLER);
        Finished { sample: nals::sample(&nals, is_kept), key, is_cut }
    }

    fn config(&self, _: &Bytes) -> Option<VideoConfig> {
        h264::Config::from_parameter_sets(&self.sps, &self.pps).ok().map(VideoConfig::H264)
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
