//! Who is compared with us: `webrtc` as its example `broadcast` has it, which is a connection for each viewer with the interceptors
//! that are the default, and a task for each that writes what a channel brings. In a process of its own, whose CPU time is all of it.

use std::convert::Infallible;
use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use harness::http::Http;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::broadcast;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::peer_connection::{RTCSessionDescription, SettingEngineBuilder};
use webrtc_core::peer_connection::transport::RTCDtlsRole;
use webrtc_core::rtp::Packet;

use super::fan_out::Sends;
use super::publisher::Publisher;
use super::sender::{Packets, Sender};
use crate::process::{Process, Usage, raise_open_files, wait_for};

const START_MAX: Duration = Duration::from_secs(10);
/// Packets that a viewer's task may be behind, as in the example.
const BEHIND_MAX: usize = 256;

const VIEWERS: &str = "/whep";
const PAUSE: &str = "/pause";
const GO_ON: &str = "/go-on";

/// The process.
pub(super) struct Broadcast {
    process: Process,
    pub(super) http: SocketAddr,
    _said: TempDir,
}

impl Broadcast {
    pub(super) fn start() -> Result<Self> {
        let directory = TempDir::new()?;
        let said = directory.path().join("said");
        let mut command = Command::new(env::current_exe()?);
        command.arg("--serve-broadcast").stdout(File::create(&said)?).stderr(Stdio::inherit());
        let process = Process::spawn(&mut command)?;
        let http = wait_for("webrtc's broadcast", START_MAX, || {
            fs::read_to_string(&said).ok()?.strip_suffix('\n')?.parse().ok()
        })?;
        Ok(Self { process, http, _said: directory })
    }

    pub(super) fn path() -> String {
        VIEWERS.to_owned()
    }
}

impl Sends for Broadcast {
    fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    fn pause(&self, pauses: bool) -> Result<()> {
        let path = if pauses { PAUSE } else { GO_ON };
        let answer = Http::new(self.http).send("POST", path, &[], &[])?;
        ensure!(answer.status == 204, "{path}: status {}", answer.status);
        Ok(())
    }
}

/// Until it is killed. Says its address.
pub(crate) fn serve() -> Result<()> {
    raise_open_files();
    let (packets, _) = broadcast::channel(BEHIND_MAX);
    let publisher = Arc::new(publish(packets.clone())?);
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            let (packets, publisher) = (packets.clone(), Arc::clone(&publisher));
            let service = service_fn(move |request| answer(request, packets.clone(), Arc::clone(&publisher)));
            tokio::spawn(async move {
                // Whoever asks sees what went wrong.
                let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// The pictures that viewers of ours are sent, cut by the same packetizer.
fn publish(to: broadcast::Sender<Packet>) -> Result<Publisher> {
    let mut packets = Packets::new(0)?;
    Ok(Publisher::of_pictures(move |message, tag| {
        for packet in packets.of(message, tag)? {
            // Nobody is there yet.
            let _unheard = to.send(packet);
        }
        Ok(())
    }))
}

async fn answer(
    request: http::Request<Incoming>,
    packets: broadcast::Sender<Packet>,
    publisher: Arc<Publisher>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let (status, body) = match path.as_str() {
        PAUSE | GO_ON => {
            publisher.pause(path == PAUSE);
            (StatusCode::NO_CONTENT, String::new())
        }
        VIEWERS => match join(request, packets.subscribe()).await {
            Ok(answer) => (StatusCode::CREATED, answer),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
        },
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

/// A viewer's offer, answered.
async fn join(request: http::Request<Incoming>, mut packets: broadcast::Receiver<Packet>) -> Result<String> {
    let offer = request.into_body().collect().await?.to_bytes();
    let offer = RTCSessionDescription::offer(String::from_utf8(offer.to_vec())?)?;
    let ssrc = fastrand::u32(..);
    // As we are to them: the crowd's viewers make the checks, and begin the handshake.
    let settings = SettingEngineBuilder::new().with_lite(true).with_answering_dtls_role(RTCDtlsRole::Server);
    let mut sender = Sender::new(ssrc, settings).await?;
    sender.connection.set_remote_description(offer).await?;
    let answer = sender.connection.create_answer(None).await?;
    sender.connection.set_local_description(answer).await?;
    let answer = sender.local_description().await?;
    tokio::spawn(async move {
        sender.connected().await?;
        loop {
            let mut packet = match packets.recv().await {
                Ok(packet) => packet,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return anyhow::Ok(()),
            };
            packet.header.ssrc = ssrc;
            sender.track.write_rtp(packet).await.context("a packet")?;
        }
    });
    Ok(answer)
}
