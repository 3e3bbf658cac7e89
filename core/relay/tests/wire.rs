//! The wire as it was recorded, version by version: what nodes of that version send is read for as long as it is spoken, and
//! what we send under its number is that, to the byte.
//!
//! `wire-N.txt` is version N: a line for each thing that nodes say, its name and its bytes in hexadecimal digits. **It never
//! changes.** Whoever changes what is sent raises [`relay::wire::VERSIONS`] and records the next one: with `RECORD_WIRE` set,
//! this test writes the file of the newest version if it is not there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use bytes::{BufMut, Bytes};
use http::HeaderMap;
use media::{AccessUnit, Captions, CodecConfig, SessionId, TrackId};
use relay::wire::{
    Condition, Decoder, Derived, Hello, Hops, Init, Live, Message, Part, Place, Record, Rendition, Resume,
    UnitPlace, UnitResume, VERSIONS, Wants, chosen_version,
};
use relay::{Bandwidth, Boundary, Frame, Ring, StreamRecord, TrackRecord};
use tidecast_relay as relay;

/// Of a release that wrote playlists and parts of this format.
const FORMAT: u32 = 1;

fn recorded(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/wire-{version}.txt"))
}

fn audio() -> CodecConfig {
    CodecConfig::from_record(b"mp4a", Bytes::from_static(&[0x11, 0x90])).expect("AAC-LC, 48 kHz, stereo")
}

fn video() -> CodecConfig {
    const AVCC: &[u8] =
        b"\x01\x64\x00\x1f\xff\xe1\x00\x18\x67\x64\x00\x1f\xac\xb2\x00\xa0\x0b\x76\x02\x20\x00\x00\x03\
        \x00\x20\x00\x00\x07\x81\xe3\x06\x49\x01\x00\x06\x68\xeb\xc3\xcb\x22\xc0\xfd\xf8\xf8\x00";
    CodecConfig::from_record(b"avc1", Bytes::from_static(AVCC)).expect("H.264 high, 1280x720")
}

fn session() -> SessionId {
    SessionId::from_random(0x0123_4567_89AB_CDEF)
}

fn record() -> Record {
    let rendition = |name: &str, codec, derived| Rendition {
        name: name.to_owned(),
        part_target_ms: 500,
        peak: 3_000_000,
        average: 2_500_000,
        derived,
        codec,
    };
    Record {
        session: session(),
        format: FORMAT,
        part_hold_back_ms: 1_500,
        renditions: vec![
            rendition("v0", video(), None),
            rendition("v180", video(), Some(Derived { every: 2, on_demand: true })),
            rendition("a0", audio(), None),
        ],
        live: Some(Live {
            target_duration_s: 4,
            window_ms: 28_000,
            frame_rate: Some(29.97),
            captions: Captions::default(),
        }),
    }
}

fn part() -> Part {
    Part {
        msn: 0x1_0000_0007,
        part: 3,
        oldest_msn: 2,
        duration: 45_000,
        independent: true,
        gap: false,
        last_in_segment: true,
        last_of_track: false,
        program_date_time_ms: 1_800_000_000_123,
        discontinuity_sequence: 2,
        init: 0xE35A_8192_2C9D_BFBF,
        bytes: 1_000,
        body: None,
    }
}

fn stream() -> StreamRecord {
    let bandwidth = Bandwidth { peak: 150_000, average: 128_000 };
    let derived = relay::Derived {
        from: TrackId(0),
        every: 2,
        bandwidth,
        on_demand: true,
        for_webrtc: true,
        layer: false,
    };
    let track = |id, name: &str, codec, derived| TrackRecord {
        id: TrackId(id),
        name: name.into(),
        codec,
        part_target_ms: 500,
        reorder_delay: 2,
        derived,
    };
    StreamRecord {
        session: session(),
        epoch: 3,
        part_hold_back_ms: 1_500,
        frame_rate: Some(29.97),
        tracks: vec![track(0, "v0", video(), None), track(9, "a0", audio(), Some(derived))],
        live: Some(relay::Live {
            target_duration_s: 4,
            window_ms: 28_000,
            bandwidth: vec![bandwidth, Bandwidth::default()],
            captions: Captions::default(),
        }),
    }
}

/// One of each kind, as they lie in a ring.
fn frames() -> Vec<Frame> {
    let mut ring = Ring::new(TrackId(7), video().timescale());
    ring.open_group(5, -3);
    ring.push_config(-3, &video());
    ring.push_boundary(&Boundary {
        msn: 1,
        part: 2,
        start: -3,
        program_date_time_ms: 1_800_000_000_123,
        discontinuity_sequence: 1,
        independent: true,
        gap: Some(9),
    });
    let data = Bytes::from_static(b"an access unit");
    ring.push_unit(&AccessUnit { dts: -3, pts: 5, duration: 3_000, key: true, data });
    ring.push_end(2_997);
    let mut frames = Vec::new();
    ring.read(&mut ring.oldest(1), false, &mut frames);
    assert_eq!(frames.len(), 4, "configuration, boundary, unit, end");
    frames
}

/// Everything that has a body, by its name in the file.
fn messages() -> Vec<(String, Message)> {
    let body = Bytes::from_static(b"moof and mdat");
    let with_body = Part { bytes: body.len() as u32, body: Some(vec![body]), ..part() };
    let gap = Part {
        gap: true,
        independent: false,
        last_of_track: true,
        bytes: 0,
        body: Some(Vec::new()),
        ..part()
    };
    let init = Init { hash: 0xE35A_8192_2C9D_BFBF, bytes: Bytes::from_static(b"ftyp and moov") };
    let condition =
        Condition { keyframe_interval_s: Some(8.3), interrupted_since_ms: Some(1_800_000_000_123) };
    let named = [
        ("record", Message::Record(record())),
        ("record before it is announced", Message::Record(Record { live: None, ..record() })),
        ("index", Message::Index { resumed: false, epoch: 0 }),
        ("index from where the child was", Message::Index { resumed: true, epoch: 0 }),
        ("init", Message::Init { track: 1, init }),
        ("part that is listed", Message::Part { track: 0, part: part() }),
        ("part with its bytes", Message::Part { track: 2, part: with_body }),
        ("part that is a gap", Message::Part { track: 0, part: gap }),
        ("index complete", Message::IndexComplete),
        ("end of a track", Message::TrackEnd { track: 1 }),
        ("clock", Message::Clock { sent_ms: 1_800_000_000_123 }),
        ("end", Message::End),
        ("stream", Message::Stream(Box::new(stream()))),
        ("condition", Message::Condition(condition)),
        ("condition of which nothing is known", Message::Condition(Condition::default())),
    ];
    let frames = frames().into_iter().enumerate();
    let frames = frames.map(|(number, frame)| (format!("entry {number} of a log"), Message::Frame(frame)));
    named.into_iter().map(|(name, message)| (name.to_owned(), message)).chain(frames).collect()
}

/// What is said in headers and queries.
fn texts() -> Vec<(&'static str, String)> {
    let mut headers = HeaderMap::new();
    let hops = Hops::default().through(&"edge1".parse().expect("a name"));
    let hops = hops.and_then(|hops| hops.through(&"shield".parse().expect("a name"))).expect("two");
    Hello { hops, format: FORMAT }.write(&mut headers);
    let header = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
    let resume = Resume {
        session: session(),
        places: vec![
            Place { rendition: "v0".to_owned(), msn: 7, part: 1 },
            Place { rendition: "a0".to_owned(), msn: 6, part: 3 },
        ],
    };
    let place = UnitPlace { track: TrackId(0), group: 17, frame: 4 };
    let units = UnitResume { session: session(), epoch: 3, places: vec![place] };
    vec![
        ("header tidecast-wire", header("tidecast-wire")),
        ("header tidecast-format", header("tidecast-format")),
        ("header tidecast-hops", header("tidecast-hops")),
        ("header tidecast-wire of the answer", chosen_version().to_str().expect("ASCII").to_owned()),
        ("query of parts", resume.to_string()),
        ("query of units", units.to_string()),
        (
            "query of wants",
            Wants { keyframe: true, tracks: vec![TrackId(2), TrackId(9)], ..Wants::default() }.to_string(),
        ),
    ]
}

fn bytes_of(message: Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put(&mut message.encode());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// By name, in the file of a version.
fn read(version: u32) -> BTreeMap<String, Vec<u8>> {
    let path = recorded(version);
    let text = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; RECORD_WIRE=1 records a new version", path.display()));
    let line = |line: &str| {
        let (name, digits) = line.split_once(": ").expect("a name and digits");
        (name.to_owned(), unhex(digits))
    };
    text.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

#[test]
fn what_is_sent_is_what_was_recorded_of_the_newest_version() {
    let newest = *VERSIONS.last().expect("we speak some");
    let ours: Vec<_> = texts()
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.into_bytes()))
        .chain(messages().into_iter().map(|(name, message)| (name, bytes_of(message))))
        .collect();
    if std::env::var_os("RECORD_WIRE").is_some() && !recorded(newest).exists() {
        let mut text = format!("# Version {newest} of the wire between nodes. Never changed: see wire.rs.\n");
        for (name, bytes) in &ours {
            writeln!(text, "{name}: {}", hex(bytes)).expect("a text grows");
        }
        fs::write(recorded(newest), text).expect("the file can be written");
    }
    let mut theirs = read(newest);
    for (name, bytes) in &ours {
        let recorded = theirs.remove(name).unwrap_or_default();
        assert_eq!(
            hex(bytes),
            hex(&recorded),
            "{name} is sent in another way: raise the version of the wire, and record it"
        );
    }
    assert!(theirs.is_empty(), "no more sent, though it was recorded: {:?}", theirs.keys());
}

/// The place of an epoch was empty in what was recorded of version 1, and is read by nobody who does not know it.
#[test]
fn an_index_has_its_epoch_where_nodes_of_before_do_not_look() {
    let sent = bytes_of(Message::Index { resumed: true, epoch: 0x0102_0304 });
    let mut recorded = read(1)["index from where the child was"].clone();
    recorded[8..12].copy_from_slice(&[4, 3, 2, 1]);
    assert_eq!(hex(&sent), hex(&recorded));
}

#[test]
fn every_version_that_is_spoken_is_read_as_it_was_meant() {
    for version in VERSIONS {
        let recorded = read(*version);
        for (name, meant) in messages() {
            let mut decoder = Decoder::default();
            decoder.push(recorded[&name].clone().into());
            let mut read = decoder.poll_message().expect("it is readable").expect("it is whole");
            if let Message::Part { part: Part { body: Some(body), .. }, .. } = &mut read {
                *body = body.iter().filter(|slice| !slice.is_empty()).cloned().collect();
            }
            assert_eq!(read, meant, "{name} of version {version}");
            assert_eq!(decoder.poll_message().expect("nothing follows"), None);
        }
        let text = |name: &str| String::from_utf8(recorded[name].clone()).expect("a text");
        let mut headers = HeaderMap::new();
        for name in ["tidecast-wire", "tidecast-format", "tidecast-hops"] {
            headers.insert(name, text(&format!("header {name}")).parse().expect("a header"));
        }
        let hello = Hello::read(&headers, FORMAT).expect("a hello of that version is answered");
        assert_eq!(hello.hops.to_string(), "edge1, shield");
        assert_eq!(text("query of parts").parse::<Resume>().expect("read").places.len(), 2);
        assert_eq!(text("query of units").parse::<UnitResume>().expect("read").epoch, 3);
        assert!(text("query of wants").parse::<Wants>().expect("read").keyframe);
    }
}

/// A node of tomorrow speaks our version too, or is refused in words.
#[test]
fn a_hello_from_the_future_is_answered_if_it_knows_the_past() {
    let newest = *VERSIONS.last().expect("we speak some");
    let hello = |versions: String| {
        let mut headers = HeaderMap::new();
        Hello {
            hops: Hops::default().through(&"edge1".parse().expect("a name")).expect("one"),
            format: FORMAT,
        }
        .write(&mut headers);
        headers.insert("tidecast-wire", versions.parse().expect("a header"));
        Hello::read(&headers, FORMAT)
    };
    assert!(hello(format!("{newest}, {}", newest + 1)).is_ok());
    for future in [newest + 1, newest + 1_000] {
        let told = hello(future.to_string()).expect_err("it is of the future").to_string();
        assert!(told.contains(&format!("the other {future}: bring both to the same release")), "{told}");
    }
}
