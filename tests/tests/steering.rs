//! Players that are not our page find another edge by content steering (rfc8216bis, §7).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::media::output_dir;
use harness::nats::Nats;
use harness::poll;
use harness::ports;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::strict::MultivariantPlaylist;
use serde::Deserialize;
use serde_json::{Value, json};

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";
const MANIFEST: &str = "/where/live/cam/steering.json";

/// A first playlist, also on a busy machine.
const LIVE_MAX: Duration = Duration::from_secs(25);
/// What a page does until it tells something, also on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(90);
/// Until a player asks again where to go (10 s), and until who left counts no longer (10 s), also on a busy machine.
const MOVED_MAX: Duration = Duration::from_secs(60);
/// hls.js 1.7.4 asks three times for a playlist before it gives up a pathway, a second and two apart.
const FREEZE_MAX: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Told {}

#[derive(Debug, Deserialize)]
struct Report {
    number: usize,
    players: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    /// `None`: the picture never came back.
    freeze_ms: Option<u64>,
    fatal: Option<String>,
}

fn asked(edge: &Tidecast, path: &str) -> Result<Value> {
    Ok(serde_json::from_slice(&edge.viewer_http().get_ok(path)?.body)?)
}

fn wait_for_viewers(edge: &Tidecast, count: u64) -> Result<()> {
    poll::until(&format!("{count} viewers"), MOVED_MAX, || {
        Ok((asked(edge, "/state/live/cam")?["viewers"] == count).then_some(()))
    })
}

#[test]
fn a_bare_player_moves_to_another_edge_when_its_own_is_drained_and_when_it_is_killed() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let origin = cluster.node("origin", "ingest, origin", &nats, Setup::default())?;
    // A pathway differs in its host alone.
    let port = ports::free().port();
    let edge = |name: &str, host: u8| {
        let listen = SocketAddr::from(([127, 0, 0, host], port)).to_string();
        cluster.node(name, "edge", &nats, Setup::default().set("http.listen", &listen))
    };
    let (edge1, edge2) = (edge("edge1", 2)?, edge("edge2", 3)?);
    let _publisher = Publisher::of_clock("gop-2", &origin.publish_url(STREAM))?;
    let first = |edge: &Tidecast| {
        poll::until("the first playlist", LIVE_MAX, || {
            let answer = edge.viewer_http().get(MULTIVARIANT)?;
            Ok((answer.status == 200).then(|| answer.text()))
        })
    };
    // Bit rates are told anew once they are known.
    let text = poll::until("one text at both", LIVE_MAX, || {
        let texts = (first(&edge1)?, first(&edge2)?);
        Ok((texts.0 == texts.1).then_some(texts.0))
    })?;
    ensure!(MultivariantPlaylist::parse(&text)?.steering.as_deref() == Some(MANIFEST), "{text}");
    poll::until("edge1 to tell of edge2", LIVE_MAX, || {
        let told = asked(&edge1, MANIFEST)?;
        let replacement = &told["PATHWAY-CLONES"][0]["URI-REPLACEMENT"];
        let is_told = told["PATHWAY-PRIORITY"] == json!([".", "edge2"])
            && *replacement == json!({ "HOST": "127.0.0.3" });
        Ok(is_told.then_some(()))
    })?;

    let folder = output_dir()?.to_string_lossy().into_owned();
    let player = Browser::run("players.mjs", &[&edge1.page_url(""), STREAM, "hls.js", &folder, "15"])?;
    let Told {} = player.wait_for("playing", STEP_MAX)?;
    wait_for_viewers(&edge1, 1)?;
    ensure!(asked(&edge2, "/state/live/cam")?["viewers"] == 0);

    origin.ask("nodes drain edge1")?;
    wait_for_viewers(&edge2, 1)?;
    wait_for_viewers(&edge1, 0)?;
    origin.ask("nodes drain edge1 --undo")?;
    wait_for_viewers(&edge1, 1)?;
    wait_for_viewers(&edge2, 0)?;

    edge1.kill()?;
    wait_for_viewers(&edge2, 1)?;
    // In the time that the player looks at now, it has been killed.
    let told = player.all::<Report>("seen").len();
    player.wait_until("seen", STEP_MAX, |report: &Report| report.number > told)?;
    let seen: Vec<_> = player.all::<Report>("seen").into_iter().flat_map(|report| report.players).collect();
    println!("drained, back again and killed: {seen:?}");
    for player in &seen {
        ensure!(player.freeze_ms.is_some_and(|ms| Duration::from_millis(ms) < FREEZE_MAX), "{player:?}");
        ensure!(player.fatal.is_none(), "{player:?}");
    }
    Ok(())
}
