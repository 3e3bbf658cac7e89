//! `webrtc` as a whole, as others have it who build upon it: our publisher by WHIP, and who is compared with us.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use media::codec::h264::Config;
use media::{AccessUnit, Timescale};
use rtc::packetize::{H264Packetizer, Source};
use tokio::sync::mpsc;
use tokio::time::timeout;
use webrtc::media_stream::MediaStreamTrack;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, Registry, SettingEngineBuilder, register_default_interceptors,
};
use webrtc_core::rtp::{Header, Packet};
use webrtc_core::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};

use super::offer::PAYLOAD_TYPE;
use super::publisher::FRAME;
use crate::synthetic::{self, Message};

const STEP_MAX: Duration = Duration::from_secs(10);

/// Cuts pictures into packets.
pub(super) struct Packets {
    packetizer: H264Packetizer,
    sequence: u16,
    ssrc: u32,
}

impl Packets {
    pub(super) fn new(ssrc: u32) -> Result<Self> {
        let config = Config::parse(Bytes::from_static(synthetic::AVCC))?;
        Ok(Self { packetizer: H264Packetizer::new(Source(0), config), sequence: 0, ssrc })
    }

    /// Of a picture, whose FLV tag is `tag`.
    pub(super) fn of(&mut self, message: &Message, tag: Vec<u8>) -> Result<Vec<Packet>> {
        let pts = Timescale::VIDEO.ticks(message.time);
        let duration = Timescale::VIDEO.ticks(FRAME) as u32;
        let data = Bytes::from(tag).slice(synthetic::TAG_HEAD_BYTES..);
        let unit = AccessUnit { dts: pts, pts, duration, key: message.is_key(), data };
        let frame = self.packetizer.packetize(&unit, 0)?.context("a picture of nothing")?;
        let packets = (0..frame.packets()).map(|at| {
            self.sequence = self.sequence.wrapping_add(1);
            let header = Header {
                version: 2,
                marker: at + 1 == frame.packets(),
                payload_type: PAYLOAD_TYPE,
                sequence_number: self.sequence,
                timestamp: pts as u32,
                ssrc: self.ssrc,
                ..Default::default()
            };
            let payload = Bytes::copy_from_slice(frame.payload(at).context("it is one of them")?);
            Ok(Packet { header, payload })
        });
        packets.collect()
    }
}

/// A connection that has one line, of pictures, which it sends.
pub(super) struct Sender {
    pub(super) connection: Arc<dyn PeerConnection>,
    pub(super) track: Arc<TrackLocalStaticRTP>,
    gathered: mpsc::UnboundedReceiver<()>,
    states: mpsc::UnboundedReceiver<RTCPeerConnectionState>,
}

impl Sender {
    /// With the interceptors that are the default.
    pub(super) async fn new(ssrc: u32, settings: SettingEngineBuilder) -> Result<Self> {
        let codec = RTCRtpCodec {
            mime_type: "video/H264".to_owned(),
            clock_rate: 90_000,
            sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f"
                .to_owned(),
            ..Default::default()
        };
        let mut media = MediaEngine::default();
        let parameters = RTCRtpCodecParameters { rtp_codec: codec.clone(), payload_type: PAYLOAD_TYPE };
        media.register_codec(parameters, RtpCodecKind::Video)?;
        let registry = register_default_interceptors(Registry::new(), &mut media)?;
        let (gathered_to, gathered) = mpsc::unbounded_channel();
        let (states_to, states) = mpsc::unbounded_channel();
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_setting_engine(settings.with_include_loopback_candidate(true).build())
            .with_handler(Arc::new(Handler { gathered: gathered_to, states: states_to }))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await?;
        let coding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec,
            ..Default::default()
        };
        let name = || "bench".to_owned();
        let track = MediaStreamTrack::new(name(), name(), name(), RtpCodecKind::Video, vec![coding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        connection.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;
        Ok(Self { connection: Arc::new(connection), track, gathered, states })
    }

    /// With all candidates.
    pub(super) async fn local_description(&mut self) -> Result<String> {
        timeout(STEP_MAX, self.gathered.recv()).await?.context("no candidates")?;
        Ok(self.connection.local_description().await.context("no description")?.sdp)
    }

    pub(super) async fn connected(&mut self) -> Result<()> {
        let connected = async {
            while self.states.recv().await? != RTCPeerConnectionState::Connected {}
            Some(())
        };
        timeout(STEP_MAX, connected).await?.context("it is closed")
    }
}

struct Handler {
    gathered: mpsc::UnboundedSender<()>,
    states: mpsc::UnboundedSender<RTCPeerConnectionState>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _unheard = self.gathered.send(());
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let _unheard = self.states.send(state);
    }
}
