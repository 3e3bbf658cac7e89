//! What a child is given of its source's log: units, and which of them a key is forced at.

use std::sync::Arc;
use std::time::Duration;

use media::CodecConfig;
use pipe::{Codec, SourceUnit, ToEncoder};
use relay::{Boundary, Cursor, Frame, FrameError, Kind, Read, Track, TrackRecord};

/// A rung this far behind its source has a gap there: its viewers' players have nothing left by then.
pub(crate) const LATE: Duration = Duration::from_secs(2);

/// In a segment longer than this, keys are forced at parts too, so far apart: whoever joins then starts near the edge.
const KEY_INTERVAL_S: i64 = 2;

/// A key that viewers ask for is so far behind the one before at least: each takes bits from the pictures behind it, of everybody who
/// watches. For the same reason there are no more of these than of others, [`KEY_INTERVAL_S`] apart. Not longer: it is a keyframe that
/// overruns a line that has become narrow, and whoever flees from it asks soon after.
const ASKED_SPACING_MS: i64 = 200;

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

/// What a child that begins now is given first.
#[derive(Debug)]
pub(crate) struct Missed {
    /// How the first unit is coded.
    pub(crate) codec: Codec,
    pub(crate) messages: Vec<ToEncoder>,
    /// How long they last.
    pub(crate) media: Duration,
}

/// Chooses the units that rungs begin with.
#[derive(Debug, Clone, Copy)]
struct Forcing {
    /// Boundaries before this are nothing to begin at.
    from: i64,
    is_due: bool,
    /// By a viewer who is to go over to a rung.
    is_asked: bool,
    key_last: Option<i64>,
    asked_last: Option<i64>,
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
            forcing: Forcing::from(i64::MIN),
            config: (cursor, config.clone()),
            config_before: config,
            frames: Vec::new(),
        }
    }

    /// A key at the next unit, or as soon as it may be.
    pub(crate) fn ask_for_key(&mut self) {
        self.forcing.is_asked = true;
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

    /// What a child that begins now has missed of the newest group. `next`: the group and the start of the part that it is
    /// to begin with, if that is known; then it is given that group, and encodes from there on.
    ///
    /// # Errors
    /// [`FrameError`]: the log is broken.
    pub(crate) fn catch_up(&mut self, next: Option<(u32, i64)>) -> Result<Missed, FrameError> {
        let mut cursor = group_of(self.track.start());
        cursor.group = next.map_or(cursor.group, |(group, _)| group.min(cursor.group));
        let (since, newest) = &self.config;
        let codec = if *since <= cursor { newest } else { &self.config_before }.clone();
        let (mut missed, mut frames) = (Vec::new(), Vec::new());
        while cursor < self.cursor
            && let Read::Frames = self.track.read(&mut cursor, false, &mut frames)
        {
            let read =
                |frame: &Frame| Cursor { group: frame.group(), frame: frame.index(), ..cursor } < self.cursor;
            missed.extend(frames.drain(..).filter(read));
        }
        let scale = self.track.record().codec.timescale();
        let mut units = missed.iter().filter(|frame| frame.kind() == Kind::Unit).map(Frame::dts);
        let (first, last) = (units.next(), units.next_back());
        let media = first.zip(last).map_or(0, |(first, last)| last - first);
        // What is older is only decoded: its parts are gaps by now.
        let recent = last.map_or(i64::MIN, |last| last - LATE.as_secs() as i64 * i64::from(scale.hertz()));
        let from = next.map_or(recent, |(_, start)| start);
        // The units that come go on where these end.
        self.forcing = Forcing::from(from);
        let mut messages = Vec::with_capacity(missed.len());
        for frame in &missed {
            messages.extend(self.forcing.message(frame, self.track.record())?);
        }
        Ok(Missed { codec, messages, media: scale.duration(media) })
    }
}

/// The beginning of the group that it stands in.
fn group_of(cursor: Cursor) -> Cursor {
    Cursor { frame: 0, ..cursor }
}

impl Forcing {
    fn from(from: i64) -> Self {
        Self { from, is_due: false, is_asked: false, key_last: None, asked_last: None }
    }

    fn message(&mut self, frame: &Frame, track: &TrackRecord) -> Result<Option<ToEncoder>, FrameError> {
        Ok(match frame.kind() {
            Kind::Boundary => {
                let boundary = frame.to_boundary()?;
                let interval = KEY_INTERVAL_S * i64::from(track.codec.timescale().hertz());
                let is_far = |last: i64| boundary.start - last >= interval;
                let is_due = boundary.part == 0 || self.key_last.is_none_or(is_far);
                self.is_due |= is_due && boundary.start >= self.from;
                None
            }
            Kind::Config => {
                let config: CodecConfig = frame.to_config()?;
                Some(ToEncoder::Config(Codec::from(&config)))
            }
            Kind::Unit => {
                let unit = frame.to_unit()?;
                let hertz = i64::from(track.codec.timescale().hertz());
                let (spacing, interval) = (ASKED_SPACING_MS * hertz / 1_000, KEY_INTERVAL_S * hertz);
                // A first key is not asked for: rungs begin at boundaries.
                let may_be = self.key_last.is_some_and(|last| unit.dts - last >= spacing)
                    && self.asked_last.is_none_or(|last| unit.dts - last >= interval);
                let is_asked = self.is_asked && may_be;
                let force = std::mem::take(&mut self.is_due) || is_asked;
                if is_asked {
                    self.asked_last = Some(unit.dts);
                }
                if force {
                    self.is_asked = false;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use media::codec::aac;
    use media::{AccessUnit, SessionId, StreamId, TrackId};
    use relay::{StreamRecord, StreamRegistry};

    use super::*;

    const FRAME: i64 = 1024;
    const FRAMES_PER_PART: i64 = 23;

    fn record() -> StreamRecord {
        let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
        let track = TrackRecord {
            id: TrackId(0),
            name: "a".into(),
            codec,
            part_target_ms: 512,
            reorder_delay: 0,
            derived: None,
        };
        let session = SessionId::from_random(1);
        StreamRecord {
            session,
            epoch: 1,
            part_hold_back_ms: 1536,
            frame_rate: None,
            tracks: vec![track],
            live: None,
        }
    }

    /// A child that is started within a group of ten seconds gets all of it, and encodes from a boundary two seconds ago.
    #[test]
    fn of_a_long_group_only_the_last_two_seconds_are_encoded() {
        let registry = StreamRegistry::default();
        let id = StreamId::new("live", "cam").unwrap();
        let mut stream = registry.open(id.clone(), SessionId::from_random(1)).unwrap();
        let mut writer = stream.open(record()).remove(0);
        writer.open_group(0, 0);
        let track = registry.get(&id).unwrap().tracks()[0].clone();
        let mut source = Source::new(track);
        let mut push = |from: i64, to: i64| {
            for number in from..to {
                let start = number * FRAME;
                if number % FRAMES_PER_PART == 0 {
                    writer.push_boundary(&Boundary {
                        msn: 0,
                        part: (number / FRAMES_PER_PART) as u32,
                        start,
                        program_date_time_ms: 0,
                        discontinuity_sequence: 0,
                        independent: number == 0,
                        gap: None,
                    });
                }
                let data = Bytes::from_static(b"unit");
                writer.push_unit(&AccessUnit {
                    dts: start,
                    pts: start,
                    duration: FRAME as u32,
                    key: number == 0,
                    data,
                });
            }
        };
        let forced = |messages: &[ToEncoder]| -> Vec<i64> {
            let unit = |message: &ToEncoder| match message {
                ToEncoder::Unit(unit) if unit.force => Some(unit.dts / FRAME),
                _ => None,
            };
            messages.iter().filter_map(unit).collect()
        };
        push(0, 460);
        source.read(&mut Vec::new()).unwrap();
        let Missed { messages, media, .. } = source.catch_up(None).unwrap();
        assert_eq!((messages.len(), media.as_secs()), (460, 9));
        // Its parts begin at multiples of 23; the two seconds before the last unit, at 365.
        assert_eq!(forced(&messages), [368]);
        // Or from the part that is said.
        let Missed { messages, .. } = source.catch_up(Some((0, 437 * FRAME))).unwrap();
        assert_eq!((messages.len(), forced(&messages)), (460, vec![437]));
        let Missed { messages, .. } = source.catch_up(None).unwrap();
        assert_eq!(forced(&messages), [368]);

        push(460, 560);
        let mut events = Vec::new();
        source.read(&mut events).unwrap();
        let messages = events.into_iter().filter_map(|event| match event {
            Event::Message(message) => Some(message),
            Event::Boundary { .. } => None,
        });
        assert_eq!(
            forced(&messages.collect::<Vec<_>>()),
            [483],
            "every two seconds from there on, at a boundary"
        );
        // A viewer asks, and is heard at once; the next two seconds later.
        let mut events = Vec::new();
        for (from, to) in [(560, 570), (570, 660)] {
            source.ask_for_key();
            push(from, to);
            source.read(&mut events).unwrap();
        }
        let message = |event| match event {
            Event::Message(message) => Some(message),
            Event::Boundary { .. } => None,
        };
        let messages: Vec<_> = events.into_iter().filter_map(message).collect();
        assert_eq!(forced(&messages), [560, 654]);
    }
}
