//! A session from its opening to the day it is forgotten, and what the packager may and may not do.

use std::time::{Duration, Instant};

use hls::{Announcement, Bandwidth, Part, Position, PushError, SegmentStart, State, StreamHeader};
use http::StatusCode;
use media::SessionId;

use crate::fixture::{
    SESSION, Stream, TARGET_DURATION_S, announcement, audio, header, id, init, media_playlist, name, part,
    video,
};

const NEXT_SESSION: SessionId = SessionId::from_random(0xCD);
const WINDOW: Duration = Duration::from_secs(7 * TARGET_DURATION_S as u64);

fn next_header() -> StreamHeader {
    StreamHeader { session: NEXT_SESSION, ..header(vec![video(), audio()]) }
}

#[tokio::test]
async fn mistake_5_a_new_session_takes_the_stable_url_and_shares_no_other_with_the_last() {
    let mut first = Stream::live();
    first.push_through(1, 3);
    assert!(first.get("index.m3u8").await.text().contains(&media_playlist("v")));
    first.end();

    let mut second = Stream::on(first.catalog.clone(), next_header());
    assert_eq!(second.get("index.m3u8").await.status, StatusCode::NOT_FOUND);
    second.writer().announce(announcement());
    second.push_through(0, 3);
    assert!(second.get("index.m3u8").await.text().contains("00000000000000cd/v/index.m3u8"));
    assert!(second.playlist("v").await.ends_with("#EXT-X-ENDLIST\n"), "the first session's own playlist");

    let now = Instant::now();
    first.catalog.expire(now + WINDOW - Duration::from_secs(1));
    assert_eq!(second.get(&media_playlist("v")).await.status, StatusCode::OK);
    first.catalog.expire(now + WINDOW);
    assert_eq!(second.get(&media_playlist("v")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(second.get("index.m3u8").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_ended_stream_is_served_for_a_window_and_then_forgotten() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    stream.end();
    assert_eq!(stream.catalog.get(&id()).unwrap().state(), State::Ended);
    assert_eq!(stream.get("index.m3u8").await.status, StatusCode::OK);
    stream.catalog.expire(Instant::now() + WINDOW);
    assert!(stream.catalog.get(&id()).is_none() && stream.catalog.streams().is_empty());
    assert_eq!(stream.get("index.m3u8").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_live_stream_never_expires() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    stream.catalog.expire(Instant::now() + Duration::from_secs(86_400));
    assert_eq!(stream.get("index.m3u8").await.status, StatusCode::OK);
}

/// A packager that panics or is aborted must not leave viewers waiting.
#[tokio::test]
async fn a_dropped_writer_ends_the_session() {
    let mut stream = Stream::live();
    stream.push_through(1, 1);
    let catalog = stream.catalog.clone();
    drop(stream);
    assert_eq!(catalog.get(&id()).unwrap().state(), State::Ended);
}

#[tokio::test]
async fn a_stream_that_ended_before_its_first_segment_is_not_starting() {
    let mut stream = Stream::starting(header(vec![video()]));
    stream.push("v", part(0, 0));
    stream.end();
    assert_eq!(stream.get("index.m3u8").await.header("retry-after"), "");
    stream.catalog.expire(Instant::now());
    assert!(stream.catalog.get(&id()).is_none());
}

/// Threat: a publisher that comes and goes, leaving a window of media behind each time.
#[tokio::test]
async fn sessions_of_one_name_do_not_pile_up() {
    let mut first = Stream::live();
    first.push_through(0, 3);
    first.end();
    for session in 0..4 {
        let header = StreamHeader { session: SessionId::from_random(session), ..next_header() };
        Stream::on(first.catalog.clone(), header);
    }
    assert_eq!(first.get(&media_playlist("v")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn status_tells_a_page_what_it_shows() {
    let mut stream = Stream::starting(header(vec![video(), audio()]));
    let index = stream.catalog.get(&id()).unwrap();
    assert_eq!((index.state(), index.status().bandwidth), (State::Starting, None));
    stream.writer().announce(announcement());
    stream.push_through(2, 1);

    let status = index.status();
    assert_eq!((status.state, status.session), (State::Live, SESSION));
    assert_eq!(status.codecs, "avc1.64001f,mp4a.40.2");
    assert_eq!((status.resolution, status.frame_rate), (Some((1280, 720)), Some(30.0)));
    assert_eq!(status.bandwidth, Some(Bandwidth { peak: 3_130_000, average: 2_628_000 }));
    assert_eq!(
        (status.target_duration_s, status.part_target_ms, status.part_hold_back_ms),
        (Some(4), 501, 1536)
    );
    assert_eq!(status.last, Some(Position { msn: 2, part: 1 }));
}

#[tokio::test]
async fn bandwidth_is_raised_and_never_lowered() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    let bandwidth = |peak, average| {
        let bandwidths = vec![(name("v"), Bandwidth { peak, average })];
        Announcement { target_duration_s: 9, bandwidths, ..announcement() }
    };
    let before = stream.get("index.m3u8").await;
    let renders = stream.renders();
    stream.writer().announce(bandwidth(5_000_000, 1));
    let raised = stream.get("index.m3u8").await;
    assert!(raised.text().contains("BANDWIDTH=5130000,AVERAGE-BANDWIDTH=2628000"), "{}", raised.text());
    assert_ne!(raised.header("etag"), before.header("etag"));
    stream.writer().announce(bandwidth(1, 1));
    assert_eq!(stream.get("index.m3u8").await.body, raised.body);
    // The media playlists are what they were: TARGETDURATION is fixed for good.
    assert_eq!(stream.renders(), renders);
    stream.push_both(1, 0);
    assert!(stream.playlist("v").await.contains("#EXT-X-TARGETDURATION:4\n"));
}

#[tokio::test]
async fn numbers_must_run_on() {
    let mut stream = Stream::live();
    let refused = |result: Result<(), PushError>| matches!(result, Err(PushError::OutOfOrder { .. }));
    assert!(refused(stream.try_push("v", part(5, 1))), "a rendition starts at part 0");
    stream.push("v", part(5, 0));
    stream.push("v", part(5, 1));
    for (msn, number) in [(5, 0), (5, 1), (5, 3), (6, 1), (7, 0), (4, 0)] {
        assert!(refused(stream.try_push("v", part(msn, number))), "{msn}.{number} after 5.1");
    }
    stream.push("v", Part { last: true, ..part(5, 2) });
    assert!(refused(stream.try_push("v", part(5, 3))), "the segment was complete");
    stream.push("v", part(6, 0));
}

fn with(discontinuity_sequence: u64, hash: &str) -> Part {
    let first = part(1, 0);
    let segment = SegmentStart { discontinuity_sequence, init: init(hash), ..first.segment.clone() };
    Part { segment, ..first }
}

#[tokio::test]
async fn p14_a_discontinuity_counts_by_one() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    assert_eq!(
        stream.try_push("v", with(2, "c0ffee")),
        Err(PushError::DiscontinuitySequence { msn: 1, previous: 0, got: 2 })
    );
    stream.push("v", with(1, "c0ffee"));
    let playlist = stream.playlist("v").await;
    assert!(playlist.contains("#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME"), "{playlist}");
}

#[tokio::test]
async fn p18_the_init_segment_changes_at_a_discontinuity_only_and_both_can_be_fetched() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    assert_eq!(stream.try_push("v", with(0, "decaf")), Err(PushError::InitWithoutDiscontinuity { msn: 1 }));
    stream.push("v", with(1, "decaf"));
    let playlist = stream.playlist("v").await;
    assert!(
        playlist
            .contains("#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-decaf.mp4\"\n#EXT-X-PROGRAM-DATE-TIME")
    );
    for hash in ["c0ffee", "decaf"] {
        let answer = stream.get(&format!("{SESSION}/v/init-{hash}.mp4")).await;
        assert_eq!(answer.text(), format!("init {hash}"));
    }
}

/// A publisher far above its announced rate loses history, of all renditions alike, and no one else's memory.
#[tokio::test]
async fn a_stream_keeps_to_its_bound_of_bytes() {
    const PART_BYTES: usize = 1000;
    let mut stream =
        Stream::starting(StreamHeader { retain_bytes_max: 100_000, ..header(vec![video(), audio()]) });
    stream.writer().announce(announcement());
    for msn in 0..100 {
        for number in 0..=3 {
            let body = vec![vec![0; PART_BYTES * 5].into()];
            stream.push("v", Part { body, ..part(msn, number) });
            stream.push(
                "a",
                Part { duration: 24_000, body: vec![vec![0; PART_BYTES].into()], ..part(msn, number) },
            );
        }
        if msn > 10 {
            assert_eq!(first_listed(&stream.playlist("v").await), first_listed(&stream.playlist("a").await));
        }
    }
    let mut kept = 0;
    for msn in 0..100 {
        for rendition in ["v", "a"] {
            let answer = stream.get(&format!("{SESSION}/{rendition}/{msn}.m4s")).await;
            kept += if answer.status == StatusCode::OK { answer.body.len() } else { 0 };
        }
    }
    assert!((60_000..=101_000).contains(&kept), "{kept}");
    assert!(stream.catalog.metrics().segments_evicted.get() > 0);
}

fn first_listed(playlist: &str) -> &str {
    playlist.lines().find(|line| line.starts_with("#EXT-X-MEDIA-SEQUENCE")).expect("every playlist has one")
}
