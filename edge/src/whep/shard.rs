//! A thread with some of the viewers. It owns them and their streams' frames, so nothing here is locked.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use media::SessionId;
use relay::Stream;
use rtc::peer::{Closed, Credentials, Input};
use rtc::port::{Datagram, Port};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{debug, error, info};

use super::metrics::Metrics;
use super::programme::{Programme, Which};
use super::rendition::{Formats, READ_AHEAD_MAX, Told};
use super::viewer::{Join, Viewer};

/// Datagrams that a shard has not read. A viewer sends some twenty in a second; what does not fit is dropped and counted by the port.
const INBOX_MAX: usize = 4_096;

/// Requests that a shard has not seen. A crowd of joins waits for some milliseconds.
const COMMANDS_MAX: usize = 1_024;

/// Datagrams and frames handled between two looks at the clock.
const AT_ONCE: usize = 64;

/// What a shard is told.
pub(super) enum Command {
    Join {
        join: Box<Join>,
        stream: Arc<Stream>,
    },
    Leave {
        viewer: u64,
    },
    /// ICE restart.
    Restart {
        viewer: u64,
        local: Credentials,
        remote_ufrag: String,
    },
    /// By name; `None` leaves it to the server.
    Pin {
        viewer: u64,
        rendition: Option<String>,
        reply: oneshot::Sender<Result<(), NoSuchRendition>>,
    },
    /// Everybody is said goodbye.
    Drain,
    /// A bug, for tests.
    #[cfg(test)]
    Panic {
        viewer: u64,
    },
}

impl Command {
    /// `None`: of all.
    fn viewer(&self) -> Option<u64> {
        match self {
            Self::Join { join, .. } => Some(join.viewer),
            Self::Leave { viewer } | Self::Restart { viewer, .. } | Self::Pin { viewer, .. } => Some(*viewer),
            Self::Drain => None,
            #[cfg(test)]
            Self::Panic { viewer } => Some(*viewer),
        }
    }
}

/// There is none of the name that was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such rendition here; there are: {}", known.join(", "))]
pub(super) struct NoSuchRendition {
    known: Vec<String>,
}

/// What comes of a stream.
enum FromStream {
    Rendition {
        programme: Key,
        which: Which,
        told: Told,
    },
    /// It is over, or goes on as its successor.
    End {
        programme: Key,
        stream: Arc<Stream>,
    },
}

/// Which programme: a viewer without a decoder for all formats of a stream has fewer renditions to go between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    session: SessionId,
    formats: Formats,
}

/// The way to a shard. It ends when all of these are dropped.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) inbox: mpsc::Sender<Datagram>,
}

/// Who is told that a viewer is gone.
pub(super) type Gone = Arc<dyn Fn(u64) + Send + Sync>;

/// Starts the thread.
///
/// # Errors
/// From the system, which has no more threads.
pub(super) fn spawn(number: usize, port: Port, gone: Gone, metrics: Metrics) -> io::Result<Handle> {
    let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
    let (inbox, datagrams) = mpsc::channel(INBOX_MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name(format!("whep-{number}")).spawn(move || {
        let (to, frames) = mpsc::channel(READ_AHEAD_MAX);
        let shard = Shard {
            port,
            to,
            gone,
            metrics: Arc::new(metrics),
            programmes: HashMap::new(),
            viewers: HashMap::new(),
            deadlines: BTreeSet::new(),
            changed: HashSet::new(),
            scratch: Vec::new(),
        };
        runtime.block_on(shard.run(commanded, datagrams, frames));
    })?;
    Ok(Handle { commands, inbox })
}

struct Shard {
    port: Port,
    to: mpsc::Sender<FromStream>,
    gone: Gone,
    metrics: Arc<Metrics>,
    programmes: HashMap<Key, Programme>,
    viewers: HashMap<u64, Placed>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Of these another rendition is wanted, or one is not any more: looked at once, however many viewers that comes of.
    changed: HashSet<Key>,
    /// Packets of one batch.
    scratch: Vec<u8>,
}

struct Placed {
    viewer: Viewer,
    programme: Key,
    /// The renditions that are read for it: what it is to be sent, and what it is sent.
    reads: [Option<usize>; 2],
    /// Under which it is in the deadlines: no later than the viewer's own.
    deadline: Option<Instant>,
}

impl Shard {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut datagrams: mpsc::Receiver<Datagram>,
        mut frames: mpsc::Receiver<FromStream>,
    ) {
        let (mut came, mut read) = (Vec::with_capacity(AT_ONCE), Vec::with_capacity(AT_ONCE));
        loop {
            let next = self.deadlines.first().map(|(deadline, _)| *deadline);
            let due = async {
                match next {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => match command.viewer() {
                        Some(viewer) => self.contained(viewer, |shard| shard.command(command)),
                        None => self.command(command),
                    },
                    None => return,
                },
                _ = datagrams.recv_many(&mut came, AT_ONCE) => {
                    let now = Instant::now();
                    came.drain(..).for_each(|datagram| self.datagram(&datagram, now));
                }
                _ = frames.recv_many(&mut read, AT_ONCE) => self.frames(&mut read),
                () = due => {}
            }
            self.deadlines();
            for programme in std::mem::take(&mut self.changed) {
                self.read(programme);
            }
        }
    }

    fn command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Join { join, stream } => self.join(*join, stream, now),
            Command::Leave { viewer } => self.close(viewer, now),
            Command::Restart { viewer, local, remote_ufrag } => {
                if let Some(placed) = self.viewers.get_mut(&viewer) {
                    placed.viewer.lease().add_ufrag(&local.ufrag);
                    placed.viewer.peer().restart_ice(local, &remote_ufrag);
                }
            }
            Command::Pin { viewer, rendition, reply } => {
                if let Some(pinned) = self.pin(viewer, rendition.as_deref()) {
                    // Whoever asked may have gone meanwhile.
                    let _ = reply.send(pinned);
                }
            }
            Command::Drain => {
                let viewers: Vec<_> = self.viewers.keys().copied().collect();
                viewers.into_iter().for_each(|viewer| self.close(viewer, now));
            }
            #[cfg(test)]
            Command::Panic { .. } => panic!("as asked"),
        }
    }

    /// A bug that one viewer's bytes lead to ends that viewer, and not the thread: what it leaves half done is its own, and
    /// forgotten.
    fn contained(&mut self, number: u64, act: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            self.metrics.panics.inc();
            error!(viewer = number, "viewer by WebRTC dropped: its session panicked; this is a bug");
            self.forget(number, &Closed::ByUs);
        }
    }

    fn join(&mut self, join: Join, stream: Arc<Stream>, now: Instant) {
        let number = join.viewer;
        let key = Key { session: stream.session(), formats: join.formats };
        let stream = newest(stream);
        let is_stale = self.programmes.get(&key).is_some_and(|programme| {
            !Arc::ptr_eq(programme.stream(), &stream) && programme.stream().record().has_changed().is_err()
        });
        if is_stale {
            // Its end is still on its way here.
            self.go_on(key, stream.clone());
        }
        let programme = self.programmes.entry(key).or_insert_with(|| programme(key, stream, &self.to));
        programme.viewers.push(number);
        let viewer = Viewer::new(join, programme, self.metrics.clone(), now);
        let placed = Placed { viewer, programme: key, reads: [None; 2], deadline: None };
        self.viewers.insert(number, placed);
        self.drive(number, None, now);
    }

    /// The viewers of a session whose log is written anew.
    fn go_on(&mut self, key: Key, stream: Arc<Stream>) {
        let Some(before) = self.programmes.get_mut(&key) else { return };
        let viewers = std::mem::take(&mut before.viewers);
        *before = programme(key, stream, &self.to);
        before.viewers = viewers;
        for viewer in &before.viewers {
            if let Some(placed) = self.viewers.get_mut(viewer) {
                placed.viewer.begin_anew();
            }
        }
        self.changed.insert(key);
    }

    /// `None` if the viewer has left.
    fn pin(&mut self, number: u64, rendition: Option<&str>) -> Option<Result<(), NoSuchRendition>> {
        let placed = self.viewers.get_mut(&number)?;
        let programme = self.programmes.get(&placed.programme)?;
        let wanted = match rendition.map(|name| programme.number_of(name)) {
            Some(None) => return Some(Err(NoSuchRendition { known: programme.names() })),
            Some(wanted) => wanted,
            None => None,
        };
        placed.viewer.pin(wanted, programme);
        self.drive(number, None, Instant::now());
        Some(Ok(()))
    }

    fn datagram(&mut self, datagram: &Datagram, now: Instant) {
        let input = Input::Datagram { path: datagram.path, bytes: &datagram.bytes };
        self.drive(datagram.peer, Some(input), now);
    }

    /// Frames of all renditions first, so that each viewer is looked at once.
    fn frames(&mut self, read: &mut Vec<FromStream>) {
        let now = Instant::now();
        let (mut touched, mut ended) = (Vec::new(), Vec::new());
        for read in read.drain(..) {
            let (key, which, told) = match read {
                FromStream::Rendition { programme, which, told } => (programme, which, told),
                FromStream::End { programme, stream } => {
                    ended.push((programme, stream));
                    continue;
                }
            };
            let Some(programme) = self.programmes.get_mut(&key) else { continue };
            programme.told(which, told, now);
            if !touched.contains(&key) {
                touched.push(key);
            }
        }
        for key in touched {
            let viewers = self.programmes.get(&key).map(|programme| programme.viewers.clone());
            viewers.into_iter().flatten().for_each(|viewer| self.drive(viewer, None, now));
        }
        for (key, stream) in ended {
            let programme = self.programmes.get(&key);
            let Some(programme) = programme.filter(|programme| Arc::ptr_eq(programme.stream(), &stream))
            else {
                continue;
            };
            let viewers = programme.viewers.clone();
            match stream.successor() {
                Some(next) => self.go_on(key, newest(next.clone())),
                None => viewers.into_iter().for_each(|viewer| self.close(viewer, now)),
            }
        }
    }

    fn deadlines(&mut self) {
        let now = Instant::now();
        if self.deadlines.first().is_none_or(|(first, _)| now < *first) {
            return;
        }
        // Each once, whatever its next deadline is: no viewer may keep the thread from the others.
        let later = self.deadlines.split_off(&(now, u64::MAX));
        for (_, viewer) in std::mem::replace(&mut self.deadlines, later) {
            if let Some(placed) = self.viewers.get_mut(&viewer) {
                placed.deadline = None;
            }
            self.drive(viewer, None, now);
        }
    }

    fn close(&mut self, number: u64, now: Instant) {
        self.contained(number, |shard| {
            if let Some(placed) = shard.viewers.get_mut(&number) {
                placed.viewer.peer().close(now);
                shard.drive(number, None, now);
            }
        });
    }

    fn drive(&mut self, number: u64, input: Option<Input<'_>>, now: Instant) {
        self.contained(number, |shard| shard.drive_uncontained(number, input, now));
    }

    fn drive_uncontained(&mut self, number: u64, input: Option<Input<'_>>, now: Instant) {
        let Some(placed) = self.viewers.get_mut(&number) else { return };
        let Some(programme) = self.programmes.get(&placed.programme) else {
            error!("a viewer of no programme");
            return;
        };
        match placed.viewer.drive(input, programme, &self.port, &mut self.scratch, now) {
            Ok(()) => {
                // One that moves to later, as it does with each frame, is put there when the earlier one has come.
                if let Some(deadline) = placed.viewer.deadline()
                    && placed.deadline.is_none_or(|before| deadline < before)
                {
                    if let Some(before) = placed.deadline.replace(deadline) {
                        self.deadlines.remove(&(before, number));
                    }
                    self.deadlines.insert((deadline, number));
                }
                let reads = placed.viewer.renditions();
                let before = std::mem::replace(&mut placed.reads, reads);
                if reads != before {
                    let name = |number: Option<usize>| number.and_then(|number| programme.name_of(number));
                    self.metrics.moved(name(before[1]), name(reads[1]));
                    self.changed.insert(placed.programme);
                }
            }
            Err(closed) => self.forget(number, &closed),
        }
    }

    /// Exactly what somebody wants.
    fn read(&mut self, key: Key) {
        let Some(programme) = self.programmes.get_mut(&key) else { return };
        let viewers = programme.viewers.iter().filter_map(|viewer| self.viewers.get(viewer));
        let wanted: Vec<_> = viewers.flat_map(|placed| placed.reads).flatten().collect();
        let tell = move |which, told| FromStream::Rendition { programme: key, which, told };
        wanted.iter().for_each(|number| programme.want(*number, &self.to, tell));
        programme.rest(&wanted);
    }

    fn forget(&mut self, number: u64, closed: &Closed) {
        match closed {
            Closed::ByUs | Closed::ByPeer => debug!(viewer = number, %closed, "left"),
            _ => info!(viewer = number, %closed, "viewer lost"),
        }
        self.metrics.ended(closed);
        let placed = self.viewers.remove(&number);
        if let Some(deadline) = placed.as_ref().and_then(|placed| placed.deadline) {
            self.deadlines.remove(&(deadline, number));
        }
        // One that failed to join is in a programme without being anywhere else.
        for (session, programme) in &mut self.programmes {
            let before = programme.viewers.len();
            programme.viewers.retain(|viewer| *viewer != number);
            if programme.viewers.len() < before {
                self.changed.insert(*session);
                let sent = placed.as_ref().and_then(|placed| placed.reads[1]);
                self.metrics.moved(sent.and_then(|number| programme.name_of(number)), None);
            }
        }
        // Its readers end with it, and rungs on demand linger by themselves.
        self.programmes.retain(|_, programme| !programme.viewers.is_empty());
        (self.gone)(number);
    }
}

fn programme(key: Key, stream: Arc<Stream>, to: &mpsc::Sender<FromStream>) -> Programme {
    Programme::new(stream, key.formats, to, move |stream| FromStream::End { programme: key, stream })
}

/// Where the session of `stream` is written now.
fn newest(mut stream: Arc<Stream>) -> Arc<Stream> {
    while let Some(next) = stream.successor() {
        stream = next.clone();
    }
    stream
}

#[cfg(test)]
mod tests;
