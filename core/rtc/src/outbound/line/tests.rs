use rtc_rtcp::sender_report::SenderReport;
use rtc_rtp::packet::Packet as RtpPacket;
use rtc_shared::marshal::Unmarshal;
use rtc_srtp::context::Context;
use rtc_srtp::crypto::default_provider;
use rtc_srtp::protection_profile::ProtectionProfile;

use media::AccessUnit;

use super::testing::Video;
use super::*;
use crate::packetize::{PAYLOAD_BYTES_MAX, VpxPacketizer};
use crate::srtp::{Keys, Profile, Role};

const SSRC: u32 = 0xAABB_CCDD;
const RTX: Option<u32> = Some(0x1122_3344);
const OFFSET: u32 = u32::MAX - 4_000;

/// A line, the thread it is polled on, and the browser at the other end.
struct Viewer {
    line: Line,
    transport: Transport,
    scratch: Vec<u8>,
    peer: Context,
    now: Instant,
}

impl Viewer {
    fn new(rtx_ssrc: Option<u32>) -> Self {
        let keys = Keys::from_exported(Profile::Aes128Gcm, Role::Server, &[7; 56]).unwrap();
        let (profile, provider) = (ProtectionProfile::AeadAes128Gcm, default_provider().unwrap());
        let salt = keys.local.salt(keys.profile);
        let peer = Context::new(&keys.local.key, salt, profile, None, None, provider.crypto()).unwrap();
        let settings = LineSettings {
            ssrc: SSRC,
            payload_types: vec![
                (Format::H264, PayloadTypes { media: 102, rtx: Some(103) }),
                (Format::Vp8, PayloadTypes { media: 96, rtx: Some(97) }),
                (Format::Vp9, PayloadTypes { media: 98, rtx: None }),
            ],
            rtx_ssrc,
            extensions: HeaderExtensions {
                transport_cc: Some(3),
                abs_send_time: Some(2),
                playout_delay: Some(14),
            },
            playout_delay: PlayoutDelay::default(),
            clock_rate: Timescale::VIDEO,
            timestamp_offset: OFFSET,
            cname: "viewer".into(),
            // Rolls over soon.
            random: [0xFFFF, 0],
        };
        let now = Instant::now();
        let line = Line::new(settings, &mut Sealers::new(keys)).unwrap();
        Self { line, transport: Transport::new(now), scratch: Vec::new(), peer, now }
    }

    /// Sends the frame whole. Returns what arrives and the sizes of the calls it took.
    fn send(&mut self, frame: &Arc<Frame>) -> (Vec<RtpPacket>, Vec<usize>) {
        self.line.begin(Arc::clone(frame)).unwrap();
        let (mut packets, mut calls) = (Vec::new(), Vec::new());
        while let Some(batch) = self.line.poll(self.now, &mut self.transport, &mut self.scratch).unwrap() {
            calls.push(batch.packets);
            packets.extend(opened(&mut self.peer, &batch));
        }
        (packets, calls)
    }

    fn nack<const PACKETS: usize>(&mut self, packets: [u16; PACKETS], history: &History) -> usize {
        let rtt = Some(Duration::from_millis(50));
        self.line.nack(packets, rtt, self.now, |source| (source == history.source()).then_some(history))
    }

    fn resent(&mut self) -> Vec<RtpPacket> {
        let mut packets = Vec::new();
        while let Some(batch) =
            self.line.poll_resend(SEGMENTS_MAX, self.now, &mut self.transport, &mut self.scratch).unwrap()
        {
            packets.extend(opened(&mut self.peer, &batch));
        }
        packets
    }
}

/// Cuts as the kernel would, and opens as a browser would.
fn opened(peer: &mut Context, batch: &Batch<'_>) -> Vec<RtpPacket> {
    let datagrams: Vec<_> = batch.bytes.chunks(batch.segment).collect();
    assert_eq!(datagrams.len(), batch.packets);
    let mut open = |datagram: &[u8]| {
        let opened = peer.decrypt_rtp(datagram).unwrap();
        RtpPacket::unmarshal(&mut opened.freeze()).unwrap()
    };
    datagrams.into_iter().map(&mut open).collect()
}

fn sequences(packets: &[RtpPacket]) -> Vec<u16> {
    packets.iter().map(|packet| packet.header.sequence_number).collect()
}

#[test]
fn a_frame_arrives_as_it_was_cut_with_the_marker_at_its_end() {
    let mut viewer = Viewer::new(None);
    let mut video = Video::new(Source(1));
    video.frame(1);
    let frame = video.frame(4);
    let (packets, calls) = viewer.send(&frame);
    assert_eq!(calls, [4], "one call for a picture");
    for (at, packet) in packets.iter().enumerate() {
        assert_eq!(Some(&packet.payload[..]), frame.payload(at));
        assert_eq!((packet.header.ssrc, packet.header.payload_type), (SSRC, 102));
        assert_eq!(packet.header.timestamp, OFFSET.wrapping_add(3_000));
        assert_eq!(packet.header.marker, at == 3);
        assert_eq!(packet.header.get_extension(3).unwrap()[..], (at as u16).to_be_bytes());
    }
}

#[test]
fn a_keyframe_leaves_in_pieces_and_is_finished_before_the_next_frame() {
    let mut viewer = Viewer::new(None);
    let mut video = Video::new(Source(1));
    let (keyframe, next) = (video.frame_with(80, true), video.frame(1));
    viewer.line.begin(keyframe).unwrap();
    let batch = viewer.line.poll(viewer.now, &mut viewer.transport, &mut viewer.scratch).unwrap().unwrap();
    assert_eq!((batch.packets, batch.transport_sequence), (1, Some(0)), "parameter sets");
    assert_eq!(viewer.line.begin(Arc::clone(&next)), Err(BusyError));
    let mut calls = Vec::new();
    while let Some(batch) = viewer.line.poll(viewer.now, &mut viewer.transport, &mut viewer.scratch).unwrap()
    {
        calls.push((batch.packets, batch.transport_sequence));
    }
    assert_eq!(calls, [(32, Some(1)), (32, Some(33)), (16, Some(65))]);
    assert!(viewer.line.is_idle());
    viewer.line.begin(next).unwrap();
}

#[test]
fn a_narrow_path_gets_a_burst_in_smaller_pieces_and_nothing_twice() {
    let mut viewer = Viewer::new(None);
    let mut video = Video::new(Source(1));
    viewer.line.begin(video.frame_with(40, true)).unwrap();
    let (mut packets, mut calls) = (Vec::new(), Vec::new());
    while let Some(batch) =
        viewer.line.poll_some(15, viewer.now, &mut viewer.transport, &mut viewer.scratch).unwrap()
    {
        calls.push(batch.packets);
        packets.extend(opened(&mut viewer.peer, &batch));
    }
    assert_eq!(calls, [1, 15, 15, 2, 8]);
    let first = packets[0].header.sequence_number;
    assert_eq!(sequences(&packets), (first..first + 41).collect::<Vec<_>>());
    assert!(packets.iter().rev().skip(1).all(|packet| !packet.header.marker));
    assert!(packets[40].header.marker && viewer.line.is_idle());
}

/// The first packets of what was asked for again say how long the pictures behind them are to be kept.
#[test]
fn who_misses_packets_often_is_told_to_keep_pictures() {
    let mut viewer = Viewer::new(RTX);
    let mut video = Video::new(Source(1));
    let mut history = History::new(Source(1));
    let mut told = Vec::new();
    for number in 0..20_u16 {
        let frame = video.frame(1);
        history.push(Arc::clone(&frame), viewer.now);
        let (packets, _) = viewer.send(&frame);
        told.push(packets[0].header.get_extension(14).unwrap()[..].to_vec());
        viewer.now += Duration::from_millis(100);
        if number.is_multiple_of(5) {
            viewer.nack([packets[0].header.sequence_number], &history);
        }
    }
    // Twelve bits each: 120 ms at least, little by little, and 1 s at most.
    assert_eq!(told[..4], [[0, 0, 0], [0, 0x10, 0x64], [0, 0x20, 0x64], [0, 0x30, 0x64]].map(Vec::from));
    assert_eq!(told[12..], [[0, 0xC0, 0x64]; 8].map(Vec::from));
}

/// A rung switch, and frames left out: the receiver must see one stream, or it would ask for what never was.
#[test]
fn numbers_have_no_gap_across_renditions_and_rollover() {
    let mut viewer = Viewer::new(None);
    let (mut low, mut high) = (Video::new(Source(1)), Video::new(Source(2)));
    for _ in 0..5 {
        high.frame(9);
        low.frame(2);
    }
    let mut packets = viewer.send(&low.frame(2)).0;
    high.frame(4);
    packets.extend(viewer.send(&high.frame_with(3, true)).0);
    packets.extend(viewer.send(&high.frame(2)).0);
    let numbers: Vec<u16> = (0x7FFF..).take(packets.len()).collect();
    assert_eq!(sequences(&packets), numbers);
    let times: Vec<u32> = packets.iter().map(|packet| packet.header.timestamp.wrapping_sub(OFFSET)).collect();
    assert_eq!(times, [15_000, 15_000, 18_000, 18_000, 18_000, 18_000, 21_000, 21_000]);

    while viewer.line.sealer.next_index() < 0x1_0010 {
        viewer.send(&high.frame(30));
    }
    let (packets, _) = viewer.send(&high.frame(1));
    assert!(packets[0].header.sequence_number < 0x100);
}

#[test]
fn what_is_missed_comes_again_under_its_own_number() {
    let mut viewer = Viewer::new(RTX);
    let mut video = Video::new(Source(1));
    let mut history = History::new(Source(1));
    video.frame(3); // before this viewer came
    let frame = video.frame(4);
    history.push(Arc::clone(&frame), viewer.now);
    let (packets, _) = viewer.send(&frame);
    let [missed, last] = [sequences(&packets)[1], sequences(&packets)[3]];

    assert_eq!(viewer.nack([missed, last], &history), 2);
    let resent = viewer.resent();
    assert_eq!(sequences(&resent), [0, 1]);
    for (resent, original) in resent.iter().zip([&packets[1], &packets[3]]) {
        assert_eq!((resent.header.ssrc, resent.header.payload_type), (RTX.unwrap(), 103));
        assert_eq!(resent.payload[..2], original.header.sequence_number.to_be_bytes());
        assert_eq!(resent.payload[2..], original.payload[..]);
        assert_eq!(resent.header.timestamp, original.header.timestamp);
        assert_eq!(resent.header.marker, original.header.marker);
    }
    // Counted on the transport behind the media.
    assert_eq!(resent[0].header.get_extension(3).unwrap()[..], [0, 4]);
}

#[test]
fn a_packet_comes_again_once_a_round_trip() {
    let mut viewer = Viewer::new(RTX);
    let frame = Video::new(Source(1)).frame(2);
    let mut history = History::new(Source(1));
    history.push(Arc::clone(&frame), viewer.now);
    let missed = sequences(&viewer.send(&frame).0)[0];
    assert_eq!(viewer.nack([missed, missed], &history), 1);
    assert_eq!(viewer.resent().len(), 1);
    viewer.now += Duration::from_millis(49);
    assert_eq!(viewer.nack([missed], &history), 0);
    viewer.now += Duration::from_millis(1);
    assert_eq!(viewer.nack([missed], &history), 1);
    assert_eq!(viewer.resent().len(), 1);
}

/// What the publisher sends, and what is made of it, are not coded alike.
#[test]
fn a_line_changes_its_payload_type_with_the_rendition() {
    let mut viewer = Viewer::new(RTX);
    let unit = |key| AccessUnit { dts: 0, pts: 0, duration: 3_000, key, data: vec![7; 2_000].into() };
    let first = Video::new(Source(1)).frame(1);
    let vp8 = Arc::new(VpxPacketizer::vp8(Source(2)).packetize(&unit(true), 0).unwrap());
    let vp9 = Arc::new(VpxPacketizer::vp9(Source(3)).packetize(&unit(true), 0).unwrap());
    let mut sent = Vec::new();
    for frame in [&first, &vp8, &vp9] {
        sent.extend(viewer.send(frame).0);
    }
    let types: Vec<_> = sent.iter().map(|packet| packet.header.payload_type).collect();
    assert_eq!(types, [102, 96, 96, 98, 98]);
    let numbers = sequences(&sent);
    assert!(numbers.windows(2).all(|two| two[1] == two[0].wrapping_add(1)), "{numbers:?}");
    // Sent again is what has a payload type for that.
    for (frame, missed, again) in [(&vp8, numbers[1], Some(97)), (&vp9, numbers[3], None)] {
        let mut history = History::new(frame.source());
        history.push(Arc::clone(frame), viewer.now);
        viewer.nack([missed], &history);
        let resent: Vec<_> = viewer.resent().iter().map(|packet| packet.header.payload_type).collect();
        assert_eq!(resent, again.into_iter().collect::<Vec<_>>());
    }
}

/// Nonce reuse otherwise: a second packet with the same number but another transport-wide one.
#[test]
fn without_rtx_nothing_comes_again() {
    let mut viewer = Viewer::new(None);
    let frame = Video::new(Source(1)).frame(2);
    let mut history = History::new(Source(1));
    history.push(Arc::clone(&frame), viewer.now);
    let missed = sequences(&viewer.send(&frame).0);
    assert_eq!(viewer.nack([missed[0]], &history), 0);
    assert!(viewer.resent().is_empty());
}

#[test]
fn numbers_that_were_never_sent_or_are_forgotten_are_left_alone() {
    let mut viewer = Viewer::new(RTX);
    let mut history = History::new(Source(1));
    assert_eq!(viewer.nack([0, 0x7FFF, 0xFFFF], &history), 0, "nothing was sent yet");
    let frame = Video::new(Source(1)).frame(2);
    let sent = sequences(&viewer.send(&frame).0);
    assert_eq!(viewer.nack([sent[0]], &history), 0, "not in the history");
    history.push(frame, viewer.now);
    assert_eq!(viewer.nack([sent[1].wrapping_add(1), sent[0].wrapping_sub(1)], &history), 0);
    assert_eq!(viewer.nack([sent[0], sent[1], sent[0], sent[1]], &history), 2);
}

/// Threat: datagrams full of numbers that are looked up in vain.
#[test]
fn a_request_without_end_is_read_only_so_far() {
    let mut viewer = Viewer::new(RTX);
    viewer.send(&Video::new(Source(1)).frame(2));
    let mut read = 0;
    let packets = (0..=u16::MAX).inspect(|_| read += 1);
    viewer.line.nack(packets, None, viewer.now, |_| None);
    assert_eq!(read, NACKED_PACKETS_MAX);
}

/// A viewer behind a path that loses everything must not double what goes into it.
#[test]
fn losses_get_no_more_than_their_share() {
    let mut viewer = Viewer::new(RTX);
    let mut video = Video::new(Source(1));
    let mut history = History::new(Source(1));
    let (mut media, mut again) = (0, 0);
    for _ in 0..300 {
        let frame = video.frame(10);
        history.push(Arc::clone(&frame), viewer.now);
        let (packets, _) = viewer.send(&frame);
        media += frame.bytes();
        viewer.now += Duration::from_millis(33);
        let lost: [u16; 10] = sequences(&packets).try_into().unwrap();
        viewer.nack(lost, &history);
        again += viewer.resent().iter().map(|packet| packet.payload.len()).sum::<usize>();
    }
    let share = (again - 64 * 1024) as f64 / media as f64;
    assert!((0.13..=0.15).contains(&share), "{share}");
}

#[test]
fn a_large_request_is_answered_in_part_and_in_pieces() {
    let mut viewer = Viewer::new(RTX);
    let frame = Video::new(Source(1)).frame(100);
    let mut history = History::new(Source(1));
    history.push(Arc::clone(&frame), viewer.now);
    let lost: [u16; 100] = sequences(&viewer.send(&frame).0).try_into().unwrap();
    let taken = viewer.nack(lost, &history);
    assert_eq!(taken, 64 * 1024 / (PAYLOAD_BYTES_MAX + 2));
    let now = viewer.now;
    let batch = viewer
        .line
        .poll_resend(SEGMENTS_MAX, now, &mut viewer.transport, &mut viewer.scratch)
        .unwrap()
        .unwrap();
    assert_eq!(batch.packets, SEGMENTS_MAX);
}

/// As they wait for their turn on a narrow path.
#[test]
fn what_waits_to_be_sent_again_is_not_taken_twice() {
    let mut viewer = Viewer::new(RTX);
    let frame = Video::new(Source(1)).frame(3);
    let mut history = History::new(Source(1));
    history.push(Arc::clone(&frame), viewer.now);
    let lost = sequences(&viewer.send(&frame).0)[1];
    assert_eq!(viewer.nack([lost], &history), 1);
    viewer.now += Duration::from_secs(1);
    assert_eq!(viewer.nack([lost], &history), 0);
    assert_eq!(viewer.resent().len(), 1);
    assert_eq!(viewer.nack([lost], &history), 0, "it is on its way");
    viewer.now += Duration::from_secs(1);
    assert_eq!(viewer.nack([lost], &history), 1);
}

#[test]
fn what_a_viewer_does_not_need_any_more_is_not_sent_again() {
    let mut viewer = Viewer::new(RTX);
    let mut video = Video::new(Source(1));
    let mut history = History::new(Source(1));
    let lost = [(); 2].map(|()| {
        let frame = video.frame(3);
        history.push(Arc::clone(&frame), viewer.now);
        sequences(&viewer.send(&frame).0)[1]
    });
    assert_eq!(viewer.nack([lost[0]], &history), 1);
    viewer.line.forget_resends();
    assert!(!viewer.line.has_resends());
    assert_eq!(viewer.nack([lost[0]], &history), 1, "it was not sent");
    viewer.line.forget_sent();
    assert!(!viewer.line.has_resends());
    viewer.now += Duration::from_secs(1);
    assert_eq!(viewer.nack(lost, &history), 0);
    let frame = video.frame(3);
    history.push(Arc::clone(&frame), viewer.now);
    let after = sequences(&viewer.send(&frame).0)[1];
    assert_eq!(viewer.nack([lost[1], after], &history), 1);
}

#[test]
fn reports_count_media_and_keep_the_lines_in_step() {
    let mut viewer = Viewer::new(RTX);
    let wall = Duration::from_secs(1_800_000_000);
    assert!(viewer.line.poll_report(viewer.now, wall).is_none(), "no clock yet");
    viewer.line.set_anchor(ClockAnchor { pts: 3_000, wall });
    let frame = Video::new(Source(1)).frame(3);
    let mut history = History::new(Source(1));
    history.push(Arc::clone(&frame), viewer.now);
    let (packets, _) = viewer.send(&frame);
    assert_eq!(viewer.nack([sequences(&packets)[0]], &history), 1);
    viewer.resent();

    let [report, description] = viewer.line.poll_report(viewer.now, wall + Duration::from_secs(1)).unwrap();
    let report: &SenderReport = report.as_any().downcast_ref().unwrap();
    assert_eq!((report.packet_count, report.octet_count), (3, frame.bytes() as u32));
    assert_eq!((report.ssrc, report.rtp_time), (SSRC, OFFSET.wrapping_add(93_000)));
    let description: &SourceDescription = description.as_any().downcast_ref().unwrap();
    assert_eq!(description.chunks[0].items[0].text, "viewer");
    assert_eq!(viewer.line.report_due(), Some(viewer.now + Duration::from_secs(1)));

    let echo = ReceptionReport { ssrc: SSRC, fraction_lost: 128, ..ReceptionReport::default() };
    assert_eq!(viewer.line.reception(&echo, viewer.now).unwrap().fraction_lost, 0.5);
    let other = ReceptionReport { ssrc: RTX.unwrap(), ..echo };
    assert_eq!(viewer.line.reception(&other, viewer.now), None);
}

#[test]
fn a_frame_is_sent_without_allocating() {
    let mut viewer = Viewer::new(None);
    let mut video = Video::new(Source(1));
    viewer.send(&video.frame(32));
    let frames: Vec<_> = (0..50).map(|_| video.frame(20)).collect();
    let allocated = allocation_counter::measure(|| {
        for frame in frames {
            viewer.line.begin(frame).unwrap();
            while viewer.line.poll(viewer.now, &mut viewer.transport, &mut viewer.scratch).unwrap().is_some()
            {
            }
        }
    });
    assert_eq!(allocated.count_total, 0);
}
