//! Under which addresses WebRTC's peers are told to come: what a STUN server says of the port, what a browser has asked for pages,
//! and what the operator has written, which wins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::http::{Answer, Http};
use harness::publisher::Publisher;
use harness::server::{PUBLISH_KEY, Setup};

const STEP_MAX: Duration = Duration::from_secs(30);

/// Out of Chromium.
const WHIP_OFFER: &str = include_str!("../../ingest/src/whip/offer/chromium.sdp");
const WHEP_OFFER: &str = include_str!("../../core/rtc/src/sdp/fixtures/chromium.sdp");

/// Of nobody (RFC 5737).
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const OUTSIDE_PORT: u16 = 40_000;
const ASKED: &str = "198.51.100.4";
const CONFIGURED: &str = "203.0.113.77";

/// What a server beyond a NAT would say (RFC 8489), to whoever asks; tells who that was. Ends with the process.
fn stun_server() -> Result<(SocketAddr, thread::JoinHandle<Result<SocketAddr>>)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(STEP_MAX))?;
    let address = socket.local_addr()?;
    let answering = thread::spawn(move || {
        let mut request = [0; 1_500];
        let (bytes, from) = socket.recv_from(&mut request).context("nobody asks")?;
        ensure!(bytes >= 20 && request[..2] == [0, 1], "no binding request: {:?}", &request[..bytes]);
        let cookie: [u8; 4] = request[4..8].try_into()?;
        ensure!(cookie == [0x21, 0x12, 0xA4, 0x42], "no magic cookie: {cookie:?}");
        // A binding success with XOR-MAPPED-ADDRESS alone: twelve bytes of attributes.
        let mut answer = vec![1, 1, 0, 12];
        answer.extend(&request[4..20]);
        answer.extend([0, 0x20, 0, 8, 0, 1]);
        answer.extend((OUTSIDE_PORT ^ 0x2112).to_be_bytes());
        answer.extend(OUTSIDE.octets().iter().zip(cookie).map(|(octet, cookie)| octet ^ cookie));
        socket.send_to(&answer, from)?;
        Ok(from)
    });
    Ok((address, answering))
}

fn post(http: &Http, protocol: &str, host: &str) -> Result<Answer> {
    let authorization = format!("Bearer {PUBLISH_KEY}");
    let headers = [("host", host), ("content-type", "application/sdp"), ("authorization", &authorization)];
    let (path, offer) = match protocol {
        "whip" => ("/whip/live/tab", WHIP_OFFER),
        "whep" => ("/whep/live/cam?wait", WHEP_OFFER),
        _ => bail!("no {protocol}"),
    };
    let answer = http.send("POST", path, &headers, offer.as_bytes())?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.text());
    if protocol == "whip" {
        // The name is free again.
        http.send("DELETE", answer.header("location"), &[("authorization", &authorization)], b"")?;
    }
    Ok(answer)
}

/// Address and port of each candidate, in the order of the answer, and its protocol.
fn candidates(answer: &Answer) -> Result<Vec<(IpAddr, u16, String)>> {
    let text = answer.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    let read = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, _, protocol, _, ip, port, ..] = words[..] else { bail!("no candidate: {line}") };
        Ok((ip.parse()?, port.parse()?, protocol.to_lowercase()))
    };
    lines.map(read).collect()
}

#[test]
fn what_a_stun_server_sees_is_offered_and_so_is_what_the_browser_asked_for() -> Result<()> {
    let (stun, answering) = stun_server()?;
    let server = Setup::default().set("webrtc.stun", &format!("stun:{stun}")).start()?;
    let asking = answering.join().expect("it does not panic")?;
    ensure!(asking == server.webrtc_address(), "asked from {asking}, which is not the port");
    server.wait_for_log("what the STUN server said", STEP_MAX, |line| {
        line.contains(&format!("offered {OUTSIDE}:{OUTSIDE_PORT}")).then_some(())
    })?;
    server.wait_for_log("what is offered at all", STEP_MAX, |line| {
        let told = format!("what stun:{stun} says (webrtc.stun)");
        (line.contains("127.0.0.1 (of this machine)") && line.contains(&told)).then_some(())
    })?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/cam"))?;
    let (http, port) = (server.viewer_http(), server.webrtc_address().port());
    let (asked, own): (IpAddr, IpAddr) = (ASKED.parse()?, Ipv4Addr::LOCALHOST.into());
    for protocol in ["whip", "whep"] {
        let told = candidates(&post(&http, protocol, &format!("{ASKED}:8080"))?)?;
        let udp = [(asked, port), (OUTSIDE.into(), OUTSIDE_PORT), (own, port)];
        // What the NAT has made of the UDP port says nothing of TCP.
        let expected = udp.map(|(ip, port)| (ip, port, "udp".to_owned())).into_iter();
        let expected = expected.chain([asked, own].map(|ip| (ip, port, "tcp".to_owned())));
        ensure!(told == expected.collect::<Vec<_>>(), "{protocol}: {told:?}");
        let by_name = candidates(&post(&http, protocol, "tidecast.example")?)?;
        ensure!(by_name.iter().all(|(ip, ..)| *ip != asked), "{protocol}: {by_name:?}");
    }
    publisher.kill()?;
    server.stop()
}

#[test]
fn what_the_operator_says_wins() -> Result<()> {
    let server =
        Setup::default().set("webrtc.public", CONFIGURED).set("webrtc.stun", "stun:127.0.0.1:9").start()?;
    server.wait_for_log("what is offered", STEP_MAX, |line| {
        let is_told =
            line.contains(&format!("offered {CONFIGURED} (webrtc.public), 127.0.0.1 (of this machine)"));
        (is_told && line.contains("webrtc.stun is not asked")).then_some(())
    })?;
    let told = candidates(&post(&server.viewer_http(), "whip", ASKED)?)?;
    let addresses: Vec<_> = told.iter().map(|(ip, ..)| ip.to_string()).collect();
    ensure!(addresses == [CONFIGURED, "127.0.0.1", CONFIGURED, "127.0.0.1"], "{told:?}");
    server.stop()
}

/// Nothing is waited for, and the operator reads why.
#[test]
fn a_stun_server_that_cannot_be_found_costs_a_line_in_the_log() -> Result<()> {
    let server = Setup::default().set("webrtc.stun", "stun:nobody.invalid").start()?;
    server.wait_for_log("the reason", STEP_MAX, |line| {
        line.contains("stun:nobody.invalid does not say under which address this machine is reached")
            .then_some(())
    })?;
    let told = candidates(&post(&server.viewer_http(), "whip", "127.0.0.1")?)?;
    ensure!(told.len() == 2, "{told:?}");
    server.stop()
}
