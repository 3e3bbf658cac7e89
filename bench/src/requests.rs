//! How many playlists and parts a CPU second of the server is good for, beside nginx sending the same bytes from files.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::http::resolve;
use harness::publisher::Publisher;

use crate::Options;
use crate::http::Connection;
use crate::measure::{Samples, sleep};
use crate::nginx::Peers;
use crate::process::{Process, Tidecast, wait_for};
use crate::table::Table;

const LIVE_MAX: Duration = Duration::from_secs(20);
/// After this long the playlist is as long as it gets.
const WINDOW: Duration = Duration::from_secs(30);
const PLAYLIST: &str = "/hls/live/bench/index.m3u8";

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let peers = Peers::get()?;
    let (rounds, seconds) = if options.quick { (1, 3) } else { (3, 6) };
    let ours = Tidecast::start("default")?;
    let theirs = peers.nginx()?;
    let _publisher = Publisher::of_clip("bbb720p30", &ours.publish_url("live/bench"))?;
    wait_for("the first playlist", LIVE_MAX, || Connection::open(ours.http).ok()?.get_ok(PLAYLIST).ok())?;

    let mut table = Table::new("per CPU second of the server", &["requests", "(best)", "MB"]);
    if !options.quick {
        sleep(WINDOW);
    }
    let mut files = 0;
    let gzip: &[&str] = &["Accept-Encoding: gzip"];
    for (what, item, headers) in [
        ("playlist", Item::Playlist, &[][..]),
        ("playlist, gzip", Item::Playlist, gzip),
        ("part", Item::Part, &[][..]),
        ("segment", Item::Segment, &[][..]),
    ] {
        let (mut tidecast, mut nginx, mut bytes) = (Served::default(), Served::default(), 0);
        for _ in 0..rounds {
            // A new one each round: parts leave the store.
            let mut viewer = Connection::open(ours.http)?;
            let path = item.newest(&mut viewer)?;
            let answer = viewer.get_ok(&path)?;
            let plain = if headers.is_empty() { answer.plain()? } else { answer.body };
            bytes = plain.len();
            // A new name each time: nginx keeps what it opened.
            files += 1;
            fs::write(theirs.kept.join(format!("{files}")), &plain)?;
            let ours_url = format!("http://{}{path}", ours.http);
            tidecast.load(&peers, &ours.process, &ours_url, headers, seconds)?;
            let theirs_url = format!("http://{}/kept/{files}", theirs.http);
            nginx.load(&peers, &theirs.process, &theirs_url, headers, seconds)?;
        }
        table.tell(format!("tidecast: {what} of {bytes} bytes"), &tidecast.row());
        table.tell(format!("    nginx: file of {bytes} bytes"), &nginx.row());
    }
    table.note("wrk, one thread, 50 connections on the same cores; ours with a publisher at work, theirs by sendfile");
    Ok(vec![table])
}

#[derive(Clone, Copy)]
enum Item {
    Playlist,
    Part,
    Segment,
}

impl Item {
    /// The path of the newest of its kind.
    fn newest(self, viewer: &mut Connection) -> Result<String> {
        let multivariant = viewer.get_ok(PLAYLIST)?.text()?;
        let video = multivariant.lines().rfind(|line| !line.starts_with('#')).context("a variant")?;
        let playlist = resolve(PLAYLIST, video);
        let text = viewer.get_ok(&playlist)?.text()?;
        let uri = match self {
            Self::Playlist => return Ok(playlist),
            Self::Part => text.lines().rev().find_map(|line| {
                line.strip_prefix("#EXT-X-PART:")?.split_once("URI=\"")?.1.split('"').next()
            }),
            Self::Segment => text.lines().rfind(|line| !line.starts_with('#')),
        };
        Ok(resolve(&playlist, uri.context("media in the playlist")?))
    }
}

/// Per CPU second.
#[derive(Default)]
struct Served {
    requests: Samples,
    megabytes: Samples,
}

impl Served {
    fn load(
        &mut self,
        peers: &Peers,
        process: &Process,
        url: &str,
        headers: &[&str],
        seconds: u64,
    ) -> Result<()> {
        let before = process.usage()?.cpu_s;
        let (requests, bytes) = peers.wrk(url, headers, seconds)?;
        let cpu_s = process.usage()?.cpu_s - before;
        self.requests.push(requests / cpu_s);
        self.megabytes.push(bytes / 1e6 / cpu_s);
        Ok(())
    }

    fn row(&self) -> [f64; 3] {
        [self.requests.median(), self.requests.max(), self.megabytes.median()]
    }
}
