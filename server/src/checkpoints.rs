//! Checkpoints of open sessions as files in `data_dir/sessions`, one for each stream.
//!
//! A thread writes them, so that a slow disk holds up no media; of several checkpoints of one stream that wait, only the
//! newest is written. Nothing is synced: what must be survived is the end of the process, not of the machine. A
//! checkpoint that is missed costs nothing, because a restart leaves out more numbers than one segment can use.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use cluster::{Epoch, Lost, Revision, Sessions};
use ingest::{Checkpoint, Checkpoints};
use media::StreamId;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::claims::Claims;

/// A session is gone on with if its newest segment began at most this long ago: players have given up by then.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Checkpoints kept by `files`, and where other nodes find them if there are any.
pub(crate) struct SharedCheckpoints {
    files: Arc<dyn Checkpoints>,
    outbox: Option<Outbox>,
}

/// What waits to be written into the cluster's store: of each stream the newest.
#[derive(Clone)]
struct Outbox {
    claims: Claims,
    waiting: Arc<Mutex<HashMap<StreamId, Unsent>>>,
    changed: Arc<Notify>,
    _writer: Arc<AbortOnDropHandle<()>>,
}

/// Of a stream that was claimed under an epoch when this was put here, whoever has it meanwhile.
enum Unsent {
    Keep(Epoch, Box<Checkpoint>),
    End(Epoch),
    /// It is another node's to write.
    Leave,
}

impl SharedCheckpoints {
    pub(crate) fn new(files: Arc<dyn Checkpoints>, claims: &Claims) -> Self {
        Self { files, outbox: claims.sessions().map(|sessions| Outbox::new(claims.clone(), sessions)) }
    }
}

impl Checkpoints for SharedCheckpoints {
    fn store(&self, checkpoint: &Checkpoint) {
        self.files.store(checkpoint);
        if let Some(outbox) = &self.outbox {
            outbox.put_claimed(checkpoint.id(), |epoch| Unsent::Keep(epoch, Box::new(checkpoint.clone())));
        }
    }

    fn remove(&self, id: &StreamId) {
        self.files.remove(id);
        if let Some(outbox) = &self.outbox {
            outbox.put_claimed(id, Unsent::End);
        }
    }

    fn leave(&self, id: &StreamId) {
        self.files.leave(id);
        if let Some(outbox) = &self.outbox {
            outbox.put(id, Unsent::Leave);
        }
    }
}

impl Outbox {
    fn new(claims: Claims, sessions: Sessions) -> Self {
        let (waiting, changed) = (Arc::default(), Arc::new(Notify::new()));
        let writer = tokio::spawn(write_all(sessions, Arc::clone(&waiting), changed.clone()));
        Self { claims, waiting, changed, _writer: Arc::new(AbortOnDropHandle::new(writer)) }
    }

    /// A session that goes on from the last run may be another node's by now, until it is claimed: by its next checkpoint it is.
    fn put_claimed(&self, id: &StreamId, unsent: impl FnOnce(Epoch) -> Unsent) {
        if let Some(epoch) = self.claims.epoch(id) {
            self.put(id, unsent(epoch));
        }
    }

    fn put(&self, id: &StreamId, unsent: Unsent) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), unsent);
        self.changed.notify_one();
    }
}

/// A checkpoint that the store does not take is not sent again: the next one is newer.
async fn write_all(sessions: Sessions, waiting: Arc<Mutex<HashMap<StreamId, Unsent>>>, changed: Arc<Notify>) {
    // Of the streams whose newest checkpoint in the store is from here.
    let mut written: HashMap<StreamId, Revision> = HashMap::new();
    loop {
        changed.notified().await;
        let now = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, unsent) in now {
            let last = written.remove(&id);
            let sent = match unsent {
                Unsent::Keep(epoch, checkpoint) => {
                    sessions.keep(&id, epoch, checkpoint.to_fields(), last).await.map(|revision| {
                        written.insert(id.clone(), revision);
                    })
                }
                Unsent::End(epoch) => sessions.end(&id, epoch).await,
                Unsent::Leave => Ok(()),
            };
            match sent {
                Ok(()) => {}
                Err(Lost::To(owner)) => {
                    debug!(stream.id = %id, "not written: node {} has the session now", owner.holder.node);
                }
                Err(error) => debug!(stream.id = %id, "other nodes cannot go on with this session: {error}"),
            }
        }
    }
}

/// The directory, and the thread that writes into it. Dropping it writes what is left.
pub(crate) struct FileCheckpoints {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    dir: PathBuf,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// `None`: the session is over, and its file goes.
    newest: HashMap<StreamId, Option<Checkpoint>>,
    closed: bool,
}

impl FileCheckpoints {
    /// # Errors
    /// If the directory cannot be made.
    pub(crate) fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let dir = data_dir.join("sessions");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let shared = Arc::new(Shared { dir, waiting: Mutex::default(), changed: Condvar::new() });
        let writer = thread::Builder::new().name("checkpoints".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.write_until_closed()
        })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// What sessions of a process before this one can be gone on with; the files of others are removed.
    pub(crate) fn load(&self, now: SystemTime) -> Vec<Checkpoint> {
        let Ok(entries) = fs::read_dir(&self.shared.dir) else { return Vec::new() };
        entries.flatten().filter_map(|entry| recent(&entry.path(), now)).collect()
    }
}

/// The checkpoint in a file, if it is recent enough.
fn recent(path: &Path, now: SystemTime) -> Option<Checkpoint> {
    let text = fs::read(path).ok()?;
    let checkpoint = match Checkpoint::from_json(&text) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            warn!(path = %path.display(), %error, "a session of the last run cannot be gone on with");
            remove(path);
            return None;
        }
    };
    let now_ms = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let age_ms = now_ms - checkpoint.written_ms();
    // In the future: the clock was set back, and nothing is known of the age.
    if age_ms.unsigned_abs() <= AGE_MAX.as_millis() as u64 {
        return Some(checkpoint);
    }
    info!(stream.id = %checkpoint.id(), age_s = age_ms / 1000, "the session of the last run is too old to go on");
    remove(path);
    None
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "cannot remove a checkpoint");
        }
        _ => {}
    }
}

impl Checkpoints for FileCheckpoints {
    fn store(&self, checkpoint: &Checkpoint) {
        self.shared.lock().newest.insert(checkpoint.id().clone(), Some(checkpoint.clone()));
        self.shared.changed.notify_one();
    }

    fn remove(&self, id: &StreamId) {
        self.shared.lock().newest.insert(id.clone(), None);
        self.shared.changed.notify_one();
    }

    fn leave(&self, id: &StreamId) {
        self.remove(id);
    }
}

impl Drop for FileCheckpoints {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // It panics only over a bug, and has told it then.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_until_closed(&self) {
        let mut failing = false;
        loop {
            let waiting =
                self.changed.wait_while(self.lock(), |waiting| waiting.newest.is_empty() && !waiting.closed);
            let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            let (newest, closed) = (std::mem::take(&mut waiting.newest), waiting.closed);
            drop(waiting);
            for (id, checkpoint) in newest {
                // A name has no dot, so two streams never share a file.
                let path = self.dir.join(format!("{}.{}.json", id.app(), id.stream()));
                let Some(checkpoint) = checkpoint else {
                    remove(&path);
                    continue;
                };
                let written = write(&path, &checkpoint.to_json());
                if let (Err(error), false) = (&written, failing) {
                    let dir = self.dir.display();
                    warn!(%error, "cannot write to {dir}: sessions will not survive a restart until that works again");
                }
                failing = written.is_err();
            }
            if closed {
                return;
            }
        }
    }
}

/// All or nothing, so that a crash leaves the old one or the new one.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, path)
}
