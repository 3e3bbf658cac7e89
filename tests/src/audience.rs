//! Viewers by HLS who know several nodes, and go on at the next one when theirs would have them go, as our page does. The viewer
//! measures: how long nothing was left to be shown, and what was not answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::http::{Http, resolve};

/// Of our page, while it plays (`player-demo/src/poll.ts`).
const STATE_EVERY: Duration = Duration::from_secs(5);
/// Of our page (`player-demo/src/watch/nodes.ts`).
const MOVES_WITHIN: Duration = Duration::from_secs(4);
/// Whoever gets no answer asks elsewhere after that.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Audience {
    is_over: Arc<AtomicBool>,
    viewers: Vec<JoinHandle<Result<Seen>>>,
}

/// What one viewer saw, or several.
#[derive(Debug, Default)]
pub struct Seen {
    pub parts: usize,
    /// How often it went to another node.
    pub moves: usize,
    /// Each of them: nothing was left to be shown for so long.
    pub stalls: Vec<Duration>,
    /// In words.
    pub failed: Vec<String>,
}

impl Audience {
    /// `count` viewers of `stream`, the picture of which is at `path`, spread over `nodes`.
    #[must_use]
    pub fn of(nodes: &[SocketAddr], stream: &str, path: &str, count: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let viewers = (0..count).map(|number| {
            let mut viewer = Viewer {
                nodes: nodes.iter().map(|node| Http::new(*node)).collect(),
                current: number % nodes.len(),
                state: format!("/state/{stream}"),
                path: path.to_owned(),
                random: fastrand::Rng::with_seed(number as u64),
                state_at: Instant::now(),
                moves_at: None,
                newest: None,
                shown_until: Instant::now(),
                seen: Seen::default(),
            };
            let is_over = is_over.clone();
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    viewer.go_on()?;
                }
                Ok(viewer.seen)
            })
        });
        let viewers = viewers.collect();
        Self { is_over, viewers }
    }

    /// They leave, and tell.
    ///
    /// # Errors
    /// If what one was answered with is no playlist.
    pub fn seen(mut self) -> Result<Seen> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        for viewer in std::mem::take(&mut self.viewers) {
            let Seen { parts, moves, stalls, failed } = viewer.join().expect("a viewer does not panic")?;
            all.parts += parts;
            all.moves += moves;
            all.stalls.extend(stalls);
            all.failed.extend(failed);
        }
        Ok(all)
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

struct Viewer {
    nodes: Vec<Http>,
    current: usize,
    state: String,
    path: String,
    random: fastrand::Rng,
    /// When the state is asked for next.
    state_at: Instant,
    moves_at: Option<Instant>,
    /// Of the parts that it has: segment and number.
    newest: Option<(u64, u64)>,
    shown_until: Instant,
    seen: Seen,
}

impl Viewer {
    fn go_on(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.moves_at.is_some_and(|at| now >= at) {
            self.turn();
            self.seen.moves += 1;
        }
        if now >= self.state_at {
            self.state_at = now + STATE_EVERY;
            let state = self.state.clone();
            let Some(state) = self.ask(&state) else { return Ok(()) };
            let state: serde_json::Value = serde_json::from_slice(&state).context("a state")?;
            if state["drained"] == true && self.moves_at.is_none() {
                self.moves_at = Some(now + MOVES_WITHIN.mul_f64(self.random.f64()));
            }
        }
        let request = match self.newest {
            None => self.path.clone(),
            Some((msn, part)) => format!("{}?_HLS_msn={msn}&_HLS_part={}", self.path, part + 1),
        };
        let Some(text) = self.ask(&request) else { return Ok(()) };
        let playlist = Playlist::read(&String::from_utf8(text)?)?;
        // Who comes has as much as it is to be behind.
        let Some(before) = self.newest else {
            self.newest = playlist.parts.last().map(|part| part.place);
            self.shown_until = Instant::now() + playlist.hold_back;
            return Ok(());
        };
        for part in playlist.parts.into_iter().filter(|part| part.place > before) {
            if !part.is_gap && self.ask(&resolve(&self.path, &part.uri)).is_none() {
                return Ok(());
            }
            let now = Instant::now();
            if now > self.shown_until {
                self.seen.stalls.push(now - self.shown_until);
            }
            self.shown_until = self.shown_until.max(now) + part.duration;
            self.newest = Some(part.place);
            self.seen.parts += 1;
        }
        Ok(())
    }

    /// `None`, and another node from then on, if there is no good answer.
    fn ask(&mut self, path: &str) -> Option<Vec<u8>> {
        let why = match self.nodes[self.current].get(path) {
            Ok(answer) if answer.status == 200 => return Some(answer.body),
            Ok(answer) => format!("GET {path}: status {}: {}", answer.status, answer.text()),
            Err(error) => format!("{error:#}"),
        };
        self.seen.failed.push(why);
        self.turn();
        pause();
        None
    }

    fn turn(&mut self) {
        self.current = (self.current + 1) % self.nodes.len();
        self.moves_at = None;
    }
}

#[expect(clippy::disallowed_methods, reason = "as players do, which ask again after a while")]
fn pause() {
    thread::sleep(PAUSE);
}

/// As much of a playlist as it takes to go on: hundreds are read each second.
struct Playlist {
    hold_back: Duration,
    parts: Vec<Part>,
}

struct Part {
    place: (u64, u64),
    uri: String,
    duration: Duration,
    is_gap: bool,
}

impl Playlist {
    fn read(text: &str) -> Result<Self> {
        let after = |line: &str, name: &str| -> Option<String> {
            let rest = line.split_once(name)?.1;
            Some(rest.split([',', '"']).next().unwrap_or_default().to_owned())
        };
        let seconds =
            |text: Option<String>| -> Option<Duration> { Some(Duration::from_secs_f64(text?.parse().ok()?)) };
        let (mut msn, mut number, mut hold_back, mut parts) = (None, 0, None, Vec::new());
        for line in text.lines() {
            if let Some(first) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                msn = Some(first.parse::<u64>()?);
            } else if line.starts_with("#EXT-X-SERVER-CONTROL:") {
                hold_back = seconds(after(line, "PART-HOLD-BACK="));
            } else if line.starts_with("#EXTINF:") {
                (msn, number) = (msn.map(|msn| msn + 1), 0);
            } else if line.starts_with("#EXT-X-PART:") {
                parts.push(Part {
                    place: (msn.context("no media sequence number")?, number),
                    uri: after(line, "URI=\"").context("no address of a part")?,
                    duration: seconds(after(line, "DURATION=")).context("no duration of a part")?,
                    is_gap: line.contains("GAP=YES"),
                });
                number += 1;
            }
        }
        ensure!(!parts.is_empty(), "a playlist without parts:\n{text}");
        Ok(Self { hold_back: hold_back.context("no hold-back of parts")?, parts })
    }
}
