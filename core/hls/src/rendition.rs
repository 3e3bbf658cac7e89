//! One rendition: its writer, and the snapshots that readers see of it.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use media::{CodecConfig, Timescale, TrackKind};
use tokio::sync::{OnceCell, watch};

use crate::blocking::{LiveEdge, advance_part_limit};
use crate::demand::Demand;
use crate::index::{Announced, StreamIndex};
use crate::playlist::media::MediaPlaylist;
use crate::playlist::version::Version;
use crate::segment::{self, Part, Position, Segment, StoredPart};
use crate::waiters::{Queue, Waiters};

/// Segments that stay whatever the bound of bytes says: the newest complete one, and the one being written.
/// Ingest bounds the bytes of a segment, so memory stays bounded.
const SEGMENTS_KEPT_MIN: usize = 2;

/// A derived rendition without media for so many segments is no longer offered: a worker that was restarted is back
/// before.
const SEGMENTS_LOST_MAX: usize = 2;

/// What a rendition is called in URLs: `v`, `a`, `v720`; `[a-z0-9]{1,16}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RenditionName(Arc<str>);

/// Why a text is not the name of a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rendition's name is one to sixteen of a-z and 0-9")]
pub struct NameError;

impl FromStr for RenditionName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        match allowed && (1..=16).contains(&text.len()) {
            true => Ok(Self(text.into())),
            false => Err(NameError),
        }
    }
}

impl RenditionName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RenditionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is fixed about a rendition for the life of its session.
#[derive(Debug, Clone)]
pub struct RenditionHeader {
    pub name: RenditionName,
    pub codec: CodecConfig,
    /// No part is longer. Never changes: Apple's player gives up on a stream for good if it does.
    pub part_target_ms: u32,
    /// Made of another rendition by a transcode worker, which may start late or fail: nothing waits for it.
    pub derived: Option<Derived>,
}

impl RenditionHeader {
    /// Whether newcomers can be told of it at all: no player takes VP8 by HLS. Its numbers and times are those of the others
    /// all the same, so it is kept like any other.
    pub(crate) fn is_playable(&self) -> bool {
        !matches!(self.codec, CodecConfig::Vp8(_))
    }

    fn is_picture(&self) -> bool {
        self.codec.kind() == TrackKind::Video
    }

    /// One that is shown instead of what cannot be played.
    pub(crate) fn is_rung(&self) -> bool {
        self.derived.is_some() && self.is_picture()
    }
}

/// How a rendition is made of another.
#[derive(Debug, Clone)]
pub struct Derived {
    /// It has one of so many pictures; at least 1.
    pub every: u8,
    /// Who makes it while somebody watches, and not otherwise: newcomers are told of it though it is all gaps. `None` if it
    /// is always made: then they are told of it only while it has media.
    pub on_demand: Option<Arc<dyn Demand>>,
}

impl Derived {
    /// Made whether somebody watches or not.
    pub fn always(every: u8) -> Self {
        Self { every, on_demand: None }
    }
}

/// Why a part was not taken. The packager's mistake, never a viewer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Numbers run on: the next part of a segment, or the first part of the next one.
    #[error("part {got} cannot follow; {expected} is next")]
    OutOfOrder { expected: Position, got: Position },
    #[error("segment {msn} has discontinuity sequence {got} after {previous}")]
    DiscontinuitySequence { msn: u64, previous: u64, got: u64 },
    /// rfc8216bis §4.4.4.5: players may keep the decoder they set up until a discontinuity.
    #[error("segment {msn} changes the init segment without a discontinuity")]
    InitWithoutDiscontinuity { msn: u64 },
}

/// The readers' side: the newest snapshot, and the requests that wait for the next.
#[derive(Debug)]
pub(crate) struct Rendition {
    pub(crate) header: RenditionHeader,
    pub(crate) advance_part_limit: u32,
    siblings: Vec<RenditionName>,
    snapshot: ArcSwap<Snapshot>,
    pub(crate) waiters: Waiters,
}

/// The rendition as of one part. Never changes.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Everything that can be fetched, oldest first, without a hole; the tail of it is listed.
    segments: Vec<Arc<Segment>>,
    pub(crate) ended: bool,
    /// From the first complete segment after the announcement on.
    pub(crate) playlist: Option<Version>,
}

impl Snapshot {
    /// `None` before the first part.
    pub(crate) fn edge(&self) -> Option<LiveEdge> {
        let newest = self.segments.last()?;
        Some(LiveEdge {
            msn: newest.msn,
            parts: newest.parts.len() as u32,
            complete: newest.complete,
            ended: self.ended,
        })
    }

    /// Everything that can be fetched, oldest first.
    pub(crate) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    pub(crate) fn segment(&self, msn: u64) -> Option<&Arc<Segment>> {
        let oldest = self.segments.first()?.msn;
        self.segments.get(usize::try_from(msn.checked_sub(oldest)?).ok()?)
    }

    pub(crate) fn part(&self, position: Position) -> Option<&Arc<StoredPart>> {
        self.segment(position.msn)?.parts.get(position.part as usize)
    }

    /// Newest first: that is the one players ask for.
    pub(crate) fn init(&self, hash: &str) -> Option<&Bytes> {
        let mut inits = self.segments.iter().rev().map(|segment| &segment.start.init);
        inits.find(|init| init.hash == hash).map(|init| &init.bytes)
    }
}

impl Rendition {
    pub(crate) fn new(header: RenditionHeader, siblings: Vec<RenditionName>) -> Self {
        Self {
            advance_part_limit: advance_part_limit(header.part_target_ms),
            header,
            siblings,
            snapshot: ArcSwap::default(),
            waiters: Waiters::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(crate) fn has_playlist(&self) -> bool {
        self.snapshot.load().playlist.is_some()
    }

    /// Whoever makes it on demand only.
    pub(crate) fn on_demand(&self) -> Option<&Arc<dyn Demand>> {
        self.header.derived.as_ref()?.on_demand.as_ref()
    }

    /// Whether a newcomer is told of it: not while a worker has given nothing for the newest segments of which the
    /// `source` has media, unless it waits for just that newcomer.
    pub(crate) fn is_offered(&self, source: &Snapshot) -> bool {
        let snapshot = self.snapshot();
        let complete = snapshot.segments.iter().rev().filter(|segment| segment.complete);
        let lost = |segment: &Arc<Segment>| {
            segment.gap() && !source.segment(segment.msn).is_some_and(|same| same.gap())
        };
        let is_made = || {
            snapshot.playlist.is_some()
                && (self.on_demand().is_some() || !complete.take(SEGMENTS_LOST_MAX).all(lost))
        };
        self.header.is_playable() && (self.header.derived.is_none() || is_made())
    }

    /// Waits until `check` finds its answer in a snapshot. May be dropped at any time.
    pub(crate) async fn wait<T>(
        &self,
        queue: Queue,
        mut check: impl FnMut(&Arc<Snapshot>) -> Option<T>,
    ) -> T {
        let place = self.waiters.place(queue);
        loop {
            // Before looking: what is published after the look then ends this wait.
            let woken = place.wait();
            if let Some(answer) = check(&self.snapshot()) {
                return answer;
            }
            woken.await;
        }
    }

    /// Wakes held requests after each publication, until the last. `feeds` go first: behind each is a whole node.
    pub(crate) async fn run_waker(&self, feeds: &watch::Sender<u64>) {
        for turn in 0.. {
            self.waiters.rung().await;
            let over = self.snapshot.load().ended || self.waiters.is_closed();
            feeds.send_modify(|count| *count += 1);
            self.waiters.wake_all(turn).await;
            if over {
                return;
            }
        }
    }
}

/// The single writer of one rendition.
#[derive(Debug)]
pub struct RenditionWriter {
    index: Arc<StreamIndex>,
    /// Which of the index's renditions this is.
    number: usize,
    segments: VecDeque<Arc<Segment>>,
    /// MSN of the oldest segment in the playlist. Never decreases.
    listed_from: u64,
    ended: bool,
    /// What is restored next is of another publication.
    is_superseded: bool,
}

impl RenditionWriter {
    pub(crate) fn new(index: Arc<StreamIndex>, number: usize) -> Self {
        Self { index, number, segments: VecDeque::new(), listed_from: 0, ended: false, is_superseded: false }
    }

    pub(crate) fn name(&self) -> &RenditionName {
        &self.rendition().header.name
    }

    /// Publishes a part: renders the playlist, swaps it in, and rings for those who wait. Never waits itself.
    ///
    /// A part 0 that comes while its predecessor segment is open closes that segment short, and so withdraws the
    /// part that was hinted.
    ///
    /// # Errors
    /// [`PushError`], with nothing changed, if the part does not continue the rendition.
    pub fn push(&mut self, part: Part) -> Result<(), PushError> {
        self.add(part)?;
        self.publish(false);
        Ok(())
    }

    /// Publishes the last part and the end of the rendition at once, so that nobody waits for a part after it.
    ///
    /// # Errors
    /// As [`RenditionWriter::push`].
    pub fn push_last(&mut self, part: Part) -> Result<(), PushError> {
        self.add(part)?;
        self.end();
        Ok(())
    }

    /// As [`RenditionWriter::push`], for a part of `bytes` that may come without its body: another node has it then.
    ///
    /// # Errors
    /// As [`RenditionWriter::push`].
    pub fn push_listed(&mut self, part: Part, bytes: u64) -> Result<(), PushError> {
        self.add_listed(part, bytes)?;
        self.publish(false);
        Ok(())
    }

    /// Puts the index of another node, each part with the length of its body, in place of what is here, and publishes
    /// it at once. Bodies that are here stay, but where [another publication](crate::StreamWriter::supersede) takes over.
    ///
    /// # Errors
    /// As [`RenditionWriter::push`]; then only what came before is here.
    pub fn restore(&mut self, parts: impl IntoIterator<Item = (Part, u64)>) -> Result<(), PushError> {
        let before = match std::mem::take(&mut self.is_superseded) {
            true => Arc::default(),
            false => self.rendition().snapshot(),
        };
        while !self.segments.is_empty() {
            self.drop_oldest();
        }
        self.listed_from = 0;
        let restored = parts.into_iter().try_for_each(|(mut part, bytes)| {
            // Of one publication a name is never given to other bytes.
            let known = before.part(Position { msn: part.msn, part: part.part });
            let known = known.filter(|known| part.body.is_empty() && known.bytes == bytes);
            if let Some(body) = known.and_then(|known| known.body.get()) {
                part.body.clone_from(body);
            }
            self.add_listed(part, bytes)
        });
        self.publish(false);
        restored
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn forget_bodies(&mut self) {
        self.is_superseded = true;
    }

    /// Lets go of the segments before `msn`, as the node did that this one follows.
    pub fn forget_before(&mut self, msn: u64) {
        while self.segments.len() > SEGMENTS_KEPT_MIN {
            if self.segments.front().is_none_or(|oldest| oldest.msn >= msn) {
                return;
            }
            self.drop_oldest();
        }
        self.listed_from = self.listed_from.max(msn);
    }

    fn add(&mut self, part: Part) -> Result<(), PushError> {
        let bytes = part.body.iter().map(|slice| slice.len() as u64).sum();
        self.add_listed(part, bytes)
    }

    fn add_listed(&mut self, part: Part, bytes: u64) -> Result<(), PushError> {
        self.check(&part)?;
        let target = u64::from(self.rendition().header.part_target_ms);
        if u64::from(part.duration) * 1000 > target * u64::from(self.timescale().hertz()) {
            self.index.metrics.parts_over_target.inc();
        }
        self.index.metrics.parts_published.inc();
        self.append(part, bytes);
        self.trim();
        Ok(())
    }

    /// Nobody can have set up a decoder: of a rendition that is made on demand, nothing was made yet.
    fn is_all_gap(&self) -> bool {
        self.segments.iter().all(|segment| segment.parts.iter().all(|part| part.gap))
    }

    /// Renders what is there, after an announcement.
    pub(crate) fn refresh(&mut self) {
        self.trim();
        self.publish(false);
    }

    /// Closes the last segment and publishes the playlist with ENDLIST, once.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(open) = self.segments.back_mut().filter(|segment| !segment.complete) {
            Arc::make_mut(open).complete = true;
        }
        self.trim();
        self.publish(true);
    }

    fn check(&self, part: &Part) -> Result<(), PushError> {
        let got = Position { msn: part.msn, part: part.part };
        let Some(newest) = self.segments.back() else {
            let expected = Position { msn: part.msn, part: 0 };
            return if got == expected { Ok(()) } else { Err(PushError::OutOfOrder { expected, got }) };
        };
        let next_part = Position { msn: newest.msn, part: newest.parts.len() as u32 };
        let next_segment = Position { msn: newest.msn.saturating_add(1), part: 0 };
        if got == next_part && !newest.complete {
            return Ok(());
        }
        if got != next_segment {
            let expected = if newest.complete { next_segment } else { next_part };
            return Err(PushError::OutOfOrder { expected, got });
        }
        let (previous, start) = (newest.start.discontinuity_sequence, &part.segment);
        match start.discontinuity_sequence.checked_sub(previous) {
            Some(0) if start.init.hash != newest.start.init.hash && !self.is_all_gap() => {
                Err(PushError::InitWithoutDiscontinuity { msn: part.msn })
            }
            Some(0 | 1) => Ok(()),
            _ => Err(PushError::DiscontinuitySequence {
                msn: part.msn,
                previous,
                got: start.discontinuity_sequence,
            }),
        }
    }

    fn append(&mut self, part: Part, bytes: u64) {
        let (session, name, epoch) =
            (self.index.session(), &self.rendition().header.name, self.index.epoch());
        let stored = StoredPart {
            duration: part.duration,
            independent: part.independent,
            gap: part.gap,
            last: part.last,
            bytes,
            body: match part.body.is_empty() && bytes > 0 {
                true => OnceCell::new(),
                false => part.body.into(),
            },
            etag: segment::etag(session, name, format_args!("{}.{}.{epoch}", part.msn, part.part)),
        };
        self.index.retained.add(stored.bytes);
        if part.part == 0 {
            let etag = segment::etag(session, name, format_args!("{}.{epoch}", part.msn));
            if let Some(cut_short) = self.segments.back_mut().filter(|segment| !segment.complete) {
                Arc::make_mut(cut_short).complete = true;
            }
            self.segments.push_back(Arc::new(Segment {
                msn: part.msn,
                start: part.segment,
                parts: Vec::new(),
                duration: 0,
                bytes: 0,
                complete: false,
                etag,
            }));
        }
        let newest = self.segments.back_mut().expect("the first part of a segment has just opened one");
        // Readers hold the segment as it was; this copies pointers to its parts, not their bytes.
        let newest = Arc::make_mut(newest);
        newest.duration += u64::from(stored.duration);
        newest.bytes += stored.bytes;
        newest.complete = part.last;
        newest.parts.push(Arc::new(stored));
    }

    /// Moves the window on, and lets go of what is older than anyone may still ask for.
    fn trim(&mut self) {
        if let Some(announced) = self.index.announced() {
            self.trim_by_time(&announced);
        }
        self.trim_by_bytes();
    }

    fn trim_by_time(&mut self, announced: &Announced) {
        let hertz = u64::from(self.timescale().hertz());
        let target_duration = u64::from(announced.target_duration_s) * hertz;
        let window = announced.window_ms * hertz / 1000;

        // Complete segments only: what a player that ignores parts sees.
        let listed = |segment: &&Arc<Segment>| segment.complete && segment.msn >= self.listed_from;
        let mut listed_duration: u64 =
            self.segments.iter().filter(listed).map(|segment| segment.duration).sum();
        let mut listed_from = self.listed_from;
        for segment in self.segments.iter().filter(listed) {
            // rfc8216bis §6.2.2: a live playlist never gets shorter than three target durations.
            let without = listed_duration - segment.duration;
            if listed_duration <= window || without < 3 * target_duration {
                break;
            }
            listed_duration = without;
            listed_from = segment.msn + 1;
        }
        self.listed_from = listed_from;

        // rfc8216bis §6.2.2: once unlisted, a segment stays for its own duration and that of the longest
        // playlist it was in.
        let complete = self.segments.iter().filter(|segment| segment.complete);
        let mut retained: u64 = complete.map(|segment| segment.duration).sum();
        while let Some(oldest) = self.segments.front().filter(|oldest| oldest.msn < self.listed_from) {
            if retained - oldest.duration < 2 * window + target_duration {
                break;
            }
            retained -= oldest.duration;
            self.drop_oldest();
        }
    }

    /// Renditions give up the same segments, or a player would find audio where there is no picture. So the
    /// one that meets the bound raises a floor for all, and the others follow at their next part.
    ///
    /// Takes segments out of the playlist if it must: a publisher above the announced rate must not take the
    /// memory of other streams.
    fn trim_by_bytes(&mut self) {
        let index = Arc::clone(&self.index);
        while self.segments.len() > SEGMENTS_KEPT_MIN {
            let Some(oldest) = self.segments.front() else { return };
            let msn = oldest.msn;
            if index.retained.over_bound() {
                index.retained.give_up(msn);
            }
            if !index.retained.given_up(msn) {
                return;
            }
            self.listed_from = self.listed_from.max(msn + 1);
            self.drop_oldest();
            index.metrics.segments_evicted.inc();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.segments.pop_front() {
            self.index.retained.remove(oldest.bytes);
        }
    }

    fn publish(&self, ended: bool) {
        let segments: Vec<_> = self.segments.iter().cloned().collect();
        let announced = self.index.announced().filter(|_| segments.iter().any(|segment| segment.complete));
        let playlist = announced.map(|announced| self.render(&announced, &segments, ended));
        let rendition = self.rendition();
        rendition.snapshot.store(Arc::new(Snapshot { segments, ended, playlist }));
        if rendition.header.derived.is_some() {
            self.index.review_offer();
        }
        rendition.waiters.ring();
    }

    fn render(&self, announced: &Announced, segments: &[Arc<Segment>], ended: bool) -> Version {
        let Rendition { header, siblings, .. } = self.rendition();
        let listed = segments.partition_point(|segment| segment.msn < self.listed_from);
        let playlist = MediaPlaylist {
            target_duration_s: announced.target_duration_s,
            part_target_ms: header.part_target_ms,
            part_hold_back_ms: self.index.part_hold_back_ms(),
            skip_boundary_ms: announced.skip_boundary_ms,
            timescale: header.codec.timescale(),
            segments: &segments[listed..],
            siblings,
            ended,
        };
        self.index.metrics.playlist_renders.inc();
        let (msn, part) =
            segments.last().map_or((0, 0), |newest| (newest.msn, newest.parts.len().saturating_sub(1)));
        let (epoch, state) = (self.index.epoch(), if ended { "ended" } else { "live" });
        Version::new(
            &playlist,
            format!("{}.{}.{msn}.{part}.{epoch}.{state}", self.index.session(), header.name),
        )
    }

    pub(crate) fn rendition(&self) -> &Rendition {
        &self.index.renditions[self.number]
    }

    fn timescale(&self) -> Timescale {
        self.rendition().header.codec.timescale()
    }
}
