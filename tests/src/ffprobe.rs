//! What a foreign demuxer makes of the bytes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One access unit, as ffprobe tells it. Times in seconds.
#[derive(Debug, Clone)]
pub struct Packet {
    pub pts: f64,
    pub dts: f64,
    pub duration: f64,
    /// Byte offset in the file.
    pub position: usize,
    pub is_key: bool,
    /// Of the payload.
    pub hash: String,
}

impl Packet {
    #[must_use]
    pub fn end_dts(&self) -> f64 {
        self.dts + self.duration
    }
}

#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    packets: Vec<RawPacket>,
}

#[derive(Deserialize)]
struct RawPacket {
    pts_time: String,
    dts_time: String,
    #[serde(default)]
    duration_time: String,
    #[serde(default)]
    pos: String,
    flags: String,
    data_hash: String,
}

/// All packets of the first video ("v:0") or audio ("a:0") stream of a file.
///
/// # Errors
/// If ffprobe complains about anything at all.
pub fn packets(path: &Path, stream: &str) -> Result<Vec<Packet>> {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "warning",
            "-of",
            "json",
            "-select_streams",
            stream,
            "-show_data_hash",
            "md5",
            "-show_entries",
        ])
        .arg("packet=pts_time,dts_time,duration_time,pos,flags,data_hash")
        .arg(path)
        .output()
        .context("cannot start ffprobe")?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complaints.is_empty(), "ffprobe {}: {complaints}", path.display());
    let report: Report = serde_json::from_slice(&output.stdout)?;
    report.packets.into_iter().map(RawPacket::parse).collect()
}

impl RawPacket {
    fn parse(self) -> Result<Packet> {
        Ok(Packet {
            pts: self.pts_time.parse()?,
            dts: self.dts_time.parse()?,
            duration: self.duration_time.parse().unwrap_or(0.0),
            position: self.pos.parse().unwrap_or(0),
            is_key: self.flags.starts_with('K'),
            hash: self.data_hash,
        })
    }
}

/// The largest time between two packets in decoding order.
#[must_use]
pub fn longest_step(packets: &[Packet]) -> Duration {
    let steps = packets.iter().zip(packets.iter().skip(1)).map(|(packet, next)| next.dts - packet.dts);
    Duration::from_secs_f64(steps.fold(0.0, f64::max))
}
