use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RunLengthChunk, StatusVectorChunk, SymbolSizeTypeTcc, SymbolTypeTcc,
};

use super::*;

const LIMITS: Limits = Limits { initial: 2e6, min: 100e3, max: 10e6 };

fn batch(first: u64, packets: usize, bytes: &[u8]) -> Batch<'_> {
    Batch { bytes, segment: bytes.len() / packets, packets, transport_sequence: Some(first) }
}

fn lost(fraction_lost: f64, rtt_ms: Option<u64>) -> Reception {
    Reception { fraction_lost, rtt: rtt_ms.map(Duration::from_millis) }
}

#[test]
fn the_viewers_own_estimate_is_a_ceiling_while_it_holds() {
    let now = Instant::now();
    let mut estimator = Estimator::new(LIMITS, now);
    let estimate = estimator.estimate(now);
    assert_eq!((estimate.bits_per_second, estimate.rtt), (2e6, None));
    estimator.remb(700e3, now);
    assert_eq!(estimator.estimate(now).bits_per_second, 700e3);
    assert_eq!(estimator.estimate(now + Duration::from_secs(6)).bits_per_second, 2e6);
    estimator.remb(9e6, now);
    assert_eq!(estimator.estimate(now).bits_per_second, 2e6, "it never raises ours");
    estimator.remb(f64::NAN, now);
    assert_eq!(estimator.estimate(now).bits_per_second, 2e6);
}

#[test]
fn without_feedback_the_loss_decides() {
    let mut now = Instant::now();
    let mut estimator = Estimator::new(LIMITS, now);
    for _ in 0..10 {
        now += Duration::from_secs(1);
        estimator.reception(lost(0.3, Some(80)), now);
    }
    let estimate = estimator.estimate(now);
    assert!(estimate.bits_per_second < 600e3, "{estimate:?}");
    assert_eq!(estimate.rtt, Some(Duration::from_millis(80)));
    for _ in 0..60 {
        now += Duration::from_secs(1);
        estimator.reception(lost(0.0, None), now);
    }
    assert!(estimator.estimate(now).bits_per_second > 2e6);
}

/// Reports without loss must not talk the estimate up when the feedback that knows better has stopped.
#[test]
fn a_viewer_that_falls_silent_gets_no_more_than_before() {
    let mut now = Instant::now();
    let mut estimator = Estimator::new(LIMITS, now);
    estimator.sent(&batch(0, 1, &[0; 1200]), now);
    let run = RunLengthChunk {
        run_length: 1,
        packet_status_symbol: SymbolTypeTcc::PacketReceivedWithoutDelta,
        ..Default::default()
    };
    let feedback = TransportLayerCc {
        packet_status_count: 1,
        packet_chunks: vec![PacketStatusChunk::RunLengthChunk(run)],
        ..Default::default()
    };
    estimator.feedback(&feedback, now);
    let told = estimator.estimate(now).bits_per_second;
    for _ in 0..30 {
        now += Duration::from_secs(1);
        estimator.reception(lost(0.0, None), now);
    }
    assert_eq!(estimator.estimate(now).bits_per_second, told);
}

#[test]
fn hostile_feedback_is_cheap_and_changes_nothing() {
    let now = Instant::now();
    let mut estimator = Estimator::new(LIMITS, now);
    estimator.sent(&batch(0, 10, &[0; 12_000]), now);
    let run = |length, symbol| {
        let run = RunLengthChunk { run_length: length, packet_status_symbol: symbol, ..Default::default() };
        PacketStatusChunk::RunLengthChunk(run)
    };
    let many = TransportLayerCc {
        packet_status_count: 10,
        packet_chunks: vec![run(8191, SymbolTypeTcc::PacketReceivedWithoutDelta); 300],
        ..Default::default()
    };
    estimator.feedback(&many, now);
    // Packets that were never sent, and none at all.
    let unknown = TransportLayerCc {
        base_sequence_number: 500,
        packet_status_count: 50,
        packet_chunks: vec![run(50, SymbolTypeTcc::PacketReceivedSmallDelta)],
        ..Default::default()
    };
    estimator.feedback(&unknown, now);
    estimator.feedback(&TransportLayerCc::default(), now);
    assert_eq!(estimator.feedback_at, None);
    let estimate = estimator.estimate(now);
    assert_eq!((estimate.bits_per_second, estimate.rtt), (2e6, None));
}

/// The unused end of a status vector says "not received" of packets that were not even sent then.
#[test]
fn what_the_last_chunk_has_room_for_is_not_lost() {
    let now = Instant::now();
    let mut estimator = Estimator::new(LIMITS, now);
    estimator.sent(&batch(0, 14, &[0; 14 * 1200]), now);
    let mut symbols = vec![SymbolTypeTcc::PacketNotReceived; 14];
    symbols[0] = SymbolTypeTcc::PacketReceivedWithoutDelta;
    symbols[2] = SymbolTypeTcc::PacketReceivedWithoutDelta;
    let vector = StatusVectorChunk {
        symbol_size: SymbolSizeTypeTcc::OneBit,
        symbol_list: symbols.clone(),
        ..Default::default()
    };
    let feedback = TransportLayerCc {
        packet_status_count: 4,
        packet_chunks: vec![PacketStatusChunk::StatusVectorChunk(vector)],
        ..Default::default()
    };
    let reports = estimator.reports(&feedback, now + Duration::from_millis(60));
    let told: Vec<(u64, bool)> = reports.iter().map(|report| (report.id, report.arrived)).collect();
    assert_eq!(told, [(0, true), (1, false), (2, true)]);
    assert_eq!(estimator.next_number, 3);
    assert_eq!(estimator.estimate(now).rtt, Some(Duration::from_millis(60)));
    let again = estimator.reports(&feedback, now + Duration::from_millis(90));
    assert!(again.is_empty(), "the same again is no news");
}

/// A share of losses that is repaired says nothing of how much the path carries, whatever small feedbacks say of it one by one.
#[test]
fn losses_by_chance_do_not_wear_the_estimate_down() {
    for seed in 1..5 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Instant::now();
        let mut estimator = Estimator::new(LIMITS, now);
        for turn in 0..1_200_u64 {
            estimator.sent(&batch(turn * 5, 5, &[0; 5 * 1200]), now);
            now += Duration::from_millis(50);
            // The last one arrives always, so that the others are known to be lost.
            let chunks = (0..5).map(|packet| {
                let symbol = if packet < 4 && random.f64() < 0.1 {
                    SymbolTypeTcc::PacketNotReceived
                } else {
                    SymbolTypeTcc::PacketReceivedWithoutDelta
                };
                let run =
                    RunLengthChunk { run_length: 1, packet_status_symbol: symbol, ..Default::default() };
                PacketStatusChunk::RunLengthChunk(run)
            });
            let feedback = TransportLayerCc {
                base_sequence_number: (turn * 5) as u16,
                packet_status_count: 5,
                packet_chunks: chunks.collect(),
                ..Default::default()
            };
            estimator.feedback(&feedback, now);
        }
        let estimate = estimator.estimate(now).bits_per_second;
        assert!(estimate > 1e6, "{estimate} after a minute of 8 % loss");
    }
}
