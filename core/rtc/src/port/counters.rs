//! What happened at the port, for whoever exposes it. Every count only grows.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of datagrams, and of TCP frames where ICE-TCP is used.
#[derive(Debug, Default)]
pub struct Counters {
    pub received: Count,
    /// Neither STUN, DTLS nor (S)RTP by its first byte (RFC 7983), or longer than any of them may be.
    pub dropped_malformed: Count,
    /// STUN that names a ufrag nobody leases: a session that is over, or a stranger.
    pub dropped_unknown_ufrag: Count,
    /// Not STUN, from an address nobody has proven to be theirs.
    pub dropped_unknown_address: Count,
    /// The peer's inbox was full: its owner is too slow, or the peer sends too much.
    pub dropped_inbox_full: Count,
    pub sent: Count,
    pub sent_bytes: Count,
    /// System calls that `sent` took over UDP: fewer, with GSO.
    pub sends: Count,
    /// Given up because the socket's buffer (or a connection's queue) was full, or the system refused them.
    pub send_dropped: Count,
    /// Sends whose segmentation the system refused; they went out one by one.
    pub gso_refused: Count,
    pub tcp_accepted: Count,
    /// Connections closed because there were too many, or because they did not begin with STUN we know in time.
    pub tcp_refused: Count,
}

/// A count that any thread may raise.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
}
