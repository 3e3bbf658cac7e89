//! Viewers by WebRTC at an edge: real Chromium, the origin in another process.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::Setup;
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(90);
const STREAM: &str = "live/cam";

#[derive(Debug, Deserialize)]
struct Seen {
    watched_s: f64,
    frames: u64,
    lost: i64,
    energy: f64,
    width: u32,
}

#[derive(Deserialize)]
struct Ended {}

#[test]
fn an_rtmp_stream_is_watched_by_webrtc_at_an_edge() -> Result<()> {
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default().set("transcode.ladder", "180:200k"))?;
    let edge = cluster.edge("edge1", &origin)?;
    let publisher = Publisher::of_clip("gop-2", &origin.publish_url(STREAM))?;
    poll::until("a stream", STEP_MAX, || {
        let state = origin.viewer_http().get_ok(&format!("/state/{STREAM}"))?.text();
        Ok(state.contains("\"state\":\"live\"").then_some(()))
    })?;
    let screenshot = output_dir()?.join("whep-at-edge.png").to_string_lossy().into_owned();
    let browser = Browser::run("whep.mjs", &[&edge.page_url(""), STREAM, "6", &screenshot])?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    println!("{seen:?}");
    ensure!(seen.width == 640 && seen.energy > 0.0 && seen.lost == 0, "{seen:?}");
    ensure!(seen.frames as f64 / seen.watched_s > 20.0, "{seen:?}");
    publisher.stop()?;
    let Ended {} = browser.wait_for("ended", STEP_MAX)?;
    edge.stop()?;
    origin.stop()
}
