//! Who is let into a cluster, who is put out, and how certificates change, while a stream plays.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use harness::cluster::{Cluster, Machine};
use harness::http::{Http, resolve};
use harness::nats::Nats;
use harness::peer::{Papers, Peer};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::video_path;

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";
const LIVE_MAX: Duration = Duration::from_secs(30);
/// A command is heard, and told to others, within seconds; also on a busy machine.
const HEARD_MAX: Duration = Duration::from_secs(30);

/// The path of the video playlist, once there is one.
fn live(http: &Http) -> Result<String> {
    video_path(http, STREAM, LIVE_MAX)
}

/// The edge has media behind what it has now, and its last whole segment is the origin's, to the last byte.
fn plays_on(origin: &Tidecast, edge: &Tidecast, path: &str) -> Result<()> {
    let newest = |http: &Http| -> Result<u64> {
        let playlist = MediaPlaylist::parse(&http.get_ok(path)?.text())?;
        Ok(playlist.edge().context("an empty playlist")?.0)
    };
    let (here, there) = (edge.viewer_http(), origin.viewer_http());
    let from = newest(&here)?;
    let msn = poll::until("the stream to go on at the edge", LIVE_MAX, || {
        let now = newest(&here)?;
        Ok((now > from + 1).then(|| now - 1))
    })?;
    let segment = resolve(path, &format!("{msn}.m4s"));
    let (ours, theirs) = (here.get_ok(&segment)?.body, there.get_ok(&segment)?.body);
    ensure!(!ours.is_empty() && ours == theirs, "segment {msn} is another one at the edge");
    Ok(())
}

fn refused(joined: Result<String>) -> Result<String> {
    Ok(joined.err().context("it was let in")?.to_string())
}

fn lines(node: &Tidecast, word: &str) -> usize {
    node.log().iter().filter(|line| line.contains(word)).count()
}

/// Nothing but this machine's being busy has broken a subscription.
fn undisturbed(edge: &Tidecast) -> Result<()> {
    let log = edge.log();
    let broken =
        |line: &&String| line.contains("the upstream is lost") && !line.contains("nothing was heard for");
    match log.iter().find(broken) {
        Some(line) => bail!("it was disturbed: {line}"),
        None => Ok(()),
    }
}

#[test]
fn a_machine_joins_by_a_line_and_only_once() -> Result<()> {
    let founder = Cluster::new()?.founder(Setup::default())?;
    let token = founder.token(Some("edge1"))?;
    ensure!(!token.contains(char::is_whitespace), "{token}");
    let machine = Machine::new()?;
    let told = machine.join(&token, &[])?;
    ensure!(told.contains("joined as edge1"), "{told}");
    ensure!(!machine.certificates().join("ca.key").exists());

    let told = refused(Machine::new()?.join(&token, &[]))?;
    ensure!(told.contains("the token has been used"), "{told}");
    // Whoever has the address of the relay, and guesses.
    let (wrong, at) = token.split_once('@').context("a token has an address")?;
    let wrong = format!("{}{}@{at}", &wrong[..26], format_args!("{}{}", "0".repeat(32), &wrong[58..]));
    let begun = Instant::now();
    let guess = || refused(Machine::new()?.join(&wrong, &[]));
    for number in 0..6 {
        let told = guess()?;
        ensure!(told.contains("not one of this cluster"), "guess {number}: {told}");
    }
    // From here on it has to wait a second, two, four: sooner or later it does not.
    poll::until("it is made to wait", HEARD_MAX, || {
        Ok(guess()?.contains("too many wrong keys").then_some(()))
    })?;
    let told = lines(&founder, "refused a certificate to 127.0.0.1") as u64;
    ensure!((1..=3 + begun.elapsed().as_secs()).contains(&told), "{told} lines about one guesser");
    let elsewhere = Cluster::new()?.founder(Setup::default())?;
    let of_another = elsewhere.token(Some("edge2"))?;
    let of_another = format!("{}@{at}", of_another.split_once('@').context("an address")?.0);
    let told = refused(Machine::new()?.join(&of_another, &[]))?;
    ensure!(told.contains("of another cluster than the token"), "{told}");

    let edge = machine.edge(&founder, Setup::default())?;
    let _publisher = Publisher::of_clip("gop-0.5", &founder.publish_url(STREAM))?;
    let path = live(&edge.viewer_http())?;
    plays_on(&founder, &edge, &path)?;
    edge.stop()?;
    founder.stop()
}

#[test]
fn a_token_for_whoever_gives_no_name_that_is_taken() -> Result<()> {
    let founder = Cluster::new()?.founder(Setup::default())?;
    let token = founder.token(None)?;
    let told = refused(Machine::new()?.join(&token, &["--name", "authority"]))?;
    ensure!(told.contains("there has been a node called authority"), "{told}");
    let told = Machine::new()?.join(&token, &["--name", "edge7"])?;
    ensure!(told.contains("joined as edge7"), "{told}");
    Ok(())
}

#[test]
fn a_node_that_is_put_out_is_cut_off_and_stays_out() -> Result<()> {
    let founder = Cluster::new()?.founder(Setup::default())?;
    let (outcast, other) = (founder.edge_by_token("outcast")?, founder.edge_by_token("other")?);
    let _publisher = Publisher::of_clip("gop-0.5", &founder.publish_url(STREAM))?;
    let path = live(&other.viewer_http())?;
    live(&outcast.viewer_http())?;
    founder.operate(&["cluster", "revoke", "outcast"])?;
    outcast.wait_for_log("that it is out", HEARD_MAX, |line| {
        line.contains("was put out of the cluster").then_some(())
    })?;
    founder.token(Some("edge9"))?;
    let told = founder.admin_http().get_ok("/api/v1/trust")?.text();
    let parts = [r#""revoked":["outcast"]"#, r#""roots":1"#, r#""node":"edge9""#];
    ensure!(parts.iter().all(|part| told.contains(part)), "{told}");
    poll::until("the event of it", HEARD_MAX, || {
        let events = founder.ask("events")?;
        let is_told =
            |event: &serde_json::Value| event["kind"] == "node-revoked" && event["subject"] == "outcast";
        Ok(events.iter().any(is_told).then_some(()))
    })?;
    plays_on(&founder, &other, &path)?;
    undisturbed(&other)?;
    poll::until("its playlist to be too old to follow", HEARD_MAX, || {
        Ok((outcast.viewer_http().get(&path)?.status == 503).then_some(()))
    })?;

    // Without anybody who could remind them.
    let founder = founder.restart(End::Killed)?;
    founder.wait_for_log("the refusal", HEARD_MAX, |line| {
        line.contains("refused a connection to the relay: it was put out of the cluster").then_some(())
    })?;
    let told = refused(founder.operate(&["cluster", "token", "outcast"]))?;
    ensure!(told.contains("outcast was put out of the cluster"), "{told}");
    let _again = Publisher::of_clip("gop-0.5", &founder.publish_url(STREAM))?;
    poll::until("the other edge to go on", LIVE_MAX, || {
        Ok((other.viewer_http().get(&path)?.status == 200).then_some(()))
    })
    .with_context(|| other.log().join("\n"))
}

/// Over NATS, also to who was not there when it was said; and from disk, when NATS is gone.
#[test]
fn nodes_that_start_later_know_who_was_put_out() -> Result<()> {
    let mut nats = Nats::start()?;
    let setup = Setup::default().set("cluster.nats", &nats.url());
    let founder = Cluster::new()?.founder(setup)?;
    let join = |name: &str| -> Result<Machine> {
        let machine = Machine::new()?;
        machine.join(&founder.token(Some(name))?, &[])?;
        Ok(machine)
    };
    let (outcast, late) = (join("outcast")?, join("late")?);
    founder.operate(&["cluster", "revoke", "outcast"])?;
    founder.wait_for_log("that the list is in force", HEARD_MAX, |line| {
        line.contains("whom this node trusts has changed").then_some(())
    })?;
    let late = late.node("all", &nats, Setup::default())?;
    late.wait_for_log("that it is told", HEARD_MAX, |line| {
        line.contains("whom this node trusts has changed").then_some(())
    })
    .with_context(|| format!("the founder said:\n{}", founder.log().join("\n")))?;
    nats.kill()?;
    let late = late.restart(End::Killed)?;
    let outcast = outcast.edge(&late, Setup::default())?;
    outcast.viewer_http().get(MULTIVARIANT)?;
    outcast.wait_for_log("that it is out", HEARD_MAX, |line| {
        line.contains("was put out of the cluster").then_some(())
    })
}

#[test]
fn roots_are_changed_while_a_stream_plays() -> Result<()> {
    let founder = Cluster::new()?.founder(Setup::default())?;
    let edge = founder.edge_by_token("edge1")?;
    let _publisher = Publisher::of_clip("gop-0.5", &founder.publish_url(STREAM))?;
    let path = live(&edge.viewer_http())?;
    let told = refused(founder.operate(&["cluster", "rotate", "--finish"]))?;
    ensure!(told.contains("there is but one root"), "{told}");
    founder.operate(&["cluster", "rotate"])?;
    edge.wait_for_log("its new certificate", HEARD_MAX, |line| {
        line.contains("this node's certificate is renewed").then_some(())
    })?;
    // Who comes in between knows both.
    let second = founder.edge_by_token("edge2")?;
    live(&second.viewer_http())?;
    undisturbed(&edge)?;
    // Connections by certificates of the old root end with it: they are opened anew, and viewers do not notice.
    founder.operate(&["cluster", "rotate", "--finish"])?;
    for node in [&founder, &edge, &second] {
        poll::until("one root to be left", HEARD_MAX, || {
            let roots = fs::read_to_string(node.data_dir().join("cluster/ca.pem"))?;
            Ok((roots.matches("BEGIN CERTIFICATE").count() == 1).then_some(()))
        })?;
    }
    plays_on(&founder, &edge, &path)?;
    ensure!(founder.operate(&["cluster", "rotate", "--finish"]).is_err(), "there is but one root");
    let edge = edge.restart(End::Drained)?;
    ensure!(live(&edge.viewer_http())? == path);
    plays_on(&founder, &edge, &path)
}

/// One that was made by hand for a few days: told at once, and renewed, since its node reaches the authority.
#[test]
fn a_certificate_that_ends_soon_is_told_of_and_renewed() -> Result<()> {
    let founder = Cluster::new()?.founder(Setup::default())?;
    let bundle = founder.operate(&["cluster", "invite", "edge1", "--days", "3"])?;
    let machine = Machine::new()?;
    let file = machine.certificates().with_extension("bundle");
    fs::write(&file, bundle)?;
    machine.join(&file.to_string_lossy(), &[])?;
    let edge = machine.edge(&founder, Setup::default())?;
    edge.wait_for_log("the warning", HEARD_MAX, |line| {
        line.contains("this node's certificate in the cluster ends in 2 days").then_some(())
    })?;
    edge.wait_for_log("the renewal", HEARD_MAX, |line| {
        line.contains("this node's certificate is renewed").then_some(())
    })?;
    let in_80_days = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(80 * 24 * 3_600);
    poll::until("the metric and `nodes` to say so", HEARD_MAX, || {
        let metric = edge.metric("cluster_certificate_expiry_seconds")?;
        let nodes = edge.ask("nodes")?;
        let told = nodes.first().and_then(|node| node["certificate_ends_ms"].as_f64()).unwrap_or_default();
        let is_later = metric > in_80_days.as_secs_f64() && told / 1_000.0 > in_80_days.as_secs_f64();
        Ok(is_later.then_some(()))
    })
}

/// Threats at the relay's port, one after the other, while an edge's stream plays.
#[test]
fn hostile_peers_are_refused_in_words_and_nobody_is_disturbed() -> Result<()> {
    const FLOOD: usize = 2_000;
    let founder = Cluster::new()?.founder(Setup::default())?;
    let edge = founder.edge_by_token("edge1")?;
    let _publisher = Publisher::of_clip("gop-0.5", &founder.publish_url(STREAM))?;
    let path = live(&edge.viewer_http())?;
    let (relay, files) = (founder.relay_address()?, founder.data_dir().join("cluster"));
    let elsewhere = Cluster::new()?.founder(Setup::default())?;
    let foreign = Papers::forged_at(&elsewhere.data_dir().join("cluster"), "edge1", 4000)?;
    let expired = Papers::forged_at(&files, "edge1", 2021)?;
    let evil = Papers::forged_at(&files, "evil", 4000)?;
    let format = Peer::knock(relay, &files, Some(&evil))?.format()?;
    let ask = |papers, path: &str, versions: &str, hops: &str| {
        Peer::knock(relay, &files, papers)?.with_format(format).ask(path, versions, hops)
    };

    let begun = Instant::now();
    for (papers, who) in
        [(None, "nobody"), (Some(&foreign), "another cluster's"), (Some(&expired), "expired")]
    {
        let told = ask(papers, "/x/1/live/cam", "1", "evil")?;
        ensure!(told.is_empty(), "{who} was answered: {told}");
    }
    founder.wait_for_log("the first refusal", HEARD_MAX, |line| {
        line.contains("refused a connection to the relay: it presented no certificate").then_some(())
    })?;
    poll::until("three refusals to be counted", HEARD_MAX, || {
        Ok((founder.metric("relay_refused_total")? >= 3.0).then_some(()))
    })?;
    for (path, versions, hops, status, words) in [
        ("/x/1/live/cam", "2", "evil", "406", "speaks version 1 of the wire, the other 2: bring both"),
        ("/x/1/live/cam", "1001", "evil", "406", "the other 1001: bring both"),
        ("/x/1/live/cam", "1", "edge9, authority", "508", "authority asks itself by way of"),
        ("/x/1/live/cam", "1", "a, b, c, d, e", "508", "more than 4 nodes ask one after the other"),
        ("/x/1/live/cam", "1", "Not A Node", "400", "tidecast-hops is missing or malformed"),
        ("/x/1/../etc/passwd", "1", "evil", "404", "nothing is at this path"),
    ] {
        let told = ask(Some(&evil), path, versions, hops)?;
        ensure!(
            told.starts_with(&format!("HTTP/1.1 {status} ")) && told.contains(words),
            "{path}, {versions}, {hops}: {told}"
        );
    }
    // Names that nobody publishes, over one connection.
    let mut flood = Peer::knock(relay, &files, Some(&evil))?.with_format(format);
    for number in 0..FLOOD {
        let told = flood.ask(&format!("/x/1/live/nobody{number}"), "1", "evil")?;
        ensure!(told.starts_with("HTTP/1.1 404 "), "{number}: {told}");
    }
    // And those who ask for the stream, and then read nothing more.
    let stalled: Vec<_> = (0..50)
        .map(|_| {
            let mut peer = Peer::knock(relay, &files, Some(&evil))?.with_format(format);
            peer.ask("/x/1/live/cam", "1", "evil")?;
            Ok(peer)
        })
        .collect::<Result<_>>()?;
    for _ in 0..3 {
        plays_on(&founder, &edge, &path)?;
    }
    drop(stalled);
    undisturbed(&edge)?;
    let about = ["refused a connection", "refused a request"].map(|word| lines(&founder, word));
    // One each ten seconds, however long this took.
    let lines_max = 1 + begun.elapsed().as_secs() / 10;
    ensure!(about.iter().all(|&about| about as u64 <= lines_max), "{about:?} lines about strangers");
    // Of viewers of an edge, too: what nobody has is remembered there.
    let asked_before = edge.metric("pull_subscriptions_total")?;
    for _ in 0..FLOOD {
        ensure!(edge.viewer_http().get("/hls/live/nobody/index.m3u8")?.status == 404);
    }
    let asked = edge.metric("pull_subscriptions_total")? - asked_before;
    ensure!(asked < FLOOD as f64 / 4.0, "{asked} of {FLOOD} reached the origin");
    plays_on(&founder, &edge, &path)?;
    edge.stop()?;
    founder.stop()
}
