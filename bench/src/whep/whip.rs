//! A publisher by WHIP (RFC 9725), of pictures alone.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use harness::http::Http;
use tokio::runtime::{Builder, Runtime};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::peer_connection::{RTCSessionDescription, SettingEngineBuilder};

use super::sender::{Packets, Sender};
use crate::synthetic::Message;

const SSRC: u32 = 0xB0BE;

pub(super) struct Whip {
    runtime: Runtime,
    sender: Sender,
    packets: Packets,
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
        let sender = runtime.block_on(connect(ask))?;
        Ok(Self { runtime, sender, packets: Packets::new(SSRC)? })
    }

    /// A picture, whose FLV tag is `tag`.
    pub(super) fn send(&mut self, message: &Message, tag: Vec<u8>) -> Result<()> {
        let packets = self.packets.of(message, tag)?;
        self.runtime.block_on(async {
            for packet in packets {
                self.sender.track.write_rtp(packet).await?;
            }
            Ok(())
        })
    }
}

/// With the answer that `ask` has for an offer.
async fn connect(ask: impl FnOnce(&str) -> Result<String>) -> Result<Sender> {
    let mut sender = Sender::new(SSRC, SettingEngineBuilder::new()).await?;
    let offer = sender.connection.create_offer(None).await?;
    sender.connection.set_local_description(offer).await?;
    let answer = RTCSessionDescription::answer(ask(&sender.local_description().await?)?)?;
    sender.connection.set_remote_description(answer).await?;
    sender.connected().await?;
    Ok(sender)
}
