//! A clip as ingest hands it on: access units out of ffmpeg's FLV.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use media::codec::Access;
use media::flv::{Tracks, Video};
use media::{CodecConfig, VideoConfig};
use pipe::SourceUnit;

const FLV_HEADER_BYTES: usize = 13;
const TAG_HEADER_BYTES: usize = 11;
const TAG_VIDEO: u8 = 9;
/// FLV's milliseconds, on our clock.
const TICKS_PER_MS: i64 = 90;

pub(super) struct Source {
    pub(super) config: CodecConfig,
    pub(super) units: Vec<SourceUnit>,
    pub(super) seconds: f64,
}

/// The pictures of an H.264 `clip`, every key forced.
pub(super) fn read(clip: &Path, frame_rate: u32) -> Result<Source> {
    let flv = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-i"])
        .arg(clip)
        .args(["-an", "-c", "copy", "-f", "flv", "-"])
        .output()
        .context("ffmpeg")?;
    ensure!(flv.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&flv.stderr));
    let flv = Bytes::from(flv.stdout);
    let (mut tracks, mut config, mut units) = (Tracks::default(), None, Vec::new());
    let mut at = FLV_HEADER_BYTES;
    while let Some(&[kind, s0, s1, s2, t0, t1, t2, t3, ..]) = flv.get(at..at + TAG_HEADER_BYTES) {
        let size = u32::from_be_bytes([0, s0, s1, s2]) as usize;
        let stamp_ms = i64::from(u32::from_be_bytes([t3, t0, t1, t2]));
        at += TAG_HEADER_BYTES;
        ensure!(at + size <= flv.len(), "ffmpeg's FLV ends in the middle");
        let body = flv.slice(at..at + size);
        at += size + 4;
        if kind != TAG_VIDEO {
            continue;
        }
        match Video::parse(body, &mut tracks)? {
            Video::SequenceHeader { codec, record } => config = Some(VideoConfig::parse(codec, record)?),
            Video::Unit { composition_offset_ms, data, .. } => {
                let config: &VideoConfig = config.as_ref().context("pictures before their configuration")?;
                let key = config.access(&data) == Some(Access::Key);
                units.push(SourceUnit {
                    pts: (stamp_ms + i64::from(composition_offset_ms)) * TICKS_PER_MS,
                    dts: stamp_ms * TICKS_PER_MS,
                    duration: 90_000 / frame_rate,
                    key,
                    force: key,
                    data,
                });
            }
            Video::EndOfSequence | Video::Info => {}
        }
    }
    let config = config.context("no pictures")?.into();
    Ok(Source { config, seconds: units.len() as f64 / f64::from(frame_rate), units })
}
