//! WebRTC on bad networks: real Chromium behind lost packets, bursts, cuts and bottlenecks. Every schedule has a seed, and says what
//! came of it.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::network::{Link, Network};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::watched::Watched;
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(90);
const STREAM: &str = "live/cam";

/// What was counted since the page was opened.
#[derive(Debug, Clone, Deserialize)]
struct Sample {
    /// Since the Unix epoch, as the next one.
    at_ms: f64,
    shown_ms: Option<f64>,
    stood_ms: f64,
    width: u32,
    frames: u64,
    frozen_s: f64,
    freezes: u64,
    plis: u64,
    nacks: u64,
    packets: u64,
    lost: i64,
    resent: u64,
    bytes: u64,
    held_s: f64,
    concealed: u64,
    samples: u64,
    protocol: String,
}

#[derive(Deserialize)]
struct Shown {
    after_ms: f64,
}

/// A server with a stream and a rung of it, a network, and a viewer at its far end.
struct Scene {
    network: Network,
    server: Tidecast,
    publisher: Publisher,
    browser: Browser,
}

impl Scene {
    fn start(seed: u64, link: Link, clip: &str, ladder: &str) -> Result<Self> {
        let network = Network::start(seed, link)?;
        let listen = format!("{}:0", network.server());
        let setup = Setup::default().set("http.listen", &listen).set("webrtc.listen", &listen);
        let server = setup
            .set("transcode.ladder", ladder)
            .variable("TIDECAST_LOG", "info,tidecast_edge=debug")
            .start()?;
        let publisher = Publisher::of_clip(clip, &server.publish_url(STREAM))?;
        let watched = Watched::of(&server, STREAM);
        let (height, _) = ladder.split_once(':').context("HEIGHT:RATE")?;
        let rung = format!("v{height}");
        poll::until("a ladder", STEP_MAX, || Ok((watched.whole(&rung)?.len() > 1).then_some(())))?;
        let browser = Browser::run_in(&network, "networks.mjs", &[&server.page_url(""), STREAM])?;
        let shown: Shown = browser.wait_for("shown", STEP_MAX)?;
        println!("the first picture after {:.0} ms", shown.after_ms);
        Ok(Self { network, server, publisher, browser })
    }

    /// Watches for so long, and returns the samples of that time.
    fn watch(&self, duration: Duration) -> Result<Vec<Sample>> {
        let begin = now_ms()?;
        let until = begin + duration.as_secs_f64() * 1_000.0;
        self.browser.wait_until("sample", duration + STEP_MAX, |sample: &Sample| sample.at_ms >= until)?;
        let samples = self.browser.all::<Sample>("sample").into_iter();
        Ok(samples.filter(|sample| (begin..=until).contains(&sample.at_ms)).collect())
    }

    fn stop(self) -> Result<()> {
        drop(self.browser);
        self.publisher.stop()?;
        for line in self.server.log().iter().filter(|line| line.contains("whep::viewer")) {
            println!("{line}");
        }
        self.server.stop()
    }
}

/// Since the Unix epoch.
fn now_ms() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0)
}

/// Says what a time of watching came to. Returns the share of it that the picture was frozen, as the browser counts it.
fn judge(name: &str, samples: &[Sample]) -> Result<f64> {
    let (first, last) = samples.first().zip(samples.last()).context("no samples")?;
    let watched_s = (last.at_ms - first.at_ms) / 1_000.0;
    let frozen_s = last.frozen_s - first.frozen_s;
    let widths = samples.iter().map(|sample| sample.width);
    let mut switches: Vec<_> = widths.collect();
    switches.dedup();
    for pair in samples.windows(2).filter(|pair| pair[1].freezes > pair[0].freezes) {
        println!(
            "  frozen at {:.1} s for {:.0} ms, {} NACK",
            (pair[1].at_ms - first.at_ms) / 1_000.0,
            (pair[1].frozen_s - pair[0].frozen_s) * 1_000.0,
            pair[1].nacks - pair[0].nacks,
        );
    }
    println!(
        "{name}: {watched_s:.0} s watched, {:.2} % frozen in {} freezes, {} frames, longest still {:.0} ms, {} PLI, {} NACK, \
         {} of {} packets lost, {} sent again, {:.0} kbit/s, {:.0} ms held, {:.1} % of the sound concealed, widths {switches:?}, {}",
        100.0 * frozen_s / watched_s,
        last.freezes - first.freezes,
        last.frames - first.frames,
        samples.iter().map(|sample| sample.stood_ms).fold(0.0, f64::max),
        last.plis - first.plis,
        last.nacks - first.nacks,
        last.lost - first.lost,
        last.packets - first.packets,
        last.resent - first.resent,
        (last.bytes - first.bytes) as f64 * 8.0 / 1_000.0 / watched_s,
        last.held_s * 1_000.0,
        100.0 * (last.concealed - first.concealed) as f64 / (last.samples - first.samples) as f64,
        last.protocol,
    );
    Ok(frozen_s / watched_s)
}

/// What WebRTC promises its viewers on lines that lose packets, each way: freezes are no more than this share of the time.
const LOSSES: [(u32, f64); 4] = [(1, 0.002), (3, 0.005), (5, 0.01), (10, 0.03)];

fn loses(seed: u64, duration: Duration) -> Result<()> {
    let scene = Scene::start(seed, Link::good(), "gop-2", "180:200k")?;
    judge("nothing lost", &scene.watch(Duration::from_secs(5))?)?;
    let mut failures = Vec::new();
    for (percent, frozen_max) in &LOSSES {
        scene.network.set(Link::good().lossy(f64::from(*percent) / 100.0));
        let frozen = judge(&format!("{percent} % lost"), &scene.watch(duration)?)?;
        if frozen > *frozen_max {
            failures.push(format!("{percent} % lost: frozen for {:.2} % of the time", frozen * 100.0));
        }
    }
    scene.stop()?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// What is lost comes again in time to be shown, and no picture has to begin anew. Says nothing of moments in which a machine with other
/// things to do stood still itself.
fn repairs(seed: u64) -> Result<()> {
    let scene = Scene::start(seed, Link::good().lossy(0.05), "gop-2", "180:200k")?;
    let samples = scene.watch(Duration::from_secs(15))?;
    judge("5 % lost", &samples)?;
    let (first, last) = samples.first().zip(samples.last()).context("no samples")?;
    let (lost, resent) = (last.lost - first.lost, last.resent - first.resent);
    ensure!(lost > 20 && resent as f64 > 0.8 * lost as f64, "{resent} of {lost} packets came again");
    let plis = last.plis - first.plis;
    ensure!(plis <= 7, "{plis} keyframes were asked for");
    let frames = last.frames - first.frames;
    ensure!(frames > 225, "only {frames} pictures in 15 s");
    ensure!(scene.server.metric("whep_viewers")? == 1.0, "another session");
    scene.stop()
}

/// Cuts the line three times, and waits for the picture to be there again, in the same session.
fn cuts(seed: u64, cut: Duration, back_max: Duration) -> Result<()> {
    let scene = Scene::start(seed, Link::good(), "gop-2", "180:200k")?;
    scene.watch(Duration::from_secs(3))?;
    for _ in 0..3 {
        scene.network.cut(cut);
        let back_ms = now_ms()? + cut.as_secs_f64() * 1_000.0;
        // What was under way is shown even while it is cut; this came later.
        let is_back = |sample: &Sample| sample.shown_ms.is_some_and(|shown| shown > back_ms + 40.0);
        let sample = scene.browser.wait_until("sample", STEP_MAX, is_back)?;
        let after_ms = sample.shown_ms.context("it is shown")? - back_ms;
        judge(
            &format!("back {after_ms:.0} ms after a cut of {cut:?}"),
            &scene.watch(Duration::from_secs(6))?,
        )?;
        ensure!(after_ms <= back_max.as_secs_f64() * 1_000.0, "{after_ms} ms");
    }
    ensure!(scene.server.metric("whep_viewers")? == 1.0, "another session");
    scene.stop()
}

/// 4 Mbit/s carry the source and 0.8 only its rung.
fn narrows(seed: u64, duration: Duration) -> Result<()> {
    let (wide, narrow) = (Link::good().narrow(4_000_000), Link::good().narrow(800_000));
    let scene = Scene::start(seed, wide, "bbb720p30", "360:500k")?;
    judge("4 Mbit/s", &scene.watch(Duration::from_secs(15))?)?;
    let turns = |link, width| -> Result<f64> {
        scene.network.set(link);
        let since = now_ms()?;
        let is_turned = |sample: &Sample| sample.at_ms > since && sample.width == width;
        let turned = scene.browser.wait_until("sample", STEP_MAX, is_turned)?;
        Ok(turned.at_ms - since)
    };
    let fell_ms = turns(narrow, 640)?;
    let samples = scene.watch(duration)?;
    judge(&format!("down after {fell_ms:.0} ms, 0.8 Mbit/s"), &samples)?;
    let switches = samples.windows(2).filter(|pair| pair[0].width != pair[1].width).count();
    let climbed_ms = turns(wide, 1_280)?;
    judge(&format!("up after {climbed_ms:.0} ms, 4 Mbit/s"), &scene.watch(Duration::from_secs(15))?)?;
    scene.stop()?;
    // Though the next keyframe of the source may be two seconds away.
    ensure!(fell_ms <= 3_000.0, "down after {fell_ms} ms");
    ensure!(switches as f64 <= 2.0 * duration.as_secs_f64() / 60.0, "{switches} switches");
    Ok(())
}

/// Nothing is heard of a viewer any more, and no goodbye came.
fn vanishes(seed: u64) -> Result<()> {
    let scene = Scene::start(seed, Link::good(), "gop-2", "180:200k")?;
    scene.watch(Duration::from_secs(2))?;
    scene.network.cut(STEP_MAX * 2);
    let since = now_ms()?;
    poll::until("nobody watches", STEP_MAX, || {
        Ok((scene.server.metric("whep_viewers")? == 0.0).then_some(()))
    })?;
    let after_s = (now_ms()? - since) / 1_000.0;
    println!("forgotten after {after_s:.1} s");
    ensure!(after_s <= 31.0, "{after_s} s");
    scene.stop()
}

/// `NETWORKS=all` (`make networks`), or the names of some, goes through schedules, most for `NETWORK_SECONDS` (60), on a machine that does nothing
/// else. Without it there is a short one, which any machine can take. `NETWORK_SEED` (1) is another chance.
#[test]
fn little_is_seen_of_a_bad_network() -> Result<()> {
    let number = |name, else_| env::var(name).map_or(Ok(else_), |text| text.parse::<u64>().context(text));
    let (seed, seconds) = (number("NETWORK_SEED", 1)?, number("NETWORK_SECONDS", 60)?);
    let Ok(names) = env::var("NETWORKS") else {
        return repairs(seed);
    };
    let duration = Duration::from_secs(seconds);
    let schedules: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("losses", &|| loses(seed, duration)),
        ("bursts", &|| cuts(seed, Duration::from_millis(200), Duration::from_secs(1))),
        ("cuts", &|| cuts(seed, Duration::from_secs(5), Duration::from_secs(3))),
        ("narrow", &|| narrows(seed, duration)),
        ("vanished", &|| vanishes(seed)),
    ];
    // All of them, whatever comes of one.
    let wanted =
        schedules.iter().filter(|(name, _)| names == "all" || names.split(',').any(|one| one == *name));
    let outcomes: Vec<_> = wanted.map(|(_, run)| run()).collect();
    ensure!(!outcomes.is_empty(), "no schedule is called {names}");
    let failures: Vec<_> =
        outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
