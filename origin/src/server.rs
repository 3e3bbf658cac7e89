//! Packages every stream of the registry, one task each, from the opening of its log to ENDLIST.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hls::{Announcement, Bandwidth, Catalog, RenditionHeader, RenditionName, StreamHeader, StreamWriter};
use media::SessionId;
use relay::{
    Cursor, Demand, Frame, FrameError, Kind, Read, STORE_BYTES_MAX, Stream, StreamRecord, StreamRegistry,
    Track, TrackRecord,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug, error, info_span};

use crate::packager::Packager;

/// How often ended sessions are looked at for forgetting.
const EXPIRE_EVERY: Duration = Duration::from_secs(2);

/// The origin role.
pub struct Origin {
    registry: StreamRegistry,
    catalog: Catalog,
    /// What the process before this one left behind, packaged as far as it is there.
    restored: HashMap<SessionId, Packaging>,
}

/// Why packaging a stream stopped early. Ours to mend: ingest promises better.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("fell out of the ring at {0:?}")]
    Lost(Cursor),
    #[error("bad log entry: {0}")]
    Frame(#[from] FrameError),
    #[error("part refused: {0}")]
    Part(#[from] hls::PushError),
}

impl Origin {
    /// Streams that the registry has already are in `catalog` when this returns: whoever watched them before a restart finds
    /// their playlists from the first request on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(registry: StreamRegistry, catalog: Catalog) -> Self {
        let begun = registry.streams();
        let restored = begun.values().filter_map(|stream| {
            let _entered = span_of(stream).entered();
            let record = stream.record().borrow().clone()?;
            let mut packaging = Packaging::open(stream, &record, &catalog);
            packaging.catch_up(stream).ok()?;
            Some((stream.session(), packaging))
        });
        let restored = restored.collect();
        Self { registry, catalog, restored }
    }

    /// Runs until `stop`. Streams that are open then stand still and do not end: another process may go on with them.
    pub async fn run(mut self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let mut streams = self.registry.watch();
        let mut known = relay::Streams::default();
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        loop {
            let now = streams.borrow_and_update().clone();
            // A session that was away at another node comes back as another stream.
            let is_known =
                |stream: &Arc<Stream>| known.get(stream.id()).is_some_and(|known| Arc::ptr_eq(known, stream));
            for stream in now.values().filter(|stream| !is_known(stream)) {
                let restored = self.restored.remove(&stream.session());
                let running = run(stream.clone(), restored, self.catalog.clone(), stop.clone());
                tasks.spawn(running.instrument(span_of(stream)));
            }
            known = now;
            tokio::select! {
                changed = streams.changed() => if changed.is_err() { break },
                _ = expire.tick() => self.catalog.expire(Instant::now()),
                () = stop.cancelled() => break,
            }
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn run(stream: Arc<Stream>, restored: Option<Packaging>, catalog: Catalog, stop: CancellationToken) {
    let mut packaging = match restored {
        Some(packaging) => packaging,
        None => {
            let mut record = stream.record();
            // Closes when the publisher leaves before its log opened.
            let opened = tokio::select! {
                opened = record.wait_for(Option::is_some) => opened.ok().and_then(|record| record.clone()),
                () = stop.cancelled() => return,
            };
            let Some(opened) = opened else { return };
            Packaging::open(&stream, &opened, &catalog)
        }
    };
    let packaged = tokio::select! {
        packaged = packaging.run(&stream) => packaged,
        () = stop.cancelled() => return packaging.writer.abandon(),
    };
    match packaged {
        Ok(()) => debug!("packaged to the end"),
        Err(error) => error!(%error, "packaging stopped: viewers see the end of the stream"),
    }
    if stream.has_moved() {
        // Whoever comes is to find it where it goes on, be that here.
        catalog.forget(packaging.writer.index());
        return packaging.writer.abandon();
    }
    packaging.writer.end();
}

/// Tells the worker behind a track that somebody watches.
#[derive(Debug)]
struct Viewers(Arc<Demand>);

impl hls::Demand for Viewers {
    fn touch(&self) {
        self.0.touch();
    }

    fn hold(&self) -> Box<dyn Send + Sync> {
        Box::new(self.0.hold())
    }
}

/// One stream on its way from the log to the index.
struct Packaging {
    writer: StreamWriter,
    lanes: Vec<Lane>,
    /// The record that was last announced.
    announced: Option<Arc<StreamRecord>>,
    /// Scratch.
    frames: Vec<Frame>,
}

struct Lane {
    track: Arc<Track>,
    cursor: Cursor,
    packager: Packager,
    name: RenditionName,
    span: Span,
    ended: bool,
}

impl Packaging {
    fn open(stream: &Stream, record: &StreamRecord, catalog: &Catalog) -> Self {
        let tracks = || stream.tracks().iter().filter(|track| is_packaged(track.record()));
        let renditions = tracks().map(|track| {
            let record = track.record();
            RenditionHeader {
                name: rendition_name(&record.name),
                codec: record.codec.clone(),
                part_target_ms: record.part_target_ms,
                derived: record.derived.map(|derived| hls::Derived {
                    every: derived.every,
                    on_demand: derived.on_demand.then(|| Arc::new(Viewers(track.demand().clone())) as _),
                }),
            }
        });
        let writer = catalog.open(StreamHeader {
            id: stream.id().clone(),
            session: record.session,
            epoch: record.epoch,
            part_hold_back_ms: record.part_hold_back_ms,
            retain_bytes_max: STORE_BYTES_MAX,
            renditions: renditions.collect(),
        });
        let lanes = tracks().map(|track| Lane {
            cursor: track.oldest(),
            packager: Packager::new(track.record()),
            name: rendition_name(&track.record().name),
            span: info_span!("rendition", rendition.name = &*track.record().name),
            track: track.clone(),
            ended: false,
        });
        Self { writer, lanes: lanes.collect(), announced: None, frames: Vec::new() }
    }

    async fn run(&mut self, stream: &Stream) -> Result<(), PackageError> {
        let mut boundaries = stream.boundaries();
        loop {
            boundaries.borrow_and_update();
            self.catch_up(stream)?;
            if self.lanes.iter().all(|lane| lane.ended) {
                return Ok(());
            }
            if boundaries.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Packages what the log has.
    fn catch_up(&mut self, stream: &Stream) -> Result<(), PackageError> {
        for lane in &mut self.lanes {
            if let Err(error) = lane.package(stream, &mut self.writer, &mut self.frames) {
                if lane.track.record().derived.is_none() {
                    return Err(error);
                }
                lane.give_up(&error, &mut self.writer);
            }
        }
        if self.writer.index().is_watched() {
            stream.segments().touch();
        }
        // Cloned: the publisher must not wait for a lock while playlists are rendered.
        let current = stream.record().borrow().clone();
        self.announce(current.as_ref());
        Ok(())
    }

    /// Passes on what the record says of a live stream, and later its restamped bandwidth.
    fn announce(&mut self, record: Option<&Arc<StreamRecord>>) {
        let Some((record, live)) = record.and_then(|record| Some((record, record.live.as_ref()?))) else {
            return;
        };
        let known = self.announced.as_ref().is_some_and(|announced| Arc::ptr_eq(announced, record));
        if known {
            return;
        }
        let tracks = record.tracks.iter().zip(&live.bandwidth).filter(|(track, _)| is_packaged(track));
        let bandwidths = tracks.map(|(track, bandwidth)| {
            let bandwidth = Bandwidth { peak: bandwidth.peak.into(), average: bandwidth.average.into() };
            (rendition_name(&track.name), bandwidth)
        });
        self.writer.announce(Announcement {
            target_duration_s: live.target_duration_s,
            window_ms: live.window_ms,
            frame_rate: record.frame_rate,
            bandwidths: bandwidths.collect(),
            captions: live.captions,
        });
        self.announced = Some(record.clone());
    }
}

impl Lane {
    /// What a worker made cannot be used. The publisher's own goes on.
    fn give_up(&mut self, error: &PackageError, writer: &mut StreamWriter) {
        let _entered = self.span.enter();
        error!(%error, "rendition given up: its viewers see the end of it");
        self.ended = true;
        if let Some(rendition) = writer.rendition(&self.name) {
            rendition.end();
        }
    }

    /// Packages what the log has, to its end.
    fn package(
        &mut self,
        stream: &Stream,
        writer: &mut StreamWriter,
        frames: &mut Vec<Frame>,
    ) -> Result<(), PackageError> {
        let _entered = self.span.enter();
        let rendition = writer.rendition(&self.name).expect("the index was opened with this track's name");
        while !self.ended {
            frames.clear();
            match self.track.read(&mut self.cursor, false, frames) {
                Read::Idle => return Ok(()),
                Read::Lost => return Err(PackageError::Lost(self.cursor)),
                Read::Frames | Read::Jumped => {}
                Read::Ended => self.ended = true,
            }
            for frame in frames.iter() {
                if frame.kind() == Kind::End && stream.has_moved() {
                    return Ok(());
                }
                match self.packager.push(frame)? {
                    Some(part) if frame.kind() == Kind::End => rendition.push_last(part)?,
                    Some(part) => rendition.push(part)?,
                    None => {}
                }
            }
        }
        Ok(())
    }
}

fn span_of(stream: &Stream) -> Span {
    info_span!("stream", stream.id = %stream.id(), session = %stream.session())
}

/// What is made for WebRTC needs no boxes.
fn is_packaged(track: &TrackRecord) -> bool {
    !track.derived.is_some_and(|derived| derived.for_webrtc)
}

fn rendition_name(name: &str) -> RenditionName {
    name.parse().expect("the names of renditions are our own")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hls::{State, StreamIndex};
    use media::codec::aac;
    use media::{Captions, CodecConfig, StreamId, TrackId};
    use relay::{Boundary, Live};
    use tokio::time::timeout;

    use super::*;

    fn cam() -> (StreamId, SessionId) {
        (StreamId::new("live", "cam").unwrap(), SessionId::from_random(7))
    }

    /// With two segments.
    fn publish(registry: &StreamRegistry) -> (relay::StreamWriter, Vec<relay::TrackWriter>) {
        let (id, session) = cam();
        let mut stream = registry.open(id, session).unwrap();
        let aac_lc = aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap();
        let mut tracks = stream.open(StreamRecord {
            session,
            epoch: 2,
            part_hold_back_ms: 1536,
            frame_rate: None,
            tracks: vec![TrackRecord {
                id: TrackId(0),
                name: "a".into(),
                codec: CodecConfig::Aac(aac_lc),
                part_target_ms: 512,
                reorder_delay: 0,
                derived: None,
            }],
            live: None,
        });
        let track = &mut tracks[0];
        track.open_group(0, 0);
        for msn in 0..2 {
            track.push_boundary(&Boundary {
                msn,
                part: 0,
                start: 96_000 * i64::try_from(msn).unwrap(),
                program_date_time_ms: 1_800_000_000_000,
                discontinuity_sequence: 0,
                independent: true,
                gap: Some(96_000),
            });
        }
        stream.go_live(Live {
            target_duration_s: 3,
            window_ms: 21_000,
            bandwidth: vec![relay::Bandwidth::default()],
            captions: Captions::default(),
        });
        (stream, tracks)
    }

    #[tokio::test]
    async fn what_is_there_before_the_origin_is_in_the_catalog_at_once() {
        let registry = StreamRegistry::default();
        let _published = publish(&registry);
        let catalog = Catalog::new(hls::Metrics::default());
        let _origin = Origin::new(registry, catalog.clone());
        assert_eq!(catalog.get(&cam().0).unwrap().state(), State::Live);
    }

    /// Whoever has it open reads on elsewhere, and then here.
    #[tokio::test]
    async fn a_session_that_moves_away_does_not_end_and_may_come_back() {
        let (registry, stop) = (StreamRegistry::default(), CancellationToken::new());
        let catalog = Catalog::new(hls::Metrics::default());
        let running = tokio::spawn(Origin::new(registry.clone(), catalog.clone()).run(stop.clone()));
        // The one that is live, and is not this one.
        let live_but = async |other: Option<&Arc<StreamIndex>>| {
            let looking = async {
                loop {
                    let live = catalog.get(&cam().0).filter(|index| index.state() == State::Live);
                    if let Some(index) =
                        live.filter(|index| !other.is_some_and(|other| Arc::ptr_eq(index, other)))
                    {
                        return index;
                    }
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(20), looking).await.expect("it is never packaged")
        };
        let (stream, tracks) = publish(&registry);
        let first = live_but(None).await;
        stream.set_moved();
        drop((tracks, stream));
        // At once, as when the owner before it is gone on with: nobody has looked in between.
        let _back = publish(&registry);
        live_but(Some(&first)).await;
        assert_eq!(first.state(), State::Live, "its viewers were told that it is over");
        stop.cancel();
        running.await.unwrap();
    }
}
