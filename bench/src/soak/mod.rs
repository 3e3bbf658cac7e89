//! A long run of the release binary under a load that never rests and, taken over a few minutes, never changes.
//!
//!   script.rs ──▶ publishers.rs ──▶┐
//!                 strangers.rs ───▶│ tidecast │◀── viewers.rs        every five seconds: what it takes (here)
//!                                  └──────────┘                      at the end: verdict.rs, graph.rs
//!
//! What a server keeps depends on what is live and who watches. So there are as many streams, and viewers of each kind,
//! at the end as at the beginning, each replaced by another soon after it leaves; what is judged is what remains of
//! those who left. Names, addresses and sessions are new all the time.

mod graph;
mod publishers;
mod script;
mod strangers;
mod verdict;
mod viewers;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use self::publishers::{Curtain, Stage};
use self::verdict::{Sample, Windows, growth, median, rate, slope};
use self::viewers::{Tallied, Tally};
use crate::Options;
use crate::measure::{load_average, process_cpu_time, sleep_until};
use crate::process::{Tidecast, wait_for};
use crate::table::{Table, Target};

const SAMPLE: Duration = Duration::from_secs(5);
const SAMPLES_PER_LINE: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);

/// Of resident memory, from minutes five to ten to the end.
const GROWTH_PERCENT_MAX: f64 = 5.0;
/// Between the windows that are compared. More, and the memory of two different loads would be compared.
const LOAD_CHANGE_PERCENT_MAX: f64 = 20.0;

const GAUGES_OF_THE_LIVING: [&str; 4] = [
    "tidecast_streams",
    "tidecast_rtmp_connections",
    "tidecast_http_connections",
    "tidecast_hls_held_requests",
];

/// For the last sessions to end after their linger, and for the last deadlines of silent connections.
const QUIET_MAX: Duration = Duration::from_secs(90);

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    ensure!(options.minutes >= 2, "two minutes are the shortest run that tells anything");
    let run = MINUTE * options.minutes;
    let seed = options.seed.unwrap_or_else(seed_of_the_moment);
    let server = Tidecast::start("default")?;
    let idle = server.process.usage()?;
    let soak = Soak {
        server: &server,
        stage: Arc::new(Stage::new()?),
        tally: Arc::default(),
        strangers: AtomicU64::default(),
        seed,
    };
    println!(
        "   {} minutes; {} streams and {} viewers at any time; --seed {seed} plays it again",
        options.minutes,
        soak.stage.streams(),
        viewers::audience(),
    );
    let played = soak.play(run);
    // Kept whatever came of it: it is what a failure is explained with.
    let kept = harness::media::output_dir()?;
    fs::write(kept.join("soak.log"), server.log()?)?;
    let samples = played?;
    fs::write(kept.join("soak.csv"), csv(&samples))?;

    let flatness = soak.flatness(run, &samples);
    let mut end = Table::new("when everybody was gone", &["count"]);
    let none = Target { column: 0, limit: 0.0 };
    end.judge("connections, requests and descriptors left", &[soak.remains(idle.descriptors)?], none);
    let panics = server.metrics()?.sum("tidecast_rtmp_panics_total")? + count_panics(&server.log()?);
    end.judge("panics, in metrics and log", &[panics], none);
    end.note(format!(
        "{:.1} MB resident; {:.1} MB before anybody came: the heap keeps what it once had",
        server.process.usage()?.resident_mb,
        idle.resident_mb,
    ));
    let resident: Vec<_> = samples.iter().map(|sample| sample.resident_mb).collect();
    print!("\n{}\n", graph::graph(&resident, "MB", run.as_secs_f64() / 60.0));
    Ok(vec![flatness, end])
}

struct Soak<'a> {
    server: &'a Tidecast,
    stage: Arc<Stage>,
    tally: Arc<Tally>,
    strangers: AtomicU64,
    seed: u64,
}

impl Soak<'_> {
    /// Everybody at once, until the time is over; then everybody leaves.
    fn play(&self, run: Duration) -> Result<Vec<Sample>> {
        let viewers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        viewers.spawn(viewers::watch(
            self.server.http,
            Arc::clone(&self.stage),
            Arc::clone(&self.tally),
            self.seed,
        ));
        let samples = thread::scope(|scope| {
            let (mut ropes, mut actors) = (Vec::new(), Vec::new());
            let mut curtain = || {
                let (rope, receiver) = mpsc::channel();
                ropes.push(rope);
                Curtain::new(receiver)
            };
            for stream in 0..self.stage.streams() {
                let curtain = curtain();
                actors.push(scope.spawn(move || self.stage.play(self.server, stream, self.seed, &curtain)));
            }
            let last = curtain();
            actors.push(scope.spawn(move || {
                strangers::visit(self.server, &self.stage, self.seed, &self.strangers, &last)
            }));
            let samples = self.look(run, &actors);
            drop(ropes);
            let ended = actors.into_iter().map(|actor| actor.join().expect("an actor does not panic"));
            let ended = ended.collect::<Result<Vec<()>>>();
            // Without a server every actor fails; that it is gone says more.
            let samples = samples?;
            ended.map(|_| samples)
        });
        viewers.shutdown_background();
        samples
    }

    /// A sample every few seconds, a line every minute.
    fn look(&self, run: Duration, actors: &[ScopedJoinHandle<'_, Result<()>>]) -> Result<Vec<Sample>> {
        let begun = Instant::now();
        let mut samples = Vec::new();
        let mut line = Line::default();
        while begun.elapsed() < run {
            sleep_until(begun + SAMPLE * samples.len() as u32);
            let usage = self.server.process.usage().context("the server is gone")?;
            if actors.iter().any(ScopedJoinHandle::is_finished) {
                // What it has to say follows when it is joined.
                break;
            }
            samples.push(Sample {
                at: begun.elapsed(),
                resident_mb: usage.resident_mb,
                descriptors: usage.descriptors,
                threads: usage.threads,
                cpu_s: usage.cpu_s,
                viewed_mb: self.tally.now().bytes as f64 / 1e6,
            });
            if samples.len() > 1 && samples.len() % SAMPLES_PER_LINE == 1 {
                line.print(self, &samples)?;
            }
        }
        Ok(samples)
    }

    fn flatness(&self, run: Duration, samples: &[Sample]) -> Table {
        let windows = Windows::of(run);
        let Windows { early, late } = &windows;
        let title = format!(
            "minutes {:.1} to {:.1} and {:.1} to {:.1}",
            minutes(early.start),
            minutes(early.end),
            minutes(late.start),
            minutes(late.end)
        );
        let mut table = Table::new(title, &["early", "late", "growth %"]);
        let flat = Target { column: 2, limit: GROWTH_PERCENT_MAX };
        let medians = |what: fn(&Sample) -> f64| {
            let (early, late) = (median(samples, early, what), median(samples, late, what));
            [early, late, growth(early, late)]
        };
        let resident = medians(|sample| sample.resident_mb);
        table.judge("resident MB, median", &resident, flat);
        let judged = windows.judged();
        let rise =
            slope(samples, &judged, |sample| sample.resident_mb) * (judged.end - judged.start).as_secs_f64();
        let line = [resident[0], resident[0] + rise, growth(resident[0], resident[0] + rise)];
        table.judge("resident MB, line of least squares", &line, flat);
        table.judge("descriptors, median", &medians(|sample| sample.descriptors), flat);
        table.judge("threads, median", &medians(|sample| sample.threads), flat);
        let rates = |total: fn(&Sample) -> f64| {
            let (early, late) = (rate(samples, early, total), rate(samples, late, total));
            [early, late, growth(early, late).abs()]
        };
        table.tell("cores busy", &rates(|sample| sample.cpu_s));
        let same_load = Target { column: 2, limit: LOAD_CHANGE_PERCENT_MAX };
        table.judge(
            "MB/s to viewers, the load held (either way)",
            &rates(|sample| sample.viewed_mb),
            same_load,
        );
        let slope_per_hour = slope(samples, &judged, |sample| sample.resident_mb) * 3600.0;
        table.note(format!("the line rises by {slope_per_hour:+.2} MB an hour"));
        self.note_load(&mut table);
        table.note("samples and log are in target/test-output/soak.csv and soak.log");
        table
    }

    fn note_load(&self, table: &mut Table) {
        let Tallied { playlists, media, bytes, refused, broken } = self.tally.now();
        let (exits, strangers) = (self.stage.exits.load(Relaxed), self.strangers.load(Relaxed));
        table.note(format!(
            "publishers left {exits} times, {strangers} strangers came; {broken} visits of viewers were cut off"
        ));
        table.note(format!(
            "viewers got {playlists} playlists and {media} parts or segments, {:.1} GB; {refused} requests were refused \
             (stream starting, replaced or between publishers)",
            bytes as f64 / 1e9,
        ));
        let own = process_cpu_time().as_secs_f64();
        table.note(format!("the load generator used {own:.1} CPU s, without ffmpeg"));
    }

    /// Connections, held requests and descriptors that are left when everything had its time to end.
    fn remains(&self, idle: f64) -> Result<f64> {
        let left = || -> Result<f64> {
            let metrics = self.server.metrics()?;
            let counted: f64 =
                GAUGES_OF_THE_LIVING.iter().map(|gauge| metrics.sum(gauge)).sum::<Result<_>>()?;
            Ok(counted + (self.server.process.usage()?.descriptors - idle).max(0.0))
        };
        wait_for("nobody left", QUIET_MAX, || left().ok().filter(|left| *left == 0.0)).or_else(|_| left())
    }
}

/// What the line of the minute says compared with the one before.
#[derive(Default)]
struct Line {
    cpu_s: f64,
    viewed: Tallied,
}

impl Line {
    fn print(&mut self, soak: &Soak<'_>, samples: &[Sample]) -> Result<()> {
        let Some(sample) = samples.last() else { return Ok(()) };
        let metrics = soak.server.metrics()?;
        let viewed = soak.tally.now();
        let seconds = (SAMPLE * SAMPLES_PER_LINE as u32).as_secs_f64();
        println!(
            "   {:>3.0} min: {:5.1} MB resident, {:3.0} descriptors, {:2.0} threads, {:.3} cores; {:.0} streams, {:.0} connections of viewers, {:.1} parts or segments and {:.2} MB a second; load {}",
            minutes(sample.at),
            sample.resident_mb,
            sample.descriptors,
            sample.threads,
            (sample.cpu_s - self.cpu_s) / seconds,
            metrics.sum("tidecast_streams")?,
            metrics.sum("tidecast_http_connections")?,
            (viewed.media - self.viewed.media) as f64 / seconds,
            (viewed.bytes - self.viewed.bytes) as f64 / 1e6 / seconds,
            load_average(),
        );
        *self = Self { cpu_s: sample.cpu_s, viewed };
        Ok(())
    }
}

fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}

/// As `server/src/telemetry.rs` writes them.
fn count_panics(log: &str) -> f64 {
    log.matches(" panic: ").count() as f64
}

fn csv(samples: &[Sample]) -> String {
    let rows = samples.iter().map(|sample| {
        let Sample { at, resident_mb, descriptors, threads, cpu_s, viewed_mb } = sample;
        format!(
            "{:.1},{resident_mb:.2},{descriptors},{threads},{cpu_s:.2},{viewed_mb:.2}\n",
            at.as_secs_f64()
        )
    });
    ["seconds,resident_mb,descriptors,threads,cpu_s,viewed_mb\n".to_owned()].into_iter().chain(rows).collect()
}

fn seed_of_the_moment() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs()
}
