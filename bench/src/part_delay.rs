//! How long a finished part waits: from the arrival of its last unit until a held request for the playlist that lists
//! it is answered.
//!
//! A part ends where the next unit begins, because only then is it known how long its last one lasts. So the part
//! leaves one frame after its last unit came, and the server's own share comes on top. Publisher, server and viewers
//! run in this process and speak HTTP over loopback; media comes in real time.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use edge::{Listener, Site};
use media::StreamId;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::http::Connection;
use crate::measure::{Samples, micros, sleep_until};
use crate::node::{DEFAULT_PART, LOW_PART, Node, Publisher};
use crate::playlist;
use crate::process::wait_for;
use crate::synthetic::{AUDIO_HERTZ, AUDIO_SAMPLES, FRAMES_PER_SECOND, Track};
use crate::table::{Table, Target};

/// Sent at once before real time begins, so that nobody waits for the first segment.
pub(crate) const HEAD_START: Duration = Duration::from_secs(10);

const START_MAX: Duration = Duration::from_secs(5);

/// For the server, the loopback and the scheduler, on top of the frame whose arrival ends the part.
const SLACK_S: f64 = 0.001;

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let watched = Duration::from_secs(if options.quick { 10 } else { 40 });
    let mut delays = Table::new("last unit of a part to the answer, in frames of the track", &["p50", "p99"]);
    let mut shares = Table::new("of it, the server's: next unit to the answer, us", &["p50", "p99"]);
    let mut parts = 0;
    for (profile, part_target) in [("default", DEFAULT_PART), ("low", LOW_PART)] {
        for Measured { track, frames, share } in watch(part_target, watched)? {
            parts += frames.len();
            let name = format!("{profile}: {}", if track == Track::Video { "video" } else { "audio" });
            delays.judge(
                name.clone(),
                &[frames.quantile(0.5), frames.quantile(0.99)],
                Target { column: 0, limit: 1.0 + SLACK_S / frame_s(track) },
            );
            shares.tell(name, &[share.quantile(0.5), share.quantile(0.99)]);
        }
    }
    delays.note("the target is one frame, for the unit that ends the part, and 1 ms for everything else");
    shares.note(format!("{parts} parts, each waited for over HTTP; publisher and viewers share the cores"));
    Ok(vec![delays, shares])
}

/// Of all parts of one track.
struct Measured {
    track: Track,
    frames: Samples,
    share: Samples,
}

/// Video and audio of a stream of parts of `part_target`, watched for some time.
fn watch(part_target: Duration, watched: Duration) -> Result<[Measured; 2]> {
    let runtime = Runtime::new()?;
    let node = Node::new(part_target);
    let entered = runtime.enter();
    let site = Site::new(node.registry.clone(), node.catalog.clone(), 1935);
    let socket = net::bind((Ipv4Addr::LOCALHOST, 0).into(), edge::SOCKET)?;
    let limits = net::Limits { total: 100, per_address: 100 };
    let listener = Listener::new(socket, site, net::Places::new(limits), edge::Metrics::default());
    drop(entered);
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    runtime.spawn(node.origin().run(stop.clone()));
    runtime.spawn(listener.run(stop));

    let id = StreamId::new("live", "bench")?;
    let mut publisher = node.publish(&id, HEAD_START)?;
    let begun = Instant::now();
    publish_until(&mut publisher, begun)?;
    let session = node.registry.get(&id).context("the stream is published")?.session();
    let until = begun + watched;
    let (answers, arrivals) = thread::scope(|scope| {
        let viewers = ["v", "a"].map(|rendition| {
            let playlist = format!("/hls/{id}/{session}/{rendition}/index.m3u8");
            scope.spawn(move || follow(address, &playlist, until))
        });
        let arrivals = publish_until(&mut publisher, until + part_target);
        (viewers.map(|viewer| viewer.join().expect("a viewer does not panic")), arrivals)
    });
    let arrivals = arrivals?;
    let [video, audio] = answers;
    let grid = Grid { part_target };
    Ok([grid.measure(Track::Video, &video?, &arrivals)?, grid.measure(Track::Audio, &audio?, &arrivals)?])
}

/// When each unit was handed to the server.
pub(crate) type Arrivals = HashMap<(bool, u64), Instant>;

/// Publishes in real time.
pub(crate) fn publish_until(publisher: &mut Publisher, end: Instant) -> Result<Arrivals> {
    let mut arrivals = HashMap::new();
    loop {
        let message = publisher.next_message();
        let due = publisher.due(&message);
        sleep_until(due);
        arrivals.insert((message.track == Track::Video, message.unit), Instant::now());
        publisher.push(message)?;
        if due >= end {
            return Ok(arrivals);
        }
    }
}

pub(crate) struct AnsweredAt {
    pub(crate) msn: u64,
    pub(crate) part: u64,
    pub(crate) at: Instant,
}

/// Waits for part after part, as players do, and notes when it was told of each.
pub(crate) fn follow(server: SocketAddr, playlist: &str, until: Instant) -> Result<Vec<AnsweredAt>> {
    let mut connection = Connection::open(server)?;
    let mut answers = Vec::new();
    // The origin may still be at the head start.
    let first = wait_for("the first playlist", START_MAX, || connection.get_ok(playlist).ok())?;
    let (mut msn, mut part) = hinted(&first.text()?)?;
    while Instant::now() < until {
        let answer = connection.get_ok(&format!("{playlist}?_HLS_msn={msn}&_HLS_part={part}"))?;
        answers.push(AnsweredAt { msn, part, at: Instant::now() });
        (msn, part) = hinted(&answer.text()?)?;
    }
    Ok(answers)
}

/// The part that comes next.
fn hinted(text: &str) -> Result<(u64, u64)> {
    playlist::hinted(text).context("no part is hinted at")
}

/// Segments of exactly two seconds and parts of exactly `part_target`, as the synthetic media has them.
struct Grid {
    part_target: Duration,
}

impl Grid {
    fn measure(&self, track: Track, answers: &[AnsweredAt], arrivals: &Arrivals) -> Result<Measured> {
        let mut measured = Measured { track, frames: Samples::default(), share: Samples::default() };
        for answer in answers {
            let next = self.unit_after(track, answer);
            let arrival = |unit| arrivals.get(&(track == Track::Video, unit)).copied();
            // The first answers may be about media of the head start.
            let (Some(last), Some(next)) = (arrival(next - 1), arrival(next)) else { continue };
            ensure!(answer.at >= next, "part {}.{} was listed before it ended", answer.msn, answer.part);
            measured.frames.push((answer.at - last).as_secs_f64() / frame_s(track));
            measured.share.push(micros(answer.at - next));
        }
        Ok(measured)
    }

    /// The first unit behind the part: of audio, the first at or after the end of the video's part.
    fn unit_after(&self, track: Track, answer: &AnsweredAt) -> u64 {
        let parts_per_segment = (2.0 / self.part_target.as_secs_f64()).round() as u64;
        let end_ms = (answer.msn * parts_per_segment + answer.part + 1) * self.part_target.as_millis() as u64;
        match track {
            Track::Video => end_ms * FRAMES_PER_SECOND / 1000,
            Track::Audio => (end_ms * AUDIO_HERTZ).div_ceil(1000 * AUDIO_SAMPLES),
        }
    }
}

fn frame_s(track: Track) -> f64 {
    match track {
        Track::Video => 1.0 / FRAMES_PER_SECOND as f64,
        Track::Audio => AUDIO_SAMPLES as f64 / AUDIO_HERTZ as f64,
    }
}
