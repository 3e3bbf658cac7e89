//! A port and its peers with `webrtc` at the other end, over real sockets.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach the helpers of a test crate")]

mod client;
mod fixture;

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rtc::dtls::DtlsError;
use rtc::peer::Closed;
use rtc::srtp::Profile;
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_rtp::{Header, Packet};
use rtc_shared::marshal::Marshal;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use tokio::net::UdpSocket;
use webrtc::peer_connection::RTCPeerConnectionState;

use crate::client::{Client, binding_request};
use crate::fixture::{Server, VIDEO_SSRC};

/// What webrtc-rs prefers is AES-CM, as browsers do.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_connects_with_gcm_and_opens_what_is_sealed() {
    let server = Server::start();
    let mut client = Client::new().await;
    let mut session = server.answer(&client.offer().await);
    client.take_answer(&session.answer.text).await;
    let keys = session.connected().await;
    assert_eq!(keys.profile, Profile::Aes128Gcm);
    client.reaches(RTCPeerConnectionState::Connected).await;

    let mut sealer = Context::new(
        &keys.local.key,
        keys.local.salt(keys.profile),
        ProtectionProfile::AeadAes128Gcm,
        None,
        None,
        &AwsLcRsCrypto,
    )
    .unwrap();
    let video = session.answer.video.clone().unwrap();
    let header = Header {
        version: 2,
        payload_type: video.payload_types[0].1.media,
        sequence_number: 7,
        ssrc: VIDEO_SSRC,
        ..Header::default()
    };
    let payload = Bytes::from_static(&[0x65, 1, 2, 3]);
    let packet = Packet { header, payload: payload.clone() }.marshal().unwrap();
    server.port.send(session.path(), &sealer.encrypt_rtp(&packet).unwrap(), None);
    assert_eq!(client.received().await.payload, payload);

    client.close().await;
    assert_eq!(session.closed().await, Closed::ByPeer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_not_the_one_of_the_sdp_is_refused() {
    let server = Server::start();
    let mut client = Client::new().await;
    let offer = client.offer().await;
    let (before, fingerprint) = offer.split_once("a=fingerprint:sha-256 ").unwrap();
    let (digit, rest) = fingerprint.split_at(1);
    let forged = if digit == "0" { "1" } else { "0" };
    let mut session = server.answer(&format!("{before}a=fingerprint:sha-256 {forged}{rest}"));
    client.take_answer(&session.answer.text).await;
    assert_eq!(session.fails().await, DtlsError::Fingerprint);
}

/// Threats 5 to 8, and 19: who does not know the password is not answered.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_answer_and_end_no_session() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = Server::start();
    let mut client = Client::new().await;
    let mut session = server.answer(&client.offer().await);
    client.take_answer(&session.answer.text).await;
    session.connected().await;

    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.connect(server.address).await.unwrap();
    for number in 0..5_000 {
        let mut bytes: Vec<u8> = (0..random.usize(1..300)).map(|_| random.u8(..)).collect();
        bytes[0] = *random.choice([&0, &1, &22, &23, &63, &128, &144, &191, &255]).unwrap();
        stranger.send(&bytes).await.unwrap();
        stranger.send(&binding_request(&session.username, "a guess")).await.unwrap();
        // The port's task and this one share two processors, and a full buffer would prove nothing.
        if number % 50 == 0 {
            server.caught_up(&stranger).await;
        }
    }
    stranger.send(&binding_request(&session.username, &session.password)).await.unwrap();
    let mut buffer = [0; 2_048];
    let bytes = stranger.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[..2], [1, 1], "the first answer is to the first who knew the password");
    assert_eq!(buffer[8..20], client::TRANSACTION, "{bytes}");

    client.close().await;
    assert_eq!(session.closed().await, Closed::ByPeer, "until then it was well");
}

/// From Wi-Fi to the mobile network: the same session at another address.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_moves_with_a_valid_check() {
    let server = Server::start();
    let mut client = Client::new().await;
    let mut session = server.answer(&client.offer().await);
    client.take_answer(&session.answer.text).await;
    session.connected().await;
    client.reaches(RTCPeerConnectionState::Connected).await;

    let moved = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    moved.connect(server.address).await.unwrap();
    moved.send(&binding_request(&session.username, &session.password)).await.unwrap();
    session.moves_to(moved.local_addr().unwrap()).await;
    server.port.send(session.path(), b"media", None);
    let mut buffer = [0; 2_048];
    // The answer to the check comes first.
    moved.recv(&mut buffer).await.unwrap();
    let bytes = moved.recv(&mut buffer).await.unwrap();
    assert_eq!(buffer[..bytes], b"media"[..]);
}
