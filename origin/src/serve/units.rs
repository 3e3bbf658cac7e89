//! A child's subscription to access units: what lies in the log of the tracks that WebRTC can show, as it is.
//!
//! The log's own rules hold for a child as for a viewer: it begins at the newest keyframe, and one that is slow finds itself
//! at a newer one. Nothing is queued for it.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::stream;
use http_body::Frame as BodyFrame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use relay::server::Body;
use relay::wire::{Condition, Message, Slices, UnitResume};
use relay::{Cursor, Frame, Live, Read, Stream, StreamRecord, Track};
use tokio::sync::watch;
use tokio::time::Interval;
use tracing::debug;

use super::Keep;
use super::children::Child;
use super::telling::{bytes, clock, now_ms};

pub(super) struct Units {
    reading: Reading,
    stream: Arc<Stream>,
    record: watch::Receiver<Option<Arc<StreamRecord>>>,
    clock: Interval,
    child: Child,
    keep: Keep,
    has_ended: bool,
}

impl Units {
    /// Of a stream whose log is open.
    pub(super) fn new(stream: Arc<Stream>, from: Option<&UnitResume>, child: Child, keep: Keep) -> Self {
        let mut record = stream.record();
        record.mark_changed();
        let from = from.filter(|from| from.session == stream.session());
        if from.is_some() {
            child.resumed();
        }
        debug!("subscribed to access units");
        let reading = Reading::new(&stream, from);
        Self { reading, stream, record, clock: clock(), child, keep, has_ended: false }
    }

    pub(super) fn into_body(self) -> Body {
        let frames = stream::unfold(self, |mut units| async move {
            let told = units.next().await?;
            Some((Ok::<_, Infallible>(BodyFrame::data(told)), units))
        });
        UnsyncBoxBody::new(StreamBody::new(frames))
    }

    /// What is written next; `None` at the end. Only called when the connection has room, which is what makes a slow
    /// child lag in the log and nowhere else.
    async fn next(&mut self) -> Option<Slices> {
        let stream = self.stream.clone();
        loop {
            if self.has_ended {
                return None;
            }
            let appended = stream.appended();
            // Before the log is read: what was written before the end is told before it.
            let is_over = self.record.has_changed().is_err();
            {
                let record = self.record.borrow_and_update();
                // Also of a stream that is over: without it a child can do nothing with what comes behind it.
                if record.has_changed() {
                    self.reading.record(record.as_deref());
                }
            }
            let mut told = self.reading.read(&stream);
            if is_over && bytes(&told) == 0 {
                self.has_ended = true;
                // Not the end of the session: who is only cut off subscribes again, and is told the other.
                if stream.successor().is_some() || stream.has_moved() {
                    return None;
                }
                told = Message::End.encode();
            }
            if bytes(&told) > 0 {
                self.clock.reset();
                self.child.sent(bytes(&told));
                return Some(told);
            }
            tokio::select! {
                biased;
                () = appended => {}
                () = &mut self.keep => return None,
                _ = self.record.changed() => self.record.mark_changed(),
                _ = self.clock.tick() => {
                    let mut told = self.reading.condition(&stream);
                    told.append(Message::Clock { sent_ms: now_ms() }.encode());
                    self.child.sent(bytes(&told));
                    return Some(told);
                }
            }
        }
    }
}

/// How far a child is in each track, and what it knows. Waits for nothing.
struct Reading {
    lanes: Vec<Lane>,
    condition: Option<Condition>,
    /// To be told before anything else.
    pending: Slices,
    frames: Vec<Frame>,
}

struct Lane {
    track: Arc<Track>,
    cursor: Cursor,
    /// Group and number of the first frame that was not told.
    next: (u32, u32),
    /// What was told goes up to the cursor, so that nothing has to be said before what is there.
    follows: bool,
    has_ended: bool,
}

impl Reading {
    fn new(stream: &Stream, from: Option<&UnitResume>) -> Self {
        let tracks = stream.tracks().iter().filter(|track| track.record().suits_webrtc());
        let lanes = tracks.map(|track| {
            let id = track.record().id;
            let place = from.and_then(|from| from.places.iter().find(|place| place.track == id));
            Lane::new(track.clone(), place.map(|place| (place.group, place.frame)))
        });
        Self { lanes: lanes.collect(), condition: None, pending: Slices::default(), frames: Vec::new() }
    }

    /// The record, or what became of it.
    fn record(&mut self, record: Option<&StreamRecord>) {
        if let Some(record) = record {
            self.pending.append(Message::Stream(Box::new(shown(record))).encode());
        }
    }

    /// The publisher's condition, if it is another than was told.
    fn condition(&mut self, stream: &Stream) -> Slices {
        let facts = stream.facts();
        let condition = Condition {
            keyframe_interval_s: facts.keyframe_interval_s,
            interrupted_since_ms: facts.interrupted_since_ms,
        };
        match self.condition.replace(condition) {
            Some(told) if told == condition => Slices::default(),
            _ => Message::Condition(condition).encode(),
        }
    }

    /// All that is there, of each track up to the end of a group.
    fn read(&mut self, stream: &Stream) -> Slices {
        let mut told = std::mem::take(&mut self.pending);
        let condition = self.condition(stream);
        told.append(condition);
        for lane in &mut self.lanes {
            lane.read(&mut self.frames);
            self.frames.drain(..).for_each(|frame| told.push(frame.wire().clone()));
        }
        told
    }
}

impl Lane {
    fn new(track: Arc<Track>, next: Option<(u32, u32)>) -> Self {
        let start = track.start();
        let cursor = next.map_or(start, |(group, frame)| Cursor { group, frame, ..start });
        Self { track, cursor, next: next.unwrap_or_default(), follows: next.is_some(), has_ended: false }
    }

    fn read(&mut self, frames: &mut Vec<Frame>) {
        if self.has_ended {
            return;
        }
        let mut read = self.track.read(&mut self.cursor, true, frames);
        if read == Read::Lost {
            self.cursor = self.track.start();
            self.follows = false;
            read = self.track.read(&mut self.cursor, true, frames);
        }
        self.follows &= read != Read::Jumped;
        self.has_ended = read == Read::Ended;
        let Some(first) = frames.first() else { return };
        if !self.follows {
            let place = Cursor { group: first.group(), frame: first.index(), ..self.cursor };
            let preface = self.track.preface(place).into_iter();
            let is_new = |frame: &Frame| (frame.group(), frame.index()) >= self.next;
            frames.splice(..0, preface.filter(is_new));
            self.follows = true;
        }
        self.next = (self.cursor.group, self.cursor.frame);
    }
}

/// The record of the tracks that are told.
fn shown(record: &StreamRecord) -> StreamRecord {
    let is_shown = record.tracks.iter().map(|track| track.suits_webrtc());
    let live = record.live.as_ref().map(|live| {
        let bandwidth = live.bandwidth.iter().zip(is_shown).filter(|(_, is_shown)| *is_shown);
        Live { bandwidth: bandwidth.map(|(bandwidth, _)| *bandwidth).collect(), ..live.clone() }
    });
    let tracks = record.tracks.iter().filter(|track| track.suits_webrtc()).cloned();
    StreamRecord { tracks: tracks.collect(), live, ..record.clone() }
}

#[cfg(test)]
mod tests;
