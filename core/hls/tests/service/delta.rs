//! Delta updates, and what else a query may hold, from the viewer's side.

use std::pin::pin;

use hls::Announcement;
use http::StatusCode;
use http::header::{CACHE_CONTROL, ETAG};

use crate::fixture::{
    Stream, TARGET_DURATION_S, announcement, header, is_held, media_playlist, part, reload, video,
};

#[tokio::test(start_paused = true)]
async fn r8_a_delta_update_is_held_for_as_the_full_playlist_is() {
    let mut stream = Stream::live();
    stream.push_through(20, 1);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=20&_HLS_part=2&_HLS_skip=YES"));
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    stream.push_both(20, 2);
    let delta = request.await;
    assert!(delta.text().contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n"), "{}", delta.text());
    assert!(delta.text().contains("URI=\"20.2.m4s\""));
    assert_eq!(delta.header(CACHE_CONTROL), "public, max-age=24");

    let full = stream.get(&media_playlist("v")).await;
    assert_ne!(delta.header(ETAG), full.header(ETAG), "other bytes");
    assert_eq!(stream.get(&reload("v", "_HLS_skip=v2")).await.body, delta.body);
    assert_eq!(stream.get(&reload("v", "_HLS_skip=NO")).await.body, full.body);
    stream.end();
    let ended = stream.get(&reload("v", "_HLS_skip=YES")).await.text();
    assert!(!ended.contains("EXT-X-SKIP") && ended.ends_with("#EXT-X-ENDLIST\n"), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn r8_without_anything_beyond_the_boundary_the_full_playlist_is_the_delta() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let full = stream.get(&media_playlist("v")).await;
    let delta = stream.get(&reload("v", "_HLS_skip=YES")).await;
    assert_eq!((delta.header(ETAG), &delta.body), (full.header(ETAG), &full.body));
}

/// A window of six target durations or less has nothing to skip: then nothing is promised either.
#[tokio::test(start_paused = true)]
async fn r8_p16_nothing_is_skipped_in_a_window_too_short_for_it() {
    let mut stream = Stream::starting(header(vec![video()]));
    stream.writer().announce(Announcement { window_ms: 6000 * TARGET_DURATION_S, ..announcement() });
    for msn in 0..20 {
        (0..=3).for_each(|number| stream.push("v", part(msn, number)));
    }
    let full = stream.playlist("v").await;
    assert!(!full.contains("CAN-SKIP-UNTIL"), "{full}");
    assert_eq!(stream.get(&reload("v", "_HLS_skip=YES")).await.text(), full);
}

/// Made for the first who asks, once for all, and for none where nobody does.
#[tokio::test(start_paused = true)]
async fn r8_a_delta_update_is_rendered_once_and_only_if_someone_asks() {
    let mut stream = Stream::live();
    stream.push_through(20, 1);
    let rendered = |stream: &Stream| stream.catalog.metrics().playlist_delta_renders.get();
    assert_eq!(rendered(&stream), 0);
    for _ in 0..100 {
        stream.get(&reload("v", "_HLS_skip=YES")).await;
    }
    assert_eq!(rendered(&stream), 1);
    stream.push_both(20, 2);
    assert_eq!(rendered(&stream), 1);
}

/// Tokens of whoever stands before us must not make another answer, or caches would keep one for each viewer.
#[tokio::test(start_paused = true)]
async fn r11_the_answer_does_not_depend_on_other_parameters() {
    let mut stream = Stream::live();
    stream.push_through(20, 1);
    for directives in
        ["", "_HLS_msn=20&_HLS_part=1", "_HLS_skip=YES", "_HLS_msn=20&_HLS_part=1&_HLS_skip=YES"]
    {
        let answer = stream.get(&reload("v", directives)).await;
        let other = stream.get(&reload("v", &format!("A=1&{directives}&max=1&token=%2F&z"))).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!((answer.headers, answer.body), (other.headers, other.body), "{directives}");
    }
}
