use rtc_stun::attributes::{ATTR_PADDING, ATTR_SOFTWARE};
use rtc_stun::error_code::ErrorCodeAttribute;
use rtc_stun::message::Getter;
use rtc_stun::textattrs::TextAttribute;

use super::*;

const USERNAME: &str = "ours:theirs";
const PASSWORD: &str = "a password of 22 bytes";

/// What a full agent sends, with `extra` attributes (type, value) before MESSAGE-INTEGRITY.
pub(crate) fn request(username: &str, password: &str, extra: &[(AttrType, &[u8])]) -> Vec<u8> {
    let mut setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId([7; 12])),
        Box::new(TextAttribute::new(ATTR_USERNAME, username.to_owned())),
        Box::new(RawAttributeSetter(ATTR_PRIORITY, vec![0, 0, 0, 9])),
        // Chromium's network cost, which nobody has to know.
        Box::new(RawAttributeSetter(AttrType(0xC057), vec![0, 0, 0, 10])),
    ];
    for (number, value) in extra {
        setters.push(Box::new(RawAttributeSetter(*number, value.to_vec())));
    }
    setters.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(password, &AwsLcRsCrypto)));
    setters.push(Box::new(FINGERPRINT));
    let mut message = Message::new();
    message.build(&setters).unwrap();
    message.raw
}

/// What a full agent makes of an answer; panics unless it is authentic.
pub(crate) fn response(bytes: &[u8], password: &str) -> Message {
    let mut message = Message::new();
    message.unmarshal_binary(bytes).unwrap();
    FINGERPRINT.check(&message).unwrap();
    MessageIntegrity::check(&mut message, password.as_bytes(), &AwsLcRsCrypto).unwrap();
    message
}

fn check(bytes: &[u8]) -> Result<Request, StunError> {
    Request::check(bytes, USERNAME, PASSWORD)
}

#[test]
fn a_request_that_knows_the_password_is_told_where_it_came_from() {
    let controlling = (ATTR_ICE_CONTROLLING, &[1; 8][..]);
    for (extra, use_candidate) in
        [(vec![controlling], false), (vec![controlling, (ATTR_USE_CANDIDATE, &[])], true)]
    {
        let request = check(&request(USERNAME, PASSWORD, &extra)).unwrap();
        assert_eq!((request.use_candidate, request.error(PASSWORD)), (use_candidate, None));
        for remote in ["192.0.2.1:4711", "[2001:db8::1]:4711"] {
            let remote: SocketAddr = remote.parse().unwrap();
            let answer = response(&request.success(remote, PASSWORD), PASSWORD);
            let mut mapped = XorMappedAddress::default();
            mapped.get_from(&answer).unwrap();
            assert_eq!((answer.typ, answer.transaction_id), (BINDING_SUCCESS, TransactionId([7; 12])));
            assert_eq!(SocketAddr::new(mapped.ip, mapped.port), remote);
        }
    }
}

/// Threat 5.
#[test]
fn a_request_that_does_not_know_the_password_is_an_error_without_an_answer() {
    let good = request(USERNAME, PASSWORD, &[]);
    assert_eq!(check(&request("other:theirs", PASSWORD, &[])), Err(StunError::Username));
    assert_eq!(check(&request("ours:other", PASSWORD, &[])), Err(StunError::Username));
    assert_eq!(check(&request(USERNAME, "another password", &[])), Err(StunError::Integrity));

    let mut bare = Message::new();
    bare.build(&[Box::new(BINDING_REQUEST), Box::new(TransactionId::new()), Box::new(FINGERPRINT)]).unwrap();
    assert_eq!(check(&bare.raw), Err(StunError::Username));
    let unsigned: [Box<dyn Setter>; 3] = [
        Box::new(BINDING_REQUEST),
        Box::new(TextAttribute::new(ATTR_USERNAME, USERNAME.to_owned())),
        Box::new(FINGERPRINT),
    ];
    bare.build(&unsigned).unwrap();
    assert_eq!(check(&bare.raw), Err(StunError::Integrity));

    assert_eq!(check(&good[..good.len() - 8]), Err(StunError::Malformed));
    assert_eq!(check(&[&good[..], &[0; 4]].concat()), Err(StunError::Malformed));
    let answer = check(&good).unwrap().success((std::net::Ipv4Addr::LOCALHOST, 1).into(), PASSWORD);
    assert_eq!(check(&answer), Err(StunError::NotARequest));
}

#[test]
fn what_is_not_signed_nominates_nothing() {
    let mut message = Message::new();
    let signed: [Box<dyn Setter>; 5] = [
        Box::new(BINDING_REQUEST),
        Box::new(TextAttribute::new(ATTR_USERNAME, USERNAME.to_owned())),
        Box::new(MessageIntegrity::new_raw_integrity_with_provider(PASSWORD, &AwsLcRsCrypto)),
        Box::new(RawAttributeSetter(ATTR_USE_CANDIDATE, vec![])),
        Box::new(FINGERPRINT),
    ];
    message.build(&signed).unwrap();
    assert!(!check(&message.raw).unwrap().use_candidate);
}

#[test]
fn a_peer_that_will_not_control_is_told_to() {
    let request = check(&request(USERNAME, PASSWORD, &[(ATTR_ICE_CONTROLLED, &[1; 8])])).unwrap();
    let answer = response(&request.error(PASSWORD).unwrap(), PASSWORD);
    let mut error = ErrorCodeAttribute::default();
    error.get_from(&answer).unwrap();
    assert_eq!((answer.typ, error.code.0), (BINDING_ERROR, 487));
}

#[test]
fn what_a_peer_insists_on_in_vain_is_named() {
    let extra = [(ATTR_PADDING, &[0; 4][..]), (ATTR_SOFTWARE, b"x"), (AttrType(0x7FFF), &[])];
    let request = check(&request(USERNAME, PASSWORD, &extra)).unwrap();
    let answer = response(&request.error(PASSWORD).unwrap(), PASSWORD);
    assert_eq!(answer.get(ATTR_UNKNOWN_ATTRIBUTES).unwrap(), [0x00, 0x26, 0x7F, 0xFF]);
}

#[test]
fn the_ufrag_is_found_without_a_check() {
    let message = request("ours:theirs", PASSWORD, &[]);
    assert_eq!(local_ufrag(&message), Some("ours"));
    assert_eq!(local_ufrag(&request("no colon", PASSWORD, &[])), None);
    for end in 0..34 {
        assert_eq!(local_ufrag(&message[..end]), None, "{end}");
    }
}

/// Neither panics, whatever a stranger sends.
#[test]
fn garbage_is_refused() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let good = request(USERNAME, PASSWORD, &[]);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            bytes[at] = random.u8(..);
        }
        bytes.truncate(random.usize(..=bytes.len()));
        let unharmed = bytes == good;
        let _ = local_ufrag(&bytes);
        assert_eq!(check(&bytes).is_ok(), unharmed, "{bytes:?}");
    }
}
