//! What a ladder means for the server: its own processor time beside its encoder's, how much later than the source a part
//! of a rendition is there, and how soon the renditions are level with the source when their encoder was killed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::publisher::Publisher;
use rustix::process::{Pid, Signal, kill_process};

use crate::Options;
use crate::http::Connection;
use crate::measure::{Samples, sleep_until};
use crate::one_publisher::{CLIP, WARM_UP, first_playlist, follow_parts};
use crate::playlist;
use crate::process::{Tidecast, wait_for};
use crate::table::{Table, Target};

const LADDER: &str = "480:1200k, 360:700k, 240:300k";
const SOURCE: &str = "v";
/// Of [`LADDER`], the largest first.
const RUNGS: [&str; 3] = ["v480", "v360", "v240"];
/// Of the clip.
const FRAME_S: f64 = 1.0 / 30.0;
const GOP_S: f64 = 2.0;

const CPU_SECONDS_PER_MINUTE_MAX: f64 = 0.8;
/// Beside the time that a picture's encoding takes.
const FRAMES_LATE_MAX: f64 = 1.0;

const LIVE_MAX: Duration = Duration::from_secs(20);
const BACK_MAX: Duration = Duration::from_secs(15);
/// A part this soon after its source's is as soon as ever.
const LEVEL: Duration = Duration::from_millis(150);

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let (rounds, seconds) = if options.quick { (1, 15) } else { (2, 60) };
    let (mut with, mut without) = (Samples::default(), Samples::default());
    let mut late: [Samples; RUNGS.len()] = Default::default();
    let (mut encode_ms, mut back_s) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let round = Duration::from_secs(seconds);
        without.push(Scene::new(Tidecast::start("default")?)?.cpu(&["v", "a"], round)?);
        let scene = Scene::new(Tidecast::start_with_ladder(LADDER)?)?;
        scene.wait_for_rungs()?;
        with.push(scene.cpu(&["v360", "a"], round)?);
        let arrivals = scene.arrivals(round / 3, || Ok(()))?;
        for (rung, late) in arrivals[1..].iter().zip(&mut late) {
            rung.behind(&arrivals[0]).for_each(|(_, behind)| late.push(behind.as_secs_f64() * 1e3));
        }
        let cores = scene.server.metrics()?.sum("tidecast_transcode_cores")? / RUNGS.len() as f64;
        encode_ms.push(cores * FRAME_S * 1e3);
        back_s.push(scene.back_after_a_kill()?.as_secs_f64());
    }

    let title = format!(
        "720p30 to {LADDER}: CPU s per minute of the server alone, {rounds} rounds of {seconds} s in turn"
    );
    let mut cpu = Table::new(title, &["min", "median", "max"]);
    let figures = |samples: &Samples| [samples.min(), samples.median(), samples.max()];
    cpu.tell("passed through", &figures(&without));
    cpu.judge("with three rungs", &figures(&with), Target { column: 1, limit: CPU_SECONDS_PER_MINUTE_MAX });

    let mut delay = Table::new("a rung's part behind its source's, ms", &["p50", "p95", "max"]);
    let limit = FRAMES_LATE_MAX * FRAME_S * 1e3 + encode_ms.median();
    for (rung, late) in RUNGS.iter().zip(late) {
        let figures = [late.median(), late.quantile(0.95), late.max()];
        delay.judge(format!("{rung}, {} parts", late.len()), &figures, Target { column: 0, limit });
    }
    delay.note(format!(
        "a frame lasts {:.1} ms; its encoding, all rungs together, takes {:.1} ms",
        FRAME_S * 1e3,
        encode_ms.median()
    ));

    let mut back =
        Table::new("encoder killed to its rungs level with the source, s", &["min", "median", "max"]);
    back.tell("with a child that waits", &figures(&back_s));
    let promised = GOP_S * encode_ms.median() / (FRAME_S * 1e3) + 0.5;
    back.note(format!(
        "GOP × cost + 0.5 s is {promised:.2} s, from the start of the new one; the pause before that is 0.2 s"
    ));
    Ok(vec![cpu, delay, back])
}

struct Scene {
    server: Tidecast,
    /// Of the session's renditions: `/hls/live/bench/{session}`.
    base: String,
    _publisher: Publisher,
}

/// When the versions of a playlist came that end with a part, by the part's MSN and number; without gaps.
#[derive(Default)]
struct Arrivals(HashMap<(u64, u64), Instant>);

impl Scene {
    fn new(server: Tidecast) -> Result<Self> {
        let publisher = Publisher::of_clip(CLIP, &server.publish_url("live/bench"))?;
        let path = "/hls/live/bench/index.m3u8";
        let multivariant = first_playlist(server.http, path)?;
        let renditions = playlist::renditions(path, &multivariant);
        let video = renditions.iter().find_map(|path| path.strip_suffix("/v/index.m3u8"));
        let base = video.context("no video")?.to_owned();
        Ok(Self { server, base, _publisher: publisher })
    }

    fn playlist(&self, rendition: &str) -> String {
        format!("{}/{rendition}/index.m3u8", self.base)
    }

    /// Until all of them have media at the live edge.
    fn wait_for_rungs(&self) -> Result<()> {
        for rung in RUNGS {
            wait_for(rung, LIVE_MAX, || {
                let text = Connection::open(self.server.http)
                    .ok()?
                    .get_ok(&self.playlist(rung))
                    .ok()?
                    .text()
                    .ok()?;
                text.lines()
                    .rfind(|line| line.starts_with("#EXT-X-PART:"))
                    .filter(|part| !part.contains("GAP=YES"))
                    .map(drop)
            })?;
        }
        Ok(())
    }

    /// CPU seconds per minute of the server alone, with a viewer of these renditions.
    fn cpu(&self, renditions: &[&str], round: Duration) -> Result<f64> {
        let until = Instant::now() + WARM_UP + round;
        thread::scope(|scope| {
            let follow = |rendition: &&str| {
                let playlist = self.playlist(rendition);
                scope.spawn(move || follow_parts(self.server.http, &playlist, until))
            };
            let viewers: Vec<_> = renditions.iter().map(follow).collect();
            sleep_until(until - round);
            let (before, begun) = (self.server.process.usage_alone()?.cpu_s, Instant::now());
            sleep_until(until);
            let (after, took) = (self.server.process.usage_alone()?.cpu_s, begun.elapsed());
            for viewer in viewers {
                viewer.join().expect("a viewer does not panic")?;
            }
            Ok((after - before) * 60.0 / took.as_secs_f64())
        })
    }

    /// Of the source and of each rung, for `time`, during which `act` is done once.
    fn arrivals(&self, time: Duration, act: impl FnOnce() -> Result<()>) -> Result<Vec<Arrivals>> {
        let until = Instant::now() + time;
        thread::scope(|scope| {
            let watch = |rendition| {
                let playlist = self.playlist(rendition);
                scope.spawn(move || Arrivals::watch(self.server.http, &playlist, until))
            };
            let readers: Vec<_> = [SOURCE].into_iter().chain(RUNGS).map(watch).collect();
            act()?;
            readers.into_iter().map(|reader| reader.join().expect("a reader does not panic")).collect()
        })
    }

    /// How long its rungs were late, or not there, when their encoder was killed.
    fn back_after_a_kill(&self) -> Result<Duration> {
        let said = self.server.log()?;
        let started =
            said.lines().rfind(|line| line.contains("encoder started")).context("no encoder was started")?;
        let child = started.split_whitespace().find_map(|word| word.strip_prefix("child=")?.parse().ok());
        let child = child.and_then(Pid::from_raw).context("an encoder without a number")?;
        let mut killed = Instant::now();
        let arrivals = self.arrivals(BACK_MAX, || {
            killed = Instant::now();
            Ok(kill_process(child, Signal::KILL)?)
        })?;
        let level =
            arrivals[1..].iter().map(|rung| rung.level(&arrivals[0], killed).context("a rung is not back"));
        let last = level.collect::<Result<Vec<_>>>()?.into_iter().max().context("no rungs")?;
        Ok(last - killed)
    }
}

impl Arrivals {
    fn watch(server: SocketAddr, playlist: &str, until: Instant) -> Result<Self> {
        let mut connection = Connection::open(server)?;
        let mut text = connection.get_ok(playlist)?.text()?;
        let mut arrivals = HashMap::new();
        while Instant::now() < until {
            let (msn, part) = playlist::hinted(&text).context("no part is hinted at")?;
            let answer = connection.get_ok(&format!("{playlist}?_HLS_msn={msn}&_HLS_part={part}"))?;
            let now = Instant::now();
            text = answer.text()?;
            let name = format!("{msn}.{part}.m4s");
            if playlist::parts(&text).any(|part| part == name) {
                arrivals.insert((msn, part), now);
            }
        }
        Ok(Self(arrivals))
    }

    /// When its parts were as soon as its source's again, after `since`; `since` if they always were.
    fn level(&self, source: &Self, since: Instant) -> Option<Instant> {
        // The newest may be the source's alone when both readers stop.
        let stopped = source.0.values().max()?.checked_sub(LEVEL * 4)?;
        let after = source.0.iter().filter(|(_, at)| (since..stopped).contains(*at));
        let mut parts: Vec<_> = after.collect();
        parts.sort();
        let is_late = |at: &Instant, part| {
            self.0.get(part).is_none_or(|came| came.saturating_duration_since(*at) > LEVEL)
        };
        match parts.iter().rposition(|(part, at)| is_late(at, part)) {
            Some(last) => parts.get(last + 1).and_then(|(part, _)| self.0.get(part).copied()),
            None => Some(since),
        }
    }

    /// Of each part that the source has, too: when it came, and how much later than the source's.
    fn behind(&self, source: &Self) -> impl Iterator<Item = (Instant, Duration)> {
        self.0.iter().filter_map(|(part, at)| Some((*at, at.saturating_duration_since(*source.0.get(part)?))))
    }
}
