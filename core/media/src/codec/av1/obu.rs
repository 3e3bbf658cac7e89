//! Open bitstream units, the pieces of an AV1 stream (AV1, §5.3).

use bytes::{BufMut, BytesMut};

/// `obu_type`, §6.2.2.
pub(super) const SEQUENCE_HEADER: u8 = 1;
pub(super) const TEMPORAL_DELIMITER: u8 = 2;
pub(super) const FRAME_HEADER: u8 = 3;
pub(super) const FRAME: u8 = 6;
pub(super) const TILE_LIST: u8 = 8;
pub(super) const PADDING: u8 = 15;

/// In the first byte (§5.3.2).
pub(super) const HAS_EXTENSION: u8 = 0x04;
pub(super) const HAS_SIZE: u8 = 0x02;

/// Bytes of the longest number in leb128 (§4.10.5).
const LEB128_BYTES_MAX: usize = 8;

/// Why a temporal unit cannot be decoded by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    #[error("an OBU is longer than the temporal unit that holds it")]
    Truncated,
    #[error("an OBU has its forbidden bit set")]
    Forbidden,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Obu<'a> {
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
    /// With its header.
    pub(super) bytes: usize,
}

/// The OBUs of a temporal unit or configuration record. Ends after the first error.
pub(super) fn units(bytes: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, UnitError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = next(rest);
        rest = next.as_ref().map_or(&[], |obu| &rest[obu.bytes..]);
        Some(next)
    })
}

fn next(bytes: &[u8]) -> Result<Obu<'_>, UnitError> {
    let (&header, mut rest) = bytes.split_first().ok_or(UnitError::Truncated)?;
    if header & 0x80 != 0 {
        return Err(UnitError::Forbidden);
    }
    if header & HAS_EXTENSION != 0 {
        // Temporal and spatial layer.
        rest = rest.get(1..).ok_or(UnitError::Truncated)?;
    }
    // Without a size it goes on to the end, as the last of a sample may.
    let mut payload = rest;
    let mut after: &[u8] = &[];
    if header & HAS_SIZE != 0 {
        let (size, sized) = leb128(rest).ok_or(UnitError::Truncated)?;
        (payload, after) = sized.split_at_checked(size).ok_or(UnitError::Truncated)?;
    }
    Ok(Obu { kind: header >> 3 & 0x0F, payload, bytes: bytes.len() - after.len() })
}

/// Of a number of at most 32 bits.
pub(super) fn put_leb128(to: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

/// The number, and what follows it; `None` if it does not end, or has more than 32 bits (§4.10.5).
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(LEB128_BYTES_MAX) {
        value |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((value as usize, &bytes[at + 1..]));
        }
    }
    None
}
