//! DTLS 1.2 with one peer, for its SRTP keys only (RFC 5764).
//!
//! `rtc-dtls` does the protocol. Around it: a guard for its bounds (`guard.rs`), the peer's fingerprint, and the choice
//! of AES-128-GCM. As a server `rtc-dtls` takes the first profile of the *client's* list that it has, and browsers put
//! AES-CM first, which costs us five times as much for each packet. So we have only GCM to begin with; if the
//! ClientHello then has nothing for us, the same datagrams go to an endpoint that has only AES-CM.
//!
//! And its timer, which it forgets when the peer repeats a flight that we have had: both ends would then wait for the
//! other. Where it has none, we repeat our last flight as it was. What the peer has had of it, it takes for a replay.
//!
//! A failed attempt does not end the session: whoever forges the peer's address could bring it about. A fresh
//! endpoint takes the next ClientHello, a few times.

mod attempt;
mod guard;
mod identity;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc_dtls::endpoint::EndpointEvent;
use rtc_shared::error::Error;

use self::attempt::{Attempt, PEER, handshake};
use self::guard::Verdict;
pub use self::identity::{Fingerprint, FingerprintError, Identity, IdentityError};
use crate::srtp::{Keys, Profile, Role};

/// Handshakes begun for one session. Two are what a restarted client takes; the others are for forgers.
const ATTEMPTS_MAX: usize = 4;

/// Until the last flight is repeated; what `rtc-dtls` has too (RFC 6347, §4.2.4.1).
const REPEAT: Duration = Duration::from_secs(1);

/// Why there are no keys. Whose fault it is cannot be told: the peer's, or that of somebody who forges its address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DtlsError {
    #[error("the peer's certificate is not the one of its SDP")]
    Fingerprint,
    #[error("the peer offers no SRTP profile that we have")]
    Profile,
    #[error("the peer gave up the handshake")]
    Refused,
    #[error("the handshake took more than any handshake does")]
    TooMuch,
    /// What `rtc-dtls` says.
    #[error("DTLS handshake: {0}")]
    Handshake(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DtlsEvent {
    /// The handshake is over, with the peer of the SDP.
    Connected(Keys),
    /// An attempt came to nothing; the peer may make another.
    Failed(DtlsError),
    /// It said goodbye.
    Closed,
}

pub(crate) struct Dtls {
    identity: Arc<Identity>,
    role: Role,
    expected: Arc<[Fingerprint]>,
    attempt: Attempt,
    attempts: usize,
    /// What most tells whoever reads it what to do, of all attempts.
    failure: Option<DtlsError>,
    out: VecDeque<Bytes>,
}

impl Dtls {
    /// `expected`: the peer's certificate has one of these. A client begins with [`Dtls::start`].
    pub(crate) fn new(
        identity: Arc<Identity>,
        role: Role,
        expected: Vec<Fingerprint>,
    ) -> Result<Self, DtlsError> {
        let expected = expected.into();
        let attempt = Attempt::new(&identity, role, &expected, Profile::Aes128Gcm)?;
        Ok(Self { identity, role, expected, attempt, attempts: 1, failure: None, out: VecDeque::new() })
    }

    /// Sends a client's first flight. A server waits for it.
    pub(crate) fn start(&mut self, now: Instant) -> Result<(), DtlsError> {
        if self.role == Role::Client {
            let config = self.attempt.config(&self.identity, self.role, &self.expected)?;
            self.attempt.endpoint.connect(now, PEER, config, None).map_err(handshake)?;
            self.collect(now);
        }
        Ok(())
    }

    /// Why the attempts so far have failed.
    pub(crate) fn failure(&self) -> Option<&DtlsError> {
        self.failure.as_ref()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.attempt.is_complete
    }

    /// # Errors
    /// When the last attempt has failed.
    pub(crate) fn handle_datagram(
        &mut self,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Option<DtlsEvent>, DtlsError> {
        match self.attempt.guard.judge(datagram, self.attempt.is_complete) {
            Verdict::Pass => {}
            Verdict::Drop => return Ok(None),
            Verdict::Exhausted => return self.begin_anew(DtlsError::TooMuch, now),
        }
        // A client that repeats its last flight must do so in new records, which only the endpoint can make: it must not
        // forget its timer over what the server has repeated before that.
        if self.role == Role::Client && self.attempt.is_finishing && guard::is_clear_handshake(datagram) {
            return Ok(None);
        }
        match self.read(datagram, now) {
            Ok(event) => Ok(event),
            // Only the peer itself can bring this about now, and what it said was fatal.
            Err(Error::ErrAlertFatalOrClose) if self.attempt.is_complete => Ok(Some(DtlsEvent::Closed)),
            Err(_) if self.attempt.is_complete => Ok(None),
            Err(error) => {
                let failure = self.attempt.failure(error);
                self.begin_anew(failure, now)
            }
        }
    }

    fn read(&mut self, datagram: &[u8], now: Instant) -> Result<Option<DtlsEvent>, Error> {
        let attempt = &mut self.attempt;
        let is_hello = attempt.flight.is_empty() && !attempt.is_complete;
        if is_hello && self.role == Role::Server && attempt.profile == Profile::Aes128Gcm {
            attempt.hello.push(BytesMut::from(datagram));
        }
        let mut read = attempt.endpoint.read(now, PEER, None, BytesMut::from(datagram));
        if matches!(read, Err(Error::ErrServerNoMatchingSrtpProfile)) && attempt.profile == Profile::Aes128Gcm
        {
            // Its answer, an alert, goes with it.
            read = attempt.fall_back(&self.identity, self.role, &self.expected, now);
        }
        let events = read.inspect_err(|_| self.collect(now))?;
        self.collect(now);
        let mut happened = None;
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let keys = self.attempt.keys(self.role)?;
                    self.attempt.is_complete = true;
                    // Nobody will need them any more, and the session may be long.
                    (self.attempt.hello, self.attempt.flight) = (Vec::new(), Vec::new());
                    happened = Some(DtlsEvent::Connected(keys));
                }
                EndpointEvent::PeerClosed if self.attempt.is_complete => happened = Some(DtlsEvent::Closed),
                EndpointEvent::PeerClosed => return Err(Error::ErrAlertFatalOrClose),
                _ => {}
            }
        }
        Ok(happened)
    }

    /// Takes what the endpoint wants sent.
    fn collect(&mut self, now: Instant) {
        let mut sent = Vec::new();
        while let Some(transmit) = self.attempt.endpoint.poll_transmit() {
            sent.push(transmit.message.freeze());
        }
        if !sent.is_empty() {
            self.out.extend(sent.iter().cloned());
            self.attempt.is_finishing = sent.iter().any(|datagram| guard::changes_cipher(datagram));
            self.attempt.flight = sent;
            self.attempt.repeat_at = Some(now + REPEAT);
        }
    }

    fn begin_anew(&mut self, failure: DtlsError, now: Instant) -> Result<Option<DtlsEvent>, DtlsError> {
        if self.failure != Some(DtlsError::Fingerprint) {
            self.failure = Some(failure.clone());
        }
        if self.attempts == ATTEMPTS_MAX
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        self.attempts += 1;
        self.attempt = Attempt::new(&self.identity, self.role, &self.expected, Profile::Aes128Gcm)?;
        self.start(now)?;
        Ok(Some(DtlsEvent::Failed(failure)))
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// When [`Dtls::handle_timeout`] has something to repeat. After the handshake it is the peer that repeats.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.attempt.is_complete {
            return None;
        }
        self.attempt.endpoint.poll_timeout(&PEER).or(self.attempt.repeat_at)
    }

    /// # Errors
    /// When the last attempt has failed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<Option<DtlsEvent>, DtlsError> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return Ok(None);
        }
        if self.attempt.endpoint.poll_timeout(&PEER).is_none() {
            self.out.extend(self.attempt.flight.iter().cloned());
            self.attempt.repeat_at = Some(now + REPEAT);
            return Ok(None);
        }
        match self.attempt.endpoint.handle_timeout(PEER, now) {
            Ok(()) => {
                self.collect(now);
                Ok(None)
            }
            Err(error) => self.begin_anew(handshake(error), now),
        }
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self, now: Instant) {
        self.attempt.endpoint.stop(now, PEER);
        self.collect(now);
    }
}

#[cfg(test)]
mod tests;
