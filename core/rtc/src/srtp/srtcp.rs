//! SRTCP with one peer.

use std::ops::RangeInclusive;

use bytes::Bytes;
use rtc_rtcp::{Packet, packet};
use rtc_shared::error::Error;

use super::cipher::Cipher;
use super::keys::{Keys, SessionKeys};
use crate::rtcp::HEADER_BYTES;

/// How far packets may overtake each other: as many as the window has bits (RFC 3711, §3.3.2).
const REPLAY_WINDOW: u32 = u64::BITS;

/// Who may report. Browsers use one SSRC for all reports of a peer that receives only.
const SSRCS_MAX: usize = 8;

/// Before the index (RFC 3711, §3.4): the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;
const INDICES: RangeInclusive<u32> = 0..=ENCRYPTED - 1;

/// What opens and seals RTCP. Nothing else may seal RTCP with these keys: an index used twice gives away the key.
pub(crate) struct Srtcp {
    sealing: Cipher,
    /// Of the next packet, whichever SSRC it is of.
    next: u32,
    opening: Cipher,
    /// Who has sent something genuine.
    senders: Vec<Sender>,
}

struct Sender {
    ssrc: u32,
    newest: u32,
    /// Bit `n` is set: the packet `n` before the newest has come.
    came: u64,
}

impl Sender {
    fn is_new(&self, index: u32) -> bool {
        match self.newest.checked_sub(index) {
            Some(before) => before < REPLAY_WINDOW && self.came & 1 << before == 0,
            None => true,
        }
    }

    fn came(&mut self, index: u32) {
        match self.newest.checked_sub(index) {
            Some(before) => self.came |= 1 << before,
            None => {
                self.came = self.came.checked_shl(index - self.newest).unwrap_or_default() | 1;
                self.newest = index;
            }
        }
    }
}

impl Srtcp {
    pub(crate) fn new(keys: &Keys) -> Self {
        let cipher = |master| Cipher::new(keys.profile, &SessionKeys::for_rtcp(keys.profile, master));
        Self {
            sealing: cipher(&keys.local),
            next: *INDICES.start(),
            opening: cipher(&keys.remote),
            senders: Vec::new(),
        }
    }

    /// Opens a datagram in place. `None` unless the peer sealed it, and it has not come before. What is in it was still chosen
    /// by a stranger.
    pub(crate) fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let ssrc = u32::from_be_bytes(*sealed.get(4..)?.first_chunk()?);
        let word = self.opening.control_word(sealed)?;
        // WebRTC always encrypts (RFC 8827, §6.5).
        let index = word.checked_sub(ENCRYPTED)?;
        let known = self.senders.iter().position(|sender| sender.ssrc == ssrc);
        match known.and_then(|at| self.senders.get(at)) {
            Some(sender) if !sender.is_new(index) => return None,
            None if self.senders.len() == SSRCS_MAX => return None,
            _ => {}
        }
        let opened = self.opening.open_control(sealed, ssrc, word)?;
        // Not before: whoever forges leaves nothing behind.
        match known.and_then(|at| self.senders.get_mut(at)) {
            Some(sender) => sender.came(index),
            None => self.senders.push(Sender { ssrc, newest: index, came: 1 }),
        }
        Some(opened)
    }

    /// # Errors
    /// If a packet cannot be written: it has more entries than its header can count. And when all indices are used up.
    pub(crate) fn seal(&mut self, packets: &[Box<dyn Packet>]) -> Result<Bytes, Error> {
        let plain = packet::marshal(packets)?;
        let header = plain.first_chunk::<HEADER_BYTES>().ok_or(Error::ErrTooShortRtcp)?;
        let ssrc = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if !INDICES.contains(&self.next) {
            return Err(Error::ErrExceededMaxPackets);
        }
        let mut sealed = plain.to_vec();
        self.sealing.seal_control(&mut sealed, ssrc, ENCRYPTED | self.next);
        self.next += 1;
        Ok(sealed.into())
    }
}

#[cfg(test)]
mod tests {
    use rtc_rtcp::goodbye::Goodbye;
    use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
    use rtc_srtp::context::Context;
    use rtc_srtp::crypto::default_provider;
    use rtc_srtp::protection_profile::ProtectionProfile;

    use super::*;
    use crate::srtp::{Profile, Role};

    const PROFILES: [Profile; 2] = [Profile::Aes128Gcm, Profile::Aes128CmHmacSha1_80];

    fn keys(profile: Profile, role: Role) -> Keys {
        let exported: Vec<u8> = (0..profile.exported_bytes() as u8).collect();
        Keys::from_exported(profile, role, &exported).unwrap()
    }

    fn pair(profile: Profile) -> (Srtcp, Srtcp) {
        (Srtcp::new(&keys(profile, Role::Client)), Srtcp::new(&keys(profile, Role::Server)))
    }

    fn pli(sender_ssrc: u32) -> Vec<Box<dyn Packet>> {
        vec![Box::new(PictureLossIndication { sender_ssrc, media_ssrc: 9 })]
    }

    fn open(srtcp: &mut Srtcp, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = sealed.to_vec();
        srtcp.open(&mut sealed).map(<[u8]>::to_vec)
    }

    fn plain(packets: &[Box<dyn Packet>]) -> Option<Vec<u8>> {
        Some(packet::marshal(packets).unwrap().to_vec())
    }

    #[test]
    fn what_is_sealed_opens_once() {
        for profile in PROFILES {
            let (mut client, mut server) = pair(profile);
            let mut packets = pli(1);
            packets.push(Box::new(Goodbye { sources: vec![1], reason: Bytes::new() }));
            let sealed = client.seal(&packets).unwrap();
            assert_eq!(open(&mut server, &sealed), plain(&packets));
            assert_eq!(open(&mut server, &sealed), None, "a replay");
            let later = client.seal(&pli(1)).unwrap();
            assert_eq!(open(&mut server, &later), plain(&pli(1)));
            assert_ne!(client.seal(&pli(1)).unwrap(), client.seal(&pli(1)).unwrap());
        }
    }

    /// `rtc-srtp` as the other end, of packets of several lengths.
    #[test]
    fn another_implementation_opens_what_we_seal_and_seals_what_we_open() {
        for profile in PROFILES {
            let (keys, named) = match profile {
                Profile::Aes128Gcm => (keys(profile, Role::Server), ProtectionProfile::AeadAes128Gcm),
                Profile::Aes128CmHmacSha1_80 => {
                    (keys(profile, Role::Server), ProtectionProfile::Aes128CmHmacSha1_80)
                }
            };
            let provider = default_provider().unwrap();
            let context = |master: &crate::srtp::Master| {
                Context::new(&master.key, master.salt(profile), named, None, None, provider.crypto()).unwrap()
            };
            let (mut opens, mut seals) = (context(&keys.local), context(&keys.remote));
            let mut ours = Srtcp::new(&keys);
            for count in 1..40 {
                let packets: [Box<dyn Packet>; 1] =
                    [Box::new(Goodbye { sources: vec![7; count % 31 + 1], reason: Bytes::new() })];
                let plain = plain(&packets).unwrap();
                assert_eq!(opens.decrypt_rtcp(&ours.seal(&packets).unwrap()).unwrap()[..], plain);
                assert_eq!(open(&mut ours, &seals.encrypt_rtcp(&plain).unwrap()), Some(plain));
            }
        }
    }

    #[test]
    fn packets_may_overtake_each_other_and_come_once_all_the_same() {
        let (mut client, mut server) = pair(Profile::Aes128Gcm);
        let sealed: Vec<_> = (0..200).map(|_| client.seal(&pli(1)).unwrap()).collect();
        let mut opens = |number: usize| open(&mut server, &sealed[number]).is_some();
        assert!(opens(10) && opens(8) && opens(9) && !opens(8) && !opens(10));
        assert!(opens(72) && !opens(8) && opens(11) && !opens(11), "64 are remembered");
        assert!(opens(199) && !opens(72) && !opens(135) && opens(136) && !opens(199));
    }

    #[test]
    fn the_last_index_is_the_last() {
        let (mut client, mut server) = pair(Profile::Aes128Gcm);
        client.next = *INDICES.end();
        let last = client.seal(&pli(1)).unwrap();
        assert!(client.seal(&pli(1)).is_err() && client.seal(&pli(1)).is_err());
        assert!(open(&mut server, &last).is_some());
    }

    #[test]
    fn what_was_changed_or_cut_off_on_the_way_is_not_opened() {
        for profile in PROFILES {
            let (mut client, mut server) = pair(profile);
            let sealed = client.seal(&pli(1)).unwrap();
            for bit in 0..8 * sealed.len() {
                let mut changed = sealed.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&mut server, &changed).is_none(), "{profile:?}, bit {bit}");
            }
            (0..sealed.len()).for_each(|length| assert!(open(&mut server, &sealed[..length]).is_none()));
            assert!(open(&mut server, &sealed).is_some());
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
            assert!(open(&mut server, &forged).is_none());
        }
        assert!(server.senders.is_empty());
        assert!(open(&mut server, &good).is_some(), "and the peer is still heard");
        for ssrc in 2..100 {
            let sealed = client.seal(&pli(ssrc)).unwrap();
            assert_eq!(open(&mut server, &sealed).is_some(), ssrc <= SSRCS_MAX as u32);
        }
    }

    #[test]
    fn opening_allocates_nothing() {
        let (mut client, mut server) = pair(Profile::Aes128Gcm);
        let mut sealed: Vec<_> = (0..100).map(|_| client.seal(&pli(1)).unwrap().to_vec()).collect();
        assert!(server.open(&mut sealed[0]).is_some());
        let allocated = allocation_counter::measure(|| {
            assert!(sealed[1..].iter_mut().all(|sealed| server.open(sealed).is_some()));
        });
        assert_eq!(allocated.count_total, 0);
    }
}
