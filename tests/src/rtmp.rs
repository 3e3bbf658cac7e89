//! An RTMP publisher that sends what it is told, byte by byte if need be; ffmpeg is too polite for that.
//!
//! Written from the specification (RTMP 1.0) and not from our decoder. Blocking, with a limit on every wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use crate::crowd;
use crate::media::clip;

/// The message types of §7.1 that a publisher sends.
pub mod kind {
    pub const SET_CHUNK_SIZE: u8 = 1;
    pub const AUDIO: u8 = 8;
    pub const VIDEO: u8 = 9;
    pub const COMMAND: u8 = 20;
    /// Of no meaning to anybody; a server must skip it.
    pub const UNKNOWN: u8 = 99;
}

/// C1 and C2 (§5.2.3).
const HANDSHAKE_BYTES: usize = 1_536;
/// A loaded machine answers within this, or never.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A connection to a server's RTMP port.
pub struct Rtmp {
    socket: TcpStream,
    chunk_bytes: usize,
    heard: Vec<u8>,
}

impl Rtmp {
    /// From 127.0.0.1.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(server: SocketAddr) -> Result<Self> {
        Self::connect_from(Ipv4Addr::LOCALHOST, server)
    }

    /// From any address of this machine.
    ///
    /// # Errors
    /// As [`Rtmp::connect`].
    pub fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Result<Self> {
        let socket = crowd::connect_from(source, server)?;
        socket.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { socket, chunk_bytes: 128, heard: Vec::new() })
    }

    /// Everything up to a publication that the server accepted, from 127.0.0.1.
    ///
    /// # Errors
    /// If it does not accept.
    pub fn publish(server: SocketAddr, app: &str, name_and_key: &str) -> Result<Self> {
        Self::publish_from(Ipv4Addr::LOCALHOST, server, app, name_and_key)
    }

    /// As [`Rtmp::publish`], from any address of this machine.
    ///
    /// # Errors
    /// As [`Rtmp::publish`].
    pub fn publish_from(source: Ipv4Addr, server: SocketAddr, app: &str, name_and_key: &str) -> Result<Self> {
        let mut rtmp = Self::connect_from(source, server)?;
        rtmp.raw(&opening(app, name_and_key))?;
        rtmp.hear("NetStream.Publish.Start")?;
        rtmp.set_chunk_bytes(65_536)?;
        Ok(rtmp)
    }

    /// # Errors
    /// If the server has closed the connection.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// # Errors
    /// As [`Rtmp::raw`].
    pub fn set_chunk_bytes(&mut self, bytes: u32) -> Result<()> {
        self.send(2, kind::SET_CHUNK_SIZE, 0, 0, &bytes.to_be_bytes())?;
        self.chunk_bytes = bytes as usize;
        Ok(())
    }

    /// One message on the chunk stream `id` (2 to 63).
    ///
    /// # Errors
    /// As [`Rtmp::raw`].
    pub fn send(&mut self, id: u8, kind: u8, stream: u32, stamp: u32, body: &[u8]) -> Result<()> {
        let bytes = chunks(self.chunk_bytes, id, kind, stream, stamp, body);
        self.raw(&bytes)
    }

    /// Waits until the server has said `word`.
    ///
    /// # Errors
    /// If it hangs up or falls silent before.
    pub fn hear(&mut self, word: &str) -> Result<()> {
        let deadline = Instant::now() + ANSWER_MAX;
        while !self.has_heard(word) {
            ensure!(Instant::now() < deadline, "the server did not say {word:?}");
            ensure!(self.read()?, "the server hung up before it said {word:?}: {}", self.words());
        }
        Ok(())
    }

    /// Waits until the server hangs up, and returns what it has said in all.
    ///
    /// # Errors
    /// If it does not.
    pub fn until_closed(&mut self, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        while self.read()? {
            ensure!(Instant::now() < deadline, "still open after {within:?}");
        }
        Ok(self.words())
    }

    fn words(&self) -> String {
        String::from_utf8_lossy(self.heard.get(1 + 2 * HANDSHAKE_BYTES..).unwrap_or_default()).into_owned()
    }

    fn has_heard(&self, word: &str) -> bool {
        self.heard.windows(word.len()).any(|heard| heard == word.as_bytes())
    }

    /// False if the server has hung up.
    fn read(&mut self) -> Result<bool> {
        self.socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut buffer = [0; 4_096];
        match self.socket.read(&mut buffer) {
            Ok(bytes) => {
                self.heard.extend_from_slice(&buffer[..bytes]);
                Ok(bytes > 0)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::CONNRESET.raw_os_error()) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Handshake, `connect`, `createStream` and `publish` in one piece; no server needs the pauses between them.
#[must_use]
pub fn opening(app: &str, name_and_key: &str) -> Vec<u8> {
    let mut bytes = handshake();
    let object = [&[3][..], &property("app", &string(app)), &[0, 0, 9]].concat();
    bytes.extend(command(0, "connect", 1.0, &[object]));
    bytes.extend(command(0, "createStream", 2.0, &[vec![5]]));
    bytes.extend(command(1, "publish", 3.0, &[vec![5], string(name_and_key), string("live")]));
    bytes
}

/// C0, C1 and a C2 that echoes nothing: servers do not compare.
#[must_use]
pub fn handshake() -> Vec<u8> {
    let mut bytes = vec![3];
    bytes.resize(1 + 2 * HANDSHAKE_BYTES, 0);
    bytes
}

/// A command (§7.1.1) with encoded AMF0 arguments.
#[must_use]
pub fn command(stream: u32, name: &str, transaction: f64, arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut body = string(name);
    body.push(0);
    body.extend(transaction.to_be_bytes());
    body.extend(arguments.concat());
    chunks(128, 3, kind::COMMAND, stream, 0, &body)
}

/// An AMF0 string value of less than 64 KiB.
#[must_use]
pub fn string(text: &str) -> Vec<u8> {
    [&[2][..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// A property of an AMF0 object.
#[must_use]
pub fn property(name: &str, value: &[u8]) -> Vec<u8> {
    [&(name.len() as u16).to_be_bytes()[..], name.as_bytes(), value].concat()
}

/// A type 0 chunk header (§5.3.1.2.1) that announces `bytes`, which need not come.
#[must_use]
pub fn header(id: u8, kind: u8, stream: u32, stamp: u32, bytes: u32) -> Vec<u8> {
    let mut header = vec![id];
    header.extend(&stamp.min(0x00FF_FFFF).to_be_bytes()[1..]);
    header.extend(&bytes.to_be_bytes()[1..]);
    header.push(kind);
    header.extend(stream.to_le_bytes());
    if stamp >= 0x00FF_FFFF {
        header.extend(stamp.to_be_bytes());
    }
    header
}

fn chunks(chunk_bytes: usize, id: u8, kind: u8, stream: u32, stamp: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(id, kind, stream, stamp, body.len() as u32);
    for (number, chunk) in body.chunks(chunk_bytes).enumerate() {
        if number > 0 {
            bytes.push(0xC0 | id);
            if stamp >= 0x00FF_FFFF {
                bytes.extend(stamp.to_be_bytes());
            }
        }
        bytes.extend(chunk);
    }
    bytes
}

/// One tag of an FLV file.
#[derive(Debug, Clone)]
pub struct Tag {
    /// As RTMP's message types.
    pub kind: u8,
    pub stamp: u32,
    pub body: Vec<u8>,
}

/// The tags of a clip that FLV has a place for.
///
/// # Errors
/// If there is no such clip.
pub fn clip_tags(name: &str) -> Result<Vec<Tag>> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error", "-i"]).arg(clip(name)?);
    let output = command.args(["-c", "copy", "-f", "flv", "-"]).output().context("ffmpeg")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tags(&output.stdout)
}

/// The audio and video tags of an FLV file (Adobe Flash Video File Format 10.1, annex E).
///
/// # Errors
/// If it is none.
fn tags(mut flv: &[u8]) -> Result<Vec<Tag>> {
    let mut take = |bytes: usize| -> Result<&[u8]> {
        let (taken, rest) = flv.split_at_checked(bytes).context("the file ends in the middle of a tag")?;
        flv = rest;
        Ok(taken)
    };
    if !take(9 + 4)?.starts_with(b"FLV") {
        bail!("no FLV file");
    }
    let mut tags = Vec::new();
    while let Ok(head) = take(11) {
        let [kind, a, b, c, d, e, f, high, ..] = *head else { bail!("a tag has eleven bytes") };
        let body = take(u32::from_be_bytes([0, a, b, c]) as usize)?.to_vec();
        take(4)?;
        if matches!(kind, kind::AUDIO | kind::VIDEO) {
            tags.push(Tag { kind, stamp: u32::from_be_bytes([high, d, e, f]), body });
        }
    }
    Ok(tags)
}
