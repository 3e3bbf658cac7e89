//! Rungs that other nodes make: what viewers see of it when those nodes come, leave, hang and die.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::chaos;
use harness::cluster::Cluster;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::watched::Watched;

const STREAM: &str = "live/cam";
/// Small, so that two cores have time for everything else.
const LADDER: &str = "180:150k, 90:60k";
const RUNG: &str = "v180";

/// Nodes hear of each other within a heartbeat, and a worker has tried its encoders by then.
const HEARD_MAX: Duration = Duration::from_secs(60);
/// Until a rung has media; GStreamer's first look at its plugins takes seconds.
const RUNG_MAX: Duration = Duration::from_secs(60);
/// Whole segments of the rung behind what happened.
const WATCHED: u64 = 4;

/// A node for publishers and viewers that encodes nothing, and two that do nothing else.
struct Scene {
    origin: Tidecast,
    workers: Vec<(String, Tidecast)>,
    cluster: Cluster,
    nats: Nats,
}

impl Scene {
    fn new() -> Result<Self> {
        let (cluster, nats) = (Cluster::new()?, Nats::start()?);
        let setup = Setup::default().set("transcode.ladder", LADDER);
        let origin = cluster.node("origin", "ingest, origin, edge", &nats, setup)?;
        let mut scene = Self { origin, workers: Vec::new(), cluster, nats };
        for name in ["w1", "w2"] {
            scene.add(name)?;
        }
        Ok(scene)
    }

    fn add(&mut self, name: &str) -> Result<()> {
        let worker = self.cluster.node(name, "transcode", &self.nats, Setup::default())?;
        self.workers.push((name.to_owned(), worker));
        self.wait_for_offer(name)
    }

    fn wait_for_offer(&self, name: &str) -> Result<()> {
        let lends = |node: &serde_json::Value| {
            node["id"] == name && node["load"]["encode_free"].as_f64().is_some_and(|free| free > 0.0)
        };
        poll::until("its encoders to be offered", HEARD_MAX, || {
            Ok(self.origin.ask("nodes")?.iter().any(lends).then_some(()))
        })
    }

    /// A stream with its rungs.
    fn publish(&self) -> Result<Publisher> {
        let publisher = Publisher::of_clip("gop-2", &self.origin.publish_url(STREAM))?;
        poll::until("the rungs", RUNG_MAX, || {
            let variants = self.watched().variants();
            Ok(variants.is_ok_and(|variants| variants == 3).then_some(()))
        })
        .with_context(|| self.told())?;
        self.behind(1)?;
        Ok(publisher)
    }

    fn watched(&self) -> Watched {
        Watched::of(&self.origin, STREAM)
    }

    /// Takes the worker that makes the pictures out of the scene.
    fn take_busy(&mut self) -> Result<(String, Tidecast)> {
        let lines = self.origin.log();
        let line = lines.iter().rfind(|line| line.contains("encodes for this one") && line.contains("Video"));
        let line = line.with_context(|| self.told())?;
        let busy = self.workers.iter().position(|(name, _)| line.contains(&format!("node.id={name}")));
        let (name, worker) = self.workers.remove(busy.with_context(|| line.clone())?);
        ensure!(worker.metric("transcode_lent")? >= 1.0, "{line}");
        Ok((name, worker))
    }

    /// Waits until the rung has so many whole segments more, and returns those that there are then.
    fn behind(&self, segments: u64) -> Result<Vec<u64>> {
        let before = self.watched().newest("v")?;
        poll::until("segments of the rung", RUNG_MAX, || {
            let whole = self.watched().whole(RUNG)?;
            Ok((whole.last().copied().unwrap_or(0) >= before + segments).then_some(whole))
        })
        .with_context(|| self.told())
    }

    /// Segments since `first` of which the rung has no media.
    fn missing(&self, first: u64, whole: &[u64]) -> Vec<u64> {
        let last = whole.last().copied().unwrap_or(0);
        (first..last).filter(|msn| !whole.contains(msn)).collect()
    }

    /// Of what the publisher sent, nothing is missing that is in the playlist.
    fn is_passed_through(&self) -> Result<()> {
        let playlist = self.watched().playlist("v")?.context("a playlist")?;
        let gaps: Vec<_> =
            playlist.segments.iter().filter(|segment| segment.gap).map(|gap| gap.msn).collect();
        ensure!(gaps.is_empty(), "{gaps:?} are not passed through");
        Ok(())
    }

    fn told(&self) -> String {
        self.origin.log().join("\n")
    }
}

#[test]
fn a_worker_that_is_killed_is_replaced_by_another() -> Result<()> {
    let mut scene = Scene::new()?;
    let _publisher = scene.publish()?;
    ensure!(scene.origin.metric("transcode_jobs")? >= 1.0, "the job is where its stream is");
    let (killed, busy) = scene.take_busy()?;
    let first = scene.watched().newest(RUNG)?;
    busy.kill()?;
    let whole = scene.behind(WATCHED)?;
    let missing = scene.missing(first, &whole);
    println!("killed: segments {missing:?} of {first} to {:?} have no rung", whole.last());
    ensure!(missing.len() <= 2, "{missing:?}: {}", scene.told());
    scene.is_passed_through()?;
    let (name, next) = scene.take_busy()?;
    let words = format!("{STREAM} is encoded by {name} now, and was by {killed}");
    let events = scene.origin.ask("events")?;
    let is_told = events.iter().any(|event| event["kind"] == "encoding-moved" && event["words"] == *words);
    ensure!(is_told, "{words}: {events:?}");
    next.stop()?;
    scene.origin.stop()
}

#[test]
fn of_a_worker_that_leaves_nothing_is_seen() -> Result<()> {
    let mut scene = Scene::new()?;
    let _publisher = scene.publish()?;
    let (_, busy) = scene.take_busy()?;
    let first = scene.watched().newest(RUNG)?;
    busy.stop()?;
    let whole = scene.behind(WATCHED)?;
    let missing = scene.missing(first, &whole);
    ensure!(missing.is_empty(), "{missing:?}: {}", scene.told());
    ensure!(scene.origin.metric("transcode_failures_total")? == 0.0, "{}", scene.told());
    scene.is_passed_through()?;
    scene.origin.stop()
}

/// As an operator orders it; and its encoders are used again when the order is taken back.
#[test]
fn a_worker_that_is_drained_by_order_lends_nothing_until_that_is_undone() -> Result<()> {
    let mut scene = Scene::new()?;
    let _publisher = scene.publish()?;
    let (name, busy) = scene.take_busy()?;
    let first = scene.watched().newest(RUNG)?;
    scene.origin.ask(&format!("nodes drain {name}"))?;
    poll::until("its encoders to be let go of", RUNG_MAX, || {
        Ok((busy.metric("transcode_lent")? == 0.0).then_some(()))
    })?;
    let whole = scene.behind(WATCHED)?;
    let missing = scene.missing(first, &whole);
    ensure!(missing.is_empty(), "{missing:?}: {}", scene.told());

    scene.origin.ask(&format!("nodes drain {name} --undo"))?;
    scene.wait_for_offer(&name)?;
    let (_, other) = scene.take_busy()?;
    other.kill()?;
    scene.behind(1)?;
    ensure!(busy.metric("transcode_lent")? >= 1.0, "{}", scene.told());
    for node in [busy, scene.origin] {
        node.stop()?;
    }
    Ok(())
}

/// Workers are killed, drained and stopped at random, each time the one that is busy, and another takes its place.
#[test]
fn whatever_befalls_workers_what_is_passed_through_does_not_notice() -> Result<()> {
    chaos::survive(|seed| {
        let mut scene = Scene::new()?;
        let _publisher = scene.publish()?;
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut frozen, mut failures) = (Vec::new(), 0);
        for strike in 0..4 {
            let (how, pause) = (random.usize(0..3), Duration::from_millis(random.u64(0..3_000)));
            let start = Instant::now();
            poll::until("the moment", HEARD_MAX, || Ok((start.elapsed() >= pause).then_some(())))?;
            let (name, busy) = scene.take_busy()?;
            let struck = scene.watched().newest("v")? + 1;
            let how = ["killed", "drained", "stopped"][how];
            println!("seed {seed}, strike {strike}: {name} is {how} in {struck}, after {pause:?}");
            match how {
                "killed" => busy.kill()?,
                "drained" => busy.stop()?,
                _ => {
                    busy.freeze()?;
                    frozen.push(busy);
                }
            }
            let whole = poll::until("the rung again", RUNG_MAX, || {
                let whole = scene.watched().whole(RUNG)?;
                Ok(whole.last().is_some_and(|newest| *newest > struck).then_some(whole))
            })
            .with_context(|| scene.told())?;
            let missing = scene.missing(struck, &whole);
            // After the second failure within a minute the next start waits a second, and after that five; a worker that
            // stands still is found out in another two.
            let allowed = if how == "drained" { 0 } else { [2, 3, 6, 6][failures] };
            ensure!(missing.len() <= allowed, "{how}: {missing:?} missing: {}", scene.told());
            failures += usize::from(how != "drained");
            scene.add(&format!("w{}", strike + 3))?;
        }
        for node in &frozen {
            node.thaw()?;
        }
        scene.behind(1)?;
        scene.is_passed_through()?;
        scene.origin.stop()
    })
}

/// As a machine that hangs: its connections stay open, and it takes new ones.
#[test]
fn a_worker_that_stands_still_is_replaced_and_reaches_no_viewer_when_it_goes_on() -> Result<()> {
    let mut scene = Scene::new()?;
    let _publisher = scene.publish()?;
    let (_, busy) = scene.take_busy()?;
    let first = scene.watched().newest(RUNG)?;
    let stood = Instant::now();
    busy.freeze()?;
    let whole = scene.behind(WATCHED)?;
    let missing = scene.missing(first, &whole);
    println!(
        "frozen: segments {missing:?} have no rung; looked at for {:.1} s",
        stood.elapsed().as_secs_f64()
    );
    scene.is_passed_through()?;
    busy.thaw()?;
    let after = *whole.last().context("a segment")?;
    let whole = scene.behind(WATCHED)?;
    let missing = scene.missing(after, &whole);
    ensure!(missing.is_empty(), "{missing:?} after it went on: {}", scene.told());
    poll::until("the child of the one that stood still to be gone", RUNG_MAX, || {
        Ok((busy.metric("transcode_lent")? == 0.0).then_some(()))
    })?;
    busy.stop()?;
    scene.origin.stop()
}

#[test]
fn without_any_worker_the_stream_is_passed_through_until_one_comes() -> Result<()> {
    let mut scene = Scene::new()?;
    let _publisher = scene.publish()?;
    let first = scene.watched().newest("v")?;
    for (_, worker) in scene.workers.drain(..) {
        worker.kill()?;
    }
    poll::until("segments that are passed through", RUNG_MAX, || {
        Ok((scene.watched().newest("v")? >= first + 4).then_some(()))
    })?;
    scene.is_passed_through()?;
    let refused = |line: &String| line.contains("no other node encodes");
    poll::until("a word of it", RUNG_MAX, || Ok(scene.origin.log().iter().any(refused).then_some(())))?;
    ensure!(scene.origin.log().iter().filter(|line| refused(line)).count() <= 2, "{}", scene.told());
    scene.add("w3")?;
    scene.behind(2)?;
    scene.origin.stop()
}
