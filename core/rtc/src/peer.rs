//! The transport of one peer: ICE-lite, DTLS, SRTCP, and the keys for SRTP. What is sent in SRTP is not made here.
//!
//!   datagram ─▶ STUN: `ice.rs`   ─▶ answer, path
//!               DTLS: `dtls.rs`  ─▶ flights, keys      only on paths that ICE found valid
//!               SRTCP: `srtp`    ─▶ reports
//!
//! Owns no socket and reads no clock. After every input, poll until [`Output::Wait`]; it says when the next input must
//! come if nothing else does.

mod ice;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_rtcp::Packet;
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::receiver_report::ReceiverReport;

pub use self::ice::Credentials;
use self::ice::IceLite;
use crate::dtls::{Dtls, DtlsError, DtlsEvent, Fingerprint, Identity};
use crate::port::{Kind, Path};
use crate::srtp::{Keys, Role, Srtcp};

/// From the answer to the first valid check. The peer has our candidates; a slow one still asks its STUN servers.
const REACH_TIME_MAX: Duration = Duration::from_secs(30);
/// From the first valid check to the keys (threat 7). On a line that loses every fourth packet it takes three seconds.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Without a valid check. The peer has gone, or no longer wants what we send (RFC 7675, §5.1).
const CONSENT_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct PeerSettings {
    /// Who we are; the same for all peers.
    pub identity: Arc<Identity>,
    /// Which end of DTLS we are: a server for `a=setup:passive` in our SDP.
    pub role: Role,
    /// As in our SDP.
    pub local: Credentials,
    /// As in the peer's.
    pub remote_ufrag: String,
    /// As in the peer's SDP: its certificate has one of these.
    pub fingerprints: Vec<Fingerprint>,
    /// What we send under; named in our goodbye.
    pub ssrcs: Vec<u32>,
}

#[derive(Debug)]
pub enum Input<'a> {
    /// From the port, under this peer's lease.
    Datagram { path: Path, bytes: &'a [u8] },
    /// The time of [`Output::Wait`] has come.
    Deadline,
}

#[derive(Debug)]
pub enum Output {
    Send { path: Path, bytes: Bytes },
    Event(Event),
    Wait { until: Instant },
}

#[derive(Debug)]
pub enum Event {
    /// The peer's, beyond doubt: to be told to [`Lease::bind_address`](crate::port::Lease::bind_address).
    Valid(Path),
    /// Where media goes from now on.
    Path(Path),
    /// To be told to whoever wonders. It may have been a forger: the peer itself may still come.
    HandshakeFailed(DtlsError),
    /// Media may be sent. Once.
    Connected(Keys),
    /// What the peer reports, for [`Reports`](crate::rtcp::Reports).
    Rtcp(Vec<u8>),
    /// An ICE restart is over: to be told to [`Lease::remove_ufrag`](crate::port::Lease::remove_ufrag).
    Retired { ufrag: String },
    /// The last event. Nothing is sent any more.
    Closed(Closed),
}

/// Why a peer is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// We said goodbye.
    #[error("closed by us")]
    ByUs,
    #[error("closed by the peer")]
    ByPeer,
    /// Its network lets nothing through to us, or it gave up.
    #[error("not one valid check in {} s", REACH_TIME_MAX.as_secs())]
    Unreached,
    #[error("no keys within {} s", HANDSHAKE_TIME_MAX.as_secs())]
    HandshakeTimeout,
    #[error(transparent)]
    Handshake(#[from] DtlsError),
    #[error("no valid check for {} s", CONSENT_TIME_MAX.as_secs())]
    ConsentExpired,
}

/// One peer.
pub struct Peer {
    ice: IceLite,
    dtls: Dtls,
    srtcp: Option<Srtcp>,
    ssrcs: Vec<u32>,
    created: Instant,
    /// When ICE first found a path.
    reached: Option<Instant>,
    is_closed: bool,
    out: VecDeque<Output>,
}

impl Peer {
    /// To be made when the SDP has been answered.
    ///
    /// # Errors
    /// If `rtc-dtls` cannot work with our identity: a mistake of ours.
    pub fn new(settings: PeerSettings, now: Instant) -> Result<Self, DtlsError> {
        Ok(Self {
            ice: IceLite::new(settings.local, &settings.remote_ufrag),
            dtls: Dtls::new(settings.identity, settings.role, settings.fingerprints)?,
            srtcp: None,
            ssrcs: settings.ssrcs,
            created: now,
            reached: None,
            is_closed: false,
            out: VecDeque::new(),
        })
    }

    pub fn handle_input(&mut self, input: Input<'_>, now: Instant) {
        if self.is_closed {
            return;
        }
        match input {
            Input::Datagram { path, bytes } => match Kind::of(bytes) {
                Some(Kind::Stun) => self.handle_stun(path, bytes, now),
                // Threat 6: whoever has not proven to be the peer is not listened to.
                Some(Kind::Dtls) if self.ice.is_valid(path) => self.handle_dtls(bytes, now),
                Some(Kind::Srtcp) if self.ice.is_valid(path) => self.handle_srtcp(bytes),
                // We ask for no media, so RTP is for nobody.
                _ => {}
            },
            Input::Deadline => self.handle_deadline(now),
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Output {
        self.out.pop_front().unwrap_or_else(|| Output::Wait { until: self.deadline().0 })
    }

    /// Where media goes; `None` before the first valid check.
    pub fn path(&self) -> Option<Path> {
        self.ice.path()
    }

    /// Nothing before the keys are there.
    ///
    /// # Errors
    /// If a packet cannot be written: it has more entries than its header can count.
    pub fn send_rtcp(&mut self, packets: &[Box<dyn Packet>]) -> Result<(), rtc_shared::error::Error> {
        if let (Some(srtcp), Some(path), false) = (&mut self.srtcp, self.ice.path(), self.is_closed) {
            let bytes = srtcp.seal(packets)?;
            self.out.push_back(Output::Send { path, bytes });
        }
        Ok(())
    }

    /// New credentials on both sides (RFC 9725, §4.3.3). The old ones, and the path, hold until the peer uses the new.
    pub fn restart_ice(&mut self, local: Credentials, remote_ufrag: &str) {
        self.ice.restart(local, remote_ufrag);
    }

    /// Says goodbye to the peer.
    pub fn close(&mut self, now: Instant) {
        if self.is_closed {
            return;
        }
        if let Some(&ssrc) = self.ssrcs.first() {
            let goodbye: [Box<dyn Packet>; 2] = [
                // A compound begins with a report (RFC 3550, §6.1).
                Box::new(ReceiverReport { ssrc, ..ReceiverReport::default() }),
                Box::new(Goodbye { sources: self.ssrcs.clone(), reason: Bytes::new() }),
            ];
            // It is a courtesy: the next line says the same.
            let _ = self.send_rtcp(&goodbye);
        }
        self.dtls.close(now);
        self.send_dtls();
        self.end(Closed::ByUs);
    }

    fn handle_stun(&mut self, path: Path, bytes: &[u8], now: Instant) {
        let Ok(checked) = self.ice.handle(path, bytes, now) else { return };
        // Before the answer, after which the peer may send anything.
        if checked.is_new {
            self.out.push_back(Output::Event(Event::Valid(path)));
        }
        if let Some(ufrag) = checked.retired {
            self.out.push_back(Output::Event(Event::Retired { ufrag }));
        }
        self.out.push_back(Output::Send { path, bytes: checked.response.into() });
        if checked.is_selected_anew {
            self.out.push_back(Output::Event(Event::Path(path)));
        }
        if self.reached.is_none() && self.ice.path().is_some() {
            self.reached = Some(now);
            let started = self.dtls.start(now);
            self.after_dtls(started.map(|()| None));
        }
    }

    fn handle_dtls(&mut self, bytes: &[u8], now: Instant) {
        let handled = self.dtls.handle_datagram(bytes, now);
        self.after_dtls(handled);
    }

    fn after_dtls(&mut self, handled: Result<Option<DtlsEvent>, DtlsError>) {
        self.send_dtls();
        match handled {
            Ok(None) => {}
            Ok(Some(DtlsEvent::Connected(keys))) => {
                self.srtcp = Some(Srtcp::new(&keys));
                self.out.push_back(Output::Event(Event::Connected(keys)));
            }
            Ok(Some(DtlsEvent::Failed(error))) => {
                self.out.push_back(Output::Event(Event::HandshakeFailed(error)));
            }
            Ok(Some(DtlsEvent::Closed)) => self.end(Closed::ByPeer),
            Err(error) => self.end(error.into()),
        }
    }

    fn send_dtls(&mut self) {
        let Some(path) = self.ice.path() else { return };
        while let Some(bytes) = self.dtls.poll_transmit() {
            self.out.push_back(Output::Send { path, bytes });
        }
    }

    fn handle_srtcp(&mut self, bytes: &[u8]) {
        let Some(srtcp) = &mut self.srtcp else { return };
        let mut bytes = bytes.to_vec();
        if let Some(opened) = srtcp.open(&mut bytes).map(<[u8]>::len) {
            bytes.truncate(opened);
            self.out.push_back(Output::Event(Event::Rtcp(bytes)));
        }
    }

    fn handle_deadline(&mut self, now: Instant) {
        let (deadline, closed) = self.deadline();
        match closed {
            _ if now < deadline => {}
            Some(closed) => self.end(closed),
            None => {
                let handled = self.dtls.handle_timeout(now);
                self.after_dtls(handled);
            }
        }
    }

    /// The next thing to happen by itself, and whether it is the end.
    fn deadline(&self) -> (Instant, Option<Closed>) {
        let Some(reached) = self.reached else {
            return (self.created + REACH_TIME_MAX, Some(Closed::Unreached));
        };
        let consent = self.ice.last_check().unwrap_or(reached) + CONSENT_TIME_MAX;
        let mut next = (consent, Some(Closed::ConsentExpired));
        if !self.dtls.is_complete() {
            let why = self.dtls.failure().cloned().map_or(Closed::HandshakeTimeout, Closed::Handshake);
            let handshake = (reached + HANDSHAKE_TIME_MAX, Some(why));
            let repeat = self.dtls.poll_timeout().map(|at| (at, None));
            for candidate in [Some(handshake), repeat].into_iter().flatten() {
                if candidate.0 < next.0 {
                    next = candidate;
                }
            }
        }
        next
    }

    fn end(&mut self, closed: Closed) {
        if !self.is_closed {
            self.is_closed = true;
            self.out.push_back(Output::Event(Event::Closed(closed)));
        }
    }
}

#[cfg(test)]
mod tests;
