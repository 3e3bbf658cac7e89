//! Renditions that a transcode worker makes: there when it works, never waited for.

use std::time::Duration;

use hls::{Bandwidth, Derived, RenditionHeader};
use tokio::time::{sleep, timeout};

use crate::fixture::{Stream, announcement, header, id, name, part, video};

const SMALL: &str = "v360";

/// The publisher's picture and a rung, announced.
fn ladder() -> Stream {
    let rung = RenditionHeader { name: name(SMALL), derived: Some(Derived::always(1)), ..video() };
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
