//! Threat 24: stamps that wrap, jump and run backwards. Whatever they say, the playlist stays in order and memory small.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::Http;
use harness::poll;
use harness::rtmp::{Rtmp, Tag, clip_tags, kind};
use harness::server::{PUBLISH_KEY, Profile, Tidecast};
use harness::strict::MediaPlaylist;

use crate::scene::video_playlist;

/// What becomes of a tag's stamp, and of its body.
type Rewrite = fn(u32, &mut Vec<u8>) -> u32;

/// When the stamps jump, in the clip's own time.
const JUMP_MS: u32 = 4_000;

/// And how many discontinuities viewers may see of it.
const CASES: [(&str, u64, Rewrite); 8] = [
    ("wrap24", 0, |stamp, _| stamp.wrapping_add(0x00FF_FFFF - 1_000)),
    // Old encoders have no more bits.
    ("only24", 0, |stamp, _| stamp.wrapping_add(0x00FF_FFFF - 1_000) & 0x00FF_FFFF),
    ("wrap32", 0, |stamp, _| stamp.wrapping_add(0xFFFF_FFFF - 1_000)),
    // 26.5 hours, where a 33-bit clock of 90 kHz wraps.
    ("pts33", 0, |stamp, _| stamp.wrapping_add(95_443_717 - 1_000)),
    ("forwards", 1, |stamp, _| if stamp < JUMP_MS { stamp } else { stamp + 10 * 3_600_000 }),
    ("backwards", 1, |stamp, _| if stamp < JUMP_MS { stamp + 10_000 } else { stamp }),
    ("restarts", 1, |stamp, _| if stamp < JUMP_MS { stamp + 1_000_000 } else { stamp - JUMP_MS }),
    // FLV video tag: the three bytes after frame type and packet type.
    ("negative", 0, |stamp, body| {
        if let [0x17 | 0x27, 1, a, b, c, ..] = &mut body[..] {
            [*a, *b, *c] = [0xFF, 0xFF, 0xD8];
        }
        stamp
    }),
];

#[test]
fn threat_24_stamps_that_wrap_jump_or_run_backwards() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let tags = clip_tags("gop-0.5")?;
    let tags: Vec<_> = tags.into_iter().take_while(|tag| tag.stamp < 14_000).collect();
    let before = server.resident_bytes()?;
    thread::scope(|scope| {
        let cases: Vec<_> =
            CASES.iter().map(|case| scope.spawn(|| lives_through(&server, &tags, case))).collect();
        cases.into_iter().try_for_each(|case| case.join().expect("no case panics"))
    })?;
    for metric in ["rtmp_panics_total", "http_panics_total"] {
        ensure!(server.metric(metric)? == 0.0, "{metric}:\n{}", server.log().join("\n"));
    }
    // Eight streams of 14 s at about 1 Mbit/s, twice.
    let rise = server.resident_bytes()?.saturating_sub(before) / 1024 / 1024;
    println!("{rise} MiB");
    ensure!(rise <= 64, "{rise} MiB");
    server.stop()
}

/// Publishes with rewritten stamps while a viewer watches the playlist, which must go on past the jump.
fn lives_through(
    server: &Tidecast,
    tags: &[Tag],
    (name, breaks, rewrite): &(&str, u64, Rewrite),
) -> Result<()> {
    let http = server.viewer_http();
    let name = format!("live/{name}");
    thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(server, tags, &name, *rewrite));
        let watched = watch(&http, &name, *breaks).with_context(|| name.clone());
        publisher.join().expect("a publisher does not panic")?;
        watched
    })
}

/// In real time, as stamped in the clip.
fn publish(server: &Tidecast, tags: &[Tag], name: &str, rewrite: Rewrite) -> Result<()> {
    let stream = name.trim_start_matches("live/");
    let mut rtmp = Rtmp::publish(server.rtmp_address(), "live", &format!("{stream}?key={PUBLISH_KEY}"))?;
    let started = Instant::now();
    let mut left = tags.iter().peekable();
    poll::until("the end of the clip", Duration::from_secs(40), || {
        while let Some(tag) = left.next_if(|tag| started.elapsed().as_millis() >= u128::from(tag.stamp)) {
            let mut body = tag.body.clone();
            let stamp = rewrite(tag.stamp, &mut body);
            let id = if tag.kind == kind::VIDEO { 6 } else { 4 };
            rtmp.send(id, tag.kind, 1, stamp, &body)?;
        }
        Ok(left.peek().is_none().then_some(()))
    })
}

/// Until eleven seconds of the fourteen are there.
fn watch(http: &Http, name: &str, breaks: u64) -> Result<()> {
    let video = video_playlist(http, name)?;
    let (mut last, mut listed, mut broken) = (None, Duration::ZERO, 0);
    poll::until("media after the jump", Duration::from_secs(40), || {
        let text = http.get_ok(&video)?.text();
        let playlist = MediaPlaylist::parse(&text)?;
        let violations = playlist.check();
        ensure!(violations.is_empty(), "{violations:?}\n{text}");
        let edge = playlist.edge();
        ensure!(edge >= last, "the playlist went back from {last:?} to {edge:?}");
        last = edge;
        broken = playlist.segments.last().map_or(0, |segment| segment.discontinuity_sequence);
        listed = playlist
            .segments
            .iter()
            .filter(|segment| !segment.gap)
            .map(|segment| segment.duration().unwrap_or_default())
            .sum();
        Ok((listed >= Duration::from_secs(10) || edge >= Some((5, None))).then_some(()))
    })?;
    ensure!(broken == breaks, "{broken} discontinuities");
    Ok(())
}
