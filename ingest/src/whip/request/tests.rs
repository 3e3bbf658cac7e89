use http::header::{
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW,
    CONTENT_LENGTH,
};

use super::super::offer::tests::CHROMIUM;
use super::*;

const SESSION: &str = "/whip/live/cam/0123456789abcdef0123456789abcdef";

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Action {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Action::of(&request.body(Bytes::copy_from_slice(body.as_bytes())).unwrap(), |_| true)
}

fn answer(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, String) {
    match request(method, path, headers, body) {
        Action::Answer(response) => {
            let (head, body) = response.into_parts();
            (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
        }
        _ => panic!("{path} was let through"),
    }
}

const SDP_HEAD: (&str, &str) = ("content-type", "application/sdp; charset=utf-8");
const FRAGMENT_HEAD: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");
const KEY: (&str, &str) = ("authorization", "bearer  the-key");

#[test]
fn an_offer_is_a_wish_to_publish() {
    let Action::Publish { id, key, offer } =
        request(Method::POST, "/whip/live/cam", &[SDP_HEAD, KEY], CHROMIUM)
    else {
        panic!("refused")
    };
    assert_eq!((id.to_string().as_str(), key.expose()), ("live/cam", "the-key"));
    assert!(offer.video.is_some());
    for none in [("x", "y"), ("authorization", "Basic dGhlOmtleQ=="), ("authorization", "Bearer")] {
        let Action::Publish { key, .. } =
            request(Method::POST, "/whip/live/cam", &[SDP_HEAD, none], CHROMIUM)
        else {
            panic!("refused")
        };
        assert_eq!(key.expose(), "", "{none:?}");
    }
}

#[test]
fn patches_and_deletes_go_to_their_session() {
    let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    let patch = |more: &[(&str, &str)]| {
        let headers = [&[FRAGMENT_HEAD, KEY], more].concat();
        match request(Method::PATCH, SESSION, &headers, fragment) {
            Action::Patch { session, condition, .. } => (session, condition),
            _ => panic!("refused"),
        }
    };
    assert_eq!(patch(&[]), ("0123456789abcdef0123456789abcdef".to_owned(), Condition::Missing));
    assert_eq!(patch(&[("if-match", "*")]).1, Condition::Any);
    let tags = patch(&[("if-match", "\"a\", \"ice-1\"")]).1;
    assert!(tags.holds("\"ice-1\"") && !tags.holds("\"ice-2\""));
    assert!(matches!(request(Method::DELETE, SESSION, &[KEY], ""), Action::End { .. }));
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let long = "x".repeat(OFFER_BYTES_MAX + 1);
    let fragment = "x".repeat(FRAGMENT_BYTES_MAX + 1);
    let sdp = [SDP_HEAD];
    let endpoint = "/whip/live/cam";
    for (method, path, headers, body, status) in [
        (Method::POST, endpoint, &[][..], CHROMIUM, 415),
        (Method::POST, endpoint, &[FRAGMENT_HEAD], CHROMIUM, 415),
        (Method::POST, endpoint, &sdp, "", 400),
        (Method::POST, endpoint, &sdp, "\0garbage", 400),
        (Method::POST, endpoint, &sdp, &CHROMIUM.replace("a=sendonly", "a=inactive"), 422),
        (Method::POST, endpoint, &sdp, &long, 413),
        (Method::GET, endpoint, &[], "", 405),
        (Method::PUT, endpoint, &sdp, CHROMIUM, 405),
        (Method::DELETE, endpoint, &[], "", 405),
        (Method::POST, SESSION, &sdp, CHROMIUM, 405),
        (Method::PATCH, SESSION, &sdp, CHROMIUM, 415),
        (Method::PATCH, SESSION, &[FRAGMENT_HEAD], "v=0\r\n", 400),
        (Method::PATCH, SESSION, &[FRAGMENT_HEAD], &fragment, 413),
        (Method::POST, "/whip/live", &sdp, CHROMIUM, 404),
        (Method::POST, "/whip/live/..", &sdp, CHROMIUM, 404),
        (Method::POST, "/whip/live/a%2fb", &sdp, CHROMIUM, 404),
        (Method::DELETE, "/whip/live/cam/short", &[], "", 404),
        (Method::DELETE, "/whip/live/cam/0123456789abcdef0123456789abcdeX", &[], "", 404),
    ] {
        let (answered, headers, words) = answer(method.clone(), path, headers, body);
        assert_eq!(answered.as_u16(), status, "{method} {path}: {words}");
        assert!(words.len() > 10 && words.ends_with('\n'), "{method} {path}: {words}");
        assert_eq!(headers.contains_key(ALLOW), status == 405);
    }
}

/// Threat 20: nothing is ever sent with credentials, and no origin is said back.
#[test]
fn pages_of_other_sites_may_publish_with_a_key() {
    for (path, methods, accepts) in [
        ("/whip/live/cam", "OPTIONS, POST", "accept-post"),
        (SESSION, "OPTIONS, PATCH, DELETE", "accept-patch"),
    ] {
        for origin in ["https://studio.example", "null", "https://studio.example.evil"] {
            let (status, headers, _) = answer(Method::OPTIONS, path, &[("origin", origin)], "");
            assert_eq!(status, StatusCode::NO_CONTENT);
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], methods);
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
            assert!(headers.contains_key(accepts) && !headers.contains_key(CONTENT_LENGTH));
            assert!(!headers.contains_key("access-control-allow-credentials"));
        }
    }
    let created = rtc::signalling::created(
        "/whip/live/cam/x",
        "\"ice-1\"",
        vec![HeaderValue::from_static("<stun:s>; rel=\"ice-server\"")],
        String::new(),
    );
    let exposed = created.headers()[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().to_owned();
    for header in ["Location", "ETag", "Link"] {
        assert!(exposed.contains(header) && created.headers().contains_key(header), "{header}");
    }
}

#[test]
fn a_wrong_key_is_challenged() {
    for (fault, error) in [(KeyFault::Missing, false), (KeyFault::Wrong, true), (KeyFault::InName, true)] {
        let response = turned_away(&Refusal::WrongKey(fault));
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.starts_with("Bearer realm="), "{challenge}");
        assert_eq!(challenge.contains("invalid_token"), error);
    }
}
