//! A bad network between a server and a player: all that goes between them, UDP and TCP alike, is delayed, held up and lost.
//!
//! ```text
//! server ── TUN ── relay: link.rs, each way ── TUN ── player, in a network namespace of its own
//! ```
//! The kernel's own emulation (`tc netem`) is a module that many machines lack, and its chance has no seed. Needs the right to make
//! interfaces: run by root, or within `unshare --user --map-root-user --net`.

mod link;

use std::net::Ipv4Addr;
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

pub use self::link::Link;

use self::link::Direction;
use crate::namespace::{Namespace, run};

/// Packets under way; more are dropped, as nothing of ours sends so many.
const UNDER_WAY_MAX: usize = 16 * 1024;
/// Between two looks at whether the network is gone.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const MTU: usize = 1_500;

/// Networks of this process.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// Ends with its value.
pub struct Network {
    namespace: Namespace,
    server: Ipv4Addr,
    directions: [Arc<Mutex<Direction>>; 2],
    is_over: Arc<AtomicBool>,
}

impl Network {
    /// The first packets find it to be as `link` says. Prints the seed.
    ///
    /// # Errors
    /// If we may not, or the system lacks `ip`, `unshare`, `nsenter` or `/dev/net/tun`.
    pub fn start(seed: u64, link: Link) -> Result<Self> {
        println!("seed {seed}");
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let (server, player) = addresses(number);
        let namespace = Namespace::new()?;
        // Names of interfaces are at most 15 characters.
        let name = format!("bad{}n{number}", process::id());
        let here = device(&name)?;
        for arguments in
            [vec!["addr", "add", &format!("{server}/30"), "dev", &name], vec!["link", "set", &name, "up"]]
        {
            run(Command::new("ip").args(arguments))?;
        }
        // A device stays where it was made.
        let there = namespace.within(|| device("bad"))?;
        for arguments in [
            vec!["ip", "addr", "add", &format!("{player}/30"), "dev", "bad"],
            vec!["ip", "link", "set", "bad", "up"],
        ] {
            run(namespace.enter().args(arguments))?;
        }

        let is_over = Arc::new(AtomicBool::new(false));
        let (mut random, now) = (Rng::with_seed(seed), Instant::now());
        let directions = [(); 2].map(|()| Arc::new(Mutex::new(Direction::new(link, random.fork(), now))));
        let (here, there) = (Arc::new(here), Arc::new(there));
        for ((from, to), direction) in [(&here, &there), (&there, &here)].into_iter().zip(&directions) {
            let (sender, receiver) = sync_channel(UNDER_WAY_MAX);
            let (from, to, direction, is_over) =
                (Arc::clone(from), Arc::clone(to), Arc::clone(direction), Arc::clone(&is_over));
            thread::spawn(move || take(&from, &direction, &sender, &is_over));
            thread::spawn(move || deliver(&to, &receiver));
        }
        Ok(Self { namespace, server, directions, is_over })
    }

    /// Where a server must listen to be reached by players in here.
    #[must_use]
    pub fn server(&self) -> Ipv4Addr {
        self.server
    }

    /// From now on it is so.
    pub fn set(&self, link: Link) {
        self.each(|direction| direction.set(link));
    }

    /// Nothing gets through for so long. Returns when it will again.
    pub fn cut(&self, duration: Duration) -> Instant {
        let until = Instant::now() + duration;
        self.each(|direction| direction.cut(until));
        until
    }

    /// `program` within the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.enter();
        command.arg(program);
        command
    }

    fn each(&self, mut change: impl FnMut(&mut Direction)) {
        self.directions.iter().for_each(|direction| change(&mut lock(direction)));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn lock(direction: &Mutex<Direction>) -> MutexGuard<'_, Direction> {
    direction.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of a network's two ends: a /30 of the range for tests of network equipment (RFC 2544, §C.2.2), which nobody routes.
/// Other processes run tests too, so it depends on ours.
fn addresses(number: u32) -> (Ipv4Addr, Ipv4Addr) {
    let networks = 1 << 15;
    let place = (process::id().wrapping_mul(64) + number) % networks;
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + 4 * place;
    (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2))
}

fn device(name: &str) -> Result<SyncDevice> {
    let device = DeviceBuilder::new().name(name).mtu(MTU as u16).enable(false).build_sync();
    let device = device.with_context(|| format!("TUN device {name}"))?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// Takes what one end sends, and decides when it arrives.
fn take(
    from: &SyncDevice,
    direction: &Mutex<Direction>,
    deliver: &SyncSender<(Instant, Vec<u8>)>,
    is_over: &AtomicBool,
) {
    let mut packet = [0; MTU];
    while !is_over.load(Ordering::Relaxed) {
        match from.recv(&mut packet) {
            Ok(bytes) => {
                let arrives = lock(direction).send(bytes, Instant::now());
                if let Some(at) = arrives {
                    let _full = deliver.try_send((at, packet[..bytes].to_vec()));
                }
            }
            Err(_) => {
                // Nothing is there, or the namespace is gone, which is seen at the next look.
                let _ = poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&LOOK));
            }
        }
    }
}

/// Until the other thread ends. Packets arrive in the order in which they were sent.
fn deliver(to: &SyncDevice, packets: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((at, packet)) = packets.recv() {
        #[expect(clippy::disallowed_methods, reason = "the network's delay itself")]
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // An interface that is gone or full takes nothing, as a real one.
        let _ = to.send(&packet);
    }
}
