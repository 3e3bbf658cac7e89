//! A publisher by WHIP (RFC 9725), of pictures alone: `webrtc` as a whole, as others have it who build upon it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use harness::http::Http;
use media::codec::h264::Config;
use media::{AccessUnit, Timescale};
use rtc::packetize::{H264Packetizer, Source};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;
use webrtc::media_stream::MediaStreamTrack;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    register_default_interceptors,
};
use webrtc_core::rtp::{Header, Packet};
use webrtc_core::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};

use super::offer::PAYLOAD_TYPE;
use super::publisher::FRAME;
use crate::synthetic::{self, Message};

const STEP_MAX: Duration = Duration::from_secs(10);
const SSRC: u32 = 0xB0BE;

pub(super) struct Whip {
    runtime: Runtime,
    /// It ends with it.
    _connection: Arc<dyn PeerConnection>,
    track: Arc<TrackLocalStaticRTP>,
    packetizer: H264Packetizer,
    sequence: u16,
}

impl Whip {
    /// Returns when it may send.
    pub(super) fn publish(server: SocketAddr, stream: &str, key: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let ask = |offer: &str| {
            let authorization = format!("Bearer {key}");
            let headers = [("content-type", "application/sdp"), ("authorization", authorization.as_str())];
            let answer =
                Http::new(server).send("POST", &format!("/whip/{stream}"), &headers, offer.as_bytes())?;
            ensure!(answer.status == 201, "WHIP: status {}: {}", answer.status, answer.text());
            Ok(answer.text())
        };
        let (connection, track) = runtime.block_on(connect(ask))?;
        let config = Config::parse(Bytes::from_static(synthetic::AVCC))?;
        let packetizer = H264Packetizer::new(Source(0), config);
        Ok(Self { runtime, _connection: connection, track, packetizer, sequence: 0 })
    }

    /// A picture, whose FLV tag is `tag`.
    pub(super) fn send(&mut self, message: &Message, tag: Vec<u8>) -> Result<()> {
        let pts = Timescale::VIDEO.ticks(message.time);
        let duration = Timescale::VIDEO.ticks(FRAME) as u32;
        let data = Bytes::from(tag).slice(synthetic::TAG_HEAD_BYTES..);
        let unit = AccessUnit { dts: pts, pts, duration, key: message.is_key(), data };
        let frame = self.packetizer.packetize(&unit, 0)?.context("a picture of nothing")?;
        self.runtime.block_on(async {
            for at in 0..frame.packets() {
                self.sequence = self.sequence.wrapping_add(1);
                let header = Header {
                    version: 2,
                    marker: at + 1 == frame.packets(),
                    payload_type: PAYLOAD_TYPE,
                    sequence_number: self.sequence,
                    timestamp: pts as u32,
                    ssrc: SSRC,
                    ..Default::default()
                };
                let payload = Bytes::copy_from_slice(frame.payload(at).context("it is one of them")?);
                self.track.write_rtp(Packet { header, payload }).await?;
            }
            Ok(())
        })
    }
}

/// With the answer that `ask` has for an offer.
async fn connect(
    ask: impl FnOnce(&str) -> Result<String>,
) -> Result<(Arc<dyn PeerConnection>, Arc<TrackLocalStaticRTP>)> {
    let codec = RTCRtpCodec {
        mime_type: "video/H264".to_owned(),
        clock_rate: 90_000,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f".to_owned(),
        ..Default::default()
    };
    let mut media = MediaEngine::default();
    let parameters = RTCRtpCodecParameters { rtp_codec: codec.clone(), payload_type: PAYLOAD_TYPE };
    media.register_codec(parameters, RtpCodecKind::Video)?;
    let registry = register_default_interceptors(Registry::new(), &mut media)?;
    let (gathered_to, mut gathered) = mpsc::unbounded_channel();
    let (states_to, mut states) = mpsc::unbounded_channel();
    let connection = PeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .with_setting_engine(SettingEngineBuilder::new().with_include_loopback_candidate(true).build())
        .with_handler(Arc::new(Handler { gathered: gathered_to, states: states_to }))
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .build()
        .await?;
    let coding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(SSRC), ..Default::default() },
        codec,
        ..Default::default()
    };
    let name = || "bench".to_owned();
    let track = MediaStreamTrack::new(name(), name(), name(), RtpCodecKind::Video, vec![coding]);
    let track = Arc::new(TrackLocalStaticRTP::new(track));
    connection.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;

    let offer = connection.create_offer(None).await?;
    connection.set_local_description(offer).await?;
    timeout(STEP_MAX, gathered.recv()).await?.context("no candidates")?;
    let offer = connection.local_description().await.context("no offer")?;
    let answer = RTCSessionDescription::answer(ask(&offer.sdp)?)?;
    connection.set_remote_description(answer).await?;
    let connected = async {
        while states.recv().await? != RTCPeerConnectionState::Connected {}
        Some(())
    };
    timeout(STEP_MAX, connected).await?.context("it is closed")?;
    Ok((Arc::new(connection), track))
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
