//! A browser that publishes three sizes of its picture at once (simulcast): each is watched by WebRTC as it comes, the largest by
//! LL-HLS; and what becomes of viewers when the browser turns that off, as it does on a bad line.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::media::output_dir;
use harness::server::{PUBLISH_KEY, Profile, Tidecast};
use harness::watched::Watched;
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(90);

#[derive(Deserialize)]
struct Published {
    layers: Vec<Layer>,
    answer: String,
    profile: String,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "told when something is wrong")]
struct Layer {
    rid: String,
    width: u32,
    /// Frames and bits per second.
    rate: f64,
    target: f64,
    plis: u32,
}

#[derive(Deserialize)]
struct Begun {}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "told when something is wrong")]
struct Pinned {
    status: u16,
    width: u32,
    lost: i64,
    /// What the browser sends meanwhile.
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Played {
    width: u32,
    height: u32,
    problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Chosen {
    /// In the words of the quality menu.
    offered: Vec<String>,
    shown: Vec<u32>,
    player: String,
    problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    width: u32,
    lost: i64,
    frozen_s: f64,
}

#[derive(Deserialize)]
struct Ended {
    status: u16,
    layers: Vec<Layer>,
}

#[test]
fn a_browsers_layers_are_watched_without_an_encode() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let screenshot = output_dir()?.join("simulcast.png");
    let (origin, screenshot) = (server.page_url(""), screenshot.to_string_lossy().into_owned());
    let arguments = [&origin, "live/tab", PUBLISH_KEY, &screenshot, "s360:640", "s180:320", "v:1280"];
    let browser = Browser::run("simulcast.mjs", &arguments)?;
    let published: Published = browser.wait_for("published", STEP_MAX)?;
    ensure!(published.layers.len() == 3, "sent are {:?}", published.layers);
    for line in ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f"] {
        ensure!(
            published.answer.lines().any(|other| other.trim_end() == line),
            "no {line}: {}",
            published.answer
        );
    }
    // Browsers offer AES-CM first.
    ensure!(published.profile == "SRTP_AEAD_AES_128_GCM", "sealed with {}", published.profile);

    let Begun {} = browser.wait_for("watched", STEP_MAX)?;
    for (rendition, width) in [("s360", 640), ("s180", 320), ("v", 1280)] {
        let pinned: Pinned = browser.wait_for(&format!("pinned_{rendition}"), STEP_MAX)?;
        // Packets are lost where a browser that sends and shows this much has no time to take them.
        ensure!((pinned.status, pinned.width) == (204, width), "{rendition}: {pinned:?}");
    }
    let played: Played = browser.wait_for("played", STEP_MAX)?;
    ensure!(played.problems.is_empty(), "script errors: {:?}", played.problems);
    ensure!((played.width, played.height) == (1280, 720), "{}x{}", played.width, played.height);
    ensure!(Watched::of(&server, "live/tab").variants()? == 1, "layers are in no playlist");
    let chosen: Chosen = browser.wait_for("chosen", STEP_MAX)?;
    ensure!(chosen.offered == ["Auto", "720p", "360p", "180p"], "{chosen:?}");
    ensure!(chosen.shown == [180, 360, 720] && chosen.player == "webrtc", "{chosen:?}");
    ensure!(chosen.problems.is_empty(), "script errors: {:?}", chosen.problems);

    for (event, width) in [("off", 640), ("on", 1280)] {
        let shown: Shown = browser.wait_for(event, STEP_MAX)?;
        println!("{event}: the picture stood for {:.1} s, {} packets lost", shown.frozen_s, shown.lost);
        ensure!(shown.width == width, "{event}: {shown:?}");
    }
    let ended: Ended = browser.wait_for("ended", STEP_MAX)?;
    ensure!(ended.status == 200);
    let asked: Vec<_> = ended.layers.iter().map(|layer| layer.plis).collect();
    ensure!(
        asked.iter().all(|plis| *plis >= 3 && plis.abs_diff(asked[0]) <= 2),
        "all at once: {:?}",
        ended.layers
    );
    for (rid, width) in [("q", 320), ("h", 640), ("f", 1280)] {
        ensure!(
            ended.layers.iter().any(|layer| layer.rid == rid && layer.width == width),
            "{:?}",
            ended.layers
        );
    }
    ensure!(server.metric("whip_packets_lost_total")? == 0.0);
    server.stop()
}
