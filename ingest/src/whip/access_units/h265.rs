//! HEVC out of RTP (RFC 7798).
//!
//!   payload ─▶ NAL units: single, aggregates, fragments ─▶ parameter sets, and the sample

use bytes::Bytes;
use media::VideoConfig;
use media::codec::h265;

use super::nals::{self, Nals};
use super::{Depacketize, Finished};

/// Most parameter sets of each kind kept. Browsers send one, encoders with layers a few.
const SETS_MAX: usize = 8;

/// `nal_unit_type`, H.265 table 7-1 and RFC 7798, §4.4.
const SLICE_LAST: u8 = 31;
const BLA_FIRST: u8 = 16;
const CRA: u8 = 21;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const DELIMITER: u8 = 35;
const FILLER: u8 = 38;
const AGGREGATE: u8 = 48;
pub(super) const FRAGMENT: u8 = 49;

/// Of the payload header, which is as long as that of a NAL unit.
const HEADER_BYTES: usize = 2;
/// RFC 7798, §4.4.3.
pub(super) const FU_START: u8 = 0x80;
pub(super) const FU_END: u8 = 0x40;

#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    nals: Nals,
    vps: Vec<Bytes>,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
}

impl Depacketize for Depacketizer {
    fn payload(&mut self, payload: &Bytes) -> Option<()> {
        let &[first, second] = payload.first_chunk()?;
        match kind(payload) {
            ..AGGREGATE => self.nals.push(payload.clone()),
            // Without decoding order numbers, which are not negotiated.
            AGGREGATE => self.nals.aggregate(payload, HEADER_BYTES),
            FRAGMENT => {
                let &fragment = payload.get(HEADER_BYTES)?;
                let whole = [first & 0x81 | (fragment & 0x3F) << 1, second];
                let begin = (fragment & FU_START != 0).then_some(&whole[..]);
                self.nals.fragment(begin, payload.get(HEADER_BYTES + 1..)?, fragment & FU_END != 0)
            }
            // PACI has extensions, which are not negotiated either.
            _ => None,
        }
    }

    fn finish(&mut self) -> Finished {
        let (nals, is_cut) = self.nals.take();
        // What comes of a kind takes the place of all there was: a keyframe brings all that it needs.
        for (of, sets) in [(VPS, &mut self.vps), (SPS, &mut self.sps), (PPS, &mut self.pps)] {
            let came: Vec<_> = nals.iter().filter(|nal| kind(nal) == of).take(SETS_MAX).cloned().collect();
            if !came.is_empty() {
                *sets = came;
            }
        }
        let key = nals.iter().any(|nal| (BLA_FIRST..=CRA).contains(&kind(nal)));
        let has_picture = nals.iter().any(|nal| kind(nal) <= SLICE_LAST);
        // As of H.264: `hvc1` has parameter sets in the record only.
        let is_kept = |nal: &Bytes| has_picture && !matches!(kind(nal), VPS | SPS | PPS | DELIMITER | FILLER);
        Finished { sample: nals::sample(&nals, is_kept), key, is_cut }
    }

    fn config(&self, _: &Bytes) -> Option<VideoConfig> {
        h265::Config::from_parameter_sets(&self.vps, &self.sps, &self.pps).ok().map(VideoConfig::H265)
    }
}

fn kind(nal: &Bytes) -> u8 {
    nal.first().map_or(0, |header| header >> 1 & 0x3F)
}

#[cfg(test)]
mod tests;
