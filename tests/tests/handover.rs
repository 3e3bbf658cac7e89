//! Restarts under a service manager that holds the listening sockets: nobody is refused, nobody hangs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::resolve;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Profile, Sockets, Tidecast};
use harness::strict::{MediaPlaylist, MultivariantPlaylist};

/// A request that comes while nobody is there waits for the next server to be up.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// A publisher has two seconds to read that it must go, and ffmpeg on a loaded machine takes some of that. Whoever was
/// held by then, or cut off only after the drain's five seconds, would take longer.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// One viewer that has just come.
fn visit(server: SocketAddr) -> Result<()> {
    let mut socket = TcpStream::connect(server).context("refused")?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.write_all(b"GET /state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "answered with {answer:?}");
    Ok(())
}

#[test]
fn a_restart_on_sockets_handed_over_refuses_nobody() -> Result<()> {
    let sockets = Sockets::listen()?;
    let server = Tidecast::start_on(&sockets)?;
    let (http, rtmp) = (server.http_address(), server.rtmp_address());
    let (over, visits) = (AtomicBool::new(false), AtomicU32::new(0));
    let server = thread::scope(|scope| {
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        visit(http)?;
                        TcpStream::connect(rtmp).context("publishers are refused")?;
                        visits.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        let restart_amid_visits = || {
            let mut server = server;
            for _ in 0..3 {
                let before = visits.load(Ordering::Relaxed);
                poll::until("visits", ANSWER_MAX, || {
                    Ok((visits.load(Ordering::Relaxed) >= before + 20).then_some(()))
                })?;
                server.stop()?;
                server = Tidecast::start_on(&sockets)?;
                ensure!((server.http_address(), server.rtmp_address()) == (http, rtmp), "other sockets");
            }
            Ok(server)
        };
        let restarted = restart_amid_visits();
        over.store(true, Ordering::Relaxed);
        for visitor in visitors {
            visitor.join().expect("a visitor does not panic")?;
        }
        restarted
    })?;
    server.stop()
}

/// What is held when the server goes is answered, so that the viewer asks the next one; and a browser's connections,
/// idle or never used, do not keep the old one alive.
#[test]
fn a_drain_answers_who_waits_and_waits_for_no_idle_connection() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let publisher = Publisher::of_clip("gop-0.5", &server.publish_url("live/cam"))?;
    let path = "/hls/live/cam/index.m3u8";
    let text = poll::until("the first playlist", Duration::from_secs(20), || {
        let answer = http.get(path)?;
        Ok((answer.status == 200).then(|| answer.text()))
    })?;
    let variants = MultivariantPlaylist::parse(&text)?.variants;
    let video = resolve(path, &variants.first().context("no variant")?.uri);
    let unused = TcpStream::connect(server.http_address())?;

    let playlist = MediaPlaylist::parse(&http.get_ok(&video)?.text())?;
    let ahead = playlist.farthest().context("an empty playlist")?;
    let (viewer, query) = (http.clone(), format!("{video}?_HLS_msn={ahead}"));
    let held = thread::spawn(move || (viewer.get(&query), Instant::now()));
    poll::until("a held request", ANSWER_MAX, || {
        Ok((held.is_finished() || server.metric("hls_held_requests")? >= 1.0).then_some(()))
    })?;
    let asked = Instant::now();
    server.stop()?;
    let drained = asked.elapsed();
    let (answer, answered) = held.join().expect("asking does not panic");
    let (answer, freed) = (answer?, answered - asked);
    println!("answered after {freed:?}, drained in {drained:?}");
    // The stream may have ended first, with its publisher sent away: then the answer is its last playlist.
    let is_end = answer.status == 200 && answer.text().ends_with("#EXT-X-ENDLIST\n");
    let is_sent_away = answer.status == 503 && answer.header("retry-after") == "1";
    ensure!(is_end || (is_sent_away && answer.header("connection") == "close"), "{}", answer.text());
    ensure!(drained < DRAIN_MAX, "drained in {drained:?}");
    drop(unused);
    publisher.stop()
}
