//! Ports that are free, and stay so between two servers of a scenario: the system gives others to who does not ask for one, such as the
//! connections of all browsers and clients.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what Linux gives (`ip_local_port_range`, ip(7)).
const KEPT: Range<u16> = 16_384..32_768;
/// Beyond what one file of scenarios takes.
const PER_PROCESS: u32 = 1_021;

/// No two are the same in one process.
///
/// # Panics
/// If all are in use.
#[must_use]
pub fn free() -> SocketAddr {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = process::id().wrapping_mul(PER_PROCESS);
    let is_free = |address: &SocketAddr| TcpListener::bind(address).is_ok();
    let addresses = KEPT.map(|_| {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = KEPT.start + (number % KEPT.len() as u32) as u16;
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    });
    { addresses }.find(is_free).expect("one of sixteen thousand ports is free")
}
