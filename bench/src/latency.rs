//! What a viewer in Chromium waits for, from the clock that is burned into the picture.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::publisher::Publisher;
use serde::Deserialize;

use crate::Options;
use crate::http::Connection;
use crate::process::{PUBLISH_KEY, Tidecast, wait_for};
use crate::table::{Table, Target};

/// 640x360 at 30 fps with a keyframe every 2 s once the clock is in it; Chromium and encoder share the cores.
const CLIP: &str = "gop-2";

const LATENCY_DEFAULT_S_MAX: f64 = 2.3;
const LATENCY_LOW_S_MAX: f64 = 1.1;
const FIRST_PICTURE_S_MAX: f64 = 1.0;

/// With WebRTC.
const WEBRTC_MS_MAX: f64 = 100.0;
const WEBRTC_FIRST_PICTURE_MS_MAX: f64 = 700.0;
/// What a server between two browsers may add.
const SERVER_MS_MAX: f64 = 25.0;

const LIVE_MAX: Duration = Duration::from_secs(20);

/// As `tests/browser/latency.mjs` says it.
#[derive(Deserialize)]
struct Measured {
    joins: u64,
    first_picture_ms: Quantiles,
    latency_ms: Quantiles,
    longest_freeze_ms: f64,
    dropped: Option<u64>,
    hls: Option<Hls>,
    /// What the page plays by.
    player: Option<String>,
    problems: Vec<String>,
}

/// As `tests/browser/glass.mjs` says it.
#[derive(Deserialize)]
struct Glass {
    through: Quantiles,
    straight: Quantiles,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: Option<f64>,
    p95: Option<f64>,
}

#[derive(Deserialize)]
struct Hls {
    latency_s: f64,
    target_latency_s: f64,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    // Half of the seconds pass before latency counts: catching up is gentle, and must be over.
    let (joins, seconds) = if options.quick { (5, 20) } else { (10, 60) };
    let mut table = Table::new("seconds", &["p50", "p95"]);
    for (profile, limit) in [("default", LATENCY_DEFAULT_S_MAX), ("low", LATENCY_LOW_S_MAX)] {
        let measured = watch(Tidecast::start(profile)?, "", joins, seconds)
            .with_context(|| format!("profile {profile}"))?;
        let row = |Quantiles { p50, p95 }: Quantiles| {
            [p50, p95].map(|value| value.map_or(f64::NAN, |milliseconds| milliseconds / 1000.0))
        };
        table.judge(
            format!("{profile}: capture to display"),
            &row(measured.latency_ms),
            Target { column: 0, limit },
        );
        table.judge(
            format!("{profile}: first picture, {} joins", measured.joins),
            &row(measured.first_picture_ms),
            Target { column: 0, limit: FIRST_PICTURE_S_MAX },
        );
        let Some(Hls { latency_s, target_latency_s }) = measured.hls else {
            anyhow::bail!("{profile}: the page did not play with hls.js");
        };
        table.note(format!(
            "{profile}: hls.js says {latency_s:.2} s and aims at {target_latency_s:.2} s; {} frames dropped, longest freeze {:.0} ms",
            measured.dropped.unwrap_or(0),
            measured.longest_freeze_ms,
        ));
    }
    table.note(format!("keyframe every 2 s; latency over the last {} s of the last visitor", seconds / 2));
    Ok(vec![table, by_webrtc(joins, seconds)?, between_browsers(options)?])
}

fn by_webrtc(joins: u64, seconds: u64) -> Result<Table> {
    let mut table = Table::new("RTMP to the watch page by WebRTC, ms", &["p50", "p95"]);
    let row = |Quantiles { p50, p95 }: Quantiles| [p50, p95].map(|value| value.unwrap_or(f64::NAN));
    // The page does without WebRTC where that would be without sound, which an encoder makes; the rung is for that alone.
    let measured = watch(Tidecast::start_with_ladder("180:150k")?, "?via=webrtc", joins, seconds)?;
    let player = measured.player.as_deref().unwrap_or("nothing");
    ensure!(player == "webrtc", "the page plays by {player}");
    let shown = Target { column: 0, limit: WEBRTC_MS_MAX };
    table.judge("the publisher's own: capture to display", &row(measured.latency_ms), shown);
    let first = Target { column: 0, limit: WEBRTC_FIRST_PICTURE_MS_MAX };
    table.judge(format!("first picture, {} joins", measured.joins), &row(measured.first_picture_ms), first);
    let dropped = measured.dropped.unwrap_or(0);
    table.note(format!("{dropped} frames dropped, longest freeze {:.0} ms", measured.longest_freeze_ms));
    Ok(table)
}

/// A picture of one browser in another, beside two browsers without a server.
fn between_browsers(options: &Options) -> Result<Table> {
    let (seconds, rounds) = if options.quick { ("10", "1") } else { ("20", "3") };
    let server = Tidecast::start("default")?;
    let origin = format!("http://{}", server.http);
    let page = Browser::run("glass.mjs", &[&origin, "live/glass", PUBLISH_KEY, seconds, rounds])?;
    let measured: Glass = page.wait_for("measured", Duration::from_secs(300))?;
    ensure!(measured.problems.is_empty(), "the pages had problems: {:?}", measured.problems);
    let mut table = Table::new("browser to browser, ms", &["p50", "p95", "more"]);
    let of = |quantiles: &Quantiles| [quantiles.p50, quantiles.p95].map(|value| value.unwrap_or(f64::NAN));
    let ([straight, straight_p95], [through, through_p95]) = (of(&measured.straight), of(&measured.through));
    table.tell("straight, without a server", &[straight, straight_p95]);
    let target = Target { column: 2, limit: SERVER_MS_MAX };
    table.judge("WHIP in, WHEP out", &[through, through_p95, through - straight], target);
    table.note(format!("640x360 at 30 fps, {rounds} rounds of {seconds} s each, taking turns"));
    Ok(table)
}

fn watch(server: Tidecast, query: &str, joins: u64, seconds: u64) -> Result<Measured> {
    let stream = "live/bench";
    let _publisher = Publisher::of_clock(CLIP, &server.publish_url(stream))?;
    let playlist = format!("/hls/{stream}/index.m3u8");
    wait_for("the first playlist", LIVE_MAX, || Connection::open(server.http).ok()?.get_ok(&playlist).ok())?;
    let url = format!("http://{}/watch/{stream}{query}", server.http);
    let (joins, seconds_text) = (joins.to_string(), seconds.to_string());
    let page = Browser::run("latency.mjs", &[&url, "--joins", &joins, "--seconds", &seconds_text])?;
    // Joins take a second or two each, and the browser itself some more.
    let measured: Measured = page.wait_for("measured", Duration::from_secs(seconds + 120))?;
    ensure!(measured.problems.is_empty(), "the page had problems: {:?}", measured.problems);
    Ok(measured)
}
