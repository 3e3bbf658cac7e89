use bytes::{Buf, BufMut, BytesMut};
use http::HeaderMap;
use media::codec::aac;
use media::{AccessUnit, Captions, NodeId, TrackId};
use proptest::prelude::*;

use super::hello::{FORMAT, HOPS, HOPS_MAX, WIRE};
use super::*;
use crate::frame::{Boundary, HEADER_BYTES};
use crate::record::{self, Bandwidth, TrackRecord};
use crate::ring::Ring;

fn record() -> Record {
    let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
    Record {
        session: SessionId::from_random(0xAB),
        format: 1,
        part_hold_back_ms: 1536,
        renditions: [false, true]
            .map(|on_demand| Rendition {
                name: "a".into(),
                part_target_ms: 512,
                peak: 150_000,
                average: 128_000,
                derived: Some(Derived { every: 1, on_demand }),
                codec: codec.clone(),
            })
            .to_vec(),
        live: Some(Live {
            target_duration_s: 4,
            window_ms: 28_000,
            frame_rate: Some(29.97),
            captions: Captions::default(),
        }),
    }
}

fn part(body: Option<Vec<Bytes>>) -> Part {
    Part {
        msn: u64::MAX - 1,
        part: 3,
        oldest_msn: 7,
        duration: 45_000,
        independent: true,
        gap: false,
        last_in_segment: true,
        last_of_track: false,
        program_date_time_ms: -5,
        discontinuity_sequence: 2,
        init: 0xE35A_8192_2C9D_BFBF,
        bytes: body.as_ref().map_or(1000, |body| body.iter().map(Bytes::len).sum::<usize>() as u32),
        body,
    }
}

fn everything() -> Vec<Message> {
    let body = [&b"moof"[..], b"", b"a", b"much longer unit"].map(Bytes::from_static).to_vec();
    vec![
        Message::Record(record()),
        Message::Record(Record { live: None, ..record() }),
        Message::Record(captioned()),
        Message::Index { resumed: false, epoch: 0 },
        Message::Index { resumed: true, epoch: u32::MAX },
        Message::Init { track: 1, init: Init { hash: 9, bytes: Bytes::from_static(b"ftypmoov") } },
        Message::Part { track: 0, part: part(None) },
        Message::Part { track: 65_535, part: Part { last_of_track: true, ..part(Some(body)) } },
        Message::Part { track: 0, part: Part { gap: true, bytes: 0, ..part(Some(Vec::new())) } },
        Message::IndexComplete,
        Message::Clock { sent_ms: 1_800_000_000_123 },
        Message::TrackEnd { track: 1 },
        Message::End,
        Message::Stream(Box::new(stream())),
        Message::Stream(Box::new(StreamRecord {
            live: None,
            frame_rate: None,
            tracks: Vec::new(),
            ..stream()
        })),
        Message::Condition(Condition { keyframe_interval_s: Some(8.3), interrupted_since_ms: None }),
        Message::Condition(Condition {
            keyframe_interval_s: None,
            interrupted_since_ms: Some(1_800_000_000_123),
        }),
    ]
    .into_iter()
    .chain(frames().map(Message::Frame))
    .collect()
}

fn stream() -> StreamRecord {
    let codec = record().renditions.swap_remove(0).codec;
    let bandwidth = Bandwidth { peak: 150_000, average: 128_000 };
    let derived = record::Derived {
        from: TrackId(1),
        every: 2,
        bandwidth,
        on_demand: true,
        for_webrtc: true,
        layer: true,
    };
    let track = |id, derived| TrackRecord {
        id: TrackId(id),
        name: "a".into(),
        codec: codec.clone(),
        part_target_ms: 512,
        reorder_delay: 7,
        derived,
    };
    StreamRecord {
        session: SessionId::from_random(0xAB),
        epoch: 3,
        part_hold_back_ms: 1536,
        frame_rate: Some(29.97),
        tracks: vec![track(0, None), track(9, Some(derived))],
        live: Some(record::Live {
            target_duration_s: 4,
            window_ms: 28_000,
            bandwidth: vec![bandwidth, Bandwidth::default()],
            captions: Captions::default(),
        }),
    }
}

fn captioned() -> Record {
    let live = record().live.map(|live| Live { captions: Captions::from_bits(5), ..live });
    Record { live, ..record() }
}

/// One of each kind, as they lie in a ring.
fn frames() -> impl Iterator<Item = Frame> {
    let codec = record().renditions.swap_remove(0).codec;
    let mut ring = Ring::new(TrackId(7), codec.timescale());
    ring.open_group(5, -3);
    ring.push_config(-3, &codec);
    ring.push_boundary(&Boundary {
        msn: 1,
        part: 2,
        start: -3,
        program_date_time_ms: 1_800_000_000_123,
        discontinuity_sequence: 1,
        independent: true,
        gap: Some(9),
    });
    let data = Bytes::from_static(b"much longer unit");
    ring.push_unit(&AccessUnit { dts: -3, pts: 5, duration: 1024, key: true, data });
    ring.push_end(1021);
    let mut frames = Vec::new();
    ring.read(&mut ring.oldest(1), false, &mut frames);
    frames.into_iter()
}

fn bytes_of(messages: Vec<Message>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let mut frame = message.encode();
        bytes.put(&mut frame);
    }
    bytes
}

/// What `decoder` makes of it, with every body in one piece.
fn decode(decoder: &mut Decoder, bytes: Bytes) -> Result<Vec<Message>, WireError> {
    decoder.push(bytes);
    let mut messages = Vec::new();
    while let Some(mut message) = decoder.poll_message()? {
        if let Message::Part { part: Part { body: Some(body), .. }, .. } = &mut message {
            *body = vec![Bytes::from(body.concat())];
        }
        messages.push(message);
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn messages_survive_any_split_of_the_bytes(sizes in prop::collection::vec(1_usize..90, 1..100)) {
        let whole = bytes_of(everything());
        let expected = decode(&mut Decoder::default(), whole.clone().into()).unwrap();
        prop_assert_eq!(expected.len(), everything().len());
        let (mut decoder, mut rest, mut messages) = (Decoder::default(), Bytes::from(whole), Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let piece = rest.split_to((*size).min(rest.len()));
            messages.extend(decode(&mut decoder, piece).unwrap());
        }
        prop_assert_eq!(messages, expected);
    }

    /// Threat: bytes of a broken or hostile node.
    #[test]
    fn any_bytes_are_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0_u8..28) {
        let _ = decode(&mut Decoder::default(), bytes.clone().into());
        let mut framed = BytesMut::new();
        framed.put_u32_le((HEADER_BYTES + bytes.len()) as u32);
        framed.put_u8(kind);
        framed.put_slice(&[0; HEADER_BYTES - 5]);
        framed.put_slice(&bytes);
        let _ = decode(&mut Decoder::default(), framed.freeze());
    }

    #[test]
    fn any_text_is_a_resume_of_units_or_wants_or_neither(
        text in "\\PC{0,40}|[0-9a-f]{16}\\.[0-9]{0,11};[0-9]{0,6}:[0-9]{0,11}\\.[0-9]{0,11}|(keyframe|rung-keyframe)&?(tracks=[0-9,]{0,9})?",
    ) {
        if let Ok(resume) = text.parse::<UnitResume>() {
            prop_assert_eq!(resume.to_string().parse(), Ok(resume));
        }
        if let Ok(wants) = text.parse::<Wants>() {
            prop_assert_eq!(wants.to_string().parse(), Ok(wants));
        }
    }

    #[test]
    fn any_text_is_a_resume_or_none(text in "\\PC{0,40}|[0-9a-f]{16};[a-z]{0,3}:[0-9]{0,21}\\.[0-9]{0,11}") {
        if let Ok(resume) = text.parse::<Resume>() {
            prop_assert_eq!(resume.to_string().parse(), Ok(resume));
        }
    }
}

#[test]
fn every_message_is_read_as_it_was_written() {
    let decoded = decode(&mut Decoder::default(), bytes_of(everything()).into()).unwrap();
    let mut expected = everything();
    for message in &mut expected {
        if let Message::Part { part: Part { body: Some(body), .. }, .. } = message {
            *body = vec![Bytes::from(body.concat())];
        }
    }
    assert_eq!(decoded, expected);
}

/// A node that knows nothing of captions reads what was there before, and ours reads what such a node sends.
#[test]
fn captions_follow_everything_else() {
    let [with, without] = [captioned(), record()].map(|record| bytes_of(vec![Message::Record(record)]));
    let (same, captions) = with.split_at(without.len());
    assert_eq!((&same[4..], captions), (&without[4..], [5, 0].as_slice()), "beside the length");
}

/// A newer node may say more than we know.
#[test]
fn a_record_of_a_node_that_knows_nothing_of_demand_is_read() {
    let older = [1, 0].map(|bytes| {
        let mut frame = bytes_of(vec![Message::Record(record())]);
        // Without what comes last: two flags.
        frame.truncate(frame.len() - 2 + bytes);
        let length = frame.len() as u32;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        decode(&mut Decoder::default(), frame.into()).unwrap()
    });
    for read in older {
        let [Message::Record(read)] = read.as_slice() else { panic!("{read:?}") };
        let derived: Vec<_> = read.renditions.iter().map(|rendition| rendition.derived.unwrap()).collect();
        assert_eq!(derived, [Derived { every: 1, on_demand: false }; 2]);
    }
}

#[test]
fn unknown_kinds_are_skipped_by_their_length() {
    let mut unknown = BytesMut::new();
    unknown.put_u32_le(HEADER_BYTES as u32 + 100_000);
    unknown.put_u8(200);
    unknown.put_slice(&[0xFF; HEADER_BYTES - 5]);
    unknown.put_bytes(0xEE, 100_000);
    let bytes =
        [&unknown[..], &bytes_of(vec![Message::IndexComplete]), &unknown, &bytes_of(vec![Message::End])]
            .concat();
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for piece in Bytes::from(bytes).chunks(1400) {
        messages.extend(decode(&mut decoder, Bytes::copy_from_slice(piece)).unwrap());
    }
    assert_eq!(messages, [Message::IndexComplete, Message::End]);
}

#[test]
fn a_frame_too_long_is_refused_before_it_is_received() {
    for (kind, length) in [
        (KIND_PART, FRAME_BYTES_MAX + 1),
        (KIND_RECORD, SMALL_FRAME_BYTES_MAX + 1),
        (200, FRAME_BYTES_MAX + 1),
    ] {
        let mut header = BytesMut::new();
        header.put_u32_le(length as u32);
        header.put_u8(kind);
        header.put_slice(&[0; HEADER_BYTES - 5]);
        let error = decode(&mut Decoder::default(), header.freeze()).unwrap_err();
        assert!(matches!(error, WireError::TooLong { .. }), "{error}");
        assert!(error.to_string().starts_with("frame longer than allowed"), "{error}");
    }
    let mut header = BytesMut::zeroed(HEADER_BYTES);
    header[0] = HEADER_BYTES as u8 - 1;
    assert!(matches!(
        decode(&mut Decoder::default(), header.freeze()),
        Err(WireError::TooShort { bytes: 31 })
    ));
}

/// A part goes from the ring to the socket as it is: header and record in one slice, then the very same slices.
#[test]
fn a_body_is_never_copied_on_its_way() {
    let body = vec![Bytes::from(vec![1; 3000]), Bytes::from(vec![2; 5000])];
    let addresses: Vec<_> = body.iter().map(|slice| slice.as_ptr()).collect();
    let frame = Message::Part { track: 0, part: part(Some(body)) }.encode();
    let sent: Vec<_> = frame.clone().into_iter().collect();
    assert_eq!(sent[1..].iter().map(|slice| slice.as_ptr()).collect::<Vec<_>>(), addresses);

    let mut frame = frame;
    let received = frame.copy_to_bytes(frame.remaining());
    let mut decoder = Decoder::default();
    decoder.push(received.clone());
    let Ok(Some(Message::Part { part: Part { body: Some(body), .. }, .. })) = decoder.poll_message() else {
        panic!("no part");
    };
    assert_eq!(body[0].as_ptr(), received[HEADER_BYTES + PART_RECORD_BYTES..].as_ptr());
}

#[test]
fn a_part_that_fits_no_frame_is_listed() {
    let huge = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    let mut decoder = Decoder::default();
    for slice in (Message::Part { track: 0, part: part(Some(vec![huge])) }).encode() {
        decoder.push(slice);
    }
    let Ok(Some(Message::Part { part, .. })) = decoder.poll_message() else { panic!("no part") };
    assert_eq!((part.bytes as usize, part.body), (FRAME_BYTES_MAX, None));
}

fn hello(hops: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(WIRE, "1".parse().unwrap());
    headers.insert(FORMAT, "1".parse().unwrap());
    headers.insert(HOPS, hops.parse().unwrap());
    headers
}

#[test]
fn a_hello_is_understood_by_the_same_version_and_told_apart_by_others() {
    let hello = Hello { hops: Hops::default().through(&"edge1".parse().unwrap()).unwrap(), format: 1 };
    let mut headers = HeaderMap::new();
    hello.write(&mut headers);
    assert_eq!(Hello::read(&headers, 1), Ok(hello));

    headers.insert(WIRE, "7, 8".parse().unwrap());
    let told = Hello::read(&headers, 1).unwrap_err().to_string();
    assert!(told.contains("speaks version 1 ") && told.contains("the other 7, 8"), "{told}");
    headers.insert(WIRE, "0, 1, 2".parse().unwrap());
    assert!(Hello::read(&headers, 1).is_ok(), "one in common is enough");
    let told = Hello::read(&headers, 2).unwrap_err().to_string();
    assert!(told.contains("format 2, the other 1"), "{told}");
    for missing in [WIRE, FORMAT, HOPS] {
        let mut headers = headers.clone();
        headers.remove(&missing);
        assert_eq!(Hello::read(&headers, 1), Err(HelloError::Malformed(missing_name(&missing))));
    }
}

fn missing_name(name: &http::HeaderName) -> &'static str {
    [WIRE, FORMAT, HOPS]
        .iter()
        .position(|known| known == name)
        .map(|at| ["tidecast-wire", "tidecast-format", "tidecast-hops"][at])
        .unwrap()
}

#[test]
fn relays_in_a_circle_are_told_who_they_are() {
    let node = |name: &str| name.parse::<NodeId>().unwrap();
    let hops = Hello::read(&hello("edge1, shield"), 1).unwrap().hops;
    assert!(hops.check(&node("origin")).is_ok());
    let told = hops.check(&node("edge1")).unwrap_err().to_string();
    assert!(told.contains("edge1 asks itself by way of edge1, shield"), "{told}");
    let longest =
        ["a", "b", "c", "d"].iter().try_fold(Hops::default(), |hops, name| hops.through(&node(name)));
    let longest = longest.unwrap();
    assert!(longest.check(&node("origin")).is_ok());
    assert!(matches!(longest.through(&node("e")), Err(RelayLoop::TooMany { .. })));
    let many = vec!["x"; 1000].join(",");
    assert!(Hello::read(&hello(&many), 1).unwrap().hops.check(&node("origin")).is_err());
    assert_eq!(HOPS_MAX, 4);
}
