//! A child process, and how to talk to it.
//!
//!   Child::send ─▶ standard input (input.rs) ─▶ tidecast-encoder ─▶ standard output ─▶ Child::next
//!                                                      └─▶ standard error (words.rs) ─▶ log
//!
//! It may be lent by another node: then both pipes lead to a task (lent.rs) that carries what they hold over a connection.
//!
//! Whoever has the child drives both pipes by waiting in [`Child::next`]: a task in between would be woken for each picture of
//! each rung, which costs more than all the rest. A child that does not read fills its queue, which says so; one that
//! is not listened to waits. Dropped, it is killed.

mod input;
mod lent;
mod words;

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::BytesMut;
use media::StreamId;
use pipe::{FromEncoder, Job, JobError, PipeError, ToEncoder, TooLong, UNIT_BYTES_MAX, decode};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender, pipe};
use tokio::process::Child as Process;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, warn};

use self::input::Input;
use crate::budget::Share;
use crate::executable;
use crate::workers::{Refusal, Taking, Workers};

/// Messages that wait for a child: the newest group with its 12 s at 60 frames per second, and what comes while it
/// starts. When there are more, the sender must decide: whole groups go, or the child.
pub const QUEUE_MESSAGES_MAX: usize = 1024;
/// The same in bytes; the units themselves are those of the source's ring.
pub const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
const _: () = assert!(QUEUE_BYTES_MAX > 2 * UNIT_BYTES_MAX, "a single unit must not fill it");

/// Read from a child at once: what Linux holds in a pipe.
const READ_BYTES: usize = 64 * 1024;

/// For the process to go, once it closed its output or was killed.
const GONE_WITHIN: Duration = Duration::from_secs(3);

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
/// stream that lost its child would wait for. What there is no room for here goes to other nodes. Clones share it.
#[derive(Debug, Clone)]
pub struct Encoders {
    /// `None` if nothing is encoded on this machine.
    here: Option<Arc<Here>>,
    workers: Option<Arc<dyn Workers>>,
}

#[derive(Debug)]
struct Here {
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
    /// The operator must look: open files are at an end.
    #[error("no pipe to another node: {error}")]
    Pipe { error: std::io::Error },
    /// Neither here nor anywhere else.
    #[error("nothing is encoded here")]
    Nowhere,
}

impl Encoders {
    /// Those of this machine alone. Within a runtime; the reserve is started in the background.
    pub fn new(settings: Settings) -> Self {
        let here = Arc::new(Here { settings, spare: Mutex::new(None) });
        here.order_spare();
        Self { here: Some(here), workers: None }
    }

    /// Those of other nodes alone.
    pub fn lent_by(workers: Arc<dyn Workers>) -> Self {
        Self { here: None, workers: Some(workers) }
    }

    /// Jobs for which this machine has no room go to `workers`.
    pub fn with_workers(self, workers: Arc<dyn Workers>) -> Self {
        Self { workers: Some(workers), ..self }
    }

    /// Gives `job` of `id`, which needs `cost` cores, to a child here if there is room for it, else to another node. `share` is what
    /// it has of this machine.
    ///
    /// # Errors
    /// [`StartError`]. Whether another node takes it, the child says.
    pub fn place(&self, id: &StreamId, job: Job, cost: f64, share: &Share) -> Result<Child, StartError> {
        // One that was here stays: whether there is room or not, somebody waits for what it makes.
        let has_room = || share.cost() > 0.0 || share.admit(cost);
        match &self.workers {
            Some(workers) if self.here.is_none() || !has_room() => {
                share.set_cost(0.0);
                job.check()?;
                let child =
                    Child::lent(workers.take(id, cost)).map_err(|error| StartError::Pipe { error })?;
                child.with(job)
            }
            Some(_) | None => {
                share.set_cost(cost);
                self.start(job)
            }
        }
    }

    /// Whether jobs that no other node takes can be made here, when they need less.
    pub(crate) fn are_here(&self) -> bool {
        self.here.is_some()
    }

    /// Gives `job` to the reserve, or to a new process, and orders the next reserve.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, mut job: Job) -> Result<Child, StartError> {
        let here = self.here.as_ref().ok_or(StartError::Nowhere)?;
        if let Job::Video(video) = &mut job
            && video.encoders.is_empty()
        {
            video.encoders.clone_from(&here.settings.order);
        }
        job.check()?;
        let spare = here.spare().take();
        let child = match spare.and_then(Child::fresh) {
            Some(spare) => spare,
            None => Child::spawn(&here.settings).map_err(|error| StartError::Spawn { error })?,
        };
        let child = child.with(job)?;
        here.order_spare();
        Ok(child)
    }

    /// Process id of the reserve, if there is one.
    pub fn spare_id(&self) -> Option<u32> {
        self.here.as_ref()?.spare().as_ref()?.id()
    }
}

impl Here {
    fn order_spare(self: &Arc<Self>) {
        let here = Arc::downgrade(self);
        // To start a process takes milliseconds of whoever does it.
        drop(tokio::task::spawn_blocking(move || Self::fill(&here)));
    }

    fn fill(here: &Weak<Self>) {
        let Some(here) = here.upgrade() else { return };
        let mut spare = here.spare();
        *spare = spare.take().and_then(Child::fresh);
        if spare.is_some() {
            return;
        }
        drop(spare);
        match Child::spawn(&here.settings) {
            Ok(child) => *here.spare() = Some(child),
            Err(error) => warn!("no {} in reserve: {error}", executable::NAME),
        }
    }

    fn spare(&self) -> MutexGuard<'_, Option<Child>> {
        // It is there or not, whoever panicked.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process of `tidecast-encoder` with a job, of this machine or lent by another node.
#[derive(Debug)]
pub struct Child {
    host: Host,
    input: Input,
    output: Receiver,
    /// Of its output: what is no whole message yet.
    received: BytesMut,
    /// By then it has ended, or is killed. `None` before [`Child::end`].
    deadline: Option<Instant>,
    state: State,
}

#[derive(Debug)]
enum Host {
    Here {
        process: Process,
        id: u32,
    },
    /// Carries what goes to and fro.
    Elsewhere(AbortOnDropHandle<Ended>),
}

#[derive(Debug)]
enum State {
    Open,
    /// It closed its output; how it ended is what its process says.
    Closed {
        since: Instant,
    },
    /// It was killed for this, and may be a zombie.
    Killed(Ended),
    Gone(Ended),
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
    /// The system lost it, or the connection to the node that lends it broke.
    #[error("it was lost: {0}")]
    Lost(std::io::ErrorKind),
    /// The node that lends it says in its log how it ended.
    #[error("the node that lends it closed the connection")]
    Closed,
    /// It was never there.
    #[error(transparent)]
    Refused(#[from] Refusal),
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
        let mut process = command.arg("run").args(limits).spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let id = process.id().unwrap_or_default();
        if let Some(output) = process.stderr.take() {
            tokio::spawn(words::tell(output, id));
        }
        let input = Sender::from_owned_fd(input.into_owned_fd()?)?;
        let output = Receiver::from_owned_fd(output.into_owned_fd()?)?;
        Ok(Self::new(Host::Here { process, id }, input, output))
    }

    /// The child of another node, once that is found.
    fn lent(taking: Taking) -> std::io::Result<Self> {
        let ((input, to_worker), (from_worker, output)) = (pipe()?, pipe()?);
        let carrying = tokio::spawn(lent::carry(taking, to_worker, from_worker).in_current_span());
        Ok(Self::new(Host::Elsewhere(AbortOnDropHandle::new(carrying)), input, output))
    }

    fn new(host: Host, input: Sender, output: Receiver) -> Self {
        let (input, received) = (Input::new(input), BytesMut::new());
        Self { host, input, output, received, deadline: None, state: State::Open }
    }

    fn with(mut self, job: Job) -> Result<Self, StartError> {
        match self.send(&ToEncoder::Job(job)) {
            Err(SendError::TooLong(error)) => Err(error.into()),
            // One that is gone by now says so itself; the queue of a new one is empty.
            Ok(()) | Err(SendError::Ended | SendError::Full) => Ok(self),
        }
    }

    /// Of its process; `None` if another node lends it.
    pub fn id(&self) -> Option<u32> {
        match &self.host {
            Host::Here { id, .. } => Some(*id),
            Host::Elsewhere(_) => None,
        }
    }

    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.host, Host::Elsewhere(_))
    }

    /// Writes a message, or lets it wait until the child has read what is before it; never waits itself. The bytes of a unit
    /// are not copied.
    ///
    /// # Errors
    /// [`SendError`]: it is not sent, and those before it are.
    pub fn send(&mut self, message: &ToEncoder) -> Result<(), SendError> {
        self.input.send(message)
    }

    /// Bytes that the child has not read, beside those in the pipe.
    pub fn queued(&self) -> usize {
        self.input.waiting()
    }

    /// What it says next; meanwhile, it is written what waits. May be dropped at any time without a loss. After the end, the
    /// end again.
    pub async fn next(&mut self) -> Event {
        loop {
            match &self.state {
                State::Open => match decode(&mut self.received) {
                    Ok(Some(message)) => return Event::Message(message),
                    Ok(None) => self.drive().await,
                    Err(error) => self.kill(Ended::Nonsense(error)),
                },
                State::Closed { since } => {
                    let until = self.deadline.unwrap_or(*since + GONE_WITHIN).min(*since + GONE_WITHIN);
                    self.state = tokio::select! {
                        ended = self.host.ended() => State::Gone(ended),
                        () = sleep_until(until) => {
                            self.kill(Ended::Overdue);
                            continue;
                        }
                    };
                }
                State::Killed(ended) => {
                    let ended = ended.clone();
                    // The system takes no longer, unless it is in trouble itself.
                    let _zombie = timeout(GONE_WITHIN, self.host.ended()).await;
                    self.state = State::Gone(ended);
                }
                State::Gone(ended) => return Event::Ended(ended.clone()),
            }
        }
    }

    /// Lets it encode what it was sent, and kills it if that takes longer than `drain`, which is usually [`DRAIN`]. What
    /// comes of it, and the end, comes from [`Child::next`].
    pub fn end(&mut self, drain: Duration) {
        self.input.end();
        self.deadline.get_or_insert_with(|| Instant::now() + drain);
    }

    /// Moves bytes through one of the pipes.
    async fn drive(&mut self) {
        // Grows with the message that comes, whose length was checked.
        self.received.reserve(READ_BYTES);
        let overdue = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = self.output.read_buf(&mut self.received) => match read {
                // A message that is cut off is the end of a crash, and the status says of which.
                Ok(0) => {
                    self.input.close();
                    self.state = State::Closed { since: Instant::now() };
                }
                Ok(_) => {}
                Err(error) => self.kill(lost(error)),
            },
            () = self.input.writable() => self.input.flush(),
            () = overdue => self.kill(Ended::Overdue),
        }
    }

    fn kill(&mut self, why: Ended) {
        match &mut self.host {
            // One that is gone already need not be.
            Host::Here { process, .. } => drop(process.start_kill()),
            Host::Elsewhere(carrying) => carrying.abort(),
        }
        self.input.close();
        self.state = State::Killed(why);
    }

    /// It lives. Without a job it says nothing, or it would not wait for one.
    fn fresh(mut self) -> Option<Self> {
        let lives = match &mut self.host {
            Host::Here { process, .. } => matches!(process.try_wait(), Ok(None)),
            Host::Elsewhere(carrying) => !carrying.is_finished(),
        };
        lives.then_some(self)
    }
}

impl Host {
    async fn ended(&mut self) -> Ended {
        match self {
            Self::Here { process, .. } => process.wait().await.map_or_else(lost, how),
            // Otherwise it was killed, for a reason that is known.
            Self::Elsewhere(carrying) => carrying.await.unwrap_or(Ended::Closed),
        }
    }
}

fn how(status: ExitStatus) -> Ended {
    match (status.signal(), status.code()) {
        (Some(number), _) => Ended::Signal { number },
        (None, Some(0)) => Ended::Finished,
        (None, code) => Ended::Failed { code: code.unwrap_or_default() },
    }
}

fn lost(error: std::io::Error) -> Ended {
    Ended::Lost(error.kind())
}
