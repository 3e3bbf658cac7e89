//! Under which address the world sees our port: a STUN server is asked (RFC 8489), from the port itself, since a NAT has one
//! address outside for each port inside.
//!
//!   [`Reflexive::ask`] ─▶ socket ─▶ the server ─▶ socket ─▶ [`Reflexive::take_answer`] ─▶ [`Reflexive::mapped`]
//!
//! The port is an ICE-lite agent all the same: peers are asked nothing, and told the address as one of ours.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use rtc_stun::message::TransactionId;
use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Shared;
use crate::stun::{self, BINDING_SUCCESS_BYTES as BINDING_SUCCESS};

/// RFC 8489, §18.6.
const PORT: u16 = 3478;

/// After this long an answer may be another one: what a provider does to its lines, and less than an operator wants to wait for.
const ASK_EVERY: Duration = Duration::from_secs(180);

/// How long each request is waited for, by RFC 8489, §6.2.1.
const WAITS: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// A server to ask, `stun:HOST` or `stun:HOST:PORT` (RFC 7064).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunServer {
    /// A name, or an address; one of IPv6 without its brackets.
    host: String,
    port: u16,
}

/// What is no [`StunServer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no URL of a STUN server")]
pub struct NoStunServer;

impl FromStr for StunServer {
    type Err = NoStunServer;

    fn from_str(text: &str) -> Result<Self, NoStunServer> {
        let authority: Authority =
            text.strip_prefix("stun:").and_then(|rest| rest.parse().ok()).ok_or(NoStunServer)?;
        let host = authority.host();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() == host => PORT,
            None => return Err(NoStunServer),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
        };
        let is_whole = authority.as_str().starts_with(host);
        let host = bare.unwrap_or(host).to_owned();
        if is_host && is_whole && port != 0 { Ok(Self { host, port }) } else { Err(NoStunServer) }
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "stun:[{}]", self.host)?,
            false => write!(f, "stun:{}", self.host)?,
        }
        if self.port == PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// What the server was asked, and what it said last. For each family of addresses one: where there is no NAT for one of them,
/// the answer is an address that we have, and nothing new.
#[derive(Debug, Default)]
pub(super) struct Reflexive {
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    questions: [Option<Question>; 2],
    mapped: [Option<SocketAddr>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Question {
    server: SocketAddr,
    transaction: TransactionId,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    server: SocketAddr,
    mapped: SocketAddr,
    is_new: bool,
}

impl Answer {
    /// `port`: ours.
    pub(super) fn tell(&self, port: u16) {
        let Self { server, mapped, is_new } = self;
        if !is_new {
            return;
        }
        let changed = if mapped.port() == port {
            String::new()
        } else {
            format!(
                ". The NAT between them changes ports: if peers do not get through, lead UDP and TCP {port} here, and set \
                 webrtc.public"
            )
        };
        info!(
            "WebRTC peers are offered {mapped} too, where {server} sees this machine (webrtc.stun){changed}"
        );
    }
}

fn family(address: SocketAddr) -> usize {
    usize::from(address.is_ipv6())
}

impl Reflexive {
    /// The request to send to `server`. An answer to an earlier one of this family counts no more.
    fn ask(&self, server: SocketAddr) -> Vec<u8> {
        let transaction = TransactionId::new();
        self.lock().questions[family(server)] = Some(Question { server, transaction });
        stun::binding_request(transaction)
    }

    /// What `bytes` say, if they are the answer to what was asked. Who cannot see the request cannot answer it: 96 random bits of
    /// it come back.
    pub(super) fn take_answer(&self, remote: SocketAddr, bytes: &[u8]) -> Option<Answer> {
        if !bytes.starts_with(&BINDING_SUCCESS) {
            return None;
        }
        let mut state = self.lock();
        let Question { server, transaction } = state.questions[family(remote)]?;
        if server != remote || bytes.get(8..20) != Some(&transaction.0[..]) {
            return None;
        }
        let mapped = stun::mapped_address(bytes).filter(|mapped| is_reachable(*mapped))?;
        state.questions[family(remote)] = None;
        let before = state.mapped[family(mapped)].replace(mapped);
        drop(state);
        self.answered.notify_one();
        Some(Answer { server, mapped, is_new: before != Some(mapped) })
    }

    pub(super) fn mapped(&self) -> Vec<SocketAddr> {
        self.lock().mapped.iter().flatten().copied().collect()
    }

    fn unanswered(&self) -> usize {
        self.lock().questions.iter().flatten().count()
    }

    fn give_up(&self) {
        self.lock().questions = [None; 2];
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody who holds it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever a server says, nobody is told to send packets there that reach no single machine.
fn is_reachable(address: SocketAddr) -> bool {
    let is_broadcast = matches!(address.ip(), IpAddr::V4(v4) if v4.is_broadcast());
    !(address.ip().is_unspecified() || address.ip().is_multicast() || is_broadcast || address.port() == 0)
}

/// Asks at once, and then again and again, for as long as this is polled.
pub(super) async fn keep_asking(shared: &Shared, server: &StunServer) -> Infallible {
    let mut has_failed = false;
    loop {
        let asked = ask(shared, server).await;
        // Told once, and asked again all the same.
        if let Err(error) = &asked
            && !has_failed
        {
            warn!("{server} does not say under which address this machine is reached (webrtc.stun): {error}");
        }
        has_failed = asked.is_err();
        sleep(ASK_EVERY).await;
    }
}

/// One address of each family. An error if none of them answers.
async fn ask(shared: &Shared, server: &StunServer) -> io::Result<()> {
    let found: Vec<SocketAddr> = lookup_host((server.host.as_str(), server.port)).await?.collect();
    let v4 = found.iter().find(|address| address.is_ipv4());
    // A socket for IPv4 reaches nothing else.
    let v6 = found.iter().find(|address| address.is_ipv6() && shared.bound.is_ipv6());
    let servers = v4.into_iter().chain(v6);
    let requests: Vec<_> = servers.map(|&server| (server, shared.reflexive.ask(server))).collect();
    let mut failure = io::Error::new(io::ErrorKind::TimedOut, "no answer comes");
    for wait in WAITS {
        for (server, request) in &requests {
            // One family may have no way out.
            if let Err(error) = shared.socket.send_to(request, shared.as_bound(*server)) {
                failure = error;
            }
        }
        let answered = async {
            while shared.reflexive.unanswered() > 0 {
                shared.reflexive.answered.notified().await;
            }
        };
        if timeout(wait, answered).await.is_ok() {
            break;
        }
    }
    let unanswered = shared.reflexive.unanswered();
    shared.reflexive.give_up();
    if unanswered < requests.len() { Ok(()) } else { Err(failure) }
}

#[cfg(test)]
mod tests;
