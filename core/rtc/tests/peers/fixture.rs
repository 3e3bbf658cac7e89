//! A port, and a session on it as an edge would run it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rtc::dtls::{DtlsError, Identity};
use rtc::peer::{Closed, Credentials, Event, Input, Output, Peer, PeerSettings};
use rtc::port::{Datagram, Lease, Path, Port, PortSettings};
use rtc::sdp::{Answer, AnswerSettings, Offer, ProfileLevelId, Ssrcs, VideoFormat};
use rtc::srtp::Keys;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const VIDEO_SSRC: u32 = 11;

pub(crate) struct Server {
    pub(crate) port: Port,
    pub(crate) address: SocketAddr,
    identity: Arc<Identity>,
    _running: DropGuard,
}

pub(crate) struct Session {
    pub(crate) answer: Answer,
    /// Of binding requests: `ours:theirs`.
    pub(crate) username: String,
    /// Ours.
    pub(crate) password: String,
    events: mpsc::UnboundedReceiver<Event>,
    path: Option<Path>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let (port, driver) = Port::bind(&PortSettings {
            listen: "127.0.0.1:0".parse().unwrap(),
            public: vec![],
            stun: None,
            tcp: false,
        })
        .unwrap();
        let drain = CancellationToken::new();
        tokio::spawn(driver.run(drain.clone()));
        let address = port.local_addr();
        let identity = Arc::new(Identity::generate().unwrap());
        Self { port, address, identity, _running: drain.drop_guard() }
    }

    pub(crate) fn answer(&self, offer: &str) -> Session {
        let offer = Offer::parse(offer).unwrap();
        let transport = offer.transport();
        let local = Credentials::generate().unwrap();
        let ssrcs = Ssrcs { video: VIDEO_SSRC, video_rtx: 12, audio: 13 };
        let answer = offer
            .answer(&AnswerSettings {
                session_id: 1,
                credentials: &local,
                fingerprint: self.identity.fingerprint(),
                candidates: &self.port.candidates(None),
                video: &[VideoFormat::H264(ProfileLevelId([0x42, 0xE0, 0x1F]))],
                audio: true,
                cname: "tidecast",
                ssrcs,
            })
            .unwrap();
        let (sender, inbox) = mpsc::channel(64);
        let lease = self.port.lease(&local.ufrag, 7, sender);
        let username = format!("{}:{}", local.ufrag, transport.ufrag);
        let password = local.password.clone();
        let settings = PeerSettings {
            identity: Arc::clone(&self.identity),
            role: transport.role,
            local,
            remote_ufrag: transport.ufrag.clone(),
            fingerprints: transport.fingerprints.clone(),
            ssrcs: vec![VIDEO_SSRC],
        };
        let peer = Peer::new(settings, Instant::now()).unwrap();
        let (events_sender, events) = mpsc::unbounded_channel();
        tokio::spawn(drive(peer, self.port.clone(), lease, inbox, events_sender));
        Session { answer, username, password, events, path: None }
    }

    /// Everything `from` has sent so far has been looked at.
    pub(crate) async fn caught_up(&self, from: &UdpSocket) {
        let looked_at = || self.port.counters().dropped_malformed.get();
        let before = looked_at();
        from.send(&[255]).await.unwrap();
        while looked_at() == before {
            tokio::task::yield_now().await;
        }
    }
}

async fn drive(
    mut peer: Peer,
    port: Port,
    lease: Lease,
    mut inbox: mpsc::Receiver<Datagram>,
    events: mpsc::UnboundedSender<Event>,
) {
    loop {
        let until = loop {
            match peer.poll_output() {
                Output::Send { path, bytes } => port.send(path, &bytes, None),
                Output::Event(event) => {
                    match &event {
                        Event::Valid(path) => lease.bind_address(path.remote),
                        Event::Retired { ufrag } => lease.remove_ufrag(ufrag),
                        _ => {}
                    }
                    let is_over = matches!(event, Event::Closed(_));
                    if events.send(event).is_err() || is_over {
                        return;
                    }
                }
                Output::Wait { until } => break until,
            }
        };
        tokio::select! {
            datagram = inbox.recv() => {
                let datagram = datagram.expect("the lease holds the other end");
                assert_eq!(datagram.peer, 7);
                let input = Input::Datagram { path: datagram.path, bytes: &datagram.bytes };
                peer.handle_input(input, Instant::now());
            }
            () = tokio::time::sleep_until(until.into()) => peer.handle_input(Input::Deadline, Instant::now()),
        }
    }
}

impl Session {
    async fn next(&mut self) -> Event {
        let event = self.events.recv().await.expect("an event says how it ended");
        if let Event::Path(path) = event {
            self.path = Some(path);
        }
        event
    }

    pub(crate) async fn connected(&mut self) -> Keys {
        loop {
            match self.next().await {
                Event::Connected(keys) => return keys,
                Event::Closed(closed) => panic!("{closed}"),
                _ => {}
            }
        }
    }

    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            if let Event::Closed(closed) = self.next().await {
                return closed;
            }
        }
    }

    pub(crate) async fn moves_to(&mut self, remote: SocketAddr) {
        while self.path.is_none_or(|path| path.remote != remote) {
            self.next().await;
        }
    }

    /// Where media goes.
    pub(crate) fn path(&self) -> Path {
        self.path.unwrap()
    }

    /// Why there are no keys.
    pub(crate) async fn fails(&mut self) -> DtlsError {
        loop {
            match self.next().await {
                Event::HandshakeFailed(error) => return error,
                Event::Connected(_) => panic!("connected"),
                _ => {}
            }
        }
    }
}
