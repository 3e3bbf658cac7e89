//! What a foreign demuxer makes of the bytes.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One access unit, as ffprobe tells it. Times in seconds.
#[derive(Debug, Clone)]
pub struct Packet {
    pub pts: f64,
    pub dts: f64,
    /// Byte offset in the file.
    pub position: usize,
    pub is_key: bool,
    /// Of the payload.
    pub hash: String,
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
        .arg("packet=pts_time,dts_time,pos,flags,data_hash")
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
            position: self.pos.parse().unwrap_or(0),
            is_key: self.flags.starts_with('K'),
            hash: self.data_hash,
        })
    }
}
