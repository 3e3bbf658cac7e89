//! A child process, and how to talk to it.
//!
//!   Child::send ─▶ queue ─▶ (task) ─▶ standard input ─▶ tidecast-encoder ─▶ standard output ─▶ (task) ─▶ Child::next
//!                                                              └─▶ standard error ─▶ (task) ─▶ log
//!
//! Writing and reading are tasks of their own, so that neither waits for the other. A child that does not read fills the
//! queue, which says so; one that is not listened to waits. Dropped, it is killed.

mod attend;
mod words;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use pipe::{FromEncoder, Job, JobError, Message, PipeError, ToEncoder, TooLong, UNIT_BYTES_MAX};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::executable;

/// Messages that wait for a child: the newest group with its 12 s at 60 frames per second, and what comes while it
/// starts. When there are more, the sender must decide: whole groups go, or the child.
pub const QUEUE_MESSAGES_MAX: usize = 1024;
/// The same in bytes; the units themselves are those of the source's ring.
pub const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
const _: () = assert!(QUEUE_BYTES_MAX > 2 * UNIT_BYTES_MAX, "a single unit must not fill it");

/// Messages of a child that nobody took yet; then it is not listened to.
const EVENTS_MAX: usize = 64;

/// For what is still in the encoders when there is nothing more to come.
pub const DRAIN: Duration = Duration::from_secs(1);

/// What a child may take. It gives way to the server, whose streams must not stall.
const NICE: &str = "5";
/// In bytes, private. A ladder from 2160p takes less than half of it.
const MEMORY_MAX: &str = "2147483648";
/// Libraries, drivers and the registry of plugins.
const OPEN_FILES_MAX: &str = "256";

/// How children are started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// See [`executable::find`].
    pub executable: PathBuf,
    /// Where GStreamer's list of plugins is kept.
    pub data_dir: PathBuf,
    /// Encoders for jobs that name none, the best first; see [`Probe::order`](crate::probe::Probe::order).
    pub order: Vec<String>,
}

/// Starts children, and keeps one in reserve: to start a process and load GStreamer takes a tenth of a second, which a
/// stream that lost its child would wait for. Clones share it.
#[derive(Debug, Clone)]
pub struct Encoders(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    /// Nothing was sent to it yet.
    spare: Mutex<Option<Child>>,
}

/// Why a child did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Whoever made the job is broken.
    #[error("a job with {0}")]
    Job(#[from] JobError),
    /// The same.
    #[error("a job that cannot be told: {0}")]
    TooLong(#[from] TooLong),
    /// The operator must look: processes or memory are at an end, or the executable is gone.
    #[error("{} does not start: {error}", executable::NAME)]
    Spawn { error: std::io::Error },
}

impl Encoders {
    /// Within a runtime; the reserve is started in the background.
    pub fn new(settings: Settings) -> Self {
        let encoders = Self(Arc::new(Shared { settings, spare: Mutex::new(None) }));
        encoders.order_spare();
        encoders
    }

    /// Gives `job` to the reserve, or to a new process, and orders the next reserve.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, mut job: Job) -> Result<Child, StartError> {
        if let Job::Video(video) = &mut job
            && video.encoders.is_empty()
        {
            video.encoders.clone_from(&self.0.settings.order);
        }
        job.check()?;
        let spare = self.0.spare().take().filter(Child::is_fresh);
        let child = match spare {
            Some(spare) => spare,
            None => Child::spawn(&self.0.settings).map_err(|error| StartError::Spawn { error })?,
        };
        match child.send(&ToEncoder::Job(job)) {
            Err(SendError::TooLong(error)) => return Err(error.into()),
            // One that is gone by now says so itself; the queue of a new one is empty.
            Ok(()) | Err(SendError::Ended | SendError::Full) => {}
        }
        self.order_spare();
        Ok(child)
    }

    /// Process id of the reserve, if there is one.
    pub fn spare_id(&self) -> Option<u32> {
        self.0.spare().as_ref().map(Child::id)
    }

    fn order_spare(&self) {
        let shared = Arc::downgrade(&self.0);
        // To start a process takes milliseconds of whoever does it.
        drop(tokio::task::spawn_blocking(move || Shared::fill(&shared)));
    }
}

impl Shared {
    fn fill(shared: &Weak<Self>) {
        let Some(shared) = shared.upgrade() else { return };
        if shared.spare().as_ref().is_some_and(Child::is_fresh) {
            return;
        }
        match Child::spawn(&shared.settings) {
            Ok(child) => *shared.spare() = Some(child),
            Err(error) => warn!("no {} in reserve: {error}", executable::NAME),
        }
    }

    fn spare(&self) -> MutexGuard<'_, Option<Child>> {
        // It is there or not, whoever panicked.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process of `tidecast-encoder` with a job.
#[derive(Debug)]
pub struct Child {
    id: u32,
    /// `None` after [`Child::end`].
    queue: Option<mpsc::Sender<Chain<Bytes, Bytes>>>,
    /// In the queue, in bytes.
    queued: Arc<AtomicUsize>,
    ending: Option<oneshot::Sender<Duration>>,
    events: mpsc::Receiver<Event>,
    ended: Option<Ended>,
}

/// What comes from a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Message(FromEncoder),
    /// It is gone, and nothing follows.
    Ended(Ended),
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// After [`Child::end`], with everything encoded.
    #[error("it finished")]
    Finished,
    /// After a fault, which it told, if it could.
    #[error("it failed with exit code {code}")]
    Failed { code: i32 },
    /// A crash in a library, the system without memory, or an operator.
    #[error("it was killed by signal {number}")]
    Signal { number: i32 },
    /// It did not finish in the time that [`Child::end`] gave it, or closed its output and stayed.
    #[error("it was killed, because it did not end in time")]
    Overdue,
    /// What it wrote is no message.
    #[error("it was killed, because it wrote {0}")]
    Nonsense(PipeError),
    /// The system lost it.
    #[error("it was lost: {0}")]
    Lost(std::io::ErrorKind),
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The child is behind by all that the queue holds.
    #[error("the queue of the encoder is full")]
    Full,
    #[error("the encoder has ended, or was told to")]
    Ended,
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl Child {
    /// Starts a process without a job.
    fn spawn(settings: &Settings) -> std::io::Result<Self> {
        let mut command = executable::command(&settings.executable, &settings.data_dir);
        let limits = ["--nice", NICE, "--memory", MEMORY_MAX, "--open-files", OPEN_FILES_MAX];
        let process = command.arg("run").args(limits).spawn()?;
        let (queue, messages) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let (told, events) = mpsc::channel(EVENTS_MAX);
        let (ending, drain) = oneshot::channel();
        let queued = Arc::<AtomicUsize>::default();
        let id = process.id().unwrap_or_default();
        attend::spawn(process, messages, queued.clone(), told, drain);
        Ok(Self { id, queue: Some(queue), queued, ending: Some(ending), events, ended: None })
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Puts a message into the queue; never waits. The bytes of a unit are not copied.
    ///
    /// # Errors
    /// [`SendError`]: it is not in the queue, and those before it are.
    pub fn send(&self, message: &ToEncoder) -> Result<(), SendError> {
        let queue = self.queue.as_ref().filter(|queue| !queue.is_closed()).ok_or(SendError::Ended)?;
        let message = message.encode()?;
        let bytes = message.remaining();
        let fits = |queued: usize| queued.checked_add(bytes).filter(|sum| *sum <= QUEUE_BYTES_MAX);
        self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| SendError::Full)?;
        queue.try_send(message).map_err(|error| {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full,
                mpsc::error::TrySendError::Closed(_) => SendError::Ended,
            }
        })
    }

    /// Bytes that wait in the queue.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// What it says next. May be dropped at any time without a loss. After the end, the end again.
    pub async fn next(&mut self) -> Event {
        if let Some(ended) = &self.ended {
            return Event::Ended(ended.clone());
        }
        let event = self.events.recv().await;
        // Only a runtime that shuts down drops the task.
        let event = event.unwrap_or(Event::Ended(Ended::Lost(std::io::ErrorKind::BrokenPipe)));
        if let Event::Ended(ended) = &event {
            self.ended = Some(ended.clone());
        }
        event
    }

    /// Lets it encode what it was sent, and kills it if that takes longer than `drain`, which is usually [`DRAIN`]. What
    /// comes of it, and the end, comes from [`Child::next`].
    pub fn end(&mut self, drain: Duration) {
        self.queue = None;
        if let Some(ending) = self.ending.take() {
            let _ended_by_itself = ending.send(drain);
        }
    }

    /// Without a job, it says nothing unless something is wrong.
    fn is_fresh(&self) -> bool {
        self.events.is_empty() && !self.events.is_closed()
    }
}
