//! Sealing what we send. Two different packets under one (key, SSRC, index) would give away GCM's authentication key
//! (RFC 7714, §10.2), so none of the three can be had twice: [`Sealers`] consumes the keys and gives out each SSRC
//! once, and a [`Sealer`] counts its index itself and writes it into the packet.

use std::sync::Arc;

use super::cipher::Cipher;
use super::keys::{Keys, Profile, SessionKeys};

/// Where RTP's fixed header has the two fields that a sealer owns (RFC 3550, §5.1).
const SEQUENCE_AT: usize = 2;
const SSRC_AT: usize = 8;

/// Largest packet index (RFC 3711, §3.3.1): 48 bits.
const INDEX_MAX: u64 = (1 << 48) - 1;

/// The sealers of one session.
pub struct Sealers {
    cipher: Arc<Cipher>,
    taken: Vec<u32>,
}

/// The SSRC has a sealer already: a mistake of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SSRC {ssrc:08x} is sent by somebody else in this session")]
pub struct SsrcTakenError {
    pub ssrc: u32,
}

impl Sealers {
    /// Make the SRTCP contexts before: the keys are gone afterwards.
    pub fn new(keys: Keys) -> Self {
        let session = SessionKeys::for_rtp(keys.profile, &keys.local);
        Self { cipher: Arc::new(Cipher::new(keys.profile, &session)), taken: Vec::new() }
    }

    /// The one sealer of `ssrc`. `random` makes the first sequence number; only 15 bits of it, so that the receiver
    /// cannot lose the first rollover with the first packet (RFC 3711, §3.3.1).
    ///
    /// # Errors
    /// [`SsrcTakenError`] if it was given out before.
    pub fn sealer(&mut self, ssrc: u32, random: u16) -> Result<Sealer, SsrcTakenError> {
        if self.taken.contains(&ssrc) {
            return Err(SsrcTakenError { ssrc });
        }
        self.taken.push(ssrc);
        Ok(Sealer { cipher: Arc::clone(&self.cipher), ssrc, next: u64::from(random >> 1) })
    }
}

/// Seals the packets of one SSRC, one after the other. Neither `Clone` nor able to go back.
pub struct Sealer {
    cipher: Arc<Cipher>,
    ssrc: u32,
    /// Index of the next packet: rollover counter, then 16 bits of sequence number.
    next: u64,
}

/// All 2^48 indices are used up; the session must end (RFC 3711, §9.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SRTP keys have sealed as many packets as they may")]
pub struct ExhaustedError;

impl Sealer {
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    pub fn profile(&self) -> Profile {
        self.cipher.profile()
    }

    /// Index of the next packet; its low 16 bits are the sequence number that it will carry.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Makes `packet` the next one of this SSRC: writes sequence number and SSRC into it, encrypts what is behind
    /// the first `header_bytes` and puts the tag into its last [`Profile::tag_bytes`]. Returns its index.
    ///
    /// # Errors
    /// [`ExhaustedError`], and `packet` is as it was.
    ///
    /// # Panics
    /// If `packet` is shorter than header and tag, or the header than RTP's 12 bytes.
    pub fn seal(&mut self, packet: &mut [u8], header_bytes: usize) -> Result<u64, ExhaustedError> {
        let index = self.next;
        if index > INDEX_MAX {
            return Err(ExhaustedError);
        }
        self.next += 1;
        packet[SEQUENCE_AT..SEQUENCE_AT + 2].copy_from_slice(&(index as u16).to_be_bytes());
        packet[SSRC_AT..SSRC_AT + 4].copy_from_slice(&self.ssrc.to_be_bytes());
        self.cipher.seal(packet, header_bytes, self.ssrc, index);
        Ok(index)
    }
}

#[cfg(test)]
mod tests;
