//! NAL units behind their lengths, and captions among them.
//!
//! Captions of television (CEA-608 and 708) travel in SEI messages beside the picture (ATSC A/53 Part 4, §6.2.3). No
//! encoder makes them, so they are taken out of the source's unit and put into that of each rung, by PTS.

use bytes::{BufMut, Bytes};
use media::codec::without_emulation_prevention;

/// `nal_unit_type` of H.264, table 7-1.
const SLICE: u8 = 1;
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;

/// `nal_unit_type` of HEVC, table 7-1.
const HEVC_PREFIX_SEI: u8 = 39;

/// `payloadType` of SEI messages (H.264, §D.1).
const REGISTERED_USER_DATA: usize = 4;
const UNREGISTERED_USER_DATA: usize = 5;

/// Country, provider, identifier and type of captions in user data (ATSC A/53 Part 4, §6.2.3).
const CAPTIONS: &[u8] = b"\xB5\x00\x31GA94\x03";

/// Captions of one picture: A/53 has room for 31 triples.
const CAPTIONS_BYTES_MAX: usize = 512;

/// Whether an encoder's unit, lengths of four bytes, is an IDR. `None` if it holds no picture.
pub(crate) fn is_key(unit: &[u8]) -> Option<bool> {
    let mut pictures = units(unit, 4).map(kind).filter(|kind| (SLICE..=IDR).contains(kind));
    pictures.next().map(|kind| kind == IDR)
}

/// An encoder's unit as it goes out: with the captions before the picture, and without what does not belong into a
/// sample: delimiters, parameter sets that the configuration has, and the encoder's word about itself.
pub(crate) fn outgoing(unit: &[u8], captions: &[Bytes]) -> Bytes {
    let captions_bytes: usize = captions.iter().map(|captions| 4 + captions.len()).sum();
    let mut data = Vec::with_capacity(unit.len() + captions_bytes);
    let mut captions = captions;
    for nal in units(unit, 4) {
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

/// The captions in a unit of H.264, as a SEI NAL unit of H.264.
pub(crate) fn captions(unit: &[u8], length_bytes: u8) -> Option<Bytes> {
    collect(units(unit, length_bytes).filter(|nal| kind(nal) == SEI).filter_map(|nal| nal.get(1..)))
}

/// The captions in a unit of HEVC, as a SEI NAL unit of H.264: the messages are the same.
pub(crate) fn captions_of_hevc(unit: &[u8], length_bytes: u8) -> Option<Bytes> {
    let is_sei = |nal: &&[u8]| nal[0] >> 1 & 0x3F == HEVC_PREFIX_SEI;
    collect(units(unit, length_bytes).filter(is_sei).filter_map(|nal| nal.get(2..)))
}

/// Of the bodies of SEI NAL units.
fn collect<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> Option<Bytes> {
    let mut found = Vec::new();
    for body in bodies {
        let body = without_emulation_prevention(body);
        for (kind, payload) in messages(&body) {
            if kind == REGISTERED_USER_DATA
                && payload.starts_with(CAPTIONS)
                && found.len() + payload.len() <= CAPTIONS_BYTES_MAX
            {
                put_message(&mut found, kind, payload);
            }
        }
    }
    if found.is_empty() {
        return None;
    }
    found.push(0x80); // rbsp_trailing_bits
    let mut nal = vec![SEI];
    put_with_emulation_prevention(&mut nal, &found);
    Some(nal.into())
}

/// The NAL units behind their lengths. Ends where one is longer than what is left: the rest of a damaged unit.
fn units(unit: &[u8], length_bytes: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        loop {
            let (length, after) = rest.split_at_checked(usize::from(length_bytes))?;
            let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
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

/// `sei_message`s: type and payload (H.264, §7.3.2.3.1).
fn messages(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        // What is left is the stop bit.
        if rest.len() < 2 {
            return None;
        }
        let kind = number(&mut rest)?;
        let bytes = number(&mut rest)?;
        let payload;
        (payload, rest) = rest.split_at_checked(bytes)?;
        Some((kind, payload))
    })
}

/// A sum of bytes, of which all but the last are 255.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    loop {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number += usize::from(byte);
        if byte != u8::MAX {
            return Some(number);
        }
    }
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
