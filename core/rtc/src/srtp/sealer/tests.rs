use rtc_srtp::context::Context;
use rtc_srtp::crypto::default_provider;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::*;
use crate::srtp::keys::{KEY_BYTES, Role, SALT_BYTES_MAX};

const SSRC: u32 = 0x5501_A0B2;
const PROFILES: [Profile; 2] = [Profile::Aes128Gcm, Profile::Aes128CmHmacSha1_80];

fn keys(profile: Profile) -> Keys {
    let exported: Vec<u8> = (0..profile.exported_bytes()).map(|at| (at * 37) as u8).collect();
    Keys::from_exported(profile, Role::Server, &exported).unwrap()
}

/// `rtc-srtp`, as the peer of what `keys` seal.
fn opener(keys: &Keys) -> Context {
    let profile = match keys.profile {
        Profile::Aes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let provider = default_provider().unwrap();
    Context::new(&keys.local.key, keys.local.salt(keys.profile), profile, None, None, provider.crypto())
        .unwrap()
}

fn with_session_keys(
    profile: Profile,
    encryption: [u8; KEY_BYTES],
    salt: &[u8],
    ssrc: u32,
    next: u64,
) -> Sealer {
    let mut padded = [0; SALT_BYTES_MAX];
    padded[..salt.len()].copy_from_slice(salt);
    let keys = SessionKeys { encryption, salt: padded, authentication: [0; 20] };
    Sealer { cipher: Arc::new(Cipher::new(profile, &keys)), ssrc, next }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Header with zeros where the sealer writes, `payload`, and room for the tag.
fn packet(payload: &[u8], profile: Profile) -> Vec<u8> {
    let mut packet = vec![0x80, 0x60, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0];
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + profile.tag_bytes(), 0);
    packet
}

/// RFC 7714, §16.1.1.
#[test]
fn gcm_seals_the_vector_of_the_standard() {
    let key = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f_u128.to_be_bytes();
    let salt = bytes("517569642070726f2071756f");
    let mut sealer = with_session_keys(Profile::Aes128Gcm, key, &salt, SSRC, 0xF17B);
    let mut packet = bytes("804000008041f8d300000000");
    packet.extend_from_slice(b"Gallia est omnis divisa in partes tres");
    packet.resize(packet.len() + 16, 0);
    assert_eq!(sealer.seal(&mut packet, 12), Ok(0xF17B));
    let sealed = "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf\
                  8833899d7f27beb16a9152cf765ee4390cce";
    assert_eq!(packet, bytes(sealed));
}

/// RFC 3711, B.2: the key stream shows where the payload was zeros.
#[test]
fn counter_mode_makes_the_key_stream_of_the_standard() {
    let key = 0x2B7E_1516_28AE_D2A6_ABF7_1588_09CF_4F3C_u128.to_be_bytes();
    let salt = bytes("F0F1F2F3F4F5F6F7F8F9FAFBFCFD");
    let mut sealer = with_session_keys(Profile::Aes128CmHmacSha1_80, key, &salt, 0, 0);
    let mut packet = packet(&[0; 48], Profile::Aes128CmHmacSha1_80);
    sealer.seal(&mut packet, 12).unwrap();
    let stream =
        "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(packet[12..60], bytes(stream));
}

/// Another implementation opens what we seal, past the first and second rollover of the sequence number.
#[test]
fn a_peer_opens_every_packet_across_rollovers() {
    for profile in PROFILES {
        let keys = keys(profile);
        let mut peer = opener(&keys);
        let mut sealer = Sealers::new(keys).sealer(SSRC, 0xFFFF).unwrap();
        let first = sealer.next_index();
        assert_eq!(first, 0x7FFF, "the first sequence number is below 2^15");
        for count in 0..0x18_010_u64 {
            let payload = count.to_be_bytes();
            let mut packet = packet(&payload, profile);
            assert_eq!(sealer.seal(&mut packet, 12), Ok(first + count));
            let opened = peer.decrypt_rtp(&packet).unwrap();
            assert_eq!(opened[12..], payload, "packet {count} with {profile:?}");
            assert_eq!(opened[2..4], ((first + count) as u16).to_be_bytes());
            assert_eq!(opened[8..12], SSRC.to_be_bytes());
        }
        assert!(sealer.next_index() > 2 << 16);
    }
}

#[test]
fn a_changed_bit_is_noticed_in_the_header_extension_too() {
    for profile in PROFILES {
        let keys = keys(profile);
        let mut peer = opener(&keys);
        let mut sealer = Sealers::new(keys).sealer(SSRC, 0).unwrap();
        let mut sealed = bytes("906000000102030400000000BEDE000110AA0000");
        let header_bytes = sealed.len();
        sealed.extend_from_slice(b"payload");
        sealed.resize(sealed.len() + profile.tag_bytes(), 0);
        sealer.seal(&mut sealed, header_bytes).unwrap();
        for at in [1, 17, header_bytes, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(peer.decrypt_rtp(&changed).is_err(), "byte {at} with {profile:?}");
        }
        assert!(peer.decrypt_rtp(&sealed).is_ok());
    }
}

#[test]
fn an_ssrc_is_given_out_once() {
    let mut sealers = Sealers::new(keys(Profile::Aes128Gcm));
    assert!(sealers.sealer(SSRC, 0).is_ok());
    assert_eq!(sealers.sealer(SSRC, 7).err(), Some(SsrcTakenError { ssrc: SSRC }));
    assert!(sealers.sealer(SSRC + 1, 0).is_ok());
}

#[test]
fn the_last_index_is_the_last() {
    let mut sealer = with_session_keys(Profile::Aes128Gcm, [1; KEY_BYTES], &[0; 12], SSRC, INDEX_MAX);
    let mut last = packet(b"x", Profile::Aes128Gcm);
    assert_eq!(sealer.seal(&mut last, 12), Ok(INDEX_MAX));
    let mut over = packet(b"x", Profile::Aes128Gcm);
    assert_eq!(sealer.seal(&mut over, 12), Err(ExhaustedError));
    assert_eq!(over, packet(b"x", Profile::Aes128Gcm));
}

/// Counts what Rust allocates; what aws-lc would take from C is not seen.
#[test]
fn sealing_allocates_nothing() {
    for profile in PROFILES {
        let mut sealer = Sealers::new(keys(profile)).sealer(SSRC, 0).unwrap();
        let mut packet = packet(&[7; 1200], profile);
        let allocated = allocation_counter::measure(|| {
            for _ in 0..100 {
                sealer.seal(&mut packet, 12).unwrap();
            }
        });
        assert_eq!(allocated.count_total, 0, "{profile:?}");
    }
}
