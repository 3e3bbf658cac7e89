//! What viewers by WebRTC cost the server: CPU time of each packet beside the floor that any server stands on, memory of each
//! viewer, a crowd that comes in at once, and how long a picture is on its way through the server.
//!
//! ```text
//! publisher.rs ─ RTMP, whip.rs ─▶ tidecast ─ SRTP ─▶ crowd.rs: viewer.rs × n, with feedback.rs
//!                                 floor.rs ─ SRTP ─▶
//!                             broadcast.rs ─ SRTP ─▶ another crowd.rs
//! ```
//!
//! Server and floor take turns: the publisher pauses while the floor sends what the first viewer was sent.

mod broadcast;
mod crowd;
mod fan_out;
mod feedback;
mod floor;
mod offer;
mod publisher;
mod sender;
mod viewer;
mod whip;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub(crate) use self::broadcast::serve as serve_broadcast;
use self::crowd::{Crowd, Joined};
use self::fan_out::{Sends, Stage};
use self::publisher::{FRAME, Publisher, STREAM};
use crate::Options;
use crate::http::Connection;
use crate::measure::{Samples, sleep};
use crate::process::{PUBLISH_KEY, Tidecast, Usage, raise_open_files, wait_for};
use crate::table::{Table, Target};

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
    let ours = |viewers| fan_out::ours(&mut Stage::set()?, viewers, options);
    Ok(vec![through()?, joins()?, ours(200)?, ours(500)?, fan_out::others(200, options)?])
}

/// Our server, and who publishes to it.
struct Ours {
    server: Tidecast,
    publisher: Publisher,
}

impl Sends for Ours {
    fn usage(&self) -> Result<Usage> {
        self.server.process.usage()
    }

    fn check(&mut self) -> Result<()> {
        self.publisher.check()
    }

    fn pause(&self, pauses: bool) -> Result<()> {
        self.publisher.pause(pauses);
        Ok(())
    }
}

impl Stage<Ours> {
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
        Ok(Self { sender: Ours { server, publisher }, crowd })
    }
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

fn through_of(stage: &Stage<Ours>, viewers: usize) -> Result<Samples> {
    stage.crowd.join(viewers, Duration::from_millis(10))?;
    sleep(SETTLED);
    let _before = stage.crowd.watched();
    let mut through = Samples::default();
    for _ in 0..10 {
        sleep(Duration::from_secs(1));
        for packet in stage.crowd.watched().into_iter().filter(|packet| packet.marker) {
            if let Some(sent) = stage.sender.publisher.sent(u64::from_be_bytes(packet.tail)) {
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
    let (before, _) = (stage.sender.usage()?, stage.crowd.look(true)?);
    let joined = stage.crowd.join(JOINS, JOINED_WITHIN / JOINS as u32)?;
    let after = stage.sender.usage()?;
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
