//! What the tests of several codecs write their input with.

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// `nals`, each behind its length.
pub(super) fn unit(length_bytes: usize, nals: &[&[u8]]) -> Vec<u8> {
    let mut unit = Vec::new();
    for nal in nals {
        let length = (nal.len() as u32).to_be_bytes();
        unit.extend_from_slice(&length[4 - length_bytes..]);
        unit.extend_from_slice(nal);
    }
    unit
}

/// Fields one after the other, from the most significant bit on.
#[derive(Default)]
pub(super) struct Bits(Vec<bool>);

impl Bits {
    pub(super) fn field(&mut self, value: u32, count: u32) {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    pub(super) fn golomb(&mut self, value: u32) {
        let code = value + 1;
        self.field(0, code.ilog2());
        self.field(code, code.ilog2() + 1);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte >> 1 | u8::from(bit) << 7);
        self.0.chunks(8).map(byte).collect()
    }
}

pub(super) fn with_emulation_prevention(nal: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in nal {
        if byte <= 3 && escaped.ends_with(&[0, 0]) {
            escaped.push(3);
        }
        escaped.push(byte);
    }
    escaped
}
