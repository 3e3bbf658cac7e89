//! Plays the scripts: ffmpeg with a small clip for each stream, which comes and goes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use harness::publisher::Publisher;

use super::script::{Exit, Scene, Script};
use crate::process::Tidecast;

/// Of each stream, at about 700 kbit/s: short and long GOPs, B-frames, frames that come when they like, another clock.
const CLIPS: &[&str] = &["gop-2", "gop-0.5", "gop-3.84", "b-frames", "vfr", "mono-44.1k"];

/// The streams there are, under the names they have now.
pub(crate) struct Stage {
    names: Vec<Mutex<String>>,
    /// Scenes played.
    pub(crate) exits: AtomicU64,
}

/// Says when the soak is over. Everyone who waits has one.
pub(crate) struct Curtain(Receiver<()>);

impl Curtain {
    /// Falls when the sender is dropped.
    pub(crate) fn new(receiver: Receiver<()>) -> Self {
        Self(receiver)
    }

    /// Waits, and says whether it has fallen meanwhile.
    pub(crate) fn falls_within(&self, time: Duration) -> bool {
        self.0.recv_timeout(time) != Err(RecvTimeoutError::Timeout)
    }
}

impl Stage {
    /// Makes the clips first, so that the load is whole from the beginning.
    pub(crate) fn new() -> Result<Self> {
        CLIPS.iter().try_for_each(|clip| harness::media::clip(clip).map(drop))?;
        let names = (0..CLIPS.len()).map(|stream| Mutex::new(name(stream, 0))).collect();
        Ok(Self { names, exits: AtomicU64::default() })
    }

    pub(crate) fn streams(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, stream: usize) -> String {
        self.names[stream].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishes one stream until the curtain falls.
    pub(crate) fn play(&self, server: &Tidecast, stream: usize, seed: u64, curtain: &Curtain) -> Result<()> {
        let publish = || Publisher::of_clip(CLIPS[stream], &server.publish_url(&self.name(stream)));
        let mut publisher = publish()?;
        let mut names = 0;
        for Scene { on_air, exit, pause, renamed } in Script::new(seed, stream) {
            if curtain.falls_within(on_air) {
                break;
            }
            self.exits.fetch_add(1, Relaxed);
            let mut standing_still = None;
            match exit {
                Exit::Goodbye => publisher.stop()?,
                Exit::KilledAndBack | Exit::KilledForLong => publisher.kill()?,
                Exit::HalfOpen => {
                    publisher.freeze()?;
                    standing_still = Some(publisher);
                }
            }
            if curtain.falls_within(pause) {
                return Ok(());
            }
            if renamed {
                names += 1;
                *self.names[stream].lock().unwrap_or_else(PoisonError::into_inner) = name(stream, names);
            }
            publisher = publish()?;
            // The other one is live before this one finds out.
            drop(standing_still);
        }
        publisher.stop()
    }
}

fn name(stream: usize, session: u64) -> String {
    format!("live/soak-{stream}-{session}")
}
