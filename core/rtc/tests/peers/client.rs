//! `webrtc` as a viewer, and a viewer's binding requests without one.

use std::sync::Arc;

use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use rtc_stun::textattrs::TextAttribute;
use tokio::sync::mpsc;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

pub(crate) struct Client {
    connection: Arc<dyn PeerConnection>,
    gathered: mpsc::UnboundedReceiver<()>,
    states: mpsc::UnboundedReceiver<RTCPeerConnectionState>,
    packets: mpsc::UnboundedReceiver<rtc_rtp::Packet>,
}

struct Handler {
    gathered: mpsc::UnboundedSender<()>,
    states: mpsc::UnboundedSender<RTCPeerConnectionState>,
    packets: mpsc::UnboundedSender<rtc_rtp::Packet>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.gathered.send(());
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let _ = self.states.send(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let packets = self.packets.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let _ = packets.send(packet);
                }
            }
        });
    }
}

impl Client {
    pub(crate) async fn new() -> Self {
        let (gathered_sender, gathered) = mpsc::unbounded_channel();
        let (states_sender, states) = mpsc::unbounded_channel();
        let (packets_sender, packets) = mpsc::unbounded_channel();
        let mut media = MediaEngine::default();
        media.register_default_codecs().unwrap();
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_setting_engine(SettingEngineBuilder::new().with_include_loopback_candidate(true).build())
            .with_handler(Arc::new(Handler {
                gathered: gathered_sender,
                states: states_sender,
                packets: packets_sender,
            }))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .unwrap();
        Self { connection: Arc::new(connection), gathered, states, packets }
    }

    pub(crate) async fn offer(&mut self) -> String {
        for kind in ["video", "audio"] {
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Recvonly,
                ..RTCRtpTransceiverInit::default()
            };
            self.connection.add_transceiver_from_kind(kind.into(), Some(init)).await.unwrap();
        }
        let offer = self.connection.create_offer(None).await.unwrap();
        self.connection.set_local_description(offer).await.unwrap();
        self.gathered.recv().await.unwrap();
        self.connection.local_description().await.unwrap().sdp
    }

    pub(crate) async fn take_answer(&self, text: &str) {
        let answer = RTCSessionDescription::answer(text.to_owned()).unwrap();
        self.connection.set_remote_description(answer).await.unwrap();
    }

    pub(crate) async fn reaches(&mut self, wanted: RTCPeerConnectionState) {
        while self.states.recv().await.unwrap() != wanted {}
    }

    pub(crate) async fn received(&mut self) -> rtc_rtp::Packet {
        self.packets.recv().await.unwrap()
    }

    pub(crate) async fn close(&self) {
        self.connection.close().await.unwrap();
    }
}

pub(crate) const TRANSACTION: [u8; 12] = [7; 12];

/// Of a full agent that nominates.
pub(crate) fn binding_request(username: &str, password: &str) -> Vec<u8> {
    let nominates = TextAttribute::new(ATTR_USERNAME, username.to_owned());
    let setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId(TRANSACTION)),
        Box::new(nominates),
        Box::new(UseCandidate),
        Box::new(MessageIntegrity::new_raw_integrity_with_provider(password, &AwsLcRsCrypto)),
        Box::new(FINGERPRINT),
    ];
    let mut message = Message::new();
    message.build(&setters).unwrap();
    message.raw
}

struct UseCandidate;

impl Setter for UseCandidate {
    fn add_to(&self, message: &mut Message) -> Result<(), rtc_shared::error::Error> {
        message.add(ATTR_USE_CANDIDATE, &[]);
        Ok(())
    }
}
