//! How much CPU time a playlist and a part cost the server, beside nginx sending the same bytes from files.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::resolve;
use harness::publisher::Publisher;

use crate::Options;
use crate::http::{Answer, Connection};
use crate::measure::{Samples, sleep};
use crate::nginx::{Nginx, Peers};
use crate::playlist;
use crate::process::{Process, Tidecast, wait_for};
use crate::table::{Table, Target};

const LIVE_MAX: Duration = Duration::from_secs(20);
/// After this long the playlist is as long as it gets.
const WINDOW: Duration = Duration::from_secs(30);
const PLAYLIST: &str = "/hls/live/bench/index.m3u8";

/// 200 ms at 3 Mbit/s, and 500 ms at 2.5: sizes that every round finds again, or its figures could not be compared.
const PART_BYTES_LOW: usize = 75_000;
const PART_BYTES_DEFAULT: usize = 156_000;

/// Until a part of a wanted size comes.
const SCENE_MAX: Duration = Duration::from_secs(60);

/// Of nginx's CPU time per request. It sends files without looking at them (sendfile), which a server that has its media
/// in memory cannot; for what is small that hardly counts.
const PART_RATIO_MAX: f64 = 1.8;
const PLAYLIST_RATIO_MAX: f64 = 0.85;

/// Short ones in turn: what else the machine does changes from one second to the next.
const ROUND_S: u64 = 1;
const ROUNDS: usize = 40;
const ROUNDS_QUICK: usize = 3;

struct Case {
    what: &'static str,
    item: Item,
    profile: Profile,
    headers: &'static [&'static str],
    ratio_max: Option<f64>,
}

const CASES: [Case; 5] = [
    Case {
        what: "playlist, plain",
        item: Item::Playlist,
        profile: Profile::Default,
        headers: &[],
        ratio_max: Some(PLAYLIST_RATIO_MAX),
    },
    Case {
        what: "playlist, gzip",
        item: Item::Playlist,
        profile: Profile::Default,
        headers: &["Accept-Encoding: gzip"],
        ratio_max: Some(PLAYLIST_RATIO_MAX),
    },
    Case {
        what: "part of 200 ms",
        item: Item::Part { bytes: PART_BYTES_LOW },
        profile: Profile::Low,
        headers: &[],
        ratio_max: Some(PART_RATIO_MAX),
    },
    Case {
        what: "part of 500 ms",
        item: Item::Part { bytes: PART_BYTES_DEFAULT },
        profile: Profile::Default,
        headers: &[],
        ratio_max: None,
    },
    Case { what: "segment", item: Item::Segment, profile: Profile::Default, headers: &[], ratio_max: None },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Profile {
    Default,
    Low,
}

#[derive(Clone, Copy)]
enum Item {
    Playlist,
    /// The one whose size is nearest.
    Part {
        bytes: usize,
    },
    Segment,
}

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let peers = Peers::get()?;
    let rounds = if options.quick { ROUNDS_QUICK } else { ROUNDS };
    let (default, low) = (Live::start("default")?, Live::start("low")?);
    let theirs = peers.nginx()?;
    if !options.quick {
        sleep(WINDOW);
    }
    let mut costs = Table::new("CPU time of the server", &["us/request", "(best)", "MB/CPU s"]);
    let mut ratios =
        Table::new("tidecast's CPU time per request, nginx = 1", &["all rounds", "median", "min", "max"]);
    let mut files = Files { nginx: &theirs, written: 0 };
    for Case { what, item, profile, headers, ratio_max } in CASES {
        let ours = if profile == Profile::Low { &low.server } else { &default.server };
        let (mut tidecast, mut nginx, mut ratio, mut bytes) =
            (Cost::default(), Cost::default(), Samples::default(), 0);
        for _ in 0..rounds {
            // A new one each round: parts leave the store.
            let (path, answer) = item.pick(&mut Connection::open(ours.http)?)?;
            let body = if headers.is_empty() { answer.plain()? } else { answer.body };
            bytes = body.len();
            let file = files.write(&body)?;
            let load = |process: &Process, url: &str| load(&peers, process, url, headers);
            let our_load = load(&ours.process, &format!("http://{}{path}", ours.http))?;
            let their_load = load(&theirs.process, &file)?;
            ratio.push(our_load.cpu_us() / their_load.cpu_us());
            tidecast.add(our_load);
            nginx.add(their_load);
        }
        costs.tell(format!("tidecast: {what}, {bytes} bytes"), &tidecast.row());
        costs.tell(format!("    nginx: file, {bytes} bytes"), &nginx.row());
        let all = tidecast.cpu_us_of_all() / nginx.cpu_us_of_all();
        let row = [all, ratio.median(), ratio.min(), ratio.max()];
        match ratio_max {
            Some(limit) => ratios.judge(what, &row, Target { column: 0, limit }),
            None => ratios.tell(what, &row),
        }
    }
    costs.note("wrk, one thread, 50 connections kept alive, on the same cores; ours with a publisher at work, theirs by sendfile");
    ratios.note(format!("{rounds} rounds of {ROUND_S} s, ours and theirs in turn"));
    Ok(vec![costs, ratios])
}

struct Live {
    server: Tidecast,
    _publisher: Publisher,
}

impl Live {
    fn start(profile: &str) -> Result<Self> {
        let server = Tidecast::start(profile)?;
        let publisher = Publisher::of_clip("bbb720p30", &server.publish_url("live/bench"))?;
        wait_for("the first playlist", LIVE_MAX, || {
            Connection::open(server.http).ok()?.get_ok(PLAYLIST).ok()
        })?;
        Ok(Self { server, _publisher: publisher })
    }
}

impl Item {
    /// The path and bytes of what is asked for.
    fn pick(self, viewer: &mut Connection) -> Result<(String, Answer)> {
        let multivariant = viewer.get_ok(PLAYLIST)?.text()?;
        let video = multivariant.lines().rfind(|line| !line.starts_with('#')).context("a variant")?;
        let playlist = resolve(PLAYLIST, video);
        let answer = viewer.get_ok(&playlist)?;
        let text = answer.text()?;
        let uri = match self {
            Self::Playlist => return Ok((playlist, answer)),
            Self::Part { bytes } => {
                // The film has calm scenes, longer than a playlist lists parts.
                let deadline = Instant::now() + SCENE_MAX;
                loop {
                    let text = viewer.get_ok(&playlist)?.text()?;
                    match nearest(viewer, &playlist, &text, bytes) {
                        Err(_) if Instant::now() < deadline => sleep(Duration::from_secs(1)),
                        found => return found,
                    }
                }
            }
            Self::Segment => playlist::segments(&text).last(),
        };
        let path = resolve(&playlist, uri.context("media in the playlist")?);
        let answer = viewer.get_ok(&path)?;
        Ok((path, answer))
    }
}

/// The part whose size is nearest to `bytes`, and not far from it.
fn nearest(viewer: &mut Connection, playlist: &str, text: &str, bytes: usize) -> Result<(String, Answer)> {
    let mut parts = Vec::new();
    for part in playlist::parts(text) {
        let path = resolve(playlist, part);
        let answer = viewer.get_ok(&path)?;
        parts.push((path, answer));
    }
    let distance = |(_, answer): &(String, Answer)| answer.body.len().abs_diff(bytes);
    let nearest = parts.into_iter().min_by_key(distance).context("no part is listed")?;
    ensure!(distance(&nearest) <= bytes / 5, "no part is near {bytes} bytes");
    Ok(nearest)
}

/// What nginx sends.
struct Files<'a> {
    nginx: &'a Nginx,
    written: u64,
}

impl Files<'_> {
    /// The URL of a file of these bytes. A new name each time: nginx keeps what it opened.
    fn write(&mut self, bytes: &[u8]) -> Result<String> {
        self.written += 1;
        let Self { nginx, written } = self;
        fs::write(nginx.kept.join(format!("{written}")), bytes)?;
        Ok(format!("http://{}/kept/{written}", nginx.http))
    }
}

/// What a server was asked for, and what it took.
struct Load {
    requests: f64,
    bytes: f64,
    cpu_s: f64,
}

impl Load {
    fn cpu_us(&self) -> f64 {
        self.cpu_s * 1e6 / self.requests
    }
}

fn load(peers: &Peers, process: &Process, url: &str, headers: &[&str]) -> Result<Load> {
    let before = process.usage()?.cpu_s;
    let (requests, bytes) = peers.wrk(url, headers, ROUND_S)?;
    Ok(Load { requests, bytes, cpu_s: process.usage()?.cpu_s - before })
}

#[derive(Default)]
struct Cost {
    cpu_us: Samples,
    megabytes_per_cpu_s: Samples,
    requests: f64,
    cpu_s: f64,
}

impl Cost {
    fn add(&mut self, load: Load) {
        self.requests += load.requests;
        self.cpu_s += load.cpu_s;
        self.cpu_us.push(load.cpu_us());
        self.megabytes_per_cpu_s.push(load.bytes / 1e6 / load.cpu_s);
    }

    fn cpu_us_of_all(&self) -> f64 {
        self.cpu_s * 1e6 / self.requests
    }

    fn row(&self) -> [f64; 3] {
        [self.cpu_us.median(), self.cpu_us.min(), self.megabytes_per_cpu_s.median()]
    }
}
