//! A thread with viewers who have not connected yet, and a stream whose writer is the test's.

use bytes::Bytes;
use media::codec::h264;
use media::{CodecConfig, StreamId, TrackId};
use relay::{StreamRecord, StreamRegistry, StreamWriter, TrackRecord, TrackWriter};
use rtc::dtls::Identity;
use rtc::packetize::Format;
use rtc::peer::{Peer, PeerSettings};
use rtc::port::PortSettings;
use rtc::srtp::Role;

use super::*;

const AVCC: &[u8] = b"\x01\x42\xc0\x1e\xff\xe1\x00\x19\x67\x42\xc0\x1e\xda\x02\x80\xbf\xe5\xc0\x44\x00\x00\x03\x00\x04\x00\x00\x03\x00\xf0\x3c\x58\xba\x80\x01\x00\x04\x68\xce\x0f\xc8";

struct Scene {
    port: Port,
    identity: Arc<Identity>,
    handle: Handle,
    gone: mpsc::UnboundedReceiver<u64>,
    metrics: Metrics,
    registry: StreamRegistry,
}

impl Scene {
    fn new() -> Self {
        let settings =
            PortSettings { listen: "127.0.0.1:0".parse().unwrap(), public: vec![], stun: None, tcp: false };
        let (port, _driver) = Port::bind(&settings).unwrap();
        let (tell, gone) = mpsc::unbounded_channel();
        let tell = move |viewer| tell.send(viewer).expect("the test goes on");
        let metrics = Metrics::default();
        let handle = spawn(0, port.clone(), Arc::new(tell), metrics.clone()).unwrap();
        let identity = Arc::new(Identity::generate().unwrap());
        Self { port, identity, handle, gone, metrics, registry: StreamRegistry::default() }
    }

    fn id() -> StreamId {
        StreamId::new("live", "cam").unwrap()
    }

    fn stream(&self) -> Arc<Stream> {
        self.registry.get(&Self::id()).unwrap()
    }

    fn publish(&self) -> (StreamWriter, Vec<TrackWriter>) {
        let mut writer = self.registry.open(Self::id(), SessionId::from_random(1)).unwrap();
        let tracks = open(&mut writer);
        (writer, tracks)
    }

    async fn join(&self, viewer: u64, stream: Arc<Stream>) {
        let credentials = Credentials::generate().unwrap();
        let lease = self.port.lease(&credentials.ufrag, viewer, self.handle.inbox.clone());
        let settings = PeerSettings {
            identity: self.identity.clone(),
            role: Role::Server,
            local: credentials,
            remote_ufrag: "theirs".to_owned(),
            fingerprints: vec![],
            ssrcs: vec![1],
        };
        let peer = Peer::new(settings, Instant::now()).unwrap();
        let formats = Formats::of([Format::H264]);
        let join = Box::new(Join { viewer, peer, lease, formats, video: None, audio: None });
        self.command(Command::Join { join, stream }).await;
    }

    async fn command(&self, command: Command) {
        assert!(self.handle.commands.send(command).await.is_ok(), "the thread goes on");
    }

    /// Waits until the shard reads `stream`.
    async fn is_read(&mut self, stream: &Stream) -> bool {
        loop {
            let demand = stream.tracks()[0].demand();
            let woken = demand.woken();
            if demand.look(Instant::now()) == relay::Wanted::Held {
                return true;
            }
            tokio::select! {
                () = woken => {}
                _ = self.gone.recv() => return false,
            }
        }
    }
}

fn open(writer: &mut StreamWriter) -> Vec<TrackWriter> {
    let track = TrackRecord {
        id: TrackId(0),
        name: "v".into(),
        codec: CodecConfig::H264(h264::Config::parse(Bytes::from_static(AVCC)).unwrap()),
        part_target_ms: 500,
        reorder_delay: 0,
        derived: None,
    };
    writer.open(StreamRecord {
        session: writer.session(),
        epoch: 1,
        part_hold_back_ms: 1536,
        frame_rate: None,
        tracks: vec![track],
        live: None,
    })
}

#[tokio::test]
async fn a_viewer_whose_session_panics_is_gone_and_counted_and_the_others_are_served() {
    let mut scene = Scene::new();
    let _publisher = scene.publish();
    for viewer in [1, 2] {
        scene.join(viewer, scene.stream()).await;
    }
    scene.command(Command::Panic { viewer: 1 }).await;
    assert_eq!(scene.gone.recv().await, Some(1));
    assert_eq!(scene.metrics.panics.get(), 1);
    scene.command(Command::Leave { viewer: 2 }).await;
    assert_eq!(scene.gone.recv().await, Some(2));
    scene.join(3, scene.stream()).await;
    scene.command(Command::Leave { viewer: 3 }).await;
    assert_eq!(scene.gone.recv().await, Some(3));
    assert_eq!(scene.metrics.panics.get(), 1);
}

/// A node that follows another was told nonsense, and subscribes again.
#[tokio::test]
async fn viewers_go_over_to_a_copy_that_is_read_anew_and_leave_with_its_end() {
    let mut scene = Scene::new();
    let (writer, tracks) = scene.publish();
    let before = scene.stream();
    scene.join(1, before.clone()).await;
    assert!(scene.is_read(&before).await);
    let mut anew = writer.anew();
    let anew_tracks = open(&mut anew);
    drop((tracks, writer));
    let now = scene.stream();
    assert!(!Arc::ptr_eq(&before, &now));
    assert!(scene.is_read(&now).await, "the viewer is said goodbye");
    // Found before, and come in only now.
    scene.join(2, before).await;
    drop((anew_tracks, anew));
    let mut gone = [scene.gone.recv().await, scene.gone.recv().await];
    gone.sort_unstable();
    assert_eq!(gone, [Some(1), Some(2)]);
}
