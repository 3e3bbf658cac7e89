use std::net::Ipv4Addr;

use rtc_stun::attributes::{ATTR_ICE_CONTROLLED, ATTR_USE_CANDIDATE};

use super::*;
use crate::port::Transport;
use crate::stun::tests::request;

fn path(port: u16) -> Path {
    Path {
        local: (Ipv4Addr::LOCALHOST, 1).into(),
        remote: (Ipv4Addr::LOCALHOST, port).into(),
        transport: Transport::Udp,
    }
}

fn credentials(ufrag: &str) -> Credentials {
    Credentials { ufrag: ufrag.to_owned(), password: format!("password of {ufrag}") }
}

fn check_of(ufrag: &str, nominates: bool) -> Vec<u8> {
    let extra: &[(_, &[u8])] = if nominates { &[(ATTR_USE_CANDIDATE, &[])] } else { &[] };
    request(&format!("{ufrag}:theirs"), &credentials(ufrag).password, extra)
}

struct Sim {
    ice: IceLite,
    now: Instant,
}

impl Sim {
    fn new() -> Self {
        Self { ice: IceLite::new(credentials("ours"), "theirs"), now: Instant::now() }
    }

    fn check(&mut self, port: u16, nominates: bool) -> Checked {
        self.ice.handle(path(port), &check_of("ours", nominates), self.now).unwrap()
    }

    fn sends_to(&self) -> Option<u16> {
        self.ice.path().map(|path| path.remote.port())
    }
}

#[test]
fn credentials_are_long_enough_and_never_the_same() {
    let (one, other) = (Credentials::generate().unwrap(), Credentials::generate().unwrap());
    assert_eq!((one.ufrag.len(), one.password.len()), (UFRAG_CHARS, PASSWORD_CHARS));
    assert!(one.ufrag != other.ufrag && one.password != other.password);
    assert!(!format!("{one:?}").contains(&one.password));
}

#[test]
fn the_latest_nominated_pair_is_sent_to() {
    let mut sim = Sim::new();
    assert_eq!(sim.sends_to(), None);
    let first = sim.check(1, false);
    assert!(first.is_new && first.is_selected_anew, "DTLS need not wait for the nomination");
    assert!(sim.check(2, false).is_selected_anew);
    assert!(sim.check(1, true).is_selected_anew);
    let other = sim.check(2, false);
    assert!(!other.is_selected_anew && !other.is_new, "checked, and not nominated");
    assert_eq!(sim.sends_to(), Some(1));
    sim.check(2, true);
    assert_eq!(sim.sends_to(), Some(2));
    assert!(sim.ice.is_valid(path(1)) && sim.ice.is_valid(path(2)) && !sim.ice.is_valid(path(3)));
}

/// Firefox: every check nominates, and consent is then asked for on one pair only, without nominating it.
#[test]
fn a_nominated_path_that_falls_silent_is_left_for_one_that_does_not() {
    let mut sim = Sim::new();
    sim.check(1, true);
    sim.check(2, true);
    assert_eq!(sim.sends_to(), Some(2));
    sim.now += Duration::from_secs(2);
    assert!(!sim.check(1, false).is_selected_anew);
    sim.now += Duration::from_secs(1);
    assert!(sim.check(1, false).is_selected_anew);
    assert_eq!(sim.sends_to(), Some(1));
}

#[test]
fn who_does_not_know_the_password_is_not_heard() {
    let mut sim = Sim::new();
    for message in [
        request("ours:theirs", "a guess", &[]),
        request("ours:other", &credentials("ours").password, &[]),
        vec![0; 20],
    ] {
        sim.ice.handle(path(1), &message, sim.now).unwrap_err();
    }
    assert_eq!((sim.sends_to(), sim.ice.last_check()), (None, None));
    assert!(!sim.ice.is_valid(path(1)));
}

#[test]
fn a_peer_that_does_not_control_is_answered_and_not_followed() {
    let mut sim = Sim::new();
    let confused = request("ours:theirs", &credentials("ours").password, &[(ATTR_ICE_CONTROLLED, &[0; 8])]);
    let checked = sim.ice.handle(path(1), &confused, sim.now).unwrap();
    assert!(!checked.is_selected_anew);
    assert_eq!(sim.sends_to(), None);
}

#[test]
fn a_restart_ends_the_session_before_with_the_first_check_of_the_new_one() {
    let mut sim = Sim::new();
    sim.check(1, true);
    sim.ice.restart(credentials("new"), "theirs");
    sim.ice.restart(credentials("newer"), "theirs");
    assert_eq!(sim.check(1, true).retired, None, "the peer has not had our answer yet");
    sim.ice.handle(path(1), &check_of("new", true), sim.now).unwrap_err();

    let checked = sim.ice.handle(path(2), &check_of("newer", false), sim.now).unwrap();
    assert_eq!((checked.retired.as_deref(), checked.is_selected_anew), (Some("ours"), true));
    assert_eq!(sim.ice.handle(path(1), &check_of("ours", true), sim.now), Err(StunError::Username));
    assert_eq!(sim.sends_to(), Some(2));
}

#[test]
fn only_the_latest_paths_are_the_peers() {
    let mut sim = Sim::new();
    for port in 1..=100 {
        sim.check(port, false);
    }
    assert_eq!(sim.ice.valid.len(), VALID_MAX);
    assert!(sim.ice.is_valid(path(100)) && !sim.ice.is_valid(path(92)));
}
