//! Viewers by WebRTC, all on one thread.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc as sync};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rtc::dtls::Identity;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{interval, sleep};

use super::viewer::{Buffer, Offered, Seen, Watched, buffer};
use crate::client::{Client, address_of};

/// For all of a join to have their first packet.
const CONNECTED_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A crowd of viewers of one stream. They end with it.
pub(super) struct Crowd {
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    /// Packets that the first viewer has opened.
    watched: sync::Receiver<Watched>,
}

enum Command {
    Join { count: usize, every: Duration, tell: sync::Sender<Result<Vec<Joined>>> },
    Look { anew: bool, tell: sync::Sender<Vec<Seen>> },
}

/// How one came in.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    /// Of its UDP socket.
    pub(super) address: SocketAddr,
    /// From the request to the whole answer.
    pub(super) answered: Duration,
}

impl Crowd {
    pub(super) fn new(server: SocketAddr, path: String) -> Self {
        let (commands, mut commanded) = mpsc::unbounded_channel();
        let (tell, watched) = sync::channel();
        let thread = thread::spawn(move || {
            let runtime =
                Builder::new_current_thread().enable_all().build().expect("the system has an epoll");
            LocalSet::new().block_on(&runtime, async move {
                let mut place = Place::new(server, path, tell);
                while let Some(command) = commanded.recv().await {
                    place.follow(command).await;
                }
            });
        });
        Self { commands: Some(commands), thread: Some(thread), watched }
    }

    /// `count` more, one `every` so long; returns when media has come to each.
    pub(super) fn join(&self, count: usize, every: Duration) -> Result<Vec<Joined>> {
        let (tell, told) = sync::channel();
        self.command(Command::Join { count, every, tell })?;
        told.recv().context("the crowd is gone")?
    }

    /// What each has seen; `anew`: since the last such look.
    pub(super) fn look(&self, anew: bool) -> Result<Vec<Seen>> {
        let (tell, told) = sync::channel();
        self.command(Command::Look { anew, tell })?;
        let seen = told.recv().context("the crowd is gone")?;
        for (number, seen) in seen.iter().enumerate() {
            ensure!(
                seen.failure.is_none(),
                "viewer {number}: {}",
                seen.failure.as_deref().unwrap_or_default()
            );
            ensure!(seen.broken == 0, "viewer {number}: {} packets did not open", seen.broken);
        }
        Ok(seen)
    }

    /// What the first viewer has opened since it was asked last.
    pub(super) fn watched(&self) -> Vec<Watched> {
        self.watched.try_iter().collect()
    }

    fn command(&self, command: Command) -> Result<()> {
        let commands = self.commands.as_ref().context("the crowd is gone")?;
        commands.send(command).map_err(|_| anyhow!("the crowd is gone"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Where they all are.
struct Place {
    server: SocketAddr,
    path: String,
    identity: Arc<Identity>,
    buffer: Buffer,
    seen: Vec<Rc<RefCell<Seen>>>,
    /// For the first of them.
    watched: Option<sync::Sender<Watched>>,
}

impl Place {
    fn new(server: SocketAddr, path: String, watched: sync::Sender<Watched>) -> Self {
        let identity = Arc::new(Identity::generate().expect("the system has randomness"));
        Self { server, path, identity, buffer: buffer(), seen: Vec::new(), watched: Some(watched) }
    }

    async fn follow(&mut self, command: Command) {
        // Whoever asked may have given up.
        let _unheard = match command {
            Command::Join { count, every, tell } => tell.send(self.join(count, every).await).is_err(),
            Command::Look { anew, tell } => tell.send(self.look(anew)).is_err(),
        };
    }

    async fn join(&mut self, count: usize, every: Duration) -> Result<Vec<Joined>> {
        let mut next = interval(every);
        let mut joining = Vec::new();
        let first = self.seen.len();
        for number in first..first + count {
            next.tick().await;
            let seen = Rc::new(RefCell::new(Seen::default()));
            self.seen.push(seen.clone());
            let watched = self.watched.take();
            let (server, path) = (self.server, self.path.clone());
            let (identity, buffer) = (self.identity.clone(), self.buffer.clone());
            joining.push(spawn_local(join(number, server, path, identity, seen, watched, buffer)));
        }
        let mut joined = Vec::new();
        for join in joining {
            joined.push(join.await??);
        }
        let deadline = Instant::now() + CONNECTED_MAX;
        let is_silent = |seen: &Rc<RefCell<Seen>>| seen.borrow().packets == 0;
        while let Some(silent) = self.seen.iter().position(is_silent) {
            let failure = self.seen[silent].borrow().failure.clone();
            ensure!(failure.is_none(), "viewer {silent}: {}", failure.unwrap_or_default());
            ensure!(Instant::now() < deadline, "viewer {silent} has no media after {CONNECTED_MAX:?}");
            sleep(LOOK_EVERY).await;
        }
        Ok(joined)
    }

    fn look(&self, anew: bool) -> Vec<Seen> {
        let seen = self.seen.iter().map(|seen| {
            let mut seen = seen.borrow_mut();
            let now = seen.clone();
            if anew {
                seen.longest_gap = Duration::ZERO;
            }
            now
        });
        seen.collect()
    }
}

async fn join(
    number: usize,
    server: SocketAddr,
    path: String,
    identity: Arc<Identity>,
    seen: Rc<RefCell<Seen>>,
    watched: Option<sync::Sender<Watched>>,
    buffer: Buffer,
) -> Result<Joined> {
    let from = address_of(number);
    let offered = Offered::new(from, identity)?;
    let mut client = Client::open(server, from, None).await?;
    let began = Instant::now();
    let answer = client.post(&path, "application/sdp", &offered.text).await?;
    let answered = began.elapsed();
    let text = answer.text()?;
    ensure!(answer.status == 201, "viewer {number}: status {}: {text}", answer.status);
    let proof = watched.map(|watched| -> Box<dyn FnMut(Watched)> {
        Box::new(move |packet| {
            // Nobody looks any more once the crowd goes home.
            let _unwatched = watched.send(packet);
        })
    });
    let address = offered.local()?;
    let viewer = offered.answered(&text, candidate(&text)?, seen, proof, buffer)?;
    spawn_local(viewer.run());
    Ok(Joined { address, answered })
}

/// The first for UDP (RFC 8839, §5.1).
fn candidate(answer: &str) -> Result<SocketAddr> {
    let candidates = answer.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    let addresses = candidates.filter_map(|candidate| {
        let words: Vec<_> = candidate.split(' ').collect();
        let udp = words.get(2)?.eq_ignore_ascii_case("udp");
        udp.then_some(SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?))
    });
    { addresses }.next().context("no candidate for UDP in the answer")
}
