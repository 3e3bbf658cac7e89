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

/// The addresses to announce for a socket bound to `bound`: `public` ones first, as configured, then what the machine
/// has. Loopback only if it is what we are bound to, or if there is nothing else: elsewhere it is somebody else's.
///
/// # Errors
/// From the system, when it is asked for its interfaces.
pub(super) fn addresses(bound: IpAddr, public: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
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

fn announced(public: &[IpAddr], own: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = public.to_vec();
    for address in own {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    addresses
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
        assert_eq!(addresses(own, &[public, own]).unwrap(), [public, own]);
        assert_eq!(addresses(own, &[]).unwrap(), [own]);
    }

    #[test]
    fn a_wildcard_announces_what_the_machine_has_and_loopback_only_if_that_is_all() {
        let found = addresses([0, 0, 0, 0].into(), &[]).unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(IpAddr::is_ipv4), "{found:?}");
        let loopback = found.iter().filter(|address| address.is_loopback()).count();
        assert!(loopback == 0 || loopback == found.len(), "{found:?}");
    }
}
