use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::port::{Datagram, Lease, Port, PortSettings, Protocol};
use crate::stun::tests::request;

struct Fixture {
    port: Port,
    address: SocketAddr,
    lease: Lease,
    inbox: mpsc::Receiver<Datagram>,
    _running: DropGuard,
}

fn fixture() -> Fixture {
    let settings =
        PortSettings { listen: "127.0.0.1:0".parse().unwrap(), public: vec![], stun: None, tcp: true };
    let (port, driver) = Port::bind(&settings).unwrap();
    let drain = CancellationToken::new();
    tokio::spawn(driver.run(drain.clone()));
    let (sender, inbox) = mpsc::channel(4);
    let lease = port.lease("ours", 7, sender);
    let candidates = port.candidates(None);
    let [udp, tcp] = &candidates[..] else { panic!("{candidates:?}") };
    assert_eq!((udp.address, udp.protocol, tcp.protocol), (tcp.address, Protocol::Udp, Protocol::Tcp));
    let address = tcp.address;
    Fixture { port, address, lease, inbox, _running: drain.drop_guard() }
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn stun_for(ufrag: &str) -> Vec<u8> {
    request(&format!("{ufrag}:theirs"), "a password", &[])
}

/// Whether the server closes, however it does so.
async fn is_closed(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0; 1]).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn frames_go_both_ways() {
    let mut fixture = fixture();
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    let sent = [framed(&stun_for("ours")), framed(&[22; 100]), framed(&[])].concat();
    // In pieces that are no frames.
    for piece in sent.chunks(33) {
        client.write_all(piece).await.unwrap();
    }
    let first = fixture.inbox.recv().await.unwrap();
    assert_eq!((first.peer, &first.bytes[..]), (7, &stun_for("ours")[..]));
    assert_eq!(first.path.remote, client.local_addr().unwrap());
    assert_eq!(fixture.inbox.recv().await.unwrap().bytes, vec![22; 100], "no address was bound for it");

    fixture.port.send(first.path, b"one two thr", Some(4));
    let mut received = [0; 17];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(received, *b"\0\x04one \0\x04two \0\x03thr");
}

#[tokio::test]
async fn who_does_not_begin_with_a_known_session_is_closed() {
    let fixture = fixture();
    for begin in [framed(&stun_for("other")), framed(&[22; 100]), framed(&[]), vec![0xFF; 4], vec![]] {
        let mut client = TcpStream::connect(fixture.address).await.unwrap();
        client.write_all(&begin).await.unwrap();
        if begin.is_empty() {
            client.shutdown().await.unwrap();
        }
        assert!(is_closed(&mut client).await, "{begin:?}");
    }
    assert_eq!(fixture.port.counters().tcp_refused.get(), 5);
}

#[tokio::test]
async fn a_connection_ends_with_its_session() {
    let mut fixture = fixture();
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(&framed(&stun_for("ours"))).await.unwrap();
    let path = fixture.inbox.recv().await.unwrap().path;
    drop(fixture.lease);
    client.write_all(&framed(&stun_for("ours"))).await.unwrap();
    assert!(is_closed(&mut client).await);
    fixture.port.send(path, b"too late", None);
    assert_eq!(fixture.port.counters().send_dropped.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_closed() {
    let mut fixture = fixture();
    let mut silent = TcpStream::connect(fixture.address).await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(is_closed(&mut silent).await);
    assert!(start.elapsed() >= FIRST_FRAME_TIME_MAX, "{:?}", start.elapsed());

    let mut gone = TcpStream::connect(fixture.address).await.unwrap();
    gone.write_all(&framed(&stun_for("ours"))).await.unwrap();
    fixture.inbox.recv().await.unwrap();
    let start = tokio::time::Instant::now();
    assert!(is_closed(&mut gone).await);
    assert!(start.elapsed() >= IDLE_TIME_MAX, "{:?}", start.elapsed());
}

/// The one who sends never waits.
#[tokio::test]
async fn a_line_that_takes_nothing_loses_frames() {
    let mut fixture = fixture();
    let mut client = TcpStream::connect(fixture.address).await.unwrap();
    client.write_all(&framed(&stun_for("ours"))).await.unwrap();
    let path = fixture.inbox.recv().await.unwrap().path;
    let picture = vec![7; 50_000];
    let counters = fixture.port.counters();
    for _ in 0..10_000 {
        fixture.port.send(path, &picture, Some(1_000));
        tokio::task::yield_now().await;
    }
    assert!(counters.send_dropped.get() > 0);
    assert_eq!(counters.sent.get() + counters.send_dropped.get(), 50 * 10_000);
    // What was not dropped is whole.
    let mut received = vec![0; 50 * 1_002];
    client.read_exact(&mut received).await.unwrap();
    assert!(received.chunks(1_002).all(|frame| frame[..2] == [3, 0xE8] && frame[2..] == [7; 1_000]));
}
