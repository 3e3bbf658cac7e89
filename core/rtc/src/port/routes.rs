//! Whose datagram is it? Pure: no socket, no clock.
//!
//! STUN names its session by ufrag; whatever else comes is known by the address it comes from, and that address counts
//! only once the session's owner has seen a valid binding request from it. So nobody gets into a session by guessing
//! addresses, and a stranger's datagram costs one lookup.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::sync::mpsc;

use super::{Datagram, Path};
use crate::stun;

/// Addresses of one peer: its Wi-Fi, its mobile network and a VPN, each with IPv4 and IPv6, and where it has been before.
/// The oldest makes room.
const ADDRESSES_PER_LEASE_MAX: usize = 8;
/// The old and the new one of an ICE restart, and one more for a client that restarts again at once. The oldest makes
/// room.
const UFRAGS_PER_LEASE_MAX: usize = 3;

/// Why a datagram was dropped; counted, never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    Malformed,
    UnknownUfrag,
    UnknownAddress,
    InboxFull,
}

/// Bounded by the number of leases, each of which belongs to a session that was let in over HTTP.
#[derive(Debug, Default)]
pub(super) struct Routes {
    leases: HashMap<u64, Leased>,
    by_ufrag: HashMap<String, u64>,
    by_address: HashMap<SocketAddr, u64>,
    /// Of the next lease.
    next: u64,
}

#[derive(Debug)]
struct Leased {
    peer: u64,
    inbox: mpsc::Sender<Datagram>,
    ufrags: VecDeque<String>,
    addresses: VecDeque<SocketAddr>,
}

impl Routes {
    pub(super) fn lease(&mut self, ufrag: &str, peer: u64, inbox: mpsc::Sender<Datagram>) -> u64 {
        let id = self.next;
        self.next += 1;
        let leased = Leased { peer, inbox, ufrags: VecDeque::new(), addresses: VecDeque::new() };
        self.leases.insert(id, leased);
        self.add_ufrag(id, ufrag);
        id
    }

    pub(super) fn add_ufrag(&mut self, id: u64, ufrag: &str) {
        let Some(leased) = self.leases.get_mut(&id) else { return };
        if leased.ufrags.iter().any(|known| known == ufrag) {
            return;
        }
        if leased.ufrags.len() == UFRAGS_PER_LEASE_MAX
            && let Some(oldest) = leased.ufrags.pop_front()
        {
            remove_if_of(&mut self.by_ufrag, &oldest, id);
        }
        leased.ufrags.push_back(ufrag.to_owned());
        self.by_ufrag.insert(ufrag.to_owned(), id);
    }

    pub(super) fn remove_ufrag(&mut self, id: u64, ufrag: &str) {
        let Some(leased) = self.leases.get_mut(&id) else { return };
        leased.ufrags.retain(|known| known != ufrag);
        remove_if_of(&mut self.by_ufrag, ufrag, id);
    }

    /// The latest to prove that an address is theirs has it: NATs give ports to others.
    pub(super) fn bind_address(&mut self, id: u64, address: SocketAddr) {
        let Some(leased) = self.leases.get_mut(&id) else { return };
        leased.addresses.retain(|known| *known != address);
        if leased.addresses.len() == ADDRESSES_PER_LEASE_MAX
            && let Some(oldest) = leased.addresses.pop_front()
        {
            remove_if_of(&mut self.by_address, &oldest, id);
        }
        leased.addresses.push_back(address);
        self.by_address.insert(address, id);
    }

    pub(super) fn end(&mut self, id: u64) {
        let Some(leased) = self.leases.remove(&id) else { return };
        for ufrag in &leased.ufrags {
            remove_if_of(&mut self.by_ufrag, ufrag, id);
        }
        for address in &leased.addresses {
            remove_if_of(&mut self.by_address, address, id);
        }
    }

    /// Hands `bytes`, which came on `path`, to the peer they are for.
    pub(super) fn deliver(&self, path: Path, bytes: &[u8]) -> Result<(), Dropped> {
        self.hand_over(self.owner(path.remote, bytes)?, path, bytes)
    }

    /// The same for a connection, whose first frame has said whose it is.
    pub(super) fn hand_over(&self, id: u64, path: Path, bytes: &[u8]) -> Result<(), Dropped> {
        let leased = self.leases.get(&id).ok_or(Dropped::UnknownAddress)?;
        let datagram = Datagram { peer: leased.peer, path, bytes: BytesMut::from(bytes) };
        // A closed inbox is one whose owner is about to drop the lease.
        leased.inbox.try_send(datagram).map_err(|_| Dropped::InboxFull)
    }

    fn owner(&self, remote: SocketAddr, bytes: &[u8]) -> Result<u64, Dropped> {
        match Kind::of(bytes).ok_or(Dropped::Malformed)? {
            Kind::Stun => match stun::local_ufrag(bytes) {
                Some(ufrag) => self.of_ufrag(ufrag).ok_or(Dropped::UnknownUfrag),
                // Responses and indications have no user name.
                None => self.by_address.get(&remote).copied().ok_or(Dropped::UnknownAddress),
            },
            Kind::Dtls | Kind::Srtp | Kind::Srtcp => {
                self.by_address.get(&remote).copied().ok_or(Dropped::UnknownAddress)
            }
        }
    }

    pub(super) fn of_ufrag(&self, ufrag: &str) -> Option<u64> {
        self.by_ufrag.get(ufrag).copied()
    }
}

/// Only if nobody else has taken it since.
fn remove_if_of<K, Q>(map: &mut HashMap<K, u64>, key: &Q, id: u64)
where
    K: std::borrow::Borrow<Q> + Eq + std::hash::Hash,
    Q: Eq + std::hash::Hash + ?Sized,
{
    if map.get(key) == Some(&id) {
        map.remove(key);
    }
}

/// Types of RTCP packets, where RTP has the marker and a payload type (RFC 5761, §4).
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;

/// What the first byte says (RFC 7983, §7), and the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Stun,
    Dtls,
    Srtp,
    Srtcp,
}

impl Kind {
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? {
            0..=3 => Some(Self::Stun),
            20..=63 => Some(Self::Dtls),
            128..=191 if bytes.get(1).is_some_and(|kind| RTCP_TYPES.contains(kind)) => Some(Self::Srtcp),
            128..=191 => Some(Self::Srtp),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
