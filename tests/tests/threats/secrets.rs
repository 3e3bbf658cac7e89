//! Keys and tokens: threats 21, 22 and 26.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::crowd::stranger;
use harness::http::{Http, resolve};
use harness::poll;
use harness::publisher::Publisher;
use harness::rtmp::{self, Rtmp};
use harness::server::{PUBLISH_KEY, Profile, Setup, Tidecast};
use harness::strict::{MediaPlaylist, MultivariantPlaylist};

use crate::scene::{START_MAX, Scene, video_playlist};

const CLOSED_MAX: Duration = Duration::from_secs(10);
const WRONG_KEY: &str = "canary-21-of-somebody-else";

/// The key goes in wherever a person may put it, right or wrong, and comes out nowhere.
#[test]
fn threat_21_no_key_leaves_the_process() -> Result<()> {
    let scene = Scene::start_with(Setup::default().variable("TIDECAST_LOG", "trace"))?;
    let mut told = Vec::new();
    for key in [PUBLISH_KEY, WRONG_KEY] {
        for (app, stream) in [
            ("live".to_owned(), format!("honest?key={key}")),
            ("live".to_owned(), key.to_owned()),
            ("live".to_owned(), format!("../{key}?key={key}")),
            ("live".to_owned(), format!("x?token={key}&key={key}x")),
            (format!("live?key={key}"), "..".to_owned()),
            (format!("{key}/.."), "x".to_owned()),
        ] {
            let mut rtmp = Rtmp::connect(scene.server.rtmp_address())?;
            rtmp.raw(&rtmp::opening(&app, &stream))?;
            // Broken on purpose after a publication that was accepted.
            let _closed_already = rtmp.raw(&[0xFF; 64]);
            told.push(rtmp.until_closed(CLOSED_MAX)?);
        }
        for request in [
            format!("GET /hls/live/{key}/index.m3u8?key={key} HTTP/1.1\r\nHost: x\r\n"),
            format!("GET /{key} HTTP/1.1\r\nHost: {key}\r\nAuthorization: Bearer {key}\r\nCookie: {key}\r\n"),
            format!("{key} / HTTP/9\r\n"),
        ] {
            for address in [scene.server.http_address(), scene.server.rtmp_address()] {
                let mut socket = TcpStream::connect(address)?;
                socket.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes())?;
                let mut answer = Vec::new();
                socket.set_read_timeout(Some(CLOSED_MAX))?;
                let _reset = socket.read_to_end(&mut answer);
                told.push(String::from_utf8_lossy(&answer).into_owned());
            }
        }
    }
    // By WHIP: as a token, and as a name without one. Last, since a wrong key makes everybody here wait.
    let offer = include_bytes!("../../../ingest/src/whip/offer/chromium.sdp");
    for key in [PUBLISH_KEY, WRONG_KEY] {
        let sdp = ("content-type", "application/sdp");
        let authorization = format!("Bearer {key}");
        for (name, headers) in [("whip", &[sdp, ("authorization", &authorization)][..]), (key, &[sdp])] {
            let answer = scene.http.send("POST", &format!("/whip/live/{name}"), headers, offer)?;
            told.push(format!("{} {}", answer.header("location"), answer.text()));
        }
    }
    for path in ["/state", "/state/live/honest", "/", "/watch/live/honest", "/hls/live/honest/index.m3u8"] {
        told.push(scene.http.get_ok(path)?.text());
    }
    told.push(scene.server.admin_http().get_ok("/metrics")?.text());
    scene.is_sound()?;
    told.extend(scene.server.log());
    // What somebody typed as a name or host may be repeated to that very person; logs and metrics never hold it, and
    // nothing here repeats it at all.
    for key in [PUBLISH_KEY, WRONG_KEY] {
        let leak = told.iter().find(|text| text.contains(key));
        ensure!(leak.is_none(), "the key is in {leak:?}");
    }
    Ok(())
}

/// Two viewers with different tokens get the same bytes, none of which says who they are for.
#[test]
fn threat_22_playlists_know_no_token() -> Result<()> {
    let scene = Scene::start()?;
    let tokens = ["", "~first.token/", "~second-token_/"];
    let mut bodies = Vec::new();
    for token in tokens {
        let path = format!("/hls/{token}live/honest/index.m3u8");
        let multivariant = scene.http.get_ok(&path)?;
        ensure!(!multivariant.header("cache-control").is_empty(), "no Cache-Control");
        let variants = MultivariantPlaylist::parse(&multivariant.text())?.variants;
        // Relative, so that a player's next request carries the token again.
        let video = resolve(&path, &variants.first().context("a variant")?.uri);
        ensure!(video.starts_with(&format!("/hls/{token}live/honest/")), "{video} lost {token}");
        let media = scene.http.get_ok(&video)?;
        ensure!(media.header("vary") == "Accept-Encoding", "Vary: {:?}", media.header("vary"));
        let playlist = MediaPlaylist::parse(&media.text())?;
        let oldest = playlist.segments.iter().flat_map(|segment| &segment.parts).next().context("a part")?;
        let (part, init) =
            (resolve(&video, &oldest.uri), playlist.segments[0].map.clone().context("an init")?);
        let part = scene.http.get_ok(&part)?;
        let init = scene.http.get_ok(&resolve(&video, &init))?;
        for answer in [&part, &init] {
            ensure!(
                answer.header("cache-control").contains("immutable"),
                "{}",
                answer.header("cache-control")
            );
        }
        bodies.push((multivariant.header("etag").to_owned(), multivariant.body, init.body));
    }
    ensure!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "a token changes what is sent");
    ensure!(
        bodies.iter().all(|(_, text, _)| !String::from_utf8_lossy(text).contains('~')),
        "a token in a playlist"
    );

    let too_long = format!("/hls/~{}/live/honest/index.m3u8", "t".repeat(1_025));
    let answer = scene.http.get(&too_long)?;
    ensure!(answer.status == 404, "{}", answer.status);
    for path in
        ["/hls/~a/~b/live/honest/index.m3u8", "/hls/~/live/honest/index.m3u8", "/watch/~a/live/honest"]
    {
        ensure!(scene.http.get(path)?.status == 404, "{path}");
    }
    Ok(())
}

/// A name that a cache keeps never means other bytes, also not when another publisher takes up the stream.
#[test]
fn threat_22_no_name_is_used_again_by_the_next_publisher() -> Result<()> {
    let scene = Scene::start()?;
    let http = scene.http.clone();
    let before = media(&http, &scene.video)?;
    let first = scene.video.clone();
    let server = scene.stop_publisher()?;
    let _next = Publisher::of_clip("gop-2", &server.publish_url("live/honest"))?;
    let second = poll::until("the next session", START_MAX, || {
        let video = video_playlist(&http, "live/honest")?;
        Ok((video != first).then_some(video))
    })?;
    for (name, body) in media(&http, &second)? {
        ensure!(before.get(&name).is_none_or(|known| *known == body), "{name} is something else now");
    }
    for (name, body) in before {
        let answer = http.get(&name)?;
        ensure!(answer.status == 404 || answer.body == body, "{name} is something else now");
    }
    Ok(())
}

/// Everything that a playlist names, by its address.
fn media(http: &Http, video: &str) -> Result<HashMap<String, Vec<u8>>> {
    let playlist = MediaPlaylist::parse(&http.get_ok(video)?.text())?;
    let named = playlist.segments.iter().flat_map(|segment| {
        let parts = segment.parts.iter().map(|part| &part.uri);
        parts.chain(&segment.map).chain(segment.finished.iter().map(|(_, uri)| uri))
    });
    let addresses: HashSet<_> = named.map(|uri| resolve(video, uri)).collect();
    let mut media = HashMap::new();
    for address in addresses {
        let body = http.get_ok(&address)?.body;
        media.insert(address, body);
    }
    ensure!(media.len() > 3, "a playlist that names nothing");
    Ok(media)
}

/// Guessing costs the guesser time and everybody else nothing.
#[test]
fn threat_26_guessed_keys_cost_only_the_guesser() -> Result<()> {
    const ADDRESSES: u8 = 5;
    const GUESSES: usize = 2_000;
    let server = Tidecast::start(Profile::Default)?;
    let before = server.resident_bytes()?;
    let started = Instant::now();
    let guess = |address: u8| -> Result<()> {
        for number in 0..GUESSES {
            let mut guesser = Rtmp::connect_from(stranger(1 + address), server.rtmp_address())?;
            guesser.raw(&rtmp::opening("live", &format!("x?key=wrong-{number}")))?;
            guesser.hear("NetStream.Publish.Denied")?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let guessers: Vec<_> = (0..ADDRESSES).map(|address| scope.spawn(move || guess(address))).collect();
        guessers.into_iter().try_for_each(|guesser| guesser.join().expect("no guesser panics"))
    })?;
    println!("{} wrong keys in {:?}", GUESSES * usize::from(ADDRESSES), started.elapsed());
    let asked = Instant::now();
    drop(Rtmp::publish(server.rtmp_address(), "live", &format!("right?key={PUBLISH_KEY}"))?);
    // Whoever has guessed this often waits for half a minute.
    ensure!(asked.elapsed() < Duration::from_secs(10), "a right key waited {:?}", asked.elapsed());
    // The right key at a guesser's address is told nothing that a wrong one is not.
    let mut late = Rtmp::connect_from(stranger(1), server.rtmp_address())?;
    late.raw(&rtmp::opening("live", &format!("x?key={PUBLISH_KEY}")))?;
    let words = late.until_closed(CLOSED_MAX)?;
    ensure!(words.contains("too many wrong keys from this address"), "{words}");

    poll::until("every ending counted", CLOSED_MAX, || {
        let wrong = server.metric("rtmp_refused_total{reason=\"wrong_key\"}")?;
        let guessed = server.metric("rtmp_refused_total{reason=\"too_many_guesses\"}")?;
        let all = (GUESSES * usize::from(ADDRESSES) + 1) as f64;
        // Six looked at in each second or so of this test, growing fewer; the others not.
        let seconds = started.elapsed().as_secs_f64();
        ensure!(
            wrong <= f64::from(ADDRESSES) * (6.0 + (1.0 + seconds).log2()),
            "{wrong} keys were looked at"
        );
        Ok((wrong + guessed == all).then_some(()))
    })?;
    let lines = server.log().iter().filter(|line| line.contains("publisher closed")).count();
    let most = 10 * (started.elapsed().as_secs() as usize + 2);
    ensure!(lines <= most, "{lines} lines in {:?}", started.elapsed());
    let rise = server.resident_bytes()?.saturating_sub(before) / 1024 / 1024;
    println!("{rise} MiB");
    ensure!(rise <= 32, "{rise} MiB for ten thousand guesses");
    server.stop()
}
