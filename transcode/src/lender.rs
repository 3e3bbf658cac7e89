//! Children of this machine for jobs of other nodes.
//!
//! The job stays where the stream is: there the source is read, what comes of it is cut, and it is decided what becomes of a
//! child that fails. Here is only the child, at the end of a connection; it goes with that.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use media::NodeId;
use pipe::{FromEncoder, Machine, Message, PipeError, Progress, ToEncoder, TooLong, decode};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{info, warn};

use crate::budget::{Budget, Share};
use crate::child::{Child, DRAIN, Encoders, Ended, Event, SendError, StartError};
use crate::metrics::Metrics;

/// What a job costs at least, in cores, whatever was asked for: so that children are bounded.
const COST_MIN: f64 = 0.02;

/// No unit for this long, and the other node is taken for dead, though its connection is not: longer than a publisher may stay
/// away (`publish.linger`).
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// For jobs to go on elsewhere where a segment begins; a process that ends is given ten seconds for everything.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);

/// For the job to come once the connection is there.
const JOB_WITHIN: Duration = Duration::from_secs(5);

/// Read from a connection at once.
const READ_BYTES: usize = 64 * 1024;

/// A job's first seconds cost more than those that follow: it catches up.
const MEASURED_OVER: Duration = Duration::from_secs(10);

/// Cloning shares it.
#[derive(Debug, Clone)]
pub struct Lender {
    encoders: Encoders,
    budget: Budget,
    lent: Gauge,
    jobs: TaskTracker,
    /// Nothing more is lent, and what is is to go on elsewhere.
    is_shut: watch::Sender<bool>,
}

/// Room for a child.
#[derive(Debug)]
pub struct Room {
    share: Share,
    _job: TaskTrackerToken,
}

/// Why a child is not lent. For whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("too busy for it")]
    Full,
    #[error("about to leave")]
    Leaving,
}

/// How the loan of a child ended, if not with its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the connection is over: {0}")]
    Connection(#[from] std::io::Error),
    #[error("the other node sent {0}")]
    Nonsense(#[from] PipeError),
    #[error("the other node sent no job first, or another one after it")]
    NoJob,
    #[error("nothing came from the other node for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the encoder said {0}")]
    TooLong(#[from] TooLong),
    #[error("the other node did not let go of it within {} s", LEAVE_WITHIN.as_secs())]
    NotLetGo,
}

impl Lender {
    /// `encoders` of this machine, whose room is `budget`.
    pub fn new(encoders: Encoders, budget: Budget, metrics: &Metrics) -> Self {
        let lent = metrics.lent.clone();
        Self { encoders, budget, lent, jobs: TaskTracker::new(), is_shut: watch::Sender::default() }
    }

    /// What another job may cost, in cores.
    pub fn free(&self) -> f64 {
        if *self.is_shut.borrow() { 0.0 } else { self.budget.free() }
    }

    /// Room for a job of `cost` cores.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&self, cost: f64) -> Result<Room, Refused> {
        if *self.is_shut.borrow() {
            return Err(Refused::Leaving);
        }
        let share = self.budget.admit(cost.max(COST_MIN)).ok_or(Refused::Full)?;
        Ok(Room { share, _job: self.jobs.token() })
    }

    /// Lends a child over `connection` to `borrower` until one of the three ends.
    pub async fn lend(
        &self,
        borrower: NodeId,
        connection: impl AsyncRead + AsyncWrite + Send + 'static,
        room: Room,
    ) {
        let (input, output) = split(connection);
        let mut loan = Loan { input, output, received: BytesMut::new(), room, measured: None };
        self.lent.inc();
        let mut is_shut = self.is_shut.subscribe();
        let overdue = async {
            until_shut(&mut is_shut).await;
            sleep(LEAVE_WITHIN).await;
        };
        let ended = tokio::select! {
            ended = loan.run(self) => ended,
            // Whatever it waits for.
            () = overdue => Err(Broken::NotLetGo),
        };
        self.lent.dec();
        match ended {
            Ok(ended) => info!(node.id = %borrower, "an encoder that was lent: {ended}"),
            // As it drops a child that it does not want any more.
            Err(Broken::Connection(error)) => {
                info!(node.id = %borrower, %error, "an encoder that was lent is not wanted any more");
            }
            Err(why) => warn!(node.id = %borrower, "an encoder that was lent: {why}"),
        }
    }

    /// Nothing more is lent, and who has borrowed something is told to do without.
    pub fn shut(&self) {
        self.is_shut.send_replace(true);
    }

    /// After [`Lender::shut`].
    pub fn open(&self) {
        self.is_shut.send_replace(false);
    }

    /// Is shut, and waits until all do without.
    pub async fn leave(&self) {
        self.shut();
        self.jobs.close();
        self.jobs.wait().await;
    }
}

async fn until_shut(is_shut: &mut watch::Receiver<bool>) {
    // The lender has the sender.
    let _closed = is_shut.wait_for(|is_shut| *is_shut).await.map(drop);
}

struct Loan<R, W> {
    input: R,
    output: W,
    /// Of the input: what is no whole message yet.
    received: BytesMut,
    room: Room,
    /// When the child had used how much time.
    measured: Option<(Instant, Duration)>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Loan<R, W> {
    async fn run(&mut self, lender: &Lender) -> Result<Ended, Broken> {
        let first = timeout(JOB_WITHIN, self.heard()).await.map_err(|_| Broken::NoJob)??;
        let ToEncoder::Job(job) = first else { return Err(Broken::NoJob) };
        let mut child = lender.encoders.start(job)?;
        info!(child = child.id(), "encoder lent to another node");
        let mut is_shut = lender.is_shut.subscribe();
        let mut is_told = false;
        loop {
            tokio::select! {
                heard = self.heard() => Self::pass(&mut child, heard?)?,
                event = child.next() => match event {
                    Event::Message(message) => self.say(&message, lender).await?,
                    Event::Ended(ended) => {
                        self.output.shutdown().await?;
                        return Ok(ended);
                    }
                },
                () = until_shut(&mut is_shut), if !is_told => {
                    is_told = true;
                    self.tell(&FromEncoder::Machine(Machine::Leaving)).await?;
                    self.output.flush().await?;
                }
            }
        }
    }

    fn pass(child: &mut Child, message: ToEncoder) -> Result<(), Broken> {
        match message {
            ToEncoder::Job(_) => Err(Broken::NoJob),
            ToEncoder::End => {
                child.end(DRAIN);
                Ok(())
            }
            message => match child.send(&message) {
                // How it ended is what it says next. One that is behind by all that its queue holds is lost: its job knew long before.
                Ok(()) | Err(SendError::Ended) => Ok(()),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The next message. May be dropped at any time without a loss.
    async fn heard(&mut self) -> Result<ToEncoder, Broken> {
        loop {
            if let Some(message) = decode(&mut self.received)? {
                return Ok(message);
            }
            self.received.reserve(READ_BYTES);
            let read = timeout(SILENCE_MAX, self.input.read_buf(&mut self.received)).await;
            if read.map_err(|_| Broken::Silent)?? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Hands on what the child said.
    async fn say(&mut self, message: &FromEncoder, lender: &Lender) -> Result<(), Broken> {
        self.tell(message).await?;
        if let FromEncoder::Progress(progress) = message
            && self.measure(*progress)
            && lender.budget.is_short()
        {
            self.tell(&FromEncoder::Machine(Machine::Short)).await?;
        }
        Ok(self.output.flush().await?)
    }

    async fn tell(&mut self, message: &FromEncoder) -> Result<(), Broken> {
        let mut bytes = message.encode()?;
        Ok(self.output.write_all_buf(&mut bytes).await?)
    }

    /// Whether there is a new measure of what the job costs.
    fn measure(&mut self, progress: Progress) -> bool {
        let now = Instant::now();
        let (since, before) = *self.measured.get_or_insert((now, progress.cpu));
        let span = now.saturating_duration_since(since);
        if span < MEASURED_OVER {
            return false;
        }
        let cost = progress.cpu.saturating_sub(before).div_duration_f64(span);
        self.room.share.set_cost(cost.max(COST_MIN));
        self.measured = Some((now, progress.cpu));
        true
    }
}
