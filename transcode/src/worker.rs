//! Claims the rungs of every stream of this process, and makes them.

use std::sync::Arc;

use media::{SessionId, TrackKind};
use relay::{Stream, StreamRecord, StreamRegistry, TrackWriter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::budget::Budget;
use crate::child::Encoders;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::task::Task;

/// The transcode role.
#[derive(Clone)]
pub struct Worker {
    registry: StreamRegistry,
    encoders: Encoders,
    budget: Budget,
    metrics: Metrics,
}

impl Worker {
    pub fn new(registry: StreamRegistry, encoders: Encoders, budget: Budget, metrics: Metrics) -> Self {
        Self { registry, encoders, budget, metrics }
    }

    /// Runs until `stop`; then children are killed, and the rungs end: whoever packages them should have stopped before.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let mut streams = self.registry.watch();
        let mut known: Vec<SessionId> = Vec::new();
        loop {
            let now = streams.borrow_and_update().clone();
            for stream in now.values().filter(|stream| !known.contains(&stream.session())) {
                let span = info_span!("transcode", stream.id = %stream.id(), session = %stream.session());
                tasks.spawn(self.clone().serve(stream.clone(), stop.clone()).instrument(span));
            }
            known = now.values().map(|stream| stream.session()).collect();
            tokio::select! {
                changed = streams.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// One stream, from the opening of its log on.
    async fn serve(self, stream: Arc<Stream>, stop: CancellationToken) {
        let mut record = stream.record();
        // Closes when the publisher leaves before its log opened.
        let opened = tokio::select! {
            opened = record.wait_for(Option::is_some) => opened.ok().and_then(|record| record.clone()),
            () = stop.cancelled() => return,
        };
        let Some(record) = opened else { return };
        let jobs = TaskTracker::new();
        for (order, writers) in orders(&record, stream.claim()) {
            let Some(track) = stream.tracks().iter().find(|track| track.record().id == order.from) else {
                continue;
            };
            let span = info_span!("job", kind = ?order.kind);
            // Sound has a keyframe in each frame, and who watches on demand says so itself.
            let reads_segments = order.kind == TrackKind::Video && !order.on_demand;
            let reads = reads_segments.then(|| stream.segments().hold());
            let (encoders, budget) = (self.encoders.clone(), self.budget.clone());
            let task =
                Task::new(order, track.clone(), writers, encoders, budget, &self.metrics, stream.clone());
            let run = stop.clone().run_until_cancelled_owned(task.run());
            jobs.spawn(
                async move {
                    let _reads = reads;
                    run.await
                }
                .instrument(span),
            );
        }
        jobs.close();
        jobs.wait().await;
    }
}

/// Each order with the writers of its tracks, in its order.
fn orders(record: &StreamRecord, mut writers: Vec<TrackWriter>) -> Vec<(Order, Vec<TrackWriter>)> {
    let orders = Order::all(record).into_iter().filter_map(|order| {
        let claimed = order.tracks.iter().filter_map(|track| {
            let place = writers.iter().position(|writer| writer.record().id == track.id)?;
            Some(writers.swap_remove(place))
        });
        let claimed: Vec<_> = claimed.collect();
        (claimed.len() == order.tracks.len()).then_some((order, claimed))
    });
    orders.collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use media::codec::{aac, h264};
    use media::{AccessUnit, CodecConfig, StreamId, TrackId};
    use relay::{Bandwidth, Boundary, Derived, Frame, Kind, Read, StreamWriter, Track, TrackRecord, Wanted};
    use tokio::time::timeout;

    use super::*;
    use crate::child::Settings;

    /// Longer than anything here takes, on any machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn h264(width: u32, height: u32) -> CodecConfig {
        CodecConfig::H264(h264::Config::nominal(width, height, 30.0, 700_000).unwrap())
    }

    fn sound() -> CodecConfig {
        CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap())
    }

    fn track(number: u16, name: &str, codec: CodecConfig, from: Option<u16>) -> TrackRecord {
        TrackRecord {
            id: TrackId(number),
            name: name.into(),
            codec,
            part_target_ms: 501,
            reorder_delay: 0,
            derived: from.map(|from| Derived {
                from: TrackId(from),
                every: 1,
                bandwidth: Bandwidth { peak: 800_000, average: 700_000 },
                on_demand: false,
                for_webrtc: false,
                layer: false,
            }),
        }
    }

    fn record(session: SessionId, tracks: Vec<TrackRecord>) -> StreamRecord {
        StreamRecord {
            session,
            epoch: 1,
            part_hold_back_ms: 1_503,
            frame_rate: Some(30.0),
            tracks,
            live: None,
        }
    }

    /// A picture with two rungs and a sound with one.
    fn tracks() -> Vec<TrackRecord> {
        vec![
            track(0, "v", h264(1280, 720), None),
            track(1, "a", sound(), None),
            track(2, "v480", h264(854, 480), Some(0)),
            track(3, "v360", h264(640, 360), Some(0)),
            track(4, "a2", sound(), Some(1)),
        ]
    }

    struct Published {
        stream: Arc<Stream>,
        /// Of what is sent.
        own: Vec<TrackWriter>,
        writer: StreamWriter,
    }

    fn publish(registry: &StreamRegistry, name: &str, session: u64) -> Published {
        let (id, session) = (StreamId::new("live", name).unwrap(), SessionId::from_random(session));
        let mut writer = registry.open(id.clone(), session).unwrap();
        let own = writer.open(record(session, tracks()));
        Published { stream: registry.get(&id).unwrap(), own, writer }
    }

    impl Published {
        fn track(&self, name: &str) -> Arc<Track> {
            self.stream.tracks().iter().find(|track| &*track.record().name == name).unwrap().clone()
        }

        /// `seconds` of pictures, in parts of one.
        fn pictures(&mut self, seconds: u32) {
            let video = &mut self.own[0];
            video.open_group(0, 0);
            for number in 0..30 * seconds {
                let start = i64::from(number) * 3_000;
                if number % 30 == 0 {
                    video.push_boundary(&Boundary {
                        msn: 0,
                        part: number / 30,
                        start,
                        program_date_time_ms: 0,
                        discontinuity_sequence: 0,
                        independent: number == 0,
                        gap: None,
                    });
                }
                let data = Bytes::from_static(b"picture");
                video.push_unit(&AccessUnit {
                    dts: start,
                    pts: start,
                    duration: 3_000,
                    key: number == 0,
                    data,
                });
            }
        }

        fn leave(self) {
            drop((self.own, self.writer));
        }
    }

    /// No encoder can be started: what a worker does does not depend on one.
    fn worker(registry: &StreamRegistry) -> Worker {
        let settings = Settings {
            executable: "/nonexistent/tidecast-encoder".into(),
            data_dir: "/nonexistent".into(),
            order: Vec::new(),
        };
        let metrics = Metrics::default();
        Worker::new(registry.clone(), Encoders::new(settings), Budget::new(4), metrics)
    }

    /// Everything in it, up to its end; fails if that does not come.
    async fn ends(track: &Track) -> Vec<Frame> {
        let (mut cursor, mut frames) = (track.oldest(), Vec::new());
        let reading = async {
            loop {
                let appended = track.appended();
                match track.read(&mut cursor, false, &mut frames) {
                    Read::Ended => return,
                    Read::Idle => appended.await,
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("the rung ends");
        frames
    }

    /// Where each order reads, and what it writes, of those that can be served with `writers`.
    fn served(stream: &Stream, writers: Vec<TrackWriter>) -> Vec<(TrackId, Vec<String>)> {
        let name = |writer: &TrackWriter| writer.record().name.to_string();
        let orders = orders(&record(stream.session(), tracks()), writers);
        orders.iter().map(|(order, writers)| (order.from, writers.iter().map(name).collect())).collect()
    }

    #[test]
    fn an_order_is_given_the_writers_of_its_tracks_or_none_is_served() {
        let registry = StreamRegistry::default();
        let published = publish(&registry, "cam", 1);
        let mut writers = published.stream.claim();
        writers.reverse();
        let pictures = ["v480", "v360"].map(str::to_owned).to_vec();
        let sound = (TrackId(1), vec!["a2".to_owned()]);
        assert_eq!(served(&published.stream, writers), [(TrackId(0), pictures), sound.clone()]);

        let published = publish(&registry, "other", 2);
        let mut writers = published.stream.claim();
        writers.retain(|writer| &*writer.record().name != "v360");
        assert_eq!(served(&published.stream, writers), [sound], "one child makes all pictures");
    }

    #[tokio::test]
    async fn rungs_that_nobody_can_make_have_nothing_and_end_with_their_source() {
        let (registry, stop) = (StreamRegistry::default(), CancellationToken::new());
        let working = tokio::spawn(worker(&registry).run(stop.clone()));
        // It comes while the worker waits for streams.
        let mut published = publish(&registry, "cam", 1);
        held(&published.stream, true).await;
        let rungs = ["v480", "v360"].map(|name| published.track(name));
        published.pictures(4);
        published.leave();
        for rung in &rungs {
            let kinds: Vec<_> = ends(rung).await.iter().map(Frame::kind).collect();
            assert_eq!(kinds, [Kind::End]);
        }
        stop.cancel();
        timeout(PATIENCE, working).await.expect("it stops").expect("it does not panic");
    }

    #[tokio::test]
    async fn a_worker_that_stops_ends_the_rungs_of_every_stream_and_leaves_the_sources_alone() {
        let (registry, stop) = (StreamRegistry::default(), CancellationToken::new());
        let early = publish(&registry, "early", 1);
        let working = tokio::spawn(worker(&registry).run(stop.clone()));
        let late = publish(&registry, "late", 2);
        for published in [&early, &late] {
            held(&published.stream, true).await;
        }
        stop.cancel();
        timeout(PATIENCE, working).await.expect("it stops").expect("it does not panic");
        for published in [&early, &late] {
            for name in ["v480", "v360", "a2"] {
                ends(&published.track(name)).await;
            }
            let video = published.track("v");
            assert_eq!(video.read(&mut video.oldest(), false, &mut Vec::new()), Read::Idle);
        }
    }

    /// Waits until somebody reads the stream in segments, or nobody any more.
    async fn held(stream: &Stream, is_held: bool) {
        let segments = stream.segments();
        let holding = async {
            loop {
                let woken = segments.woken();
                if (segments.look(Instant::now()) == Wanted::Held) == is_held {
                    return;
                }
                woken.await;
            }
        };
        timeout(PATIENCE, holding).await.expect("a job of pictures begins, and ends");
    }

    /// A publisher by WebRTC is asked for keyframes while a job of pictures needs them, and no longer.
    #[tokio::test]
    async fn pictures_are_read_in_segments_until_their_job_is_over_and_sound_never() {
        let (registry, stop) = (StreamRegistry::default(), CancellationToken::new());
        let working = tokio::spawn(worker(&registry).run(stop.clone()));
        let mut published = publish(&registry, "cam", 1);
        held(&published.stream, true).await;
        drop(published.own.remove(0));
        held(&published.stream, false).await;
        ends(&published.track("v480")).await;
        let sound = published.track("a2");
        assert_ne!(sound.read(&mut sound.oldest(), false, &mut Vec::new()), Read::Ended, "it goes on");
        stop.cancel();
        timeout(PATIENCE, working).await.expect("it stops").expect("it does not panic");
    }
}
