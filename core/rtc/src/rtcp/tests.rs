use rtc_interceptor::convert_twcc;
use rtc_rtcp::Packet;
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::packet;
use rtc_rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport as Theirs;
use rtc_rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc_rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};
use rtc_shared::marshal::Unmarshal;

use super::*;

/// What another implementation writes is read, packet for packet.
#[test]
fn each_report_of_a_datagram_is_read() {
    let block = Theirs {
        ssrc: 11,
        fraction_lost: 64,
        total_lost: 0x00FF_FFFF,
        last_sequence_number: 7,
        jitter: 8,
        last_sender_report: 0x0102_0304,
        delay: 65_536,
    };
    let other = Theirs { ssrc: 12, ..block.clone() };
    let pair = |packet_id, lost_packets| NackPair { packet_id, lost_packets };
    let packets: Vec<Box<dyn Packet>> = vec![
        Box::new(ReceiverReport { ssrc: 1, reports: vec![block, other], ..Default::default() }),
        Box::new(Goodbye { sources: vec![], reason: bytes::Bytes::new() }),
        Box::new(TransportLayerNack {
            sender_ssrc: 1,
            media_ssrc: 11,
            nacks: vec![pair(65_535, 0x8001), pair(40, 0)],
        }),
        Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: 11 }),
        Box::new(FullIntraRequest {
            sender_ssrc: 1,
            media_ssrc: 0,
            fir: vec![FirEntry { ssrc: 11, sequence_number: 3 }],
        }),
        Box::new(ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 1_500_000.0, ssrcs: vec![11] }),
    ];
    let datagram = packet::marshal(&packets).unwrap();
    let reports: Vec<_> = Reports::new(&datagram).collect();
    let [
        Report::Receptions(receptions),
        Report::Other,
        Report::Nack(nack),
        Report::KeyframeRequest,
        Report::KeyframeRequest,
        Report::Remb(bits_per_second),
    ] = reports[..]
    else {
        panic!("{reports:?}")
    };
    let expected =
        |ssrc| ReceptionReport { ssrc, fraction_lost: 64, last_sender_report: 0x0102_0304, delay: 65_536 };
    assert_eq!(receptions.iter().collect::<Vec<_>>(), [expected(11), expected(12)]);
    assert_eq!((nack.media_ssrc, nack.packets().collect::<Vec<_>>()), (11, vec![65_535, 0, 15, 40]));
    assert!((1.49e6..=1.5e6).contains(&bits_per_second), "{bits_per_second}");
}

#[test]
fn behind_what_is_malformed_nothing_is_read() {
    let loss: [Box<dyn Packet>; 1] = [Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: 11 })];
    let loss = packet::marshal(&loss).unwrap();
    // Another version, longer than the datagram, more padding and more blocks than there are.
    for (at, byte) in [(0, 0x41), (3, 9), (0, 0xA1), (1, 201)] {
        let mut wrong = loss.to_vec();
        wrong[at] = byte;
        wrong[11] = 60;
        let datagram = [&loss[..], &wrong, &loss].concat();
        let read = Reports::new(&datagram).map(|report| matches!(report, Report::KeyframeRequest));
        assert_eq!(read.collect::<Vec<_>>(), [true], "{at} {byte}");
    }
}

/// What `rtc-interceptor` makes of the same bytes.
#[test]
fn feedback_is_read_as_another_implementation_reads_it() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut compared = 0;
    for _ in 0..20_000 {
        // Chunks of all kinds, and deltas for as many as they may need.
        let mut fields = vec![0x8F, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11];
        let claimed = random.u16(1..200);
        fields.extend_from_slice(&random.u16(..).to_be_bytes());
        fields.extend_from_slice(&claimed.to_be_bytes());
        fields.extend_from_slice(&random.u32(..).to_be_bytes());
        let mut covered = 0;
        while covered < claimed {
            let (chunk, length) = match random.u8(..3) {
                0 => {
                    let length = random.u16(1..60);
                    (random.u16(..3) << 13 | length, length)
                }
                1 => (0x8000 | random.u16(..0x4000), 14),
                // Without the reserved symbol, of which everybody makes something else.
                _ => ((0..7).fold(3, |chunk, _| chunk << 2 | random.u16(..3)), 7),
            };
            fields.extend_from_slice(&chunk.to_be_bytes());
            covered += length;
        }
        let deltas = usize::from(covered) * 2;
        fields.extend((0..deltas).map(|_| random.u8(..)));
        fields.resize(fields.len().next_multiple_of(4), 0);
        let words = (fields.len() / 4 - 1) as u16;
        fields[2..4].copy_from_slice(&words.to_be_bytes());

        let Some(Report::TransportCc(ours)) = Reports::new(&fields).next() else { panic!("{fields:?}") };
        let theirs = TransportLayerCc::unmarshal(&mut &fields[..]).unwrap();
        let theirs = convert_twcc(&theirs);
        let known = theirs[..usize::from(claimed)].iter().rposition(|ack| ack.arrived);
        let theirs: Vec<_> = theirs.iter().take(known.map_or(0, |newest| newest + 1)).collect();
        assert_eq!(ours.packets(), theirs.len());
        let arrivals: Vec<_> = ours.statuses().collect();
        let expected = theirs.iter().map(|ack| match ack.arrived {
            true => Status::Arrived(ack.arrival),
            false => Status::Lost,
        });
        assert_eq!(arrivals, expected.collect::<Vec<_>>());
        assert!(theirs.first().is_none_or(|first| first.sequence_number == ours.base()));
        compared += theirs.len();
    }
    assert!(compared > 100_000, "{compared}");
}

#[test]
fn arrivals_without_a_time_and_without_a_delta_are_arrivals() {
    let told = [testing::arrived(64_100), Status::Lost, Status::Arrived(None), testing::arrived(64_050)];
    let mut packet = testing::transport_cc(65_535, &[&told[..], &[Status::Lost; 3]].concat());
    let feedback = |packet: &[u8]| match Reports::new(packet).next() {
        Some(Report::TransportCc(feedback)) => feedback.statuses().collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(feedback(&packet), told, "and behind the newest nothing is known");
    // Cut off in the last delta.
    packet.truncate(packet.len() - 4);
    packet[3] -= 1;
    let cut = feedback(&packet);
    assert_eq!(cut.len(), 4);
    assert_eq!(cut[3], Status::Arrived(None));
}

/// Two bytes claim 8191 packets, and a datagram has room for hundreds of feedbacks.
#[test]
fn feedback_of_more_packets_than_there_can_be_is_not_read() {
    let of = |packets: u16| {
        let mut packet = testing::transport_cc(0, &[testing::arrived(64)]);
        packet[14..16].copy_from_slice(&packets.to_be_bytes());
        packet[20..22].copy_from_slice(&0x1FFF_u16.to_be_bytes());
        packet
    };
    assert!(Reports::new(&of(2_048)).next().is_some());
    assert!(Reports::new(&of(2_049)).next().is_none());
}

/// A peer that has the keys, and sends anything at all.
#[test]
fn garbage_harms_nobody() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..200_000 {
        let mut plain: Vec<u8> = (0..4 * random.usize(1..40)).map(|_| random.u8(..)).collect();
        // Mostly a header that is one: version 2, a type and format there are, a length that is or nearly is.
        if random.u8(..8) > 0 {
            let words = (plain.len() / 4 - 1) as u8;
            let kind = random.u8(200..208);
            plain[..4].copy_from_slice(&[0x80 | random.u8(..32) | random.u8(..2) << 5, kind, 0, words]);
            if random.u8(..4) == 0 {
                plain[3] = random.u8(..=words);
            }
        }
        crate::fuzzing::rtcp(&plain);
    }
}
