//! A broadcaster's captions: CEA-608 in SEI messages beside the pictures (ATSC A/53 Part 4, §6.2.3), in a clip that has none.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::media::output_dir;
use crate::rtmp::{Tag, clip_tags, kind};

/// Of the clips.
const PICTURES_PER_SECOND: i64 = 30;
/// Of pictures, from one caption to the next. It begins and ends between the boundaries of parts and segments.
const PERIOD: usize = 90;
const FIRST_PAIR: usize = 10;
/// Where the caption appears and where it is erased, in pictures of its period.
pub const SHOWN: usize = 18;
pub const ERASED: usize = 83;

/// Commands of the first channel (CEA-608-E, tables 51 and 53).
const RESUME_CAPTION_LOADING: [u8; 2] = [0x14, 0x20];
const ROW_15: [u8; 2] = [0x14, 0x60];
const END_OF_CAPTION: [u8; 2] = [0x14, 0x2F];
const ERASE_DISPLAYED_MEMORY: [u8; 2] = [0x14, 0x2C];
const NOTHING: [u8; 2] = [0, 0];

/// Identifies captions in registered user data.
const IDENTIFIER: &[u8] = b"GA94\x03";

/// The clip of H.264, as FLV, with captions "TIDE 00", "TIDE 01"… of three seconds each.
///
/// # Errors
/// If there is no such clip, or it is none of H.264.
pub fn captioned(name: &str) -> Result<PathBuf> {
    let path = output_dir()?.join(format!("captioned-{name}.flv"));
    let mut captioned = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for tag in clip_tags(name)? {
        let is_picture = tag.kind == kind::VIDEO && tag.body.get(1) == Some(&1);
        let tag = if is_picture { with_captions(&tag)? } else { tag };
        append(&mut captioned, &tag);
    }
    fs::write(&path, captioned)?;
    Ok(path)
}

/// The messages with captions in a sample of H.264, NAL units behind lengths of four bytes.
///
/// # Errors
/// If it is cut short.
pub fn captions_in(sample: &[u8]) -> Result<Vec<&[u8]>> {
    let nals = nals(sample)?.into_iter();
    Ok(nals.filter(|nal| nal[0] & 0x1F == 6 && nal.windows(5).any(|bytes| bytes == IDENTIFIER)).collect())
}

/// Before its first slice. A picture of RTMP is `VIDEODATA` (Adobe Flash Video File Format 10.1, §E.4.3).
fn with_captions(tag: &Tag) -> Result<Tag> {
    let (head, nals) = (tag.body.get(..5).context("a picture of H.264")?, nals(&tag.body[5..])?);
    let slice = nals.iter().position(|nal| matches!(nal[0] & 0x1F, 1 | 5)).context("a slice")?;
    // Captions come in the order in which pictures are shown.
    let shown_ms = i64::from(tag.stamp) + i64::from(u32::from_be_bytes([0, head[2], head[3], head[4]]));
    let sei = sei(pair(((shown_ms * PICTURES_PER_SECOND + 500) / 1_000) as usize));
    let mut body = head.to_vec();
    for nal in [&nals[..slice], &[sei.as_slice()], &nals[slice..]].concat() {
        body.extend((nal.len() as u32).to_be_bytes());
        body.extend(nal);
    }
    Ok(Tag { body, ..*tag })
}

fn nals(mut units: &[u8]) -> Result<Vec<&[u8]>> {
    let mut nals = Vec::new();
    while !units.is_empty() {
        let (length, rest) = units.split_first_chunk().context("a length of four bytes")?;
        let nal;
        (nal, units) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).context("a whole unit")?;
        ensure!(!nal.is_empty(), "an empty unit");
        nals.push(nal);
    }
    Ok(nals)
}

/// What line 21 carries beside a picture.
fn pair(picture: usize) -> [u8; 2] {
    let text = format!("TIDE {:02} ", picture / PERIOD);
    // Commands come twice.
    let mut pairs = vec![RESUME_CAPTION_LOADING, RESUME_CAPTION_LOADING, ROW_15, ROW_15];
    pairs.extend(text.as_bytes().chunks_exact(2).map(|pair| [pair[0], pair[1]]));
    debug_assert_eq!(pairs.len(), SHOWN - FIRST_PAIR);
    pairs.extend([END_OF_CAPTION; 2]);
    match picture % PERIOD {
        at if (ERASED..ERASED + 2).contains(&at) => ERASE_DISPLAYED_MEMORY,
        at => at.checked_sub(FIRST_PAIR).and_then(|at| pairs.get(at)).copied().unwrap_or(NOTHING),
    }
}

/// A NAL unit. Its bytes have odd parity, so that there are no zeros to escape.
fn sei(pair: [u8; 2]) -> Vec<u8> {
    let [first, second] = pair.map(|byte| if byte.count_ones() % 2 == 0 { byte | 0x80 } else { byte });
    let triples = [[0xFC, first, second], [0xFD, 0x80, 0x80]];
    let header = [b"\xB5\0\x31".as_slice(), IDENTIFIER, &[0x40 | triples.len() as u8, 0xFF]].concat();
    let payload = [header.as_slice(), triples.as_flattened(), &[0xFF]].concat();
    [&[6, 4, payload.len() as u8], payload.as_slice(), &[0x80]].concat()
}

/// A tag of FLV and its length (§E.3, §E.4.1).
fn append(flv: &mut Vec<u8>, tag: &Tag) {
    let [high, stamp @ ..] = tag.stamp.to_be_bytes();
    let [_, length @ ..] = (tag.body.len() as u32).to_be_bytes();
    flv.push(tag.kind);
    flv.extend(length);
    flv.extend(stamp);
    flv.extend([high, 0, 0, 0]);
    flv.extend(&tag.body);
    flv.extend((tag.body.len() as u32 + 11).to_be_bytes());
}
