//! A server with a stream that must not notice anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::{Http, resolve};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::strict::{MediaPlaylist, MultivariantPlaylist};

pub(crate) const START_MAX: Duration = Duration::from_secs(25);

/// A picture that stands still for longer than this is a stall.
const STALL_MAX: Duration = Duration::from_millis(200);

pub(crate) struct Scene {
    pub(crate) server: Tidecast,
    pub(crate) http: Http,
    publisher: Publisher,
    /// Path of the video playlist.
    pub(crate) video: String,
}

impl Scene {
    pub(crate) fn start() -> Result<Self> {
        Self::start_with(Setup::default())
    }

    pub(crate) fn start_with(setup: Setup) -> Result<Self> {
        Self::start_of("gop-0.5", setup)
    }

    /// Of a clip whose keyframes, or two seconds where they come more often, make the segments.
    pub(crate) fn start_of(clip: &str, setup: Setup) -> Result<Self> {
        let server = setup.start()?;
        let publisher = Publisher::of_clip(clip, &server.publish_url("live/honest"))?;
        let http = server.viewer_http();
        let video = video_playlist(&http, "live/honest")?;
        Ok(Self { server, http, publisher, video })
    }

    pub(crate) fn playlist(&self) -> Result<MediaPlaylist> {
        Ok(MediaPlaylist::parse(&self.http.get_ok(&self.video)?.text())?)
    }

    /// A segment to wait for that is a whole one away at least, and not too far ahead to be waited for.
    pub(crate) fn ahead(&self) -> Result<u64> {
        self.playlist()?.farthest().context("an empty playlist")
    }

    /// Ends the stream.
    pub(crate) fn stop_publisher(self) -> Result<Tidecast> {
        self.publisher.stop()?;
        Ok(self.server)
    }

    /// A viewer beside whatever `trouble` makes; returns what `trouble` returns.
    ///
    /// # Errors
    /// If the viewer would have seen its picture stop.
    pub(crate) fn undisturbed<T>(&self, trouble: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let viewer = scope.spawn(|| self.watch(&over));
            let made = trouble();
            over.store(true, Ordering::Relaxed);
            let playhead = viewer.join().expect("a viewer does not panic")?;
            println!(
                "the viewer had {:?} left at least, and stalled for {:?}",
                playhead.least, playhead.stalled
            );
            ensure!(playhead.stalled <= STALL_MAX, "the picture stood still for {:?}", playhead.stalled);
            made
        })
    }

    /// Follows the stream part by part, as a player does that shows what is HOLD-BACK behind the newest one (three target
    /// durations where the playlist does not say): the tests beside this one take the machine's time too, and no
    /// stranger may be blamed for that.
    fn watch(&self, over: &AtomicBool) -> Result<Playhead> {
        let playlist = self.playlist()?;
        let mut playhead = Playhead::new(Duration::from_secs(3 * playlist.target_duration));
        let mut edge = playlist.edge().context("an empty playlist")?;
        while !over.load(Ordering::Relaxed) {
            let next = (edge.0, edge.1.map_or(0, |part| part + 1));
            let query = format!("{}?_HLS_msn={}&_HLS_part={}", self.video, next.0, next.1);
            let playlist = MediaPlaylist::parse(&self.http.get_ok(&query)?.text())?;
            let segment = playlist.segments.last().context("an empty playlist")?;
            let part = segment.parts.last().context("a segment without parts")?;
            self.http.get_ok(&resolve(&self.video, &part.uri))?;
            playhead.arrived(behind(&playlist, edge), Instant::now());
            edge = playlist.edge().context("an empty playlist")?;
        }
        Ok(playhead)
    }

    /// The stream goes on, and nothing of ours broke.
    pub(crate) fn is_sound(&self) -> Result<()> {
        self.undisturbed(|| {
            let before = self.playlist()?.edge();
            poll::until("media that goes on", START_MAX, || {
                Ok((self.playlist()?.edge() > before).then_some(()))
            })
        })?;
        for metric in ["rtmp_panics_total", "http_panics_total"] {
            ensure!(self.server.metric(metric)? == 0.0, "{metric}:\n{}", self.server.log().join("\n"));
        }
        Ok(())
    }
}

/// What a viewer has left to show, and how long it had nothing.
struct Playhead {
    ahead: Duration,
    /// When it had that; `None` before the first part.
    since: Option<Instant>,
    least: Duration,
    /// The longest time without a picture.
    stalled: Duration,
}

impl Playhead {
    fn new(ahead: Duration) -> Self {
        Self { ahead, since: None, least: ahead, stalled: Duration::ZERO }
    }

    /// `media` of this length has come.
    fn arrived(&mut self, media: Duration, now: Instant) {
        // Nobody knows how long before the first playlist its last part came: the first part after it sets the clock.
        if let Some(since) = self.since.replace(now) {
            let shown = now - since;
            self.stalled = self.stalled.max(shown.saturating_sub(self.ahead));
            self.ahead = self.ahead.saturating_sub(shown);
            self.least = self.least.min(self.ahead);
            self.ahead += media;
        }
    }
}

/// The length of what `playlist` lists behind `edge`.
fn behind(playlist: &MediaPlaylist, (msn, part): (u64, Option<u64>)) -> Duration {
    let newer = playlist.segments.iter().filter(|segment| segment.msn >= msn);
    newer
        .map(|segment| {
            let known = if segment.msn == msn { part.map_or(0, |part| part as usize + 1) } else { 0 };
            segment.parts.iter().skip(known).map(|part| part.duration).sum::<Duration>()
        })
        .sum()
}

pub(crate) fn video_playlist(http: &Http, stream: &str) -> Result<String> {
    let path = format!("/hls/{stream}/index.m3u8");
    let text = poll::until(&format!("first playlist of {stream}"), START_MAX, || {
        let answer = http.get(&path)?;
        Ok((answer.status == 200).then(|| answer.text()))
    })?;
    let variants = MultivariantPlaylist::parse(&text)?.variants;
    Ok(resolve(&path, &variants.first().context("no variant")?.uri))
}
