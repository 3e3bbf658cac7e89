//! The floor under every fan-out: for each viewer header, copy and seal of the same packets at the same times, one send each
//! frame, and nothing else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use rtc::packetize::SEGMENTS_MAX;

use super::viewer::Watched;
use crate::measure::{sleep_until, thread_cpu_time};

/// Fixed header and the extensions transport-cc, abs-send-time and playout-delay, with their padding.
const HEADER_BYTES: usize = 28;
const TAG_BYTES: usize = 16;

/// Packets of one frame.
pub(super) struct Group {
    /// Since the first of them.
    at: Duration,
    /// As they were sealed.
    bytes: Vec<usize>,
}

/// Cuts what a viewer has seen into frames.
pub(super) fn groups(watched: &[Watched]) -> Vec<Group> {
    let Some(first) = watched.first() else { return Vec::new() };
    let mut groups = Vec::new();
    let mut open = Vec::new();
    for packet in watched {
        open.push(packet.bytes);
        if packet.marker {
            groups.push(Group { at: packet.at - first.at, bytes: std::mem::take(&mut open) });
        }
    }
    groups
}

pub(super) struct Sent {
    pub(super) packets: u64,
    pub(super) cpu: Duration,
    /// How much later than it should the last frame had been sent.
    pub(super) late: Duration,
}

/// Sends `groups` to all of `viewers`, in real time.
pub(super) fn send(groups: &[Group], viewers: &[SocketAddr]) -> Result<Sent> {
    let thread = thread::scope(|scope| scope.spawn(|| Floor::new(viewers)?.run(groups)).join());
    thread.map_err(|_| anyhow!("the floor panicked"))?
}

struct Floor {
    socket: UdpSocket,
    state: UdpSocketState,
    viewers: Vec<(SocketAddr, LessSafeKey)>,
    payload: Vec<u8>,
    scratch: Vec<u8>,
    count: u64,
}

impl Floor {
    fn new(viewers: &[SocketAddr]) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let viewers = viewers.iter().zip(0_u64..).map(|(viewer, number)| {
            let mut key = [7; 16];
            key[..8].copy_from_slice(&number.to_be_bytes());
            let key = UnboundKey::new(&AES_128_GCM, &key).map_err(|_| anyhow!("no AES-128-GCM"))?;
            Ok((*viewer, LessSafeKey::new(key)))
        });
        let viewers = viewers.collect::<Result<_>>()?;
        Ok(Self { socket, state, viewers, payload: vec![0x5A; 2_048], scratch: Vec::new(), count: 0 })
    }

    fn run(mut self, groups: &[Group]) -> Result<Sent> {
        let (start, before) = (Instant::now(), thread_cpu_time());
        let mut late = Duration::ZERO;
        for group in groups {
            sleep_until(start + group.at);
            let batches = batches(&group.bytes);
            for number in 0..self.viewers.len() {
                for batch in &batches {
                    self.seal_and_send(number, &group.bytes[batch.clone()])?;
                }
            }
            late = start.elapsed().saturating_sub(group.at);
        }
        Ok(Sent { packets: self.count, cpu: thread_cpu_time() - before, late })
    }

    fn seal_and_send(&mut self, viewer: usize, sizes: &[usize]) -> Result<()> {
        let (destination, key) = &self.viewers[viewer];
        self.scratch.clear();
        for size in sizes {
            self.count += 1;
            let start = self.scratch.len();
            let mut header = [0x90; HEADER_BYTES];
            header[2..10].copy_from_slice(&self.count.to_be_bytes());
            let payload = size.saturating_sub(HEADER_BYTES + TAG_BYTES);
            self.scratch.extend_from_slice(&header);
            self.scratch.extend_from_slice(&self.payload[..payload]);
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.count.to_be_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let sealed = &mut self.scratch[start + HEADER_BYTES..];
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&header), sealed);
            self.scratch
                .extend_from_slice(tag.map_err(|_| anyhow!("a packet that GCM does not take"))?.as_ref());
        }
        let transmit = Transmit {
            destination: *destination,
            ecn: None,
            contents: &self.scratch,
            segment_size: sizes.first().copied(),
            src_ip: None,
        };
        Ok(self.state.try_send(UdpSockRef::from(&self.socket), &transmit)?)
    }
}

/// What one send takes: packets of one size, and at most one shorter behind them.
fn batches(sizes: &[usize]) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        match batches.last_mut() {
            Some(batch)
                if batch.len() < SEGMENTS_MAX
                    && sizes[batch.end - 1] == sizes[batch.start]
                    && *size <= sizes[batch.start] =>
            {
                batch.end += 1;
            }
            _ => batches.push(at..at + 1),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_what_gso_takes() {
        assert_eq!(batches(&[9, 9, 5]), [0..3]);
        assert_eq!(batches(&[9, 5, 5, 9]), [0..2, 2..3, 3..4]);
        assert_eq!(batches(&[]), Vec::<Range<usize>>::new());
        assert_eq!(batches(&vec![9; SEGMENTS_MAX + 1]), [0..SEGMENTS_MAX, SEGMENTS_MAX..SEGMENTS_MAX + 1]);
    }
}
