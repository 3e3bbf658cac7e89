//! VP9 out of RTP (RFC 9628): the frames of a picture, one for each of its spatial layers.
//!
//! Of several a superframe is made (VP9 Bitstream & Decoding Process Specification, annex B), which is what a file has of
//! them, and of which decoders show the last.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use media::VideoConfig;
use media::codec::vp9;

use super::{Depacketize, Finished, UNIT_BYTES_MAX};

/// §4.2: of the first byte of a descriptor, and of what follows it.
const HAS_PICTURE_ID: u8 = 0x80;
const IS_INTER: u8 = 0x40;
const HAS_LAYER: u8 = 0x20;
const IS_FLEXIBLE: u8 = 0x10;
const FRAME_START: u8 = 0x08;
const FRAME_END: u8 = 0x04;
const HAS_STRUCTURE: u8 = 0x02;
const LONG_PICTURE_ID: u8 = 0x80;
const MORE_REFERENCES: u8 = 0x01;
/// §4.2.1: of a scalability structure.
const HAS_SIZES: u8 = 0x10;
const HAS_GROUP: u8 = 0x08;

/// A picture leans on at most so many (§4.2).
const REFERENCES_MAX: usize = 3;
/// Frames of one superframe.
const FRAMES_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    unit: BytesMut,
    /// Where each of the frames that are whole ends.
    ends: Vec<usize>,
    /// A frame has begun, and not ended.
    is_inside: bool,
    /// Of the picture's largest layer, if it was told.
    size: Option<(u16, u16)>,
    /// Of the picture that was finished last.
    finished_size: Option<(u16, u16)>,
}

struct Descriptor<'a> {
    begins: bool,
    ends: bool,
    size: Option<(u16, u16)>,
    bytes: &'a [u8],
}

impl Depacketize for Depacketizer {
    fn payload(&mut self, payload: &Bytes) -> Option<()> {
        let Descriptor { begins, ends, size, bytes } = descriptor(payload)?;
        let is_in_place = begins != self.is_inside && self.ends.len() < FRAMES_MAX && !bytes.is_empty();
        if !is_in_place || self.unit.len() + bytes.len() > UNIT_BYTES_MAX {
            return None;
        }
        self.unit.extend_from_slice(bytes);
        self.size = size.or(self.size);
        self.is_inside = !ends;
        if ends {
            self.ends.push(self.unit.len());
        }
        Some(())
    }

    fn finish(&mut self) -> Finished {
        let Self { mut unit, ends, is_inside, size, .. } = std::mem::take(self);
        self.finished_size = size.filter(|_| ends.len() > 1);
        put_index(&mut unit, &ends);
        let sample = unit.freeze();
        let is_key = vp9::is_key(&sample);
        let is_broken = !sample.is_empty() && is_key.is_err();
        Finished { key: is_key == Ok(true), is_cut: is_inside || is_broken, sample }
    }

    fn config(&self, sample: &Bytes) -> Option<VideoConfig> {
        let config = vp9::Config::of_keyframe(sample).ok()?;
        // The first frame is the smallest layer's.
        let config = match self.finished_size {
            Some((width, height)) => config.with_size(width, height).ok()?,
            None => config,
        };
        Some(VideoConfig::Vp9(config))
    }
}

/// Behind the frames, if there are several: their sizes, from the lowest byte on, between two equal bytes that say how many
/// there are and how long a size is.
fn put_index(unit: &mut BytesMut, ends: &[usize]) {
    const MARKER: u8 = 0b1100_0000;
    const SIZE_BYTES: usize = 4;
    if ends.len() < 2 {
        return;
    }
    // At most eight.
    let marker = MARKER | (SIZE_BYTES as u8 - 1) << 3 | (ends.len() as u8 - 1);
    unit.put_u8(marker);
    let mut begin = 0;
    for end in ends {
        // Bounded by UNIT_BYTES_MAX.
        unit.put_u32_le((end - begin) as u32);
        begin = *end;
    }
    unit.put_u8(marker);
}

/// §4.2
fn descriptor(mut payload: &[u8]) -> Option<Descriptor<'_>> {
    let first = payload.try_get_u8().ok()?;
    if first & HAS_PICTURE_ID != 0 && payload.try_get_u8().ok()? & LONG_PICTURE_ID != 0 {
        payload.try_get_u8().ok()?;
    }
    if first & HAS_LAYER != 0 {
        payload.try_get_u8().ok()?;
        if first & IS_FLEXIBLE == 0 {
            payload.try_get_u8().ok()?; // TL0PICIDX
        }
    }
    if first & IS_FLEXIBLE != 0 && first & IS_INTER != 0 {
        let mut references = 1;
        while payload.try_get_u8().ok()? & MORE_REFERENCES != 0 {
            references += 1;
            if references > REFERENCES_MAX {
                return None;
            }
        }
    }
    let size = if first & HAS_STRUCTURE != 0 { structure(&mut payload)? } else { None };
    Some(Descriptor { begins: first & FRAME_START != 0, ends: first & FRAME_END != 0, size, bytes: payload })
}

/// §4.2.1: reads over the scalability structure; the size of its last layer, which is the largest.
fn structure(payload: &mut &[u8]) -> Option<Option<(u16, u16)>> {
    let first = payload.try_get_u8().ok()?;
    let layers = (first >> 5) + 1;
    let mut size = None;
    if first & HAS_SIZES != 0 {
        for _ in 0..layers {
            size = Some((payload.try_get_u16().ok()?, payload.try_get_u16().ok()?));
        }
    }
    if first & HAS_GROUP != 0 {
        for _ in 0..payload.try_get_u8().ok()? {
            let references = payload.try_get_u8().ok()? >> 2 & 3;
            for _ in 0..references {
                payload.try_get_u8().ok()?;
            }
        }
    }
    Some(size)
}

#[cfg(test)]
mod tests;
