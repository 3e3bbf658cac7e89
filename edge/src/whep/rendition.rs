//! One track on its way from the log to packets, for the viewers of one shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use media::{CodecConfig, Timescale, TrackKind};
use relay::{Cursor, Frame as LogEntry, Kind, Read, Track};
use rtc::outbound::{ClockAnchor, History};
use rtc::packetize::{Av1Packetizer, Format, Frame, H264Packetizer, OpusPacketizer, Source, VpxPacketizer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::backlog::Backlog;
use super::ring::{Entry, Ring};

/// What the readers of a shard have read and it has not taken. Then they wait, and if that lasts, jump in the log.
pub(super) const READ_AHEAD_MAX: usize = 64;

/// Numbers packetizers, in all shards.
static SOURCES: AtomicU64 = AtomicU64::new(0);

/// What a reader tells its shard.
#[derive(Debug)]
pub(super) enum Told {
    Frame(Frame),
    /// By what the publisher's clock is compared to ours.
    Anchor(ClockAnchor),
}

/// Of one rendition.
pub(super) struct Rendition {
    pub(super) track: Arc<Track>,
    pub(super) history: History,
    pub(super) anchor: Option<ClockAnchor>,
    /// `None` until somebody wants it.
    reader: Option<Reader>,
}

/// A task that ends with whoever has this.
pub(super) struct Reader(pub(super) JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Rendition {
    pub(super) fn new(track: Arc<Track>) -> Self {
        let source = Source(SOURCES.fetch_add(1, Ordering::Relaxed));
        Self { track, history: History::new(source), anchor: None, reader: None }
    }

    pub(super) fn is_read(&self) -> bool {
        self.reader.is_some()
    }

    /// In URLs.
    pub(super) fn name(&self) -> &str {
        &self.track.record().name
    }

    /// Starts reading, unless it is read. Within the shard's runtime. `tell` is how the shard knows whose it is.
    pub(super) fn want<T: Send + 'static>(
        &mut self,
        to: &mpsc::Sender<T>,
        tell: impl Fn(Told) -> T + Send + 'static,
    ) {
        if self.reader.is_none()
            && let Some(packetizer) = Packetizer::new(self.history.source(), &self.track.record().codec)
        {
            let (track, to) = (self.track.clone(), to.clone());
            self.reader =
                Some(Reader(tokio::spawn(async move { read(&track, packetizer, &to, tell).await })));
        }
    }

    pub(super) fn push(&mut self, frame: Frame, ring: &mut Ring<Arc<Frame>>, now: Instant) {
        let frame = Arc::new(frame);
        self.history.push(frame.clone(), now);
        ring.push(Entry {
            pts: frame.pts(),
            key: frame.is_key(),
            arrived: now,
            bytes: frame.bytes(),
            packets: frame,
        });
    }
}

enum Packetizer {
    H264(H264Packetizer),
    Av1(Av1Packetizer),
    Vpx(VpxPacketizer),
    Opus(OpusPacketizer),
}

impl Packetizer {
    /// `None` for what WebRTC does not carry.
    fn new(source: Source, codec: &CodecConfig) -> Option<Self> {
        Some(match codec {
            CodecConfig::H264(config) => Self::H264(H264Packetizer::new(source, config.clone())),
            CodecConfig::Av1(_) => Self::Av1(Av1Packetizer::new(source)),
            CodecConfig::Vp8(_) => Self::Vpx(VpxPacketizer::vp8(source)),
            CodecConfig::Vp9(_) => Self::Vpx(VpxPacketizer::vp9(source)),
            CodecConfig::Opus(_) => Self::Opus(OpusPacketizer::new(source)),
            CodecConfig::H265(_) | CodecConfig::Aac(_) => return None,
        })
    }

    fn packetize(&mut self, entry: &LogEntry) -> Result<Option<Frame>, String> {
        let unit = entry.to_unit().map_err(|error| error.to_string())?;
        let group = entry.group();
        match self {
            Self::H264(h264) => h264.packetize(&unit, group).map_err(|error| error.to_string()),
            Self::Av1(av1) => av1.packetize(&unit, group).map_err(|error| error.to_string()),
            Self::Vpx(vpx) => Ok(vpx.packetize(&unit, group)),
            Self::Opus(opus) => opus.packetize(&unit, group).map(Some).map_err(|error| error.to_string()),
        }
    }

    fn configure(&mut self, entry: &LogEntry) -> Result<(), String> {
        match (self, entry.to_config()) {
            (Self::H264(h264), Ok(CodecConfig::H264(config))) => h264.set_config(config),
            // Of these all that a decoder needs comes with each keyframe.
            (Self::Av1(_), Ok(CodecConfig::Av1(_)))
            | (Self::Vpx(_), Ok(CodecConfig::Vp8(_) | CodecConfig::Vp9(_)))
            | (Self::Opus(_), Ok(CodecConfig::Opus(_))) => {}
            (_, Ok(other)) => return Err(format!("{} in the middle of another codec", other.rfc6381())),
            (_, Err(error)) => return Err(error.to_string()),
        }
        Ok(())
    }
}

/// Formats of video, of those that WebRTC carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Formats(u8);

impl Formats {
    pub(super) fn of(formats: impl IntoIterator<Item = Format>) -> Self {
        Self(formats.into_iter().fold(0, |all, format| all | 1 << format as u8))
    }

    fn has(self, codec: &CodecConfig) -> bool {
        format(codec).is_some_and(|format| self.0 >> format as u8 & 1 == 1)
    }
}

/// Of a picture; `None` of what WebRTC does not carry, and of sound.
pub(super) fn format(codec: &CodecConfig) -> Option<Format> {
    match codec {
        CodecConfig::H264(_) => Some(Format::H264),
        CodecConfig::Av1(_) => Some(Format::Av1),
        CodecConfig::Vp8(_) => Some(Format::Vp8),
        CodecConfig::Vp9(_) => Some(Format::Vp9),
        CodecConfig::H265(_) | CodecConfig::Aac(_) | CodecConfig::Opus(_) => None,
    }
}

/// From the newest keyframe to the end of the track.
async fn read<T>(track: &Track, mut packetizer: Packetizer, to: &mpsc::Sender<T>, tell: impl Fn(Told) -> T) {
    // A rung that is made on demand is made as long as it is read.
    let _wanted = track.demand().hold();
    let mut cursor = track.start();
    // Who begins, or jumps, may jump over what its decoder has to know.
    let mut entries = track.preface(cursor);
    let mut backlog = matches!(packetizer, Packetizer::Opus(_)).then(|| Backlog::new(Instant::now()));
    loop {
        let appended = track.appended();
        let read = track.read(&mut cursor, true, &mut entries);
        if read == Read::Jumped
            && let Some(first) = entries.first()
        {
            let place = Cursor { group: first.group(), frame: first.index(), ..cursor };
            entries.splice(..0, track.preface(place));
        }
        for entry in entries.drain(..) {
            let told = match entry.kind() {
                Kind::Unit if backlog.as_mut().is_some_and(|backlog| takes(backlog, &entry)) => Ok(None),
                Kind::Unit => packetizer.packetize(&entry).map(|frame| frame.map(Told::Frame)),
                Kind::Config => packetizer.configure(&entry).map(|()| None),
                Kind::Boundary => Ok(anchor(&entry).map(Told::Anchor)),
                Kind::End => Ok(None),
            };
            match told {
                Ok(None) => {}
                Ok(Some(told)) => {
                    if to.send(tell(told)).await.is_err() {
                        return;
                    }
                }
                Err(error) => warn!(rendition.name = &*track.record().name, %error, "not sent by WebRTC"),
            }
        }
        match read {
            Read::Frames | Read::Jumped => {}
            Read::Idle => appended.await,
            Read::Lost => {
                cursor = track.start();
                entries = track.preface(cursor);
            }
            Read::Ended => return,
        }
    }
}

fn takes(backlog: &mut Backlog, entry: &LogEntry) -> bool {
    let duration = entry.to_unit().map(|unit| Timescale::OPUS.duration(unit.duration.into()));
    // What makes no sense is told by the packetizer.
    duration.is_ok_and(|duration| backlog.takes(duration, Instant::now()))
}

fn anchor(entry: &LogEntry) -> Option<ClockAnchor> {
    let boundary = entry.to_boundary().ok()?;
    let millis = u64::try_from(boundary.program_date_time_ms).ok()?;
    Some(ClockAnchor { pts: boundary.start, wall: Duration::from_millis(millis) })
}

/// The renditions of a stream that suit whoever takes `formats`, the largest first, and its sound. Of a publisher that sends
/// layers these are what it sends, and nothing that would have to be encoded.
pub(super) fn choose(tracks: &[Arc<Track>], formats: Formats) -> (Vec<Rendition>, Option<Rendition>) {
    let of_kind = |kind| {
        let of_kind = tracks.iter().filter(move |track| track.record().codec.kind() == kind);
        of_kind.filter(|track| track.record().suits_webrtc()).cloned()
    };
    let mut video: Vec<_> =
        of_kind(TrackKind::Video).filter(|track| formats.has(&track.record().codec)).collect();
    let has_layers = video.iter().any(|track| track.record().derived.is_some_and(|derived| derived.layer));
    if has_layers {
        video.retain(|track| track.record().is_sent());
    }
    // The publisher's own is the first of equals: the sort is stable, and its track the first. Where there are layers it is the
    // largest that comes, however small that was when the session began.
    video.sort_by_key(|track| {
        (has_layers && track.record().derived.is_some(), std::cmp::Reverse(pixels(track)))
    });
    // Who takes what the publisher sends needs nothing that is made of it in the same size.
    let own = video.iter().find(|track| track.record().derived.is_none()).map(|own| pixels(own));
    video.retain(|track| track.record().is_sent() || own != Some(pixels(track)));
    let audio = of_kind(TrackKind::Audio).next();
    (video.into_iter().map(Rendition::new).collect(), audio.map(Rendition::new))
}

/// Of a picture, as it was when the session began.
pub(super) fn pixels(track: &Track) -> Option<u64> {
    track.record().codec.dimensions().map(|(width, height)| u64::from(width) * u64::from(height))
}

#[cfg(test)]
mod tests;
