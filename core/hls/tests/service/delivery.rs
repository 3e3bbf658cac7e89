//! What an answer looks like: status, headers, bytes.

use std::io::Read;
use std::net::Ipv4Addr;

use flate2::read::GzDecoder;
use hls::http::Head;
use hls::{Metrics, Part};
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL,
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE, RETRY_AFTER,
    VARY,
};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;

use crate::fixture::{
    SESSION, Stream, announcement, audio, header, media_playlist, name, part, serve, video,
};

fn file(rendition: &str, file: &str) -> String {
    format!("{SESSION}/{rendition}/{file}")
}

#[tokio::test]
async fn h4_a_stream_is_starting_until_every_rendition_has_a_segment() {
    let mut stream = Stream::starting(header(vec![video(), audio()]));
    let paths =
        ["index.m3u8".into(), media_playlist("v"), file("v", "0.0.m4s"), file("v", "init-c0ffee.mp4")];
    let check = async |stream: &Stream, status| {
        for path in &paths {
            let answer = stream.get(path).await;
            assert_eq!(answer.status, status, "{path}");
            if status == StatusCode::NOT_FOUND {
                assert_eq!(
                    (answer.header(CACHE_CONTROL), answer.header(RETRY_AFTER)),
                    ("no-store", "1"),
                    "{path}"
                );
            }
        }
    };
    (0..=3).for_each(|number| stream.push("v", part(0, number)));
    check(&stream, StatusCode::NOT_FOUND).await;
    stream.writer().announce(announcement());
    (0..=2).for_each(|number| stream.push("a", part(0, number)));
    check(&stream, StatusCode::NOT_FOUND).await;
    stream.push("a", part(0, 3));
    check(&stream, StatusCode::OK).await;
}

#[tokio::test]
async fn h4_what_does_not_exist_is_not_found_for_a_second() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    let other_session = media_playlist("v").replace("ab", "cd");
    let paths = [
        "/",
        "/hls/live/other/index.m3u8",
        "/hls/live/cam1/index.m3u8/",
        "/hls/live/%63am1/index.m3u8",
        "/hls/LIVE/cam1/index.m3u8",
        &other_session,
        &media_playlist("v720"),
        &file("v", "01.m4s"),
        &file("v", "init-decaf.mp4"),
        &file("v", "init-.mp4"),
    ];
    for path in paths {
        let answer = stream.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.header(CACHE_CONTROL), "public, max-age=1", "{path}");
        assert_eq!(answer.header(CONTENT_LENGTH), answer.body.len().to_string(), "{path}");
        assert_eq!(answer.header(ACCESS_CONTROL_ALLOW_ORIGIN), "*", "{path}");
    }
}

#[tokio::test]
async fn h3_h7_parts_segments_and_inits_are_immutable_and_typed() {
    let mut stream = Stream::live();
    stream.push_through(2, 1);
    let cases = [
        ("v", "1.2.m4s", "head 1.2 payload 1.2;", "video/mp4"),
        ("a", "2.1.m4s", "head 2.1 payload 2.1;", "audio/mp4"),
        (
            "v",
            "1.m4s",
            "head 1.0 payload 1.0;head 1.1 payload 1.1;head 1.2 payload 1.2;head 1.3 payload 1.3;",
            "video/mp4",
        ),
        ("a", "init-c0ffee.mp4", "init c0ffee", "audio/mp4"),
    ];
    for (rendition, name, body, content_type) in cases {
        let answer = stream.get(&file(rendition, name)).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, body), "{name}");
        assert_eq!(answer.header(CONTENT_TYPE), content_type, "{name}");
        assert_eq!(answer.header(CONTENT_LENGTH), body.len().to_string(), "{name}");
        assert_eq!(answer.header(CACHE_CONTROL), "public, max-age=3600, immutable", "{name}");
        assert_eq!(answer.header(ACCEPT_RANGES), "bytes", "{name}");
        assert_eq!(answer.header(VARY), "", "only playlists are compressed");
    }
}

#[tokio::test]
async fn h1_h2_playlists_are_kept_as_long_as_they_are_good_for() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let blocking = format!("{}?_HLS_msn=3&_HLS_part=1", media_playlist("v"));
    let msn_alone = format!("{}?_HLS_msn=2", media_playlist("v"));
    let cases = [
        // Six target durations: such a URL names one version, and caches answer everybody with it.
        (blocking.as_str(), "public, max-age=24"),
        (&msn_alone, "public, max-age=24"),
        // Less than half a target duration.
        (&media_playlist("v"), "public, max-age=1"),
        ("index.m3u8", "no-cache"),
        ("index.m3u8?only=audio", "no-cache"),
    ];
    for (path, cache_control) in cases {
        let answer = stream.get(path).await;
        assert_eq!((answer.status, answer.header(CACHE_CONTROL)), (StatusCode::OK, cache_control), "{path}");
        assert_eq!(answer.header(CONTENT_TYPE), "application/vnd.apple.mpegurl", "{path}");
    }
}

#[tokio::test]
async fn h5_what_is_refused_is_not_stored_and_says_why() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let media = |query: &str| format!("{}?{query}", media_playlist("v"));
    let cases = [
        (media("_HLS_part=1"), "_HLS_part needs _HLS_msn\n"),
        (media("_HLS_msn=x"), "a delivery directive is not a decimal number\n"),
        (media("_HLS_skip=YES&_HLS_skip=v2"), "a delivery directive is given twice\n"),
        (media("_HLS_msn=99"), "too far ahead of the live edge to wait for\n"),
        (
            "index.m3u8?max=480p".into(),
            "max is the greatest picture height, in lines: a whole number from 1 on\n",
        ),
        ("index.m3u8?only=sound".into(), "only is audio or video\n"),
        ("index.m3u8?only=audio&only=video".into(), "max and only may be given once each\n"),
    ];
    for (path, words) in cases {
        let answer = stream.get(&path).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::BAD_REQUEST, words), "{path}");
        assert_eq!(answer.header(CACHE_CONTROL), "no-store", "{path}");
        assert_eq!(answer.header(CONTENT_LENGTH), words.len().to_string(), "{path}");
    }
}

#[tokio::test]
async fn filters_leave_what_a_viewer_wants() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let whole = stream.get("index.m3u8").await;
    let audio = stream.get("index.m3u8?only=audio").await;
    assert!(audio.text().ends_with("00000000000000ab/a/index.m3u8\n") && !audio.text().contains("/v/"));
    assert_ne!(audio.header(ETAG), whole.header(ETAG));
    // One rendition of 720 lines: the closest to 480 that still plays is all there is.
    let small = stream.get("index.m3u8?max=480&token=x").await;
    assert_eq!((small.header(ETAG), &small.body), (whole.header(ETAG), &whole.body));
}

#[tokio::test]
async fn h8_players_elsewhere_may_read_everything_they_measure_with() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    let answer = stream.get(&file("v", "1.0.m4s")).await;
    assert_eq!(answer.header(ACCESS_CONTROL_ALLOW_ORIGIN), "*");
    assert_eq!(answer.header(ACCESS_CONTROL_EXPOSE_HEADERS), "Date, Age, Content-Length, Content-Range");
    assert_eq!(answer.header("timing-allow-origin"), "*");

    let answer = stream.request(Method::OPTIONS, &media_playlist("v"), &[]).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::NO_CONTENT, 0));
    assert_eq!(answer.header(ACCESS_CONTROL_ALLOW_METHODS), "GET, HEAD, OPTIONS");
    assert_eq!(answer.header(ACCESS_CONTROL_ALLOW_HEADERS), "*");
    assert_eq!(answer.header(ACCESS_CONTROL_MAX_AGE), "86400");
}

#[tokio::test]
async fn other_methods_are_refused() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::TRACE] {
        let answer = stream.request(method, "index.m3u8", &[]).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.header(ALLOW), "GET, HEAD, OPTIONS");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    for path in ["index.m3u8".into(), media_playlist("v"), file("v", "1.0.m4s"), file("v", "9.m4s")] {
        let get = stream.get(&path).await;
        // A range means nothing to HEAD.
        let head = stream.request(Method::HEAD, &path, &[(RANGE, "bytes=0-1")]).await;
        assert_eq!((head.status, head.headers, head.body.len()), (get.status, get.headers, 0), "{path}");
    }
}

#[tokio::test]
async fn h6_media_playlists_are_compressed_for_those_who_accept_it() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let delta = format!("{}?_HLS_skip=YES", media_playlist("v"));
    for path in [media_playlist("v"), delta] {
        let plain = stream.get(&path).await;
        let gzip = stream.request(Method::GET, &path, &[(ACCEPT_ENCODING, "gzip, deflate, br, zstd")]).await;
        assert_eq!((plain.header(CONTENT_ENCODING), gzip.header(CONTENT_ENCODING)), ("", "gzip"));
        assert_eq!((plain.header(VARY), gzip.header(VARY)), ("Accept-Encoding", "Accept-Encoding"));
        assert_ne!(plain.header(ETAG), gzip.header(ETAG), "a strong ETag names one encoding");
        assert_eq!(gzip.header(CONTENT_TYPE), "application/vnd.apple.mpegurl");
        assert_eq!(gzip.header(CONTENT_LENGTH), gzip.body.len().to_string());
        let mut text = String::new();
        GzDecoder::new(&gzip.body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, plain.text());
    }
    let refused =
        stream.request(Method::GET, &media_playlist("v"), &[(ACCEPT_ENCODING, "br, gzip;q=0")]).await;
    assert_eq!(refused.header(CONTENT_ENCODING), "");
    // Chromium's own HLS accepts gzip and asks for a range; its cache would answer the next one with a compressed 206.
    let headers = [(ACCEPT_ENCODING, "gzip, deflate, br"), (RANGE, "bytes=0-")];
    let native = stream.request(Method::GET, &media_playlist("v"), &headers).await;
    assert_eq!((native.status, native.header(CONTENT_ENCODING)), (StatusCode::OK, ""));
}

/// Chromium's native player cannot play what its cache holds compressed and revalidates.
#[tokio::test]
async fn h6_the_multivariant_playlist_is_never_compressed() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    for path in ["index.m3u8", "index.m3u8?only=audio"] {
        let answer =
            stream.request(Method::GET, path, &[(ACCEPT_ENCODING, "gzip, identity;q=1, *;q=0")]).await;
        assert_eq!((answer.header(CONTENT_ENCODING), answer.header(VARY)), ("", ""), "{path}");
        assert!(answer.text().starts_with("#EXTM3U\n"), "{path}");
    }
}

#[tokio::test]
async fn h10_a_copy_is_revalidated_and_stale_after_the_next_part() {
    let mut stream = Stream::live();
    stream.push_through(3, 1);
    let playlist = stream.get(&media_playlist("v")).await;
    assert_eq!(playlist.header(ETAG), "\"00000000000000ab.v.3.1.1.live.full.identity.4\"");
    let known = &[(IF_NONE_MATCH, "\"00000000000000ab.v.3.1.1.live.full.identity.4\"")];
    let same = stream.request(Method::GET, &media_playlist("v"), known).await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(same.header(ETAG), playlist.header(ETAG));
    stream.push_both(3, 2);
    assert_eq!(stream.request(Method::GET, &media_playlist("v"), known).await.status, StatusCode::OK);

    let known = &[(IF_NONE_MATCH, "\"00000000000000ab.v.3.1.1.4\"")];
    let same = stream.request(Method::GET, &file("v", "3.1.m4s"), known).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn the_last_playlist_differs_from_the_one_before_it() {
    let mut stream = Stream::live();
    stream.push_through(3, 3);
    let live = stream.get(&media_playlist("v")).await;
    stream.end();
    let ended = stream.get(&media_playlist("v")).await;
    assert_ne!(live.header(ETAG), ended.header(ETAG));
}

/// No sticky sessions: a viewer may ask another node next time. It may have joined late, and hold other
/// renditions further or less far.
#[tokio::test]
async fn h10_every_node_serves_the_same_bytes_under_the_same_tag() {
    let mut origin = Stream::live();
    origin.push_through(30, 2);
    let mut edge = Stream::live();
    let oldest_listed = 16;
    for msn in oldest_listed..=30 {
        (0..=if msn == 30 { 2 } else { 3 }).for_each(|number| edge.push("v", part(msn, number)));
    }
    (0..=3).for_each(|number| edge.push("a", part(oldest_listed, number)));

    let delta = format!("{}?_HLS_skip=YES", media_playlist("v"));
    let filtered = "index.m3u8?only=audio";
    for path in
        [&media_playlist("v"), &delta, &file("v", "30.2.m4s"), &file("v", "29.m4s"), "index.m3u8", filtered]
    {
        for encoding in ["gzip", "identity"] {
            let headers = &[(ACCEPT_ENCODING, encoding)];
            let (origin, edge) = (origin.viewer(), edge.viewer());
            let answers = [
                origin.request(Method::GET, path, headers).await,
                edge.request(Method::GET, path, headers).await,
            ];
            assert_eq!(answers[0].status, StatusCode::OK, "{path}");
            assert_eq!(answers[0].headers, answers[1].headers, "{path}");
            assert_eq!(answers[0].body, answers[1].body, "{path}");
        }
    }
}

#[tokio::test]
async fn native_players_may_ask_for_a_range() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    let path = file("v", "1.m4s");
    let whole = stream.get(&path).await;
    let range = stream.request(Method::GET, &path, &[(RANGE, "bytes=5-30")]).await;
    assert_eq!(range.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(range.header(CONTENT_RANGE), format!("bytes 5-30/{}", whole.body.len()));
    assert_eq!(range.header(CONTENT_LENGTH), "26");
    assert_eq!(range.body, whole.body.slice(5..31));

    let beyond = stream.request(Method::GET, &path, &[(RANGE, "bytes=5000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header(CONTENT_RANGE), format!("bytes */{}", whole.body.len()));
}

#[tokio::test]
async fn p15_lost_media_is_listed_as_a_gap_and_not_found() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    for number in 0..=3 {
        stream.push("v", Part { gap: true, independent: false, body: Vec::new(), ..part(1, number) });
    }
    let playlist = stream.playlist("v").await;
    assert!(playlist.contains("#EXT-X-PART:DURATION=0.500000,URI=\"1.0.m4s\",GAP=YES\n"), "{playlist}");
    assert!(playlist.contains("#EXT-X-GAP\n#EXTINF:2.000000,\n1.m4s\n"), "{playlist}");
    for name in ["1.0.m4s", "1.m4s"] {
        assert_eq!(stream.get(&file("v", name)).await.status, StatusCode::NOT_FOUND, "{name}");
    }
}

/// hyper must take our lengths as they are, for bodies in several slices, none, and those a HEAD leaves out.
#[tokio::test]
async fn lengths_survive_a_real_connection() {
    let mut stream = Stream::live();
    stream.push_through(1, 3);
    let (client, server) = tokio::io::duplex(1 << 16);
    tokio::spawn(serve(stream.catalog.clone(), server));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);

    let path = |file: &str| format!("/hls/live/cam1/{SESSION}/v/{file}");
    let cases = [
        (Method::GET, path("1.m4s"), 200, "84", 84),
        (Method::HEAD, path("1.m4s"), 200, "84", 0),
        (Method::HEAD, path("99.m4s"), 404, "10", 0),
        (Method::OPTIONS, path("1.m4s"), 204, "", 0),
        (Method::GET, path("1.0.m4s"), 200, "21", 21),
    ];
    for (method, path, status, length, bytes) in cases {
        let request =
            http::Request::builder().method(&method).uri(&path).body(Empty::<bytes::Bytes>::new()).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let told = head.headers.get(CONTENT_LENGTH).map_or("", |length| length.to_str().unwrap());
        assert_eq!((head.status.as_u16(), told, body.len()), (status, length, bytes), "{method} {path}");
    }
}

#[tokio::test]
async fn an_operator_sees_requests_by_kind_and_status() {
    let mut registry = Registry::default();
    let catalog = hls::Catalog::new(Metrics::register(&mut registry));
    let mut stream = Stream::on(catalog, header(vec![video(), audio()]));
    stream.writer().announce(announcement());
    stream.push_through(0, 3);
    stream.push("v", Part { duration: 45_091, ..part(1, 0) });
    stream.get("index.m3u8").await;
    stream.get(&file("v", "0.0.m4s")).await;
    stream.get(&file("v", "7.0.m4s")).await;

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let expected = [
        "hls_requests_total{kind=\"multivariant\",status=\"2xx\"} 1",
        "hls_requests_total{kind=\"part\",status=\"2xx\"} 1",
        "hls_requests_total{kind=\"part\",status=\"4xx\"} 1",
        "hls_parts_published_total 9",
        "hls_parts_over_target_total 1",
        "hls_held_requests 0",
    ];
    for line in expected {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(text.contains("hls_sent_bytes_total"), "{text}");
}

proptest::proptest! {
    /// Threat: bytes of a stranger, in any place a request has for them.
    #[test]
    fn no_request_panics(
        path in "(/hls/live/cam1/)?(00000000000000ab/v/)?([0-9.]{0,24}(\\.m4s)?|index\\.m3u8|\\PC{0,20})",
        query in "((_HLS_(msn|part|skip)|max|only)=([0-9]{0,21}|YES|audio|video)&?){0,3}|\\PC{0,20}",
        value in "[ -~]{0,30}|bytes=[0-9]{0,21}-[0-9]{0,21}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut stream = Stream::live();
            stream.push_through(1, 1);
            let headers = [RANGE, ACCEPT_ENCODING, IF_NONE_MATCH].map(|name| (name, value.parse().unwrap()));
            let headers = HeaderMap::from_iter(headers);
            let head = Head::new(&Method::GET, &path, Some(&query), &headers);
            let response = hls::http::respond(&stream.catalog, Ipv4Addr::LOCALHOST.into(), &head).await;
            assert!(response.status() != StatusCode::INTERNAL_SERVER_ERROR);
        });
    }
}

#[test]
fn a_rendition_name_is_safe_in_a_url() {
    for bad in ["", "V", "a/b", "..", "v-1", "abcdefghijklmnopq", "é"] {
        assert!(bad.parse::<hls::RenditionName>().is_err(), "{bad:?}");
    }
    assert_eq!(name("v720").to_string(), "v720");
}
