//! A stream in this process: its record, its tracks' rings, and the wake-up of their readers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use arc_swap::ArcSwap;
use media::{AccessUnit, CodecConfig, SessionId, StreamId};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use crate::demand::Demand;
use crate::frame::{Boundary, Frame, Kind};
use crate::metrics::Metrics;
use crate::record::{Facts, Live, StreamRecord, TrackRecord};
use crate::registry::StreamRegistry;
use crate::ring::{AppendError, Cursor, Read, Ring};

/// A stream that is being published, for those who read it.
pub struct Stream {
    id: StreamId,
    session: SessionId,
    record: watch::Receiver<Option<Arc<StreamRecord>>>,
    tracks: OnceLock<Vec<Arc<Track>>>,
    facts: ArcSwap<Facts>,
    boundaries: watch::Receiver<u64>,
    appended: Arc<Notify>,
    /// Writers of derived tracks that no worker has taken.
    unclaimed: Mutex<Vec<TrackWriter>>,
    /// Of viewers who wait for a keyframe; any number of them is one.
    keyframe_wanted: Notify,
    /// The same of those who wait for one of a rung.
    rung_keyframe_wanted: Notify,
    /// Of whoever reads it in segments.
    segments: Arc<Demand>,
    successor: OnceLock<Arc<Self>>,
    has_moved: AtomicBool,
}

impl Stream {
    pub fn id(&self) -> &StreamId {
        &self.id
    }

    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Where it has ended, the session goes on at another node.
    pub fn has_moved(&self) -> bool {
        self.has_moved.load(Ordering::Acquire)
    }

    /// The stream record; `None` until the log opens. The channel closes when the publisher leaves.
    pub fn record(&self) -> watch::Receiver<Option<Arc<StreamRecord>>> {
        self.record.clone()
    }

    /// The tracks, in the order of the record; empty until the log opens.
    pub fn tracks(&self) -> &[Arc<Track>] {
        self.tracks.get().map_or(&[], Vec::as_slice)
    }

    pub fn facts(&self) -> Arc<Facts> {
        self.facts.load_full()
    }

    /// The writers of the derived tracks, for the worker that is first to ask; nothing for the next. A track that nobody
    /// claimed ends with the stream; the others when their writer is dropped.
    pub fn claim(&self) -> Vec<TrackWriter> {
        std::mem::take(&mut *self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A viewer cannot begin, or not go on, before the next keyframe of the publisher's own video. Where the publisher can
    /// be asked for one, it is, about once a second at most.
    pub fn want_keyframe(&self) {
        self.keyframe_wanted.notify_one();
    }

    /// Waits until somebody wants a keyframe, or has wanted one since this was last waited for. For the one that asks the
    /// publisher.
    pub fn keyframe_wanted(&self) -> Notified<'_> {
        self.keyframe_wanted.notified()
    }

    /// A viewer cannot go on before the next keyframe of a rung. The rungs have one as soon as they may: as many at
    /// most as without it.
    pub fn want_rung_keyframe(&self) {
        self.rung_keyframe_wanted.notify_one();
    }

    /// As [`keyframe_wanted`](Self::keyframe_wanted), for the one that makes the rungs.
    pub fn rung_keyframe_wanted(&self) -> Notified<'_> {
        self.rung_keyframe_wanted.notified()
    }

    /// Waits for the next frame of any track: what a reader of several waits for. Of frames that come after this call none
    /// is missed, so it goes before the reads that find nothing.
    pub fn appended(&self) -> Notified<'_> {
        self.appended.notified()
    }

    /// Who reads it in segments, which begin with keyframes: players of playlists, other nodes, workers that make renditions.
    /// A viewer by WebRTC does not. For whoever asks the publisher for keyframes to look at.
    pub fn segments(&self) -> &Arc<Demand> {
        &self.segments
    }

    /// The same session under the same name, written anew: where readers of this go on when it ends. Of a copy whose node had
    /// to begin again.
    pub fn successor(&self) -> Option<&Arc<Self>> {
        self.successor.get()
    }

    /// Counts the boundaries and ends of all tracks: what a reader of whole parts waits for. The channel
    /// closes when every track has ended.
    pub fn boundaries(&self) -> watch::Receiver<u64> {
        self.boundaries.clone()
    }
}

/// One track's ring behind its lock. The writer holds it for one append, a reader for one copy of handles.
pub struct Track {
    record: TrackRecord,
    epoch: u32,
    ring: RwLock<Ring>,
    appended: Notify,
    bounded: Notify,
    demand: Arc<Demand>,
    metrics: Metrics,
}

impl Track {
    pub fn record(&self) -> &TrackRecord {
        &self.record
    }

    /// Who watches it. Only of a track that is [made on demand](crate::Derived::on_demand) anybody asks.
    pub fn demand(&self) -> &Arc<Demand> {
        &self.demand
    }

    /// Where a late reader starts; see [`Ring::start`].
    pub fn start(&self) -> Cursor {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).start(self.epoch)
    }

    /// The oldest frame still in the ring.
    pub fn oldest(&self) -> Cursor {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).oldest(self.epoch)
    }

    /// See [`Ring::preface`].
    pub fn preface(&self, cursor: Cursor) -> Vec<Frame> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).preface(cursor)
    }

    /// Waits for the next frame: what a reader of single units waits for. Of frames that come after this call none is
    /// missed, so it goes before the read that finds nothing.
    pub fn appended(&self) -> Notified<'_> {
        self.appended.notified()
    }

    /// Waits for the next boundary, or the end: what a reader waits for that has nothing to do between two. As with
    /// [`Track::appended`], none is missed that comes after this call.
    pub fn bounded(&self) -> Notified<'_> {
        self.bounded.notified()
    }

    /// See [`Ring::read`]; a jump is counted.
    pub fn read(&self, cursor: &mut Cursor, may_jump: bool, out: &mut Vec<Frame>) -> Read {
        let read = self.ring.read().unwrap_or_else(PoisonError::into_inner).read(cursor, may_jump, out);
        if read == Read::Jumped {
            self.metrics.jumps.inc();
        }
        read
    }
}

/// The one writer of a stream. Dropping it ends every track and takes the stream off the registry.
pub struct StreamWriter {
    stream: Arc<Stream>,
    registry: StreamRegistry,
    record: watch::Sender<Option<Arc<StreamRecord>>>,
    boundaries: watch::Sender<u64>,
}

impl StreamWriter {
    pub(crate) fn new(id: StreamId, session: SessionId, registry: StreamRegistry) -> Self {
        let (record, record_reader) = watch::channel(None);
        let (boundaries, boundaries_reader) = watch::channel(0);
        let stream = Arc::new(Stream {
            id,
            session,
            record: record_reader,
            tracks: OnceLock::new(),
            facts: ArcSwap::default(),
            boundaries: boundaries_reader,
            appended: Arc::default(),
            unclaimed: Mutex::default(),
            keyframe_wanted: Notify::new(),
            rung_keyframe_wanted: Notify::new(),
            segments: Arc::new(Demand::new(Arc::default())),
            successor: OnceLock::new(),
            has_moved: AtomicBool::new(false),
        });
        Self { stream, registry, record, boundaries }
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The writer of the same stream from its beginning. Readers are told by the end of this one, and find the other as its
    /// [successor](Stream::successor): open its log before this is dropped.
    #[must_use]
    pub fn anew(&self) -> Self {
        let writer = Self::new(self.stream.id.clone(), self.stream.session, self.registry.clone());
        self.registry.replace(writer.stream.clone());
        // Of a second one readers learn through the first.
        let _second = self.stream.successor.set(writer.stream.clone());
        writer
    }

    /// Another node goes on with the session: what ends when this is dropped is not the session.
    pub fn set_moved(&self) {
        self.stream.has_moved.store(true, Ordering::Release);
    }

    pub fn id(&self) -> &StreamId {
        &self.stream.id
    }

    pub fn session(&self) -> SessionId {
        self.stream.session
    }

    /// Opens the log: from here on the track set is fixed. One writer for each track of the record that the publisher
    /// sends, layers included; the others are to be [claimed](Stream::claim).
    pub fn open(&mut self, record: StreamRecord) -> Vec<TrackWriter> {
        let wanted = Arc::new(Notify::new());
        let tracks: Vec<_> = record
            .tracks
            .iter()
            .map(|track| {
                let ring = RwLock::new(Ring::new(track.id, track.codec.timescale()));
                let metrics = self.registry.metrics().clone();
                Arc::new(Track {
                    record: track.clone(),
                    epoch: record.epoch,
                    ring,
                    appended: Notify::new(),
                    bounded: Notify::new(),
                    demand: Arc::new(Demand::new(wanted.clone())),
                    metrics,
                })
            })
            .collect();
        let opened = self.stream.tracks.set(tracks.clone()).is_ok();
        assert!(opened, "a log is opened once");
        let writers = tracks.into_iter();
        let writers = writers.map(|track| TrackWriter {
            track,
            boundaries: self.boundaries.clone(),
            appended: self.stream.appended.clone(),
            end: 0,
        });
        let (own, derived) = writers.partition(|writer| writer.track.record.is_sent());
        *self.stream.unclaimed.lock().unwrap_or_else(PoisonError::into_inner) = derived;
        self.record.send_replace(Some(Arc::new(record)));
        own
    }

    /// Writes the second stream record, or a later one with more bandwidth.
    pub fn go_live(&self, live: Live) {
        self.record.send_modify(|record| {
            if let Some(opened) = record {
                *record = Some(Arc::new(StreamRecord { live: Some(live), ..StreamRecord::clone(opened) }));
            }
        });
    }

    /// See [`Stream::claim`].
    pub fn claim(&self) -> Vec<TrackWriter> {
        self.stream.claim()
    }

    /// What was told last.
    pub fn facts(&self) -> Arc<Facts> {
        self.stream.facts()
    }

    pub fn set_facts(&self, facts: Facts) {
        self.stream.facts.store(Arc::new(facts));
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        drop(self.stream.claim());
        self.registry.close(&self.stream);
    }
}

/// The one writer of a track. Never waits for a reader. Dropping it writes the End frame.
pub struct TrackWriter {
    track: Arc<Track>,
    boundaries: watch::Sender<u64>,
    /// Of the stream.
    appended: Arc<Notify>,
    /// Where the newest unit or gap ends.
    end: i64,
}

impl TrackWriter {
    pub fn record(&self) -> &TrackRecord {
        &self.track.record
    }

    /// Who watches the track.
    pub fn demand(&self) -> &Demand {
        &self.track.demand
    }

    /// Starts group `id` at `start`; what is pushed next opens it.
    pub fn open_group(&mut self, id: u32, start: i64) {
        self.write(|ring| ring.open_group(id, start));
    }

    pub fn push_unit(&mut self, unit: &AccessUnit) {
        self.end = unit.dts + i64::from(unit.duration);
        self.write(|ring| ring.push_unit(unit));
    }

    pub fn push_config(&mut self, dts: i64, codec: &CodecConfig) {
        self.write(|ring| ring.push_config(dts, codec));
    }

    pub fn push_boundary(&mut self, boundary: &Boundary) {
        self.end = self.end.max(boundary.start + i64::from(boundary.gap.unwrap_or(0)));
        self.write(|ring| ring.push_boundary(boundary));
        self.told_boundary();
    }

    /// A frame that another node wrote, under its own numbers.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was written then.
    pub fn push_copy(&mut self, frame: Frame) -> Result<(), AppendError> {
        let (ends_at, is_boundary) = (frame.ends_at(), frame.kind() == Kind::Boundary);
        self.write(|ring| ring.push_copy(frame))?;
        self.end = self.end.max(ends_at);
        if is_boundary {
            self.told_boundary();
        }
        Ok(())
    }

    fn write<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let changed = change(&mut self.track.ring.write().unwrap_or_else(PoisonError::into_inner));
        self.track.appended.notify_waiters();
        self.appended.notify_waiters();
        changed
    }

    /// A boundary was written, or the end.
    fn told_boundary(&self) {
        self.track.bounded.notify_waiters();
        self.boundaries.send_modify(|count| *count += 1);
    }
}

impl Drop for TrackWriter {
    fn drop(&mut self) {
        let end = self.end;
        self.write(|ring| ring.push_end(end));
        self.told_boundary();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use media::TrackId;
    use media::codec::aac;

    use super::*;
    use crate::record::{Bandwidth, Derived};

    fn record(session: SessionId) -> StreamRecord {
        let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
        StreamRecord {
            session,
            epoch: 1,
            part_hold_back_ms: 1536,
            frame_rate: None,
            tracks: vec![TrackRecord {
                id: TrackId(0),
                name: "a".into(),
                codec,
                part_target_ms: 512,
                reorder_delay: 0,
                derived: None,
            }],
            live: None,
        }
    }

    #[tokio::test]
    async fn viewers_who_want_a_keyframe_are_heard_once_together() {
        use futures_util::FutureExt;
        let registry = StreamRegistry::default();
        let id = StreamId::new("live", "cam").unwrap();
        let _writer = registry.open(id.clone(), SessionId::from_random(1)).unwrap();
        let stream = registry.get(&id).unwrap();
        assert_eq!(stream.keyframe_wanted().now_or_never(), None);
        (0..100).for_each(|_| stream.want_keyframe());
        assert_eq!(stream.keyframe_wanted().now_or_never(), Some(()), "though nobody was waiting");
        assert_eq!(stream.keyframe_wanted().now_or_never(), None);
    }

    /// The writer goes on whatever its readers do; the one that sleeps finds itself at a newer keyframe, counted.
    #[test]
    fn slow_viewer_jumps_and_is_counted_while_the_writer_never_waits() {
        let metrics = Metrics::default();
        let registry = StreamRegistry::new(metrics.clone());
        let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
        let mut stream = registry.open(id.clone(), session).unwrap();
        let mut writer = stream.open(record(session)).remove(0);
        writer.open_group(0, 0);
        let track = registry.get(&id).unwrap().tracks()[0].clone();
        let (mut fast, mut slow, mut frames) = (track.start(), track.start(), Vec::new());
        for group in 0..10_i64 {
            if group > 0 {
                writer.open_group(group as u32, group * 48_000);
            }
            for n in 0..46 {
                let dts = group * 48_000 + n * 1024;
                let data = Bytes::from_static(b"frame");
                writer.push_unit(&AccessUnit { dts, pts: dts, duration: 1024, key: true, data });
            }
            assert_eq!(track.read(&mut fast, true, &mut frames), Read::Frames);
        }
        assert_eq!((frames.len(), metrics.jumps.get()), (460, 0));
        frames.clear();
        assert_eq!(track.read(&mut slow, true, &mut frames), Read::Jumped);
        assert_eq!((frames.len(), metrics.jumps.get()), (1, 1), "audio: the newest frame is a keyframe");
    }

    #[tokio::test]
    async fn derived_tracks_are_claimed_once_and_end_with_the_stream_if_nobody_does() {
        for claims in [false, true] {
            let registry = StreamRegistry::default();
            let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
            let mut stream = registry.open(id.clone(), session).unwrap();
            let reader = registry.get(&id).unwrap();
            let mut record = record(session);
            let bandwidth = Bandwidth::default();
            let derived = Some(Derived {
                from: TrackId(0),
                every: 1,
                bandwidth,
                on_demand: false,
                for_webrtc: false,
                layer: false,
            });
            record.tracks.push(TrackRecord {
                id: TrackId(1),
                name: "a2".into(),
                derived,
                ..record.tracks[0].clone()
            });
            let own = stream.open(record);
            assert_eq!(own.iter().map(|writer| writer.record().id).collect::<Vec<_>>(), [TrackId(0)]);
            let mut claimed = Vec::new();
            if claims {
                claimed = reader.claim();
                assert_eq!((claimed.len(), reader.claim().len()), (1, 0));
            }
            let mut boundaries = reader.boundaries();
            drop((own, stream));
            let track = reader.tracks()[1].clone();
            let (mut cursor, mut frames) = (track.oldest(), Vec::new());
            boundaries.borrow_and_update();
            let read = track.read(&mut cursor, false, &mut frames);
            assert_eq!(read, if claims { Read::Idle } else { Read::Ended });
            drop(claimed);
            assert_eq!(boundaries.changed().await.is_ok(), claims, "the End frame");
            assert_eq!(track.read(&mut cursor, false, &mut frames), Read::Ended);
        }
    }

    /// What was refused was not written, so nothing ends with it.
    #[test]
    fn a_track_ends_where_the_last_frame_ends_that_was_taken() {
        let session = SessionId::from_random(1);
        let open = |registry: &StreamRegistry| {
            let mut stream = registry.open(StreamId::new("live", "cam").unwrap(), session).unwrap();
            let writer = stream.open(record(session)).remove(0);
            (stream, writer)
        };
        let unit = |writer: &mut TrackWriter, group, dts| {
            writer.open_group(group, dts);
            let data = Bytes::from_static(b"frame");
            writer.push_unit(&AccessUnit { dts, pts: dts, duration: 1024, key: true, data });
        };
        let read = |registry: &StreamRegistry| {
            let stream = registry.streams().values().next().unwrap().clone();
            let (mut cursor, mut frames) = (stream.tracks()[0].oldest(), Vec::new());
            while stream.tracks()[0].read(&mut cursor, false, &mut frames) == Read::Frames {}
            frames
        };
        let (theirs, copy) = (StreamRegistry::default(), StreamRegistry::default());
        let ((_stream, mut written), (_copied, mut writer)) = (open(&theirs), open(&copy));
        unit(&mut written, 1, 900_000);
        unit(&mut written, 2, 0);
        let [later, earlier] = read(&theirs).try_into().unwrap();
        writer.push_copy(earlier).unwrap();
        assert!(matches!(writer.push_copy(later), Err(AppendError::Order { .. })));
        drop(writer);
        let ends: Vec<_> = read(&copy).iter().map(|frame| (frame.kind(), frame.dts())).collect();
        assert_eq!(ends, [(Kind::Unit, 0), (Kind::End, 1024)]);
    }

    #[tokio::test]
    async fn who_reads_a_stream_that_is_written_anew_finds_it_when_the_first_ends() {
        let registry = StreamRegistry::default();
        let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
        let mut writer = registry.open(id.clone(), session).unwrap();
        let tracks = writer.open(record(session));
        let before = registry.get(&id).unwrap();
        let mut opened = before.record();
        opened.mark_unchanged();
        let mut anew = writer.anew();
        drop((anew.open(record(session)), tracks, writer));
        assert!(opened.changed().await.is_err());
        let now = registry.get(&id).expect("the name is still taken");
        assert!(before.successor().is_some_and(|next| Arc::ptr_eq(next, &now)) && now.successor().is_none());
        assert_eq!((now.session(), now.tracks().len()), (session, 1));
        drop(anew);
        assert!(registry.get(&id).is_none());
    }

    #[tokio::test]
    async fn a_reader_of_single_units_misses_none() {
        let registry = StreamRegistry::default();
        let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
        let mut stream = registry.open(id.clone(), session).unwrap();
        let mut writer = stream.open(record(session)).remove(0);
        writer.open_group(0, 0);
        let track = registry.get(&id).unwrap().tracks()[0].clone();
        let (mut cursor, mut frames) = (track.start(), Vec::new());
        let appended = track.appended();
        assert_eq!(track.read(&mut cursor, false, &mut frames), Read::Idle);
        let data = Bytes::from_static(b"frame");
        writer.push_unit(&AccessUnit { dts: 0, pts: 0, duration: 1024, key: true, data });
        appended.await;
        assert_eq!(track.read(&mut cursor, false, &mut frames), Read::Frames);
        let appended = track.appended();
        drop(writer);
        appended.await;
        assert_eq!(track.read(&mut cursor, false, &mut frames), Read::Ended);
    }

    #[tokio::test]
    async fn a_reader_of_boundaries_sleeps_through_units() {
        use futures_util::FutureExt;
        let registry = StreamRegistry::default();
        let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
        let mut stream = registry.open(id.clone(), session).unwrap();
        let mut writer = stream.open(record(session)).remove(0);
        writer.open_group(0, 0);
        let track = registry.get(&id).unwrap().tracks()[0].clone();
        let (bounded, appended) = (track.bounded(), track.appended());
        let data = Bytes::from_static(b"frame");
        writer.push_unit(&AccessUnit { dts: 0, pts: 0, duration: 1024, key: true, data });
        assert_eq!((bounded.now_or_never(), appended.now_or_never()), (None, Some(())));
        let bounded = track.bounded();
        writer.push_boundary(&Boundary {
            msn: 0,
            part: 1,
            start: 1024,
            program_date_time_ms: 0,
            discontinuity_sequence: 0,
            independent: true,
            gap: None,
        });
        assert_eq!(bounded.now_or_never(), Some(()));
        let bounded = track.bounded();
        drop(writer);
        assert_eq!(bounded.now_or_never(), Some(()), "the End frame");
    }

    #[tokio::test]
    async fn readers_learn_of_boundaries_and_of_the_end() {
        let registry = StreamRegistry::default();
        let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
        let mut stream = registry.open(id.clone(), session).unwrap();
        let reader = registry.get(&id).unwrap();
        let (mut boundaries, mut opened) = (reader.boundaries(), reader.record());
        let writers = stream.open(record(session));
        assert!(opened.wait_for(Option::is_some).await.is_ok());
        drop(writers);
        assert!(boundaries.changed().await.is_ok(), "the End frame");
        drop(stream);
        assert!(boundaries.changed().await.is_err());
        assert!(opened.changed().await.is_err());
    }
}
