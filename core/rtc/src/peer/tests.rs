use std::net::Ipv4Addr;

use rtc_rtcp::packet;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_stun::attributes::ATTR_USE_CANDIDATE;

use super::*;
use crate::port::Transport;
use crate::stun::tests::{request, response};

const PASSWORD: &str = "the password of our side";

/// A peer, a browser at the other end whose DTLS is ours too, and the time.
struct Sim {
    peer: Peer,
    browser: Dtls,
    browser_srtcp: Option<Srtcp>,
    path: Path,
    now: Instant,
    events: Vec<Event>,
}

fn path(port: u16) -> Path {
    Path {
        local: (Ipv4Addr::LOCALHOST, 1).into(),
        remote: (Ipv4Addr::LOCALHOST, port).into(),
        transport: Transport::Udp,
    }
}

fn credentials(ufrag: &str) -> Credentials {
    Credentials { ufrag: ufrag.to_owned(), password: PASSWORD.to_owned() }
}

fn check(ufrag: &str, password: &str) -> Vec<u8> {
    request(&format!("{ufrag}:theirs"), password, &[(ATTR_USE_CANDIDATE, &[])])
}

impl Sim {
    fn new(role: Role) -> Self {
        let theirs = Identity::generate().unwrap();
        let fingerprint = theirs.fingerprint().clone();
        Self::build(role, theirs, fingerprint)
    }

    /// The browser has another certificate than the one that its SDP promised.
    fn trusting(role: Role, fingerprint: Fingerprint) -> Self {
        Self::build(role, Identity::generate().unwrap(), fingerprint)
    }

    fn build(role: Role, theirs: Identity, fingerprint: Fingerprint) -> Self {
        let ours = Arc::new(Identity::generate().unwrap());
        let now = Instant::now();
        let settings = PeerSettings {
            identity: Arc::clone(&ours),
            role,
            local: credentials("ours"),
            remote_ufrag: "theirs".to_owned(),
            fingerprints: vec![fingerprint],
            ssrcs: vec![11, 12],
        };
        let other = if role == Role::Server { Role::Client } else { Role::Server };
        let browser = Dtls::new(Arc::new(theirs), other, vec![ours.fingerprint().clone()]).unwrap();
        let peer = Peer::new(settings, now).unwrap();
        Self { peer, browser, browser_srtcp: None, path: path(1), now, events: Vec::new() }
    }

    /// Connected, with the events that led to it.
    fn connected(role: Role) -> Self {
        let mut sim = Self::new(role);
        sim.peer.handle_input(Input::Datagram { path: sim.path, bytes: &check("ours", PASSWORD) }, sim.now);
        sim.browser.start(sim.now).unwrap();
        sim.run();
        assert!(matches!(sim.events[..], [Event::Valid(_), Event::Path(_), Event::Connected(_)]));
        sim.events.clear();
        sim
    }

    fn receive(&mut self, path: Path, bytes: &[u8]) {
        self.peer.handle_input(Input::Datagram { path, bytes }, self.now);
    }

    /// Until neither has anything more to say. Returns what the peer sent that is not DTLS, and when it wants to be
    /// asked again.
    fn run(&mut self) -> (Vec<(Path, Bytes)>, Instant) {
        let mut sent = Vec::new();
        loop {
            while let Some(datagram) = self.browser.poll_transmit() {
                self.receive(self.path, &datagram);
            }
            match self.peer.poll_output() {
                Output::Send { bytes, .. } if Kind::of(&bytes) == Some(Kind::Dtls) => {
                    if let Ok(Some(DtlsEvent::Connected(keys))) =
                        self.browser.handle_datagram(&bytes, self.now)
                    {
                        self.browser_srtcp = Some(Srtcp::new(&keys));
                    }
                }
                Output::Send { path, bytes } => sent.push((path, bytes)),
                Output::Event(event) => self.events.push(event),
                Output::Wait { until } => return (sent, until),
            }
        }
    }

    fn closed(&self) -> Option<&Closed> {
        self.events.iter().find_map(|event| match event {
            Event::Closed(closed) => Some(closed),
            _ => None,
        })
    }

    /// Lets time pass, as a driver would, until the peer is gone.
    fn wait_for_the_end(&mut self) -> (Closed, Duration) {
        let start = self.now;
        for _ in 0..100 {
            self.now = self.run().1;
            if let Some(closed) = self.closed() {
                return (closed.clone(), self.now - start);
            }
            self.peer.handle_input(Input::Deadline, self.now);
            self.run();
            if let Some(closed) = self.closed() {
                return (closed.clone(), self.now - start);
            }
        }
        panic!("it has no end");
    }
}

fn pli() -> Vec<Box<dyn Packet>> {
    vec![Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: 11 })]
}

#[test]
fn both_roles_connect_and_reports_go_both_ways() {
    for role in [Role::Server, Role::Client] {
        let mut sim = Sim::connected(role);
        let report = sim.browser_srtcp.as_mut().unwrap().seal(&pli()).unwrap();
        sim.receive(sim.path, &report);
        sim.peer.send_rtcp(&pli()).unwrap();
        let (sent, _) = sim.run();
        let [Event::Rtcp(reports)] = &sim.events[..] else { panic!("{:?}", sim.events) };
        let plain = packet::marshal(&pli()).unwrap();
        assert_eq!(reports[..], plain);
        assert_eq!(sim.browser_srtcp.unwrap().open(&mut sent[0].1.to_vec()).unwrap(), plain);
    }
}

/// Threats 5 and 6.
#[test]
fn nothing_is_answered_before_a_valid_check_nor_from_another_path() {
    let mut sim = Sim::new(Role::Server);
    sim.browser.start(sim.now).unwrap();
    let hello = sim.browser.poll_transmit().unwrap();
    sim.receive(path(1), &hello);
    sim.receive(path(1), &check("ours", "a guess"));
    sim.receive(path(1), &check("another", PASSWORD));
    assert!(sim.run().0.is_empty() && sim.events.is_empty());

    sim.receive(path(1), &check("ours", PASSWORD));
    let (sent, _) = sim.run();
    response(&sent[0].1, PASSWORD);
    sim.events.clear();
    sim.receive(path(2), &hello);
    assert!(sim.browser.poll_transmit().is_none());
    assert!(sim.run().0.is_empty() && sim.events.is_empty(), "a race of ClientHellos is won by the peer");
    sim.receive(path(1), &hello);
    sim.run();
    assert!(matches!(sim.events[..], [Event::Connected(_)]));
}

#[test]
fn a_path_moves_by_a_check_and_by_nothing_else() {
    let mut sim = Sim::connected(Role::Server);
    let report = sim.browser_srtcp.as_mut().unwrap().seal(&pli()).unwrap();
    sim.receive(path(2), &report);
    sim.run();
    assert!(sim.events.is_empty(), "sealed, but from an address that has proven nothing");
    sim.receive(path(2), &check("ours", PASSWORD));
    sim.receive(path(2), &report);
    let (sent, _) = sim.run();
    assert_eq!(sent[0].0, path(2));
    let [Event::Valid(valid), Event::Path(moved), Event::Rtcp(_)] = sim.events[..] else { panic!() };
    assert_eq!((valid, moved, sim.peer.path()), (path(2), path(2), Some(path(2))));
}

#[test]
fn a_restart_retires_the_old_name() {
    let mut sim = Sim::connected(Role::Server);
    sim.peer.restart_ice(credentials("new"), "theirs");
    sim.receive(path(1), &check("ours", PASSWORD));
    sim.run();
    assert!(sim.events.is_empty());
    sim.receive(path(3), &check("new", PASSWORD));
    sim.run();
    let [Event::Valid(_), Event::Retired { ufrag }, Event::Path(moved)] = &sim.events[..] else { panic!() };
    assert_eq!((ufrag.as_str(), *moved), ("ours", path(3)));
}

#[test]
fn goodbyes_are_said_and_heard() {
    let mut sim = Sim::connected(Role::Server);
    sim.peer.close(sim.now);
    let Output::Send { bytes, .. } = sim.peer.poll_output() else { panic!() };
    let mut bytes = bytes.to_vec();
    let mut opened = sim.browser_srtcp.as_mut().unwrap().open(&mut bytes).unwrap();
    let packets = packet::unmarshal(&mut opened).unwrap();
    let goodbye = packets[1].as_any().downcast_ref::<Goodbye>().unwrap();
    assert_eq!(goodbye.sources, [11, 12]);
    let Output::Send { bytes, .. } = sim.peer.poll_output() else { panic!() };
    assert_eq!(sim.browser.handle_datagram(&bytes, sim.now), Ok(Some(DtlsEvent::Closed)));
    sim.run();
    assert_eq!(sim.closed(), Some(&Closed::ByUs));
    sim.receive(path(1), &check("ours", PASSWORD));
    assert!(sim.run().0.is_empty(), "gone is gone");

    let mut sim = Sim::connected(Role::Server);
    sim.browser.close(sim.now);
    sim.run();
    assert_eq!(sim.closed(), Some(&Closed::ByPeer));
}

#[test]
fn whoever_does_not_come_or_stays_away_is_given_up() {
    assert_eq!(Sim::new(Role::Server).wait_for_the_end(), (Closed::Unreached, REACH_TIME_MAX));

    for role in [Role::Server, Role::Client] {
        let mut sim = Sim::new(role);
        sim.receive(path(1), &check("ours", PASSWORD));
        // Whatever it sends is lost.
        sim.browser = Dtls::new(Arc::new(Identity::generate().unwrap()), Role::Server, vec![]).unwrap();
        while let Output::Send { .. } | Output::Event(_) = sim.peer.poll_output() {}
        let mut end = None;
        let start = sim.now;
        while end.is_none() {
            match sim.peer.poll_output() {
                Output::Wait { until } => {
                    sim.now = until;
                    sim.peer.handle_input(Input::Deadline, sim.now);
                }
                Output::Event(Event::Closed(closed)) => end = Some(closed),
                _ => {}
            }
        }
        assert_eq!(sim.now - start, HANDSHAKE_TIME_MAX, "{end:?}");
    }

    let mut sim = Sim::connected(Role::Server);
    sim.now += Duration::from_secs(20);
    sim.receive(path(1), &check("ours", PASSWORD));
    assert_eq!(sim.wait_for_the_end(), (Closed::ConsentExpired, CONSENT_TIME_MAX));
}

#[test]
fn a_peer_with_another_certificate_is_refused() {
    for role in [Role::Server, Role::Client] {
        let mut sim = Sim::trusting(role, Identity::generate().unwrap().fingerprint().clone());
        sim.receive(path(1), &check("ours", PASSWORD));
        sim.browser.start(sim.now).unwrap();
        let (end, _) = sim.wait_for_the_end();
        assert_eq!(end, Closed::Handshake(DtlsError::Fingerprint));
        assert!(!sim.events.iter().any(|event| matches!(event, Event::Connected(_))));
    }
}

/// Threats 5 to 8: what strangers and ill-meaning peers send ends nothing, and panics nowhere.
#[test]
fn garbage_harms_nobody() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sim = Sim::connected(Role::Server);
    let good = [
        check("ours", PASSWORD),
        sim.browser_srtcp.as_mut().unwrap().seal(&pli()).unwrap().to_vec(),
        [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 40][..], &[1; 40]].concat(),
    ];
    for _ in 0..30_000 {
        let original = random.choice(&good).unwrap();
        let mut bytes = original.clone();
        for _ in 0..random.usize(1..5) {
            // The first byte says what it is.
            let at = random.usize(1..bytes.len());
            bytes[at] ^= random.u8(1..);
        }
        bytes.truncate(random.usize(1..=bytes.len()));
        if bytes == *original {
            continue;
        }
        sim.receive(path(random.u16(1..3)), &bytes);
    }
    let (sent, _) = sim.run();
    assert!(sent.is_empty() && sim.events.is_empty(), "{:?}", sim.events);
    sim.receive(path(1), &good[1]);
    sim.run();
    assert!(matches!(sim.events[..], [Event::Rtcp(_)]), "{:?}", sim.events);
}
