//! What video and audio messages of Enhanced RTMP v2 have in common: modifiers, FourCC, several tracks in one message.

use std::borrow::Cow;

use bytes::{Buf, Bytes};

use super::{TagError, Tracks};

/// Packet types with the same number for video and audio.
pub(super) const SEQUENCE_START: u8 = 0;
pub(super) const CODED_FRAMES: u8 = 1;
pub(super) const SEQUENCE_END: u8 = 2;
const MODIFIERS: u8 = 7;

/// How the tracks of a multitrack message are laid out.
const ONE_TRACK: u8 = 0;
const MANY_TRACKS: u8 = 1;
const MANY_TRACKS_MANY_CODECS: u8 = 2;

pub(super) type FourCc = [u8; 4];

/// The share that one track has in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) kind: u8,
    pub(super) fourcc: FourCc,
    pub(super) data: Bytes,
}

/// What a message brings for the track we take; `None` if it brings something only for others. `multitrack` is the
/// packet type that says there are several, which differs between video and audio.
pub(super) fn packet(body: Bytes, multitrack: u8, tracks: &mut Tracks) -> Result<Option<Packet>, TagError> {
    let truncated = TagError::Truncated { bytes: body.len() };
    read(body, multitrack, tracks).map_err(|error| error.unwrap_or(truncated))
}

/// `Err(None)`: the bytes end too early.
fn read(mut body: Bytes, multitrack: u8, tracks: &mut Tracks) -> Result<Option<Packet>, Option<TagError>> {
    let mut kind = u8(&mut body)? & 0x0F;
    while kind == MODIFIERS {
        // The only one there is tells nanoseconds, which nobody sees. Unknown ones are to be passed over too.
        let mut bytes = usize::from(u8(&mut body)?) + 1;
        if bytes == 256 {
            bytes = usize::from(body.try_get_u16().map_err(|_| None)?) + 1;
        }
        take(&mut body, bytes)?;
        kind = u8(&mut body)? & 0x0F;
    }
    if kind != multitrack {
        let fourcc = read_fourcc(&mut body)?;
        return Ok(tracks.takes(0, fourcc).then_some(Packet { kind, fourcc, data: body }));
    }

    let layout = u8(&mut body)?;
    let (layout, kind) = (layout >> 4, layout & 0x0F);
    let shared = match layout {
        ONE_TRACK | MANY_TRACKS => Some(read_fourcc(&mut body)?),
        MANY_TRACKS_MANY_CODECS => None,
        kind => return Err(Some(TagError::Layout { kind })),
    };
    let mut taken = None;
    // Every track is looked at, so that each one passed over is known by name.
    loop {
        let fourcc = match shared {
            Some(fourcc) => fourcc,
            None => read_fourcc(&mut body)?,
        };
        let track = u8(&mut body)?;
        let data = if layout == ONE_TRACK {
            std::mem::take(&mut body)
        } else {
            let bytes = body.try_get_uint(3).map_err(|_| None)? as usize;
            take(&mut body, bytes)?
        };
        if tracks.takes(track, fourcc) && taken.is_none() {
            taken = Some(Packet { kind, fourcc, data });
        }
        if body.is_empty() {
            return Ok(taken);
        }
    }
}

fn u8(body: &mut Bytes) -> Result<u8, Option<TagError>> {
    body.try_get_u8().map_err(|_| None)
}

fn read_fourcc(body: &mut Bytes) -> Result<FourCc, Option<TagError>> {
    body.try_get_u32().map(u32::to_be_bytes).map_err(|_| None)
}

fn take(body: &mut Bytes, bytes: usize) -> Result<Bytes, Option<TagError>> {
    if bytes > body.len() { Err(None) } else { Ok(body.split_to(bytes)) }
}

/// What people call the codec of a FourCC.
pub(super) fn codec_name(fourcc: FourCc) -> Cow<'static, str> {
    let name = match &fourcc {
        b"avc1" => "H.264",
        b"hvc1" => "HEVC",
        b"vvc1" => "VVC",
        b"av01" => "AV1",
        b"vp08" => "VP8",
        b"vp09" => "VP9",
        b"mp4a" => "AAC",
        b"Opus" => "Opus",
        b"fLaC" => "FLAC",
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b".mp3" => "MP3",
        // Escaped: a stranger's bytes end up in a log line.
        other => return format!("\"{}\"", other.escape_ascii()).into(),
    };
    name.into()
}
