//! What comes over the wire, in and out of order.

use bytes::Bytes;
use media::codec::aac;
use media::{Captions, CodecConfig};
use proptest::prelude::*;
use relay::Dialer;
use relay::wire::{Init as WireInit, Live, Rendition};

use super::super::upstreams::Upstreams;
use super::super::upstreams::tests::Authority;
use super::*;

const HASH: u64 = 0xC0FFEE;

fn id() -> StreamId {
    StreamId::new("live", "cam1").unwrap()
}

/// Nobody listens there, and nothing here asks.
fn source() -> Source {
    let dialer = Dialer::new(&Authority::new().node("edge1"), 1);
    let upstreams = Upstreams::one(dialer.at("https://127.0.0.1:1".parse().unwrap()));
    Source::new(upstreams, id())
}

fn mirror() -> (Mirror, Catalog) {
    let catalog = Catalog::new(hls::Metrics::default());
    (Mirror::new(source(), catalog.clone(), Purpose::Viewers, Counter::default()), catalog)
}

fn record(session: u64, live: bool) -> Message {
    let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
    Message::Record(Record {
        session: SessionId::from_random(session),
        format: 1,
        part_hold_back_ms: 1536,
        renditions: vec![Rendition {
            name: "a".into(),
            part_target_ms: 512,
            peak: 130_000,
            average: 128_000,
            derived: None,
            codec,
        }],
        live: live.then_some(Live {
            target_duration_s: 4,
            window_ms: 28_000,
            frame_rate: None,
            captions: Captions::default(),
        }),
    })
}

fn init() -> Message {
    Message::Init { track: 0, init: WireInit { hash: HASH, bytes: Bytes::from_static(b"init") } }
}

fn part(msn: u64, part: u32) -> Message {
    Message::Part {
        track: 0,
        part: wire::Part {
            msn,
            part,
            oldest_msn: 0,
            duration: 24_000,
            independent: true,
            gap: false,
            last_in_segment: part == 3,
            last_of_track: false,
            program_date_time_ms: 1_790_000_000_000,
            discontinuity_sequence: 0,
            init: HASH,
            bytes: 4,
            body: Some(vec![Bytes::from_static(b"body")]),
        },
    }
}

/// Without its bytes.
fn listed(msn: u64) -> Message {
    match part(msn, 0) {
        Message::Part { track, part } => Message::Part { track, part: wire::Part { body: None, ..part } },
        other => other,
    }
}

/// A whole subscription to a session that stands at segment `msn`.
fn subscription(session: u64, msn: u64) -> Vec<Message> {
    let mut messages = vec![record(session, true), Message::Index { resumed: false, epoch: 2 }, init()];
    messages.extend((0..=msn).flat_map(|msn| (0..4).map(move |number| part(msn, number))));
    messages.push(Message::IndexComplete);
    messages
}

fn apply(mirror: &mut Mirror, messages: Vec<Message>) -> Step {
    messages.into_iter().fold(Step::More, |_, message| mirror.apply(message).unwrap())
}

#[tokio::test]
async fn a_stream_is_found_when_its_index_is_complete_and_goes_on_where_it_broke_off() {
    let (mut mirror, catalog) = mirror();
    let mut messages = subscription(7, 2);
    let complete = messages.pop().unwrap();
    apply(&mut mirror, messages);
    assert!(catalog.get(&id()).is_none() && mirror.resume().is_none());
    assert_eq!(mirror.apply(complete).unwrap(), Step::Ready);
    assert_eq!(catalog.get(&id()).unwrap().state(), State::Live);
    assert_eq!(mirror.resume().unwrap().to_string(), "0000000000000007;a:3.0&epoch=2");
    apply(&mut mirror, vec![part(3, 0)]);
    assert_eq!(mirror.resume().unwrap().to_string(), "0000000000000007;a:3.1&epoch=2");

    let resumed = vec![
        record(7, true),
        Message::Index { resumed: true, epoch: 2 },
        init(),
        part(3, 1),
        Message::IndexComplete,
    ];
    assert_eq!(apply(&mut mirror, resumed), Step::Ready);
    assert_eq!(catalog.get(&id()).unwrap().status().last, Some(Position { msn: 3, part: 1 }));
}

/// The end of the old one was not told, so none is claimed; its last window can still be fetched.
#[tokio::test]
async fn another_session_takes_over_at_once_and_the_old_one_claims_no_end() {
    let (mut mirror, catalog) = mirror();
    apply(&mut mirror, subscription(7, 2));
    let old = catalog.get(&id()).unwrap();
    assert_eq!(apply(&mut mirror, subscription(8, 0)), Step::Ready);
    assert_eq!(catalog.get(&id()).unwrap().session(), SessionId::from_random(8));
    assert_eq!(old.state(), State::Live);

    assert_eq!(apply(&mut mirror, vec![Message::TrackEnd { track: 0 }, Message::End]), Step::Over);
    assert_eq!(catalog.get(&id()).unwrap().state(), State::Ended);
    mirror.let_go();
    assert!(catalog.get(&id()).is_some(), "what ended can be watched to its end");
    // Asked again, nothing has to be read twice.
    let mut again = Mirror::new(source(), catalog, Purpose::Viewers, Counter::default());
    let begin = |epoch| vec![record(8, true), Message::Index { resumed: false, epoch }];
    assert_eq!(apply(&mut again, begin(2)), Step::Over);
    // In the half of a cluster that was lost; in the other it has gone on.
    assert_eq!(apply(&mut again, begin(3)), Step::More);
}

/// A process that restarted has a hole in its numbers: the window begins anew, in the same session.
#[tokio::test]
async fn an_index_from_scratch_takes_the_place_of_what_was_here() {
    let (mut mirror, catalog) = mirror();
    apply(&mut mirror, subscription(7, 2));
    let index = catalog.get(&id()).unwrap();
    let anew = vec![
        record(7, true),
        Message::Index { resumed: false, epoch: 0 },
        init(),
        part(5, 0),
        Message::IndexComplete,
    ];
    assert_eq!(apply(&mut mirror, anew), Step::Ready);
    assert!(Arc::ptr_eq(&index, &catalog.get(&id()).unwrap()), "held requests go on");
    assert_eq!(index.status().last, Some(Position { msn: 5, part: 0 }));
}

/// Or all of it would be fetched again after each break that nobody can go on behind.
#[tokio::test]
async fn an_index_from_scratch_leaves_the_bytes_that_are_here() {
    let (mut mirror, catalog) = mirror();
    let anew = |epoch, parts: Vec<Message>| {
        let begin = [record(7, true), Message::Index { resumed: false, epoch }, init()];
        begin.into_iter().chain(parts).chain([Message::IndexComplete]).collect()
    };
    apply(&mut mirror, anew(2, vec![part(5, 0)]));
    let index = catalog.get(&id()).unwrap();
    apply(&mut mirror, anew(2, vec![listed(5)]));
    assert_eq!(index.fetch_bodies().await, Ok(()));
    apply(&mut mirror, anew(2, vec![listed(6)]));
    assert_eq!(index.fetch_bodies().await, Err(hls::FetchError::Unreachable));
}

/// Two halves of a cluster had a publisher each, and gave other bytes the same names.
#[tokio::test]
async fn of_another_publication_no_bytes_are_left_and_nothing_of_the_one_before_is_taken() {
    let (mut mirror, catalog) = mirror();
    let begin = |resumed, epoch| vec![record(7, true), Message::Index { resumed, epoch }, init()];
    apply(&mut mirror, subscription(7, 2));
    let index = catalog.get(&id()).unwrap();
    let mut later = begin(false, 3);
    later.extend([listed(2), Message::IndexComplete]);
    assert_eq!(apply(&mut mirror, later), Step::Ready);
    assert!(Arc::ptr_eq(&index, &catalog.get(&id()).unwrap()), "held requests go on");
    assert_eq!((index.epoch(), index.status().last), (3, Some(Position { msn: 2, part: 0 })));
    assert_eq!(
        index.fetch_bodies().await,
        Err(hls::FetchError::Unreachable),
        "it has the bytes of the other"
    );
    assert_eq!(mirror.resume().unwrap().to_string(), "0000000000000007;a:2.1&epoch=3");

    for resumed in [false, true] {
        assert_eq!(apply(&mut mirror, begin(resumed, 2)[..2].to_vec()), Step::Behind);
    }
    // A resumed index would leave what is here.
    assert!(mirror.apply(Message::Index { resumed: true, epoch: 4 }).is_err());
    // Half an index says nothing of where to go on.
    apply(&mut mirror, [begin(false, 4), vec![part(7, 0)]].concat());
    mirror.lost();
    assert_eq!(mirror.resume().unwrap().to_string(), "0000000000000007;a:2.1&epoch=3");
    assert_eq!((index.epoch(), index.status().last), (3, Some(Position { msn: 2, part: 0 })));
}

/// Or the parts of one session would be listed in another.
#[tokio::test]
async fn a_part_of_another_session_waits_for_its_index() {
    let (mut mirror, catalog) = mirror();
    apply(&mut mirror, subscription(7, 2));
    apply(&mut mirror, vec![record(8, true), init()]);
    assert!(matches!(mirror.apply(part(3, 0)), Err(MirrorError::TooEarly(_))));
    assert_eq!(catalog.get(&id()).unwrap().status().last, Some(Position { msn: 2, part: 3 }));
}

#[tokio::test]
async fn nobody_finds_what_was_let_go() {
    let (mut mirror, catalog) = mirror();
    apply(&mut mirror, subscription(7, 2));
    mirror.let_go();
    assert!(catalog.get(&id()).is_none() && mirror.resume().is_none());
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (0..3_u64, any::<bool>()).prop_map(|(session, live)| record(session, live)),
        (any::<bool>(), 0..4_u32).prop_map(|(resumed, epoch)| Message::Index { resumed, epoch }),
        Just(init()),
        Just(Message::IndexComplete),
        (0..3_u64, 0..4_u32).prop_map(|(msn, number)| part(msn, number)),
        (0..3_u16).prop_map(|track| Message::TrackEnd { track }),
        Just(Message::Clock { sent_ms: 0 }),
        Just(Message::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Threat: a node that is broken or hostile. Whatever it says, in whatever order, is followed or refused.
    #[test]
    fn any_order_of_messages_is_followed_or_refused(messages in prop::collection::vec(any_message(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut mirror, _) = mirror();
            for message in messages {
                // As after an error the subscription does, the mirror goes on with what comes next.
                let _ = mirror.apply(message);
                let _ = mirror.resume();
            }
            mirror.let_go();
        });
    }
}
