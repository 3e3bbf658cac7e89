//! VP8 (RFC 6386): what a keyframe says, and finding one.

use bytes::Bytes;

pub use super::vpx::{ConfigError, UnitError};
use super::vpx::{Fields, Record};
use super::{Chroma, Colour};

/// Before every frame (§9.1).
const TAG_BYTES: usize = 3;
const START_CODE: [u8; 3] = [0x9D, 0x01, 0x2A];
/// Of width and height; the two bits above ask players to scale, which none does.
const SIZE_MASK: u16 = 0x3FFF;

/// "Undefined" is not allowed in files, and VP8 has no levels: the lowest.
const LEVEL: u8 = 10;

/// What VP8's keyframes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config(Record);

impl Config {
    /// Of a record that [`Config::record`] gave.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn parse(record: &[u8]) -> Result<Self, ConfigError> {
        let record = Record::parse(record)?;
        let is_vp8 = record.bit_depth == 8 && record.chroma == Chroma::Yuv420 && record.profile <= 3;
        if is_vp8 { Ok(Self(record)) } else { Err(ConfigError::NoRecord) }
    }

    /// # Errors
    /// [`ConfigError`]: no keyframe, or one that nobody can play.
    pub fn of_keyframe(frame: &[u8]) -> Result<Self, ConfigError> {
        if !is_key(frame).map_err(|_| ConfigError::Truncated)? {
            return Err(ConfigError::NotAKeyframe);
        }
        let Some(&[s0, s1, s2, w0, w1, h0, h1]) = frame[TAG_BYTES..].first_chunk() else {
            return Err(ConfigError::Truncated);
        };
        if [s0, s1, s2] != START_CODE {
            return Err(ConfigError::StartCode);
        }
        let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & SIZE_MASK);
        let record = Record::new(&Fields {
            width: side(w0, w1),
            height: side(h0, h1),
            // A version above 3 is reserved, and decoded as 3 (§9.1).
            profile: (frame[0] >> 1 & 7).min(3),
            level: LEVEL,
            bit_depth: 8,
            chroma: Chroma::Yuv420,
            colour: None,
        })?;
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

    /// BT.601, if anything (§9.2); nobody keeps to it, and nobody says another.
    pub fn colour(&self) -> Option<Colour> {
        None
    }

    /// As in `vp08.00.10.08`.
    pub fn rfc6381(&self) -> String {
        format!("vp08.{:02}.{:02}.{:02}", self.0.profile, self.0.level, self.0.bit_depth)
    }
}

/// Whether decoding can start at `frame`. The bitstream decides.
///
/// # Errors
/// [`UnitError::Truncated`] if it is shorter than what stands before every frame.
pub fn is_key(frame: &[u8]) -> Result<bool, UnitError> {
    let tag: &[u8; TAG_BYTES] = frame.first_chunk().ok_or(UnitError::Truncated)?;
    Ok(tag[0] & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::hex;

    /// Of libvpx: 320x180, by Chromium.
    const KEY: &str = "5007009d012a4001b400";

    #[test]
    fn a_keyframe_says_its_size() {
        let config = Config::of_keyframe(&hex(KEY)).unwrap();
        assert_eq!((config.width(), config.height()), (320, 180));
        assert_eq!(config.rfc6381(), "vp08.00.10.08");
        assert_eq!(Config::parse(config.record()), Ok(config.clone()));
        // Fields of the binding, §2.2: 8 bits, 4:2:0, no colours told.
        assert_eq!(config.vpcc(), hex("01000000000a820202020000"));
        // The bits that ask to scale are none of the size.
        let scaled = Config::of_keyframe(&hex("5007009d012a4041b4c0")).unwrap();
        assert_eq!((scaled.width(), scaled.height()), (320, 180));
    }

    #[test]
    fn what_is_no_keyframe_of_ours_is_told_apart() {
        assert_eq!(is_key(&hex("510700")), Ok(false));
        assert_eq!(is_key(&hex("5007")), Err(UnitError::Truncated));
        for (frame, error) in [
            ("", ConfigError::Truncated),
            ("5107009d012a4001b400", ConfigError::NotAKeyframe),
            ("5007009d012a4001b4", ConfigError::Truncated),
            ("5007009d012b4001b400", ConfigError::StartCode),
        ] {
            assert_eq!(Config::of_keyframe(&hex(frame)), Err(error), "{frame}");
        }
        let empty = Config::of_keyframe(&hex("5007009d012a0000b400"));
        assert!(matches!(empty, Err(ConfigError::Size(_))), "{empty:?}");
        let record = Config::of_keyframe(&hex(KEY)).unwrap().record().clone();
        for cut in 0..record.len() {
            assert_eq!(Config::parse(&record[..cut]), Err(ConfigError::NoRecord));
        }
    }
}
