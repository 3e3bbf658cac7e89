//! ICE-TCP, passive (RFC 6544): for networks that let no UDP through. The peer connects; each datagram goes in a frame
//! of its own (RFC 4571).
//!
//! A connection belongs to the session whose ufrag its first frame names, and to no other. What we send goes through a
//! short queue: a line that is too slow loses whole frames, as UDP would, and nobody waits for it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use net::{Acceptor, Limits, Options, Places};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::routes::{Dropped, Kind};
use super::{DATAGRAM_BYTES_MAX, Path, Shared, Transport};
use crate::stun;

/// Sends that wait for a connection: 0.4 s of 30 pictures and 50 pieces of sound a second. Beyond that they are
/// dropped.
const QUEUE_MAX: usize = 32;
/// From accepting a connection to its first frame.
const FIRST_FRAME_TIME_MAX: Duration = Duration::from_secs(5);
/// Between frames: longer than consent lasts, so that the session ends first.
const IDLE_TIME_MAX: Duration = Duration::from_secs(35);
/// For one send to be taken by the kernel.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// A venue behind one address is the reason for ICE-TCP, more than anything.
const LIMITS: Limits = Limits { total: 4_096, per_address: 256 };
const OPTIONS: Options = Options { backlog: 128, unsent_bytes_max: Some(128 * 1024) };

/// Connections by number.
#[derive(Debug, Default)]
pub(super) struct Connections {
    next: AtomicU64,
    queues: Mutex<HashMap<u64, mpsc::Sender<Bytes>>>,
}

impl Connections {
    /// Whether the connection takes `bytes`, cut into frames of `segment`.
    pub(super) fn send(&self, id: u64, bytes: &[u8], segment: usize) -> bool {
        let Some(queue) = self.queues().get(&id).cloned() else { return false };
        let mut frames = BytesMut::with_capacity(bytes.len() + 2 * bytes.len().div_ceil(segment));
        for datagram in bytes.chunks(segment) {
            let Ok(length) = u16::try_from(datagram.len()) else { return false };
            frames.put_u16(length);
            frames.put_slice(datagram);
        }
        queue.try_send(frames.freeze()).is_ok()
    }

    fn open(&self) -> (u64, mpsc::Receiver<Bytes>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        self.queues().insert(id, queue);
        (id, queued)
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Bytes>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens at `address`, which has the number of the UDP port.
pub(super) fn listen(address: SocketAddr) -> io::Result<Acceptor> {
    Ok(Acceptor::new("ICE-TCP", net::bind(address, OPTIONS)?, Places::new(LIMITS)))
}

/// Serves one connection to its end, and forgets it.
pub(super) async fn serve(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr) {
    let (id, queued) = shared.connections.open();
    let _closed = Closing { shared: &shared, id };
    let Ok(local) = socket.local_addr() else { return };
    let path = Path {
        local: SocketAddr::new(local.ip().to_canonical(), local.port()),
        remote: peer,
        transport: Transport::Tcp(id),
    };
    // Frames are whole; there is nothing to wait for. Without it they are late, not lost.
    let _ = socket.set_nodelay(true);
    let (reader, writer) = socket.into_split();
    tokio::select! {
        () = read(&shared, path, reader) => {}
        () = write(writer, queued) => {}
    }
}

/// However the task ends.
struct Closing<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.shared.connections.queues().remove(&self.id);
    }
}

async fn read(shared: &Shared, path: Path, mut reader: OwnedReadHalf) {
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let first = timeout(FIRST_FRAME_TIME_MAX, frame(&mut reader, &mut buffer)).await;
    let lease = match first {
        Ok(Ok(first)) if Kind::of(first) == Some(Kind::Stun) => {
            stun::local_ufrag(first).and_then(|ufrag| shared.routes().of_ufrag(ufrag))
        }
        _ => None,
    };
    let (Some(lease), Ok(Ok(first))) = (lease, first) else {
        shared.counters.tcp_refused.add(1);
        return;
    };
    if !shared.deliver_frame(lease, path, first) {
        return;
    }
    while let Ok(Ok(frame)) = timeout(IDLE_TIME_MAX, frame(&mut reader, &mut buffer)).await {
        if !shared.deliver_frame(lease, path, frame) {
            return;
        }
    }
}

/// The next one. Longer ones than any datagram are an error.
async fn frame<'a>(
    reader: &mut OwnedReadHalf,
    buffer: &'a mut [u8; DATAGRAM_BYTES_MAX],
) -> io::Result<&'a [u8]> {
    let length = usize::from(reader.read_u16().await?);
    let frame = buffer.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
    reader.read_exact(frame).await?;
    Ok(frame)
}

async fn write(mut writer: OwnedWriteHalf, mut queued: mpsc::Receiver<Bytes>) {
    while let Some(frames) = queued.recv().await {
        if !matches!(timeout(WRITE_TIME_MAX, writer.write_all(&frames)).await, Ok(Ok(()))) {
            return;
        }
    }
}

impl Shared {
    /// Whether the session still exists.
    fn deliver_frame(&self, lease: u64, path: Path, frame: &[u8]) -> bool {
        self.counters.received.add(1);
        let delivered = self.routes().hand_over(lease, path, frame);
        if let Err(dropped) = delivered {
            self.count(dropped);
        }
        delivered != Err(Dropped::UnknownAddress)
    }
}

#[cfg(test)]
mod tests;
