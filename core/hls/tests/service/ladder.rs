//! Renditions that a transcode worker makes: there when it works, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hls::{Bandwidth, Demand, Derived, Feed, PushError, RenditionHeader, SegmentStart};
use media::CodecConfig;
use media::codec::vp8;
use tokio::time::{sleep, timeout};

use crate::fixture::{Stream, announcement, header, id, init, name, part, video};

const SMALL: &str = "v360";

/// The publisher's picture and a rung, announced.
fn ladder() -> Stream {
    ladder_of(Derived::always(1))
}

fn ladder_of(derived: Derived) -> Stream {
    let rung = RenditionHeader { name: name(SMALL), derived: Some(derived), ..video() };
    let mut stream = Stream::starting(header(vec![video(), rung]));
    let mut announcement = announcement();
    announcement.bandwidths.push((name(SMALL), Bandwidth { peak: 700_000, average: 700_000 }));
    stream.writer().announce(announcement);
    stream
}

fn segment(stream: &mut Stream, rendition: &str, msn: u64, gap: bool) {
    for number in 0..4 {
        stream.push(rendition, hls::Part { gap, ..part(msn, number) });
    }
}

/// The multivariant playlist's variants and its ETag.
async fn offer(stream: &Stream) -> (usize, String) {
    let answer = stream.get("index.m3u8").await;
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();
    (answer.text().matches("#EXT-X-STREAM-INF").count(), etag)
}

#[tokio::test]
async fn a_rung_is_offered_from_its_first_segment_on_and_never_waited_for() {
    let mut stream = ladder();
    segment(&mut stream, "v", 0, false);
    let (variants, before) = offer(&stream).await;
    assert_eq!(variants, 1, "live without the rung");
    assert!(!stream.get("index.m3u8").await.text().contains(SMALL));
    segment(&mut stream, "v", 1, false);
    // The worker came late; its numbers are the others'.
    segment(&mut stream, SMALL, 1, false);
    let (variants, after) = offer(&stream).await;
    assert_eq!(variants, 2);
    assert_ne!(before, after, "another text has another ETag");
    assert!(stream.playlist(SMALL).await.contains("#EXT-X-MEDIA-SEQUENCE:1\n"));
}

#[tokio::test]
async fn a_rung_without_media_keeps_its_playlist_and_is_offered_to_no_newcomer() {
    let mut stream = ladder();
    for msn in 0..2 {
        segment(&mut stream, "v", msn, false);
        segment(&mut stream, SMALL, msn, false);
    }
    let offers = [(2, true, 2), (3, true, 1), (4, true, 1), (5, false, 2)];
    for (msn, gap, expected) in offers {
        segment(&mut stream, "v", msn, false);
        segment(&mut stream, SMALL, msn, gap);
        assert_eq!(offer(&stream).await.0, expected, "after segment {msn}");
        assert_eq!(stream.playlist(SMALL).await.matches("#EXTINF").count() as u64, msn + 1);
    }
}

/// No player takes VP8 by HLS: there the rungs are all there is, and without one there is nothing yet.
#[tokio::test]
async fn where_nobody_can_play_the_publishers_own_the_rungs_are_the_stream() {
    let keyframe = [0x50, 0x07, 0x00, 0x9D, 0x01, 0x2A, 0x00, 0x05, 0xD0, 0x02];
    let codec = CodecConfig::Vp8(vp8::Config::of_keyframe(&keyframe).unwrap());
    let rung = RenditionHeader { name: name(SMALL), derived: Some(Derived::always(1)), ..video() };
    let mut stream = Stream::starting(header(vec![RenditionHeader { codec, ..video() }, rung]));
    let mut announcement = announcement();
    announcement.bandwidths.push((name(SMALL), Bandwidth { peak: 700_000, average: 700_000 }));
    stream.writer().announce(announcement);
    segment(&mut stream, "v", 0, false);
    assert_eq!(stream.get("index.m3u8").await.status, 404, "it is starting");
    segment(&mut stream, "v", 1, false);
    segment(&mut stream, SMALL, 1, false);
    // While the worker is restarted, too.
    for (msn, gap) in [(2, false), (3, true), (4, true), (5, false)] {
        let text = stream.get("index.m3u8").await.text();
        assert!(text.contains(SMALL) && !text.contains("/v/"), "before segment {msn}: {text}");
        segment(&mut stream, "v", msn, false);
        segment(&mut stream, SMALL, msn, gap);
    }
}

#[tokio::test]
async fn viewers_of_a_rung_are_viewers() {
    let mut stream = ladder();
    segment(&mut stream, "v", 0, false);
    segment(&mut stream, SMALL, 0, false);
    for _ in 0..3 {
        stream.playlist(SMALL).await;
    }
    // They are counted by whole seconds.
    let index = stream.catalog.get(&id()).unwrap();
    let counted = async {
        while index.status().viewers == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(5), counted).await.is_ok());
}

#[tokio::test]
async fn a_publisher_that_is_gone_is_no_fault_of_the_rung() {
    let mut stream = ladder();
    for (msn, gap) in [(0, false), (1, true), (2, true), (3, true)] {
        segment(&mut stream, "v", msn, gap);
        segment(&mut stream, SMALL, msn, gap);
    }
    assert_eq!(offer(&stream).await.0, 2);
}

/// Counts who watches.
#[derive(Debug, Default)]
struct Watched {
    touches: AtomicUsize,
    holds: Arc<AtomicUsize>,
}

struct Held(Arc<AtomicUsize>);

impl Demand for Watched {
    fn touch(&self) {
        self.touches.fetch_add(1, Ordering::Relaxed);
    }

    fn hold(&self) -> Box<dyn Send + Sync> {
        self.holds.fetch_add(1, Ordering::Relaxed);
        Box::new(Held(self.holds.clone()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn on_demand() -> (Stream, Arc<Watched>) {
    let watched = Arc::<Watched>::default();
    (ladder_of(Derived { every: 1, on_demand: Some(watched.clone()) }), watched)
}

#[tokio::test]
async fn a_rung_that_waits_for_viewers_is_offered_to_them_though_it_is_all_gaps() {
    let (mut stream, _) = on_demand();
    segment(&mut stream, "v", 0, false);
    assert_eq!(offer(&stream).await.0, 1, "it has no playlist yet");
    for msn in 0..5 {
        segment(&mut stream, "v", msn + 1, false);
        segment(&mut stream, SMALL, msn, true);
        assert_eq!(offer(&stream).await.0, 2, "after segment {msn}");
    }
    let playlist = stream.playlist(SMALL).await;
    assert!(playlist.contains("#EXT-X-GAP") && !playlist.contains("#EXT-X-ENDLIST"), "{playlist}");
}

#[tokio::test]
async fn whoever_makes_a_rung_on_demand_learns_of_its_viewers_and_of_no_others() {
    let (mut stream, watched) = on_demand();
    for msn in 0..2 {
        segment(&mut stream, "v", msn, false);
        segment(&mut stream, SMALL, msn, true);
    }
    offer(&stream).await;
    stream.playlist("v").await;
    stream.catalog.get(&id()).unwrap().status();
    assert_eq!(watched.touches.load(Ordering::Relaxed), 0);
    stream.playlist(SMALL).await;
    assert_eq!(watched.touches.load(Ordering::Relaxed), 1);
    let feed = Feed::new(stream.catalog.get(&id()).unwrap(), None);
    assert_eq!(watched.holds.load(Ordering::Relaxed), 1, "a node that follows the session");
    drop(feed);
    assert_eq!(watched.holds.load(Ordering::Relaxed), 0);
}

/// An origin follows what it may be asked for, and says so when somebody is there.
#[tokio::test]
async fn for_a_node_that_only_has_to_be_ready_nothing_is_made_until_somebody_watches_there() {
    let (mut stream, watched) = on_demand();
    segment(&mut stream, "v", 0, false);
    segment(&mut stream, SMALL, 0, true);
    let index = stream.catalog.get(&id()).unwrap();
    let ready = Feed::unwatched(index.clone(), None);
    assert_eq!((watched.holds.load(Ordering::Relaxed), index.is_watched()), (0, false));
    index.touch();
    assert_eq!((watched.touches.load(Ordering::Relaxed), index.is_watched()), (1, true));
    drop(ready);
}

#[tokio::test]
async fn a_session_is_watched_while_a_node_follows_it_for_its_viewers() {
    let (stream, _) = on_demand();
    let index = stream.catalog.get(&id()).unwrap();
    let feed = Feed::new(index.clone(), None);
    assert!(index.is_watched());
    drop(feed);
    assert!(!index.is_watched());
}

/// What an encoder writes is known when it runs; until then the rung has the init segment of what was announced.
#[tokio::test]
async fn p18_the_first_media_of_a_rung_brings_its_init_segment_and_no_later_one_does() {
    let (mut stream, _) = on_demand();
    segment(&mut stream, "v", 0, false);
    segment(&mut stream, SMALL, 0, true);
    let encoded = |msn, number, hash: &str| {
        let part = part(msn, number);
        hls::Part { segment: SegmentStart { init: init(hash), ..part.segment.clone() }, ..part }
    };
    for number in 0..4 {
        stream.push(SMALL, encoded(1, number, "e"));
    }
    assert!(stream.playlist(SMALL).await.contains("#EXT-X-MAP:URI=\"init-e.mp4\""));
    let refused = stream.try_push(SMALL, encoded(2, 0, "f"));
    assert_eq!(refused, Err(PushError::InitWithoutDiscontinuity { msn: 2 }));
}
