//! What live streams cost the control plane: messages at a real NATS server while many are live on one node and an edge stands
//! by. The node is the release binary; its publishers send sound alone, whose segments and parts are those of any stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use harness::nats::Nats;
use harness::rtmp::{Rtmp, kind};

use crate::Options;
use crate::client::address_of;
use crate::http::Connection;
use crate::measure::{sleep, sleep_until};
use crate::process::{Cluster, PUBLISH_KEY, Tidecast, wait_for};
use crate::synthetic::{Messages, Track, audio_config};
use crate::table::{Table, Target};

/// Sent and received, of each stream.
const PER_SECOND_MAX: f64 = 5.0;
/// Parts come two and a half times as often with the other profile. What comes with segments and heartbeats does not.
const PER_PART_RATIO_MAX: f64 = 1.1;
const LIVE_MAX: Duration = Duration::from_secs(60);
/// That the streams have begun is told once, and not counted.
const SETTLED: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let (streams, seconds) = if options.quick { (50, 20) } else { (200, 60) };
    let mut table =
        Table::new("messages a second at the store, of each stream", &["of each", "in all", "ratio"]);
    let mut default = f64::NAN;
    for profile in ["default", "low"] {
        let messages = measure(profile, streams, Duration::from_secs(seconds))?;
        let each = messages / streams as f64;
        if default.is_nan() {
            default = each;
        }
        let what = |target: &str| format!("{streams} streams, profile {profile}: {target}");
        let row = [each, messages, each / default];
        table.judge(what("at all"), &row, Target { column: 0, limit: PER_SECOND_MAX });
        table.judge(what("for each part"), &row, Target { column: 2, limit: PER_PART_RATIO_MAX });
    }
    table.note(format!("{seconds} s each, of clients and to clients, with the nodes' heartbeats"));
    Ok(vec![table])
}

fn measure(profile: &str, streams: usize, time: Duration) -> Result<f64> {
    let (nats, cluster) = (Nats::start()?, Cluster::new()?);
    let server = Tidecast::start_member(&cluster, "origin", &nats.url(), &[("HLS__PROFILE", profile)])?;
    let _edge = Tidecast::start_member(&cluster, "edge", &nats.url(), &[("ROLES", "edge")])?;
    let mut publishers = Publishers::start(server.rtmp(), streams)?;
    wait_for("all streams to be live", LIVE_MAX, || {
        let state = Connection::open(server.http).ok()?.get_ok("/state").ok()?.text().ok()?;
        (state.matches("\"state\":\"live\"").count() == streams).then_some(())
    })?;
    sleep(SETTLED);
    let (begun, before) = (Instant::now(), nats.messages()?);
    sleep(time);
    let (after, lasted) = (nats.messages()?, begun.elapsed());
    publishers.check()?;
    Ok((after - before) as f64 / lasted.as_secs_f64())
}

/// Broadcasters of sound, on a thread of their own until this is dropped.
struct Publishers {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Publishers {
    fn start(server: SocketAddr, streams: usize) -> Result<Self> {
        let mut connections = (0..streams)
            .map(|number| {
                let (from, name) = (address_of(number), format!("s{number}?key={PUBLISH_KEY}"));
                let mut rtmp = Rtmp::publish_from(from, server, "live", &name)?;
                rtmp.send(4, kind::AUDIO, 1, 0, &audio_config())?;
                Ok(rtmp)
            })
            .collect::<Result<Vec<_>>>()?;
        let ends = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let start = Instant::now();
            for message in Messages::new().filter(|message| message.track == Track::Audio) {
                sleep_until(start + message.time);
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let stamp = message.time.as_millis() as u32;
                for rtmp in &mut connections {
                    rtmp.send(4, kind::AUDIO, 1, stamp, &message.body)?;
                }
            }
            Ok(())
        });
        Ok(Self { ends, thread: Some(thread) })
    }

    /// Fails if one was sent away.
    fn check(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the publishers panicked"))??;
        ensure!(false, "the publishers have ended");
        Ok(())
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
