//! Blocking reloads and hinted parts, from the viewer's side. Time is paused: a request that nobody wakes runs
//! into its 503 at once, and the test fails without having waited.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use hls::{Part, StreamHeader};
use http::StatusCode;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::fixture::{
    SESSION, Stream, TARGET_DURATION_S, announcement, audio, header, id, is_held, media_playlist, name,
    other_id, part, reload, serve, video,
};

#[tokio::test(start_paused = true)]
async fn r1_a_reload_is_answered_by_the_part_it_waits_for() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=3&_HLS_part=2"));
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);

    stream.push_both(3, 2);
    let answer = request.await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().contains("#EXT-X-PART:DURATION=0.500000,URI=\"3.2.m4s\"\n"));
    assert!(answer.text().contains("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"3.3.m4s\"\n"));
    // Six target durations: this URL names this version for good.
    assert_eq!(answer.header(CACHE_CONTROL), "public, max-age=24");
}

/// Answering Safari's msn-only form early made it spin and starved its video.
#[tokio::test(start_paused = true)]
async fn r2_an_msn_alone_is_held_through_every_part_of_the_segment() {
    let mut stream = Stream::live();
    stream.push_through(2, 3);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=3"));
    let mut request = pin!(viewer.get(&path));
    for number in 0..=2 {
        stream.push_both(3, number);
        assert!(is_held(request.as_mut()).await, "part {number}");
    }
    stream.push_both(3, 3);
    assert!(request.await.text().contains("\n3.m4s\n"));
}

#[tokio::test(start_paused = true)]
async fn r3_a_part_past_the_end_of_a_segment_waits_for_the_next_segment() {
    let mut stream = Stream::live();
    stream.push_through(3, 3);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=3&_HLS_part=4"));
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    stream.push_both(4, 0);
    assert!(request.await.text().contains("URI=\"4.0.m4s\""));
}

#[tokio::test(start_paused = true)]
async fn r4_r5_nonsense_is_refused_at_once_and_not_cached() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    for directives in ["_HLS_part=1", "_HLS_msn=x", "_HLS_msn=99", "_HLS_msn=3&_HLS_part=50"] {
        let answer = stream.get(&reload("v", directives)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{directives}");
        assert_eq!(answer.header(CACHE_CONTROL), "no-store", "{directives}");
    }
    assert_eq!(stream.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn r6_h5_a_stall_ends_in_503_after_three_target_durations() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    for path in [reload("v", "_HLS_msn=3&_HLS_part=2"), format!("{SESSION}/v/3.2.m4s")] {
        let asked = Instant::now();
        let answer = stream.get(&path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header(CACHE_CONTROL), "no-store");
        assert_eq!(answer.header(RETRY_AFTER), "1");
        let held = asked.elapsed();
        let held_max = Duration::from_secs(3 * u64::from(TARGET_DURATION_S));
        assert!((held_max..held_max + Duration::from_millis(2)).contains(&held), "{held:?}");
    }
    assert_eq!(stream.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn r7_the_end_of_the_stream_answers_everything_that_is_held() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let viewer = stream.viewer();
    let paths =
        ["_HLS_msn=3&_HLS_part=2", "_HLS_msn=4", "_HLS_msn=4&_HLS_part=0"].map(|query| reload("a", query));
    let mut requests: Vec<_> = paths.iter().map(|path| Box::pin(viewer.get(path))).collect();
    for request in &mut requests {
        assert!(is_held(request.as_mut()).await);
    }
    stream.end();
    for request in requests {
        let text = request.await.text();
        assert!(text.ends_with("#EXT-X-ENDLIST\n") && !text.contains("PRELOAD-HINT"), "{text}");
    }
    // And whatever is asked afterwards.
    assert_eq!(stream.get(&reload("a", "_HLS_msn=4000")).await.status, StatusCode::OK);
}

/// A viewer that waits for the next part gets the last one and ENDLIST together, and never a hint at a part after it.
#[tokio::test(start_paused = true)]
async fn r7_the_last_part_comes_with_the_end() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=3&_HLS_part=2"));
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    let last = Part { last: true, ..part(3, 2) };
    stream.writer().rendition(&name("v")).unwrap().push_last(last).unwrap();
    let text = request.await.text();
    assert!(text.contains("3.2.m4s") && text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    let rendered = stream.renders();
    stream.end();
    assert_eq!(stream.renders(), rendered + 1, "only the other rendition is rendered again");
}

#[tokio::test(start_paused = true)]
async fn r9_the_hinted_part_is_held_and_then_sent_whole() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), format!("{SESSION}/v/3.2.m4s"));
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    stream.push_both(3, 2);
    let answer = request.await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "head 3.2 payload 3.2;"));
}

#[tokio::test(start_paused = true)]
async fn r9_a_withdrawn_hint_is_not_found() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), format!("{SESSION}/v/3.2.m4s"));
    // The segment is closed short: the next part belongs to the next one.
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    stream.push_both(4, 0);
    assert_eq!(request.await.status, StatusCode::NOT_FOUND);
    assert!(stream.playlist("v").await.contains("#EXTINF:1.000000,\n3.m4s\n"));

    // The stream ends instead.
    let path = format!("{SESSION}/v/4.1.m4s");
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    stream.end();
    assert_eq!(request.await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn r9_a_hinted_part_that_turns_out_a_gap_is_not_found() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), format!("{SESSION}/v/3.2.m4s"));
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    stream.push("v", Part { gap: true, independent: false, body: Vec::new(), ..part(3, 2) });
    assert_eq!(request.await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn r10_a_part_nobody_promised_is_not_found_at_once() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    for file in ["3.3.m4s", "4.0.m4s", "400.0.m4s", "3.m4s", "4.m4s"] {
        let answer = stream.get(&format!("{SESSION}/v/{file}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{file}");
        assert_eq!(answer.header(CACHE_CONTROL), "public, max-age=1", "{file}");
    }
}

/// The mistake that does not scale: a playlist rendered for each of those who wait.
#[tokio::test(start_paused = true)]
async fn mistake_4_a_thousand_held_viewers_cost_one_rendering_per_part() {
    const VIEWERS: usize = 1000;
    const PARTS: u64 = 4 * 4;
    let mut stream = Stream::live();
    stream.push_through(3, 3);
    let viewer = stream.viewer();
    // The announcement came first, so the three parts before the first complete segment rendered nothing.
    let rendered = stream.renders();
    assert_eq!(rendered, (PARTS - 3) * 2);

    let path = reload("v", "_HLS_msn=4&_HLS_part=0");
    let mut requests: Vec<_> = (0..VIEWERS).map(|_| Box::pin(viewer.get(&path))).collect();
    for request in &mut requests {
        assert!(is_held(request.as_mut()).await);
    }
    assert_eq!(stream.held(), VIEWERS as i64);
    stream.push_both(4, 0);
    for request in requests {
        let answer = request.await;
        assert!(answer.status == StatusCode::OK && answer.text().contains("URI=\"4.0.m4s\""));
    }
    assert_eq!((stream.renders(), stream.held()), (rendered + 2, 0));

    let path = reload("v", "_HLS_msn=4");
    let mut requests: Vec<_> = (0..VIEWERS).map(|_| Box::pin(viewer.get(&path))).collect();
    for request in &mut requests {
        assert!(is_held(request.as_mut()).await);
    }
    stream.end();
    for request in requests {
        assert!(request.await.text().ends_with("#EXT-X-ENDLIST\n"));
    }
    assert_eq!((stream.renders(), stream.held()), (rendered + 4, 0));
}

/// Threat 15: ten thousand are held, and all of them have their answer within a second of what they waited for.
#[tokio::test(start_paused = true)]
async fn ten_thousand_held_requests_are_answered_together() {
    const VIEWERS: usize = 10_000;
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let answered = Arc::new(AtomicUsize::new(0));
    for (turn, query) in ["_HLS_msn=3&_HLS_part=2", "_HLS_msn=4"].into_iter().enumerate() {
        let path = reload("v", query);
        let requests: Vec<_> = (0..VIEWERS)
            .map(|_| {
                let (viewer, path, answered) = (stream.viewer(), path.clone(), Arc::clone(&answered));
                tokio::spawn(async move {
                    let answer = viewer.get(&path).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    (answer.status, std::time::Instant::now())
                })
            })
            .collect();
        while stream.held() < VIEWERS as i64 {
            yield_now().await;
        }
        let published = std::time::Instant::now();
        match turn {
            0 => stream.push_both(3, 2),
            _ => stream.end(),
        }
        let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
        for request in requests {
            let (status, at) = request.await.unwrap();
            assert_eq!(status, StatusCode::OK);
            first = first.min(at - published);
            last = last.max(at - published);
        }
        println!("{first:?} to {last:?}");
        assert!(last < Duration::from_secs(1), "{first:?} to {last:?}");
    }
}

/// Ten thousand wakes take milliseconds; the packager must not spend them.
#[tokio::test(start_paused = true)]
async fn a_push_wakes_nobody_itself() {
    #[derive(Default)]
    struct Wakes(AtomicUsize);
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=3&_HLS_part=2"));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut requests: Vec<_> = (0..100).map(|_| Box::pin(viewer.get(&path))).collect();
    for request in &mut requests {
        assert!(request.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let woken = || wakes.0.load(Ordering::Relaxed);

    stream.push_both(3, 2);
    assert_eq!(woken(), 0);
    while woken() < requests.len() {
        yield_now().await;
    }
}

/// A viewer who closes the tab frees the place at once.
#[tokio::test(start_paused = true)]
async fn a_hold_ends_with_its_connection() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=3&_HLS_part=2"));
    let mut request = Box::pin(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
    assert_eq!(stream.held(), 1);
    drop(request);
    assert_eq!(stream.held(), 0);
}

/// Threat: connections opened only to be held, until the node has no memory left. And one stream's crowd must not push
/// another's few viewers into polling.
#[tokio::test(start_paused = true)]
async fn r6_held_requests_are_bounded_for_a_stream_and_for_the_node() {
    const NODE_MAX: usize = 20_000;
    const STREAM_MAX: usize = 15_000;
    let mut crowded = Stream::live();
    crowded.push_through(3, 1);
    let mut quiet =
        Stream::on(crowded.catalog.clone(), StreamHeader { id: other_id(), ..header(vec![video()]) });
    quiet.writer().announce(announcement());
    for (msn, number) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)] {
        quiet.push("v", part(msn, number));
    }

    let (viewer, path) = (crowded.viewer(), reload("v", "_HLS_msn=3&_HLS_part=2"));
    let mut crowd: Vec<_> = (0..STREAM_MAX).map(|_| Box::pin(viewer.get(&path))).collect();
    for request in &mut crowd {
        assert!(is_held(request.as_mut()).await);
    }
    // Of another address, or this one's own bound would come before the node's.
    let mut elsewhere = crowded.viewer();
    elsewhere.address = [192, 0, 2, 1].into();
    let refused = async |path: &str| {
        let asked = Instant::now();
        let refused = elsewhere.get(path).await;
        assert_eq!((refused.status, refused.header(RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        assert_eq!(asked.elapsed(), Duration::ZERO);
    };
    refused(&path).await;
    // What needs no waiting is served all the same.
    assert_eq!(viewer.get(&media_playlist("v")).await.status, StatusCode::OK);

    let others = format!("/hls/{}/{}", other_id(), reload("v", "_HLS_msn=1&_HLS_part=1"));
    let mut few: Vec<_> = (STREAM_MAX..NODE_MAX).map(|_| Box::pin(elsewhere.get(&others))).collect();
    for request in &mut few {
        assert!(is_held(request.as_mut()).await);
    }
    refused(&others).await;

    few.pop();
    refused(&path).await;
    crowd.pop();
    let mut request = pin!(viewer.get(&path));
    assert!(is_held(request.as_mut()).await);
}

/// HTTP/1.1 answers in order, so a viewer who asks for a thousand things at once is held once.
#[tokio::test]
async fn r6_a_connection_is_held_once_however_many_requests_it_sends() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (mut client, server) = tokio::io::duplex(1 << 16);
    tokio::spawn(serve(stream.catalog.clone(), server));
    let target = format!("/hls/{}/{}", id(), reload("v", "_HLS_msn=3&_HLS_part=2"));
    let request = format!("GET {target} HTTP/1.1\r\nHost: node\r\n\r\n");
    client.write_all(request.repeat(100).as_bytes()).await.unwrap();
    while stream.held() == 0 {
        yield_now().await;
    }
    assert_eq!(stream.held(), 1);
    stream.push_both(3, 2);
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// A node that goes down holds nobody: the one that comes after it will.
#[tokio::test(start_paused = true)]
async fn a_drain_answers_everything_that_is_held_and_still_serves_what_is_there() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let viewer = stream.viewer();
    let paths =
        [reload("v", "_HLS_msn=3&_HLS_part=2"), reload("a", "_HLS_msn=4"), format!("{SESSION}/v/3.2.m4s")];
    let mut requests: Vec<_> = paths.iter().map(|path| Box::pin(viewer.get(path))).collect();
    for request in &mut requests {
        assert!(is_held(request.as_mut()).await);
    }
    // What was published before has woken everybody by now, and nothing else will but the drain.
    for _ in 0..1_000 {
        yield_now().await;
    }
    for request in &mut requests {
        assert!(is_held(request.as_mut()).await);
    }
    let asked = Instant::now();
    stream.catalog.drain();
    for request in requests {
        let answer = request.await;
        assert_eq!((answer.status, answer.header(RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        assert_eq!(answer.header(CACHE_CONTROL), "no-store");
    }
    for path in &paths {
        assert_eq!(stream.get(path).await.status, StatusCode::SERVICE_UNAVAILABLE, "held during the drain");
    }
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(stream.held(), 0);
    assert_eq!(stream.get(&format!("{SESSION}/v/3.1.m4s")).await.status, StatusCode::OK);
    assert_eq!(stream.get(&media_playlist("v")).await.status, StatusCode::OK);
}

/// The packager may hear of the drain first and leave; with its session goes what wakes requests for new media.
#[tokio::test(start_paused = true)]
async fn a_drain_answers_who_waits_for_a_session_that_its_writer_has_left() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let (viewer, path) = (stream.viewer(), reload("v", "_HLS_msn=3&_HLS_part=2"));
    let request = tokio::spawn(async move { viewer.get(&path).await });
    while stream.held() == 0 {
        yield_now().await;
    }
    let asked = Instant::now();
    stream.abandon();
    for _ in 0..1_000 {
        yield_now().await;
    }
    stream.catalog.drain();
    assert_eq!(request.await.unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

/// Threat 15: one address takes all the places in which requests wait.
#[tokio::test(start_paused = true)]
async fn an_address_holds_its_share_of_requests_and_others_theirs() {
    let mut registry = prometheus_client::registry::Registry::default();
    let settings = hls::Settings { held_per_address: 2, ..hls::Settings::default() };
    let catalog = hls::Catalog::with_settings(hls::Metrics::register(&mut registry), settings);
    let mut stream = Stream::on(catalog, header(vec![video(), audio()]));
    stream.writer().announce(announcement());
    stream.push_through(3, 1);
    let mut viewer = stream.viewer();
    let path = reload("v", "_HLS_msn=3&_HLS_part=2");
    let mut held: Vec<_> = (0..2).map(|_| Box::pin(viewer.get(&path))).collect();
    for request in &mut held {
        assert!(is_held(request.as_mut()).await);
    }
    let refused = viewer.get(&path).await;
    assert_eq!((refused.status, refused.header(RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(viewer.get(&media_playlist("v")).await.status, StatusCode::OK, "what is there is served");

    let mut other = stream.viewer();
    other.address = [192, 0, 2, 1].into();
    assert!(is_held(pin!(other.get(&path))).await);
    held.pop();
    drop(held);
    viewer.address = "::ffff:127.0.0.1".parse().unwrap();
    assert!(is_held(pin!(viewer.get(&path))).await, "a place came back");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("hls_not_held_total{reason=\"address\"} 1"), "{text}");
}
