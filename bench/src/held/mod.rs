//! Five thousand connections that hold a blocking reload.
//!
//! The call that publishes a part is timed in this process (programme.rs) and must not notice them; that each playlist
//! is rendered once, and that all are answered before the next part, is seen there too. What each costs in memory is
//! measured on the release binary, with a real publisher.

mod crowd;
mod programme;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use edge::{Listener, Site};
use harness::publisher::Publisher;
use net::Limits;
use relay::StreamRegistry;
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use self::crowd::Crowd;
use self::programme::{PART, Programme};
use crate::Options;
use crate::http::Connection;
use crate::measure::{Samples, cpu_time_of, micros, sleep, sleep_until};
use crate::playlist;
use crate::process::{Tidecast, raise_open_files, wait_for};
use crate::table::{Table, Target};

const VIEWERS: usize = 5_000;
/// Of descriptors, for everything that is no viewer.
const RESERVE: usize = 200;
const RENDITIONS: u64 = 2;

const PUBLISH_MICROS_MAX: f64 = 200.0;
const KILOBYTES_EACH_MAX: f64 = 48.0;

/// Until every viewer waits for the next part: many times what it takes on an idle machine.
const HOLD_MAX: Duration = Duration::from_secs(20);
const LIVE_MAX: Duration = Duration::from_secs(20);
/// Then a stream's store holds as much as it ever will.
const STORE_FULL: Duration = Duration::from_secs(75);
const LOOK: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let files = raise_open_files();
    // Both ends of each connection are in this process.
    let viewers = VIEWERS.min(files.saturating_sub(RESERVE) / 2);
    let (viewers, parts) = if options.quick { (viewers.min(500), 10) } else { (viewers, 120) };
    let mut tables = publishing(viewers, parts)?;
    let mut memory = memory(viewers, if options.quick { LOOK } else { STORE_FULL })?;
    if viewers < VIEWERS {
        memory.note(format!(
            "{viewers} connections, not {VIEWERS}: --quick, or the limit of {files} open files"
        ));
    }
    tables.push(memory);
    Ok(tables)
}

/// Publishes parts while nobody waits, then as many while everybody does.
fn publishing(viewers: usize, parts: u32) -> Result<Vec<Table>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let entered = runtime.enter();
    let mut programme = Programme::open()?;
    let site = Site::new(StreamRegistry::default(), programme.catalog.clone(), 1935);
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let connections = viewers + RESERVE;
    let limits = Limits { total: connections, per_address: connections };
    let socket = net::bind(any, edge::SOCKET)?;
    let listener = Listener::new(socket, site, net::Places::new(limits), edge::Metrics::default());
    drop(entered);
    let server = listener.local_addr()?;
    runtime.spawn(listener.run(CancellationToken::new()));

    let (alone, begun) = (parts.min(20), Instant::now());
    let mut nobody = Calls::default();
    for part in 0..alone {
        sleep_until(begun + PART * part);
        nobody.time(&mut programme)?;
    }

    let mut crowd = Crowd::gather(server, &Programme::playlist(), viewers)?;
    let renders = || programme_counts(&programme);
    let before = renders();
    let (mut everybody, mut last_answers) = (Calls::default(), Samples::default());
    let begun = Instant::now();
    for part in 0..parts {
        sleep_until(begun + PART * part);
        let waiting = viewers as i64;
        let held = || (programme.metrics.held_requests.get() == waiting).then_some(());
        wait_for("everybody to wait", HOLD_MAX, held)?;
        crowd.check()?;
        let position = programme.next();
        let published = everybody.time(&mut programme)?;
        let all = || crowd.answered(position).filter(|answered| answered.viewers == viewers);
        let answered = wait_for("an answer for everybody", HOLD_MAX, all)?;
        last_answers.push((answered.last - published).as_secs_f64() / PART.as_secs_f64());
    }
    let after = programme_counts(&programme);
    let rendered_too_often = (after.renders - before.renders).abs_diff(u64::from(parts) * RENDITIONS);
    ensure!(after.parts - before.parts == u64::from(parts) * RENDITIONS, "parts are counted wrong");

    let mut calls = Table::new("publishing a part, us", &["p50", "p99", "max"]);
    let limit = Target { column: 1, limit: PUBLISH_MICROS_MAX };
    calls.tell("nobody waits: CPU", &row(&nobody.cpu));
    calls.judge(format!("{viewers} wait: CPU"), &row(&everybody.cpu), limit);
    calls.tell("nobody waits: on the clock", &row(&nobody.clock));
    calls.tell(format!("{viewers} wait: on the clock"), &row(&everybody.clock));
    calls.note(
        "the clock counts what other work on the machine took from the call, and the waking of a thread",
    );

    let mut answers =
        Table::new(format!("{parts} parts, {viewers} reloads held for each"), &["p50", "p99", "max"]);
    answers.judge(
        "until the last of them is answered, in parts",
        &row(&last_answers),
        Target { column: 0, limit: 1.0 },
    );
    answers.judge(
        "playlists rendered, beyond parts x renditions",
        &[rendered_too_often as f64; 3],
        Target { column: 2, limit: 0.0 },
    );
    answers.note("viewers and server share the cores; both ends of every connection are in this process");
    Ok(vec![calls, answers])
}

#[derive(Clone, Copy)]
struct Counts {
    renders: u64,
    parts: u64,
}

fn programme_counts(programme: &Programme) -> Counts {
    Counts {
        renders: programme.metrics.playlist_renders.get(),
        parts: programme.metrics.parts_published.get(),
    }
}

#[derive(Default)]
struct Calls {
    cpu: Samples,
    clock: Samples,
}

impl Calls {
    /// Publishes a part of both renditions, and times the one that viewers wait for. Returns when it was called.
    fn time(&mut self, programme: &mut Programme) -> Result<Instant> {
        programme.publish_audio()?;
        let part = programme.next_video();
        let mut pushed = Ok(());
        let called = Instant::now();
        let cpu = cpu_time_of(|| pushed = programme.publish_video(part));
        self.clock.push(micros(called.elapsed()));
        self.cpu.push(micros(cpu));
        pushed?;
        Ok(called)
    }
}

fn row(samples: &Samples) -> [f64; 3] {
    [samples.quantile(0.5), samples.quantile(0.99), samples.max()]
}

/// Resident memory of the release binary, without viewers and with all of them.
fn memory(viewers: usize, store_full: Duration) -> Result<Table> {
    let server = Tidecast::start_for_crowd()?;
    let _publisher = Publisher::of_clip("gop-2", &server.publish_url("live/bench"))?;
    let path = "/hls/live/bench/index.m3u8";
    let multivariant = wait_for("the first playlist", LIVE_MAX, || {
        Connection::open(server.http).ok()?.get_ok(path).ok()?.text().ok()
    })?;
    let renditions = playlist::renditions(path, &multivariant);
    let video = renditions.iter().find(|path| path.ends_with("/v/index.m3u8")).context("no video")?;
    sleep(store_full);
    let resident = |looks: u32| -> Result<Samples> {
        let mut samples = Samples::default();
        for _ in 0..looks {
            samples.push(server.process.usage()?.resident_mb);
            sleep(LOOK);
        }
        Ok(samples)
    };
    let before = resident(5)?.median();
    let mut crowd = Crowd::gather(server.http, video, viewers)?;
    let during = resident(20)?;
    crowd.check()?;
    let open = server.metrics()?.sum("tidecast_http_connections")?;
    ensure!(open >= viewers as f64, "only {open} connections are open");
    drop(crowd);

    let mut table =
        Table::new(format!("resident MB, {viewers} connections"), &["before", "at most", "KB each"]);
    let each = |with: f64| (with - before) * 1000.0 / viewers as f64;
    let target = Target { column: 2, limit: KILOBYTES_EACH_MAX };
    table.judge("every connection holds a reload", &[before, during.max(), each(during.max())], target);
    table.note("tidecast with one publisher; 20 s of parts, each answered to all of them");
    Ok(table)
}
