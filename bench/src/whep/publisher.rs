//! A broadcaster of a constant bit rate, who can pause: the same packets again and again, each frame with its number at its end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use harness::rtmp::{Rtmp, kind};

use super::whip::Whip;
use crate::measure::sleep_until;
use crate::synthetic::{self, Message, Messages, Track};

const APP: &str = "live";
const NAME: &str = "bench";
pub(super) const STREAM: &str = "live/bench";

/// Frames whose time is remembered.
const REMEMBERED: u64 = 1_024;

/// Publishes until it is dropped.
pub(super) struct Publisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Shared {
    pauses: AtomicBool,
    ends: AtomicBool,
    /// When the last frames were written, with their numbers.
    sent: Mutex<Vec<(u64, Instant)>>,
}

impl Publisher {
    /// By RTMP.
    pub(super) fn start(server: SocketAddr, key: &str) -> Result<Self> {
        let mut rtmp = Rtmp::publish(server, APP, &format!("{NAME}?key={key}"))?;
        rtmp.send(6, kind::VIDEO, 1, 0, &synthetic::video_config())?;
        rtmp.send(4, kind::AUDIO, 1, 0, &synthetic::audio_config())?;
        Ok(Self::with(move |message, body| {
            let stamp = message.time.as_millis() as u32;
            match message.track {
                Track::Audio => rtmp.send(4, kind::AUDIO, 1, stamp, &body),
                Track::Video => rtmp.send(6, kind::VIDEO, 1, stamp, &body),
            }
        }))
    }

    /// By WHIP, pictures alone. `server`: where it answers HTTP.
    pub(super) fn start_whip(server: SocketAddr, key: &str) -> Result<Self> {
        let mut whip = Whip::publish(server, STREAM, key)?;
        Ok(Self::of_pictures(move |message, tag| whip.send(message, tag)))
    }

    /// To whoever takes them, as FLV tags.
    pub(super) fn of_pictures(
        mut send: impl FnMut(&Message, Vec<u8>) -> Result<()> + Send + 'static,
    ) -> Self {
        Self::with(move |message, tag| match message.track {
            Track::Audio => Ok(()),
            Track::Video => send(message, tag),
        })
    }

    fn with(send: impl FnMut(&Message, Vec<u8>) -> Result<()> + Send + 'static) -> Self {
        let shared =
            Shared { pauses: AtomicBool::new(false), ends: AtomicBool::new(false), sent: Mutex::default() };
        let shared = Arc::new(shared);
        let thread = thread::spawn({
            let shared = shared.clone();
            move || shared.publish(send)
        });
        Self { shared, thread: Some(thread) }
    }

    /// Nothing is sent meanwhile; afterwards it goes on with a keyframe, where it would be by then.
    pub(super) fn pause(&self, pauses: bool) {
        self.shared.pauses.store(pauses, Ordering::Relaxed);
    }

    /// When the frame with this number at its end was written; `None` if that is long ago.
    pub(super) fn sent(&self, number: u64) -> Option<Instant> {
        let sent = self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.iter().find_map(|(frame, at)| (*frame == number).then_some(*at))
    }

    /// Fails if the server has hung up.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => thread.join().map_err(|_| anyhow!("the publisher panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Shared {
    fn publish(&self, mut send: impl FnMut(&Message, Vec<u8>) -> Result<()>) -> Result<()> {
        let (start, mut waits_for_key) = (Instant::now(), false);
        for message in Messages::new() {
            sleep_until(start + message.time);
            if self.ends.load(Ordering::Relaxed) {
                break;
            }
            let is_key = message.track == Track::Video && message.is_key();
            waits_for_key = self.pauses.load(Ordering::Relaxed) || (waits_for_key && !is_key);
            if waits_for_key {
                continue;
            }
            let mut body = message.body.to_vec();
            if let (Track::Video, Some(tail)) = (message.track, body.last_chunk_mut()) {
                *tail = message.unit.to_be_bytes();
                let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                sent.retain(|(number, _)| number + REMEMBERED > message.unit);
                sent.push((message.unit, Instant::now()));
            }
            send(&message, body)?;
        }
        Ok(())
    }
}

/// One picture of the stream.
pub(super) const FRAME: Duration = Duration::from_nanos(1_000_000_000 / synthetic::FRAMES_PER_SECOND);
