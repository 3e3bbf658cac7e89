//! NAL units behind their lengths, and captions among them.
//!
//! No encoder makes captions, so they are taken out of the source's unit and put into that of each rung, by PTS.

use bytes::{BufMut, Bytes};
use media::codec::captions::REGISTERED_USER_DATA;

/// `nal_unit_type` of H.264, table 7-1.
const SLICE: u8 = 1;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;

/// `payloadType` of an SEI message (H.264, §D.1).
const UNREGISTERED_USER_DATA: usize = 5;

/// Captions of one picture: A/53 has room for 31 triples.
const CAPTIONS_BYTES_MAX: usize = 512;

/// Whether an encoder's unit, lengths of four bytes, is an IDR. `None` if it holds no picture.
pub(crate) fn is_key(unit: &[u8]) -> Option<bool> {
    let mut pictures = units(unit).map(kind).filter(|kind| (SLICE..=IDR).contains(kind));
    pictures.next().map(|kind| kind == IDR)
}

/// An encoder's unit as it goes out: with the captions before the picture, and without what does not belong into a
/// sample: delimiters, parameter sets that the configuration has, and the encoder's word about itself.
pub(crate) fn outgoing(unit: &[u8], captions: &[Bytes]) -> Bytes {
    let captions_bytes: usize = captions.iter().map(|captions| 4 + captions.len()).sum();
    let mut data = Vec::with_capacity(unit.len() + captions_bytes);
    let mut captions = captions;
    for nal in units(unit) {
        match kind(nal) {
            DELIMITER | SPS | PPS => continue,
            SEI if is_unregistered(nal) => continue,
            SLICE..=IDR => std::mem::take(&mut captions).iter().for_each(|captions| put(&mut data, captions)),
            _ => {}
        }
        put(&mut data, nal);
    }
    data.into()
}

fn put(data: &mut Vec<u8>, nal: &[u8]) {
    data.put_u32(nal.len() as u32);
    data.put_slice(nal);
}

/// Messages with captions as a SEI NAL unit of H.264, whichever codec they came with. `None` without any.
pub(crate) fn captions(messages: &[Vec<u8>]) -> Option<Bytes> {
    let mut body = Vec::new();
    for message in messages {
        if body.len() + message.len() <= CAPTIONS_BYTES_MAX {
            put_message(&mut body, REGISTERED_USER_DATA, message);
        }
    }
    if body.is_empty() {
        return None;
    }
    body.push(0x80); // rbsp_trailing_bits
    let mut nal = vec![SEI];
    put_with_emulation_prevention(&mut nal, &body);
    Some(nal.into())
}

/// The NAL units behind their lengths of four bytes. Ends where one is longer than what is left: the rest of a damaged unit.
fn units(unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        loop {
            let (length, after) = rest.split_first_chunk()?;
            let length = u32::from_be_bytes(*length) as usize;
            let nal;
            (nal, rest) = after.split_at_checked(length)?;
            if !nal.is_empty() {
                return Some(nal);
            }
            if rest.is_empty() {
                return None;
            }
        }
    })
}

fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1F)
}

fn is_unregistered(nal: &[u8]) -> bool {
    nal.get(1).is_some_and(|&kind| usize::from(kind) == UNREGISTERED_USER_DATA)
}

fn put_message(messages: &mut Vec<u8>, kind: usize, payload: &[u8]) {
    for number in [kind, payload.len()] {
        messages.extend(std::iter::repeat_n(u8::MAX, number / 255));
        messages.push((number % 255) as u8);
    }
    messages.extend_from_slice(payload);
}

/// H.264, §7.4.1.
fn put_with_emulation_prevention(nal: &mut Vec<u8>, payload: &[u8]) {
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte <= 3 {
            nal.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        nal.push(byte);
    }
}

#[cfg(test)]
mod tests;
