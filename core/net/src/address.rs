//! Whom to hold to account for an address.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address however it is written (a dual-stack socket says ::ffff:192.0.2.1), and the /64 of an IPv6
/// address, which is what one subscriber is given. Everything that is counted or slowed down "by address" goes
/// through here first, or one host would count twice, or 2^64 times.
#[must_use]
pub fn accountable(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}
