//! What is sent again (RFC 4588): which packets, how often, how much.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::packetize::{Frame, PAYLOAD_BYTES_MAX};

/// The original sequence number before the payload (RFC 4588, §4).
pub(super) const OSN_BYTES: usize = 2;

/// Share of the media's bytes that may be sent again. More would feed a congested path with its own losses.
const SHARE_PERCENT: usize = 15;
/// What may be saved up, in bytes, and what a viewer starts with: a keyframe of 50 packets lost whole.
const ALLOWANCE_BYTES_MAX: usize = 64 * 1024;
/// Most packets waiting to be sent again; further ones are asked for again by the viewer.
const QUEUE_PACKETS_MAX: usize = 128;
/// Most packets whose last time is remembered; the oldest numbers go first.
const REMEMBERED_PACKETS_MAX: usize = 256;
/// Between two times of one packet, where the round trip is not known or tiny.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// A payload to be sent again.
#[derive(Debug)]
pub(super) struct Resend {
    /// Of the packet, on its line.
    pub(super) index: u64,
    pub(super) frame: Arc<Frame>,
    pub(super) at: usize,
    /// Sequence number under which the viewer misses it.
    pub(super) original: u16,
}

impl Resend {
    /// Of original sequence number and payload.
    pub(super) fn bytes(&self) -> usize {
        OSN_BYTES + self.payload().len()
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.frame.payload(self.at).unwrap_or_default()
    }
}

#[derive(Debug)]
pub(super) struct Resends {
    queue: VecDeque<Resend>,
    /// When a packet, by its index, was last sent again; `None` while it waits for that.
    last: BTreeMap<u64, Option<Instant>>,
    allowance_bytes: usize,
}

impl Resends {
    pub(super) fn new() -> Self {
        Self { queue: VecDeque::new(), last: BTreeMap::new(), allowance_bytes: ALLOWANCE_BYTES_MAX }
    }

    /// Media was sent for the first time.
    pub(super) fn sent(&mut self, bytes: usize) {
        let earned = bytes * SHARE_PERCENT / 100;
        self.allowance_bytes = (self.allowance_bytes + earned).min(ALLOWANCE_BYTES_MAX);
    }

    /// Whether any packet could be taken now.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_PACKETS_MAX && self.allowance_bytes >= OSN_BYTES + PAYLOAD_BYTES_MAX
    }

    /// Whether the packet at `index` may be sent again at all: an answer to an earlier request may wait here, or be on its way.
    pub(super) fn is_due(&self, index: u64, rtt: Option<Duration>, now: Instant) -> bool {
        let interval = rtt.unwrap_or(INTERVAL_MIN).max(INTERVAL_MIN);
        self.last
            .get(&index)
            .is_none_or(|last| last.is_some_and(|last| now.saturating_duration_since(last) >= interval))
    }

    /// `false` if the allowance or the queue has no room for it.
    pub(super) fn push(&mut self, resend: Resend) -> bool {
        let bytes = resend.bytes();
        if !self.has_room() || bytes > self.allowance_bytes {
            return false;
        }
        self.allowance_bytes -= bytes;
        self.last.insert(resend.index, None);
        if self.last.len() > REMEMBERED_PACKETS_MAX {
            self.last.pop_first();
        }
        self.queue.push_back(resend);
        true
    }

    pub(super) fn clear(&mut self) {
        for resend in self.queue.drain(..) {
            self.last.remove(&resend.index);
        }
    }

    pub(super) fn front(&self) -> Option<&Resend> {
        self.queue.front()
    }

    /// It is sent now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Resend> {
        let resend = self.queue.pop_front()?;
        if let Some(last) = self.last.get_mut(&resend.index) {
            *last = Some(now);
        }
        Some(resend)
    }
}
