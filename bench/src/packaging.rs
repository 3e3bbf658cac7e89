//! What a unit costs from the log to the finished part, from the publisher's message to the playlist, and what the
//! playlist itself costs.

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hls::http::Head;
use hls::{
    Announcement, Bandwidth, Catalog, Part, RenditionHeader, SegmentStart, StreamHeader, StreamWriter,
};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use media::cmaf::{Init, init_segment};
use media::{Captions, SessionId, StreamId, Timescale};
use origin::Packager;
use relay::{Frame, Kind, Read, TrackRecord};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::measure::{Samples, cpu_time_of, interleaved, micros};
use crate::node::{DEFAULT_PART, LOW_PART, Node, Publisher};
use crate::synthetic::Message;
use crate::table::{Table, Target};

/// Per access unit, from log frame to finished part.
const PACKAGING_MICROS_MAX: f64 = 0.5;

/// Media in the log that is packaged over and over, below what a ring keeps.
const LOG: Duration = Duration::from_secs(24);
/// Media of one measured round of the whole way.
const ROUND: Duration = Duration::from_secs(20);
/// After this much media the store holds as much as it ever will.
const STORE_FULL: Duration = Duration::from_secs(80);

const DELTA: Option<&str> = Some("_HLS_skip=YES");

const COLUMNS: &[&str] = &["min", "median"];

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let rounds = if options.quick { 7 } else { 25 };
    Ok(vec![packager(rounds)?, whole_way(rounds)?, playlist(rounds)?])
}

/// The packager alone, beside what it would cost just to put a part into one buffer.
fn packager(rounds: usize) -> Result<Table> {
    let mut table = Table::new("log frame to finished part, CPU us per access unit", COLUMNS);
    for (profile, part_target) in [("default", DEFAULT_PART), ("low", LOW_PART)] {
        for track in logged(part_target)? {
            let [packaged, copied] = interleaved(
                rounds,
                [&mut || track.per_unit(|| drop(black_box(track.package()))), &mut || {
                    track.per_unit(|| drop(black_box(track.copy())))
                }],
            );
            let Track { name, units_per_part, .. } = track;
            table.judge(
                format!("{profile}: {name}, parts of {units_per_part:.0}"),
                &[packaged.min(), packaged.median()],
                Target { column: 1, limit: PACKAGING_MICROS_MAX },
            );
            table.tell("    reference: copying a part into one buffer", &[copied.min(), copied.median()]);
        }
    }
    Ok(table)
}

/// A track as it lies in the log.
struct Track {
    name: &'static str,
    record: TrackRecord,
    frames: Vec<Frame>,
    units: usize,
    units_per_part: f64,
}

impl Track {
    fn per_unit(&self, work: impl FnOnce()) -> f64 {
        micros(cpu_time_of(work)) / self.units as f64
    }

    fn package(&self) -> Vec<Part> {
        let mut packager = Packager::new(&self.record);
        let parts =
            self.frames.iter().filter_map(|frame| packager.push(frame).expect("our own log is sound"));
        parts.collect()
    }

    /// Every part as one buffer, with no box around it.
    fn copy(&self) -> Vec<Vec<u8>> {
        let parts = self.frames.split(|frame| frame.kind() == Kind::Boundary);
        parts
            .map(|part| {
                let units = || part.iter().filter(|frame| frame.kind() == Kind::Unit);
                let payload = |frame: &Frame| frame.wire().len() - relay::HEADER_BYTES;
                let mut buffer = Vec::with_capacity(units().map(payload).sum());
                units().for_each(|frame| buffer.extend_from_slice(&frame.wire()[relay::HEADER_BYTES..]));
                buffer
            })
            .collect()
    }
}

/// Publishes synthetic media and takes the log of its tracks.
fn logged(part_target: Duration) -> Result<Vec<Track>> {
    let node = Node::new(part_target);
    let id = StreamId::new("live", "bench")?;
    let mut publisher = node.publish(&id, LOG)?;
    publish(&mut publisher, LOG)?;
    let stream = node.registry.get(&id).context("the stream is published")?;
    let tracks = stream.tracks().iter().map(|track| {
        let (mut cursor, mut frames) = (track.oldest(), Vec::new());
        while track.read(&mut cursor, false, &mut frames) == Read::Frames {}
        let count = |kind| frames.iter().filter(|frame: &&Frame| frame.kind() == kind).count();
        let (units, parts) = (count(Kind::Unit), count(Kind::Boundary));
        let record = track.record();
        Track {
            name: if &*record.name == "v" { "video" } else { "audio" },
            record: record.clone(),
            frames,
            units,
            units_per_part: units as f64 / parts as f64,
        }
    });
    Ok(tracks.collect())
}

fn publish(publisher: &mut Publisher, media: Duration) -> Result<()> {
    loop {
        let message = publisher.next_message();
        let over = message.time >= media;
        publisher.push(message)?;
        if over {
            return Ok(());
        }
    }
}

/// Everything that happens to a message after RTMP: stream clock, cutter, log, packager, index, playlists.
fn whole_way(rounds: usize) -> Result<Table> {
    let mut table = Table::new("publisher's message to playlist, CPU us per access unit", COLUMNS);
    let (mut default, mut low) = (Way::new(DEFAULT_PART)?, Way::new(LOW_PART)?);
    let [default, low] =
        interleaved(rounds, [&mut || default.micros_per_unit(), &mut || low.micros_per_unit()]);
    table.tell("default: video and audio", &[default.min(), default.median()]);
    table.tell("low: video and audio", &[low.min(), low.median()]);
    table.note("with playlists rendered and compressed, and the copy into the log; 77 units a second");
    Ok(table)
}

/// A node on one thread, so that this thread's CPU time is all there is.
struct Way {
    runtime: Runtime,
    publisher: Publisher,
}

impl Way {
    fn new(part_target: Duration) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let node = Node::new(part_target);
        let mut publisher = node.publish(&StreamId::new("live", "bench")?, STORE_FULL)?;
        runtime.spawn(node.origin().run(CancellationToken::new()));
        let messages = messages_of(&mut publisher, STORE_FULL);
        runtime.block_on(push(&mut publisher, messages));
        let live = node.catalog.streams().iter().any(|stream| stream.state() == hls::State::Live);
        ensure!(live, "the synthetic stream did not go live");
        Ok(Self { runtime, publisher })
    }

    fn micros_per_unit(&mut self) -> f64 {
        let messages = messages_of(&mut self.publisher, ROUND);
        let units = messages.len();
        let time = cpu_time_of(|| self.runtime.block_on(push(&mut self.publisher, messages)));
        micros(time) / units as f64
    }
}

/// Made before the clock runs: a message's body is RTMP's to make.
fn messages_of(publisher: &mut Publisher, media: Duration) -> Vec<Message> {
    let first = publisher.next_message();
    let end = first.time + media;
    let mut messages = vec![first];
    while messages.last().is_some_and(|newest| newest.time < end) {
        messages.push(publisher.next_message());
    }
    messages
}

async fn push(publisher: &mut Publisher, messages: Vec<Message>) {
    for message in messages {
        publisher.push(message).expect("synthetic media is sound");
        // The origin's turn.
        tokio::task::yield_now().await;
    }
}

/// The index alone, with and without a playlist to make.
fn playlist(rounds: usize) -> Result<Table> {
    let mut table = Table::new("playlist of one rendition, CPU us per part", COLUMNS);
    for (profile, part_target) in [("default", DEFAULT_PART), ("low", LOW_PART)] {
        let (mut plain, mut announced, mut asked) = (
            Pushing::new(part_target, false)?,
            Pushing::new(part_target, true)?,
            Pushing::new(part_target, true)?,
        );
        let text = announced.open_for_viewers().and_then(|()| announced.playlist(None))?;
        let delta = asked.open_for_viewers().and_then(|()| asked.playlist(DELTA))?;
        let [stored, rendered, with_delta, gzipped] = interleaved(
            rounds,
            [
                &mut || plain.micros_per_part(),
                &mut || announced.micros_per_part(),
                &mut || asked.micros_per_part_and_delta(),
                &mut || micros(cpu_time_of(|| drop(black_box(gzip(text.as_bytes()))))),
            ],
        );
        let row = |samples: &Samples| [samples.min(), samples.median()];
        table.tell(format!("{profile}: part stored, {} bytes of playlist made", text.len()), &row(&rendered));
        table.tell("    of it, storing without a playlist", &row(&stored));
        table.tell(format!("    with its delta update asked for, {} bytes", delta.len()), &row(&with_delta));
        table.tell(
            format!("    reference: gzip to {} bytes by a new encoder", gzip(text.as_bytes()).len()),
            &row(&gzipped),
        );
    }
    Ok(table)
}

/// Pushes parts into one rendition of an index.
struct Pushing {
    /// Held requests are woken by tasks of it.
    runtime: Runtime,
    catalog: Catalog,
    writer: StreamWriter,
    part_ticks: u32,
    parts_per_segment: u32,
    pushed: u32,
    init: Arc<Init>,
}

impl Pushing {
    const PARTS_PER_ROUND: u32 = 200;
    const PART_BYTES: usize = 1_000;

    fn new(part_target: Duration, announced: bool) -> Result<Self> {
        let codec = logged(part_target)?.into_iter().next().context("a track")?.record.codec;
        let runtime = Builder::new_current_thread().build()?;
        let catalog = Catalog::new(hls::Metrics::default());
        let parts_per_segment = (2.0 / part_target.as_secs_f64()) as u32;
        let name: hls::RenditionName = "v".parse()?;
        let rendition = |name: &str| -> Result<RenditionHeader> {
            let part_target_ms = part_target.as_millis() as u32 + 1;
            Ok(RenditionHeader { name: name.parse()?, codec: codec.clone(), part_target_ms, derived: None })
        };
        let entered = runtime.enter();
        let mut writer = catalog.open(StreamHeader {
            id: StreamId::new("live", "bench")?,
            session: SessionId::from_random(1),
            epoch: 1,
            part_hold_back_ms: 3 * part_target.as_millis() as u32,
            // A minute, which is what an announced window of 28 s keeps: so both sides store equally much.
            retain_bytes_max: 30 * u64::from(parts_per_segment) * Self::PART_BYTES as u64,
            renditions: vec![rendition("v")?, rendition("a")?],
        });
        drop(entered);
        if announced {
            let bandwidth = Bandwidth { peak: 3_000_000, average: 2_500_000 };
            writer.announce(Announcement {
                target_duration_s: 4,
                window_ms: 28_000,
                frame_rate: Some(30.0),
                bandwidths: vec![(name, bandwidth)],
                captions: Captions::default(),
            });
        }
        let init = Arc::new(init_segment(&codec));
        let part_ticks = Timescale::VIDEO.hertz() * 2 / parts_per_segment;
        let mut this = Self { runtime, catalog, writer, part_ticks, parts_per_segment, pushed: 0, init };
        this.push(40 * parts_per_segment);
        Ok(this)
    }

    fn micros_per_part(&mut self) -> f64 {
        micros(cpu_time_of(|| self.push(Self::PARTS_PER_ROUND))) / f64::from(Self::PARTS_PER_ROUND)
    }

    fn push(&mut self, parts: u32) {
        static BODY: [u8; Pushing::PART_BYTES] = [0; Pushing::PART_BYTES];
        let rendition = self.writer.rendition(&"v".parse().expect("a name")).expect("it was opened");
        for number in self.pushed..self.pushed + parts {
            let (msn, part) = (number / self.parts_per_segment, number % self.parts_per_segment);
            let pushed = rendition.push(Part {
                msn: msn.into(),
                part,
                duration: self.part_ticks,
                independent: part == 0,
                gap: false,
                last: part + 1 == self.parts_per_segment,
                body: vec![Bytes::from_static(&BODY)],
                segment: SegmentStart {
                    program_date_time_ms: 1_800_000_000_000 + i64::from(msn) * 2_000,
                    discontinuity_sequence: 0,
                    init: self.init.clone(),
                },
            });
            pushed.expect("parts run on");
        }
        self.pushed += parts;
    }

    /// As [`Self::micros_per_part`], and for each part one viewer who asks for the delta update.
    fn micros_per_part_and_delta(&mut self) -> f64 {
        let time = cpu_time_of(|| {
            for _ in 0..Self::PARTS_PER_ROUND {
                self.push(1);
                black_box(self.playlist(DELTA).expect("it was there before"));
            }
        });
        micros(time) / f64::from(Self::PARTS_PER_ROUND)
    }

    /// Playlists appear with the other rendition's first segment. A segment is half done then.
    fn open_for_viewers(&mut self) -> Result<()> {
        self.push(self.parts_per_segment / 2);
        let audio = self.writer.rendition(&"a".parse()?).context("it was opened")?;
        audio.push(Part {
            msn: 0,
            part: 0,
            duration: self.part_ticks,
            independent: true,
            gap: false,
            last: true,
            body: Vec::new(),
            segment: SegmentStart {
                program_date_time_ms: 1_800_000_000_000,
                discontinuity_sequence: 0,
                init: self.init.clone(),
            },
        })?;
        Ok(())
    }

    /// As viewers get it.
    fn playlist(&self, query: Option<&str>) -> Result<String> {
        let path = format!("/hls/live/bench/{}/v/index.m3u8", SessionId::from_random(1));
        let body = self.runtime.block_on(async {
            let viewer = Ipv4Addr::LOCALHOST.into();
            let head = Head::new(&Method::GET, &path, query, &HeaderMap::new());
            let answer = hls::http::respond(&self.catalog, viewer, &head).await;
            answer.into_body().collect().await
        })?;
        let text = String::from_utf8(body.to_bytes().to_vec())?;
        ensure!(text.starts_with("#EXTM3U"), "no playlist: {text}");
        Ok(text)
    }
}

/// As the index does it.
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 3), Compression::default());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("writing to memory cannot fail")
}
