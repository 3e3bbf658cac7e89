//! Settings that a cluster has in common: set on one node, in force on all from their next start.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cluster::Cluster;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::video_path;

/// A first playlist, also on a busy machine.
const LIVE_MAX: Duration = Duration::from_secs(30);
/// A change is told to others within seconds; also on a busy machine.
const HEARD_MAX: Duration = Duration::from_secs(30);

/// Of parts, as a stream that is published to `node` has them.
fn part_target(node: &Tidecast, stream: &str) -> Result<Duration> {
    let _publisher = Publisher::of_clip("gop-0.5", &node.publish_url(stream))?;
    let http = node.viewer_http();
    let path = video_path(&http, stream, LIVE_MAX)?;
    MediaPlaylist::parse(&http.get_ok(&path)?.text())?.part_target.context("no parts")
}

fn hears(node: &Tidecast, words: &str) -> Result<()> {
    node.wait_for_log(words, HEARD_MAX, |line| line.contains(words).then_some(()))
}

fn shown(node: &Tidecast, key: &str) -> Result<String> {
    let all = node.operate(&["config", "show"])?;
    let line = all.lines().find(|line| line.starts_with(key)).with_context(|| all.clone())?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn refused(node: &Tidecast, command: &str, why: &str) -> Result<()> {
    let words = node.asked_for_people(command).err().with_context(|| format!("{command} is done"))?;
    ensure!(words.to_string().contains(why), "{words}");
    Ok(())
}

#[test]
fn what_is_set_on_one_node_is_in_force_on_all_from_their_next_start() -> Result<()> {
    let (cluster, mut nats) = (Cluster::new()?, Nats::start()?);
    let a = cluster.node("a", "all", &nats, Setup::default())?;
    let b = cluster.node("b", "all", &nats, Setup::default())?;
    let own = cluster.node("c", "all", &nats, Setup::default().set("hls.profile", "default"))?;
    let is_there = || Ok((a.ask("nodes")?.len() == 3).then_some(()));
    poll::until("all three nodes", HEARD_MAX, is_there)?;

    let said = a.asked_for_people("config set hls.profile low")?;
    ensure!(
        said == "hls.profile is \"low\" for all nodes of the cluster, from the next start of each\n",
        "{said}"
    );
    hears(&b, "made on a: hls.profile is \"low\"; in force here from the next start")?;
    hears(&own, "hls.profile is \"low\"; not in force here, where environment TIDECAST__HLS__PROFILE says")?;
    let long = part_target(&b, "live/before")?;

    let b = b.restart(End::Drained)?;
    ensure!(shown(&b, "hls.profile")? == "hls.profile = \"low\" # cluster, set on a");
    let short = part_target(&b, "live/after")?;
    ensure!(short < long, "{short:?} and {long:?}");
    // One that comes later has it at once.
    let late = cluster.node("d", "all", &nats, Setup::default())?;
    ensure!(part_target(&late, "live/late")? == short);
    drop(late);
    // Who has not been started again is told of, like who says otherwise.
    poll::until("the difference in words", HEARD_MAX, || {
        let told = b.asked_for_people("nodes")?;
        Ok(told.contains("hls.profile should be equal on all nodes").then_some(()))
    })?;
    let said = own.asked_for_people("config set publish.linger 7s")?;
    ensure!(said.starts_with("publish.linger is \"7s\" for all nodes"), "{said}");
    ensure!(shown(&own, "hls.profile")?.contains("environment TIDECAST__HLS__PROFILE"));

    // A node has them without NATS, and an event tells of each.
    hears(&b, "made on c: publish.linger is \"7s\"")?;
    let events = a.ask("events")?;
    ensure!(events.iter().filter(|event| event["kind"] == "setting-changed").count() == 2, "{events:?}");
    nats.kill()?;
    let b = b.restart(End::Drained)?;
    ensure!(part_target(&b, "live/alone")? == short);
    ensure!(shown(&b, "publish.linger")? == "publish.linger = \"7s\" # cluster, set on c");
    ensure!(shown(&b, "hls.profile")? == "hls.profile = \"low\" # cluster, set on a");
    refused(&b, "config set hls.profile default", "cannot be reached")
}

#[test]
fn what_cannot_be_set_for_all_is_refused_in_words_and_what_was_set_is_taken_back() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let a = cluster.node("a", "all", &nats, Setup::default())?;
    // Which the store tells it of.
    poll::until("its own start", HEARD_MAX, || Ok((!a.ask("events")?.is_empty()).then_some(())))?;
    refused(&a, "config set rtmp.listen :1", "possible values: publish.linger")?;
    refused(&a, "config set hls.profile lowest", "hls.profile: ")?;
    let status = |key: &str, value: &str| -> Result<u16> {
        let order = serde_json::json!({ "value": value }).to_string();
        Ok(a.admin_http().send("PUT", &format!("/api/v1/settings/{key}"), &[], order.as_bytes())?.status)
    };
    ensure!(status("hls.profile", "lowest")? == 400 && status("rtmp.listen", ":1")? == 404);
    refused(&Setup::default().start()?, "config set hls.profile low", "cluster.nats is not set")?;

    a.asked_for_people("config set hls.profile low")?;
    let said = a.asked_for_people("config unset hls.profile")?;
    ensure!(said == "hls.profile is each node's own again, from its next start\n", "{said}");
    let a = a.restart(End::Drained)?;
    ensure!(shown(&a, "hls.profile")? == "hls.profile = \"default\" # default");
    Ok(())
}
