//! What one 720p30 publisher and one viewer cost, passed through, beside nginx-rtmp with the same publisher.
//!
//! Our viewer does what hls.js does in low-latency mode: it waits for each version of each playlist and fetches each
//! part of video and audio. nginx's asks for its playlist four times a second and fetches each segment.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::http::resolve;
use harness::publisher::Publisher;

use crate::Options;
use crate::http::Connection;
use crate::measure::{Samples, sleep_until};
use crate::nginx::Peers;
use crate::playlist;
use crate::process::{Process, Tidecast, wait_for};
use crate::table::{Table, Target};

pub(crate) const CLIP: &str = "bbb720p30";
const CPU_SECONDS_PER_MINUTE_MAX: f64 = 0.5;
const RESIDENT_MB_MAX: f64 = 40.0;

const LIVE_MAX: Duration = Duration::from_secs(20);
/// From the first playlist to the measured round. With it a round ends after the store is full: 60 s of media.
pub(crate) const WARM_UP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(250);

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let (rounds, seconds) = if options.quick { (1, 20) } else { (2, 60) };
    let round = Duration::from_secs(seconds);
    // Lives through all rounds, because a heap takes minutes to grow to its full size after the store is full.
    let oldest = Tidecast::start("default")?;
    let oldest_begun = Instant::now();
    let oldest_publisher = Publisher::of_clip(CLIP, &oldest.publish_url("live/bench"))?;
    let peers = Peers::get().inspect_err(|error| println!("   nginx is left out: {error:#}")).ok();
    let mut ours = Side::default();
    let mut theirs = Side::default();
    for _ in 0..rounds {
        ours.add(tidecast_round(round)?);
        if let Some(peers) = &peers {
            theirs.add(nginx_round(peers, round)?);
        }
    }

    let mut table =
        Table::new(format!("{rounds} rounds of {seconds} s each, in turn"), &["min", "median", "max"]);
    let figures = |samples: &Samples| [samples.min(), samples.median(), samples.max()];
    let cpu = Target { column: 1, limit: CPU_SECONDS_PER_MINUTE_MAX };
    table.judge("tidecast: CPU s per minute", &figures(&ours.cpu), cpu);
    if peers.is_some() {
        table.tell("nginx-rtmp: CPU s per minute", &figures(&theirs.cpu));
    }
    table.tell(
        format!("tidecast: peak resident MB after {:.0} s", ours.age_s.max()),
        &figures(&ours.resident),
    );
    if peers.is_some() {
        table.tell(
            format!("nginx-rtmp: peak resident MB after {:.0} s", theirs.age_s.max()),
            &figures(&theirs.resident),
        );
    }
    let resident = [oldest.process.usage()?.resident_peak_mb; 3];
    let what = format!("tidecast: peak resident MB after {:.0} s", oldest_begun.elapsed().as_secs_f64());
    drop(oldest_publisher);
    if options.quick {
        table.tell(what, &resident);
        table.note("the memory is judged without --quick: the store is full after 60 s only");
    } else {
        table.judge(what, &resident, Target { column: 2, limit: RESIDENT_MB_MAX });
        table.note(
            "the store is full after 60 s; the last server had a publisher all the time, and no viewer",
        );
    }
    table.note(format!("viewer of tidecast, per round: {}; of nginx: {}", ours.viewed, theirs.viewed));
    Ok(vec![table])
}

#[derive(Default)]
struct Side {
    cpu: Samples,
    resident: Samples,
    age_s: Samples,
    /// What the last round's viewer got.
    viewed: Viewed,
}

struct Round {
    cpu_s_per_minute: f64,
    resident_peak_mb: f64,
    age_s: f64,
    viewed: Viewed,
}

impl Side {
    fn add(&mut self, round: Round) {
        self.cpu.push(round.cpu_s_per_minute);
        self.resident.push(round.resident_peak_mb);
        self.age_s.push(round.age_s);
        self.viewed = round.viewed;
    }
}

#[derive(Default, Clone, Copy)]
pub(crate) struct Viewed {
    playlists: u64,
    media: u64,
    bytes: u64,
}

impl std::fmt::Display for Viewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabytes = self.bytes as f64 / 1e6;
        write!(f, "{} playlists, {} parts or segments, {megabytes:.1} MB", self.playlists, self.media)
    }
}

impl std::ops::AddAssign for Viewed {
    fn add_assign(&mut self, other: Self) {
        self.playlists += other.playlists;
        self.media += other.media;
        self.bytes += other.bytes;
    }
}

fn tidecast_round(round: Duration) -> Result<Round> {
    let server = Tidecast::start("default")?;
    let begun = Instant::now();
    let _publisher = Publisher::of_clip(CLIP, &server.publish_url("live/bench"))?;
    let path = "/hls/live/bench/index.m3u8";
    let multivariant = first_playlist(server.http, path)?;
    let playlists = playlist::renditions(path, &multivariant);
    let until = Instant::now() + WARM_UP + round;
    thread::scope(|scope| {
        let viewers: Vec<_> = playlists
            .iter()
            .map(|playlist| scope.spawn(|| follow_parts(server.http, playlist, until)))
            .collect();
        let (cpu_s_per_minute, resident_peak_mb) = measure(&server.process, until - round, until)?;
        let age_s = begun.elapsed().as_secs_f64();
        let mut viewed = Viewed::default();
        for viewer in viewers {
            viewed += viewer.join().expect("a viewer does not panic")?;
        }
        Ok(Round { cpu_s_per_minute, resident_peak_mb, age_s, viewed })
    })
}

fn nginx_round(peers: &Peers, round: Duration) -> Result<Round> {
    let server = peers.nginx()?;
    let begun = Instant::now();
    let _publisher = Publisher::of_clip(CLIP, &server.publish_url("bench"))?;
    let playlist = "/bench.m3u8";
    first_playlist(server.http, playlist)?;
    let until = Instant::now() + WARM_UP + round;
    thread::scope(|scope| {
        let viewer = scope.spawn(|| poll_segments(server.http, playlist, until));
        let (cpu_s_per_minute, resident_peak_mb) = measure(&server.process, until - round, until)?;
        let age_s = begun.elapsed().as_secs_f64();
        let viewed = viewer.join().expect("a viewer does not panic")?;
        Ok(Round { cpu_s_per_minute, resident_peak_mb, age_s, viewed })
    })
}

/// CPU seconds per minute between two moments, and the most memory there ever was.
fn measure(process: &Process, from: Instant, until: Instant) -> Result<(f64, f64)> {
    sleep_until(from);
    let (before, begun) = (process.usage()?, Instant::now());
    sleep_until(until);
    let (after, took) = (process.usage()?, begun.elapsed());
    Ok(((after.cpu_s - before.cpu_s) * 60.0 / took.as_secs_f64(), after.resident_peak_mb))
}

pub(crate) fn first_playlist(server: SocketAddr, path: &str) -> Result<String> {
    wait_for("the first playlist", LIVE_MAX, || {
        let answer = Connection::open(server).ok()?.get_ok(path).ok()?;
        answer.text().ok()
    })
}

/// Follows one rendition part by part, over a connection of its own.
pub(crate) fn follow_parts(server: SocketAddr, playlist: &str, until: Instant) -> Result<Viewed> {
    let mut connection = Connection::open(server)?;
    let mut viewed = Viewed::default();
    let mut text = connection.get_ok(playlist)?.text()?;
    let mut newest = None;
    while Instant::now() < until {
        let parts: Vec<_> = playlist::parts(&text).collect();
        // At first only the newest: a viewer joins at the live edge.
        let known = newest.and_then(|newest: String| parts.iter().position(|part| *part == newest));
        let new = known.map_or(parts.len().saturating_sub(1), |known| known + 1);
        for part in &parts[new..] {
            viewed.media += 1;
            viewed.bytes += connection.get_ok(&resolve(playlist, part))?.body.len() as u64;
        }
        newest = parts.last().map(|part| (*part).to_owned());

        let (msn, part) = playlist::hinted(&text).context("no part is hinted at")?;
        let answer = connection.get_ok(&format!("{playlist}?_HLS_msn={msn}&_HLS_part={part}"))?;
        viewed.playlists += 1;
        viewed.bytes += answer.body.len() as u64;
        text = answer.text()?;
    }
    Ok(viewed)
}

/// Polls a playlist, and fetches what is new in it.
fn poll_segments(server: SocketAddr, playlist: &str, until: Instant) -> Result<Viewed> {
    let mut connection = Connection::open(server)?;
    let mut viewed = Viewed::default();
    let mut seen = HashSet::new();
    let mut next = Instant::now();
    while next < until {
        sleep_until(next);
        next += POLL;
        let answer = connection.get_ok(playlist)?;
        viewed.playlists += 1;
        viewed.bytes += answer.body.len() as u64;
        for segment in playlist::segments(&answer.text()?) {
            if !seen.insert(segment.to_owned()) {
                continue;
            }
            viewed.media += 1;
            viewed.bytes += connection.get_ok(&resolve(playlist, segment))?.body.len() as u64;
        }
    }
    Ok(viewed)
}
