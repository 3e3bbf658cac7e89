use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use media::SessionId;
use net::Guesses;
use prometheus_client::registry::Registry;
use relay::Health;
use serde_json::{Value, json};

use super::*;
use crate::listener::Respond;
use crate::{Site, Unlisted};

const KEY: &str = "canary-4711-canary-4711";
const VIEWER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ROUTE: &str = "/connect/state/live/cam1";

/// One refusal, and who came with a wrong key.
#[derive(Default)]
struct Studio {
    wrong_keys: Mutex<Vec<IpAddr>>,
    guesses: Guesses,
}

impl Backstage for Studio {
    fn may_publish(&self, _: &StreamId, key: &str, viewer: IpAddr) -> Result<bool, TooManyGuesses> {
        if key != KEY {
            self.wrong_keys.lock().unwrap().push(viewer);
        }
        self.guesses.attempt(viewer, Instant::now(), || key == KEY, |allowed| !allowed)
    }

    fn refusals(&self) -> Vec<Refused> {
        vec![Refused {
            at: UNIX_EPOCH + Duration::from_millis(1_800_000_000_123),
            times: 3,
            peer: IpAddr::from([203, 0, 113, 7]),
            stream: StreamId::new("live", "cam1").ok(),
            encoder: Some("<b>OBS</b>".to_owned()),
            words: "wrong key".to_owned(),
        }]
    }
}

struct Node {
    site: Site,
    streams: StreamRegistry,
    studio: Arc<Studio>,
}

fn node() -> Node {
    let (streams, studio) = (StreamRegistry::default(), Arc::<Studio>::default());
    let catalog = Catalog::new(hls::Metrics::register(&mut Registry::default()));
    let site = Site::new(streams.clone(), catalog, 1935)
        .with_unlisted("live/backstage, test/*".parse::<Unlisted>().unwrap())
        .with_backstage(studio.clone());
    Node { site, streams, studio }
}

impl Node {
    async fn ask(&self, request: http::request::Builder) -> (StatusCode, HeaderMap, String) {
        let (head, body) = self.site.respond(VIEWER, request.body(()).unwrap()).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, path: &str) -> Value {
        let request = Request::get(path).header(AUTHORIZATION, format!("Bearer {KEY}"));
        let (status, _, body) = self.ask(request).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn only_the_key_opens_the_state_and_every_wrong_one_is_told_with_its_address() {
    let node = node();
    for given in
        [None, Some("Bearer wrong"), Some("Basic canary-4711-canary-4711"), Some(KEY), Some("Bearer")]
    {
        let mut request = Request::get(ROUTE);
        if let Some(given) = given {
            request = request.header(AUTHORIZATION, given);
        }
        let (status, headers, body) = node.ask(request).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::UNAUTHORIZED, "the publish key is missing or wrong\n")
        );
        assert_eq!(
            (&headers[WWW_AUTHENTICATE], &headers[CACHE_CONTROL]),
            (&"Bearer".parse().unwrap(), &"no-store".parse().unwrap())
        );
    }
    assert_eq!(*node.studio.wrong_keys.lock().unwrap(), [VIEWER], "what is no key is no guess");
    // Threat: the key in an address, where logs and histories find it.
    let (status, ..) = node.ask(Request::get(format!("{ROUTE}?key={KEY}"))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

/// Threat 26: the page as another way to guess.
#[tokio::test]
async fn whoever_guesses_keys_is_told_to_wait() {
    let node = node();
    let guess = || Request::get(ROUTE).header(AUTHORIZATION, "Bearer wrong");
    for _ in 0..5 {
        assert_eq!(node.ask(guess()).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(node.ask(guess()).await.0, StatusCode::UNAUTHORIZED, "the first that costs");
    let (status, headers, words) = node.ask(guess()).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(headers.contains_key(RETRY_AFTER) && words.contains("try again"), "{words}");
}

/// Threat: a cache on the way, or a page of another site, gets what only the broadcaster may see.
#[tokio::test]
async fn the_state_is_for_one_person_and_polled_for_little() {
    let node = node();
    let with_key = || Request::get(ROUTE).header(AUTHORIZATION, format!("bearer {KEY}"));
    let (status, headers, body) = node.ask(with_key()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[CACHE_CONTROL], "no-store");
    assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    assert!(!body.contains(KEY));
    let (status, headers, body) = node.ask(with_key().header(IF_NONE_MATCH, &headers[ETAG])).await;
    assert_eq!((status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(headers[CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn the_broadcaster_sees_the_stream_its_health_and_the_last_refusals() {
    let node = node();
    let offline = node.json(ROUTE).await;
    assert_eq!(
        (&offline["stream"]["state"], &offline["sound"]),
        (&json!("offline"), &json!({ "state": "none" }))
    );
    assert_eq!(
        offline["refusals"],
        json!([{ "at": 1_800_000_000_123_u64, "times": 3, "from": "203.0.113.7", "stream": "live/cam1",
                 "encoder": "<b>OBS</b>", "reason": "wrong key" }])
    );

    let writer =
        node.streams.open(StreamId::new("live", "cam1").unwrap(), SessionId::from_random(1)).unwrap();
    let sample = Sample { span_ms: 1_000, bits_per_second: 4_000_000, frame_rate: 29.970_03 };
    writer.set_facts(Facts {
        bits_per_second: 4_000_000,
        frame_rate: Some(29.970_03),
        warnings: vec!["A keyframe comes only every 8.3 s.".to_owned()],
        health: Health {
            samples: vec![sample],
            sound: relay::Sound::Arriving { bits_per_second: 128_000 },
            late_ms: 40,
            hints: vec!["The encoder uses B-frames.".to_owned()],
        },
        ..Facts::default()
    });
    let live = node.json(ROUTE).await;
    assert_eq!(live["stream"]["state"], "starting");
    assert_eq!(live["samples"], json!([[1_000, 4_000_000, 30.0]]));
    assert_eq!(live["sound"], json!({ "state": "arriving", "bitrate": 128_000 }));
    assert_eq!((&live["late"], &live["frame_rate"]), (&json!(0.04), &json!(30.0)));
    assert_eq!(live["warnings"], json!(["A keyframe comes only every 8.3 s."]));
    assert_eq!(live["hints"], json!(["The encoder uses B-frames."]));
    // What is for the broadcaster alone is not for everybody.
    let (_, _, public) = node.ask(Request::get("/state/live/cam1")).await;
    assert!(!public.contains("B-frames") && !public.contains("203.0.113.7"), "{public}");
}

#[tokio::test]
async fn an_unlisted_stream_is_on_no_list_and_watched_by_its_link() {
    let node = node();
    let open = |app: &str, stream: &str| {
        let id = StreamId::new(app, stream).unwrap();
        node.streams.open(id, SessionId::from_random(1)).unwrap()
    };
    let _writers = [open("live", "cam1"), open("live", "backstage"), open("test", "a")];
    let (_, _, list) = node.ask(Request::get("/state")).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let listed: Vec<_> = list["streams"].as_array().unwrap().iter().map(|stream| &stream["stream"]).collect();
    assert_eq!(listed, ["cam1"]);
    for (path, listed) in [("live/cam1", true), ("live/backstage", false), ("test/a", false)] {
        let (status, _, state) = node.ask(Request::get(format!("/state/{path}"))).await;
        assert!(status == StatusCode::OK && state.contains(r#""state":"starting""#), "{state}");
        assert_eq!(node.ask(Request::get(format!("/watch/{path}"))).await.0, StatusCode::OK);
        assert_eq!(node.json(&format!("/connect/state/{path}")).await["listed"], listed);
    }
}

/// Threat: another site lays a frame with the connect page under its own buttons.
#[tokio::test]
async fn the_embedded_player_may_be_framed_and_no_other_page() {
    let node = node();
    for (path, ancestors) in [
        ("/", "frame-ancestors 'self'"),
        ("/watch/live/cam1", "frame-ancestors 'self'"),
        ("/connect", "frame-ancestors 'self'"),
        ("/studio", "frame-ancestors 'self'"),
        ("/embed/live/cam1", "frame-ancestors *"),
    ] {
        let (status, headers, _) = node.ask(Request::get(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(headers[CONTENT_SECURITY_POLICY].to_str().unwrap().ends_with(ancestors), "{path}");
    }
    assert_eq!(node.ask(Request::get("/embed/live/..")).await.0, StatusCode::NOT_FOUND);
    let names = ["/connect/state/live/..", "/connect/state/live/%3Cscript%3E", "/connect/state/live"];
    for path in names {
        let (status, _, body) = node.ask(Request::get(path)).await;
        assert!(status == StatusCode::NOT_FOUND && !body.contains("script"), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_node_without_publishers_has_no_connect_page() {
    let catalog = Catalog::new(hls::Metrics::register(&mut Registry::default()));
    let site = Site::new(StreamRegistry::default(), catalog, 1935);
    for path in ["/connect", "/studio", ROUTE] {
        let request = Request::get(path).header(AUTHORIZATION, format!("Bearer {KEY}")).body(()).unwrap();
        assert_eq!(site.respond(VIEWER, request).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}
