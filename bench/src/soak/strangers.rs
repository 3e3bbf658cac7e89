//! Who comes to a public port and is no publisher and no viewer: wrong keys, taken names, silence, noise.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::publisher::Publisher;

use super::publishers::{Curtain, Stage};
use super::script::{rng, seconds};
use crate::process::Tidecast;

/// Between two strangers, in seconds.
const INTERVAL_S: (f64, f64) = (2.0, 10.0);

/// The server ends every conversation with a stranger before that; its longest patience is 15 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// RTMP 1.0 §5.2.2 and §5.2.3: C0, and as much of C1 as a client that loses its connection may have sent.
const HALF_A_HANDSHAKE: &[u8] = &[3; 700];
const HALF_A_REQUEST: &[u8] = b"GET /hls/live/soak-0-0/index.m3u8 HTTP/1.1\r\nHost: ";
/// TLS where there is none: the first bytes of a ClientHello.
const NOISE: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Sends strangers until the curtain falls, and counts them.
///
/// # Errors
/// If one of them was let in, or left waiting.
pub(crate) fn visit(
    server: &Tidecast,
    stage: &Stage,
    seed: u64,
    count: &AtomicU64,
    curtain: &Curtain,
) -> Result<()> {
    let mut rng = rng(seed, "stranger", 0);
    while !curtain.falls_within(seconds(&mut rng, INTERVAL_S)) {
        match rng.u32(0..7) {
            0 => refused(&format!("rtmp://{}/live/wrong?key=not-the-key-{}", server.rtmp(), rng.u32(..)))?,
            1 => refused(&server.publish_url(&format!("{}/too/long", stage.name(0))))?,
            2 => cut_off(server.rtmp(), &[])?,
            3 => cut_off(server.rtmp(), HALF_A_HANDSHAKE)?,
            4 => cut_off(server.http, HALF_A_REQUEST)?,
            5 => cut_off(server.rtmp(), NOISE)?,
            _ => cut_off(server.http, NOISE)?,
        }
        count.fetch_add(1, Relaxed);
    }
    Ok(())
}

fn refused(url: &str) -> Result<()> {
    Publisher::of_clip("gop-2", url)?.refused(PATIENCE).map(drop).context("a publisher that must be refused")
}

/// Says `words`, and waits until the server has had enough.
fn cut_off(server: SocketAddr, words: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(words)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => bail!("{server} kept a stranger for {PATIENCE:?}: {error}"),
    }
}
