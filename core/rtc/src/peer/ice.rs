//! ICE-lite (RFC 8445, §2.5): we have public addresses, so we only answer the peer's checks, and it chooses.
//!
//! Our own, over `rtc-stun`, and not `rtc-ice`: that is an agent for both sides (candidates, pairs, check lists, timers;
//! 4,500 lines), of which a lite one uses the part below, and what it decides about paths is what we must decide
//! differently. Pure, with time as an argument.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::port::Path;
use crate::stun::{Request, StunError};

/// Paths that are known to be the peer's, for DTLS and RTCP: see `ADDRESSES_PER_LEASE_MAX` of the port.
const VALID_MAX: usize = 8;

/// The path has been silent, and the peer checks another one: it has moved, and does not say so. Peers check the path
/// they use every 2.5 s (Chromium) or every 5 s (Firefox; RFC 7675, §5.1, says 4 to 6 s).
const SILENCE: Duration = Duration::from_secs(3);

/// 48 bits; the standard asks for 24 (RFC 8839, §5.4).
const UFRAG_CHARS: usize = 8;
/// 192 bits; the standard asks for 128.
const PASSWORD_CHARS: usize = 32;

/// The ICE credentials of one side.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub password: String,
}

impl Credentials {
    /// New ones for our side of a session.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self { ufrag: ice_chars(UFRAG_CHARS)?, password: ice_chars(PASSWORD_CHARS)? })
    }
}

/// A password is never written down by accident.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Each with 6 random bits (RFC 8839, §5.4: letters, digits, `+` and `/`).
fn ice_chars(count: usize) -> Result<String, aws_lc_rs::error::Unspecified> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; count];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect())
}

/// One ICE session: what both sides put into their SDP. A lite agent has no use for the peer's password.
#[derive(Debug, Clone)]
struct Session {
    local: Credentials,
    username: String,
}

impl Session {
    fn new(local: Credentials, remote_ufrag: &str) -> Self {
        let username = format!("{}:{remote_ufrag}", local.ufrag);
        Self { local, username }
    }
}

/// Where to send.
#[derive(Debug, Clone, Copy)]
struct Selected {
    path: Path,
    is_nominated: bool,
    checked: Instant,
}

#[derive(Debug)]
pub(super) struct IceLite {
    session: Session,
    /// Before a restart; ends with the first valid check of the new one (RFC 8445, §9).
    before: Option<Session>,
    selected: Option<Selected>,
    /// The latest last.
    valid: VecDeque<Path>,
    last_check: Option<Instant>,
}

/// What a valid check brought about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// To be sent back on the same path.
    pub(super) response: Vec<u8>,
    /// Nothing had come on this path before.
    pub(super) is_new: bool,
    /// From now on we send on this path.
    pub(super) is_selected_anew: bool,
    /// A restart is over; our ufrag before it is not answered any more.
    pub(super) retired: Option<String>,
}

impl IceLite {
    pub(super) fn new(local: Credentials, remote_ufrag: &str) -> Self {
        Self {
            session: Session::new(local, remote_ufrag),
            before: None,
            selected: None,
            valid: VecDeque::new(),
            last_check: None,
        }
    }

    /// The session before is answered until the peer has made a check of the new one.
    pub(super) fn restart(&mut self, local: Credentials, remote_ufrag: &str) {
        let before = std::mem::replace(&mut self.session, Session::new(local, remote_ufrag));
        // A second restart before the peer took up the first: it may still be at the one before both.
        self.before.get_or_insert(before);
    }

    /// # Errors
    /// Whatever is not a check by the peer. It is not answered (threat 5).
    pub(super) fn handle(&mut self, path: Path, message: &[u8], now: Instant) -> Result<Checked, StunError> {
        let check = |session: &Session| Request::check(message, &session.username, &session.local.password);
        let (request, is_of_new) = match (check(&self.session), &self.before) {
            (Err(_), Some(before)) => (check(before)?, false),
            (checked, _) => (checked?, true),
        };
        self.last_check = Some(now);
        let is_new = !self.valid.contains(&path);
        self.remember(path);
        let session = self.before.as_ref().filter(|_| !is_of_new).unwrap_or(&self.session);
        if let Some(response) = request.error(&session.local.password) {
            return Ok(Checked { response, is_new, is_selected_anew: false, retired: None });
        }
        let response = request.success(path.remote, &session.local.password);
        let retired = if is_of_new { self.before.take().map(|before| before.local.ufrag) } else { None };
        let is_selected_anew = self.select(path, request.use_candidate, retired.is_some(), now);
        Ok(Checked { response, is_new, is_selected_anew, retired })
    }

    fn remember(&mut self, path: Path) {
        self.valid.retain(|known| *known != path);
        if self.valid.len() == VALID_MAX {
            self.valid.pop_front();
        }
        self.valid.push_back(path);
    }

    /// The latest pair that the peer nominates. Firefox nominates every pair it checks when we are lite, and goes on with
    /// the one it likes best; so a path on which nothing comes any more is left for one on which checks do, nominated
    /// or not. What media comes from never matters.
    fn select(&mut self, path: Path, nominates: bool, is_restarted: bool, now: Instant) -> bool {
        match &mut self.selected {
            Some(selected) if selected.path == path => {
                selected.checked = now;
                selected.is_nominated |= nominates;
                false
            }
            Some(selected)
                if selected.is_nominated
                    && !nominates
                    && !is_restarted
                    && now.saturating_duration_since(selected.checked) < SILENCE =>
            {
                false
            }
            _ => {
                self.selected = Some(Selected { path, is_nominated: nominates, checked: now });
                true
            }
        }
    }

    /// Whether `path` is the peer's.
    pub(super) fn is_valid(&self, path: Path) -> bool {
        self.valid.contains(&path)
    }

    pub(super) fn path(&self) -> Option<Path> {
        self.selected.map(|selected| selected.path)
    }

    pub(super) fn last_check(&self) -> Option<Instant> {
        self.last_check
    }
}

#[cfg(test)]
mod tests;
