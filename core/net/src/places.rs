//! How many of something there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::accountable;

/// Bounds on what is open at once: connections, or requests that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub total: usize,
    /// From one address; of IPv6, from one /64.
    pub per_address: usize,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Full {
    Total,
    Address,
}

/// The places there are; clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

/// Holds no more addresses than places that are taken.
#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A taken place; dropping it makes room.
#[derive(Debug)]
pub struct Place {
    address: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// # Errors
    /// Which of the [`Limits`] is reached.
    pub fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let address = accountable(address);
        // Counting cannot panic, so a poisoned lock would still guard a true count.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.limits.total {
            return Err(Full::Total);
        }
        let here = taken.by_address.get(&address).copied().unwrap_or(0);
        if here >= self.limits.per_address {
            return Err(Full::Address);
        }
        taken.by_address.insert(address, here + 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn places(total: usize, per_address: usize) -> Places {
        Places::new(Limits { total, per_address })
    }

    /// Threat 12: one host opens its share twice, once per address family, or once per address of its network.
    #[test]
    fn an_address_is_one_address_however_it_is_written() {
        let places = places(10, 2);
        let plain = places.take("192.0.2.1".parse().unwrap()).unwrap();
        let _mapped = places.take("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(places.take("192.0.2.1".parse().unwrap()).err(), Some(Full::Address));
        assert!(places.take("192.0.2.2".parse().unwrap()).is_ok());
        drop(plain);
        assert!(places.take("::ffff:192.0.2.1".parse().unwrap()).is_ok());

        let _first = places.take("2001:db8::1".parse().unwrap()).unwrap();
        let _second = places.take("2001:db8::2:3:4".parse().unwrap()).unwrap();
        assert_eq!(places.take("2001:db8::5".parse().unwrap()).err(), Some(Full::Address));
        assert!(places.take("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn places_come_back() {
        let places = places(2, 2);
        for last in 0..100_u8 {
            let address = IpAddr::from([192, 0, 2, last]);
            let _one = places.take(address).unwrap();
            let _two = places.take(address).unwrap();
            assert_eq!(places.take([192, 0, 2, 200].into()).err(), Some(Full::Total));
        }
        assert!(places.taken.lock().unwrap().by_address.is_empty());
    }

    /// Whoever is refused leaves nothing behind, or refusals would be a way to fill the memory.
    #[test]
    fn the_refused_are_not_remembered() {
        let places = places(10, 0);
        for last in 0..100_u8 {
            assert_eq!(places.take(IpAddr::from([192, 0, 2, last])).err(), Some(Full::Address));
        }
        assert!(places.taken.lock().unwrap().by_address.is_empty());
    }
}
