use super::*;
use crate::rtcp::testing::{arrived, transport_cc};
use crate::rtcp::{Report, Reports};

const LIMITS: Limits = Limits { initial: 2e6, min: 100e3, max: 10e6 };

fn batch(first: u64, packets: usize, bytes: &[u8]) -> Batch<'_> {
    Batch { bytes, segment: bytes.len() / packets, packets, transport_sequence: Some(first) }
}

const LOST: Status = Status::Lost;
const ARRIVED: Status = Status::Arrived(None);

fn feed(estimator: &mut Estimator, base: u16, statuses: &[Status], now: Instant) -> Duration {
    let packet = transport_cc(base, statuses);
    match Reports::new(&packet).next() {
        Some(Report::TransportCc(feedback)) => estimator.feedback(&feedback, now),
        other => panic!("{other:?}"),
    }
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
    feed(&mut estimator, 0, &[ARRIVED], now);
    let told = estimator.estimate(now).bits_per_second;
    for _ in 0..30 {
        now += Duration::from_secs(1);
        estimator.reception(lost(0.0, None), now);
    }
    assert_eq!(estimator.estimate(now).bits_per_second, told);
}

#[test]
fn feedback_of_what_was_never_sent_changes_nothing() {
    let now = Instant::now();
    let mut estimator = Estimator::new(LIMITS, now);
    feed(&mut estimator, 0, &[arrived(64)], now);
    estimator.sent(&batch(0, 10, &[0; 12_000]), now);
    feed(&mut estimator, 500, &[arrived(64); 50], now);
    feed(&mut estimator, 10, &[arrived(64); 2_048], now);
    feed(&mut estimator, 0, &[], now);
    assert_eq!(estimator.feedback_at, None);
    let estimate = estimator.estimate(now);
    assert_eq!((estimate.bits_per_second, estimate.rtt), (2e6, None));
}

#[test]
fn feedback_is_counted_once_and_tells_the_round_trip_and_how_late_packets_are() {
    let now = Instant::now();
    let later = now + Duration::from_millis(33);
    let mut estimator = Estimator::new(LIMITS, now);
    estimator.sent(&batch(65_533, 4, &[0; 4 * 1200]), now);
    estimator.sent(&batch(65_537, 2, &[0; 2 * 1200]), later);
    let statuses = [arrived(1_000), LOST, arrived(1_010), LOST];
    let late = feed(&mut estimator, 65_533, &statuses, now + Duration::from_millis(60));
    assert_eq!(late.as_millis(), 10);
    let counted = |estimator: &Estimator| estimator.told.as_ref().map(|told| (told.lost, told.packets));
    assert_eq!(counted(&estimator), Some((1, 3)), "the last may be on its way");
    assert_eq!(estimator.estimate(now).rtt, Some(Duration::from_millis(60)));
    feed(&mut estimator, 65_533, &statuses, now + Duration::from_millis(90));
    assert_eq!(counted(&estimator), Some((1, 3)), "the same again is no news");
    // Over the wrap of the number, and of another batch.
    let statuses = [arrived(1_001), arrived(1_053), arrived(1_033)];
    let late = feed(&mut estimator, 0, &statuses, later + Duration::from_millis(70));
    assert_eq!((late.as_millis(), counted(&estimator)), (20, Some((1, 6))));
    assert_eq!(estimator.estimate(now).rtt, Some(Duration::from_millis(70)));
}

/// As on a TCP connection over a line that is too narrow. To take no notice would mean to send as much for ever.
#[test]
fn a_path_on_which_packets_take_seconds_is_heard_of() {
    let start = Instant::now();
    let mut estimator = Estimator::new(LIMITS, start);
    // In turns of 50 ms: when packets arrive, by when they were sent.
    let arrives = |sent: u64| if sent < 20 { sent } else { sent + 80 };
    let mut told = 0;
    for turn in 0..300 {
        let now = start + Duration::from_millis(50) * turn as u32;
        estimator.sent(&batch(turn * 10, 10, &[0; 10 * 1_200]), now);
        while arrives(told) <= turn {
            feed(&mut estimator, (told * 10) as u16, &[arrived(1_000 + 50 * arrives(told)); 10], now);
            told += 1;
        }
    }
    let estimate = estimator.estimate(start + Duration::from_secs(15)).bits_per_second;
    assert!(estimate < 1.92e6, "{estimate}");
}

#[test]
fn feedback_allocates_nothing() {
    let mut now = Instant::now();
    let mut estimator = Estimator::new(LIMITS, now);
    let packets: Vec<_> = (0..400_u64)
        .map(|turn| transport_cc((turn * 16) as u16, &[arrived(1_000 + turn * 50); 16]))
        .collect();
    let mut run = |turns: std::ops::Range<u64>| {
        for turn in turns {
            estimator.sent(&batch(turn * 16, 16, &[0; 16 * 1200]), now);
            now += Duration::from_millis(50);
            for report in Reports::new(&packets[turn as usize]) {
                let Report::TransportCc(feedback) = report else { panic!("{report:?}") };
                estimator.feedback(&feedback, now);
            }
        }
    };
    // Until what is kept has its size.
    run(0..100);
    assert_eq!(allocation_counter::measure(|| run(100..400)).count_total, 0);
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
            let statuses: Vec<_> =
                (0..5).map(|packet| if packet < 4 && random.f64() < 0.1 { LOST } else { ARRIVED }).collect();
            feed(&mut estimator, (turn * 5) as u16, &statuses, now);
        }
        let estimate = estimator.estimate(now).bits_per_second;
        assert!(estimate > 1e6, "{estimate} after a minute of 8 % loss");
    }
}

/// What changes on a screen once a second takes the path half of it, each piece arriving later than the one before. Congestion
/// control by delay takes that for a path that is overrun; but all of it was carried, and no queue stands.
#[test]
fn what_was_carried_is_carried_however_long_it_took() {
    let start = Instant::now();
    let (mut estimator, mut number, mut bytes) = (Estimator::new(LIMITS, start), 0_u64, 0);
    let mut least = f64::INFINITY;
    for millis in (0..30_000).step_by(10) {
        let (packets, late) = match millis % 1_000 {
            in_second @ 0..100 => (16, in_second * 5),
            100..900 => continue,
            _ => (2, 0),
        };
        let sent = start + Duration::from_millis(millis);
        let told = sent + Duration::from_millis(late + 20);
        estimator.sent(&batch(number, packets, &vec![0; packets * 1_200]), sent);
        feed(&mut estimator, number as u16, &vec![arrived(1_000 + millis + late); packets], told);
        number += packets as u64;
        bytes += packets * 1_200;
        if millis > 5_000 {
            least = least.min(estimator.estimate(told).bits_per_second);
        }
    }
    let carried = bytes as f64 * 8.0 / 30.0;
    assert!(least > carried, "{least} of {carried}");
}
