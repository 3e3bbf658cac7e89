//! VP9 (VP9 Bitstream & Decoding Process Specification): what a keyframe says, and finding one.

use bytes::Bytes;

use super::bits::{BitReader, BitsError};
pub use super::vpx::{ConfigError, UnitError};
use super::vpx::{Fields, Record};
use super::{Chroma, Colour};

/// `frame_marker` and `frame_sync_code`, §7.2.
const MARKER: u32 = 2;
const SYNC_CODE: u32 = 0x49_83_42;

/// `color_space`, §7.2.2, in the code points of ITU-T H.273; 0 is unknown, 6 reserved.
const COLOURS: [Option<(u8, u8, u8)>; 8] = [
    None,
    Some((5, 6, 5)),
    Some((1, 1, 1)),
    Some((6, 6, 6)),
    Some((7, 7, 7)),
    Some((9, 14, 9)),
    None,
    Some((1, 13, 0)),
];
const SRGB: usize = 7;

/// Annex A: most pixels of a picture and in a second, and ten times the level's name.
const LEVELS: [(u32, u64, u8); 14] = [
    (36_864, 829_440, 10),
    (73_728, 2_764_800, 11),
    (122_880, 4_608_000, 20),
    (245_760, 9_216_000, 21),
    (552_960, 20_736_000, 30),
    (983_040, 36_864_000, 31),
    (2_228_224, 83_558_400, 40),
    (2_228_224, 160_432_128, 41),
    (8_912_896, 311_951_360, 50),
    (8_912_896, 588_251_136, 51),
    (8_912_896, 1_176_502_272, 52),
    (35_651_584, 1_176_502_272, 60),
    (35_651_584, 2_353_004_544, 61),
    (35_651_584, 4_706_009_088, 62),
];
/// Pictures in a second that the level is told for: no bitstream says how many there are, and a player that can do more
/// is not kept from less.
const LEVEL_FRAME_RATE: u32 = 60;

/// What VP9's keyframes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config(Record);

impl Config {
    /// Of a record that [`Config::record`] gave.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn parse(record: &[u8]) -> Result<Self, ConfigError> {
        let record = Record::parse(record)?;
        let is_vp9 = record.profile <= 3 && record.level == level(record.width, record.height);
        if is_vp9 { Ok(Self(record)) } else { Err(ConfigError::NoRecord) }
    }

    /// `unit`: a frame, or a superframe, of which the first counts.
    ///
    /// # Errors
    /// [`ConfigError`]: no keyframe, or one that nobody can play.
    pub fn of_keyframe(unit: &[u8]) -> Result<Self, ConfigError> {
        let reader = &mut BitReader::new(unit);
        let Some(profile) = key_profile(reader).map_err(|_| ConfigError::Truncated)? else {
            return Err(ConfigError::NotAKeyframe);
        };
        if reader.bits(24)? != SYNC_CODE {
            return Err(ConfigError::StartCode);
        }
        let bit_depth = match profile {
            0 | 1 => 8,
            _ if reader.bit()? => 12,
            _ => 10,
        };
        let space = reader.bits(3)? as usize;
        let has_other_chroma = profile & 1 == 1;
        let mut full_range = true;
        let chroma = if space == SRGB {
            if !has_other_chroma {
                return Err(ConfigError::Chroma);
            }
            reader.skip(1)?; // reserved
            Chroma::Yuv444
        } else {
            full_range = reader.bit()?;
            let halved = if has_other_chroma { (reader.bit()?, reader.bit()?) } else { (true, true) };
            if has_other_chroma {
                reader.skip(1)?; // reserved
            }
            match halved {
                (true, true) => Chroma::Yuv420,
                (true, false) => Chroma::Yuv422,
                (false, false) => Chroma::Yuv444,
                (false, true) => return Err(ConfigError::Chroma),
            }
        };
        let colour = COLOURS[space].map(|(primaries, transfer, matrix)| Colour {
            primaries,
            transfer,
            matrix,
            full_range,
        });
        let (width, height) = (reader.bits(16)? + 1, reader.bits(16)? + 1);
        let level = level(width, height);
        let record = Record::new(&Fields { width, height, profile, level, bit_depth, chroma, colour })?;
        Ok(Self(record))
    }

    /// The same of pictures of another size: of several spatial layers, of which the keyframe has told the smallest's.
    ///
    /// # Errors
    /// [`ConfigError::Size`]
    pub fn with_size(&self, width: u16, height: u16) -> Result<Self, ConfigError> {
        let Record { profile, bit_depth, chroma, colour, .. } = self.0;
        let (width, height) = (width.into(), height.into());
        let level = level(width, height);
        let record = Record::new(&Fields { width, height, profile, level, bit_depth, chroma, colour })?;
        Ok(Self(record))
    }

    /// Our own: see `vpx.rs`.
    pub fn record(&self) -> &Bytes {
        self.0.bytes()
    }

    /// The `vpcC` of it.
    pub fn vpcc(&self) -> &[u8] {
        self.0.vpcc()
    }

    pub fn width(&self) -> u32 {
        self.0.width
    }

    pub fn height(&self) -> u32 {
        self.0.height
    }

    pub fn chroma(&self) -> Chroma {
        self.0.chroma
    }

    /// Bits per sample: 8, 10 or 12.
    pub fn bit_depth(&self) -> u8 {
        self.0.bit_depth
    }

    /// Code points of ITU-T H.273, if the encoder says.
    pub fn colour(&self) -> Option<Colour> {
        self.0.colour
    }

    /// As in `vp09.00.40.08`: profile, level, bit depth; and chroma and colours, where they are not what players take
    /// for granted (VP Codec ISO Media File Format Binding, "Codecs Parameter String").
    pub fn rfc6381(&self) -> String {
        let Record { profile, level, bit_depth, chroma, colour, .. } = self.0;
        let mut codec = format!("vp09.{profile:02}.{level:02}.{bit_depth:02}");
        let usual = Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false };
        let told = colour.unwrap_or(usual);
        if chroma != Chroma::Yuv420 || told != usual {
            let subsampling = match chroma {
                Chroma::Monochrome | Chroma::Yuv420 => 1,
                Chroma::Yuv422 => 2,
                Chroma::Yuv444 => 3,
            };
            let Colour { primaries, transfer, matrix, full_range } = told;
            let range = u8::from(full_range);
            codec.push_str(&format!(".{subsampling:02}.{primaries:02}.{transfer:02}.{matrix:02}.{range:02}"));
        }
        codec
    }
}

/// Whether decoding can start at `unit`, a frame or a superframe, of which the first counts. The bitstream decides.
///
/// # Errors
/// [`UnitError`] if it does not begin like a frame.
pub fn is_key(unit: &[u8]) -> Result<bool, UnitError> {
    Ok(key_profile(&mut BitReader::new(unit))?.is_some())
}

/// The profile of a key frame that is shown, up to its sync code (§6.2); `None` of any other frame.
fn key_profile(reader: &mut BitReader<'_>) -> Result<Option<u8>, UnitError> {
    if reader.bits(2)? != MARKER {
        return Err(UnitError::Marker);
    }
    let profile = u8::from(reader.bit()?) | u8::from(reader.bit()?) << 1;
    if profile == 3 {
        reader.skip(1)?;
    }
    if reader.bit()? {
        return Ok(None); // show_existing_frame
    }
    let (is_inter, is_shown) = (reader.bit()?, reader.bit()?);
    reader.skip(1)?; // error_resilient_mode
    Ok((!is_inter && is_shown).then_some(profile))
}

impl From<BitsError> for UnitError {
    fn from(_: BitsError) -> Self {
        Self::Truncated
    }
}

fn level(width: u32, height: u32) -> u8 {
    // Sides have at most 16 bits.
    let pixels = u64::from(width) * u64::from(height);
    let fits = |&&(picture, second, _): &&(u32, u64, u8)| {
        pixels <= u64::from(picture) && pixels * u64::from(LEVEL_FRAME_RATE) <= second
    };
    LEVELS.iter().find(fits).unwrap_or(&LEVELS[LEVELS.len() - 1]).2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::{Bits, hex};

    /// A key frame's header of 8 bits and 4:2:0.
    fn key(space: u32, width: u32, height: u32) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.field(0b1000_0010, 8);
        bits.field(SYNC_CODE, 24);
        bits.field(space << 1, 4);
        bits.field(width - 1, 16);
        bits.field(height - 1, 16);
        bits.field(0, 12);
        bits.into_bytes()
    }

    #[test]
    fn a_keyframe_says_its_size() {
        let config = Config::of_keyframe(&key(0, 1280, 720)).unwrap();
        assert_eq!((config.width(), config.height(), config.bit_depth()), (1280, 720, 8));
        assert_eq!((config.chroma(), config.colour()), (Chroma::Yuv420, None));
        assert_eq!(config.rfc6381(), "vp09.00.40.08");
        assert_eq!(Config::parse(config.record()), Ok(config.clone()));
        assert_eq!(config.vpcc(), hex("010000000028820202020000"));
        let config = Config::of_keyframe(&key(1, 320, 180)).unwrap();
        assert_eq!(config.rfc6381(), "vp09.00.20.08.01.05.06.05.00");
        assert_eq!(Config::of_keyframe(&key(2, 320, 180)).unwrap().rfc6381(), "vp09.00.20.08");
        assert_eq!(level(8_192, 8_192), 62, "larger than any");
    }

    #[test]
    fn ten_bits_and_other_chroma_are_told() {
        let mut bits = Bits::default();
        bits.field(0b1_0110_0010, 9); // profile 3
        bits.field(SYNC_CODE, 24);
        bits.field(0b0101_0100, 8); // 10 bits, BT.2020, 4:2:2
        bits.field(1919 << 16 | 1079, 32);
        let config = Config::of_keyframe(&bits.into_bytes()).unwrap();
        assert_eq!((config.bit_depth(), config.chroma()), (10, Chroma::Yuv422));
        assert_eq!(config.rfc6381(), "vp09.03.41.10.02.09.14.09.00");
        assert_eq!(Config::parse(config.record()), Ok(config));
    }

    #[test]
    fn what_is_no_keyframe_of_ours_is_told_apart() {
        let frame = key(0, 640, 360);
        for (byte, begins) in [(0x82, true), (0x86, false), (0x80, false), (0x88, false)] {
            let mut frame = frame.clone();
            frame[0] = byte;
            assert_eq!(is_key(&frame), Ok(begins), "{byte:#x}");
            assert_eq!(Config::of_keyframe(&frame).is_ok(), begins);
        }
        assert_eq!(is_key(&[]), Err(UnitError::Truncated));
        assert_eq!(is_key(&[0x42]), Err(UnitError::Marker));
        for cut in 0..8 {
            assert_eq!(Config::of_keyframe(&frame[..cut]), Err(ConfigError::Truncated), "{cut}");
        }
        let mut other = frame.clone();
        other[1] = 0;
        assert_eq!(Config::of_keyframe(&other), Err(ConfigError::StartCode));
        assert!(matches!(Config::of_keyframe(&key(0, 8, 360)), Err(ConfigError::Size(_))));
        assert_eq!(Config::of_keyframe(&key(7, 640, 360)), Err(ConfigError::Chroma));
    }
}
