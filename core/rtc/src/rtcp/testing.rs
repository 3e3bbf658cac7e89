//! What a receiver would write.

use std::time::Duration;

use super::Status;

/// Feedback of packets from number `base` on, in which each has a chunk of its own.
pub(crate) fn transport_cc(base: u16, statuses: &[Status]) -> Vec<u8> {
    let arrivals = statuses.iter().filter_map(|status| match status {
        Status::Arrived(arrival) => *arrival,
        Status::Lost => None,
    });
    let reference = { arrivals }.next().unwrap_or_default().as_millis() / 64;
    let mut clock = i128::try_from(reference).unwrap() * 64_000;
    let (mut chunks, mut deltas) = (Vec::new(), Vec::new());
    for status in statuses {
        let symbol: u16 = match status {
            Status::Lost => 0,
            Status::Arrived(None) => 3,
            Status::Arrived(Some(arrival)) => {
                let delta = (i128::try_from(arrival.as_micros()).unwrap() - clock) / 250;
                clock += delta * 250;
                deltas.extend_from_slice(&i16::try_from(delta).unwrap().to_be_bytes());
                2
            }
        };
        chunks.extend_from_slice(&(symbol << 13 | 1).to_be_bytes());
    }
    let mut packet = vec![0x8F, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11];
    packet.extend_from_slice(&base.to_be_bytes());
    packet.extend_from_slice(&u16::try_from(statuses.len()).unwrap().to_be_bytes());
    packet.extend_from_slice(&(u32::try_from(reference).unwrap() << 8).to_be_bytes());
    packet.extend_from_slice(&chunks);
    packet.extend_from_slice(&deltas);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let words = u16::try_from(packet.len() / 4 - 1).unwrap();
    packet[2..4].copy_from_slice(&words.to_be_bytes());
    packet
}

pub(crate) fn arrived(millis: u64) -> Status {
    Status::Arrived(Some(Duration::from_millis(millis)))
}
