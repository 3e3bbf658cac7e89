//! An edge gives the same bytes as its origin, and an edge behind it too: every version of every playlist, every part,
//! segment and init segment, with the headers that caches and players go by. While the publisher stumbles, dies and comes
//! back.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::cluster::Cluster;
use harness::http::{Answer, Http, resolve};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::Setup;
use harness::strict::{MediaPlaylist, MultivariantPlaylist};

const STREAM: &str = "live/same";
const WATCHED: Duration = Duration::from_secs(60);
/// A first segment takes two keyframes, and the machine may be busy.
const LIVE_MAX: Duration = Duration::from_secs(25);

/// Headers that decide what a cache or a player makes of a body.
const HEADERS: [&str; 6] =
    ["etag", "content-type", "cache-control", "content-encoding", "vary", "access-control-allow-origin"];

/// What was the same at every node.
#[derive(Debug, Default)]
struct Compared {
    versions: usize,
    /// The nodes stood at different versions when they were asked one after the other.
    apart: usize,
    media: HashSet<String>,
    ended: usize,
    sessions: HashSet<String>,
}

#[test]
fn every_node_gives_the_same_bytes_for_the_same_url() -> Result<()> {
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default().set("transcode.ladder", "90:60k"))?;
    let shield = cluster.edge("shield", &origin)?;
    let edge = cluster.edge("edge1", &shield)?;
    let nodes = [origin.viewer_http(), shield.viewer_http(), edge.viewer_http()];
    let url = origin.publish_url(STREAM);
    let publisher = Publisher::of_clip("gop-0.5", &url)?;

    let compared = thread::scope(|scope| {
        let broadcaster = scope.spawn(|| disturb(publisher, &url));
        let renditions = ["v", "a", "v90"].map(|rendition| {
            let nodes = &nodes;
            scope.spawn(move || compare(nodes, rendition))
        });
        let compared = renditions.map(|rendition| rendition.join().expect("no panic"));
        broadcaster.join().expect("no panic")?;
        compared.into_iter().collect::<Result<Vec<_>>>()
    })?;
    for compared in compared {
        let Compared { versions, apart, media, ended, sessions } = &compared;
        println!(
            "{versions} versions, {apart} apart, {} bodies, {ended} ends, sessions {sessions:?}",
            media.len()
        );
        // Two a second, each plain and compressed, less the time without a publisher.
        ensure!(*versions >= 60, "only {versions} versions could be compared");
        ensure!(*apart * 10 <= *versions, "{apart} of {versions} comparisons met different versions");
        ensure!(media.len() >= 60, "only {} bodies", media.len());
    }
    for (node, name) in [(&shield, "shield"), (&edge, "edge")] {
        let log = node.log();
        let anew = log.iter().find(|line| line.contains("cannot be followed"));
        ensure!(anew.is_none(), "{name}: {anew:?}");
    }
    Ok(())
}

/// A broadcaster's bad minute.
fn disturb(publisher: Publisher, url: &str) -> Result<()> {
    let start = Instant::now();
    // Waits for a time of the scenario; nothing is expected to have happened by then.
    let until = |seconds| {
        poll::until("the time", WATCHED, || {
            Ok((start.elapsed() >= Duration::from_secs(seconds)).then_some(()))
        })
    };
    until(14)?;
    publisher.freeze()?;
    until(17)?;
    publisher.thaw()?;
    until(28)?;
    publisher.kill()?;
    // The name is free again once the server has noticed.
    until(30)?;
    let publisher = Publisher::of_clip("gop-0.5", url)?;
    until(55)?;
    publisher.stop()
}

/// Follows one rendition at the first node, and asks the others for the same.
fn compare(nodes: &[Http], rendition: &str) -> Result<Compared> {
    let start = Instant::now();
    let mut compared = Compared::default();
    while start.elapsed() < WATCHED {
        let left = WATCHED.saturating_sub(start.elapsed());
        let Some(path) = playlist_path(&nodes[0], rendition, left.min(LIVE_MAX))? else { break };
        let session = path.split('/').nth(4).unwrap_or_default().to_owned();
        compared.sessions.insert(session);
        follow(nodes, &path, start, &mut compared)?;
    }
    Ok(compared)
}

/// The rendition's playlist in the newest session that goes on; `None` if there is none in time.
fn playlist_path(origin: &Http, rendition: &str, within: Duration) -> Result<Option<String>> {
    let multivariant = format!("/hls/{STREAM}/index.m3u8");
    // Near the end of the scenario there may be none any more.
    let deadline = Instant::now() + within;
    poll::until("a live session", within + LIVE_MAX, || {
        if Instant::now() > deadline {
            return Ok(Some(None));
        }
        let answer = origin.get(&multivariant)?;
        if answer.status != 200 {
            return Ok(None);
        }
        let playlist = MultivariantPlaylist::parse(&answer.text())?;
        let uris = playlist.variants.iter().map(|variant| variant.uri.clone());
        let mut uris = uris.chain(playlist.renditions.iter().filter_map(|rendition| rendition.uri.clone()));
        // A rung is not there from the start.
        let Some(uri) = uris.find(|uri| uri.split('/').nth(1) == Some(rendition)) else { return Ok(None) };
        let path = resolve(&multivariant, &uri);
        let media = origin.get(&path)?;
        Ok((media.status == 200 && !media.text().contains("#EXT-X-ENDLIST")).then_some(Some(path)))
    })
}

fn follow(nodes: &[Http], path: &str, start: Instant, compared: &mut Compared) -> Result<()> {
    same(nodes, &format!("/hls/{STREAM}/index.m3u8"), &[], compared)?;
    let mut query = String::new();
    while start.elapsed() < WATCHED {
        let request = format!("{path}{query}");
        let Some(answer) = same(nodes, &request, &[], compared)? else { return Ok(()) };
        same(nodes, &request, &[("Accept-Encoding", "gzip")], compared)?;
        let text = answer.text();
        if text.contains("CAN-SKIP-UNTIL") && !query.is_empty() {
            same(nodes, &format!("{request}&_HLS_skip=YES"), &[], compared)?;
        }
        let playlist = MediaPlaylist::parse(&text).with_context(|| text.clone())?;
        for uri in media_of(&playlist) {
            let media = resolve(path, &uri);
            if compared.media.insert(media.clone()) {
                same_media(nodes, &media)?;
            }
        }
        if playlist.ended {
            compared.ended += 1;
            return Ok(());
        }
        let (msn, part) = next(&playlist)?;
        query = format!("?_HLS_msn={msn}&_HLS_part={part}");
    }
    Ok(())
}

/// URIs of parts, segments and init segments, but for gaps.
fn media_of(playlist: &MediaPlaylist) -> Vec<String> {
    let mut uris = Vec::new();
    for segment in &playlist.segments {
        uris.extend(segment.map.clone());
        uris.extend(segment.parts.iter().map(|part| part.uri.clone()));
        uris.extend(segment.finished.as_ref().map(|(_, uri)| uri.clone()));
    }
    uris
}

fn next(playlist: &MediaPlaylist) -> Result<(u64, u64)> {
    let last = playlist.segments.last().context("an empty playlist")?;
    Ok(match &last.finished {
        Some(_) => (last.msn + 1, 0),
        None => (last.msn, last.parts.len() as u64),
    })
}

/// Asks every node for a playlist; what has the same ETag must be the same. `None` if the first has no answer to go on
/// with, such as 503 after a hold.
fn same(
    nodes: &[Http],
    path: &str,
    headers: &[(&str, &str)],
    compared: &mut Compared,
) -> Result<Option<Answer>> {
    let answers = nodes.iter().map(|node| node.get_with(path, headers)).collect::<Result<Vec<_>>>()?;
    let by_etag: HashMap<&str, &Answer> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .map(|answer| (answer.header("etag"), answer))
        .collect();
    for answer in answers.iter().filter(|answer| answer.status == 200) {
        let first = by_etag[answer.header("etag")];
        ensure!(
            answer.body == first.body,
            "GET {path} {headers:?}: {} names two playlists:\n{}\nand\n{}",
            answer.header("etag"),
            first.text(),
            answer.text()
        );
        same_headers(path, first, answer)?;
    }
    if by_etag.len() == 1 && answers.iter().all(|answer| answer.status == 200) {
        compared.versions += 1;
    } else {
        compared.apart += 1;
    }
    Ok(answers.into_iter().next().filter(|answer| answer.status == 200))
}

/// A body by URL: the same at once, or gone at the first node already.
fn same_media(nodes: &[Http], path: &str) -> Result<()> {
    let (origin, others) = nodes.split_first().context("no node")?;
    let first = origin.get(path)?;
    for other in others {
        let answer = other.get(path)?;
        if first.status != 200 {
            ensure!(answer.status == first.status, "GET {path}: {} and {}", first.status, answer.status);
            continue;
        }
        ensure!(answer.status == 200, "GET {path}: status {}: {}", answer.status, answer.text());
        if answer.body != first.body {
            bail!("GET {path}: {} bytes and {}, not the same", first.body.len(), answer.body.len());
        }
        same_headers(path, &first, &answer)?;
    }
    Ok(())
}

fn same_headers(path: &str, first: &Answer, answer: &Answer) -> Result<()> {
    for name in HEADERS {
        ensure!(
            answer.header(name) == first.header(name),
            "GET {path}: {name} is {:?} and {:?}",
            first.header(name),
            answer.header(name)
        );
    }
    Ok(())
}
