//! AV1 out of RTP (RTP Payload Format For AV1, of AOM): the OBUs of a temporal unit, each with its size put back.

use bytes::{Buf, Bytes, BytesMut};
use media::VideoConfig;
use media::codec::av1;

use super::{Depacketize, Finished, UNIT_BYTES_MAX};

/// §4.4: of the aggregation header.
const CONTINUES: u8 = 0x80;
const IS_CONTINUED: u8 = 0x40;

/// Bytes of the longest number in leb128 that we take: 28 bits, of which [`UNIT_BYTES_MAX`] has 24.
const LEB128_BYTES_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    unit: BytesMut,
    /// An OBU that goes on in the next packet.
    fragment: Option<BytesMut>,
}

impl Depacketize for Depacketizer {
    fn payload(&mut self, payload: &Bytes) -> Option<()> {
        let mut rest = &payload[..];
        let header = rest.try_get_u8().ok()?;
        // How many elements there are, of which the last has no length; 0 is any number, all with one.
        let told = header >> 4 & 3;
        let continues = header & CONTINUES != 0;
        if continues != self.fragment.is_some() {
            self.fragment = None;
            return None;
        }
        let mut number = 0;
        while !rest.is_empty() {
            number += 1;
            let length = if number == told { rest.len() } else { leb128(&mut rest)? };
            let element = rest.split_off(..length)?;
            let is_continued = rest.is_empty() && header & IS_CONTINUED != 0;
            self.element(element, is_continued)?;
        }
        // As many as it says, and what goes on has begun here.
        let is_complete = told == 0 || number == told;
        let is_open = header & IS_CONTINUED != 0;
        (is_complete && is_open == self.fragment.is_some()).then_some(())
    }

    fn finish(&mut self) -> Finished {
        let Self { unit, fragment } = std::mem::take(self);
        let sample = unit.freeze();
        let config = av1::Config::of_keyframe(&sample).ok();
        let key = config.is_some_and(|config| config.is_key(&sample) == Ok(true));
        Finished { sample, key, is_cut: fragment.is_some() }
    }

    fn config(&self, sample: &Bytes) -> Option<VideoConfig> {
        av1::Config::of_keyframe(sample).ok().map(VideoConfig::Av1)
    }
}

impl Depacketizer {
    fn element(&mut self, bytes: &[u8], is_continued: bool) -> Option<()> {
        let held = self.fragment.as_ref().map_or(0, BytesMut::len);
        if self.unit.len() + held + bytes.len() > UNIT_BYTES_MAX {
            self.fragment = None;
            return None;
        }
        if is_continued || self.fragment.is_some() {
            self.fragment.get_or_insert_default().extend_from_slice(bytes);
            if is_continued {
                return Some(());
            }
        }
        match self.fragment.take() {
            Some(whole) => av1::put_obu(&mut self.unit, &whole).ok(),
            None => av1::put_obu(&mut self.unit, bytes).ok(),
        }
    }
}

/// Of an element's length (AV1, §4.10.5).
fn leb128(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for at in 0..LEB128_BYTES_MAX {
        let byte = rest.try_get_u8().ok()?;
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
