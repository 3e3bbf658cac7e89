//! Opus: the identification header (`OpusHead`, RFC 7845, §5.1), and how long a packet lasts (RFC 6716, §3.1).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::time::Timescale;

/// Longest header: eight channels are the most that a mapping family we take has.
pub const HEAD_BYTES_MAX: usize = HEAD_BYTES + 2 + CHANNELS_MAX as usize;

/// Samples of the longest packet: 120 ms (RFC 6716, §3.2.5).
pub const SAMPLES_MAX: u32 = 120 * SAMPLES_PER_MS;

/// Opus counts in 48 kHz whatever the encoder was fed with (RFC 7845, §4).
const TIMESCALE: u32 = 48_000;
const SAMPLES_PER_MS: u32 = TIMESCALE / 1_000;

const MAGIC: &[u8; 8] = b"OpusHead";
/// Without a channel mapping table.
const HEAD_BYTES: usize = 19;
const CHANNELS_MAX: u8 = 8;

/// A parsed and checked `OpusHead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    head: Bytes,
    channels: u8,
}

impl Config {
    /// # Errors
    /// [`ConfigError`]: the publisher's encoder wrote something Opus does not allow, or that players do not play.
    pub fn parse(head: Bytes) -> Result<Self, ConfigError> {
        let mut fields = head.strip_prefix(MAGIC).ok_or(ConfigError::Magic)?;
        if head.len() < HEAD_BYTES {
            return Err(ConfigError::Truncated);
        }
        let version = fields.get_u8();
        // Up to 15 is compatible with 1 (RFC 7845, §5.1).
        if version > 15 {
            return Err(ConfigError::Version { version });
        }
        let channels = fields.get_u8();
        fields.advance(2 + 4 + 2); // pre-skip, input rate, gain
        let family = fields.get_u8();
        // Stereo at most, or the layouts of Vorbis up to 7.1 (RFC 7845, §5.1.1).
        match (family, channels) {
            (0, 1..=2) | (1, 1..=CHANNELS_MAX) => {}
            (0 | 1, _) => return Err(ConfigError::Channels { channels }),
            _ => return Err(ConfigError::Family { family }),
        }
        let table_bytes = if family == 0 { 0 } else { 2 + usize::from(channels) };
        let table = fields.get(..table_bytes).ok_or(ConfigError::Truncated)?;
        if let [streams, coupled, mapping @ ..] = table {
            let decoded = streams.checked_add(*coupled).ok_or(ConfigError::Mapping)?;
            // 255 is a silent channel.
            let maps = |&channel: &u8| channel < decoded || channel == u8::MAX;
            if *streams == 0 || coupled > streams || !mapping.iter().all(maps) {
                return Err(ConfigError::Mapping);
            }
        }
        Ok(Self { head: head.slice(..HEAD_BYTES + table_bytes), channels })
    }

    /// The header as the publisher sent it, without anything behind it.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// The clock of this track, and what comes out of a decoder: 48 kHz.
    pub fn timescale(&self) -> Timescale {
        const { Timescale::literal(TIMESCALE) }
    }

    /// Samples at 48 kHz that a decoder throws away at the start.
    pub fn pre_skip(&self) -> u16 {
        u16::from_le_bytes([self.head[10], self.head[11]])
    }

    /// The sample entry of ISO files, as players want to see it (Opus in ISOBMFF, §4.3.1).
    pub fn rfc6381(&self) -> String {
        "opus".to_owned()
    }

    /// The content of a `dOps` box: the header without its magic, version 0, and the other end first (Opus in ISOBMFF,
    /// §4.3.2).
    pub(crate) fn specific_box(&self) -> Bytes {
        let mut fields = &self.head[MAGIC.len() + 1..];
        let mut dops = BytesMut::with_capacity(self.head.len());
        dops.put_u8(0);
        dops.put_u8(fields.get_u8());
        dops.put_u16(fields.get_u16_le());
        dops.put_u32(fields.get_u32_le());
        dops.put_u16(fields.get_u16_le());
        dops.put_slice(fields);
        dops.freeze()
    }
}

/// How long `packet` lasts, in samples at 48 kHz: 2.5 to 120 ms. `None` if it is no Opus packet.
pub fn samples(packet: &[u8]) -> Option<u32> {
    let &toc = packet.first()?;
    // Configuration numbers of RFC 6716, table 2; lengths in eighths of a millisecond, because of 2.5 ms.
    let eighths = match toc >> 3 {
        config @ 0..=11 => [80, 160, 320, 480][usize::from(config & 3)],
        config @ 12..=15 => [80, 160][usize::from(config & 1)],
        config => [20, 40, 80, 160][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3F),
    };
    let samples = frames * eighths * SAMPLES_PER_MS / 8;
    (1..=SAMPLES_MAX).contains(&samples).then_some(samples)
}

/// Why an `OpusHead` was refused. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("it does not begin with \"OpusHead\"")]
    Magic,
    #[error("it ends in the middle")]
    Truncated,
    #[error("version {version} is not known")]
    Version { version: u8 },
    #[error("{channels} channels are not supported; send mono, stereo, 5.1 or 7.1")]
    Channels { channels: u8 },
    #[error("channel mapping family {family} is not supported; send mono, stereo, 5.1 or 7.1")]
    Family { family: u8 },
    #[error("its channels are made of streams that are not there")]
    Mapping,
}

#[cfg(test)]
mod tests;
