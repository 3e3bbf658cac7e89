//! What the tests here start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use pipe::{FrameRate, FromEncoder, Preset, Rung, ToEncoder, VideoJob};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;
use tokio::time::timeout;
use transcode::child::{Child, Encoders, Event, Settings};

use crate::clip::Clip;

/// For anything that must happen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What cargo built beside this test: target/debug/deps/child-1234 and target/debug/tidecast-encoder.
pub(crate) fn executable() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a program");
    let path = test.ancestors().nth(2).expect("a test has a folder").join("tidecast-encoder");
    assert!(path.is_file(), "{} is not there: `cargo build -p tidecast-encoder` first", path.display());
    path
}

/// Encoders, and the folder that is theirs.
pub(crate) struct Bench {
    pub(crate) encoders: Encoders,
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) fn real() -> Self {
        Self::of(executable(), tempfile::tempdir().expect("a folder"))
    }

    /// With a shell script in the encoder's place.
    pub(crate) fn script(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("encoder");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a fresh folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self::of(path, folder)
    }

    fn of(executable: PathBuf, folder: TempDir) -> Self {
        let data_dir = folder.path().to_owned();
        let order = vec!["x264enc".to_owned()];
        Self { encoders: Encoders::new(Settings { executable, data_dir, order }), folder }
    }

    pub(crate) fn start(&self, clip: &Clip) -> Child {
        self.encoders.start(job(clip).into()).expect("it starts")
    }

    /// Process id of the child in reserve, once it is there.
    pub(crate) async fn spare(&self) -> u32 {
        let there = async {
            loop {
                match self.encoders.spare_id() {
                    Some(id) => return id,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        timeout(PATIENCE, there).await.expect("it was ordered")
    }
}

/// A small rung; which encoder makes it is the worker's choice.
pub(crate) fn job(clip: &Clip) -> VideoJob {
    VideoJob {
        source: clip.codec.clone(),
        timescale: clip.timescale,
        frame_rate: FrameRate { numerator: 30, denominator: 1 },
        encoders: Vec::new(),
        rungs: vec![Rung {
            number: 7,
            width: 160,
            height: 90,
            kbit_s: 150,
            preset: Preset::Superfast,
            every: 1,
        }],
    }
}

/// Of the process.
pub(crate) fn id(child: &Child) -> u32 {
    child.id().expect("it is a process of this machine")
}

pub(crate) fn send_all(child: &mut Child, clip: &Clip) {
    for unit in &clip.units {
        child.send(&ToEncoder::Unit(unit.clone())).expect("the queue has room for a clip");
    }
}

pub(crate) async fn next(child: &mut Child) -> Event {
    timeout(PATIENCE, child.next()).await.expect("it says something, or ends")
}

/// Until the first unit came out.
pub(crate) async fn until_it_works(child: &mut Child) {
    loop {
        match next(child).await {
            Event::Message(FromEncoder::Unit(_)) => return,
            Event::Message(_) => {}
            Event::Ended(ended) => panic!("{ended}"),
        }
    }
}

/// Returns when process `id` is gone.
pub(crate) async fn gone(id: u32) {
    let waited = tokio::task::spawn_blocking(move || {
        let pid = Pid::from_raw(id as i32).expect("a process");
        // It cannot be opened when it is gone already.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).expect("it can be asked") == 1
    });
    assert!(waited.await.expect("it does not panic"), "process {id} is still there");
}
