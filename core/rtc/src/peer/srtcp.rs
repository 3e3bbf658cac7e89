//! SRTCP with one peer, by `rtc-srtp`.

use bytes::{Bytes, BytesMut};
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_rtcp::Packet;
use rtc_rtcp::packet;
use rtc_shared::error::Error;
use rtc_srtp::context::Context;
use rtc_srtp::option::{srtcp_no_replay_protection, srtcp_replay_protection};
use rtc_srtp::protection_profile::ProtectionProfile;

use crate::srtp::{Keys, Master, Profile};

/// How far packets may overtake each other (RFC 3711, §3.3.2).
const REPLAY_WINDOW: usize = 64;

/// Who may report. Browsers use one SSRC for all reports of a peer that receives only.
const SSRCS_MAX: usize = 8;

/// `rtc-srtp` keeps a state for each SSRC it is shown, before it knows that the packet is genuine. After so many that
/// were not, that state is thrown away.
const FORGED_MAX: usize = 64;

/// E flag and SRTCP index.
const INDEX_BYTES: usize = 4;

/// What opens and seals RTCP. Nothing else may seal RTCP with these keys: an index used twice gives away the key.
pub(super) struct Srtcp {
    sealing: Context,
    /// Of SSRCs that have sent something genuine.
    opening: Context,
    ssrcs: Vec<u32>,
    /// Of all others.
    probing: Context,
    forged: usize,
    profile: Profile,
    remote: Master,
}

impl Srtcp {
    pub(super) fn new(keys: &Keys) -> Result<Self, Error> {
        let opening = |window| context(keys.profile, &keys.remote, window);
        Ok(Self {
            sealing: context(keys.profile, &keys.local, None)?,
            opening: opening(Some(REPLAY_WINDOW))?,
            ssrcs: Vec::new(),
            probing: opening(None)?,
            forged: 0,
            profile: keys.profile,
            remote: keys.remote.clone(),
        })
    }

    /// The packets of a datagram, if the peer sealed it and it has not come before.
    pub(super) fn open(&mut self, sealed: &[u8]) -> Option<Vec<Box<dyn Packet>>> {
        let opened = self.decrypt(sealed)?;
        // What is in it was still chosen by a stranger.
        packet::unmarshal(&mut opened.freeze()).ok()
    }

    fn decrypt(&mut self, sealed: &[u8]) -> Option<BytesMut> {
        let ssrc = u32::from_be_bytes(*sealed.get(4..)?.first_chunk()?);
        if !self.is_encrypted(sealed)? {
            return None;
        }
        if !self.ssrcs.contains(&ssrc) {
            if self.ssrcs.len() == SSRCS_MAX {
                return None;
            }
            if self.probing.decrypt_rtcp(sealed).is_err() {
                self.forged += 1;
                if self.forged == FORGED_MAX {
                    self.probing = context(self.profile, &self.remote, None).ok()?;
                    self.forged = 0;
                }
                return None;
            }
            self.ssrcs.push(ssrc);
        }
        self.opening.decrypt_rtcp(sealed).ok()
    }

    /// The E flag before the index (RFC 3711, §3.4). In GCM it is authenticated (RFC 7714, §9.3), which `rtc-srtp` 0.21.1
    /// forgets: it opens what came with the flag cleared on the way. WebRTC always encrypts (RFC 8827, §6.5).
    fn is_encrypted(&self, sealed: &[u8]) -> Option<bool> {
        let behind = match self.profile {
            Profile::Aes128Gcm => 0,
            Profile::Aes128CmHmacSha1_80 => self.profile.tag_bytes(),
        };
        let at = sealed.len().checked_sub(behind + INDEX_BYTES)?;
        Some(sealed.get(at)? & 0x80 != 0)
    }

    /// # Errors
    /// If a packet cannot be written: it has more entries than its header can count.
    pub(super) fn seal(&mut self, packets: &[Box<dyn Packet>]) -> Result<Bytes, Error> {
        let plain = packet::marshal(packets)?;
        Ok(self.sealing.encrypt_rtcp(&plain)?.freeze())
    }
}

fn context(profile: Profile, master: &Master, replay_window: Option<usize>) -> Result<Context, Error> {
    let named = match profile {
        Profile::Aes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let replay = replay_window.map_or_else(srtcp_no_replay_protection, srtcp_replay_protection);
    Context::new(&master.key, master.salt(profile), named, None, Some(replay), &AwsLcRsCrypto)
}

#[cfg(test)]
mod tests {
    use rtc_rtcp::goodbye::Goodbye;
    use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;

    use super::*;
    use crate::srtp::Role;

    fn pair(profile: Profile) -> (Srtcp, Srtcp) {
        let exported: Vec<u8> = (0..profile.exported_bytes() as u8).collect();
        let keys = |role| Keys::from_exported(profile, role, &exported).unwrap();
        (Srtcp::new(&keys(Role::Client)).unwrap(), Srtcp::new(&keys(Role::Server)).unwrap())
    }

    fn pli(sender_ssrc: u32) -> Vec<Box<dyn Packet>> {
        vec![Box::new(PictureLossIndication { sender_ssrc, media_ssrc: 9 })]
    }

    #[test]
    fn what_is_sealed_opens_once() {
        for profile in [Profile::Aes128Gcm, Profile::Aes128CmHmacSha1_80] {
            let (mut client, mut server) = pair(profile);
            let mut packets = pli(1);
            packets.push(Box::new(Goodbye { sources: vec![1], reason: Bytes::new() }));
            let sealed = client.seal(&packets).unwrap();
            assert_eq!(server.open(&sealed).unwrap(), packets);
            assert!(server.open(&sealed).is_none(), "a replay");
            let later = client.seal(&pli(1)).unwrap();
            assert_eq!(server.open(&later).unwrap(), pli(1));
            assert_ne!(client.seal(&pli(1)).unwrap(), client.seal(&pli(1)).unwrap());
        }
    }

    #[test]
    fn what_was_changed_on_the_way_is_not_opened() {
        for profile in [Profile::Aes128Gcm, Profile::Aes128CmHmacSha1_80] {
            let (mut client, mut server) = pair(profile);
            let sealed = client.seal(&pli(1)).unwrap();
            for bit in 0..8 * sealed.len() {
                let mut changed = sealed.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(server.open(&changed).is_none(), "{profile:?}, bit {bit}");
            }
            assert!(server.open(&sealed).is_some());
        }
    }

    /// Threat 8.
    #[test]
    fn forged_reports_from_ever_new_ssrcs_leave_nothing_behind() {
        let (mut client, mut server) = pair(Profile::Aes128Gcm);
        let good = client.seal(&pli(1)).unwrap();
        for ssrc in 0..10_000_u32 {
            let mut forged = good.to_vec();
            forged[4..8].copy_from_slice(&ssrc.to_be_bytes());
            forged[20] ^= 1;
            assert!(server.open(&forged).is_none());
            assert!(server.forged < FORGED_MAX);
        }
        assert!(server.ssrcs.is_empty());
        assert!(server.open(&good).is_some(), "and the peer is still heard");
        for ssrc in 2..100 {
            let sealed = client.seal(&pli(ssrc)).unwrap();
            assert_eq!(server.open(&sealed).is_some(), ssrc <= SSRCS_MAX as u32);
        }
    }

    /// A peer that has the keys, and sends anything at all.
    #[test]
    fn garbage_that_is_sealed_harms_nobody() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200_000 {
            let mut plain: Vec<u8> = (0..4 * random.usize(1..40)).map(|_| random.u8(..)).collect();
            // Mostly a header that is one: version 2, a type and format there are, a length that is or nearly is.
            if random.u8(..8) > 0 {
                let words = (plain.len() / 4 - 1) as u8;
                let kind = random.u8(200..208);
                plain[..4].copy_from_slice(&[0x80 | random.u8(..32) | random.u8(..2) << 5, kind, 0, words]);
                if random.u8(..4) == 0 {
                    plain[3] = random.u8(..=words);
                }
            }
            let _ = packet::unmarshal(&mut Bytes::from(plain));
        }
    }
}
