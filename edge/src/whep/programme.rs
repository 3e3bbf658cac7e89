//! One stream, as those viewers of one shard see it that take the same formats.

use std::sync::Arc;
use std::time::Instant;

use relay::Stream;
use rtc::outbound::{ClockAnchor, History};
use rtc::packetize::{Frame, Source};
use tokio::sync::mpsc;

use super::rendition::{Formats, Reader, Rendition, Told, choose, pixels};
use super::ring::Ring;

/// What a publisher's own is taken to need before it was measured, in bit/s.
const UNKNOWN: f64 = 3e6;

/// Which rendition of a programme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Video(usize),
    Audio,
}

pub(super) struct Programme {
    stream: Arc<Stream>,
    /// The largest first.
    video: Vec<Rendition>,
    /// By the numbers of `video`.
    rings: Vec<Ring<Arc<Frame>>>,
    audio: Option<Rendition>,
    sound: Ring<Arc<Frame>>,
    /// Waits for the end of the stream: a rung may end before it.
    _end: Reader,
    pub(super) viewers: Vec<u64>,
}

impl Programme {
    /// What `over` makes of it goes `to` the shard when the stream ends. Within the shard's runtime.
    pub(super) fn new<T: Send + 'static>(
        stream: Arc<Stream>,
        formats: Formats,
        to: &mpsc::Sender<T>,
        over: impl FnOnce(Arc<Stream>) -> T + Send + 'static,
    ) -> Self {
        let (video, audio) = choose(stream.tracks(), formats);
        let rings = video.iter().map(|_| Ring::default()).collect();
        let (mut record, to, ended) = (stream.record(), to.clone(), stream.clone());
        let end = tokio::spawn(async move {
            // Until the channel closes.
            while record.changed().await.is_ok() {}
            let _shard_is_gone = to.send(over(ended)).await;
        });
        let (sound, viewers) = (Ring::default(), Vec::new());
        Self { stream, video, rings, audio, sound, _end: Reader(end), viewers }
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Bits per second of each rendition, rising.
    pub(super) fn ladder(&self) -> Vec<f64> {
        let record = self.stream.record();
        let record = record.borrow();
        let live = record.as_ref().and_then(|record| Some((&record.tracks, record.live.as_ref()?)));
        let announced = |id| {
            let (tracks, live) = live?;
            let place = tracks.iter().position(|track| track.id == id)?;
            live.bandwidth.get(place).map(|bandwidth| bandwidth.average)
        };
        let bits = self.video.iter().map(|video| {
            let track = video.track.record();
            let rung =
                track.derived.filter(|derived| !derived.layer).map(|derived| derived.bandwidth.average);
            // Before it is measured, only what the publisher sends is unknown.
            rung.or_else(|| announced(track.id)).map_or(UNKNOWN, f64::from)
        });
        let mut rising: Vec<_> = bits.collect();
        rising.reverse();
        // A large picture in which nothing moves may have measured less than a smaller one that is configured.
        let mut most: f64 = 0.0;
        for bits in &mut rising {
            most = most.max(*bits);
            *bits = most;
        }
        rising
    }

    /// As measured; 0 while it is not known.
    pub(super) fn keyframes_apart_s(&self) -> f64 {
        self.stream.facts().keyframe_interval_s.unwrap_or_default()
    }

    /// Number of what has keyframes every two seconds and is as large as can be: the next rung, if `number` is none.
    pub(super) fn rung_for(&self, number: usize) -> usize {
        let rungs = (number..).zip(self.video.iter().skip(number));
        let mut rungs = rungs.filter(|(_, video)| !video.track.record().is_sent());
        rungs.next().map_or(number, |(rung, _)| rung)
    }

    /// The publisher sends nothing, and may come back.
    pub(super) fn is_interrupted(&self) -> bool {
        self.stream.facts().interrupted_since_ms.is_some()
    }

    /// Of the publisher. Its layers and rungs have theirs where it has.
    pub(super) fn want_keyframe(&self) {
        self.stream.want_keyframe();
    }

    /// Of this rendition, whoever makes it.
    pub(super) fn want_keyframe_of(&self, number: usize) {
        match self.video.get(number) {
            Some(video) if !video.track.record().is_sent() => self.stream.want_rung_keyframe(),
            _ => self.stream.want_keyframe(),
        }
    }

    pub(super) fn rings(&self) -> &[Ring<Arc<Frame>>] {
        &self.rings
    }

    pub(super) fn sound(&self) -> &Ring<Arc<Frame>> {
        &self.sound
    }

    /// Number of the rendition of this name. A player that has read the playlist may ask for one that is not shown by WebRTC,
    /// where the publisher sends layers: it is given the largest that is not larger.
    pub(super) fn number_of(&self, name: &str) -> Option<usize> {
        let exact = self.video.iter().position(|rendition| rendition.name() == name);
        exact.or_else(|| {
            let asked = self.stream.tracks().iter().find(|track| &*track.record().name == name)?;
            let pixels = pixels(asked).filter(|_| !self.video.is_empty())?;
            let fits = self.video.iter().position(|rendition| self::pixels(&rendition.track) <= Some(pixels));
            Some(fits.unwrap_or(self.video.len() - 1))
        })
    }

    /// Of all pictures, the largest first.
    pub(super) fn names(&self) -> Vec<String> {
        self.video.iter().map(|rendition| rendition.name().to_owned()).collect()
    }

    pub(super) fn name_of(&self, number: usize) -> Option<&str> {
        self.video.get(number).map(Rendition::name)
    }

    pub(super) fn history(&self, source: Source) -> Option<&History> {
        let renditions = self.video.iter().chain(&self.audio);
        renditions.map(|rendition| &rendition.history).find(|history| history.source() == source)
    }

    /// Of a picture, and of the sound.
    pub(super) fn anchors(&self, video: usize) -> [Option<ClockAnchor>; 2] {
        let of = |rendition: Option<&Rendition>| rendition.and_then(|rendition| rendition.anchor);
        [of(self.video.get(video)), of(self.audio.as_ref())]
    }

    /// Begins to read a picture, and the sound.
    pub(super) fn want<T: Send + 'static>(
        &mut self,
        number: usize,
        to: &mpsc::Sender<T>,
        tell: impl Fn(Which, Told) -> T + Send + Clone + 'static,
    ) {
        if let Some(video) = self.video.get_mut(number) {
            let tell = tell.clone();
            video.want(to, move |told| tell(Which::Video(number), told));
        }
        if let Some(audio) = &mut self.audio {
            audio.want(to, move |told| tell(Which::Audio, told));
        }
    }

    /// Nobody wants a picture any more but these.
    pub(super) fn rest(&mut self, wanted: &[usize]) {
        for (number, (video, ring)) in self.video.iter_mut().zip(&mut self.rings).enumerate() {
            if !wanted.contains(&number) && video.is_read() {
                // Packets of the next reader are numbered anew, so nothing of this one's may be left.
                (*video, *ring) = (Rendition::new(video.track.clone()), Ring::default());
            }
        }
    }

    pub(super) fn told(&mut self, which: Which, told: Told, now: Instant) {
        let (rendition, ring) = match which {
            Which::Video(number) => (self.video.get_mut(number), self.rings.get_mut(number)),
            Which::Audio => (self.audio.as_mut(), Some(&mut self.sound)),
        };
        let (Some(rendition), Some(ring)) = (rendition, ring) else { return };
        match told {
            // Of a reader that has been stopped some may still be under way.
            Told::Frame(frame) if frame.source() != rendition.history.source() => {}
            Told::Frame(frame) => rendition.push(frame, ring, now),
            Told::Anchor(anchor) => rendition.anchor = Some(anchor),
        }
    }
}
