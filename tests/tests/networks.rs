//! WebRTC on bad networks: real Chromium behind lost packets, bursts, cuts and bottlenecks. Every schedule has a seed, and says what
//! came of it.

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
const SEED: u64 = 1;

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
    state: String,
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

    /// The first sample from `at_ms` on.
    fn sample_at(&self, at_ms: f64) -> Result<Sample> {
        self.browser.wait_until("sample", STEP_MAX, |sample: &Sample| sample.at_ms >= at_ms)
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
        for line in self.server.log().iter().filter(|line| line.contains("whep") || line.contains("viewer")) {
            println!("{line}");
        }
        self.server.stop()
    }
}

/// Since the Unix epoch.
fn now_ms() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1_000.0)
}

/// What a time of watching came to.
#[derive(Debug)]
struct Verdict {
    watched_s: f64,
    frozen_share: f64,
}

fn judge(name: &str, samples: &[Sample]) -> Result<Verdict> {
    let (first, last) = samples.first().zip(samples.last()).context("no samples")?;
    let watched_s = (last.at_ms - first.at_ms) / 1_000.0;
    let frozen_s = last.frozen_s - first.frozen_s;
    let widths = samples.iter().map(|sample| sample.width);
    let mut switches: Vec<_> = widths.collect();
    switches.dedup();
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
    Ok(Verdict { watched_s, frozen_share: frozen_s / watched_s })
}

#[test]
fn lost_packets() -> Result<()> {
    let scene = Scene::start(SEED, Link::good(), "gop-2", "180:200k")?;
    judge("no loss", &scene.watch(Duration::from_secs(10))?)?;
    for percent in [1, 3, 5, 10] {
        scene.network.set(Link::good().lossy(f64::from(percent) / 100.0));
        judge(&format!("{percent} % lost"), &scene.watch(Duration::from_secs(30))?)?;
    }
    scene.stop()
}

/// When the first picture after `back_ms` was shown, after that.
fn returned(scene: &Scene, back_ms: f64) -> Result<f64> {
    let is_back = |sample: &Sample| sample.shown_ms.is_some_and(|shown| shown > back_ms);
    let sample = scene.browser.wait_until("sample", STEP_MAX, is_back)?;
    println!("{sample:?}");
    Ok(sample.shown_ms.context("it is shown")? - back_ms)
}

#[test]
fn cuts() -> Result<()> {
    let scene = Scene::start(SEED, Link::good(), "gop-2", "180:200k")?;
    scene.watch(Duration::from_secs(5))?;
    for _ in 0..3 {
        scene.network.cut(Duration::from_millis(200));
        let returned = returned(&scene, now_ms()? + 200.0)?;
        judge(&format!("cut for 200 ms, back after {returned:.0}"), &scene.watch(Duration::from_secs(4))?)?;
    }
    for _ in 0..3 {
        scene.network.cut(Duration::from_secs(5));
        let returned = returned(&scene, now_ms()? + 5_000.0)?;
        judge(&format!("cut for 5 s, back after {returned:.0} ms"), &scene.watch(Duration::from_secs(15))?)?;
    }
    scene.stop()
}

#[test]
fn narrow() -> Result<()> {
    let scene = Scene::start(SEED, Link::good().narrow(4_000_000), "bbb720p30", "360:500k")?;
    judge("4 Mbit/s", &scene.watch(Duration::from_secs(15))?)?;
    scene.network.set(Link::good().narrow(800_000));
    let narrowed = now_ms()?;
    let fallen = scene.browser.wait_until("sample", STEP_MAX, |sample: &Sample| sample.at_ms > narrowed && sample.width == 640)?;
    println!("down after {:.0} ms", fallen.at_ms - narrowed);
    judge("0.8 Mbit/s", &scene.watch(Duration::from_secs(40))?)?;
    scene.network.set(Link::good().narrow(4_000_000));
    let widened = now_ms()?;
    let climbed = scene.browser.wait_until("sample", STEP_MAX, |sample: &Sample| sample.at_ms > widened && sample.width == 1280);
    println!("up after {:?} ms", climbed.map(|climbed| climbed.at_ms - widened));
    judge("4 Mbit/s again", &scene.watch(Duration::from_secs(20))?)?;
    scene.stop()
}

#[test]
fn vanishes() -> Result<()> {
    let scene = Scene::start(SEED, Link::good(), "gop-2", "180:200k")?;
    scene.watch(Duration::from_secs(2))?;
    scene.network.cut(Duration::from_secs(600));
    let gone = now_ms()?;
    poll::until("nobody watches", STEP_MAX, || Ok((scene.server.metric("whep_viewers")? == 0.0).then_some(())))?;
    println!("gone after {:.1} s", (now_ms()? - gone) / 1_000.0);
    scene.stop()
}
