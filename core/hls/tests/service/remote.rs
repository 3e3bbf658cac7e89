//! A node that follows another by its feed: the same bytes at the same URL, whatever happened in between.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use hls::{
    Backfill, Catalog, Entry, FedPart, Feed, Fetch, FetchError, Metrics, Part, Position, RenditionName,
    ResumeFrom, SegmentStart, State, StreamHeader, StreamIndex, StreamWriter,
};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{Method, StatusCode};
use media::SessionId;
use proptest::prelude::*;

use crate::fixture::{
    Stream, Viewer, announcement, audio, header, id, init, is_held, media_playlist, name, part, video,
};

/// Bodies by URL, as the first node has them; counted.
#[derive(Debug, Default)]
struct Bodies {
    bodies: Mutex<HashMap<(RenditionName, Position), Vec<Bytes>>>,
    fetched: AtomicUsize,
}

impl Backfill for Bodies {
    fn part<'a>(&'a self, rendition: &'a RenditionName, position: Position, _: u32) -> Fetch<'a> {
        Box::pin(async move {
            self.fetched.fetch_add(1, Ordering::Relaxed);
            // Others come to ask meanwhile.
            tokio::task::yield_now().await;
            let bodies = self.bodies.lock().unwrap();
            bodies.get(&(rendition.clone(), position)).cloned().ok_or(FetchError::Gone)
        })
    }
}

fn at<'a>(index: &StreamIndex, places: &'a [(RenditionName, Position)]) -> ResumeFrom<'a> {
    ResumeFrom { session: index.session(), epoch: index.epoch(), places }
}

/// A second node, in the smallest form: what the feed tells goes into a catalog of its own.
struct Child {
    catalog: Catalog,
    bodies: Arc<Bodies>,
    feed: Feed,
    header: Option<StreamHeader>,
    /// While the index comes.
    index: Option<Vec<(usize, FedPart)>>,
    writer: Option<StreamWriter>,
    next: Vec<(RenditionName, Position)>,
    carried: usize,
    resumed: Vec<bool>,
    epochs: Vec<u32>,
}

impl Child {
    fn of(index: Arc<StreamIndex>) -> Self {
        let next =
            index.renditions().iter().map(|rendition| (rendition.name.clone(), Position { msn: 0, part: 0 }));
        Self {
            catalog: Catalog::new(Metrics::default()),
            bodies: Arc::default(),
            next: next.collect(),
            feed: Feed::new(index, None),
            header: None,
            index: None,
            writer: None,
            carried: 0,
            resumed: Vec::new(),
            epochs: Vec::new(),
        }
    }

    fn newest(&self, rendition: &str) -> Option<Position> {
        let number = self.next.iter().position(|(known, _)| *known == name(rendition))?;
        let Position { msn, part } = self.next[number].1;
        Some(Position { msn, part: part.checked_sub(1)? })
    }

    /// The connection breaks, and a new one goes on.
    fn reconnect(&mut self, index: Arc<StreamIndex>) {
        let session = self.header.as_ref().unwrap().session;
        self.feed = Feed::new(index, Some(ResumeFrom { session, epoch: 1, places: &self.next }));
    }

    /// Takes everything that can be had without waiting.
    async fn catch_up(&mut self) {
        loop {
            let Some(Some(entry)) = at_once(pin!(self.feed.next())).await else { return };
            self.apply(entry);
        }
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Header { header, announcement } => {
                if let (Some(writer), Some(announcement)) = (&mut self.writer, announcement) {
                    writer.announce(announcement);
                }
                self.header = Some(header);
            }
            Entry::Index { resumed, epoch } => {
                self.resumed.push(resumed);
                self.epochs.push(epoch);
                self.index = (!resumed).then(Vec::new);
            }
            Entry::Init { .. } => {}
            Entry::Part { rendition, part } => {
                self.carried += usize::from(part.carried);
                self.next[rendition].1 = match part.part.last {
                    true => Position { msn: part.part.msn + 1, part: 0 },
                    false => Position { msn: part.part.msn, part: part.part.part + 1 },
                };
                match &mut self.index {
                    Some(index) => index.push((rendition, part)),
                    None => self.live(rendition, part),
                }
            }
            Entry::IndexComplete => {
                let Some(index) = self.index.take() else { return };
                let writer = self.writer.get_or_insert_with(|| {
                    let header = self.header.clone().unwrap();
                    let (writer, ()) = self.catalog.open_remote(header, self.bodies.clone(), |writer| {
                        writer.announce(announcement());
                    });
                    writer
                });
                for (number, (name, _)) in self.next.iter().enumerate() {
                    let parts = index.iter().filter(|(rendition, _)| *rendition == number);
                    let rendition = writer.rendition(name).unwrap();
                    rendition.restore(parts.map(|(_, fed)| (fed.part.clone(), fed.bytes))).unwrap();
                }
            }
            Entry::RenditionEnd { rendition } => {
                let name = self.next[rendition].0.clone();
                self.writer.as_mut().unwrap().rendition(&name).unwrap().end();
            }
            Entry::End => self.writer.take().unwrap().end(),
            Entry::Lost => panic!("nobody is that slow here"),
        }
    }

    fn live(&mut self, rendition: usize, fed: FedPart) {
        let writer = self.writer.as_mut().expect("the index comes first");
        let rendition = writer.rendition(&self.next[rendition].0).unwrap();
        rendition.forget_before(fed.oldest_msn);
        match fed.ends {
            true => rendition.push_last(fed.part).unwrap(),
            false => rendition.push_listed(fed.part, fed.bytes).unwrap(),
        }
    }

    fn viewer(&self) -> Viewer {
        Viewer::of(self.catalog.clone())
    }
}

/// What is there without waiting.
async fn at_once<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

/// Everything a viewer can ask for is the same at both nodes.
async fn assert_same(origin: &Viewer, child: &Viewer, segments: u64) {
    let mut paths = vec!["index.m3u8".to_owned(), media_playlist("v"), media_playlist("a")];
    for rendition in ["v", "a"] {
        for msn in 0..segments {
            let base = media_playlist(rendition).replace("index.m3u8", "");
            paths.push(format!("{base}{msn}.m4s"));
            paths.extend((0..4).map(|part| format!("{base}{msn}.{part}.m4s")));
        }
    }
    for path in paths {
        for encoding in ["identity", "gzip"] {
            // What is hinted would be held, and a body that is fetched takes another turn.
            let ask = async |viewer: &Viewer| {
                let headers = [(ACCEPT_ENCODING, encoding)];
                let mut answer = pin!(viewer.request(Method::GET, &path, &headers));
                for _ in 0..8 {
                    if let Some(answer) = at_once(answer.as_mut()).await {
                        return Some(answer);
                    }
                    tokio::task::yield_now().await;
                }
                None
            };
            let (first, second) = (ask(origin).await, ask(child).await);
            assert_eq!(first.is_none(), second.is_none(), "{path}");
            let (Some(first), Some(second)) = (first, second) else { continue };
            assert_eq!((first.status, &first.body), (second.status, &second.body), "{path} {encoding}");
            for name in [ETAG, CACHE_CONTROL, CONTENT_TYPE] {
                assert_eq!(first.headers.get(&name), second.headers.get(&name), "{path} {name}");
            }
        }
    }
}

/// What happens next at the first node, or to the child.
#[derive(Debug, Clone)]
enum Event {
    Part { gap: bool },
    CutShort,
    Discontinuity,
    NewInit,
    CatchUp,
    Reconnect,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<bool>().prop_map(|gap| Event::Part { gap }),
        1 => Just(Event::CutShort),
        1 => Just(Event::Discontinuity),
        1 => Just(Event::NewInit),
        4 => Just(Event::CatchUp),
        1 => Just(Event::Reconnect),
    ]
}

/// Where the packager stands.
struct Packager {
    next: Position,
    discontinuity_sequence: u64,
    init: &'static str,
    bodies: Arc<Bodies>,
}

impl Packager {
    fn push(&mut self, stream: &mut Stream, gap: bool) {
        let Position { msn, part: number } = self.next;
        let segment = SegmentStart {
            discontinuity_sequence: self.discontinuity_sequence,
            init: init(self.init),
            ..part(msn, number).segment
        };
        let mut video = Part { segment, gap, ..part(msn, number) };
        if gap {
            video.body.clear();
        }
        let audio = Part { duration: 24_000, independent: true, ..video.clone() };
        for (rendition, part) in [("v", video), ("a", audio)] {
            let position = Position { msn, part: number };
            self.bodies.bodies.lock().unwrap().insert((name(rendition), position), part.body.clone());
            stream.push(rendition, part);
        }
        self.next =
            if number == 3 { Position { msn: msn + 1, part: 0 } } else { Position { msn, part: number + 1 } };
    }

    fn begin_segment(&mut self) {
        if self.next.part > 0 {
            self.next = Position { msn: self.next.msn + 1, part: 0 };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// The child may take what comes part by part or in heaps, break off and go on: it always has what the first node has.
    #[test]
    fn a_child_has_the_bytes_of_its_upstream(events in prop::collection::vec(event(), 10..120), joins_after in 0_usize..40) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut stream = Stream::live();
            let index = stream.catalog.get(&id()).unwrap();
            let mut child = Child::of(index.clone());
            let mut packager = Packager {
                next: Position { msn: 0, part: 0 },
                discontinuity_sequence: 0,
                init: "00000000000000c0",
                bodies: child.bodies.clone(),
            };
            let mut gaps = false;
            for (number, event) in events.into_iter().enumerate() {
                gaps |= matches!(event, Event::Part { gap: true });
                match event {
                    Event::Part { gap } => packager.push(&mut stream, gap && number % 5 == 0),
                    Event::CutShort => packager.begin_segment(),
                    Event::Discontinuity => {
                        packager.begin_segment();
                        // Nothing follows yet.
                        packager.discontinuity_sequence += u64::from(packager.next.msn > 0);
                        packager.push(&mut stream, false);
                    }
                    Event::NewInit => {
                        packager.begin_segment();
                        packager.discontinuity_sequence += u64::from(packager.next.msn > 0);
                        packager.init = if packager.init.ends_with('0') { "00000000000000c1" } else { "00000000000000c0" };
                        packager.push(&mut stream, false);
                    }
                    Event::CatchUp if number >= joins_after => child.catch_up().await,
                    Event::Reconnect if child.header.is_some() && child.writer.is_some() => child.reconnect(index.clone()),
                    Event::CatchUp | Event::Reconnect => {}
                }
            }
            packager.push(&mut stream, false);
            child.catch_up().await;
            assert_same(&stream.viewer(), &child.viewer(), packager.next.msn + 1).await;
            assert!(gaps || child.resumed[1..].iter().all(|resumed| *resumed), "{:?}", child.resumed);

            stream.end();
            // The waker of each rendition has its turn.
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            child.catch_up().await;
            assert_same(&stream.viewer(), &child.viewer(), packager.next.msn + 1).await;
            assert_eq!(child.catalog.get(&id()).unwrap().state(), State::Ended);
        });
    }
}

#[tokio::test]
async fn what_is_listed_is_fetched_once_however_many_ask() {
    let mut stream = Stream::live();
    stream.push_through(5, 3);
    let mut child = Child::of(stream.catalog.get(&id()).unwrap());
    let path = media_playlist("v").replace("index.m3u8", "0.0.m4s");
    child.bodies.bodies.lock().unwrap().insert((name("v"), Position { msn: 0, part: 0 }), part(0, 0).body);
    child.catch_up().await;
    assert!(child.carried < 20, "old parts are listed, and {} came with their bytes", child.carried);

    let viewer = child.viewer();
    let asked = [viewer.get(&path), viewer.get(&path), viewer.get(&path)];
    let mut hanging_up = Box::pin(viewer.get(&path));
    assert!(is_held(hanging_up.as_mut()).await, "it began the fetch");
    drop(hanging_up);
    for answer in asked {
        assert_eq!(answer.await.text(), "head 0.0 payload 0.0;");
    }
    // Once for the one who hung up, once for all others.
    assert_eq!(child.bodies.fetched.load(Ordering::Relaxed), 2);
    let gone = path.replace("0.0.m4s", "0.1.m4s");
    assert_eq!(viewer.get(&gone).await.status, StatusCode::NOT_FOUND);
    assert_eq!(child.bodies.fetched.load(Ordering::Relaxed), 3);
    assert_eq!(viewer.get(&gone).await.status, StatusCode::NOT_FOUND, "what failed is tried again");
    assert_eq!(child.bodies.fetched.load(Ordering::Relaxed), 4);
}

/// Another part under this name would be cached for an hour.
#[tokio::test]
async fn a_body_of_another_length_is_not_passed_on() {
    let mut stream = Stream::live();
    stream.push_through(5, 3);
    let mut child = Child::of(stream.catalog.get(&id()).unwrap());
    let position = Position { msn: 0, part: 0 };
    child.bodies.bodies.lock().unwrap().insert((name("v"), position), vec![Bytes::from_static(b"short")]);
    child.catch_up().await;
    let path = media_playlist("v").replace("index.m3u8", "0.0.m4s");
    assert_eq!(child.viewer().get(&path).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn no_playlist_before_the_index_is_complete() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let mut child = Child::of(stream.catalog.get(&id()).unwrap());
    while let Some(entry) = child.feed.next().await {
        if matches!(entry, Entry::IndexComplete) {
            assert_eq!(child.viewer().get(&media_playlist("v")).await.status, StatusCode::NOT_FOUND);
            child.apply(entry);
            break;
        }
        child.apply(entry);
        assert!(child.catalog.get(&id()).is_none());
    }
    assert_eq!(child.viewer().get(&media_playlist("v")).await.status, StatusCode::OK);
}

/// One that slept so long that its place is gone starts again; it is never sent a hole.
#[tokio::test]
async fn a_reader_that_fell_out_of_the_store_is_told_so() {
    let mut stream =
        Stream::starting(StreamHeader { retain_bytes_max: 200, ..header(vec![video(), audio()]) });
    stream.writer().announce(announcement());
    let index = stream.catalog.get(&id()).unwrap();
    stream.push_both(0, 0);
    let mut feed = Feed::new(index.clone(), None);
    while !matches!(feed.next().await, Some(Entry::IndexComplete)) {}
    for (msn, number) in (0..40).flat_map(|msn| (0..4).map(move |number| (msn, number))).skip(1) {
        stream.push_both(msn, number);
    }
    let progress = feed.progress();
    assert!(progress.lag().as_secs() > 0, "{:?}", progress.lag());
    assert!(matches!(feed.next().await, Some(Entry::Lost)));
    assert!(feed.next().await.is_none());

    let from = [(name("v"), Position { msn: 0, part: 1 }), (name("a"), Position { msn: 0, part: 1 })];
    let mut again = Feed::new(index.clone(), Some(at(&index, &from)));
    assert!(matches!(again.next().await, Some(Entry::Header { .. })));
    assert!(matches!(again.next().await, Some(Entry::Index { resumed: false, .. })));
}

/// A process that was restarted lists as gaps what its readers may have had, under the same numbers.
#[tokio::test]
async fn a_reader_does_not_go_on_behind_a_gap() {
    let mut stream = Stream::live();
    stream.push_both(0, 0);
    for rendition in ["v", "a"] {
        stream.push(rendition, Part { gap: true, body: Vec::new(), ..part(0, 1) });
    }
    let index = stream.catalog.get(&id()).unwrap();
    for (next, expected) in [(1, true), (2, false)] {
        let from = ["v", "a"].map(|rendition| (name(rendition), Position { msn: 0, part: next }));
        let mut feed = Feed::new(index.clone(), Some(at(&index, &from)));
        feed.next().await;
        let Some(Entry::Index { resumed, .. }) = feed.next().await else { panic!("no index") };
        assert_eq!(resumed, expected, "who wants part {next}");
    }
}

/// Of two nodes that follow a third one is always ahead: who comes from it is never shown less than it had.
#[tokio::test]
async fn a_reader_that_was_further_elsewhere_goes_on_when_the_index_is_as_far() {
    let mut stream = Stream::live();
    stream.push_both(0, 0);
    let index = stream.catalog.get(&id()).unwrap();
    let from = ["v", "a"].map(|rendition| (name(rendition), Position { msn: 0, part: 2 }));
    let from = at(&index, &from);
    let mut caught_up = pin!(Feed::caught_up(&index, from));
    for rendition in ["v", "a"] {
        tokio::select! {
            biased;
            () = &mut caught_up => panic!("a part of {rendition} is still to come"),
            () = std::future::ready(()) => {}
        }
        stream.push(rendition, part(0, 1));
    }
    caught_up.await;
    let mut feed = Feed::new(index.clone(), Some(from));
    feed.next().await;
    assert!(matches!(feed.next().await, Some(Entry::Index { resumed: true, .. })));
    // Of another session nothing is waited for, and neither of another publication.
    let ahead = [(name("v"), Position { msn: 9, part: 0 })];
    for from in [
        ResumeFrom { session: SessionId::from_random(9), ..at(&index, &ahead) },
        ResumeFrom { epoch: 2, ..at(&index, &ahead) },
    ] {
        Feed::caught_up(&index, from).await;
    }
}

/// Another publication has taken the session over, with other bytes under the same names.
#[tokio::test]
async fn a_reader_begins_anew_where_another_publication_takes_over() {
    let mut stream = Stream::live();
    for number in 0..3 {
        stream.push_both(0, number);
    }
    let index = stream.catalog.get(&id()).unwrap();
    let mut child = Child::of(index.clone());
    child.catch_up().await;
    assert_eq!(child.newest("v"), Some(Position { msn: 0, part: 2 }));

    stream.writer().supersede(2, |writer| {
        for rendition in ["v", "a"] {
            let other = Part { body: vec![Bytes::from_static(b"other")], ..part(0, 0) };
            writer.rendition(&name(rendition)).unwrap().restore([(other, 5)]).unwrap();
        }
    });
    child.catch_up().await;
    assert_eq!(child.epochs, [1, 2]);
    assert_eq!(child.newest("v"), Some(Position { msn: 0, part: 0 }), "nothing of the one before is left");
    stream.push_both(0, 1);
    child.catch_up().await;
    assert_eq!(child.newest("a"), Some(Position { msn: 0, part: 1 }));
    // A place in the one before is none in this one.
    child.reconnect(index);
    child.catch_up().await;
    assert_eq!(child.resumed, [false, false, false]);
}

/// A child so slow gets the numbers of what it missed, and fetches what somebody wants.
#[tokio::test]
async fn a_slow_reader_is_not_sent_what_its_viewers_skip() {
    let mut stream = Stream::live();
    stream.push_both(0, 0);
    let mut child = Child::of(stream.catalog.get(&id()).unwrap());
    child.catch_up().await;
    (1..4).for_each(|number| stream.push_both(0, number));
    (1..10).for_each(|msn| (0..4).for_each(|number| stream.push_both(msn, number)));
    let before = child.carried;
    child.catch_up().await;
    // Four seconds of half-second parts, and the newest, of two renditions.
    assert_eq!(child.carried - before, 2 * 9);
    assert_eq!(child.next[0].1, Position { msn: 10, part: 0 });
}
