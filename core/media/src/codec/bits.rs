//! Reading a codec header bit by bit: fixed-length fields and exponential-Golomb codes.

/// Reads fields from the most significant bit on. Every read is checked: what is not there is an error,
/// never a zero.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits, from the start of `bytes`.
    position: usize,
}

/// Why a field could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BitsError {
    /// The bytes end before the field does.
    Truncated,
    /// An exponential-Golomb code above 32 bits, which no field of H.264 may have (§9.1).
    NumberTooLong,
}

/// Most zeros that may lead an exponential-Golomb code: the value then still fits 32 bits.
const GOLOMB_ZEROS_MAX: u32 = 31;

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn bit(&mut self) -> Result<bool, BitsError> {
        let byte = self.bytes.get(self.position / 8).ok_or(BitsError::Truncated)?;
        let shift = 7 - self.position % 8;
        self.position += 1;
        Ok(byte >> shift & 1 == 1)
    }

    /// An unsigned field of `count` bits, at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, BitsError> {
        debug_assert!(count <= 32);
        (0..count).try_fold(0, |value, _| Ok(value << 1 | u32::from(self.bit()?)))
    }

    /// A field of eight bits.
    pub(super) fn byte(&mut self) -> Result<u8, BitsError> {
        (0..8).try_fold(0, |value, _| Ok(value << 1 | u8::from(self.bit()?)))
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), BitsError> {
        if count > self.remaining() {
            return Err(BitsError::Truncated);
        }
        self.position += count;
        Ok(())
    }

    pub(super) fn skip_to_byte(&mut self) {
        self.position = self.position.next_multiple_of(8);
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() * 8 - self.position
    }

    /// `ue(v)` of H.264, §9.1.
    pub(super) fn unsigned_golomb(&mut self) -> Result<u32, BitsError> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > GOLOMB_ZEROS_MAX {
                return Err(BitsError::NumberTooLong);
            }
        }
        Ok((1u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// `se(v)` of H.264, §9.1.1: 0, 1, −1, 2, −2, …
    pub(super) fn signed_golomb(&mut self) -> Result<i32, BitsError> {
        let code = i64::from(self.unsigned_golomb()?);
        let value = if code % 2 == 1 { (code + 1) / 2 } else { -code / 2 };
        i32::try_from(value).map_err(|_| BitsError::NumberTooLong)
    }
}

/// The payload of a NAL unit without the 0x03 that keeps `00 00 0x` from looking like a start code
/// (H.264, §7.4.1).
pub fn without_emulation_prevention(nal: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golomb_codes_of_the_standard() {
        // 1, 010, 011, 00100, 00101 (H.264, table 9-2), one after the other.
        let codes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut unsigned = BitReader::new(&codes);
        let mut signed = BitReader::new(&codes);
        for (code, value) in [(0, 0), (1, 1), (2, -1), (3, 2), (4, -2)] {
            assert_eq!(unsigned.unsigned_golomb(), Ok(code));
            assert_eq!(signed.signed_golomb(), Ok(value));
        }
    }

    #[test]
    fn the_longest_number_fits_and_a_longer_one_is_refused() {
        let longest = [0x00, 0x00, 0x00, 0x01, 0xFF, 0xFF, 0xFF, 0xFE];
        assert_eq!(BitReader::new(&longest).unsigned_golomb(), Ok(u32::MAX - 1));
        assert_eq!(BitReader::new(&longest).signed_golomb(), Ok(-i32::MAX));
        assert_eq!(BitReader::new(&[0; 64]).unsigned_golomb(), Err(BitsError::NumberTooLong));
        assert_eq!(BitReader::new(&[0; 3]).unsigned_golomb(), Err(BitsError::Truncated));
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut reader = BitReader::new(&[0xA5]);
        assert_eq!(reader.bits(7), Ok(0x52));
        assert_eq!(reader.bits(2), Err(BitsError::Truncated));
        assert_eq!(reader.skip(usize::MAX), Err(BitsError::Truncated));
    }

    #[test]
    fn emulation_prevention_is_removed_once() {
        let escaped = [0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3, 0, 3, 0, 0, 3];
        assert_eq!(without_emulation_prevention(&escaped), [0, 0, 1, 0, 0, 0, 0, 3, 0, 3, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in any::<Vec<u8>>(), fields in prop::collection::vec(0u32..36, 0..64)) {
            let payload = without_emulation_prevention(&bytes);
            let mut reader = BitReader::new(&payload);
            for field in fields {
                let _ = match field {
                    33 => reader.unsigned_golomb(),
                    34 => reader.signed_golomb().map(i32::unsigned_abs),
                    35 => reader.skip(9).map(|()| 0),
                    count => reader.bits(count),
                };
                prop_assert!(reader.remaining() <= payload.len() * 8);
            }
        }
    }
}
