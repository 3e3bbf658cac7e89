//! A copy of a stream's log, of the tracks that WebRTC can show: the same session, tracks, and frames under the same numbers,
//! in this node's registry. Who reads it sees no difference.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use media::{StreamId, TrackId};
use prometheus_client::metrics::counter::Counter;
use relay::wire::{Condition, Message, UnitPlace, UnitResume, WEBRTC};
use relay::{
    AppendError, Facts, Frame, Kind, StreamRecord, StreamRegistry, StreamWriter, Taken, TrackWriter,
};

use super::task::{Follow, Step};

/// Viewers stand still for so long while the upstream is lost; then they are told that it is over, and may try elsewhere. An
/// upstream that restarts goes on with sessions that are not older.
const LOST_MAX: Duration = Duration::from_secs(60);

/// A node that has just taken a stream over, or has just begun, does not know it yet. The end of one is told, and not found out like
/// this.
const ABSENT_MAX: Duration = Duration::from_secs(2);

/// Why messages make no log. The other node is broken; the stream ends here, and is read anew.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("a subscription to access units has something else")]
    Foreign,
    #[error("an entry of the log came before the record")]
    TooEarly,
    #[error("there is no track {}", .0.0)]
    Track(TrackId),
    #[error("an entry of track {} came after its end", .0.0)]
    Ended(TrackId),
    #[error("the session has other tracks all of a sudden")]
    Tracks,
    #[error(transparent)]
    Taken(#[from] Taken),
    #[error(transparent)]
    Append(#[from] AppendError),
}

pub(super) struct LogCopy {
    id: StreamId,
    streams: StreamRegistry,
    received: Counter,
    open: Option<Open>,
}

struct Open {
    writer: StreamWriter,
    record: StreamRecord,
    tracks: HashMap<TrackId, Lane>,
    /// It has a hole, or its node contradicts itself: nothing can be appended any more. Viewers stand still until the session
    /// is read anew.
    is_broken: bool,
}

struct Lane {
    /// `None` once it has ended.
    writer: Option<TrackWriter>,
    /// Group and number of the first frame that is not here; `None` before the first.
    next: Option<(u32, u32)>,
}

impl LogCopy {
    pub(super) fn new(id: StreamId, streams: StreamRegistry, received: Counter) -> Self {
        Self { id, streams, received, open: None }
    }

    fn heard(&mut self, message: Message) -> Result<Step, LogError> {
        match message {
            Message::Stream(record) => self.record(*record),
            Message::Condition(condition) => {
                self.open.as_ref().ok_or(LogError::TooEarly)?.condition(condition);
                Ok(Step::More)
            }
            Message::Frame(frame) => {
                self.received.inc_by((frame.kind() == Kind::Unit).into());
                let open = self.open.as_mut().filter(|open| !open.is_broken);
                open.ok_or(LogError::TooEarly)?.push(frame).map(|()| Step::More)
            }
            Message::Clock { .. } => Ok(Step::More),
            Message::End => {
                self.open = None;
                Ok(Step::Over)
            }
            _ => Err(LogError::Foreign),
        }
    }

    fn record(&mut self, record: StreamRecord) -> Result<Step, LogError> {
        let here = self.open.as_ref().filter(|open| open.record.session == record.session);
        if here.is_some_and(|open| record.epoch < open.record.epoch) {
            return Ok(Step::Behind);
        }
        let before = match self.open.take() {
            Some(mut open) if open.record.session == record.session => {
                open.amend(record.clone())?;
                if !open.is_broken {
                    self.open = Some(open);
                    return Ok(Step::Ready);
                }
                Some(open)
            }
            // What was here has ended meanwhile, and its viewers are told. Its name is free then.
            _ => None,
        };
        let mut writer = match &before {
            // Its viewers go over to the new one, which is found where it was.
            Some(before) => before.writer.anew(),
            None => self.streams.open(self.id.clone(), record.session)?,
        };
        let mut tracks = writer.open(record.clone());
        tracks.extend(writer.claim());
        let tracks =
            tracks.into_iter().map(|writer| (writer.record().id, Lane { writer: Some(writer), next: None }));
        self.open = Some(Open { writer, record, tracks: tracks.collect(), is_broken: false });
        Ok(Step::Ready)
    }
}

impl Follow for LogCopy {
    type Error = LogError;

    fn path(&self) -> String {
        format!("{WEBRTC}/{}", self.id)
    }

    fn resume(&self) -> Option<impl std::fmt::Display + Send + Sync> {
        let open = self.open.as_ref().filter(|open| !open.is_broken)?;
        let places = open.tracks.iter().filter_map(|(track, lane)| {
            let (group, frame) = lane.next?;
            Some(UnitPlace { track: *track, group, frame })
        });
        let places: Vec<_> = places.collect();
        let resume = UnitResume { session: open.record.session, epoch: open.record.epoch, places };
        (!resume.places.is_empty()).then_some(resume)
    }

    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn apply(&mut self, message: Message) -> Result<Step, LogError> {
        let applied = self.heard(message);
        if let (Err(_), Some(open)) = (&applied, &mut self.open) {
            open.is_broken = true;
        }
        applied
    }

    fn lost(&mut self) {
        if let Some(open) = &self.open {
            open.lost(SystemTime::now());
        }
    }

    /// Viewers by WebRTC do not go away by themselves.
    fn is_given_up(&self, lost_for: Duration, is_absent: bool) -> bool {
        is_absent && lost_for > ABSENT_MAX || lost_for > LOST_MAX
    }

    fn let_go(&mut self) {
        self.open = None;
    }
}

impl Open {
    fn amend(&mut self, record: StreamRecord) -> Result<(), LogError> {
        let ids = |record: &StreamRecord| record.tracks.iter().map(|track| track.id).collect::<Vec<_>>();
        if ids(&record) != ids(&self.record) {
            return Err(LogError::Tracks);
        }
        if let Some(live) = record.live.clone().filter(|live| self.record.live.as_ref() != Some(live)) {
            self.writer.go_live(live);
        }
        self.record = record;
        Ok(())
    }

    fn push(&mut self, frame: Frame) -> Result<(), LogError> {
        let id = frame.track();
        let lane = self.tracks.get_mut(&id).ok_or(LogError::Track(id))?;
        let writer = lane.writer.as_mut().ok_or(LogError::Ended(id))?;
        let next = (frame.group(), frame.index().saturating_add(1));
        if frame.kind() == Kind::End {
            // Writes an entry like this one.
            lane.writer = None;
        } else {
            writer.push_copy(frame)?;
        }
        lane.next = Some(next);
        Ok(())
    }

    fn condition(&self, condition: Condition) {
        let Condition { keyframe_interval_s, interrupted_since_ms } = condition;
        self.writer.set_facts(Facts { keyframe_interval_s, interrupted_since_ms, ..Facts::default() });
    }

    /// For viewers it is all the same who is gone. The upstream tells the condition first when it is back.
    fn lost(&self, wall: SystemTime) {
        let facts = self.writer.facts();
        let now_ms = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let since = facts.interrupted_since_ms.or_else(|| i64::try_from(now_ms).ok());
        self.writer.set_facts(Facts { interrupted_since_ms: since, ..Facts::clone(&facts) });
    }
}

#[cfg(test)]
mod tests;
