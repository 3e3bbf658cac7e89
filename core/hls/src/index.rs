//! One session of a stream: its writer, and what readers find in it.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ::http::HeaderValue;
use arc_swap::ArcSwapOption;
use media::{Captions, SessionId, StreamId};
use tokio::sync::{Semaphore, watch};

use crate::backfill::Backfill;
use crate::catalog::HELD_REQUESTS_PER_STREAM_MAX;
use crate::metrics::Metrics;
use crate::playlist::multivariant::Multivariants;
use crate::rendition::{Rendition, RenditionHeader, RenditionName, RenditionWriter};
use crate::segment::{Position, header_value};
use crate::viewers::ViewerMeter;

/// What is fixed about a session of a stream from its start.
#[derive(Debug, Clone)]
pub struct StreamHeader {
    pub id: StreamId,
    pub session: SessionId,
    /// Of the publication, when the writer begins: whoever goes on with a session raises it. Zero if a node of an earlier release
    /// does not say it.
    pub epoch: u32,
    /// PART-HOLD-BACK of all renditions: three times the largest part target.
    pub part_hold_back_ms: u32,
    /// Bound on the media kept for this stream, over all renditions.
    pub retain_bytes_max: u64,
    pub renditions: Vec<RenditionHeader>,
}

/// What is known once the first segment is complete; makes the playlists visible.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// TARGETDURATION, fixed by the first announcement.
    pub target_duration_s: u32,
    /// How much media playlists list; at least three target durations. Fixed by the first announcement.
    pub window_ms: u32,
    /// Fixed by the first announcement.
    pub frame_rate: Option<f64>,
    /// By rendition; one left out counts as zero.
    pub bandwidths: Vec<(RenditionName, Bandwidth)>,
    /// In the pictures of every rendition, as far as is known; more may be announced later.
    pub captions: Captions,
}

/// Bits per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub peak: u64,
    pub average: u64,
}

/// The single writer of a session. Dropping it ends the session, as [`StreamWriter::end`] does.
#[derive(Debug)]
pub struct StreamWriter {
    index: Arc<StreamIndex>,
    renditions: Vec<RenditionWriter>,
    abandoned: bool,
}

/// One session of a stream, as readers see it.
#[derive(Debug)]
pub struct StreamIndex {
    header: StreamHeader,
    epoch: AtomicU32,
    /// How often a rewrite of everything has begun or ended.
    rewrites: AtomicU64,
    pub(crate) renditions: Vec<Rendition>,
    announced: ArcSwapOption<Announced>,
    pub(crate) retained: Retained,
    /// Places for held requests. Only the newest session has any use for them: an ended one answers at once.
    pub(crate) held: Semaphore,
    pub(crate) metrics: Metrics,
    viewers: ViewerMeter,
    opened_at: Instant,
    ended_at: OnceLock<Instant>,
    abandoned_at: OnceLock<Instant>,
    /// Counts publications of all renditions, for the feeds of other nodes.
    pub(crate) publications: watch::Sender<u64>,
    /// Nodes that follow it for somebody who watches.
    pub(crate) followers: AtomicUsize,
    /// Where the bodies are that this node only lists.
    pub(crate) backfill: Option<Arc<dyn Backfill>>,
    /// Whether players are told where to hear of other nodes.
    has_steering: bool,
}

#[derive(Debug)]
pub(crate) struct Announced {
    pub(crate) target_duration_s: u32,
    pub(crate) window_ms: u64,
    offered: Offered,
    frame_rate: Option<f64>,
    /// In the order of the header's renditions.
    bandwidths: Vec<Bandwidth>,
    captions: Captions,
    pub(crate) multivariants: Multivariants,
    /// CAN-SKIP-UNTIL; `None` where the window is too short for anything to lie beyond it.
    pub(crate) skip_boundary_ms: Option<u32>,
    /// Cache-Control of an answer to a blocking reload.
    pub(crate) blocking_cache_control: HeaderValue,
}

/// The renditions that newcomers are told of: a bit for each, in the header's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offered(pub(crate) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No playlist yet: the first segment is not complete.
    Starting,
    Live,
    Ended,
}

/// A stream for listings and pages.
#[derive(Debug, Clone)]
pub struct Status {
    pub state: State,
    pub session: SessionId,
    /// Of what the publisher sends, RFC 6381.
    pub codecs: String,
    /// Width and height of the first video rendition.
    pub resolution: Option<(u32, u32)>,
    pub frame_rate: Option<f64>,
    /// Of what the publisher sends; `None` before the announcement.
    pub bandwidth: Option<Bandwidth>,
    pub target_duration_s: Option<u32>,
    /// Of the first rendition.
    pub part_target_ms: u32,
    pub part_hold_back_ms: u32,
    /// Newest part of the first rendition.
    pub last: Option<Position>,
    /// Estimated from playlist requests of the last ten seconds.
    pub viewers: u32,
}

impl StreamWriter {
    pub(crate) fn new(index: Arc<StreamIndex>) -> Self {
        let renditions = 0..index.renditions.len();
        let renditions = renditions.map(|number| RenditionWriter::new(Arc::clone(&index), number)).collect();
        Self { index, renditions, abandoned: false }
    }

    /// Makes the playlists visible: each rendition's once its first segment is complete, the stream's once all
    /// renditions have theirs.
    ///
    /// Called again, it raises the bandwidths and never lowers them, and adds captions; everything else stays as first announced.
    pub fn announce(&mut self, announcement: Announcement) {
        let before = self.index.announced();
        let announced = self.index.merge(announcement, before.as_deref());
        self.index.announced.store(Some(Arc::new(announced)));
        if before.is_none() {
            self.renditions.iter_mut().for_each(RenditionWriter::refresh);
        } else if let Some(first) = self.renditions.first() {
            // No playlist of a rendition changes, but other nodes are told.
            first.rendition().waiters.ring();
        }
    }

    pub fn rendition(&mut self, name: &RenditionName) -> Option<&mut RenditionWriter> {
        self.renditions.iter_mut().find(|rendition| rendition.name() == name)
    }

    pub fn index(&self) -> &Arc<StreamIndex> {
        &self.index
    }

    /// Whether a rendition is over: it stays so, and a publication that has more of it needs an index of its own.
    pub fn has_ended_rendition(&self) -> bool {
        self.renditions.iter().any(RenditionWriter::has_ended)
    }

    /// Another publication of this session, of a later `epoch`, takes the place of what is here: `fill` puts it in, and readers
    /// begin anew. Where two nodes had a publisher each, it has other bytes under the same names.
    pub fn supersede<T>(&mut self, epoch: u32, fill: impl FnOnce(&mut Self) -> T) -> T {
        self.index.rewrites.fetch_add(1, Ordering::SeqCst);
        self.index.epoch.store(epoch, Ordering::SeqCst);
        self.renditions.iter_mut().for_each(RenditionWriter::forget_bodies);
        let filled = fill(self);
        self.index.rewrites.fetch_add(1, Ordering::SeqCst);
        // Who looked meanwhile has seen that it was not done.
        self.renditions.iter().for_each(|rendition| rendition.rendition().waiters.ring());
        filled
    }

    /// Ends the session: ENDLIST in all media playlists, and every held request answered.
    pub fn end(self) {
        drop(self);
    }

    /// Stands still instead: nothing more comes from here, which says nothing of the session's end. It may go on in the
    /// next process, or on another node; what is here can be fetched until it expires.
    pub fn abandon(mut self) {
        self.abandoned = true;
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        // Each is set only here, and the writer is dropped once.
        if self.abandoned {
            // First, so that whoever is woken finds it so.
            let _ = self.index.abandoned_at.set(Instant::now());
            self.renditions.iter().for_each(|rendition| rendition.rendition().waiters.close());
        } else {
            self.renditions.iter_mut().for_each(RenditionWriter::end);
            let _ = self.index.ended_at.set(Instant::now());
        }
    }
}

impl StreamIndex {
    pub(crate) fn new(
        header: StreamHeader,
        metrics: Metrics,
        has_steering: bool,
        backfill: Option<Arc<dyn Backfill>>,
    ) -> Self {
        let renditions = header.renditions.iter().map(|rendition| {
            let others = header.renditions.iter().filter(|other| other.name != rendition.name);
            Rendition::new(rendition.clone(), others.map(|other| other.name.clone()).collect())
        });
        Self {
            epoch: AtomicU32::new(header.epoch),
            rewrites: AtomicU64::new(0),
            renditions: renditions.collect(),
            announced: ArcSwapOption::empty(),
            retained: Retained::new(header.retain_bytes_max),
            held: Semaphore::new(HELD_REQUESTS_PER_STREAM_MAX),
            metrics,
            viewers: ViewerMeter::default(),
            opened_at: Instant::now(),
            ended_at: OnceLock::new(),
            abandoned_at: OnceLock::new(),
            publications: watch::Sender::new(0),
            followers: AtomicUsize::new(0),
            backfill,
            has_steering,
            header,
        }
    }

    pub fn id(&self) -> &StreamId {
        &self.header.id
    }

    pub fn session(&self) -> SessionId {
        self.header.session
    }

    /// Of the publication that is here now; see [`StreamHeader::epoch`].
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Odd while everything is being rewritten: what was read in between is of one publication if this is even, and the same before
    /// and after.
    pub(crate) fn rewrites(&self) -> u64 {
        self.rewrites.load(Ordering::SeqCst)
    }

    pub fn state(&self) -> State {
        if self.ended_at.get().is_some() {
            State::Ended
        } else if self.visible().is_some() {
            State::Live
        } else {
            State::Starting
        }
    }

    /// The renditions, in the order of the multivariant playlist.
    pub fn renditions(&self) -> &[RenditionHeader] {
        &self.header.renditions
    }

    pub fn status(&self) -> Status {
        let announced = self.announced();
        let first = self.renditions.first();
        let own =
            || self.header.renditions.iter().enumerate().filter(|(_, rendition)| rendition.derived.is_none());
        let codecs: Vec<_> = own().map(|(_, rendition)| rendition.codec.rfc6381()).collect();
        Status {
            state: self.state(),
            session: self.session(),
            codecs: codecs.join(","),
            resolution: self.header.renditions.iter().find_map(|rendition| rendition.codec.dimensions()),
            frame_rate: announced.as_ref().and_then(|announced| announced.frame_rate),
            bandwidth: announced.as_ref().map(|announced| {
                Bandwidth::total(own().filter_map(|(number, _)| announced.bandwidths.get(number)).copied())
            }),
            target_duration_s: announced.as_ref().map(|announced| announced.target_duration_s),
            part_target_ms: first.map_or(0, |rendition| rendition.header.part_target_ms),
            part_hold_back_ms: self.header.part_hold_back_ms,
            last: first.and_then(|rendition| rendition.snapshot().edge()).map(|edge| edge.last()),
            viewers: self.viewers.estimate(self.age_s()),
        }
    }

    pub(crate) fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// What was announced, bandwidths at their highest.
    pub(crate) fn announcement(&self) -> Option<Announcement> {
        let announced = self.announced()?;
        let names = self.header.renditions.iter().map(|rendition| rendition.name.clone());
        Some(Announcement {
            target_duration_s: announced.target_duration_s,
            window_ms: u32::try_from(announced.window_ms).unwrap_or(u32::MAX),
            frame_rate: announced.frame_rate,
            bandwidths: names.zip(announced.bandwidths.iter().copied()).collect(),
            captions: announced.captions,
        })
    }

    /// No writer is left; whether it said the end, the renditions tell.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed_at().is_some()
    }

    fn closed_at(&self) -> Option<Instant> {
        self.ended_at.get().or(self.abandoned_at.get()).copied()
    }

    pub(crate) fn part_hold_back_ms(&self) -> u32 {
        self.header.part_hold_back_ms
    }

    pub(crate) fn announced(&self) -> Option<Arc<Announced>> {
        self.announced.load_full()
    }

    /// The announcement, once every playlist it promises can be fetched.
    pub(crate) fn visible(&self) -> Option<Arc<Announced>> {
        let promised = |rendition: &Rendition| rendition.header.derived.is_some() || rendition.has_playlist();
        self.announced().filter(|_| self.renditions.iter().all(promised) && self.has_picture())
    }

    /// Where the publisher's own picture can be played by nobody, a rung must be there before anything is: players do not
    /// look for a picture where there was none.
    fn has_picture(&self) -> bool {
        let mut rungs = self.rungs().peekable();
        !self.needs_rungs() || rungs.peek().is_none() || rungs.any(Rendition::has_playlist)
    }

    fn needs_rungs(&self) -> bool {
        self.header.renditions.iter().any(|rendition| !rendition.is_playable())
    }

    fn rungs(&self) -> impl Iterator<Item = &Rendition> {
        self.renditions.iter().filter(|rendition| rendition.header.is_rung())
    }

    fn offered(&self) -> Offered {
        let Some(source) = self.renditions.first().map(Rendition::snapshot) else { return Offered(0) };
        let all = |suits: &dyn Fn(&Rendition) -> bool| {
            let bits = self.renditions.iter().zip(0..u64::BITS);
            bits.fold(0, |all, (rendition, bit)| all | u64::from(suits(rendition)) << bit)
        };
        let rungs = all(&|rendition| rendition.header.is_rung() && rendition.has_playlist());
        let offered = all(&|rendition| rendition.is_offered(&source));
        // Rungs that have lost their media are better than no picture at all: they come back.
        let is_bare = self.needs_rungs() && offered & rungs == 0;
        Offered(if is_bare { offered | rungs } else { offered })
    }

    /// A derived rendition has published: newcomers are told of it, or no longer.
    pub(crate) fn review_offer(&self) {
        let Some(announced) = self.announced() else { return };
        let offered = self.offered();
        if announced.offered != offered {
            let bandwidths = announced.bandwidths.clone();
            let multivariants =
                self.multivariants(&bandwidths, announced.frame_rate, announced.captions, offered);
            let blocking_cache_control = announced.blocking_cache_control.clone();
            let reviewed =
                Announced { offered, bandwidths, multivariants, blocking_cache_control, ..*announced };
            self.announced.store(Some(Arc::new(reviewed)));
        }
    }

    fn multivariants(
        &self,
        bandwidths: &[Bandwidth],
        frame_rate: Option<f64>,
        captions: Captions,
        offered: Offered,
    ) -> Multivariants {
        let renditions = self.header.renditions.iter().cloned().zip(bandwidths.iter().copied());
        let renditions: Vec<_> = renditions.collect();
        let steering = self.has_steering.then(|| self.id());
        Multivariants::new(self.session(), steering, offered, &renditions, frame_rate, captions)
    }

    pub(crate) fn rendition(&self, name: &str) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| rendition.header.name.as_str() == name)
    }

    /// Counts a playlist request that covers `span_ms` of one viewer's time. Players load one rendition of each kind, so
    /// only those of the first one's kind count.
    pub(crate) fn count_viewer(&self, rendition: &Rendition, span_ms: u32) {
        let kind = rendition.header.codec.kind();
        if self.renditions.first().is_some_and(|first| first.header.codec.kind() == kind) {
            self.viewers.record(self.age_s(), span_ms);
        }
    }

    /// Whether anybody has asked for a playlist in the last ten seconds, or another node follows for somebody who watches.
    pub fn is_watched(&self) -> bool {
        self.followers.load(Ordering::SeqCst) > 0 || self.viewers.is_any(self.age_s())
    }

    /// Somebody watches at a node that follows without wanting anything itself: as if a viewer had asked here for a playlist of
    /// each rendition.
    pub fn touch(&self) {
        self.viewers.record(self.age_s(), 0);
        self.renditions.iter().filter_map(Rendition::on_demand).for_each(|demand| demand.touch());
    }

    fn age_s(&self) -> u32 {
        u32::try_from(self.opened_at.elapsed().as_secs()).unwrap_or(u32::MAX - 1)
    }

    pub(crate) fn expired(&self, now: Instant) -> bool {
        let window =
            self.announced().map_or(Duration::ZERO, |announced| Duration::from_millis(announced.window_ms));
        self.closed_at().is_some_and(|closed_at| now.saturating_duration_since(closed_at) >= window)
    }

    fn merge(&self, announcement: Announcement, before: Option<&Announced>) -> Announced {
        let bandwidths: Vec<_> = self
            .header
            .renditions
            .iter()
            .enumerate()
            .map(|(number, rendition)| {
                let given = announcement.bandwidths.iter().find(|(name, _)| *name == rendition.name);
                let given = given.map(|(_, bandwidth)| *bandwidth).unwrap_or_default();
                let before =
                    before.and_then(|before| before.bandwidths.get(number)).copied().unwrap_or_default();
                Bandwidth { peak: given.peak.max(before.peak), average: given.average.max(before.average) }
            })
            .collect();
        let (target_duration_s, window_ms, frame_rate) = match before {
            Some(before) => (before.target_duration_s, before.window_ms, before.frame_rate),
            None => {
                let target_duration_s = announcement.target_duration_s.max(1);
                let shortest = 3000 * u64::from(target_duration_s);
                (target_duration_s, u64::from(announcement.window_ms).max(shortest), announcement.frame_rate)
            }
        };
        let offered = self.offered();
        let captions = announcement.captions.union(before.map(|before| before.captions).unwrap_or_default());
        let multivariants = self.multivariants(&bandwidths, frame_rate, captions, offered);
        // Six target durations, the least that rfc8216bis §4.4.3.8 allows.
        let boundary_ms = target_duration_s.saturating_mul(6000);
        let skip_boundary_ms = (window_ms > u64::from(boundary_ms)).then_some(boundary_ms);
        // A blocking reload has a URL of its own for each part, so it may be kept; rfc8216bis §6.2.5.2.
        let blocking_cache_control =
            header_value(format!("public, max-age={}", 6 * u64::from(target_duration_s)));
        Announced {
            target_duration_s,
            window_ms,
            offered,
            frame_rate,
            bandwidths,
            captions,
            multivariants,
            skip_boundary_ms,
            blocking_cache_control,
        }
    }
}

impl Offered {
    /// Those of `all`, which are in the header's order.
    pub(crate) fn of<T>(self, all: &[T]) -> impl Iterator<Item = &T> {
        all.iter().zip(0..u64::BITS).filter(move |(_, bit)| self.0 >> bit & 1 == 1).map(|(one, _)| one)
    }
}

/// As part of an ETag.
impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl Bandwidth {
    pub(crate) fn total(all: impl Iterator<Item = Self>) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            peak: sum.peak.saturating_add(one.peak),
            average: sum.average.saturating_add(one.average),
        })
    }
}

/// Bytes kept for a stream, and which segments all its renditions give up to stay within the bound.
#[derive(Debug)]
pub(crate) struct Retained {
    bytes: AtomicU64,
    bytes_max: u64,
    /// First MSN that is still kept.
    floor: AtomicU64,
}

impl Retained {
    fn new(bytes_max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max, floor: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn over_bound(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max
    }

    pub(crate) fn give_up(&self, msn: u64) {
        self.floor.fetch_max(msn.saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn given_up(&self, msn: u64) -> bool {
        msn < self.floor.load(Ordering::Relaxed)
    }
}
