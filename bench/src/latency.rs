//! What a viewer in Chromium waits for, from the clock that is burned into the picture.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::publisher::Publisher;
use serde::Deserialize;

use crate::Options;
use crate::http::Connection;
use crate::process::{Tidecast, wait_for};
use crate::table::{Table, Target};

/// 640x360 at 30 fps with a keyframe every 2 s once the clock is in it; Chromium and encoder share the cores.
const CLIP: &str = "gop-2";

const LATENCY_DEFAULT_S_MAX: f64 = 2.3;
const LATENCY_LOW_S_MAX: f64 = 1.1;
const FIRST_PICTURE_S_MAX: f64 = 1.0;

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
        let measured = watch(profile, joins, seconds)?;
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
    Ok(vec![table])
}

fn watch(profile: &str, joins: u64, seconds: u64) -> Result<Measured> {
    let server = Tidecast::start(profile)?;
    let stream = "live/bench";
    let _publisher = Publisher::of_clock(CLIP, &server.publish_url(stream))?;
    let playlist = format!("/hls/{stream}/index.m3u8");
    wait_for("the first playlist", LIVE_MAX, || Connection::open(server.http).ok()?.get_ok(&playlist).ok())?;
    let url = format!("http://{}/watch/{stream}", server.http);
    let (joins, seconds_text) = (joins.to_string(), seconds.to_string());
    let page = Browser::run("latency.mjs", &[&url, "--joins", &joins, "--seconds", &seconds_text])?;
    // Joins take a second or two each, and the browser itself some more.
    let measured: Measured = page.wait_for("measured", Duration::from_secs(seconds + 120))?;
    ensure!(measured.problems.is_empty(), "{profile}: the page had problems: {:?}", measured.problems);
    Ok(measured)
}
