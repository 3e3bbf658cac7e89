use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::stun::tests::request;

/// A port at work, and what comes for the one who leased `ours`.
struct Fixture {
    port: Port,
    address: SocketAddr,
    lease: Lease,
    inbox: mpsc::Receiver<Datagram>,
    _running: DropGuard,
}

fn fixture(listen: &str) -> Fixture {
    let (port, driver) =
        Port::bind(&PortSettings { listen: listen.parse().unwrap(), public: vec![], stun: None, tcp: false })
            .unwrap();
    let drain = CancellationToken::new();
    tokio::spawn(driver.run(drain.clone()));
    let (sender, inbox) = mpsc::channel(64);
    let lease = port.lease("ours", 7, sender);
    let address = port.candidates(None)[0].address;
    Fixture { port, address, lease, inbox, _running: drain.drop_guard() }
}

async fn client(server: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    let client = UdpSocket::bind(any).await.unwrap();
    // The kernel lets through only what comes from exactly there.
    client.connect(server).await.unwrap();
    client
}

fn stun() -> Vec<u8> {
    request("ours:theirs", "a password", &[])
}

/// What the client hears next; `None` for nothing in a while, which only a test that fails waits for.
async fn heard(client: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 2_048];
    let bytes = timeout(Duration::from_secs(10), client.recv(&mut buffer)).await.ok()?.unwrap();
    Some(buffer[..bytes].to_vec())
}

/// environment: aioice rejects what comes from another address than it asked.
#[tokio::test]
async fn the_answer_comes_from_the_address_that_was_asked() {
    // 127.0.0.2 is not what the kernel would choose by itself; `[::]` hears IPv4 too.
    for (listen, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "127.0.0.2"), ("[::]:0", "::1")] {
        let mut fixture = fixture(listen);
        let asked = SocketAddr::new(asked.parse().unwrap(), fixture.address.port());
        let client = client(asked).await;
        client.send(&stun()).await.unwrap();
        let datagram = fixture.inbox.recv().await.unwrap();
        assert_eq!((datagram.peer, &datagram.bytes[..]), (7, &stun()[..]));
        assert_eq!(datagram.path.local, asked);
        assert_eq!(datagram.path.remote, client.local_addr().unwrap());
        fixture.port.send(datagram.path, b"answer", None);
        assert_eq!(heard(&client).await.as_deref(), Some(&b"answer"[..]), "{listen} {asked}");
    }
}

#[tokio::test]
async fn what_is_sent_in_segments_comes_as_datagrams() {
    let mut fixture = fixture("127.0.0.1:0");
    let client = client(fixture.address).await;
    client.send(&stun()).await.unwrap();
    let path = fixture.inbox.recv().await.unwrap().path;
    // More than one send takes: the kernel's bound is 64 segments. Fewer than its receive buffer holds.
    let sent: Vec<u8> = (0..90_u8).flat_map(|number| [number; 200]).collect();
    fixture.port.send(path, &sent[..17_900], Some(200));
    for number in 0..90 {
        assert_eq!(heard(&client).await, Some(vec![number; if number < 89 { 200 } else { 100 }]));
    }
    let counters = fixture.port.counters();
    assert_eq!(counters.sent.get(), 90);
    // One, where the system has no GSO or has just refused it.
    let together = fixture.port.shared.state.max_gso_segments() as u64;
    assert_eq!(counters.sends.get(), 90_u64.div_ceil(together));
}

/// GRO joins them again; they must come apart where they were.
#[tokio::test]
async fn datagrams_that_the_kernel_joined_come_apart() {
    let mut fixture = fixture("127.0.0.1:0");
    let (other, driver) = Port::bind(&PortSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        public: vec![],
        stun: None,
        tcp: false,
    })
    .unwrap();
    let to_port =
        Path { local: other.candidates(None)[0].address, remote: fixture.address, transport: Transport::Udp };
    fixture.lease.bind_address(to_port.local);
    let sent: Vec<u8> = (0..10).flat_map(|number| [20 + number; 100]).collect();
    other.send(to_port, &sent[..950], Some(100));
    for number in 0..10 {
        let datagram = fixture.inbox.recv().await.unwrap();
        assert_eq!(datagram.bytes, vec![20 + number; if number < 9 { 100 } else { 50 }]);
    }
    assert_eq!(fixture.port.counters().received.get(), 10);
    drop(driver);
}

/// Threat 5: of a hundred thousand it would be the same; nothing goes out.
#[tokio::test]
async fn strangers_are_counted_and_not_answered() {
    let mut fixture = fixture("127.0.0.1:0");
    let stranger = client(fixture.address).await;
    for bytes in
        [&request("other:theirs", "a password", &[])[..], &[22; 60], &[128; 60], &[255; 60], &[22; 2_100]]
    {
        stranger.send(bytes).await.unwrap();
    }
    stranger.send(&stun()).await.unwrap();
    // In order: when this one is here, those before it have been dealt with.
    assert_eq!(fixture.inbox.recv().await.unwrap().bytes, stun());
    let counters = fixture.port.counters();
    let dropped = [
        &counters.dropped_unknown_ufrag,
        &counters.dropped_unknown_address,
        &counters.dropped_malformed,
        &counters.dropped_inbox_full,
        &counters.sent,
    ];
    assert_eq!(dropped.map(Count::get), [1, 2, 2, 0, 0]);
    drop(fixture.lease);
    assert!(fixture.inbox.recv().await.is_none(), "the last sender went with the lease");
}

/// What a socket cannot send is lost, not waited for.
#[tokio::test]
async fn what_cannot_be_sent_is_counted() {
    let fixture = fixture("127.0.0.1:0");
    let path = Path { local: fixture.address, remote: fixture.address, transport: Transport::Udp };
    fixture.port.send(path, &vec![0; 70_000], None);
    let counters = fixture.port.counters();
    assert_eq!((counters.send_dropped.get(), counters.sent.get()), (1, 0));
}
