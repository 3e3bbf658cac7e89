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

/// The longest wait for a part of half a second. A player has PART-HOLD-BACK, 1.5 s, to wait with; the rest is for
/// debug builds on two cores that run everything else beside this.
const LATE_MAX: Duration = Duration::from_secs(3);

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
        let server = setup.start()?;
        let publisher = Publisher::of_clip("gop-0.5", &server.publish_url("live/honest"))?;
        let http = server.viewer_http();
        let video = video_playlist(&http, "live/honest")?;
        Ok(Self { server, http, publisher, video })
    }

    pub(crate) fn playlist(&self) -> Result<MediaPlaylist> {
        Ok(MediaPlaylist::parse(&self.http.get_ok(&self.video)?.text())?)
    }

    /// A segment to wait for that is two seconds away at least, and not too far ahead to be waited for.
    pub(crate) fn ahead(&self) -> Result<u64> {
        let playlist = self.playlist()?;
        let newest = playlist.segments.last().context("an empty playlist")?;
        Ok(newest.msn + if newest.finished.is_some() { 2 } else { 1 })
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
            let latest = viewer.join().expect("a viewer does not panic")?;
            ensure!(latest <= LATE_MAX, "a part came after {latest:?}: the picture stopped");
            made
        })
    }

    /// Follows the stream as a player does; returns the longest wait for a part.
    fn watch(&self, over: &AtomicBool) -> Result<Duration> {
        let mut latest = Duration::ZERO;
        let mut edge = self.playlist()?.edge().context("an empty playlist")?;
        let mut shown = Instant::now();
        while !over.load(Ordering::Relaxed) {
            let next = (edge.0, edge.1.map_or(0, |part| part + 1));
            let query = format!("{}?_HLS_msn={}&_HLS_part={}", self.video, next.0, next.1);
            let playlist = MediaPlaylist::parse(&self.http.get_ok(&query)?.text())?;
            let segment = playlist.segments.last().context("an empty playlist")?;
            let part = segment.parts.last().context("a segment without parts")?;
            self.http.get_ok(&resolve(&self.video, &part.uri))?;
            edge = playlist.edge().context("an empty playlist")?;
            latest = latest.max(shown.elapsed());
            shown = Instant::now();
        }
        Ok(latest)
    }

    /// The stream goes on, and nothing of ours broke.
    pub(crate) fn is_sound(&self) -> Result<()> {
        self.undisturbed(|| {
            let before = self.playlist()?.edge();
            poll::until("media that goes on", Duration::from_secs(10), || {
                Ok((self.playlist()?.edge() > before).then_some(()))
            })
        })?;
        for metric in ["rtmp_panics_total", "http_panics_total"] {
            ensure!(self.server.metric(metric)? == 0.0, "{metric}:\n{}", self.server.log().join("\n"));
        }
        Ok(())
    }
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
