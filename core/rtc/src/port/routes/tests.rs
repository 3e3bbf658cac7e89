use std::net::Ipv4Addr;

use super::*;
use crate::port::Transport;
use crate::stun::tests::request;

const DTLS: [u8; 20] = [22; 20];

fn path(port: u16) -> Path {
    Path {
        local: (Ipv4Addr::LOCALHOST, 1).into(),
        remote: (Ipv4Addr::LOCALHOST, port).into(),
        transport: Transport::Udp,
    }
}

fn stun_for(ufrag: &str) -> Vec<u8> {
    request(&format!("{ufrag}:theirs"), "password of the session 1", &[])
}

#[test]
fn stun_goes_by_ufrag_and_the_rest_by_an_address_that_was_bound() {
    let (mut routes, (inbox, mut received)) = (Routes::default(), mpsc::channel(8));
    let id = routes.lease("ours", 7, inbox);
    routes.deliver(path(1), &stun_for("ours")).unwrap();
    let datagram = received.try_recv().unwrap();
    assert_eq!((datagram.peer, datagram.path, &datagram.bytes[..]), (7, path(1), &stun_for("ours")[..]));
    assert_eq!(routes.deliver(path(1), &stun_for("other")), Err(Dropped::UnknownUfrag));

    assert_eq!(routes.deliver(path(1), &DTLS), Err(Dropped::UnknownAddress), "STUN alone opens nothing");
    routes.bind_address(id, path(1).remote);
    assert_eq!(routes.deliver(path(1), &DTLS), Ok(()));
    assert_eq!(routes.deliver(path(2), &DTLS), Err(Dropped::UnknownAddress));
    for first in [4, 19, 64, 127, 192, 255] {
        assert_eq!(routes.deliver(path(1), &[first; 20]), Err(Dropped::Malformed));
    }
    assert_eq!(routes.deliver(path(1), &[]), Err(Dropped::Malformed));
}

#[test]
fn a_full_inbox_drops() {
    let (mut routes, (inbox, received)) = (Routes::default(), mpsc::channel(1));
    routes.lease("ours", 0, inbox);
    assert_eq!(routes.deliver(path(1), &stun_for("ours")), Ok(()));
    assert_eq!(routes.deliver(path(1), &stun_for("ours")), Err(Dropped::InboxFull));
    drop(received);
    assert_eq!(routes.deliver(path(1), &stun_for("ours")), Err(Dropped::InboxFull));
}

#[test]
fn an_address_belongs_to_the_latest_and_outlives_who_had_it_before() {
    let mut routes = Routes::default();
    let (old_inbox, _old) = mpsc::channel(8);
    let (new_inbox, mut new) = mpsc::channel(8);
    let old = routes.lease("old", 0, old_inbox);
    let young = routes.lease("new", 1, new_inbox);
    routes.bind_address(old, path(1).remote);
    routes.bind_address(young, path(1).remote);
    routes.end(old);
    assert_eq!(routes.deliver(path(1), &DTLS), Ok(()));
    assert_eq!(new.try_recv().unwrap().peer, 1);
    routes.end(young);
    assert_eq!(routes.deliver(path(1), &DTLS), Err(Dropped::UnknownAddress));
    assert!(routes.by_address.is_empty() && routes.by_ufrag.is_empty() && routes.leases.is_empty());
}

/// Threat 8: a peer that comes from ever new addresses.
#[test]
fn a_lease_has_few_addresses_and_names() {
    let (mut routes, (inbox, _received)) = (Routes::default(), mpsc::channel(8));
    let id = routes.lease("0", 0, inbox);
    for number in 1..1_000 {
        routes.bind_address(id, path(number).remote);
        routes.add_ufrag(id, &number.to_string());
    }
    assert_eq!(routes.by_address.len(), ADDRESSES_PER_LEASE_MAX);
    assert_eq!(routes.by_ufrag.len(), UFRAGS_PER_LEASE_MAX);
    assert_eq!(routes.deliver(path(999), &DTLS), Ok(()));
    assert_eq!(routes.of_ufrag("999"), Some(id));

    routes.remove_ufrag(id, "998");
    assert_eq!((routes.of_ufrag("998"), routes.of_ufrag("999")), (None, Some(id)));
}
