//! What the upstream tells of one stream, put into this node's catalog: the same sessions, parts and announcements.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hls::{
    Announcement, Bandwidth, Catalog, HeldByOrigin, Part, Position, PushError, RenditionHeader,
    RenditionName, SegmentStart, State, StreamHeader, StreamWriter,
};
use media::cmaf::Init;
use media::{SessionId, StreamId};
use prometheus_client::metrics::counter::Counter;
use relay::wire::{self, EPOCH, Message, Place, Record, Resume, UNWATCHED};

use super::Purpose;
use super::backfill::Bodies;
use super::task::{Follow, Step};
use super::upstreams::Source;

/// Init segments of one rendition that are remembered. Each change of the encoder's settings makes one, and a window
/// holds few.
const INITS_MAX: usize = 32;

/// Parts of one index. Two windows of 84 s in parts of 200 ms are 840 for each rendition.
const INDEX_PARTS_MAX: usize = 100_000;

/// Why messages make no stream. The other node is broken; the subscription ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    #[error("a subscription to parts has something else")]
    Foreign,
    #[error("{0} came too early")]
    TooEarly(&'static str),
    #[error("rendition {0} was never told")]
    Rendition(u16),
    #[error("a rendition is called {0:?}")]
    Name(String),
    #[error("an init segment was never told")]
    Init,
    #[error("an index of more than {INDEX_PARTS_MAX} parts")]
    TooLong,
    #[error("a part does not fit: {0}")]
    Part(#[from] PushError),
}

pub(super) struct Mirror {
    source: Source,
    catalog: Catalog,
    purpose: Purpose,
    bodies: Counter,
    record: Option<Record>,
    tracks: Vec<Track>,
    /// While it comes.
    index: Option<Index>,
    open: Option<Open>,
}

struct Track {
    name: RenditionName,
    inits: VecDeque<Arc<Init>>,
    /// The next part that is not here.
    next: Option<Position>,
}

struct Index {
    epoch: u32,
    parts: Vec<Listed>,
}

/// A part of the index.
struct Listed {
    track: usize,
    part: Part,
    bytes: u64,
    ends: bool,
    next: Position,
}

struct Open {
    session: SessionId,
    writer: StreamWriter,
}

impl Open {
    fn epoch(&self) -> u32 {
        self.writer.index().epoch()
    }
}

impl Mirror {
    pub(super) fn new(source: Source, catalog: Catalog, purpose: Purpose, bodies: Counter) -> Self {
        Self { source, catalog, purpose, bodies, record: None, tracks: Vec::new(), index: None, open: None }
    }

    fn id(&self) -> &StreamId {
        self.source.id()
    }

    fn record(&mut self, record: Record) -> Result<Step, MirrorError> {
        let is_new = self.record.as_ref().is_none_or(|known| known.session != record.session);
        if is_new {
            let names = record.renditions.iter().map(|rendition| {
                let name = rendition.name.parse().map_err(|_| MirrorError::Name(rendition.name.clone()))?;
                Ok(Track { name, inits: VecDeque::new(), next: None })
            });
            self.tracks = names.collect::<Result<_, MirrorError>>()?;
        }
        self.record = Some(record);
        let announcement = self.announcement();
        let session = self.session()?;
        if let (Some(open), Some(announcement)) = (&mut self.open, announcement)
            && open.session == session
        {
            open.writer.announce(announcement);
        }
        Ok(Step::More)
    }

    fn begin_index(&mut self, resumed: bool, told: u32) -> Result<Step, MirrorError> {
        let session = self.session()?;
        let here = self.catalog.get(self.id()).filter(|index| index.session() == session);
        let known = here.as_ref().map_or(0, |index| index.epoch());
        // A node of an earlier release does not say it.
        let epoch = if told == 0 { known } else { told };
        let is_open = self.open.as_ref().is_some_and(|open| open.session == session);
        if epoch < known {
            return Ok(Step::Behind);
        }
        // An ended session that is here whole needs nothing more.
        if !is_open && epoch == known && here.is_some_and(|index| index.state() == State::Ended) {
            return Ok(Step::Over);
        }
        match resumed {
            true if is_open && epoch == known => self.index = None,
            true => return Err(MirrorError::TooEarly("a resumed index")),
            false => self.index = Some(Index { epoch, parts: Vec::new() }),
        }
        Ok(Step::More)
    }

    fn part(&mut self, track: u16, part: wire::Part) -> Result<Step, MirrorError> {
        let number = usize::from(track);
        let lane = self.track(track)?;
        let hash = format!("{:016x}", part.init);
        let init = lane.inits.iter().rev().find(|init| init.hash == hash).ok_or(MirrorError::Init)?.clone();
        let name = lane.name.clone();
        let next = match part.last_in_segment {
            true => Position { msn: part.msn.saturating_add(1), part: 0 },
            false => Position { msn: part.msn, part: part.part.saturating_add(1) },
        };
        let (bytes, ends, oldest_msn) = (u64::from(part.bytes), part.last_of_track, part.oldest_msn);
        let part = Part {
            msn: part.msn,
            part: part.part,
            duration: part.duration,
            independent: part.independent,
            gap: part.gap,
            last: part.last_in_segment,
            segment: SegmentStart {
                program_date_time_ms: part.program_date_time_ms,
                discontinuity_sequence: part.discontinuity_sequence,
                init,
            },
            body: part.body.unwrap_or_default(),
        };
        match &mut self.index {
            Some(index) if index.parts.len() >= INDEX_PARTS_MAX => return Err(MirrorError::TooLong),
            Some(index) => index.parts.push(Listed { track: number, part, bytes, ends, next }),
            None => {
                let rendition = self.rendition(&name)?;
                // Before the part, so that the playlist with it is the one that the other node renders.
                rendition.forget_before(oldest_msn);
                match ends {
                    true => rendition.push_last(part)?,
                    false => rendition.push_listed(part, bytes)?,
                }
                self.track(track)?.next = Some(next);
            }
        }
        Ok(Step::More)
    }

    /// Everything is known: from here on the stream can be found.
    fn complete_index(&mut self) -> Result<Step, MirrorError> {
        let session = self.session()?;
        // Without an index it goes on where it was.
        let Some(Index { epoch, parts }) = self.index.take() else { return Ok(Step::Ready) };
        let announcement = self.announcement();
        let names: Vec<_> = self.tracks.iter().map(|track| track.name.clone()).collect();
        self.tracks.iter_mut().for_each(|track| track.next = None);
        for Listed { track, next, .. } in &parts {
            if let Some(track) = self.tracks.get_mut(*track) {
                track.next = Some(*next);
            }
        }
        if let Some(mut open) = self.open.take_if(|open| open.session == session) {
            let is_other = epoch > open.epoch();
            if !is_other {
                let filled = fill(&mut open.writer, announcement, &names, parts);
                self.open = Some(open);
                return filled.map(|()| Step::Ready);
            }
            if !open.writer.has_ended_rendition() {
                let filled = open.writer.supersede(epoch, |writer| fill(writer, announcement, &names, parts));
                self.open = Some(open);
                // Some of it is of the one and some of the other.
                return filled.map(|()| Step::Ready).inspect_err(|_| self.let_go());
            }
            open.writer.abandon();
        }
        let bodies = Bodies { source: self.source.clone(), session, fetched: self.bodies.clone() };
        let header = self.header(epoch)?;
        let (writer, filled) = self
            .catalog
            .open_remote(header, Arc::new(bodies), |writer| fill(writer, announcement, &names, parts));
        // Its end was not told, so none is claimed; what is here of it stays for a window.
        if let Some(before) = self.open.replace(Open { session, writer }) {
            before.writer.abandon();
        }
        filled.map(|()| Step::Ready)
    }

    fn session(&self) -> Result<SessionId, MirrorError> {
        Ok(self.record.as_ref().ok_or(MirrorError::TooEarly("the index"))?.session)
    }

    fn header(&self, epoch: u32) -> Result<StreamHeader, MirrorError> {
        let record = self.record.as_ref().ok_or(MirrorError::TooEarly("the index"))?;
        let renditions =
            self.tracks.iter().zip(&record.renditions).map(|(track, rendition)| RenditionHeader {
                name: track.name.clone(),
                codec: rendition.codec.clone(),
                part_target_ms: rendition.part_target_ms,
                derived: rendition.derived.map(|derived| hls::Derived {
                    every: derived.every,
                    on_demand: derived.on_demand.then(|| Arc::new(HeldByOrigin) as _),
                }),
            });
        Ok(StreamHeader {
            id: self.id().clone(),
            session: record.session,
            epoch,
            part_hold_back_ms: record.part_hold_back_ms,
            // The origin bounds its store, and this one follows it: see `forget_before`.
            retain_bytes_max: u64::MAX,
            renditions: renditions.collect(),
        })
    }

    fn announcement(&self) -> Option<Announcement> {
        let record = self.record.as_ref()?;
        let live = record.live?;
        let bandwidths = self.tracks.iter().zip(&record.renditions).map(|(track, rendition)| {
            (track.name.clone(), Bandwidth { peak: rendition.peak, average: rendition.average })
        });
        Some(Announcement {
            target_duration_s: live.target_duration_s,
            window_ms: live.window_ms,
            frame_rate: live.frame_rate,
            bandwidths: bandwidths.collect(),
            captions: live.captions,
        })
    }

    fn track(&mut self, track: u16) -> Result<&mut Track, MirrorError> {
        self.tracks.get_mut(usize::from(track)).ok_or(MirrorError::Rendition(track))
    }

    fn rendition(&mut self, name: &RenditionName) -> Result<&mut hls::RenditionWriter, MirrorError> {
        let session = self.session()?;
        let open = self.open.as_mut().filter(|open| open.session == session);
        let open = open.ok_or(MirrorError::TooEarly("a live part"))?;
        open.writer.rendition(name).ok_or(MirrorError::TooEarly("a part of another session"))
    }
}

impl Follow for Mirror {
    type Error = MirrorError;

    fn path(&self) -> String {
        match self.purpose {
            Purpose::Viewers => self.id().to_string(),
            Purpose::Nodes => format!("{}?{UNWATCHED}", self.id()),
        }
    }

    fn resume(&self) -> Option<impl fmt::Display + Send + Sync> {
        let open = self.open.as_ref()?;
        let places = self.tracks.iter().map(|track| {
            let Position { msn, part } = track.next?;
            Some(Place { rendition: track.name.to_string(), msn, part })
        });
        let resume = Resume { session: open.session, places: places.collect::<Option<_>>()? };
        Some(format!("{resume}&{EPOCH}{}", open.epoch()))
    }

    fn target_duration_s(&self) -> Option<u32> {
        Some(self.record.as_ref()?.live?.target_duration_s)
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn apply(&mut self, message: Message) -> Result<Step, MirrorError> {
        match message {
            Message::Record(record) => self.record(record),
            Message::Index { resumed, epoch } => self.begin_index(resumed, epoch),
            Message::Init { track, init } => {
                let init = Init { bytes: init.bytes, hash: format!("{:016x}", init.hash) };
                let inits = &mut self.track(track)?.inits;
                inits.push_back(Arc::new(init));
                let excess = inits.len().saturating_sub(INITS_MAX);
                inits.drain(..excess);
                Ok(Step::More)
            }
            Message::Part { track, part } => self.part(track, part),
            Message::IndexComplete => self.complete_index(),
            Message::TrackEnd { track } => {
                let name = self.track(track)?.name.clone();
                self.rendition(&name)?.end();
                Ok(Step::More)
            }
            Message::Clock { .. } => Ok(Step::More),
            Message::End => {
                if let Some(open) = self.open.take() {
                    open.writer.end();
                }
                Ok(Step::Over)
            }
            Message::Stream(_) | Message::Condition(_) | Message::Frame(_) => Err(MirrorError::Foreign),
        }
    }

    /// What is here is served on, while it can be followed; half an index is none.
    fn lost(&mut self) {
        self.index = None;
    }

    fn is_given_up(&self, _: Duration, _: bool) -> bool {
        false
    }

    /// Leaves what is here, without an end, and so that nobody finds it any more.
    fn let_go(&mut self) {
        if let Some(open) = self.open.take() {
            self.catalog.forget(open.writer.index());
            open.writer.abandon();
        }
    }
}

fn fill(
    writer: &mut StreamWriter,
    announcement: Option<Announcement>,
    names: &[RenditionName],
    index: Vec<Listed>,
) -> Result<(), MirrorError> {
    if let Some(announcement) = announcement {
        writer.announce(announcement);
    }
    let mut parts: Vec<Vec<(Part, u64)>> = names.iter().map(|_| Vec::new()).collect();
    let mut ended = vec![false; names.len()];
    for Listed { track, part, bytes, ends, .. } in index {
        if let (Some(parts), Some(ended)) = (parts.get_mut(track), ended.get_mut(track)) {
            parts.push((part, bytes));
            *ended |= ends;
        }
    }
    for ((name, parts), ended) in names.iter().zip(parts).zip(ended) {
        let rendition = writer.rendition(name).ok_or(MirrorError::TooEarly("a part of another session"))?;
        rendition.restore(parts)?;
        if ended {
            rendition.end();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
