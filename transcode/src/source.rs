//! What a child is given of its source's log: units, and which of them a key is forced at.

use std::sync::Arc;

use media::CodecConfig;
use pipe::{Codec, SourceUnit, ToEncoder};
use relay::{Boundary, Cursor, Frame, FrameError, Kind, Read, Track, TrackRecord};

/// In a segment longer than this, keys are forced at parts too, so far apart: whoever joins then starts near the edge.
const KEY_INTERVAL_S: i64 = 2;

/// Of a log of no more groups than this everything is made into rungs.
const NEW_GROUPS_MAX: u32 = 3;

/// Reads the log of one track from its opening to its end, and tells any child what it has missed.
pub(crate) struct Source {
    track: Arc<Track>,
    cursor: Cursor,
    forcing: Forcing,
    /// In force at the cursor, and since where.
    config: (Cursor, Codec),
    /// In force before that.
    config_before: Codec,
    frames: Vec<Frame>,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Event {
    /// For the child, if there is one.
    Message(ToEncoder),
    /// For the rungs.
    Boundary { group: u32, boundary: Boundary },
}

/// Why a source cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("fell out of the ring at {0:?}")]
    Lost(Cursor),
    #[error("bad log entry: {0}")]
    Frame(#[from] FrameError),
}

/// Chooses the units that rungs begin with.
#[derive(Debug, Clone, Copy, Default)]
struct Forcing {
    is_due: bool,
    key_last: Option<i64>,
    /// The first boundary from then on makes a key due, whatever was before.
    due_from: Option<i64>,
}

impl Source {
    /// From the beginning of a log that was just opened; of one that is older, from its newest group.
    pub(crate) fn new(track: Arc<Track>) -> Self {
        let (oldest, newest) = (track.oldest(), group_of(track.start()));
        let is_new = newest.group - oldest.group <= NEW_GROUPS_MAX;
        let cursor = if is_new { oldest } else { newest };
        let config = Codec::from(&track.record().codec);
        Self {
            track,
            cursor,
            forcing: Forcing::default(),
            config: (cursor, config.clone()),
            config_before: config,
            frames: Vec::new(),
        }
    }

    pub(crate) fn track(&self) -> Arc<Track> {
        self.track.clone()
    }

    /// Takes what the log has. `false` when that was the end.
    ///
    /// # Errors
    /// [`SourceError`]: there is no way on.
    pub(crate) fn read(&mut self, out: &mut Vec<Event>) -> Result<bool, SourceError> {
        loop {
            self.frames.clear();
            let read = self.track.read(&mut self.cursor, false, &mut self.frames);
            if read == Read::Lost {
                return Err(SourceError::Lost(self.cursor));
            }
            for frame in &self.frames {
                if frame.kind() == Kind::Config {
                    let at = Cursor { group: frame.group(), frame: frame.index(), ..self.cursor };
                    let codec = Codec::from(&frame.to_config()?);
                    self.config_before = std::mem::replace(&mut self.config, (at, codec)).1;
                }
                if frame.kind() == Kind::Boundary {
                    out.push(Event::Boundary { group: frame.group(), boundary: frame.to_boundary()? });
                }
                out.extend(self.forcing.message(frame, self.track.record())?.map(Event::Message));
            }
            match read {
                Read::Ended => return Ok(false),
                Read::Idle => return Ok(true),
                _ => {}
            }
        }
    }

    /// What a child that begins now has missed of the newest group, and how its first unit is coded. `next`: the group and
    /// the start of the part that it is to begin with, if that is known: then from that group on, with a key there.
    ///
    /// # Errors
    /// [`FrameError`]: the log is broken.
    pub(crate) fn catch_up(
        &mut self,
        next: Option<(u32, i64)>,
    ) -> Result<(Codec, Vec<ToEncoder>), FrameError> {
        let mut cursor = group_of(self.track.start());
        cursor.group = next.map_or(cursor.group, |(group, _)| group.min(cursor.group));
        // What was not read yet is read by the next to read.
        self.forcing.due_from = next.map(|(_, start)| start);
        let (since, newest) = &self.config;
        let codec = if *since <= cursor { newest } else { &self.config_before };
        let mut forcing = Forcing { due_from: self.forcing.due_from, ..Forcing::default() };
        let (mut messages, mut frames) = (Vec::new(), Vec::new());
        while cursor < self.cursor
            && let Read::Frames = self.track.read(&mut cursor, false, &mut frames)
        {
            let read =
                |frame: &Frame| Cursor { group: frame.group(), frame: frame.index(), ..cursor } < self.cursor;
            for frame in frames.drain(..).filter(read) {
                messages.extend(forcing.message(&frame, self.track.record())?);
            }
        }
        self.forcing.due_from = forcing.due_from;
        Ok((codec.clone(), messages))
    }
}

/// The beginning of the group that it stands in.
fn group_of(cursor: Cursor) -> Cursor {
    Cursor { frame: 0, ..cursor }
}

impl Forcing {
    fn message(&mut self, frame: &Frame, track: &TrackRecord) -> Result<Option<ToEncoder>, FrameError> {
        Ok(match frame.kind() {
            Kind::Boundary => {
                let boundary = frame.to_boundary()?;
                let interval = KEY_INTERVAL_S * i64::from(track.codec.timescale().hertz());
                let is_far = |last: i64| boundary.start - last >= interval;
                let begins = self.due_from.take_if(|from| boundary.start >= *from).is_some();
                self.is_due |= begins || boundary.part == 0 || self.key_last.is_some_and(is_far);
                None
            }
            Kind::Config => {
                let config: CodecConfig = frame.to_config()?;
                Some(ToEncoder::Config(Codec::from(&config)))
            }
            Kind::Unit => {
                let unit = frame.to_unit()?;
                let force = std::mem::take(&mut self.is_due);
                if force {
                    self.key_last = Some(unit.dts);
                }
                Some(ToEncoder::Unit(SourceUnit {
                    pts: unit.pts,
                    // Decoders take a picture that is shown before it is decoded for a mistake.
                    dts: unit.dts - i64::from(track.reorder_delay),
                    duration: unit.duration,
                    key: unit.key,
                    force,
                    data: unit.data,
                }))
            }
            Kind::End => None,
        })
    }
}
