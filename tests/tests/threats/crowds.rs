//! More of them than there should be, and slower than they need to be: threats 13, 15 and 23.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::crowd::{self, stranger};
use harness::http::resolve;
use harness::poll;
use harness::rtmp;
use harness::server::{Setup, Tidecast};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::scene::{START_MAX, Scene};

const KIB: u64 = 1024;

/// For a busy machine to refuse a crowd that has come.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// For a debug build that shares its cores with other tests to answer ten thousand requests. Below the three target durations of
/// 11 s after which a held request is given up.
const ANSWERS_MAX: Duration = Duration::from_secs(25);

/// Thousands of connections at once are enough for two cores and for the limit of open files.
static ONE_CROWD: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // Most systems allow a process 1,024 open files until it asks for more.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).expect("less than the maximum");
    ONE_CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `count` connections, at most 250 from each address.
fn crowd(count: usize, server: SocketAddr, receive_bytes: Option<usize>) -> Result<Vec<TcpStream>> {
    let connect = |number| crowd::connect_with(stranger(1 + (number / 250) as u8), server, receive_bytes);
    (0..count).map(connect).collect()
}

fn connections(server: &Tidecast) -> Result<f64> {
    server.metric("http_connections")
}

/// Slowloris: heads that never end, connections that say nothing, and readers that hardly read, all at once; and the
/// same at the publishers' door.
#[test]
fn threat_13_two_thousand_slow_clients_cost_a_viewer_nothing() -> Result<()> {
    let _alone = alone();
    let scene = Scene::start()?;
    let (http, rtmp) = (scene.server.http_address(), scene.server.rtmp_address());
    scene.undisturbed(|| {
        let mut slow_heads = crowd(1_000, http, None)?;
        let mut slow_readers = crowd(500, http, Some(4_096))?;
        let silent = crowd(500, http, None)?;
        let mut slow_publishers = crowd(50, rtmp, None)?;
        for reader in &mut slow_readers {
            write!(reader, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", scene.video)?;
        }
        let handshake = rtmp::handshake();
        // Thirty never finish their handshake, and twenty do and then never publish.
        let mut quiet_publishers = slow_publishers.split_off(30);
        for publisher in &mut quiet_publishers {
            publisher.write_all(&handshake)?;
        }
        let mut drip = 0;
        let mut next = Instant::now();
        let mut told = String::new();
        let cut_off = poll::until("all of them cut off", Duration::from_secs(40), || {
            if next <= Instant::now() {
                next += Duration::from_secs(1);
                slow_heads.retain_mut(|head| head.write_all(b"G").is_ok());
                slow_publishers.retain_mut(|publisher| publisher.write_all(&handshake[drip..=drip]).is_ok());
                drip += 1;
            }
            let heads = scene.server.metric("http_refused_total{reason=\"slow_head\"}")?;
            let handshakes = scene.server.metric("rtmp_refused_total{reason=\"timeout\"}")?;
            let left = connections(&scene.server)?;
            told = format!("{heads} heads and {handshakes} handshakes cut off, {left} connections left");
            Ok((heads >= 1_000.0 && handshakes >= 50.0 && left < 100.0).then_some(()))
        });
        drop((silent, quiet_publishers));
        cut_off.context(told)
    })?;
    scene.is_sound()
}

/// One address has its share of connections and no more; publishers and other viewers have theirs.
#[test]
fn threat_13_one_address_cannot_take_every_place() -> Result<()> {
    let scene = Scene::start_with(Setup::default().set("http.connections_per_address", "50"))?;
    let begun = Instant::now();
    let held: Vec<_> = (0..200)
        .map(|_| crowd::connect_from(stranger(1), scene.server.http_address()))
        .collect::<Result<_>>()?;
    poll::until("150 refused", REFUSED_MAX, || {
        Ok((scene.server.metric("http_refused_total{reason=\"address_full\"}")? == 150.0).then_some(()))
    })?;
    let lines = scene.server.log().iter().filter(|line| line.contains("too many from one address")).count();
    // One a second.
    ensure!((1..=2 + begun.elapsed().as_secs()).contains(&(lines as u64)), "{lines} lines about it");
    // At the publishers' door, where a studio has a dozen encoders.
    let encoders: Vec<_> = (0..70)
        .map(|_| crowd::connect_from(stranger(2), scene.server.rtmp_address()))
        .collect::<Result<_>>()?;
    poll::until("six refused", REFUSED_MAX, || {
        Ok((scene.server.metric("rtmp_refused_total{reason=\"address_full\"}")? == 6.0).then_some(()))
    })?;
    scene.is_sound()?;
    drop((held, encoders));
    Ok(())
}

/// Held requests: what each costs, how many an address may have, and that the end of the stream frees them all.
#[test]
fn threat_15_held_requests_are_few_small_and_freed_together() -> Result<()> {
    const HELD: usize = 10_000;
    let _alone = alone();
    // Nobody's segment comes before the last has asked for it.
    let scene = Scene::start_of("gop-8.3", Setup::default())?;
    let http = scene.server.http_address();
    let before = scene.server.resident_bytes()?;
    let mut viewers = crowd(HELD, http, None)?;
    // First an ordinary answer, so that what a connection costs at all is there already.
    ask_all(&mut viewers, &format!("{}?", scene.video))?;
    read_answers(&mut viewers)?;
    let idle = scene.server.resident_bytes()?;
    // From here on there are two segments, of 8.3 s each, to ask for the end of the second.
    let newest = || scene.playlist().map(|playlist| playlist.edge());
    let (first, _) = newest()?.context("an empty playlist")?;
    poll::until("a segment to begin", START_MAX, || {
        Ok(newest()?.is_some_and(|(msn, _)| msn > first).then_some(()))
    })?;
    let ahead = scene.ahead()?;
    ask_all(&mut viewers, &format!("{}?_HLS_msn={ahead}", scene.video))?;
    poll::until("all of them held", Duration::from_secs(15), || {
        Ok((scene.server.metric("hls_held_requests")? >= HELD as f64).then_some(()))
    })?;
    let each = scene.server.resident_bytes()?.saturating_sub(idle) / HELD as u64;
    println!("{each} bytes for each of {HELD} waiters");
    let held = scene.server.resident_bytes()?.saturating_sub(before) / HELD as u64;
    println!("{held} bytes for each of {HELD} connections that wait");
    ensure!(held <= 32 * KIB, "{held} bytes for each connection that waits");
    ensure!(each <= 4 * KIB, "{each} bytes for each waiter");

    let far = format!("{}?_HLS_msn={}", scene.video, ahead + 10);
    ensure!(scene.http.get(&far)?.status == 400, "a request for the far future is held");

    let server = scene.stop_publisher()?;
    let stopped = Instant::now();
    read_answers(&mut viewers)?;
    println!("freed after {:?}", stopped.elapsed());
    ensure!(server.metric("hls_held_requests")? == 0.0, "some are held still");
    Ok(())
}

/// Of an address's connections a quarter is left for what is there already.
#[test]
fn threat_15_an_address_holds_three_quarters_of_its_connections() -> Result<()> {
    let scene = Scene::start_with(Setup::default().set("http.connections_per_address", "100"))?;
    let mut viewers = (0..90)
        .map(|_| crowd::connect_from(stranger(1), scene.server.http_address()))
        .collect::<Result<Vec<_>>>()?;
    let ahead = scene.ahead()?;
    ask_all(&mut viewers, &format!("{}?_HLS_msn={ahead}", scene.video))?;
    poll::until("fifteen refused", REFUSED_MAX, || {
        Ok((scene.server.metric("hls_not_held_total{reason=\"address\"}")? == 15.0).then_some(()))
    })?;
    scene.is_sound()
}

/// Readers that take a kilobyte a second of what they asked for: each pins nothing but what all share, and not for long.
#[test]
fn threat_23_slow_readers_take_no_memory_and_are_cut_off() -> Result<()> {
    const READERS: usize = 2_000;
    let _alone = alone();
    let scene = Scene::start()?;
    let playlist = scene.playlist()?;
    let (_, uri) =
        playlist.segments.iter().rev().find_map(|segment| segment.finished.clone()).context("a segment")?;
    let segment = resolve(&scene.video, &uri);
    ensure!(
        scene.http.get_ok(&segment)?.body.len() > 200_000,
        "a segment that fits into buffers shows nothing"
    );
    let before = scene.server.resident_bytes()?;
    scene.undisturbed(|| {
        let mut readers = crowd(READERS, scene.server.http_address(), Some(4_096))?;
        let mut most = 0;
        let mut next = Instant::now();
        let mut asked = 0;
        poll::until("all of them cut off", Duration::from_secs(60), || {
            // Slow readers are the threat, not many requests at once.
            if let Some(newcomers) = readers.get_mut(asked..(asked + 50).min(READERS)) {
                ask_all(newcomers, &segment)?;
                asked += newcomers.len();
            }
            if next <= Instant::now() {
                next += Duration::from_secs(1);
                for reader in &mut readers[..asked] {
                    let _cut_off = reader.read(&mut [0; 1_000]);
                }
                most = most.max(scene.server.resident_bytes()?);
            }
            let cut = scene.server.metric("http_refused_total{reason=\"slow_reader\"}")?;
            Ok((cut >= READERS as f64).then_some(()))
        })?;
        let each = most.saturating_sub(before) / READERS as u64;
        println!("{each} bytes for each of {READERS} slow readers");
        ensure!(each <= 32 * KIB, "{each} bytes for each reader");
        Ok(())
    })?;
    scene.is_sound()
}

fn ask_all(viewers: &mut [TcpStream], target: &str) -> Result<()> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n");
    for viewer in viewers {
        viewer.write_all(request.as_bytes())?;
        viewer.set_nonblocking(true)?;
    }
    Ok(())
}

/// Waits until everybody has had some of the playlist, and takes what is there.
fn read_answers(viewers: &mut [TcpStream]) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let deadline = Instant::now() + ANSWERS_MAX;
    for viewer in viewers {
        viewer.set_nonblocking(false)?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        viewer.set_read_timeout(Some(left))?;
        let bytes = match viewer.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            read => read?,
        };
        ensure!(
            buffer[..bytes].starts_with(b"HTTP/1.1 200 "),
            "no playlist within {ANSWERS_MAX:?}: {}",
            String::from_utf8_lossy(&buffer[..bytes.min(400)])
        );
    }
    Ok(())
}
