//! VP8 out of RTP (RFC 7741): the payloads of a frame, one behind the other.

use bytes::{Buf, Bytes, BytesMut};
use media::VideoConfig;
use media::codec::vp8;

use super::{Depacketize, Finished, UNIT_BYTES_MAX};

/// §4.2: of the first byte of a descriptor, of its extension, and of a picture's number.
const EXTENDED: u8 = 0x80;
const PARTITION_START: u8 = 0x10;
const PARTITION: u8 = 0x07;
const HAS_PICTURE_ID: u8 = 0x80;
const HAS_TL0PICIDX: u8 = 0x40;
const HAS_TID_OR_KEYIDX: u8 = 0x30;
const LONG_PICTURE_ID: u8 = 0x80;

#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    frame: BytesMut,
}

impl Depacketize for Depacketizer {
    fn payload(&mut self, payload: &Bytes) -> Option<()> {
        let (begins, bytes) = descriptor(payload)?;
        // The first packet of a frame, and no other, begins it; and no two frames have one time.
        let is_in_place = begins == self.frame.is_empty() && !bytes.is_empty();
        if !is_in_place || self.frame.len() + bytes.len() > UNIT_BYTES_MAX {
            return None;
        }
        self.frame.extend_from_slice(bytes);
        Some(())
    }

    fn finish(&mut self) -> Finished {
        let sample = std::mem::take(&mut self.frame).freeze();
        // A frame that is shorter than what stands before every frame is none.
        let is_key = vp8::is_key(&sample);
        Finished { key: is_key == Ok(true), is_cut: !sample.is_empty() && is_key.is_err(), sample }
    }

    fn config(&self, sample: &Bytes) -> Option<VideoConfig> {
        vp8::Config::of_keyframe(sample).ok().map(VideoConfig::Vp8)
    }
}

/// Whether a frame begins here, and what is behind the descriptor (§4.2).
fn descriptor(mut payload: &[u8]) -> Option<(bool, &[u8])> {
    let first = payload.try_get_u8().ok()?;
    if first & EXTENDED != 0 {
        let extension = payload.try_get_u8().ok()?;
        if extension & HAS_PICTURE_ID != 0 && payload.try_get_u8().ok()? & LONG_PICTURE_ID != 0 {
            payload.try_get_u8().ok()?;
        }
        for has in [HAS_TL0PICIDX, HAS_TID_OR_KEYIDX] {
            if extension & has != 0 {
                payload.try_get_u8().ok()?;
            }
        }
    }
    Some((first & PARTITION_START != 0 && first & PARTITION == 0, payload))
}

#[cfg(test)]
mod tests;
