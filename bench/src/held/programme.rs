//! A stream whose parts are published by hand, so that the call can be timed: what the origin does after packaging.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use hls::{
    Announcement, Bandwidth, Catalog, Metrics, Part, RenditionHeader, RenditionName, SegmentStart,
    StreamHeader, StreamWriter,
};
use media::cmaf::{Init, init_segment};
use media::{Captions, CodecConfig, SessionId, StreamId};

use crate::synthetic::{AUDIO_SPECIFIC_CONFIG, AVCC};

pub(crate) const PART: Duration = Duration::from_millis(500);
const PARTS_PER_SEGMENT: u64 = 4;
const SEGMENT_MS: u64 = 2_000;
const TARGET_DURATION_S: u32 = 3;
/// As ingest announces it: seven target durations.
const WINDOW_MS: u32 = 7 * TARGET_DURATION_S * 1000;
/// Media from before anybody came: more than the playlist lists and the store keeps.
const PARTS_BEFORE: u64 = 40 * PARTS_PER_SEGMENT;

/// Nobody fetches it.
const BODY: &[u8] = &[0; 1_000];

pub(crate) struct Programme {
    pub(crate) catalog: Catalog,
    pub(crate) metrics: Metrics,
    writer: StreamWriter,
    video: Rendition,
    audio: Rendition,
    /// Parts that every rendition has.
    published: u64,
}

struct Rendition {
    name: RenditionName,
    init: Arc<Init>,
    part_ticks: u32,
}

impl Programme {
    /// Where viewers find the video.
    pub(crate) fn playlist() -> String {
        format!("/hls/live/bench/{}/v/index.m3u8", Self::session())
    }

    /// A stream with its window full. To be called within the runtime that wakes held requests.
    pub(crate) fn open() -> Result<Self> {
        let metrics = Metrics::default();
        let catalog = Catalog::new(metrics.clone());
        let video = CodecConfig::from_record(b"avc1", Bytes::from_static(AVCC))?;
        let audio = CodecConfig::from_record(b"mp4a", Bytes::from_static(AUDIO_SPECIFIC_CONFIG))?;
        let part_target_ms = PART.as_millis() as u32 + 1;
        let header = |name: &str, codec: &CodecConfig| -> Result<RenditionHeader> {
            Ok(RenditionHeader { name: name.parse()?, codec: codec.clone(), part_target_ms, derived: None })
        };
        let mut writer = catalog.open(StreamHeader {
            id: StreamId::new("live", "bench")?,
            session: Self::session(),
            epoch: 1,
            part_hold_back_ms: 3 * part_target_ms,
            retain_bytes_max: 256 << 20,
            renditions: vec![header("v", &video)?, header("a", &audio)?],
        });
        writer.announce(Announcement {
            target_duration_s: TARGET_DURATION_S,
            window_ms: WINDOW_MS,
            frame_rate: Some(30.0),
            bandwidths: vec![("v".parse()?, Bandwidth { peak: 3_000_000, average: 2_500_000 })],
            captions: Captions::default(),
        });
        let (video, audio) = (Rendition::new("v", &video)?, Rendition::new("a", &audio)?);
        let mut this = Self { catalog, metrics, writer, video, audio, published: 0 };
        for _ in 0..PARTS_BEFORE {
            this.publish_audio()?;
            let part = this.next_video();
            this.publish_video(part)?;
        }
        Ok(this)
    }

    /// MSN and number of the part that [`Self::publish_video`] publishes next.
    pub(crate) fn next(&self) -> (u64, u64) {
        (self.published / PARTS_PER_SEGMENT, self.published % PARTS_PER_SEGMENT)
    }

    pub(crate) fn publish_audio(&mut self) -> Result<()> {
        let part = self.audio.part(self.next());
        self.writer.rendition(&self.audio.name).context("opened above")?.push(part)?;
        Ok(())
    }

    pub(crate) fn next_video(&self) -> Part {
        self.video.part(self.next())
    }

    /// What is timed.
    pub(crate) fn publish_video(&mut self, part: Part) -> Result<()> {
        self.writer.rendition(&self.video.name).context("opened above")?.push(part)?;
        self.published += 1;
        Ok(())
    }

    fn session() -> SessionId {
        SessionId::from_random(1)
    }
}

impl Rendition {
    fn new(name: &str, codec: &CodecConfig) -> Result<Self> {
        let part_ticks = (PART.as_secs_f64() * f64::from(codec.timescale().hertz())) as u32;
        Ok(Self { name: name.parse()?, init: Arc::new(init_segment(codec)), part_ticks })
    }

    fn part(&self, (msn, part): (u64, u64)) -> Part {
        Part {
            msn,
            part: part as u32,
            duration: self.part_ticks,
            independent: part == 0,
            gap: false,
            last: part + 1 == PARTS_PER_SEGMENT,
            body: vec![Bytes::from_static(BODY)],
            segment: SegmentStart {
                program_date_time_ms: 1_800_000_000_000 + (msn * SEGMENT_MS) as i64,
                discontinuity_sequence: 0,
                init: Arc::clone(&self.init),
            },
        }
    }
}
