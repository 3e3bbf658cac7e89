//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::metrics::Reason;

/// How many connections the server holds at once. Beyond it, newcomers are closed before they say a word.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// In all. A stranger costs 200 kB at most until its `publish` is accepted, so 1,000 stay below the memory
    /// of a few streams.
    pub connections: usize,
    /// From one address (IPv6: one /64). A studio behind one address has a dozen encoders.
    pub connections_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1_000, connections_per_address: 64 }
    }
}

/// The connections there are; clones share them.
#[derive(Clone)]
pub(super) struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; dropping it makes room.
pub(super) struct Place {
    address: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    pub(super) fn take(&self, address: IpAddr) -> Result<Place, Reason> {
        let address = accountable(address);
        // Counting cannot panic, so a poisoned lock would still guard a true count.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.limits.connections {
            return Err(Reason::ConnectionsFull);
        }
        let here = taken.by_address.entry(address).or_default();
        if *here >= self.limits.connections_per_address {
            return Err(Reason::AddressFull);
        }
        *here += 1;
        taken.total += 1;
        Ok(Place { address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Whom to count: an IPv4 address however it is written, and the /64 of an IPv6 address, which is what one
/// subscriber is given.
fn accountable(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, connections_per_address: usize) -> Places {
        Places::new(Limits { connections, connections_per_address })
    }

    /// Threat: one host opens its share twice, once per address family.
    #[test]
    fn an_address_is_one_address_however_it_is_written() {
        let places = places(10, 2);
        let plain = places.take("192.0.2.1".parse().unwrap()).ok().unwrap();
        let _mapped = places.take("::ffff:192.0.2.1".parse().unwrap()).ok().unwrap();
        assert_eq!(places.take("192.0.2.1".parse().unwrap()).err(), Some(Reason::AddressFull));
        assert!(places.take("192.0.2.2".parse().unwrap()).is_ok());
        drop(plain);
        assert!(places.take("::ffff:192.0.2.1".parse().unwrap()).is_ok());

        let _first = places.take("2001:db8::1".parse().unwrap()).ok().unwrap();
        let _second = places.take("2001:db8::2:3:4".parse().unwrap()).ok().unwrap();
        assert_eq!(places.take("2001:db8::5".parse().unwrap()).err(), Some(Reason::AddressFull));
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn places_come_back() {
        let places = places(2, 2);
        for last in 0..100_u8 {
            let address = IpAddr::from([192, 0, 2, last]);
            let _one = places.take(address).ok().unwrap();
            let _two = places.take(address).ok().unwrap();
            assert_eq!(places.take([192, 0, 2, 200].into()).err(), Some(Reason::ConnectionsFull));
        }
        assert!(places.taken.lock().unwrap().by_address.is_empty());
    }
}
