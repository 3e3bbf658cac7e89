//! Under which addresses peers can reach the port.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// How a candidate is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Udp,
    /// ICE-TCP (RFC 6544), passive: the peer connects.
    Tcp,
}

/// A host candidate (RFC 8445, §5.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    pub address: SocketAddr,
    pub protocol: Protocol,
}

/// Why an address is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `webrtc.public`.
    Configured,
    /// An interface of the machine has it, or the port is bound to it.
    Own,
}

/// The addresses that are announced to everybody for a socket bound to `bound`: `public` ones first, as configured, then what the
/// machine has. Loopback only if it is what we are bound to, or if there is nothing else: elsewhere it is somebody else's.
///
/// # Errors
/// From the system, when it is asked for its interfaces.
pub(super) fn addresses(bound: IpAddr, public: &[IpAddr]) -> io::Result<Vec<(IpAddr, Reason)>> {
    if !bound.is_unspecified() {
        return Ok(announced(public, &[bound]));
    }
    let found: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .map(|interface| interface.ip())
        // A socket for IPv4 hears nothing else; one bound to `::` hears both.
        .filter(|address| bound.is_ipv6() || address.is_ipv4())
        .filter(|address| !is_link_local(address))
        .collect();
    let (loopback, routable): (Vec<_>, Vec<_>) = found.into_iter().partition(IpAddr::is_loopback);
    Ok(announced(public, if routable.is_empty() { &loopback } else { &routable }))
}

fn announced(public: &[IpAddr], own: &[IpAddr]) -> Vec<(IpAddr, Reason)> {
    let public = public.iter().map(|&address| (address, Reason::Configured));
    let mut addresses: Vec<_> = public.collect();
    for &address in own {
        if addresses.iter().all(|(known, _)| *known != address) {
            addresses.push((address, Reason::Own));
        }
    }
    addresses
}

/// What one peer is told, the best first: UDP before TCP, in the order of `addresses`, none twice.
pub(super) fn candidates(addresses: &[SocketAddr], port: u16, tcp: bool) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let protocols: &[Protocol] = if tcp { &[Protocol::Udp, Protocol::Tcp] } else { &[Protocol::Udp] };
    for &protocol in protocols {
        for &address in addresses {
            let candidate = Candidate { address, protocol };
            // What a NAT has made of our UDP port says nothing of TCP.
            if (protocol == Protocol::Udp || address.port() == port) && !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
    }
    candidates
}

/// Whether a peer that has come by `asked` to our HTTP may be told to come to the port bound to `bound` by it, too.
pub(super) fn may_lead_here(asked: IpAddr, bound: IpAddr) -> bool {
    let is_of_one_machine = !asked.is_unspecified() && !asked.is_multicast() && !is_link_local(&asked);
    is_of_one_machine
        && (bound.is_ipv6() || asked.is_ipv4())
        // Bound to one address, we hear nothing on the loopback.
        && (bound.is_unspecified() || !asked.is_loopback())
}

/// Useless in an answer: it would need the name of the *peer's* interface.
fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_come_first_and_none_twice() {
        let (public, own): (IpAddr, IpAddr) = ([203, 0, 113, 7].into(), [192, 0, 2, 1].into());
        let configured = |address| (address, Reason::Configured);
        assert_eq!(addresses(own, &[public, own]).unwrap(), [public, own].map(configured));
        assert_eq!(addresses(own, &[]).unwrap(), [(own, Reason::Own)]);
    }

    #[test]
    fn a_wildcard_announces_what_the_machine_has_and_loopback_only_if_that_is_all() {
        let found = addresses([0, 0, 0, 0].into(), &[]).unwrap();
        assert!(!found.is_empty());
        assert!(
            found.iter().all(|(address, reason)| address.is_ipv4() && *reason == Reason::Own),
            "{found:?}"
        );
        let loopback = found.iter().filter(|(address, _)| address.is_loopback()).count();
        assert!(loopback == 0 || loopback == found.len(), "{found:?}");
    }

    #[test]
    fn a_port_that_a_nat_has_changed_is_of_udp_alone() {
        let [own, mapped]: [SocketAddr; 2] =
            ["192.0.2.1:8189", "203.0.113.7:40000"].map(|text| text.parse().unwrap());
        let told = candidates(&[mapped, own, own], 8189, true);
        let candidate = |address, protocol| Candidate { address, protocol };
        let expected = [(mapped, Protocol::Udp), (own, Protocol::Udp), (own, Protocol::Tcp)];
        assert_eq!(told, expected.map(|(address, protocol)| candidate(address, protocol)));
    }

    #[test]
    fn the_address_that_a_browser_came_by_is_told_where_it_may_lead_here() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (asked, bound, expected) in [
            ("203.0.113.7", "::", true),
            ("203.0.113.7", "192.0.2.1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.1", "192.0.2.1", false),
            ("2001:db8::7", "::", true),
            ("2001:db8::7", "0.0.0.0", false),
            ("fe80::1", "::", false),
            ("0.0.0.0", "::", false),
        ] {
            assert_eq!(may_lead_here(ip(asked), ip(bound)), expected, "{asked} on {bound}");
        }
    }
}
