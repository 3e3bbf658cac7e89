//! The configuration of a stream that nobody has encoded yet: what an encoder that is told its size and rate will
//! need of a decoder, at most.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Config, ConfigError};

/// High: what every phone of the last ten years plays, and what encoders give unless they are told otherwise.
const PROFILE_HIGH: u8 = 100;

/// In the High profile a level allows a quarter more bits than its table says (H.264, table A-2: cpbBrVclFactor 1,250).
const HIGH_PROFILE_BITS: u64 = 1_250;

const MACROBLOCK: u32 = 16;

/// What a level allows.
struct Level {
    /// Ten times its number.
    idc: u8,
    macroblocks_per_second: u64,
    macroblocks: u64,
    /// In units of cpbBrVclFactor bits per second.
    bit_rate: u64,
}

/// H.264, table A-1: MaxMBPS, MaxFS and MaxBR.
const LEVELS: &[Level] = &[
    level(10, 1_485, 99, 64),
    level(11, 3_000, 396, 192),
    level(12, 6_000, 396, 384),
    level(13, 11_880, 396, 768),
    level(20, 11_880, 396, 2_000),
    level(21, 19_800, 792, 4_000),
    level(22, 20_250, 1_620, 4_000),
    level(30, 40_500, 1_620, 10_000),
    level(31, 108_000, 3_600, 14_000),
    level(32, 216_000, 5_120, 20_000),
    level(40, 245_760, 8_192, 20_000),
    level(41, 245_760, 8_192, 50_000),
    level(42, 522_240, 8_704, 50_000),
    level(50, 589_824, 22_080, 135_000),
    level(51, 983_040, 36_864, 240_000),
    level(52, 2_073_600, 36_864, 240_000),
];

const fn level(idc: u8, macroblocks_per_second: u64, macroblocks: u64, bit_rate: u64) -> Level {
    Level { idc, macroblocks_per_second, macroblocks, bit_rate }
}

impl Config {
    /// High profile, 4:2:0, 8 bits, of this size in pixels (both even), with the lowest level that allows this many
    /// frames and bits per second. A decoder that is set up with it is not given any picture: the encoder's own
    /// configuration comes before the first.
    ///
    /// # Errors
    /// [`ConfigError::Size`] if no picture is that large or small.
    pub fn nominal(
        width: u32,
        height: u32,
        frames_per_second: f64,
        bits_per_second: u64,
    ) -> Result<Self, ConfigError> {
        let sps = sps(width, height, level_of(width, height, frames_per_second, bits_per_second));
        // Parameter set 0 of sequence 0, CABAC, one slice group, one reference, no offsets.
        let mut pps = Bits::of(&[0x68]);
        pps.golomb(0);
        pps.golomb(0);
        pps.bits(&[1, 0]);
        (0..3).for_each(|_| pps.golomb(0));
        pps.bits(&[0, 0, 0]);
        (0..3).for_each(|_| pps.golomb(0));
        pps.bits(&[1, 0, 0]);
        let pps = pps.trailed();

        let mut avcc = BytesMut::new();
        avcc.put_slice(&[1, sps[1], sps[2], sps[3], 0xFF, 0xE1]);
        avcc.put_u16(sps.len() as u16);
        avcc.put_slice(&sps);
        avcc.put_u8(1);
        avcc.put_u16(pps.len() as u16);
        avcc.put_slice(&pps);
        Self::parse(avcc.freeze())
    }
}

fn level_of(width: u32, height: u32, frames_per_second: f64, bits_per_second: u64) -> u8 {
    let (wide, high) = (u64::from(width.div_ceil(MACROBLOCK)), u64::from(height.div_ceil(MACROBLOCK)));
    let macroblocks = wide * high;
    let rate = (macroblocks as f64 * frames_per_second).floor() as u64;
    let allows = |level: &&Level| {
        // A.3.1: no side is longer than the square root of eight pictures.
        let side = (level.macroblocks * 8).isqrt();
        level.macroblocks >= macroblocks
            && side >= wide.max(high)
            && level.macroblocks_per_second >= rate
            && level.bit_rate * HIGH_PROFILE_BITS >= bits_per_second
    };
    LEVELS.iter().find(allows).or(LEVELS.last()).map_or(0, |level| level.idc)
}

/// §7.3.2.1.1, with its one-byte header.
fn sps(width: u32, height: u32, level: u8) -> Bytes {
    let (wide, high) = (width.div_ceil(MACROBLOCK), height.div_ceil(MACROBLOCK));
    let mut sps = Bits::of(&[0x67, PROFILE_HIGH, 0, level]);
    sps.golomb(0); // seq_parameter_set_id
    sps.golomb(1); // chroma_format_idc: 4:2:0
    sps.golomb(0); // bit_depth_luma_minus8
    sps.golomb(0); // bit_depth_chroma_minus8
    sps.bits(&[0, 0]); // no transform bypass, no scaling lists
    sps.golomb(0); // log2_max_frame_num_minus4
    sps.golomb(2); // pic_order_cnt_type: shown as decoded
    sps.golomb(1); // max_num_ref_frames
    sps.bits(&[0]); // no gaps in frame_num
    sps.golomb(wide.saturating_sub(1));
    sps.golomb(high.saturating_sub(1));
    sps.bits(&[1, 1]); // frames only; direct_8x8_inference_flag
    // In pairs of pixels, at the right and at the bottom.
    let crop = [(wide * MACROBLOCK - width) / 2, (high * MACROBLOCK - height) / 2];
    sps.bits(&[u8::from(crop != [0, 0])]);
    if crop != [0, 0] {
        [0, crop[0], 0, crop[1]].into_iter().for_each(|offset| sps.golomb(offset));
    }
    sps.bits(&[0]); // no VUI
    sps.trailed()
}

/// Bits, the most significant first. What is written here needs no emulation prevention: there are no two zero bytes
/// in a row, as no number is that large.
struct Bits {
    bytes: Vec<u8>,
    /// Of the last byte.
    free: u32,
}

impl Bits {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), free: 0 }
    }

    fn bits(&mut self, bits: &[u8]) {
        for bit in bits {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << self.free;
            }
        }
    }

    /// `ue(v)`, §9.1.
    fn golomb(&mut self, value: u32) {
        let code = u64::from(value) + 1;
        let length = u64::BITS - code.leading_zeros();
        for _ in 1..length {
            self.bits(&[0]);
        }
        for bit in (0..length).rev() {
            self.bits(&[(code >> bit & 1) as u8]);
        }
    }

    /// With `rbsp_trailing_bits`, §7.3.2.11.
    fn trailed(mut self) -> Bytes {
        self.bits(&[1]);
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_are_those_of_the_standard() {
        let cases = [
            (426, 240, 30.0, 250_000, "avc1.640015"),
            (640, 360, 30.0, 700_000, "avc1.64001e"),
            (854, 480, 30.0, 1_200_000, "avc1.64001f"),
            (1280, 720, 30.0, 2_500_000, "avc1.64001f"),
            (1280, 720, 60.0, 4_000_000, "avc1.640020"),
            (1920, 1080, 30.0, 5_000_000, "avc1.640028"),
            (1920, 1080, 60.0, 8_000_000, "avc1.64002a"),
            (3840, 2160, 60.0, 20_000_000, "avc1.640034"),
            (640, 360, 30.0, 14_000_000, "avc1.64001f"),
        ];
        for (width, height, rate, bits, expected) in cases {
            let config = Config::nominal(width, height, rate, bits).unwrap();
            assert_eq!(config.rfc6381(), expected, "{width}x{height} at {rate}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(width in 8u32..2048, height in 8u32..1100, rate in 1.0f64..120.0) {
            let config = Config::nominal(2 * width, 2 * height, rate, 1_000_000).unwrap();
            prop_assert_eq!((config.width(), config.height()), (2 * width, 2 * height));
            prop_assert_eq!((config.profile(), config.bit_depth(), config.reorder_frames_max()), (100, 8, Some(0)));
        }
    }
}
