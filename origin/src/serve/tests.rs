//! What a child is told that should not be served.

use futures_util::FutureExt;
use hls::{RenditionHeader, StreamHeader};
use http::HeaderMap;
use http::request::Builder;
use media::codec::aac;
use media::{CodecConfig, SessionId, TrackId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use relay::wire::{Decoder, FORMAT, HOPS, Message};
use relay::{StreamRecord, TrackRecord};

use super::*;

/// Only what is in the catalog and in the registry.
struct Here(Catalog, StreamRegistry);

impl Offer for Here {
    async fn find(&self, id: &StreamId, _: Hops) -> Result<Found, NotFound> {
        let index = self.0.get(id).ok_or(NotFound::Absent)?;
        Ok(Found { index, keep: Box::pin(std::future::pending()) })
    }

    async fn find_log(&self, id: &StreamId, _: Hops) -> Result<FoundLog, NotFound> {
        let stream = self.1.get(id).ok_or(NotFound::Absent)?;
        Ok(FoundLog { stream, keep: Box::pin(std::future::pending()) })
    }

    async fn state(&self, id: Option<&StreamId>, _: Hops) -> Option<Bytes> {
        Some(format!("{id:?}").into())
    }
}

fn relay() -> (Relay<Here>, Catalog) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let names = ["origin", relay::CLUSTER_NAME].map(str::to_owned).to_vec();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap().pem();
    let identity =
        Identity::from_pem(authority.as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes());
    let catalog = Catalog::new(hls::Metrics::default());
    let streams = StreamRegistry::default();
    let here = Here(catalog.clone(), streams.clone());
    let relay = Relay::new(&identity.unwrap(), catalog.clone(), streams, here, RelayMetrics::default());
    (relay, catalog)
}

fn hello(path: &str) -> Builder {
    Request::get(path).header(WIRE, "1").header(FORMAT, FORMAT_VERSION).header(HOPS, "edge1")
}

async fn ask(relay: &Relay<Here>, request: Builder) -> (StatusCode, HeaderMap, String) {
    let child = "edge1".parse().unwrap();
    let (head, body) = relay.respond(&child, request.body(()).unwrap()).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn open(catalog: &Catalog) -> hls::StreamWriter {
    let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
    catalog.open(StreamHeader {
        id: StreamId::new("live", "cam1").unwrap(),
        session: SessionId::from_random(7),
        epoch: 2,
        part_hold_back_ms: 1536,
        retain_bytes_max: 1 << 20,
        renditions: vec![RenditionHeader {
            name: "a".parse().unwrap(),
            codec,
            part_target_ms: 512,
            derived: None,
        }],
    })
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_in_words() {
    let (relay, _) = relay();
    let stream = "/x/1/live/cam1";
    let cases = [
        (Request::get(stream), 400, "tidecast-wire is missing"),
        (
            Request::get(stream).header(WIRE, "9").header(FORMAT, "1").header(HOPS, "edge1"),
            406,
            "speaks version 1 of the wire, the other 9",
        ),
        (
            Request::get(stream).header(WIRE, "1").header(FORMAT, "77").header(HOPS, "edge1"),
            406,
            "the other 77",
        ),
        (
            Request::get(stream)
                .header(WIRE, "1")
                .header(FORMAT, FORMAT_VERSION)
                .header(HOPS, "edge1, origin"),
            508,
            "origin asks itself by way of edge1, origin",
        ),
        (
            Request::get(stream).header(WIRE, "1").header(FORMAT, FORMAT_VERSION).header(HOPS, "a,b,c,d,e"),
            508,
            "more than 4 nodes",
        ),
        (hello(stream), 404, "no such stream"),
        (hello("/x/1/live/.."), 404, "nothing is at this path"),
        (hello("/hls/live/cam1/index.m3u8"), 404, "nothing is at this path"),
        (hello("/x/1/live/cam1/0000000000000007/a/index.m3u8"), 404, "nothing is at this path"),
        (hello("/x/1/live/cam1/0000000000000007/a/0.0.m4s"), 404, "not found"),
        (hello(stream).method("POST"), 405, "only GET"),
        (hello("/x/1/webrtc/live/cam1"), 404, "no such stream"),
        (hello("/x/1/webrtc/live/cam1?keyframe").method("POST"), 404, "no such stream"),
        (hello("/x/1/webrtc/live/cam1").method("POST"), 400, "none of keyframe, rung-keyframe"),
        (hello("/x/1/webrtc/live/cam1").method("PUT"), 405, "only GET"),
    ];
    for (request, status, words) in cases {
        let (told, headers, body) = ask(&relay, request).await;
        assert_eq!(told.as_u16(), status, "{body}");
        assert!(body.contains(words), "{body}");
        assert_eq!(headers[WIRE], "1", "so that the other may find one in common");
    }
    assert_eq!(ask(&relay, hello("/x/1/state")).await.2, "None");
    assert_eq!(ask(&relay, hello("/x/1/state/live/cam1")).await.2, "Some(live/cam1)");
}

/// Record, index, mark, then the clock while nothing happens, and the end.
#[tokio::test(start_paused = true)]
async fn a_subscription_begins_with_its_index_ticks_and_ends() {
    let (relay, catalog) = relay();
    let writer = open(&catalog);
    let request = hello("/x/1/live/cam1").body(()).unwrap();
    let mut body = relay.respond(&"edge1".parse().unwrap(), request).await.into_body();
    let (mut decoder, mut told) = (Decoder::default(), Vec::new());
    let mut writer = Some(writer);
    while let Some(frame) = body.frame().await {
        for slice in frame.unwrap().into_data().unwrap() {
            decoder.push(slice);
        }
        while let Some(message) = decoder.poll_message().unwrap() {
            told.push(message);
        }
        let ticks = told.iter().filter(|message| matches!(message, Message::Clock { .. })).count();
        if ticks == 3
            && let Some(writer) = writer.take()
        {
            writer.end();
        }
    }
    let kinds = told.iter().map(|message| match message {
        Message::Record(record) => format!("record {}", record.session),
        Message::Clock { .. } => "tick".to_owned(),
        other => format!("{other:?}"),
    });
    assert_eq!(
        kinds.collect::<Vec<_>>(),
        [
            "record 0000000000000007",
            "Index { resumed: false, epoch: 2 }",
            "IndexComplete",
            "tick",
            "tick",
            "tick",
            "TrackEnd { track: 0 }",
            "End",
        ]
    );
}

/// Wherever a viewer of it is.
#[tokio::test]
async fn what_viewers_of_a_child_want_is_wanted_here() {
    let (relay, _) = relay();
    let id = StreamId::new("live", "cam1").unwrap();
    let session = SessionId::from_random(7);
    let mut writer = relay.streams.open(id.clone(), session).unwrap();
    let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
    let track = |id| TrackRecord {
        id: TrackId(id),
        name: "a".into(),
        codec: codec.clone(),
        part_target_ms: 512,
        reorder_delay: 0,
        derived: None,
    };
    let record = StreamRecord {
        session,
        epoch: 3,
        part_hold_back_ms: 1536,
        frame_rate: None,
        tracks: vec![track(0), track(5)],
        live: None,
    };
    let _tracks = writer.open(record);
    let stream = relay.streams.get(&id).unwrap();
    let path = "/x/1/webrtc/live/cam1";
    let post = |query: &str| hello(&format!("{path}?{query}")).method("POST");
    assert_eq!(ask(&relay, post("tracks=5,77")).await.0, 200);
    let wanted = stream.tracks().iter().map(|track| track.demand().look(std::time::Instant::now()));
    let wanted: Vec<_> = wanted.collect();
    assert!(matches!(wanted[..], [relay::Wanted::No, relay::Wanted::Until(_)]), "{wanted:?}");
    assert!(stream.keyframe_wanted().now_or_never().is_none());
    assert_eq!(ask(&relay, post("keyframe")).await.0, 200);
    assert!(stream.keyframe_wanted().now_or_never().is_some());

    // Whoever knows a later owner must not be told by this one, which does not know yet that it was replaced.
    let (status, _, words) = ask(&relay, hello(&format!("{path}?from={session}.4;0:1.1"))).await;
    assert_eq!(status, 409, "{words}");
}
