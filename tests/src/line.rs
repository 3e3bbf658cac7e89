//! A line of TCP between two processes that can be cut: what goes in does not come out, and nobody is told, as when a network
//! falls apart.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;

/// Ends with the test.
pub struct Line {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_cut: Mutex<bool>,
    mended: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_cut.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the line is whole.
    fn wait(&self) {
        let mut is_cut = self.lock();
        while *is_cut {
            is_cut = self.mended.wait(is_cut).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Line {
    /// # Errors
    /// From the system.
    pub fn to(target: SocketAddr) -> Result<Self> {
        Self::listening(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, target)
    }

    /// On a socket that was bound before the target was known.
    ///
    /// # Errors
    /// From the system.
    pub fn listening(listener: TcpListener, target: SocketAddr) -> Result<Self> {
        let (address, state) = (listener.local_addr()?, Arc::<State>::default());
        let shared = state.clone();
        thread::spawn(move || {
            for accepted in listener.incoming() {
                let Ok(near) = accepted else { return };
                let state = shared.clone();
                thread::spawn(move || connect(near, target, &state));
            }
        });
        Ok(Self { address, state })
    }

    /// Where to connect instead.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing gets through. What was sent and not read yet waits.
    pub fn cut(&self) {
        *self.state.lock() = true;
    }

    pub fn mend(&self) {
        *self.state.lock() = false;
        self.state.mended.notify_all();
    }
}

fn connect(near: TcpStream, target: SocketAddr, state: &Arc<State>) {
    state.wait();
    let Ok(far) = TcpStream::connect(target) else { return };
    let (Ok(from_near), Ok(from_far)) = (near.try_clone(), far.try_clone()) else { return };
    let back = state.clone();
    thread::spawn(move || carry(from_far, near, &back));
    carry(from_near, far, state);
}

fn carry(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes) = from.read(&mut buffer)
        && bytes > 0
    {
        state.wait();
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    // Not before the line is whole: who is cut off does not hear of a goodbye either.
    state.wait();
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
