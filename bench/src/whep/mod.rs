//! What viewers by WebRTC cost the server: CPU time of each packet beside the floor that any server stands on, memory of each
//! viewer, a crowd that comes in at once, and how long a picture is on its way through the server.
//!
//! ```text
//! publisher.rs ─ RTMP, whip.rs ─▶ tidecast ─ SRTP ─▶ crowd.rs: viewer.rs × n, with feedback.rs
//!                                 floor.rs ─ SRTP ─▶
//! ```
//!
//! Server and floor take turns: the publisher pauses while the floor sends what the first viewer was sent.

mod crowd;
mod feedback;
mod floor;
mod offer;
mod publisher;
mod viewer;
mod whip;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::crowd::{Crowd, Joined};
use self::publisher::{FRAME, Publisher, STREAM};
use crate::Options;
use crate::http::Connection;
use crate::measure::{Samples, micros, sleep};
use crate::process::{PUBLISH_KEY, Tidecast, raise_open_files, wait_for};
use crate::table::{Table, Target};

const RATIO_MAX: f64 = 1.3;
const CPU_S_PER_VIEWER_MINUTE_MAX: f64 = 0.045;
const KB_PER_VIEWER_MAX: f64 = 100.0;
const ANSWERED_MS_MAX: f64 = 20.0;
const FIRST_PACKET_MS_MAX: f64 = 20.0;
const RTMP_THROUGH_P50_MS_MAX: f64 = 5.0;
const WHIP_THROUGH_P50_MS_MAX: f64 = 3.0;
const WHIP_THROUGH_P99_MS_MAX: f64 = 10.0;
/// A picture that stands so long is seen to stand.
const GAP_MS_MAX: f64 = 200.0;

const LIVE_MAX: Duration = Duration::from_secs(20);
/// For everything to be as it will stay.
const SETTLED: Duration = Duration::from_secs(3);

/// Viewers whose picture is watched while others come.
const OLD: usize = 50;
const JOINS: usize = 500;
const JOINED_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    raise_open_files();
    Ok(vec![through()?, joins()?, fan_out(200, options)?, fan_out(500, options)?])
}

struct Stage {
    server: Tidecast,
    publisher: Publisher,
    crowd: Crowd,
}

impl Stage {
    fn set() -> Result<Self> {
        Self::with(|server| Publisher::start(server.rtmp(), PUBLISH_KEY))
    }

    fn with(publish: impl Fn(&Tidecast) -> Result<Publisher>) -> Result<Self> {
        let server = Tidecast::start_for_crowd()?;
        let publisher = publish(&server)?;
        let playlist = format!("/hls/{STREAM}/index.m3u8");
        wait_for("the first playlist", LIVE_MAX, || {
            Connection::open(server.http).ok()?.get_ok(&playlist).ok()
        })?;
        let crowd = Crowd::new(server.http, format!("/whep/{STREAM}"));
        Ok(Self { server, publisher, crowd })
    }

    /// CPU seconds of the server while it lasts, and what the viewers were sent meanwhile.
    fn window(&mut self, window: Duration) -> Result<Window> {
        let before = (self.server.process.usage()?, self.crowd.look(true)?);
        let _before_that = self.crowd.watched();
        sleep(window);
        let after = (self.server.process.usage()?, self.crowd.look(true)?);
        self.publisher.check()?;
        let sum = |of: fn(&viewer::Seen) -> u64| {
            let sum = |seen: &[viewer::Seen]| seen.iter().map(of).sum::<u64>();
            (sum(&after.1) - sum(&before.1)) as f64
        };
        let longest_gap = after.1.iter().map(|seen| seen.longest_gap).max().unwrap_or_default();
        Ok(Window {
            cpu_s: after.0.cpu_s - before.0.cpu_s,
            sent: sum(|seen| seen.sent),
            received: sum(|seen| seen.packets),
            bytes: sum(|seen| seen.bytes),
            longest_gap,
            seconds: window.as_secs_f64(),
        })
    }
}

struct Window {
    cpu_s: f64,
    sent: f64,
    received: f64,
    bytes: f64,
    longest_gap: Duration,
    seconds: f64,
}

/// From a picture's first byte at the publisher to its last packet at a viewer.
fn through() -> Result<Table> {
    const VIEWERS: usize = 100;
    let rtmp = through_of(&Stage::set()?, VIEWERS)?;
    let whip = Stage::with(|server| Publisher::start_whip(server.http, PUBLISH_KEY))
        .context("a publisher by WHIP")?;
    let whip = through_of(&whip, VIEWERS)?;
    let mut table = Table::new(format!("in to out, {VIEWERS} viewers by WebRTC, ms"), &["p50", "p99"]);
    let row = |samples: &Samples| [samples.median(), samples.quantile(0.99)];
    let within = |column, limit| Target { column, limit };
    let named = |protocol, samples: &Samples| format!("{protocol}, {} pictures", samples.len());
    table.judge(named("RTMP", &rtmp), &row(&rtmp), within(0, RTMP_THROUGH_P50_MS_MAX));
    table.judge(named("WHIP", &whip), &row(&whip), within(0, WHIP_THROUGH_P50_MS_MAX));
    table.judge(named("WHIP", &whip), &row(&whip), within(1, WHIP_THROUGH_P99_MS_MAX));
    table.note("as the first viewer in this process sees it: with the loopback, and the wait for a core at both ends");
    Ok(table)
}

fn through_of(stage: &Stage, viewers: usize) -> Result<Samples> {
    stage.crowd.join(viewers, Duration::from_millis(10))?;
    sleep(SETTLED);
    let _before = stage.crowd.watched();
    let mut through = Samples::default();
    for _ in 0..10 {
        sleep(Duration::from_secs(1));
        for packet in stage.crowd.watched().into_iter().filter(|packet| packet.marker) {
            if let Some(sent) = stage.publisher.sent(u64::from_be_bytes(packet.tail)) {
                through.push((packet.at - sent).as_secs_f64() * 1e3);
            }
        }
    }
    ensure!(through.len() > 200, "only {} pictures of 300 were seen", through.len());
    Ok(through)
}

fn joins() -> Result<Table> {
    let stage = Stage::set()?;
    stage.crowd.join(OLD, Duration::from_millis(20))?;
    sleep(SETTLED);
    let (before, _) = (stage.server.process.usage()?, stage.crowd.look(true)?);
    let joined = stage.crowd.join(JOINS, JOINED_WITHIN / JOINS as u32)?;
    let after = stage.server.process.usage()?;
    let seen = stage.crowd.look(true)?;
    let old = seen.iter().take(OLD).map(|seen| seen.longest_gap).max().unwrap_or_default();
    let (mut answered, mut first) = (Samples::default(), Samples::default());
    joined.iter().for_each(|joined: &Joined| answered.push(joined.answered.as_secs_f64() * 1e3));
    seen.iter().skip(OLD).filter_map(|seen| seen.first_packet).for_each(|first_packet| {
        first.push(first_packet.as_secs_f64() * 1e3);
    });
    let mut table = Table::new(
        format!("{JOINS} viewers join {OLD} within {JOINED_WITHIN:?}, ms"),
        &["p50", "p99", "max"],
    );
    let row = |samples: &Samples| [samples.median(), samples.quantile(0.99), samples.max()];
    table.judge("offer answered", &row(&answered), Target { column: 0, limit: ANSWERED_MS_MAX });
    table.judge("keys to first packet", &row(&first), Target { column: 0, limit: FIRST_PACKET_MS_MAX });
    let old = old.as_secs_f64() * 1e3;
    table.judge(
        "longest without a picture, old viewers",
        &[f64::NAN, f64::NAN, old],
        Target { column: 2, limit: GAP_MS_MAX },
    );
    table.note(format!(
        "{:.2} CPU ms per join, with the {:.1} s of pictures that each is sent at once and all that was sent meanwhile",
        (after.cpu_s - before.cpu_s) * 1e3 / JOINS as f64,
        FRAME.as_secs_f64() * 60.0,
    ));
    Ok(table)
}

fn fan_out(viewers: usize, options: &Options) -> Result<Table> {
    let (rounds, window) =
        if options.quick { (1, Duration::from_secs(5)) } else { (4, Duration::from_secs(6)) };
    let mut stage = Stage::set()?;
    sleep(SETTLED);
    let alone = stage.window(window)?;
    let memory_before = stage.server.process.usage()?.resident_mb;
    let addresses = stage.crowd.join(viewers, Duration::from_millis(10))?;
    let addresses: Vec<_> = addresses.iter().map(|joined| joined.address).collect();
    let (mut server, mut floor, mut minute, mut gaps) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let (mut lost, mut mbits, mut late) = (0.0, 0.0, Duration::ZERO);
    let mut memory = 0.0;
    for round in 0..rounds {
        sleep(SETTLED);
        let seen = stage.window(window)?;
        let cpu_s = seen.cpu_s - alone.cpu_s;
        server.push(cpu_s * 1e6 / seen.sent);
        minute.push(cpu_s * 60.0 / seen.seconds / viewers as f64);
        gaps.push(micros(seen.longest_gap) / 1e3);
        lost += seen.sent - seen.received;
        mbits = seen.bytes * 8.0 / 1e6 / seen.seconds / viewers as f64;
        if round == 0 {
            memory = stage.server.process.usage()?.resident_mb - memory_before;
        }
        let groups = floor::groups(&stage.crowd.watched());
        ensure!(!groups.is_empty(), "the first viewer saw no picture");
        stage.publisher.pause(true);
        sleep(Duration::from_millis(500));
        let sent = floor::send(&groups, &addresses)?;
        stage.publisher.pause(false);
        floor.push(micros(sent.cpu) / sent.packets as f64);
        late = late.max(sent.late);
    }
    let mut table = Table::new(format!("{viewers} viewers at {mbits:.1} Mbit/s"), &["figure", "ratio"]);
    let ratio = server.median() / floor.median();
    table.tell("floor: seal and send, CPU us per packet", &[floor.median()]);
    table.judge(
        "server, CPU us per packet",
        &[server.median(), ratio],
        Target { column: 1, limit: RATIO_MAX },
    );
    let figure = |limit| Target { column: 0, limit };
    table.judge(
        "server, CPU s per viewer and minute",
        &[minute.median()],
        figure(CPU_S_PER_VIEWER_MINUTE_MAX),
    );
    table.judge(
        "server, resident KB per viewer",
        &[memory * 1e3 / viewers as f64],
        figure(KB_PER_VIEWER_MAX),
    );
    table.tell("longest without a picture, ms", &[gaps.max()]);
    table.note(format!(
        "{rounds} rounds of {window:?}, taking turns; {lost:.0} packets lost on the way; the floor was {late:?} late at worst; \
         without viewers the server takes {:.3} CPU s in that time, which is taken off",
        alone.cpu_s
    ));
    Ok(table)
}
