//! Everything encrypted: viewers over HTTP/2, a publisher over RTMPS, certificates that change while people come.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::http::resolve;
use harness::media::output_dir;
use harness::pebble::Pebble;
use harness::poll;
use harness::ports;
use harness::publisher::Publisher;
use harness::server::{End, PUBLISH_KEY, Setup, Tidecast};
use harness::tls::{Files, Pair, curl, handshake};
use serde::Deserialize;
use tempfile::TempDir;

/// The files are looked at every two seconds, and must be seen to stand still.
const RELOAD_MAX: Duration = Duration::from_secs(20);
const LIVE_MAX: Duration = Duration::from_secs(30);
/// An order is a dozen requests, and pebble takes its time between them.
const ORDER_MAX: Duration = Duration::from_secs(60);

fn with_files(folder: &TempDir) -> Result<(Tidecast, Files, Pair)> {
    let (files, pair) = (Files::of(folder.path()), Pair::new()?);
    files.write(&pair)?;
    let path = |path: &std::path::Path| path.display().to_string();
    let setup = Setup::default()
        .set("tls.certificate", &path(&files.certificate))
        .set("tls.key", &path(&files.key))
        .set("hls.profile", "low");
    Ok((setup.start()?, files, pair))
}

#[test]
fn a_certificate_is_replaced_and_no_handshake_fails() -> Result<()> {
    let folder = TempDir::new()?;
    let (server, files, first) = with_files(&folder)?;
    let (https, second, over) = (server.https_address(), Pair::new()?, AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let visitors: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = [0_u32; 2];
                    while !over.load(Ordering::Relaxed) {
                        let shown = handshake(https, &[&first, &second]).context("a handshake failed")?;
                        seen[usize::from(shown == second.certificate)] += 1;
                    }
                    Ok::<_, anyhow::Error>(seen)
                })
            })
            .collect();
        let replace = || {
            files.write(&second)?;
            poll::until("the new certificate", RELOAD_MAX, || {
                Ok((handshake(https, &[&first, &second])? == second.certificate).then_some(()))
            })?;
            // And one that does not fit: it is told, and nobody notices.
            fs::write(&files.key, "no key")?;
            server.wait_for_log("line about the broken pair", RELOAD_MAX, |line| {
                line.contains("the new certificate cannot be used, the old one stays").then_some(())
            })?;
            ensure!(handshake(https, &[&second])? == second.certificate, "the old one is gone");
            Ok(())
        };
        let replaced = replace();
        over.store(true, Ordering::Relaxed);
        let mut all = [0; 2];
        for visitor in visitors {
            let seen = visitor.join().expect("a visitor does not panic")?;
            all = [all[0] + seen[0], all[1] + seen[1]];
        }
        replaced.map(|()| all)
    })?;
    ensure!(seen[0] > 0 && seen[1] > 0, "both were in use: {seen:?}");
    ensure!(server.metric("tls_certificate_loads_total{result=\"failed\"}")? == 1.0, "counted once");
    ensure!(server.metric("tls_certificate_expiry_seconds")? > 1.7e9, "told");
    server.stop()
}

#[test]
fn a_publisher_comes_over_rtmps_and_viewers_watch_over_http_2() -> Result<()> {
    let folder = TempDir::new()?;
    let (server, files, pair) = with_files(&folder)?;
    let authority = files.certificate.display().to_string();
    let publisher = Publisher::of_arguments(
        &format!(
            "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=sample_rate=48000 -c:v libx264 -preset ultrafast \
             -tune zerolatency -g 30 -c:a aac -tls_verify 1 -ca_file {authority}"
        ),
        &format!("rtmps://localhost:{}/live/cam?key={PUBLISH_KEY}", server.rtmps_address().port()),
    )?;
    let https = server.https_address();
    let get = |path: &str| curl(https, path, &files.certificate, &[]);
    let address = "/hls/live/cam/index.m3u8";
    let multivariant = poll::until("a playlist", LIVE_MAX, || {
        let answer = get(address)?;
        ensure!(answer.version == "2", "HTTP/{}", answer.version);
        Ok((answer.status == 200).then_some(answer.body))
    })?;
    let multivariant = String::from_utf8(multivariant)?;
    let media = multivariant.lines().find(|line| !line.starts_with('#') && line.ends_with(".m3u8"));
    let media = resolve(address, media.context("no rendition")?);
    let playlist = String::from_utf8(get(&media)?.body)?;
    let mut parts = playlist.lines().filter(|line| line.starts_with("#EXT-X-PART:"));
    let part = parts.next_back().and_then(|line| line.split("URI=\"").nth(1)?.split('"').next());
    let part_address = resolve(&media, part.context("no part")?);
    let part = get(&part_address)?;
    ensure!(
        part.status == 200 && part.version == "2" && part.body.len() > 1_000,
        "{} bytes",
        part.body.len()
    );
    // Held until the next part, with the others of its connection.
    let reload = get(&format!("{media}?_HLS_msn={}", msn_after(&playlist)?))?;
    ensure!(reload.status == 200, "{}", reload.status);
    let old = curl(https, &part_address, &files.certificate, &["--http1.1"])?;
    ensure!((old.version.as_str(), old.status) == ("1.1", 200), "for who knows no better");
    ensure!(old.body == part.body, "the same bytes by either way");
    ensure!(server.viewer_http().get_ok(&part_address)?.body == old.body, "and by the third");

    ensure!(handshake(server.rtmps_address(), &[&pair])? == pair.certificate, "one certificate for all");
    let log = server.log();
    let ready = log.iter().find(|line| line.contains("ready: ")).context("ready")?;
    let hint = format!("watch at https://localhost:{}/watch/{{app}}/{{stream}}", https.port());
    ensure!(ready.contains(&hint) && ready.contains("publish to rtmps://localhost:"), "{ready}");
    let state: serde_json::Value = serde_json::from_slice(&get("/state")?.body)?;
    ensure!(state["rtmps_port"] == server.rtmps_address().port(), "{state}");
    publisher.stop()?;
    server.stop()
}

/// The segment that the next reload of this playlist would wait for.
fn msn_after(playlist: &str) -> Result<u64> {
    let first = playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"));
    let segments = playlist.lines().filter(|line| line.starts_with("#EXTINF:")).count() as u64;
    Ok(first.context("no media sequence")?.parse::<u64>()? + segments)
}

#[test]
fn a_self_signed_certificate_stays_the_same_and_is_explained() -> Result<()> {
    let server = Setup::default().set("tls.self_signed", "true").set("http.redirect", "true").start()?;
    let told = |server: &Tidecast| {
        server.wait_for_log("fingerprint", LIVE_MAX, |line| {
            let (before, fingerprint) = line.split_once("SHA-256 ")?;
            before.contains("/trust").then(|| fingerprint.trim_end_matches(')').to_owned())
        })
    };
    let fingerprint = told(&server)?;
    let plain = server.viewer_http();
    let state: serde_json::Value = serde_json::from_slice(&plain.get_ok("/trust/state")?.body)?;
    ensure!(state["fingerprint"] == fingerprint, "{state} is not {fingerprint}");
    let page = plain.get_ok("/trust")?;
    ensure!(page.text().contains("does not protect from"), "the page is honest");
    let nodes: serde_json::Value = serde_json::from_slice(&plain.get_ok("/nodes")?.body)?;
    ensure!(nodes["self_signed"] == true, "{nodes}");
    let state: serde_json::Value = serde_json::from_slice(&plain.get_ok("/state")?.body)?;
    ensure!(state.get("rtmps_port").is_none(), "no encoder would trust it: {state}");

    let certificate = plain.get_ok("/trust/tidecast.crt")?.body;
    let folder = TempDir::new()?;
    let trusted = folder.path().join("tidecast.pem");
    fs::write(&trusted, pem(&certificate))?;
    let https = server.https_address();
    let home = curl(https, "/", &trusted, &[])?;
    ensure!((home.status, home.version.as_str()) == (200, "2"), "{}", home.status);

    let client = ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build();
    let client: ureq::Agent = client.into();
    let moved = client.get(format!("http://{}/watch/live/cam?t=1", server.http_address())).call()?;
    ensure!(moved.status() == 308, "{}", moved.status());
    let target = format!("https://127.0.0.1:{}/watch/live/cam?t=1", https.port());
    ensure!(moved.headers()["location"] == target.as_str(), "{:?}", moved.headers());
    ensure!(plain.get("/hls/live/cam/index.m3u8")?.status == 404, "media stays");

    let server = server.restart(End::Drained)?;
    ensure!(told(&server)? == fingerprint, "another one after a restart");
    server.stop()
}

#[derive(Deserialize)]
struct Watched {
    protocols: Vec<String>,
    secure: bool,
    frames: u64,
    media_s: f64,
    low_latency: Option<bool>,
    blocking_reloads: u64,
    fingerprint: String,
    axe: Vec<String>,
    problems: Vec<String>,
}

#[test]
fn chromium_plays_with_low_latency_over_http_2_and_may_open_a_camera_there() -> Result<()> {
    let server = Setup::default().set("tls.self_signed", "true").set("hls.profile", "low").start()?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/cam"))?;
    let url = format!("https://localhost:{}/watch/live/cam", server.https_address().port());
    let browser = Browser::run("https.mjs", &[&url, &output_dir()?.display().to_string()])?;
    let watched: Watched = browser.wait_for("live", Duration::from_secs(120))?;
    ensure!(watched.protocols == ["h2"], "{:?}", watched.protocols);
    ensure!(watched.secure, "no camera without a secure context");
    ensure!(
        watched.low_latency == Some(true) && watched.blocking_reloads > 10,
        "{}",
        watched.blocking_reloads
    );
    ensure!(watched.media_s > 6.0 && watched.frames > 60, "{} s, {} frames", watched.media_s, watched.frames);
    ensure!(
        server.log().iter().any(|line| line.contains(&watched.fingerprint)),
        "another fingerprint than the log's"
    );
    ensure!(
        watched.axe.is_empty() && watched.problems.is_empty(),
        "{:?} {:?}",
        watched.axe,
        watched.problems
    );
    publisher.stop()?;
    server.stop()
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, three) in der.chunks(3).enumerate() {
        if index > 0 && index % 16 == 0 {
            text.push('\n');
        }
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let six = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= three.len() { DIGITS[six as usize] as char } else { '=' });
        }
    }
    text + "\n-----END CERTIFICATE-----\n"
}

/// Against the authority that Let's Encrypt tests clients with. It checks by a connection of its own that the name leads here.
#[test]
fn a_certificate_is_ordered_kept_and_ordered_anew_when_it_must_be() -> Result<()> {
    // Its port must be known before the server has one.
    let https = ports::free();
    let pebble = Pebble::start(https)?;
    let setup = Setup::default()
        .set("acme.domain", "live.tidecast.test, www.tidecast.test")
        .set("acme.terms_agreed", "true")
        .set("acme.contact", "ada@tidecast.test")
        .set("acme.directory", &pebble.directory())
        .set("acme.authority", &pebble.authority().display().to_string())
        .set("https.listen", &https.to_string());
    let server = setup.start()?;
    let ordered = |server: &Tidecast| {
        server.wait_for_log("certificate", ORDER_MAX, |line| {
            let names = "certificate for live.tidecast.test, www.tidecast.test, until ";
            line.contains(names).then(|| line.contains("ordering"))
        })
    };
    ordered(&server)?;
    let shown = |server: &Tidecast| server.metric("tls_certificate_expiry_seconds");
    let expiry = shown(&server)?;
    ensure!(expiry > 1.7e9, "{expiry}");
    let home = curl(https, "/", &pebble.authority(), &["--insecure"])?;
    ensure!((home.status, home.version.as_str()) == (200, "2"), "{}", home.status);

    // What is kept is enough for the next start.
    let server = server.restart(End::Drained)?;
    ordered(&server)?;
    let orders = server.log().iter().filter(|line| line.contains("ordering a certificate")).count();
    ensure!(orders == 0, "ordered again for nothing");
    ensure!(shown(&server)? == expiry, "another one");

    // And what cannot be used is ordered anew, with the account that is kept.
    fs::write(server.data_dir().join("tls/acme.pem"), "broken")?;
    let server = server.restart(End::Drained)?;
    server.wait_for_log("another order", ORDER_MAX, |line| {
        line.contains("ordering a certificate").then_some(())
    })?;
    ordered(&server)?;
    server.stop()
}

/// Threat: the authority is asked again and again, and locks the name out.
#[test]
fn an_order_that_fails_says_why_and_waits() -> Result<()> {
    let nobody = ports::free();
    let pebble = Pebble::start(nobody)?;
    let setup = Setup::default()
        .set("acme.domain", "live.tidecast.test")
        .set("acme.terms_agreed", "true")
        .set("acme.directory", &pebble.directory())
        .set("acme.authority", &pebble.authority().display().to_string());
    let server = setup.start()?;
    let told = server.wait_for_log("refusal", ORDER_MAX, |line| {
        line.contains("no certificate for live.tidecast.test").then(|| line.to_owned())
    })?;
    ensure!(told.contains("could not check that the name leads here, to port 443"), "{told}");
    ensure!(told.contains("Next try in 5 min"), "{told}");
    ensure!(server.metric("tls_certificate_loads_total{result=\"failed\"}")? == 1.0, "counted");
    ensure!(server.viewer_http().get_ok("/state")?.status == 200, "plain HTTP goes on");
    server.stop()
}
