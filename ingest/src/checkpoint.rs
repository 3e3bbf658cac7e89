//! What must survive the process, so that the next one can go on with a session: the same URLs, numbers that rise,
//! and the same stream clock. Written before a segment's first part appears, so nothing a viewer saw is newer.

use bytes::Bytes;
use media::{Captions, CodecConfig, NameError, SessionId, StreamId, TrackId, TrackKind, codec};
use relay::{Bandwidth, Derived, Live, StreamRecord, TrackRecord};
use serde::{Deserialize, Serialize};

use crate::cutter::Numbers;
use crate::grid::{Follower, Grid};
use crate::ladder::part_hold_back_ms;

/// Version of the text. A process of another version starts new sessions instead of misreading old ones.
const FORMAT: u32 = 1;

/// From the groups of one process to those of the next: any number may have been written within a segment.
const GROUP_STEP: u32 = 1_000;

/// Longest part and segment of a session, in seconds; those that ingest makes stay far below.
const SPAN_MAX_S: u32 = 60;

/// Parts of a session per second, at most. Far shorter ones would be made without end while nobody publishes.
const PARTS_PER_SECOND_MAX: i64 = 10;

/// Times later than this, the year 5138, were never written by us, and would not fit into ticks.
const TIME_MS_MAX: u64 = 100_000_000_000_000;

/// Keeps the newest checkpoint of every session that is open. `server` plugs in the real one.
pub trait Checkpoints: Send + Sync {
    /// Called on the way of the media, once per segment: must not wait for a disk to spin.
    fn store(&self, checkpoint: &Checkpoint);

    /// The session is over.
    fn remove(&self, id: &StreamId);

    /// It is not, but goes on at another node, whose the checkpoint is now.
    fn leave(&self, id: &StreamId);
}

/// For those who need none: a restart begins new sessions.
pub struct NoCheckpoints;

impl Checkpoints for NoCheckpoints {
    fn store(&self, _: &Checkpoint) {}

    fn remove(&self, _: &StreamId) {}

    fn leave(&self, _: &StreamId) {}
}

/// A session as of the beginning of one of its segments.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub(crate) id: StreamId,
    pub(crate) record: StreamRecord,
    pub(crate) live: Live,
    pub(crate) grid: Grid,
    /// When the first publisher was accepted, Unix time.
    pub(crate) since_ms: i64,
    /// Wall-clock time of stream time zero, in milliseconds since the Unix epoch.
    pub(crate) anchor_ms: i64,
    /// Stream time at which the segment begins, in milliseconds.
    pub(crate) position_ms: i64,
    pub(crate) numbers: Numbers,
}

/// Half of what can be counted is left for the rest of the session.
const EPOCH_MAX: u32 = u32::MAX / 2;

/// Why a text is no checkpoint: it was damaged, or written by another version.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("not a checkpoint: {0}")]
    Json(#[from] serde_json::Error),
    #[error("of format {0}, not {FORMAT}")]
    Format(u32),
    #[error("a name in it: {0}")]
    Name(#[from] NameError),
    #[error("{0}")]
    Config(#[from] codec::ConfigError),
    #[error("{0} is out of range")]
    Value(&'static str),
}

impl Checkpoint {
    pub fn id(&self) -> &StreamId {
        &self.id
    }

    pub fn session(&self) -> SessionId {
        self.record.session
    }

    /// When the segment began, in milliseconds since the Unix epoch.
    pub fn written_ms(&self) -> i64 {
        self.anchor_ms + self.position_ms
    }

    /// What the cutter of the next process is told.
    pub(crate) fn last(&self) -> Numbers {
        Numbers { group: self.numbers.group.saturating_add(GROUP_STEP), ..self.numbers }
    }

    /// Taken over from another node, under a claim of this number. However often that one was restarted meanwhile, the epochs that
    /// follow here are greater than its own: each restart adds one, and the numbers of claims rise with every word of any stream.
    #[must_use]
    pub fn taken_over(mut self, claim: u64) -> Self {
        let claim = u32::try_from(claim).unwrap_or(u32::MAX).min(EPOCH_MAX);
        self.record.epoch = self.record.epoch.max(claim);
        self
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&Saved::from(self)).expect("a checkpoint has only strings, numbers and lists")
    }

    /// The fields of the text, to be written with others.
    pub fn to_fields(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(Saved::from(self)) {
            Ok(serde_json::Value::Object(fields)) => fields,
            other => unreachable!("a checkpoint is an object of strings, numbers and lists: {other:?}"),
        }
    }

    /// # Errors
    /// [`CheckpointError`]: the session cannot be continued.
    pub fn from_json(text: &[u8]) -> Result<Self, CheckpointError> {
        let saved: Saved = serde_json::from_slice(text)?;
        if saved.format != FORMAT {
            return Err(CheckpointError::Format(saved.format));
        }
        saved.restore()
    }
}

/// The text's shape. Times are in milliseconds, or in ticks of the lead track.
#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    app: String,
    stream: String,
    session: String,
    epoch: u32,
    since_ms: i64,
    anchor_ms: i64,
    position_ms: i64,
    msn: u64,
    group: u32,
    discontinuity_sequence: u64,
    frame_rate: Option<f64>,
    frame: i64,
    part: i64,
    /// In ticks of the second track.
    follower_frame: Option<i64>,
    target_duration_s: u32,
    window_ms: u32,
    /// The lead first, derived ones last.
    tracks: Vec<SavedTrack>,
}

#[derive(Serialize, Deserialize)]
struct SavedTrack {
    sample_entry: String,
    /// The decoder's own record, in hexadecimal.
    config: String,
    part_target_ms: u32,
    reorder_delay: u32,
    bandwidth_peak: u32,
    bandwidth_average: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    derived: Option<SavedDerived>,
}

#[derive(Serialize, Deserialize)]
struct SavedDerived {
    /// Number of the track that it is made of.
    from: u16,
    every: u8,
    name: String,
    #[serde(default)]
    on_demand: bool,
    #[serde(default)]
    for_webrtc: bool,
    #[serde(default)]
    layer: bool,
}

impl From<&Checkpoint> for Saved {
    fn from(checkpoint: &Checkpoint) -> Self {
        let Checkpoint { id, record, live, grid, numbers, .. } = checkpoint;
        let tracks = record.tracks.iter().zip(&live.bandwidth).map(|(track, bandwidth)| {
            let (sample_entry, config) = track.codec.record();
            SavedTrack {
                sample_entry: String::from_utf8_lossy(sample_entry).into_owned(),
                config: hex(config),
                part_target_ms: track.part_target_ms,
                reorder_delay: track.reorder_delay,
                bandwidth_peak: bandwidth.peak,
                bandwidth_average: bandwidth.average,
                derived: track.derived.map(|derived| {
                    let name = track.name.to_string();
                    let Derived { from, every, on_demand, for_webrtc, layer, .. } = derived;
                    SavedDerived { from: from.0, every, name, on_demand, for_webrtc, layer }
                }),
            }
        });
        Self {
            format: FORMAT,
            app: id.app().to_owned(),
            stream: id.stream().to_owned(),
            session: record.session.to_string(),
            epoch: record.epoch,
            since_ms: checkpoint.since_ms,
            anchor_ms: checkpoint.anchor_ms,
            position_ms: checkpoint.position_ms,
            msn: numbers.msn,
            group: numbers.group,
            discontinuity_sequence: numbers.discontinuity_sequence,
            frame_rate: record.frame_rate,
            frame: grid.frame,
            part: grid.part,
            follower_frame: grid.follower.map(|follower| follower.frame),
            target_duration_s: live.target_duration_s,
            window_ms: live.window_ms,
            tracks: tracks.collect(),
        }
    }
}

impl Saved {
    fn restore(self) -> Result<Checkpoint, CheckpointError> {
        let session: SessionId = self.session.parse()?;
        let mut tracks = Vec::with_capacity(self.tracks.len());
        for (number, track) in (0..).zip(&self.tracks) {
            let record = unhex(&track.config).ok_or(CheckpointError::Value("a configuration"))?;
            let codec = CodecConfig::from_record(track.sample_entry.as_bytes(), record)?;
            let bandwidth = Bandwidth { peak: track.bandwidth_peak, average: track.bandwidth_average };
            let name = track.derived.as_ref().map_or(track_name(codec.kind()), |derived| &derived.name);
            let derived = track.derived.as_ref().map(|derived| Derived {
                from: TrackId(derived.from),
                every: derived.every,
                bandwidth,
                on_demand: derived.on_demand,
                for_webrtc: derived.for_webrtc,
                layer: derived.layer,
            });
            tracks.push(TrackRecord {
                id: TrackId(number),
                name: name.into(),
                codec,
                part_target_ms: track.part_target_ms,
                reorder_delay: track.reorder_delay,
                derived,
            });
        }
        let own = tracks.iter().take_while(|track| track.derived.is_none()).count();
        let (own, derived) = tracks.split_at(own);
        if !derived.iter().all(|track| is_derived_of(track, own)) {
            return Err(CheckpointError::Value("a derived track"));
        }
        let (lead, follower) = match own {
            [lead] => (lead, None),
            [lead, follower] if lead.codec.kind() != follower.codec.kind() => (lead, Some(follower)),
            _ => return Err(CheckpointError::Value("the number of tracks")),
        };
        let hertz = i64::from(lead.codec.timescale().hertz());
        let part = hertz / PARTS_PER_SECOND_MAX..=hertz * i64::from(SPAN_MAX_S);
        let targets_ms = 1..=SPAN_MAX_S * 1000;
        if !(1..=self.part).contains(&self.frame)
            || !part.contains(&self.part)
            || !(1..=SPAN_MAX_S).contains(&self.target_duration_s)
            || !tracks.iter().all(|track| targets_ms.contains(&track.part_target_ms))
        {
            return Err(CheckpointError::Value("the part grid"));
        }
        let times_ms = [self.since_ms, self.anchor_ms, self.position_ms];
        if times_ms.iter().any(|time_ms| time_ms.unsigned_abs() > TIME_MS_MAX) {
            return Err(CheckpointError::Value("a time"));
        }
        // As of epochs.
        if self.msn.max(self.discontinuity_sequence) > u64::MAX / 2 || self.group.max(self.epoch) > EPOCH_MAX
        {
            return Err(CheckpointError::Value("a number"));
        }
        let follower = match (follower, self.follower_frame) {
            (Some(track), Some(frame @ 1..)) => {
                let (scale, part_target_ms) = (track.codec.timescale(), track.part_target_ms);
                Some(Follower { scale, frame, part_target_ms })
            }
            (None, None) => None,
            _ => return Err(CheckpointError::Value("the frame of the second track")),
        };
        let grid = Grid {
            scale: lead.codec.timescale(),
            frame: self.frame,
            part: self.part,
            part_target_ms: lead.part_target_ms,
            follower,
        };
        let bandwidth = self
            .tracks
            .iter()
            .map(|track| Bandwidth { peak: track.bandwidth_peak, average: track.bandwidth_average });
        Ok(Checkpoint {
            id: StreamId::new(&self.app, &self.stream)?,
            record: StreamRecord {
                session,
                epoch: self.epoch,
                part_hold_back_ms: part_hold_back_ms(&tracks),
                frame_rate: self.frame_rate,
                tracks,
                live: None,
            },
            live: Live {
                target_duration_s: self.target_duration_s,
                window_ms: self.window_ms,
                bandwidth: bandwidth.collect(),
                // Seen again soon enough.
                captions: Captions::default(),
            },
            grid,
            since_ms: self.since_ms,
            anchor_ms: self.anchor_ms,
            position_ms: self.position_ms,
            numbers: Numbers {
                msn: self.msn,
                group: self.group,
                discontinuity_sequence: self.discontinuity_sequence,
            },
        })
    }
}

/// Whether it is made of one of these, and its name can stand in a URL.
fn is_derived_of(track: &TrackRecord, own: &[TrackRecord]) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let of = |derived: Derived| own.get(usize::from(derived.from.0));
    track
        .derived
        .filter(|derived| derived.every > 0)
        .and_then(of)
        .is_some_and(|from| from.codec.kind() == track.codec.kind())
        && (1..=16).contains(&track.name.len())
        && track.name.bytes().all(allowed)
}

/// The rendition that a track of a publisher becomes, in URLs.
pub(crate) fn track_name(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "v",
        TrackKind::Audio => "a",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Bytes> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use media::Timescale;
    use media::codec::aac;
    use proptest::prelude::*;

    use super::*;
    use crate::grid::Cadence;
    use crate::testing::avcc;

    fn checkpoint() -> Checkpoint {
        let audio = aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap();
        let cadence = Cadence { frames_per_second: 30.0, longest_s: 0.034 };
        let scale = Timescale::from_hertz(48_000).unwrap();
        let grid = Grid::video(cadence, Some((scale, 1024)), Duration::from_millis(500));
        let track = |number, codec: CodecConfig, part_target_ms| TrackRecord {
            id: TrackId(number),
            name: track_name(codec.kind()).into(),
            codec,
            part_target_ms,
            reorder_delay: 0,
            derived: None,
        };
        let bandwidth = Bandwidth { peak: 700_000, average: 600_000 };
        let rung = TrackRecord {
            name: "v360".into(),
            derived: Some(Derived {
                from: TrackId(0),
                every: 1,
                bandwidth,
                on_demand: true,
                for_webrtc: true,
                layer: true,
            }),
            ..track(2, CodecConfig::H264(avcc()), 501)
        };
        Checkpoint {
            id: StreamId::new("live", "cam").unwrap(),
            record: StreamRecord {
                session: SessionId::from_random(0xAB),
                epoch: 3,
                part_hold_back_ms: 3 * 512,
                frame_rate: Some(30.0),
                tracks: vec![
                    track(0, CodecConfig::H264(avcc()), 501),
                    track(1, CodecConfig::Aac(audio), 512),
                    rung,
                ],
                live: None,
            },
            live: Live {
                target_duration_s: 4,
                window_ms: 28_000,
                bandwidth: vec![
                    Bandwidth { peak: 3_000_000, average: 2_500_000 },
                    Bandwidth { peak: 130_000, average: 128_000 },
                    bandwidth,
                ],
                captions: Captions::default(),
            },
            grid,
            since_ms: 1_800_000_000_000,
            anchor_ms: 1_800_000_000_123,
            position_ms: 40_000,
            numbers: Numbers { msn: 20, group: 21, discontinuity_sequence: 1 },
        }
    }

    #[test]
    fn a_checkpoint_survives_its_text() {
        let checkpoint = checkpoint();
        assert_eq!(Checkpoint::from_json(&checkpoint.to_json()).unwrap(), checkpoint);
        let mut fields = checkpoint.to_fields();
        fields.insert("claim_epoch".to_owned(), 7.into());
        let among_others = serde_json::to_vec(&fields).unwrap();
        assert_eq!(Checkpoint::from_json(&among_others).unwrap(), checkpoint);
        assert_eq!(checkpoint.written_ms(), 1_800_000_040_123);
        let last = checkpoint.last();
        assert_eq!((last.msn, last.group, last.discontinuity_sequence), (20, 1_021, 1));
    }

    /// Written by a version that made everything always.
    #[test]
    fn a_rung_that_says_nothing_of_demand_is_always_made() {
        let text = String::from_utf8(checkpoint().to_json()).unwrap();
        let read = Checkpoint::from_json(text.replace(",\"on_demand\":true", "").as_bytes()).unwrap();
        let derived = |checkpoint: &Checkpoint| checkpoint.record.tracks[2].derived.unwrap();
        assert!(derived(&checkpoint()).on_demand && !derived(&read).on_demand);
    }

    #[test]
    fn another_version_is_refused_and_not_misread() {
        let text = String::from_utf8(checkpoint().to_json()).unwrap().replace("\"format\":1", "\"format\":2");
        assert!(matches!(Checkpoint::from_json(text.as_bytes()), Err(CheckpointError::Format(2))));
    }

    /// What is read is reckoned with: sums that overflow would panic, and parts of nearly no length fill the memory.
    #[test]
    fn numbers_that_no_session_has_are_refused() {
        let text = String::from_utf8(checkpoint().to_json()).unwrap();
        for (honest, damaged) in [
            ("\"anchor_ms\":1800000000123", "\"anchor_ms\":9223372036854775807"),
            ("\"position_ms\":40000", "\"position_ms\":-9223372036854775808"),
            ("\"since_ms\":1800000000000", "\"since_ms\":100000000000001"),
            ("\"part_target_ms\":501", "\"part_target_ms\":1431655766"),
            ("\"part_target_ms\":512", "\"part_target_ms\":0"),
            ("\"frame\":3000,\"part\":45000", "\"frame\":1,\"part\":1"),
            ("\"part\":45000", "\"part\":9223372036854775807"),
            ("\"msn\":20", "\"msn\":18446744073709551615"),
            ("\"epoch\":3", "\"epoch\":4294967295"),
            ("\"from\":0", "\"from\":1"),
            ("\"from\":0", "\"from\":2"),
            ("\"every\":1", "\"every\":0"),
            ("\"name\":\"v360\"", "\"name\":\"../360\""),
        ] {
            assert!(text.contains(honest), "{honest} in {text}");
            let read = Checkpoint::from_json(text.replacen(honest, damaged, 1).as_bytes());
            assert!(matches!(read, Err(CheckpointError::Value(_))), "{damaged}");
        }
    }

    proptest! {
        /// A file that was cut off or damaged costs the session, never the start of the process.
        #[test]
        fn damage_is_an_error_and_no_panic(at in 0_usize..1_200, byte: u8, cut: bool) {
            let mut text = checkpoint().to_json();
            let at = at % text.len();
            if cut { text.truncate(at) } else { text[at] = byte }
            let _ = Checkpoint::from_json(&text);
        }
    }
}
