//! What another node reads of a session: the index of all that can be fetched, then every part as it comes.
//!
//! A feed is a cursor per rendition over the snapshots; it is woken once per publication, by the task that wakes held
//! requests, and takes what it has not seen. The packager never waits for it. One that falls behind gets old parts
//! without their bytes, to be fetched if somebody wants them; one that falls out of the store is lost and starts again.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use media::SessionId;
use media::cmaf::Init;
use tokio::sync::watch;

use crate::index::{Announced, Announcement, StreamHeader, StreamIndex};
use crate::rendition::{Rendition, RenditionName};
use crate::segment::{Part, Position, Segment, StoredPart};

/// A part this far behind the newest is listed only. What is newer is what viewers who join begin with; and a child so
/// slow must not be sent what its viewers skip.
const LAG_MAX: Duration = Duration::from_secs(4);

/// What another node is told next. `rendition` counts in the header's order.
#[derive(Debug, Clone)]
pub enum Entry {
    /// First, and again when the announcement comes or is added to.
    Header {
        header: StreamHeader,
        announcement: Option<Announcement>,
    },
    /// The index begins: from scratch, or right where the reader said it was. Comes again when another publication has taken
    /// over: what was told before does not hold any more.
    Index {
        resumed: bool,
        /// Of the publication; see [`StreamHeader::epoch`].
        epoch: u32,
    },
    /// Before the first part that needs it.
    Init {
        rendition: usize,
        init: Arc<Init>,
    },
    Part {
        rendition: usize,
        part: FedPart,
    },
    IndexComplete,
    /// The rendition is over, and its last part was told before.
    RenditionEnd {
        rendition: usize,
    },
    /// The session is over.
    End,
    /// The reader was so slow that what it needs next is gone. Nothing follows.
    Lost,
}

#[derive(Debug, Clone)]
pub struct FedPart {
    /// Without a body, unless it is carried.
    pub part: Part,
    pub carried: bool,
    /// Length of the body, carried or not.
    pub bytes: u64,
    /// Oldest segment that is kept here.
    pub oldest_msn: u64,
    /// The rendition ends with it.
    pub ends: bool,
}

/// One reader of a session.
#[derive(Debug)]
pub struct Feed {
    index: Arc<StreamIndex>,
    publications: watch::Receiver<u64>,
    cursors: Vec<Cursor>,
    ready: VecDeque<Entry>,
    /// What the header that was told last said; `None` before the first.
    told: Option<Option<Arc<Announced>>>,
    indexed: bool,
    /// Of [`StreamIndex::rewrites`], that the cursors are of.
    rewrites: u64,
    over: bool,
    progress: Arc<Progress>,
    /// `None` if nothing is wanted for this reader.
    _interest: Option<Interest>,
}

/// Where a reader goes on.
#[derive(Debug, Clone, Copy)]
pub struct ResumeFrom<'a> {
    pub session: SessionId,
    /// The highest that it has seen; zero if it does not say.
    pub epoch: u32,
    /// The next part of each rendition that it wants.
    pub places: &'a [(RenditionName, Position)],
}

impl ResumeFrom<'_> {
    /// Places in another publication mean nothing here.
    fn is_of(&self, index: &StreamIndex) -> bool {
        self.session == index.session() && (self.epoch == 0 || self.epoch == index.epoch())
    }
}

/// Of a reader behind which somebody watches: what is made on demand is made for it.
struct Interest {
    index: Arc<StreamIndex>,
    holds: Vec<Box<dyn Send + Sync>>,
}

impl Interest {
    fn new(index: Arc<StreamIndex>) -> Self {
        index.followers.fetch_add(1, Ordering::SeqCst);
        let wanted = index.renditions.iter().filter_map(Rendition::on_demand);
        let holds = wanted.map(|demand| demand.hold()).collect();
        Self { index, holds }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.index.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {} renditions made on demand", self.holds.len())
    }
}

/// How far a reader is behind, for whoever watches over it.
#[derive(Debug)]
pub struct Progress {
    index: Arc<StreamIndex>,
    /// Of the first rendition.
    next: Mutex<Option<Position>>,
}

#[derive(Debug, Default)]
struct Cursor {
    /// The next part to tell; `None` for whatever is oldest.
    next: Option<Position>,
    init: Option<String>,
    ended: bool,
}

/// Where a part stands among those of all renditions.
type Order = (u64, u32, usize);

impl Feed {
    /// Of a reader behind which somebody watches. `from`: if it was here before, or at another node.
    pub fn new(index: Arc<StreamIndex>, from: Option<ResumeFrom<'_>>) -> Self {
        let interest = Interest::new(index.clone());
        Self::open(index, from, Some(interest))
    }

    /// As [`Feed::new`], of a reader that only has to be ready for others. Whether somebody watches there,
    /// [`StreamIndex::touch`] is told.
    pub fn unwatched(index: Arc<StreamIndex>, from: Option<ResumeFrom<'_>>) -> Self {
        Self::open(index, from, None)
    }

    fn open(index: Arc<StreamIndex>, from: Option<ResumeFrom<'_>>, interest: Option<Interest>) -> Self {
        let publications = index.publications.subscribe();
        let cursors = index.renditions.iter().map(|_| Cursor::default()).collect();
        let progress = Arc::new(Progress { index: index.clone(), next: Mutex::default() });
        let rewrites = index.rewrites();
        let mut feed = Self {
            index,
            publications,
            cursors,
            ready: VecDeque::new(),
            told: None,
            indexed: false,
            rewrites,
            over: false,
            progress,
            _interest: interest,
        };
        feed.tell_header();
        let resumed = from.is_some_and(|from| feed.resume(from));
        feed.tell_index(resumed);
        feed
    }

    /// Waits until `index` has come as far as the reader has elsewhere: of two nodes that follow a third one is always ahead,
    /// and no reader shall see a playlist grow shorter. For a rendition that is made here nobody waits: it may be made no more.
    pub async fn caught_up(index: &StreamIndex, from: ResumeFrom<'_>) {
        if !from.is_of(index) {
            return;
        }
        let mut publications = index.publications.subscribe();
        let is_behind = || {
            let own = index.renditions.iter().filter(|rendition| rendition.header.derived.is_none());
            let mut both = own.filter_map(|rendition| {
                let (_, place) = from.places.iter().find(|(name, _)| *name == rendition.header.name)?;
                Some((rendition, *place))
            });
            !index.is_closed() && both.any(|(rendition, place)| is_ahead(rendition, place))
        };
        loop {
            publications.borrow_and_update();
            if !is_behind() || publications.changed().await.is_err() {
                return;
            }
        }
    }

    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// The next entry, if there is one without waiting for a publication.
    pub fn ready(&mut self) -> Option<Entry> {
        self.ready.pop_front()
    }

    /// The next entry; `None` after the last. Without [`Entry::End`] before it, the session only left this node. May be
    /// dropped at any time.
    pub async fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(entry);
            }
            if self.over {
                return None;
            }
            // Before looking: what is published after the look ends the wait below.
            self.publications.borrow_and_update();
            self.look();
            // The sender lives in the index that this feed holds.
            if self.ready.is_empty() && !self.over && self.publications.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Sets the cursors, if what the reader wants next is here or just coming.
    fn resume(&mut self, from: ResumeFrom<'_>) -> bool {
        if !from.is_of(&self.index) {
            return false;
        }
        for (cursor, rendition) in self.cursors.iter_mut().zip(&self.index.renditions) {
            let place = from.places.iter().find(|(name, _)| *name == rendition.header.name);
            match place {
                // It had nothing of it.
                None => {}
                Some((_, position)) if is_reachable(rendition, *position) => cursor.next = Some(*position),
                Some(_) => {
                    self.cursors.iter_mut().for_each(|cursor| *cursor = Cursor::default());
                    return false;
                }
            }
        }
        true
    }

    /// Takes what came since the last look.
    fn look(&mut self) {
        // Before the snapshots: what it closes over is then seen below.
        let closed = self.index.is_closed();
        let rewrites = self.index.rewrites();
        // Whoever rewrites it wakes us again.
        if rewrites % 2 == 1 && !closed {
            return;
        }
        if rewrites != self.rewrites {
            self.begin_anew(rewrites);
        }
        self.tell_header();
        let mut told: Vec<(Order, Entry)> = Vec::new();
        let has_all = (0..self.cursors.len()).all(|number| self.look_at(number, &mut told));
        // Some of it is of the one publication and some of the other.
        if self.index.rewrites() != rewrites {
            return;
        }
        if !has_all {
            self.over = true;
            self.ready.push_back(Entry::Lost);
            return;
        }
        told.sort_by_key(|(order, _)| *order);
        self.ready.extend(told.into_iter().map(|(_, entry)| entry));
        if !std::mem::replace(&mut self.indexed, true) {
            self.ready.push_back(Entry::IndexComplete);
        }
        if self.cursors.iter().all(|cursor| cursor.ended) {
            self.ready.push_back(Entry::End);
            self.over = true;
        } else if closed {
            self.over = true;
        }
    }

    fn begin_anew(&mut self, rewrites: u64) {
        self.rewrites = rewrites;
        self.cursors.iter_mut().for_each(|cursor| *cursor = Cursor::default());
        (self.told, self.indexed) = (None, false);
        self.tell_header();
        self.tell_index(false);
    }

    fn tell_index(&mut self, resumed: bool) {
        self.ready.push_back(Entry::Index { resumed, epoch: self.index.epoch() });
    }

    fn tell_header(&mut self) {
        let announced = self.index.announced();
        let is_told = self.told.as_ref().is_some_and(|told| match (told, &announced) {
            (Some(told), Some(announced)) => Arc::ptr_eq(told, announced),
            (told, announced) => told.is_none() && announced.is_none(),
        });
        if !is_told {
            let (header, announcement) = (self.index.header().clone(), self.index.announcement());
            self.ready.push_back(Entry::Header { header, announcement });
            self.told = Some(announced);
        }
    }

    /// `false` if what this cursor needs next is gone.
    fn look_at(&mut self, number: usize, told: &mut Vec<(Order, Entry)>) -> bool {
        let cursor = &mut self.cursors[number];
        let rendition = &self.index.renditions[number];
        let snapshot = rendition.snapshot();
        let segments = snapshot.segments();
        let ends_now = !std::mem::replace(&mut cursor.ended, snapshot.ended) && snapshot.ended;
        let end = ((u64::MAX, 0, number), Entry::RenditionEnd { rendition: number });
        let (Some(oldest), Some(edge)) = (segments.first(), snapshot.edge()) else {
            told.extend(ends_now.then_some(end));
            return true;
        };
        let next = cursor.next.unwrap_or(Position { msn: oldest.msn, part: 0 });
        if next.msn < oldest.msn {
            return false;
        }
        let timescale = rendition.header.codec.timescale();
        let mut behind = span(rendition, segments, next);
        let mut is_end_told = false;
        for (segment, position, part) in newer(segments, next) {
            behind = behind.saturating_sub(timescale.duration(part.duration.into()));
            let order = (position.msn, position.part, number);
            let init = &segment.start.init;
            if cursor.init.as_deref() != Some(init.hash.as_str()) {
                cursor.init = Some(init.hash.clone());
                told.push((order, Entry::Init { rendition: number, init: init.clone() }));
            }
            let ends = snapshot.ended && position == edge.last();
            let part = fed(segment, part, position, behind <= LAG_MAX, ends, oldest.msn);
            told.push((order, Entry::Part { rendition: number, part }));
            is_end_told |= ends;
        }
        // What cannot follow any more is never waited for: past a complete segment comes the next one.
        cursor.next = Some(edge.next().unwrap_or_else(|| edge.after()));
        if number == 0 {
            *self.progress.next.lock().unwrap_or_else(PoisonError::into_inner) = cursor.next;
        }
        told.extend((ends_now && !is_end_told).then_some(end));
        true
    }
}

impl Progress {
    /// Media of the first rendition that the reader has not taken yet.
    pub fn lag(&self) -> Duration {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(next), Some(rendition)) = (next, self.index.renditions.first()) else {
            return Duration::ZERO;
        };
        span(rendition, rendition.snapshot().segments(), next)
    }
}

/// Media from `from` on.
fn span(rendition: &Rendition, segments: &[Arc<Segment>], from: Position) -> Duration {
    let timescale = rendition.header.codec.timescale();
    newer(segments, from).map(|(.., part)| timescale.duration(part.duration.into())).sum()
}

/// Parts from `from` on, each with its segment.
fn newer(
    segments: &[Arc<Segment>],
    from: Position,
) -> impl Iterator<Item = (&Segment, Position, &StoredPart)> {
    let start = segments.partition_point(|segment| segment.msn < from.msn);
    segments[start..].iter().flat_map(move |segment| {
        let skip = if segment.msn == from.msn { from.part as usize } else { 0 };
        let parts = (0_u32..).zip(&segment.parts).skip(skip);
        parts.map(move |(part, stored)| (&**segment, Position { msn: segment.msn, part }, &**stored))
    })
}

/// Whether a reader that has everything before `position` can go on there. Not behind a gap: a process that was restarted
/// lists as gaps what its readers may have.
fn is_reachable(rendition: &Rendition, position: Position) -> bool {
    let snapshot = rendition.snapshot();
    let before = match position.part.checked_sub(1) {
        Some(part) => snapshot.segment(position.msn).and_then(|segment| segment.parts.get(part as usize)),
        None => position.msn.checked_sub(1).and_then(|msn| snapshot.segment(msn)?.parts.last()),
    };
    before.is_some_and(|part| !part.gap)
}

/// Whether a part comes before `place` that is not here yet.
fn is_ahead(rendition: &Rendition, place: Position) -> bool {
    let snapshot = rendition.snapshot();
    if snapshot.ended {
        return false;
    }
    snapshot.edge().is_none_or(|edge| place > edge.next().unwrap_or_else(|| edge.after()))
}

fn fed(
    segment: &Segment,
    part: &StoredPart,
    position: Position,
    carried: bool,
    ends: bool,
    oldest_msn: u64,
) -> FedPart {
    let body = part.body.get().filter(|_| carried).cloned();
    FedPart {
        carried: body.is_some(),
        bytes: part.bytes,
        oldest_msn,
        ends,
        part: Part {
            msn: position.msn,
            part: position.part,
            duration: part.duration,
            independent: part.independent,
            gap: part.gap,
            last: part.last,
            segment: segment.start.clone(),
            body: body.unwrap_or_default(),
        },
    }
}
