use rtc_stun::message::{BINDING_SUCCESS, Message, Setter};
use rtc_stun::xoraddr::XorMappedAddress;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a server at the other end of a NAT says to `request`.
fn answer(request: &[u8], mapped: &str) -> Vec<u8> {
    let transaction = TransactionId(request[8..20].try_into().unwrap());
    let mapped = address(mapped);
    let mapped = XorMappedAddress { ip: mapped.ip(), port: mapped.port() };
    let mut message = Message::new();
    let setters: [Box<dyn Setter>; 3] = [Box::new(BINDING_SUCCESS), Box::new(transaction), Box::new(mapped)];
    message.build(&setters).unwrap();
    message.raw
}

#[test]
fn only_the_one_that_was_asked_is_believed_and_only_once() {
    let reflexive = Reflexive::default();
    let (server, stranger) = (address("198.51.100.1:3478"), address("198.51.100.2:3478"));
    assert_eq!(reflexive.take_answer(server, &answer(&[0; 20], "203.0.113.7:1")), None, "nothing was asked");
    let request = reflexive.ask(server);
    let right = answer(&request, "203.0.113.7:8189");
    assert_eq!(reflexive.take_answer(stranger, &right), None);
    assert_eq!(reflexive.take_answer(server, &answer(&[0; 20], "203.0.113.7:1")), None, "of another request");
    assert_eq!(reflexive.take_answer(server, &request), None, "no answer");
    for nowhere in ["0.0.0.0:8189", "224.0.0.1:8189", "255.255.255.255:8189", "203.0.113.7:0"] {
        assert_eq!(reflexive.take_answer(server, &answer(&request, nowhere)), None, "{nowhere}");
    }
    assert_eq!(reflexive.take_answer(server, &right[..24]), None, "half of it");
    assert!(reflexive.mapped().is_empty());
    let told = reflexive.take_answer(server, &right).unwrap();
    assert!(told.is_new && reflexive.mapped() == [address("203.0.113.7:8189")]);
    assert_eq!(reflexive.take_answer(server, &right), None, "said already");
}

#[test]
fn what_is_said_later_takes_the_place_of_what_was_said_before() {
    let reflexive = Reflexive::default();
    let (v4, v6) = (address("198.51.100.1:3478"), address("[2001:db8::1]:3478"));
    for (server, mapped, is_new) in [
        (v4, "203.0.113.7:8189", true),
        (v6, "[2001:db8::7]:8189", true),
        (v4, "203.0.113.7:8189", false),
        (v4, "203.0.113.8:8189", true),
    ] {
        let request = reflexive.ask(server);
        assert_eq!(reflexive.take_answer(server, &answer(&request, mapped)).unwrap().is_new, is_new);
    }
    assert_eq!(reflexive.mapped(), ["203.0.113.8:8189", "[2001:db8::7]:8189"].map(address));
}

#[test]
fn servers_are_written_as_rfc_7064_has_it() {
    for (text, shown) in [
        ("stun:stun.example", "stun:stun.example"),
        ("stun:stun.example:3478", "stun:stun.example"),
        ("stun:192.0.2.1:19302", "stun:192.0.2.1:19302"),
        ("stun:[2001:db8::1]", "stun:[2001:db8::1]"),
        ("stun:[2001:db8::1]:5", "stun:[2001:db8::1]:5"),
    ] {
        assert_eq!(text.parse::<StunServer>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        "stun:",
        "stun.example",
        "stuns:stun.example",
        "turn:stun.example",
        "stun:a b",
        "stun:a:",
        "stun:a:0",
        "stun:a:70000",
        "stun:[a]",
        "stun:[::1",
        "stun:[::1]5",
        "stun:::1",
        "stun:a/b",
    ] {
        assert_eq!(text.parse::<StunServer>(), Err(NoStunServer), "{text}");
    }
}
