//! What a browser tells of the packets it has (draft-holmer-rmcat-transport-wide-cc-extensions-01, §3.1).

use std::time::{Duration, Instant};

use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, SymbolTypeTcc, TransportLayerCc,
};

/// Unit of the reference time.
const REFERENCE_MS: u128 = 64;
/// Unit of a delta, in microseconds.
const DELTA_US: i64 = 250;

/// Packets that have come since the last feedback.
pub(super) struct Arrivals {
    epoch: Instant,
    /// Transport-wide number of the first packet that feedback has not told of; `None` before the first packet.
    next: Option<u64>,
    /// Rising, except for what was overtaken.
    came: Vec<(u64, Instant)>,
    count: u8,
}

impl Arrivals {
    pub(super) fn new(now: Instant) -> Self {
        Self { epoch: now, next: None, came: Vec::new(), count: 0 }
    }

    /// The number of the packet whose low 16 bits are `sequence`.
    pub(super) fn push(&mut self, sequence: u16, now: Instant) -> u64 {
        // Room below the first for what it has overtaken.
        let newest = self.came.last().map(|(number, _)| *number).or(self.next);
        let newest = newest.unwrap_or(u64::from(sequence) | 1 << 16);
        let number = newest.wrapping_add_signed(i64::from(sequence.wrapping_sub(newest as u16) as i16));
        self.next.get_or_insert(number);
        self.came.push((number, now));
        number
    }

    pub(super) fn feedback(&mut self, sender_ssrc: u32, media_ssrc: u32) -> Option<TransportLayerCc> {
        let base = self.next?;
        self.came.sort_unstable();
        self.came.retain(|(number, _)| *number >= base);
        let (&(_, first), &(last, _)) = (self.came.first()?, self.came.last()?);
        let reference = first.saturating_duration_since(self.epoch).as_millis() / REFERENCE_MS;
        let mut before = self.epoch + Duration::from_millis((reference * REFERENCE_MS) as u64);
        let (mut chunks, mut recv_deltas): (Vec<RunLengthChunk>, _) = (Vec::new(), Vec::new());
        let mut came = self.came.drain(..).peekable();
        for number in base..=last {
            let symbol = match came.next_if(|(came, _)| *came == number) {
                None => SymbolTypeTcc::PacketNotReceived,
                Some((_, at)) => {
                    let units = at.saturating_duration_since(before).as_micros() as i64 / DELTA_US;
                    before += Duration::from_micros((units * DELTA_US) as u64);
                    let symbol = match u8::try_from(units) {
                        Ok(_) => SymbolTypeTcc::PacketReceivedSmallDelta,
                        Err(_) => SymbolTypeTcc::PacketReceivedLargeDelta,
                    };
                    recv_deltas.push(RecvDelta { type_tcc_packet: symbol, delta: units * DELTA_US });
                    symbol
                }
            };
            match chunks.last_mut() {
                Some(chunk) if chunk.packet_status_symbol == symbol => chunk.run_length += 1,
                _ => chunks.push(RunLengthChunk {
                    type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                    packet_status_symbol: symbol,
                    run_length: 1,
                }),
            }
            // The same packet twice.
            while came.next_if(|(came, _)| *came == number).is_some() {}
        }
        drop(came);
        self.next = Some(last + 1);
        self.count = self.count.wrapping_add(1);
        Some(TransportLayerCc {
            sender_ssrc,
            media_ssrc,
            base_sequence_number: base as u16,
            packet_status_count: (last - base + 1) as u16,
            reference_time: reference as u32,
            fb_pkt_count: self.count,
            packet_chunks: chunks.into_iter().map(PacketStatusChunk::RunLengthChunk).collect(),
            recv_deltas,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_came_when_and_what_did_not() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut arrivals = Arrivals::new(start);
        assert!(arrivals.feedback(1, 2).is_none());
        for (sequence, milliseconds) in [(65_534, 130), (65_535, 131), (2, 140), (1, 141)] {
            arrivals.push(sequence, at(milliseconds));
        }
        let told = arrivals.feedback(1, 2).unwrap();
        assert_eq!(
            (told.base_sequence_number, told.packet_status_count, told.reference_time),
            (65_534, 5, 2)
        );
        let runs: Vec<_> = told
            .packet_chunks
            .iter()
            .map(|chunk| match chunk {
                PacketStatusChunk::RunLengthChunk(run) => (run.packet_status_symbol as u16, run.run_length),
                PacketStatusChunk::StatusVectorChunk(_) => panic!("{chunk:?}"),
            })
            .collect();
        assert_eq!(runs, [(1, 2), (0, 1), (1, 2)]);
        assert_eq!(
            told.recv_deltas.iter().map(|delta| delta.delta).collect::<Vec<_>>(),
            [2_000, 1_000, 10_000, 0]
        );
        arrivals.push(5, at(300));
        let told = arrivals.feedback(1, 2).unwrap();
        assert_eq!((told.base_sequence_number, told.packet_status_count, told.fb_pkt_count), (3, 3, 2));
    }
}
