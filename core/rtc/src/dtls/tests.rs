use std::sync::atomic::Ordering;
use std::time::Duration;

use rtc_crypto::providers::AwsLcRsProvider;
use rtc_dtls::config::ConfigBuilder;
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;

use super::*;

/// Two ends and a line between them, and the time.
struct Pair {
    client: Dtls,
    server: Dtls,
    now: Instant,
}

type Happened = Result<DtlsEvent, DtlsError>;

fn identity() -> Arc<Identity> {
    Arc::new(Identity::generate().unwrap())
}

impl Pair {
    fn new() -> Self {
        let (client, server) = (identity(), identity());
        let of = |identity: &Identity| vec![identity.fingerprint().clone()];
        let (of_client, of_server) = (of(&client), of(&server));
        Self {
            client: Dtls::new(client, Role::Client, of_server).unwrap(),
            server: Dtls::new(server, Role::Server, of_client).unwrap(),
            now: Instant::now(),
        }
    }

    /// Until nothing is on the way; `lose` says of each datagram whether the line loses it.
    fn exchange(&mut self, mut lose: impl FnMut() -> bool) -> Vec<(Role, Happened)> {
        let mut events = Vec::new();
        loop {
            let mut is_quiet = true;
            for role in [Role::Client, Role::Server] {
                let (from, to) = match role {
                    Role::Client => (&mut self.server, &mut self.client),
                    Role::Server => (&mut self.client, &mut self.server),
                };
                while let Some(datagram) = from.poll_transmit() {
                    is_quiet = false;
                    if !lose()
                        && let Some(event) = to.handle_datagram(&datagram, self.now).transpose()
                    {
                        events.push((role, event));
                    }
                }
            }
            if is_quiet {
                return events;
            }
        }
    }

    fn connect(&mut self) -> [Keys; 2] {
        self.client.start(self.now).unwrap();
        keys(self.exchange(|| false))
    }
}

/// Of client and server.
fn keys(events: Vec<(Role, Happened)>) -> [Keys; 2] {
    let (mut client, mut server) = (None, None);
    for (role, event) in events {
        let DtlsEvent::Connected(keys) = event.unwrap() else { continue };
        match role {
            Role::Client => client = Some(keys),
            Role::Server => server = Some(keys),
        }
    }
    [client.unwrap(), server.unwrap()]
}

#[test]
fn both_ends_have_the_same_keys_for_gcm() {
    let mut pair = Pair::new();
    let [client, server] = pair.connect();
    assert_eq!((client.profile, server.profile), (Profile::Aes128Gcm, Profile::Aes128Gcm));
    assert_eq!((&client.local, &client.remote), (&server.remote, &server.local));
    assert!(pair.client.is_complete() && pair.server.is_complete());
}

/// webrtc.md: what libwebrtc's list looks like; rtc-dtls alone would take the first.
#[test]
fn a_client_that_prefers_aes_cm_gets_gcm_and_one_that_has_nothing_else_gets_aes_cm() {
    const CM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
    const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
    let cases = [(vec![CM, GCM], Profile::Aes128Gcm), (vec![CM], Profile::Aes128CmHmacSha1_80)];
    for (offered, wanted) in cases {
        let mut pair = Pair::new();
        let config = ConfigBuilder::default()
            .with_crypto_provider(Arc::new(AwsLcRsProvider::new()))
            .with_certificates(vec![pair.client.identity.certificate().clone()])
            .with_srtp_protection_profiles(offered)
            .with_insecure_skip_verify(true)
            .build(true, None)
            .unwrap();
        pair.client.attempt.endpoint.connect(pair.now, PEER, Arc::new(config), None).unwrap();
        pair.client.attempt.certificate.passed.store(true, Ordering::Relaxed);
        pair.client.collect(pair.now);
        let [client, server] = keys(pair.exchange(|| false));
        assert_eq!((client.profile, server.profile), (wanted, wanted));
        assert_eq!(client.local, server.remote);
        assert_eq!(pair.server.attempts, 1);
    }
}

#[test]
fn a_certificate_that_is_not_in_the_sdp_is_refused() {
    for forger in [Role::Client, Role::Server] {
        let mut pair = Pair::new();
        let end = if forger == Role::Client { &mut pair.client } else { &mut pair.server };
        *end = Dtls::new(identity(), forger, end.expected.to_vec()).unwrap();
        pair.client.start(pair.now).unwrap();
        let events = pair.exchange(|| false);
        let honest = if forger == Role::Client { Role::Server } else { Role::Client };
        assert!(!events.iter().any(|(_, event)| matches!(event, Ok(DtlsEvent::Connected(_)))), "{events:?}");
        let mut at_honest = events.into_iter().filter(|(role, _)| *role == honest).map(|(_, event)| event);
        assert_eq!(at_honest.next(), Some(Ok(DtlsEvent::Failed(DtlsError::Fingerprint))));
        assert_eq!(at_honest.find(Result::is_err), Some(Err(DtlsError::Fingerprint)));
    }
}

/// Threat 6.
#[test]
fn a_forger_who_is_first_does_not_end_the_session() {
    let mut pair = Pair::new();
    let mut forged = Dtls::new(identity(), Role::Client, pair.client.expected.to_vec()).unwrap();
    forged.attempts = ATTEMPTS_MAX;
    let honest = std::mem::replace(&mut pair.client, forged);
    pair.client.start(pair.now).unwrap();
    assert_eq!(
        pair.exchange(|| false),
        [
            (Role::Server, Ok(DtlsEvent::Failed(DtlsError::Fingerprint))),
            (Role::Client, Err(DtlsError::Refused))
        ]
    );
    assert_eq!(pair.server.attempts, 2);
    pair.client = honest;
    pair.connect();
}

/// A browser repeats its ClientHello within a few hundred milliseconds, before a server repeats its answer.
#[test]
fn a_server_whose_answer_was_lost_repeats_it_though_the_client_did_so_first() {
    let mut pair = Pair::new();
    pair.client.start(pair.now).unwrap();
    let hello = pair.client.poll_transmit().unwrap();
    pair.server.handle_datagram(&hello, pair.now).unwrap();
    let verify_request = pair.server.poll_transmit().unwrap();
    pair.client.handle_datagram(&verify_request, pair.now).unwrap();
    let hello = pair.client.poll_transmit().unwrap();
    pair.server.handle_datagram(&hello, pair.now).unwrap();
    while pair.server.poll_transmit().is_some() {}
    // The same message in another record.
    pair.now += Duration::from_millis(400);
    let mut repeated = hello.to_vec();
    repeated[10] += 20;
    pair.server.handle_datagram(&repeated, pair.now).unwrap();
    while pair.server.poll_transmit().is_some() {}

    pair.now += Duration::from_millis(700);
    pair.server.handle_timeout(pair.now).unwrap();
    let [client, server] = keys(pair.exchange(|| false));
    assert_eq!(client.local, server.remote);
}

#[test]
fn what_is_lost_is_repeated() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..50 {
        let mut pair = Pair::new();
        pair.client.start(pair.now).unwrap();
        let mut events = pair.exchange(|| random.u8(..8) == 0);
        for _ in 0..200 {
            if pair.client.is_complete() && pair.server.is_complete() {
                break;
            }
            pair.now += Duration::from_millis(500);
            pair.client.handle_timeout(pair.now).unwrap();
            pair.server.handle_timeout(pair.now).unwrap();
            events.extend(pair.exchange(|| random.u8(..8) == 0));
        }
        let [client, server] = keys(events);
        assert_eq!(client.local, server.remote);
    }
}

#[test]
fn a_goodbye_is_heard_at_the_other_end() {
    let mut pair = Pair::new();
    pair.connect();
    pair.client.close(pair.now);
    assert_eq!(pair.exchange(|| false), [(Role::Server, Ok(DtlsEvent::Closed))]);
}

/// Threat 7: neither panics nor ends what is connected.
#[test]
fn garbage_harms_nobody() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pair = Pair::new();
    pair.client.start(pair.now).unwrap();
    let hello = pair.client.poll_transmit().unwrap();
    for _ in 0..2_000 {
        let mut victim = Dtls::new(Arc::clone(&pair.server.identity), Role::Server, vec![]).unwrap();
        for _ in 0..3 {
            let mut bytes = hello.to_vec();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = victim.handle_datagram(&bytes, pair.now);
        }
    }

    let mut pair = Pair::new();
    pair.connect();
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..random.usize(..200)).map(|_| random.u8(..)).collect();
        if bytes.len() > 13 && random.bool() {
            let length = u16::try_from(bytes.len() - 13).unwrap().to_be_bytes();
            bytes[..13].copy_from_slice(&[
                random.u8(20..24),
                254,
                253,
                0,
                random.u8(..2),
                0,
                0,
                0,
                0,
                0,
                9,
                length[0],
                length[1],
            ]);
        }
        assert_eq!(pair.server.handle_datagram(&bytes, pair.now), Ok(None), "{bytes:?}");
    }
    pair.client.close(pair.now);
    let mut heard = Vec::new();
    while let Some(datagram) = pair.client.poll_transmit() {
        heard.extend(pair.server.handle_datagram(&datagram, pair.now).unwrap());
    }
    assert_eq!(heard, [DtlsEvent::Closed]);
}
