//! Feedback of single packets (draft-holmer-rmcat-transport-wide-cc-extensions-01, §3.1).

use std::time::Duration;

/// Unit of the reference time.
const REFERENCE: Duration = Duration::from_millis(64);
/// Unit of a delta.
const DELTA_US: i64 = 250;

/// Most packets one feedback may tell of. Two bytes can claim 8191, so one datagram could keep us busy with millions;
/// browsers send four feedbacks a second or more, and this is four times 100 Mbit/s.
const PACKETS_MAX: usize = 2 * 1024;

/// What became of packets with numbers that follow each other.
#[derive(Debug, Clone, Copy)]
pub struct TransportCc<'a> {
    /// Number of the first, low 16 bits.
    base: u16,
    /// Up to the newest that arrived. Behind it nothing is known yet: it may be on its way.
    packets: u16,
    reference: Duration,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportCc<'a> {
    /// `fields` are behind the two SSRCs. `None` if there are fewer chunks than they promise, or if they promise too much.
    pub(super) fn parse(fields: &'a [u8]) -> Option<Self> {
        let (&[base_high, base_low, high, low, a, b, c, _], rest) = fields.split_first_chunk()?;
        let claimed = usize::from(u16::from_be_bytes([high, low]));
        if claimed > PACKETS_MAX {
            return None;
        }
        let (chunks, _) = rest.as_chunks::<2>();
        let (mut covered, mut packets, mut used) = (0, 0, 0);
        let mut chunks = chunks.iter();
        while covered < claimed {
            let chunk = Chunk::parse(*chunks.next()?);
            used += 2;
            // The last one may have room for more than there are.
            let there = chunk.len().min(claimed - covered);
            if let Some(last) = (0..there).rev().find(|at| chunk.symbol(*at) != Symbol::Lost) {
                packets = covered + last + 1;
            }
            covered += there;
        }
        let (chunks, deltas) = rest.split_at(used);
        Some(Self {
            base: u16::from_be_bytes([base_high, base_low]),
            packets: packets as u16,
            reference: REFERENCE * u32::from_be_bytes([0, a, b, c]),
            chunks,
            deltas,
        })
    }

    /// Low 16 bits of the number of the first.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// How many it tells of, from the first to the newest that arrived.
    pub fn packets(&self) -> usize {
        self.packets.into()
    }

    /// One for each, in the order of their numbers.
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            left: self.packets,
            chunks: self.chunks,
            chunk: Chunk::Run(Symbol::Lost, 0),
            at: 0,
            deltas: self.deltas,
            clock: self.reference,
        }
    }
}

/// Of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Lost,
    /// When, by the receiver's clock; that is not always told.
    Arrived(Option<Duration>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    Lost,
    Small,
    Large,
    WithoutDelta,
}

impl Symbol {
    fn of(bits: u16) -> Self {
        match bits & 3 {
            0 => Self::Lost,
            1 => Self::Small,
            2 => Self::Large,
            _ => Self::WithoutDelta,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Chunk {
    Run(Symbol, usize),
    /// 14 of one bit.
    Bits(u16),
    /// Seven of two bits.
    Pairs(u16),
}

impl Chunk {
    fn parse(bytes: [u8; 2]) -> Self {
        let bits = u16::from_be_bytes(bytes);
        match bits >> 14 {
            0 | 1 => Self::Run(Symbol::of(bits >> 13), usize::from(bits & 0x1FFF)),
            2 => Self::Bits(bits & 0x3FFF),
            _ => Self::Pairs(bits & 0x3FFF),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Run(_, length) => length,
            Self::Bits(_) => 14,
            Self::Pairs(_) => 7,
        }
    }

    /// `at` is less than its length.
    fn symbol(self, at: usize) -> Symbol {
        match self {
            Self::Run(symbol, _) => symbol,
            Self::Bits(bits) => Symbol::of(bits >> (13 - at) & 1),
            Self::Pairs(bits) => Symbol::of(bits >> (12 - 2 * at)),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Statuses<'a> {
    left: u16,
    chunks: &'a [u8],
    chunk: Chunk,
    /// In the chunk.
    at: usize,
    deltas: &'a [u8],
    /// When the packet before arrived.
    clock: Duration,
}

impl Statuses<'_> {
    /// Each is relative to the one before. A packet may have overtaken others, so it may be negative.
    fn arrival(&mut self, delta: Option<i64>) -> Status {
        Status::Arrived(delta.map(|delta| {
            let micros = Duration::from_micros((delta * DELTA_US).unsigned_abs());
            self.clock =
                if delta < 0 { self.clock.saturating_sub(micros) } else { self.clock.saturating_add(micros) };
            self.clock
        }))
    }

    fn delta<const BYTES: usize>(&mut self) -> Option<[u8; BYTES]> {
        let (delta, rest) = self.deltas.split_first_chunk()?;
        self.deltas = rest;
        Some(*delta)
    }
}

impl Iterator for Statuses<'_> {
    type Item = Status;

    fn next(&mut self) -> Option<Status> {
        self.left = self.left.checked_sub(1)?;
        // Some hold nothing.
        while self.at >= self.chunk.len() {
            let (chunk, rest) = self.chunks.split_first_chunk()?;
            (self.chunk, self.chunks, self.at) = (Chunk::parse(*chunk), rest, 0);
        }
        let symbol = self.chunk.symbol(self.at);
        self.at += 1;
        Some(match symbol {
            Symbol::Lost => Status::Lost,
            Symbol::Small => {
                let delta = self.delta::<1>().map(|[delta]| i64::from(delta));
                self.arrival(delta)
            }
            Symbol::Large => {
                let delta = self.delta().map(|delta| i64::from(i16::from_be_bytes(delta)));
                self.arrival(delta)
            }
            Symbol::WithoutDelta => Status::Arrived(None),
        })
    }
}
