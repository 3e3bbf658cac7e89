//! aiortc publishes by WHIP and watches by WHEP: an implementation of WebRTC that shares nothing with a browser's.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::aiortc::{publish, watch};
use harness::poll;
use harness::publisher::Publisher;
use harness::script::Script;
use harness::server::{PUBLISH_KEY, Profile, Setup, Tidecast};
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Connected {
    state: String,
}

#[derive(Debug, Deserialize)]
struct Seen {
    watched_s: f64,
    frames: u64,
    changes: u64,
    size: (u32, u32),
    /// Root mean square; 1 is as loud as it gets.
    level: f64,
    pitch_hz: f64,
}

#[derive(Deserialize)]
struct Ended {
    /// Of the DELETE.
    status: Option<u16>,
}

fn connected(peer: &Script) -> Result<()> {
    let Connected { state } = peer.wait_for("connected", STEP_MAX)?;
    ensure!(state == "connected", "{state}");
    Ok(())
}

/// The tone is as loud as half of what there is, which is a level of 0.35, and FFmpeg, in which aiortc makes stereo of it, puts 0.71
/// of that into each channel: 0.25.
#[test]
fn aiortc_publishes_and_aiortc_watches() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let publisher = publish(&server.whip_url("live/py"), PUBLISH_KEY)?;
    connected(&publisher)?;
    let viewer = watch(&format!("{}?wait", server.whep_url("live/py")), 5)?;
    connected(&viewer)?;
    let seen: Seen = viewer.wait_for("watched", STEP_MAX)?;
    println!("{seen:?}");
    ensure!(seen.size == (320, 180), "{seen:?}");
    // Both ends work in Python, on a busy machine.
    ensure!(seen.frames as f64 / seen.watched_s > 10.0, "{seen:?}");
    ensure!(seen.changes * 2 > seen.frames, "the picture stands still: {seen:?}");
    ensure!((0.2..0.3).contains(&seen.level) && (430.0..450.0).contains(&seen.pitch_hz), "{seen:?}");
    ensure!(server.metric("whip_packets_lost_total")? == 0.0);
    publisher.terminate();
    let Ended { status } = publisher.wait_for("ended", STEP_MAX)?;
    ensure!(status == Some(200), "{status:?}");
    let Ended { .. } = viewer.wait_for("ended", STEP_MAX)?;
    server.stop()
}

/// H.264 High, which it does not offer and decodes, and AAC that has become Opus.
#[test]
fn aiortc_watches_what_came_by_rtmp() -> Result<()> {
    // For the Opus: aiortc takes no answer in which its offer of sound is refused.
    let server = Setup::default().set("transcode.ladder", "180:200k").start()?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/cam"))?;
    let viewer = watch(&format!("{}?wait", server.whep_url("live/cam")), 5)?;
    connected(&viewer)?;
    let seen: Seen = viewer.wait_for("watched", STEP_MAX)?;
    println!("{seen:?}");
    // On a busy machine aiortc may find the path too narrow for the larger one.
    ensure!([(640, 360), (320, 180)].contains(&seen.size), "{seen:?}");
    ensure!(seen.frames as f64 / seen.watched_s > 10.0, "{seen:?}");
    ensure!(seen.changes * 4 > seen.frames && seen.level > 0.001, "{seen:?}");
    publisher.stop()?;
    let Ended { .. } = viewer.wait_for("ended", STEP_MAX)?;
    poll::until("nobody watches", STEP_MAX, || Ok((server.metric("whep_viewers")? == 0.0).then_some(())))?;
    server.stop()
}
