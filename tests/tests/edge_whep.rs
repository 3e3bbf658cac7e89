//! Viewers by WebRTC at an edge: real Chromium, and the origin in another process.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::http::Http;
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, PUBLISH_KEY, Setup, Tidecast};
use harness::watched::Watched;
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(90);
const STREAM: &str = "live/cam";

/// Out of Chromium.
const OFFER: &str = include_str!("../../core/rtc/src/sdp/fixtures/chromium.sdp");

#[derive(Debug, Deserialize)]
struct Seen {
    times: Times,
    watched_s: f64,
    frames: u64,
    lost: i64,
    energy: f64,
    width: u32,
}

#[derive(Debug, Deserialize)]
struct Times {
    post_ms: f64,
    shown_ms: f64,
}

#[derive(Deserialize)]
struct Pinned {
    status: u16,
    width: u32,
}

#[derive(Deserialize)]
struct Returned {
    stood_ms: f64,
    state: String,
}

#[derive(Deserialize)]
struct Stood {}

#[derive(Deserialize)]
struct Ended {}

impl Seen {
    /// The machine is busy, so two thirds of the pictures may be missing.
    fn is_right(&self) -> Result<()> {
        let Self { times: Times { post_ms, shown_ms }, .. } = self;
        // Packets are lost where a browser has no time to take them; between the nodes nothing can be.
        println!("answered after {post_ms:.0} ms, shown after {shown_ms:.0}, {} packets lost", self.lost);
        ensure!(self.width == 640, "{self:?}");
        ensure!(self.frames as f64 / self.watched_s > 10.0, "{self:?}");
        ensure!(self.energy > 0.0, "nothing was heard");
        Ok(())
    }
}

fn state(http: &Http) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&http.get_ok(&format!("/state/{STREAM}"))?.body)?)
}

fn wait_for_state(node: &Tidecast, wanted: &str) -> Result<()> {
    poll::until(wanted, STEP_MAX, || Ok((state(&node.viewer_http())?["state"] == wanted).then_some(())))
}

fn watch(node: &Tidecast, name: &str, rendition: Option<&str>) -> Result<Browser> {
    let screenshot = output_dir()?.join(name).to_string_lossy().into_owned();
    let origin = node.page_url("");
    let arguments = [origin.as_str(), STREAM, "6", &screenshot];
    Browser::run("whep.mjs", &[&arguments, rendition.as_slice()].concat())
}

/// And those that took its place: on a machine as busy as this one a node may be silent for half a second.
fn one_subscription(origin: &Tidecast, edge: &Tidecast) -> Result<()> {
    poll::until("one subscription", STEP_MAX, || {
        let (asked, broken) = (edge.metric("pull_subscriptions_total")?, edge.metric("pull_breaks_total")?);
        let answered = origin.metric("relay_subscribed_total")?;
        Ok((asked == answered && asked - broken == 1.0).then_some(()))
    })
}

/// The sound of an RTMP stream is made for viewers by WebRTC only, so who hears it at an edge was heard at the origin.
#[test]
fn all_viewers_of_an_edge_are_one_subscription_which_ends_after_the_last() -> Result<()> {
    const OTHERS: usize = 5;
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default().set("transcode.ladder", "180:200k"))?;
    let edge = cluster.edge("edge1", &origin)?;
    let publisher = Publisher::of_clip("gop-2", &origin.publish_url(STREAM))?;
    wait_for_state(&origin, "live")?;
    let browser = watch(&edge, "whep-at-edge.png", None)?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    seen.is_right()?;

    let http = edge.viewer_http();
    let mut sessions = Vec::new();
    for _ in 0..OTHERS {
        let sdp = [("Content-Type", "application/sdp")];
        let answer = http.send("POST", &format!("/whep/{STREAM}"), &sdp, OFFER.as_bytes())?;
        ensure!(answer.status == 201, "{}: {}", answer.status, answer.text());
        sessions.push(answer.header("location").to_owned());
    }
    one_subscription(&origin, &edge)?;
    let counted = |node: &Tidecast| -> Result<_> { Ok(state(&node.viewer_http())?["viewers"].as_u64()) };
    ensure!(counted(&edge)? == Some(1 + OTHERS as u64) && counted(&origin)? == Some(0));
    let labelled = edge.metric("stream_viewers{app=\"live\",stream=\"cam\"}")?;
    ensure!(labelled == 1.0 + OTHERS as f64, "{labelled}");
    let list: serde_json::Value = serde_json::from_slice(&http.get_ok("/state")?.body)?;
    ensure!(list["streams"][0]["viewers"] == 1 + OTHERS, "{list}");

    drop(browser);
    for session in &sessions {
        ensure!(http.send("DELETE", session, &[], b"")?.status == 200);
    }
    poll::until("nobody watches", STEP_MAX, || Ok((counted(&edge)? == Some(0)).then_some(())))?;
    poll::until("the end of the linger", STEP_MAX, || {
        Ok((origin.metric("relay_subscriptions")? == 0.0).then_some(()))
    })?;
    ensure!(edge.metric("pull_streams")? == 0.0);
    publisher.stop()?;
    edge.stop()?;
    origin.stop()
}

/// Pictures stand still, and go on in the same session; a rung is shown without a new offer there too.
#[test]
fn viewers_of_an_edge_outlive_the_death_of_its_origin() -> Result<()> {
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default().set("transcode.ladder", "180:200k"))?;
    let edge = cluster.edge("edge1", &origin)?;
    let publisher = Publisher::of_clip("gop-2", &origin.publish_url(STREAM))?;
    let watched = Watched::of(&origin, STREAM);
    poll::until("a ladder", STEP_MAX, || Ok((watched.whole("v180")?.len() > 1).then_some(())))?;
    let browser = watch(&edge, "whep-before-death.png", Some("v180"))?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    seen.is_right()?;
    let Pinned { status, width } = browser.wait_for("pinned", STEP_MAX)?;
    ensure!((status, width) == (204, 320), "{status}: {width} pixels wide");

    let origin = origin.restart(End::Killed)?;
    publisher.kill()?;
    let Stood {} = browser.wait_for("stood", STEP_MAX)?;
    let publisher = Publisher::of_clip("gop-2", &origin.publish_url(STREAM))?;
    let returned: Returned = browser.wait_for("returned", STEP_MAX)?;
    ensure!(returned.state == "connected", "{}", returned.state);
    println!("stood still for {:.0} ms, and went on", returned.stood_ms);
    let resumed = origin.metric("relay_resumed_total")?;
    ensure!(resumed >= 1.0, "{resumed} resumed");
    publisher.stop()?;
    let Ended {} = browser.wait_for("ended", STEP_MAX)?;
    poll::until("nobody watches", STEP_MAX, || Ok((edge.metric("whep_viewers")? == 0.0).then_some(())))?;
    edge.stop()?;
    origin.stop()
}

/// From a camera through two nodes to the screen: what the publisher is asked for comes from the far end.
#[test]
fn a_whip_publisher_is_watched_at_the_edge_of_an_edge() -> Result<()> {
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default())?;
    let shield = cluster.edge("shield", &origin)?;
    let edge = cluster.edge("edge1", &shield)?;
    let publisher = Publisher::of_whip(&origin.whip_url(STREAM), PUBLISH_KEY)?;
    wait_for_state(&origin, "live")?;
    let browser = watch(&edge, "whep-at-edge-of-edge.png", None)?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    ensure!(seen.frames as f64 / seen.watched_s > 10.0, "{seen:?}");
    one_subscription(&origin, &shield)?;
    one_subscription(&shield, &edge)?;
    publisher.stop()?;
    let Ended {} = browser.wait_for("ended", STEP_MAX)?;
    edge.stop()?;
    shield.stop()?;
    origin.stop()
}
