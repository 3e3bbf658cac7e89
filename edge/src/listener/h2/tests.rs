use std::net::Ipv4Addr;
use std::time::Duration;

use ::h2::client::{self, SendRequest};
use ::h2::{Reason as Code, RecvStream};
use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};
use tokio_util::sync::CancellationToken;

use super::super::tests::{LARGE, Stage};
use super::*;

/// One connection over a pipe; time runs only while everybody waits.
struct Connected {
    requests: SendRequest<Bytes>,
    client: JoinHandle<Result<(), ::h2::Error>>,
    server: JoinHandle<Result<(), H2Error>>,
    stage: Arc<Stage>,
    metrics: Metrics,
    drain: CancellationToken,
}

fn serving() -> (DuplexStream, JoinHandle<Result<(), H2Error>>, Arc<Stage>, Metrics, CancellationToken) {
    let (near, far) = duplex(64 * 1024);
    let (stage, metrics, token) = (Arc::new(Stage::default()), Metrics::default(), CancellationToken::new());
    let drain = Arc::new(Drain::new(token.clone()));
    let viewer = Ipv4Addr::LOCALHOST.into();
    let server = tokio::spawn(serve(far, viewer, Arc::clone(&stage), drain, metrics.clone()));
    (near, server, stage, metrics, token)
}

/// `window`: bytes of each answer that the viewer takes without being asked again.
async fn connect(window: u32) -> Connected {
    let (near, server, stage, metrics, drain) = serving();
    let (requests, connection) =
        client::Builder::new().initial_window_size(window).handshake(near).await.unwrap();
    Connected { requests, client: tokio::spawn(connection), server, stage, metrics, drain }
}

impl Connected {
    fn ask(&mut self, path: &str) -> client::ResponseFuture {
        let request = Request::get(format!("https://x{path}")).body(()).unwrap();
        self.requests.send_request(request, true).unwrap().0
    }

    async fn get(&mut self, path: &str) -> Bytes {
        self.requests.clone().ready().await.unwrap();
        body_of(self.ask(path).await.unwrap()).await
    }
}

async fn end_of(server: JoinHandle<Result<(), H2Error>>) -> Option<Reason> {
    server.await.unwrap().err().and_then(|error| error.reason())
}

async fn body_of(response: Response<RecvStream>) -> Bytes {
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    all.into()
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_connection_do_not_wait_for_each_other() {
    let mut viewer = connect(65_535).await;
    let held = viewer.ask("/held");
    let large = viewer.get("/large").await;
    assert_eq!(large.len(), LARGE);
    assert_eq!(viewer.get("/").await, "fine");
    assert!(viewer.get("/late").await == "late", "ten seconds later");
    viewer.stage.drain();
    assert_eq!(body_of(held.await.unwrap()).await, "drained");
}

/// Threat 27: one request finds a bug of ours. It is reset, and no other notices.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_request_only() {
    let mut viewer = connect(65_535).await;
    let held = viewer.ask("/held");
    assert!(viewer.ask("/panic").await.unwrap_err().is_reset());
    assert_eq!(viewer.metrics.panics.get(), 1);
    assert_eq!(viewer.get("/").await, "fine");
    viewer.stage.drain();
    assert_eq!(body_of(held.await.unwrap()).await, "drained");
}

/// Threat 23: it opens no window for its answer, and so pins it, while the socket is never blocked.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_cut_off_and_a_thin_line_is_not() {
    for (bytes_per_second, expected) in
        [(0, Some(Reason::SlowReader)), (1_000, Some(Reason::SlowReader)), (16_000, None)]
    {
        let mut viewer = connect(16_000).await;
        let start = Instant::now();
        let mut body = viewer.ask("/large").await.unwrap().into_body();
        let mut taken = 0;
        while taken < LARGE && !viewer.server.is_finished() {
            let until = Instant::now() + Duration::from_secs(1);
            let mut allowance = bytes_per_second;
            while allowance > 0
                && let Ok(Some(Ok(piece))) = tokio::time::timeout_at(until, body.data()).await
            {
                taken += piece.len();
                // The window is opened by as much as this line carries, however much has come.
                let opened = allowance.min(body.flow_control().used_capacity());
                let _ = body.flow_control().release_capacity(opened);
                allowance -= opened;
            }
            tokio::time::sleep_until(until).await;
        }
        if let Some(reason) = expected {
            assert_eq!(end_of(viewer.server).await, Some(reason));
            assert!(start.elapsed() <= Duration::from_secs(30), "{:?}", start.elapsed());
        } else {
            assert!(taken >= LARGE, "{taken} bytes");
        }
    }
}

/// Threat 13: an idle connection loses its place, and is told so; one whose request we hold does not.
#[tokio::test(start_paused = true)]
async fn an_idle_viewer_is_sent_away_and_one_that_is_held_is_not() {
    let mut viewer = connect(65_535).await;
    let held = viewer.ask("/held");
    advance(Duration::from_secs(60)).await;
    tokio::task::yield_now().await;
    assert!(!viewer.server.is_finished());
    viewer.stage.drain();
    assert_eq!(body_of(held.await.unwrap()).await, "drained");
    let answered = Instant::now();
    assert_eq!(end_of(viewer.server).await, None);
    let idle = answered.elapsed().as_secs();
    assert!((15..=25).contains(&idle), "{idle} s");
    viewer.client.await.unwrap().expect("told with GOAWAY, and not cut off");
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_what_is_held_takes_nothing_new_and_closes() {
    let mut viewer = connect(65_535).await;
    let held = viewer.ask("/held");
    assert_eq!(viewer.get("/").await, "fine");
    viewer.drain.cancel();
    viewer.stage.drain();
    assert_eq!(body_of(held.await.unwrap()).await, "drained");
    assert_eq!(end_of(viewer.server).await, None);
    viewer.client.await.unwrap().expect("told with GOAWAY");
    assert!(viewer.requests.ready().await.is_err(), "nothing new");
}

/// Threat 13: a viewer that takes nothing more keeps a node from going down.
#[tokio::test(start_paused = true)]
async fn a_drain_waits_five_seconds_for_who_is_still_receiving() {
    let mut viewer = connect(1_024).await;
    let _large = viewer.ask("/large").await.unwrap();
    viewer.drain.cancel();
    let start = Instant::now();
    assert_eq!(end_of(viewer.server).await, None, "nobody is to blame");
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

/// CVE-2023-44487: requests are opened and reset faster than anybody looks at them.
#[tokio::test(start_paused = true)]
async fn a_flood_of_resets_ends_the_connection() {
    let mut viewer = connect(65_535).await;
    for _ in 0..10_000 {
        let request = Request::get("https://x/held").body(()).unwrap();
        let Ok((_, mut stream)) = viewer.requests.send_request(request, true) else { break };
        stream.send_reset(Code::CANCEL);
    }
    assert_eq!(end_of(viewer.server).await, Some(Reason::BadRequest));
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_there_may_be_wait_and_a_head_that_is_too_long_is_refused() {
    let mut viewer = connect(65_535).await;
    assert_eq!(viewer.get("/").await, "fine");
    let held: Vec<_> = (0..STREAMS_MAX).map(|_| viewer.ask("/held")).collect();
    let mut next = viewer.requests.clone().ready().await.unwrap();
    let request = Request::get("https://x/").body(()).unwrap();
    let (waiting, _) = next.send_request(request, true).unwrap();
    let mut waiting = pin!(waiting);
    assert!(timeout(Duration::from_secs(1), waiting.as_mut()).await.is_err(), "there is no room");
    viewer.stage.drain();
    for held in held {
        assert_eq!(body_of(held.await.unwrap()).await, "drained");
    }
    assert_eq!(body_of(waiting.await.unwrap()).await, "fine");

    let long = Request::get("https://x/").header("x", "x".repeat(2 * HEAD_BYTES_MAX)).body(()).unwrap();
    let (answer, _) = viewer.requests.send_request(long, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

/// What is held for a viewer that is gone would be held for nobody.
#[tokio::test(start_paused = true)]
async fn a_connection_takes_its_requests_with_it() {
    let mut viewer = connect(65_535).await;
    let held = viewer.ask("/held");
    assert_eq!(viewer.get("/").await, "fine");
    assert!(Arc::strong_count(&viewer.stage) > 1);
    viewer.client.abort();
    drop(held);
    let _lost = viewer.server.await.unwrap();
    // In turns with the request's task, which finds out.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&viewer.stage), 1);
}
