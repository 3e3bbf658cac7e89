//! Players that follow a stream by blocking reloads, come back for as long as they are told to, and miss no part.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::http::{Http, resolve};
use crate::poll;
use crate::server::Tidecast;
use crate::strict::MediaPlaylist;

/// A player that is told to come back for longer than this has nothing more to show, also on a busy machine.
const TURNED_AWAY_MAX: Duration = Duration::from_secs(8);

/// Some at each of several nodes.
pub struct Viewers(Vec<JoinHandle<Result<Player>>>);

/// Follows a playlist, and fetches each part that is new in it.
#[derive(Default)]
struct Player {
    newest: Option<(u64, usize)>,
    parts: usize,
    /// Of the publisher, which has no time now and then on a busy machine.
    gaps: usize,
    /// Told to come back.
    turned_away: usize,
}

impl Viewers {
    /// From now on, of the picture whose playlist is at `path` and of its sound, until it `is_enough` that so much was played, with
    /// what was there before.
    pub fn of<'a>(
        nodes: impl IntoIterator<Item = &'a Tidecast>,
        path: &str,
        is_enough: impl Fn(Duration) -> bool + Send + Sync + 'static,
    ) -> Self {
        let (paths, is_enough) = ([path.to_owned(), path.replace("/v/", "/a/")], Arc::new(is_enough));
        let all = nodes.into_iter().flat_map(|node| paths.clone().map(|path| (node.viewer_http(), path)));
        let watch = |(http, path): (Http, String)| {
            let is_enough = is_enough.clone();
            thread::spawn(move || Player::default().watch(&http, &path, &*is_enough))
        };
        Self(all.map(watch).collect())
    }

    /// Waits until all of them have seen enough.
    ///
    /// # Errors
    /// If one of them has missed something, or was turned away for too long.
    pub fn missed_nothing(self) -> Result<()> {
        for viewer in self.0 {
            let player = viewer.join().expect("a viewer does not panic")?;
            let Player { parts, gaps, turned_away, .. } = player;
            println!(
                "{parts} parts, none missing; {gaps} gaps of the publisher; told {turned_away} times to come back"
            );
            ensure!(parts > gaps, "{parts} parts and {gaps} gaps");
        }
        Ok(())
    }
}

impl Player {
    /// Every part comes after the one before, and none is missing where there is one.
    fn watch(mut self, http: &Http, path: &str, is_enough: &dyn Fn(Duration) -> bool) -> Result<Self> {
        let mut played = Duration::ZERO;
        let mut request = path.to_owned();
        while !is_enough(played) {
            let text = self.told(http, &request)?;
            let playlist = MediaPlaylist::parse(&String::from_utf8(text)?)?;
            ensure!(!playlist.ended, "{path}: viewers were told that it is over");
            let newest = playlist
                .segments
                .iter()
                .rev()
                .find_map(|segment| Some((segment.msn, segment.parts.len().checked_sub(1)?)));
            ensure!(newest >= self.newest, "{path}: {newest:?} comes after {:?}", self.newest);
            let all = playlist.segments.iter().flat_map(|segment| {
                segment.parts.iter().enumerate().map(|(number, part)| ((segment.msn, number), part))
            });
            let before = self.newest;
            for (place, part) in all.filter(|(place, _)| before.is_none_or(|before| *place > before)) {
                let follows =
                    |(msn, number): (u64, usize)| place == (msn, number + 1) || place == (msn + 1, 0);
                ensure!(self.newest.is_none_or(follows), "{path}: {place:?} comes after {:?}", self.newest);
                if part.gap {
                    self.gaps += 1;
                } else {
                    self.told(http, &resolve(path, &part.uri))?;
                    self.parts += 1;
                }
                (self.newest, played) = (Some(place), played + part.duration);
            }
            let last = playlist.segments.last().context("a playlist appears with its first segment")?;
            let next = match &last.finished {
                Some(_) => (last.msn + 1, 0),
                None => (last.msn, last.parts.len()),
            };
            request = format!("{path}?_HLS_msn={}&_HLS_part={}", next.0, next.1);
        }
        Ok(self)
    }

    /// Comes back for as long as it is told to, as players do.
    fn told(&mut self, http: &Http, path: &str) -> Result<Vec<u8>> {
        poll::until("an answer", TURNED_AWAY_MAX, || self.ask(http, path))
    }

    fn ask(&mut self, http: &Http, path: &str) -> Result<Option<Vec<u8>>> {
        let answer = http.get(path)?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            503 => {
                self.turned_away += 1;
                Ok(None)
            }
            status => bail!("GET {path}: status {status}: {}", answer.text()),
        }
    }
}
