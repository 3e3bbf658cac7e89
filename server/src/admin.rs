//! The admin listener: is the process alive, does it take work, what does it count.
//!
//! Reachable from this machine only ([`LoopbackAddr`]) until it has authentication. It is bound last and answers
//! only once every other port is bound, so "ready" needs no flag of its own; it stops last too, so that whoever
//! asks during a drain hears that it is one.
//!
//! `/` is a page for people, which no other listener has.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use net::Options;
use player_demo::Page;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::api::{Api, OrderError};
use crate::config::LoopbackAddr;
use crate::events::{Asked, EventsError};
use crate::listen::Handed;
use crate::settings::ChangeError;

/// What the listening socket must be: few connections, which are short.
const SOCKET: Options = Options { backlog: 128, unsent_bytes_max: None };
/// Connections open at once. A few scrapers and probes are honest; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 32;
/// From accept to the last byte. One connection carries one request, so this bounds slow headers, slow readers
/// and idle connections alike. Shorter than the drain's grace, which a silent client must not use up.
pub(crate) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);
/// Pages that follow the events at once; each keeps a connection. They leave most places to scrapers and probes.
const FOLLOWERS_MAX: usize = 8;
const _: () = assert!(FOLLOWERS_MAX * 2 <= CONNECTIONS_MAX);
/// One that follows is closed after so long, and a browser comes again by itself: a reader that stands still keeps no
/// place for ever.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(600);
/// Without an event something is sent all the same: a connection whose other end is gone breaks.
const FOLLOW_SILENCE_MAX: Duration = Duration::from_secs(15);
/// Nodes or streams look otherwise: the page asks what they are.
const CHANGED: &str = "event: changed\ndata: {}\n\n";
/// After a failed accept (usually: no file descriptors left), so that the loop does not spin until one is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of an order's body, the longest of which is a list of streams.
const ORDER_BYTES_MAX: usize = 8 * 1024;
/// OpenMetrics 1.0, "Protocol negotiation".
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const EVENTS_TYPE: HeaderValue = HeaderValue::from_static("text/event-stream");
const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");

type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(crate) struct Admin {
    listener: TcpListener,
    local_addr: SocketAddr,
    metrics: Registry,
    api: Api,
}

impl Admin {
    /// # Errors
    /// If the address cannot be listened on, or the socket that is `handed` over can be reached from elsewhere.
    pub(crate) fn bind(
        addr: LoopbackAddr,
        handed: &mut Handed,
        metrics: Registry,
        api: Api,
    ) -> anyhow::Result<Self> {
        let listener = handed.listen("admin", addr.get(), SOCKET)?;
        let local_addr = listener.local_addr()?;
        ensure!(
            local_addr.ip().to_canonical().is_loopback(),
            "the socket \"admin\" that is handed over listens on {local_addr}; it has no authentication, so only \
             loopback addresses are allowed"
        );
        Ok(Self { listener, local_addr, metrics, api })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `stop`, then finishes the connections that were accepted; who follows the events is let go. Not ready once `drain` began.
    pub(crate) async fn run(self, drain: CancellationToken, stop: CancellationToken) {
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        let answers = Arc::new(Answers { drain, metrics: self.metrics, api: self.api, followers });
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let accept = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accept => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((socket, _)) => {
                    let connection = serve(socket, Arc::clone(&answers), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "admin: cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }
}

async fn serve(socket: TcpStream, answers: Arc<Answers>, stop: CancellationToken) {
    let follows = CancellationToken::new();
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (answers, follows) = (answers.clone(), &follows);
        async move {
            Ok::<_, Infallible>(match whole(request).await {
                Ok(request) => answers.to(&request, follows).await,
                Err(refusal) => refusal,
            })
        }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        done = connection => if let Err(error) = done {
            debug!(%error, "admin: connection broken");
        },
        why = patience(&follows, &stop) => debug!("admin: connection closed: {why}"),
    }
}

/// With the body of an order; a question's is left unread.
async fn whole(request: Request<hyper::body::Incoming>) -> Result<Request<Bytes>, Response<Body>> {
    let (head, body) = request.into_parts();
    let body = if head.method == Method::PUT {
        let read = Limited::new(body, ORDER_BYTES_MAX).collect().await;
        read.map_err(|why| error(StatusCode::BAD_REQUEST, &format!("an order that cannot be read: {why}")))?
            .to_bytes()
    } else {
        Bytes::new()
    };
    Ok(Request::from_parts(head, body))
}

/// How long a connection may last, and why not longer.
async fn patience(follows: &CancellationToken, stop: &CancellationToken) -> &'static str {
    tokio::select! {
        () = follows.cancelled() => tokio::select! {
            () = stop.cancelled() => "this process ends",
            () = tokio::time::sleep(FOLLOW_TIME_MAX) => "it has followed for long enough",
        },
        () = tokio::time::sleep(CONNECTION_TIME_MAX) => "too slow",
    }
}

struct Answers {
    drain: CancellationToken,
    metrics: Registry,
    api: Api,
    followers: Arc<Semaphore>,
}

impl Answers {
    /// `follows` is cancelled if the answer goes on for as long as it is read.
    async fn to(&self, request: &Request<Bytes>, follows: &CancellationToken) -> Response<Body> {
        if !names_this_machine(request) {
            return error(
                StatusCode::MISDIRECTED_REQUEST,
                "this address is for programs of this machine only",
            );
        }
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return self.order(request, path).await;
        }
        if path == "/api/v1/events" && wants_events(request) {
            return self.follow(request, follows).await;
        }
        if path == "/api/v1/events" {
            return match self.events(query).await {
                Ok(told) => json(StatusCode::OK, &told),
                Err(why) => error(why.status(), &why.to_string()),
            };
        }
        if let Some(question) = path.strip_prefix("/api/v1")
            && let Some(told) = self.api.answer(question).await
        {
            return json(StatusCode::OK, &told);
        }
        match path {
            "/healthz" => json(StatusCode::OK, &serde_json::json!({ "alive": true })),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            "/" => page(),
            _ => match player_demo::operator_asset(path) {
                Some(asset) => {
                    answer(StatusCode::OK, HeaderValue::from_static(asset.content_type), asset.bytes)
                }
                None => error(
                    StatusCode::NOT_FOUND,
                    "there are /healthz, /readyz, /metrics, /api/v1/nodes, streams and events, and a page at /",
                ),
            },
        }
    }

    /// What a program of this machine orders. Of a page's own making no browser sends such a request to another site without
    /// asking that first (Fetch, section 3.2), and here it gets no consent.
    async fn order(&self, request: &Request<Bytes>, path: &str) -> Response<Body> {
        if is_of_another_site(request) {
            return error(StatusCode::FORBIDDEN, "orders are for programs of this machine only");
        }
        let ordered = match path.strip_prefix("/api/v1") {
            Some(order) => self.api.order(request.method(), order, request.body()).await,
            None => None,
        };
        match ordered {
            Some(Ok(told)) => json(StatusCode::OK, &told),
            Some(Err(why @ OrderError::Body(_))) => error(StatusCode::BAD_REQUEST, &why.to_string()),
            Some(Err(why @ OrderError::Needed(_))) => error(StatusCode::CONFLICT, &why.to_string()),
            Some(Err(OrderError::Setting(why))) => {
                let status = match &why {
                    ChangeError::NotShared { .. } => StatusCode::NOT_FOUND,
                    ChangeError::Value(_) => StatusCode::BAD_REQUEST,
                    ChangeError::TooLong | ChangeError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
                    ChangeError::Alone | ChangeError::Unknown | ChangeError::Contested => {
                        StatusCode::CONFLICT
                    }
                };
                error(status, &why.to_string())
            }
            Some(Err(OrderError::Events(why))) => error(why.status(), &why.to_string()),
            Some(Err(why @ OrderError::Store(_))) => error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string()),
            None => {
                let words = "only GET and HEAD are answered here, and PUT and DELETE at /api/v1/nodes/{node}/drain, \
                             /api/v1/streams/{app}/{stream}/expected-viewers and /api/v1/settings/{key}, and PUT at \
                             /api/v1/events/readers/{name}";
                let mut refusal = error(StatusCode::METHOD_NOT_ALLOWED, words);
                refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                refusal
            }
        }
    }

    /// The events as they happen (HTML, section 9.2 "Server-sent events"). `Last-Event-ID` says what a browser that comes
    /// again has, `after=N` what a page has; a reader's place is not moved by what it is sent.
    async fn follow<B>(&self, request: &Request<B>, follows: &CancellationToken) -> Response<Body> {
        if is_of_another_site(request) {
            return error(StatusCode::FORBIDDEN, "events are for the page of this address only");
        }
        let Ok(place) = Arc::clone(&self.followers).try_acquire_owned() else {
            return error(StatusCode::SERVICE_UNAVAILABLE, "as many follow the events already as may");
        };
        let seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
        let asked =
            Asked::parse(request.uri().query().unwrap_or_default()).map(|asked| asked.with_seen(seen));
        let following = async { self.api.events().follow(&asked?).await };
        let events = match following.await {
            Ok(events) => events,
            Err(why) => return error(why.status(), &why.to_string()),
        };
        let following = (events, self.api.changes(), place);
        let frames = futures_util::stream::unfold(following, |(mut events, mut changes, place)| async {
            let next = async {
                tokio::select! {
                    logged = events.next() => Some(logged),
                    () = changes.next() => None,
                }
            };
            let text = match tokio::time::timeout(FOLLOW_SILENCE_MAX, next).await {
                Ok(None) => CHANGED.to_owned(),
                Ok(Some(logged)) => {
                    let logged = logged?;
                    let data = serde_json::to_string(&logged).ok()?;
                    format!("id: {}\ndata: {data}\n\n", logged.sequence.0)
                }
                Err(_) => ":\n\n".to_owned(),
            };
            Some((Ok(Frame::data(Bytes::from(text))), (events, changes, place)))
        });
        // A line at once: without a byte of the body a browser does not know that it is connected.
        let hello = futures_util::stream::once(async { Ok(Frame::data(Bytes::from_static(b":\n\n"))) });
        follows.cancel();
        with_headers(StreamBody::new(hello.chain(frames)).boxed_unsync(), EVENTS_TYPE)
    }

    async fn events(&self, query: &str) -> Result<serde_json::Value, EventsError> {
        self.api.events().answer(&Asked::parse(query)?).await
    }

    fn readiness(&self) -> Response<Body> {
        let standing = self.api.standing();
        let why = if self.drain.is_cancelled() {
            Some("draining: what is open is finished, nothing new is taken".to_owned())
        } else if standing.leaves_within.is_some() {
            Some(format!("this node {}", standing.ending()))
        } else if standing.drained {
            Some("drained by `tidecast nodes drain`: nothing new is taken until that is undone".to_owned())
        } else {
            self.api.unfit_store().map(|why| format!("the cluster's store has to be mended: {why}"))
        };
        if let Some(why) = why {
            return json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "ready": false, "why": why }));
        }
        json(StatusCode::OK, &serde_json::json!({ "ready": true }))
    }

    fn metrics(&self) -> Response<Body> {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.metrics) {
            Ok(()) => answer(StatusCode::OK, METRICS_TYPE, text),
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "a metric cannot be written"),
        }
    }
}

/// A web page can send its visitor's browser here under a name of its own that it resolves to 127.0.0.1 (DNS
/// rebinding), and then read the answer. Such a request carries that name in `Host`.
fn names_this_machine<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else {
        // HTTP/1.0 by hand; browsers always send one.
        return true;
    };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok())
    else {
        return false;
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn wants_events<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accepted.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// A page of another site cannot read what it makes its visitor's browser ask here, but it would hold places (Fetch
/// Metadata, section 2.3). Programs say nothing of a site.
fn is_of_another_site<B>(request: &Request<B>) -> bool {
    let site = request.headers().get("sec-fetch-site");
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

fn page() -> Response<Body> {
    let page = player_demo::page(Page::Operator);
    let mut response = answer(StatusCode::OK, HeaderValue::from_static(page.content_type), page.bytes);
    let policy = HeaderValue::from_static(player_demo::content_security_policy(Page::Operator));
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn error(status: StatusCode, why: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "error": why }))
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    answer(status, JSON_TYPE, format!("{body}\n"))
}

fn answer(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_headers(Full::new(body.into()).boxed_unsync(), content_type);
    *response.status_mut() = status;
    response
}

fn with_headers(body: Body, content_type: HeaderValue) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::authority::ClusterFiles;
    use crate::membership::Membership;

    fn membership() -> Membership {
        let holder = cluster::Holder { node: "a".parse().unwrap(), boot: cluster::Boot(1) };
        Membership::of(holder, Arc::new(cluster::Memory::default()))
    }

    fn api() -> Api {
        Api::new(&membership(), ClusterFiles::new("/nowhere".into()))
    }

    fn answers() -> Answers {
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        Answers {
            drain: CancellationToken::new(),
            metrics: crate::metrics::registry(),
            api: api(),
            followers,
        }
    }

    async fn answer_to(answers: &Answers, request: &Request<()>) -> Response<Body> {
        answers.to(&request.clone().map(|()| Bytes::new()), &CancellationToken::new()).await
    }

    async fn text_of(answer: Response<Body>) -> String {
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn get(path: &str) -> Request<()> {
        Request::builder().uri(path).header(header::HOST, "127.0.0.1:9090").body(()).unwrap()
    }

    #[tokio::test]
    async fn an_audience_that_makes_no_sense_is_refused_in_words() {
        let answers = answers();
        let path = "/api/v1/streams/live/cam/expected-viewers";
        let expect = async |body: &'static str| {
            let request = Request::put(path).header(header::HOST, "127.0.0.1:9090");
            let request = request.body(Bytes::from_static(body.as_bytes())).unwrap();
            let answer = answers.to(&request, &CancellationToken::new()).await;
            (answer.status(), text_of(answer).await)
        };
        for body in
            ["", "5", "{\"viewers\":0}", "{\"viewers\":5,\"at\":\"soon\"}", "{\"viewers\":5,\"when\":1}"]
        {
            let (status, words) = expect(body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
            assert!(words.contains("NUMBER from 1 on"), "{body}: {words}");
        }
        let (status, words) = expect("{\"viewers\":5,\"at\":\"2026-12-24T18:00:00Z\"}").await;
        assert_eq!(status, StatusCode::OK, "{words}");
        assert!(words.contains("\"at_ms\":1798135200000"), "{words}");
    }

    /// Threat: a page of another site, in a browser of this machine, drains nodes.
    #[tokio::test]
    async fn orders_are_taken_from_programs_and_not_from_pages_of_other_sites() {
        let answers = answers();
        let order = |method: Method, path: &str| {
            Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1:9090")
        };
        let drain = "/api/v1/nodes/edge1/drain";
        let foreign = order(Method::PUT, drain).header("sec-fetch-site", "cross-site").body(()).unwrap();
        assert_eq!(answer_to(&answers, &foreign).await.status(), StatusCode::FORBIDDEN);
        assert!(!answers.api.fleet().orders().is_drained(&"edge1".parse().unwrap()).await.unwrap());

        let ours = order(Method::PUT, drain).body(()).unwrap();
        assert_eq!(answer_to(&answers, &ours).await.status(), StatusCode::OK);
        assert!(answers.api.fleet().orders().is_drained(&"edge1".parse().unwrap()).await.unwrap());
        let undone = order(Method::DELETE, drain).body(()).unwrap();
        assert_eq!(answer_to(&answers, &undone).await.status(), StatusCode::OK);
        assert!(!answers.api.fleet().orders().is_drained(&"edge1".parse().unwrap()).await.unwrap());

        for (method, path) in [
            (Method::POST, drain),
            (Method::PUT, "/api/v1/nodes/Edge_1/drain"),
            (Method::PUT, "/api/v1/nodes"),
            (Method::PUT, "/api/v1/events/readers/a.b"),
            (Method::PUT, "/api/v1/events/readers/"),
            (Method::DELETE, "/healthz"),
        ] {
            let other = order(method, path).body(()).unwrap();
            assert_eq!(answer_to(&answers, &other).await.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }

    #[tokio::test]
    async fn a_reader_asks_and_acknowledges_by_its_name() {
        let answers = answers();
        answers.api.events().journal().tell(cluster::Kind::NodeLost, "b".to_owned(), String::new()).await;
        let acknowledge = async |body: &'static str| {
            let request = Request::put("/api/v1/events/readers/mail").header(header::HOST, "127.0.0.1:9090");
            let request = request.body(Bytes::from_static(body.as_bytes())).unwrap();
            answers.to(&request, &CancellationToken::new()).await.status()
        };
        let asked = text_of(answer_to(&answers, &get("/api/v1/events?as=mail")).await).await;
        assert!(asked.contains(r#""from":0"#) && asked.contains(r#""sequence":1"#), "{asked}");
        assert_eq!(acknowledge(r#"{"from":0,"to":1,"by":"a"}"#).await, StatusCode::OK);
        assert_eq!(acknowledge(r#"{"from":0,"to":1,"by":"b"}"#).await, StatusCode::CONFLICT);
        assert_eq!(acknowledge(r#"{"from":0}"#).await, StatusCode::BAD_REQUEST);
        let asked = text_of(answer_to(&answers, &get("/api/v1/events?as=mail&wait=false")).await).await;
        assert!(asked.contains(r#""events":[]"#) && asked.contains(r#""from":1"#), "{asked}");
        for query in ["as=a.b", "since=soon", "after=x"] {
            for mut request in [get(&format!("/api/v1/events?{query}")), follow()] {
                *request.uri_mut() = format!("/api/v1/events?{query}").parse().unwrap();
                assert_eq!(answer_to(&answers, &request).await.status(), StatusCode::BAD_REQUEST, "{query}");
            }
        }
    }

    #[tokio::test]
    async fn ready_ends_when_the_drain_begins_but_alive_does_not() {
        let answers = answers();
        assert_eq!(answer_to(&answers, &get("/readyz")).await.status(), StatusCode::OK);
        answers.drain.cancel();
        assert_eq!(answer_to(&answers, &get("/readyz")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer_to(&answers, &get("/healthz")).await.status(), StatusCode::OK);
    }

    /// Publishers are let in until viewers have had their time, unless an order keeps them out.
    #[tokio::test]
    async fn a_node_that_is_about_to_end_says_whom_it_takes_until_then() {
        let membership = membership();
        let api = Api::new(&membership, ClusterFiles::new("/nowhere".into()));
        let answers = Answers { api, ..answers() };
        for (drained, is_let_in) in [(false, true), (true, false)] {
            membership.standing.send_modify(|standing| {
                standing.leaves_within = Some(Duration::from_secs(15));
                standing.drained = drained;
            });
            let answer = answer_to(&answers, &get("/readyz")).await;
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            let told = text_of(answer).await;
            assert_eq!(told.contains("publishers are let in until then"), is_let_in, "{told}");
            assert_eq!(told.contains("nothing new"), !is_let_in, "{told}");
        }
    }

    #[tokio::test]
    async fn nothing_else_is_answered() {
        for path in [
            "/index.html",
            "/operator.html",
            "/assets/",
            "/metrics/",
            "/api/v1/",
            "/debug/pprof",
            "//healthz",
        ] {
            assert_eq!(answer_to(&answers(), &get(path)).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let mut post = get("/metrics");
        *post.method_mut() = Method::POST;
        assert_eq!(answer_to(&answers(), &post).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn a_web_page_cannot_read_the_metrics_through_a_name_of_its_own() {
        let host = async |host: &str| {
            let request = Request::builder().uri("/metrics").header(header::HOST, host).body(()).unwrap();
            answer_to(&answers(), &request).await.status()
        };
        for own in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "127.1.2.3", "[::1]:9090"] {
            assert_eq!(host(own).await, StatusCode::OK, "{own}");
        }
        for foreign in [
            "attacker.example",
            "localhost.attacker.example:9090",
            "192.0.2.1",
            "[2001:db8::1]",
            "",
            "\u{fc}",
        ] {
            assert_eq!(host(foreign).await, StatusCode::MISDIRECTED_REQUEST, "{foreign}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silent_clients_lose_their_place() {
        let admin =
            Admin::bind(LoopbackAddr::v4(0), &mut Handed::default(), crate::metrics::registry(), api())
                .unwrap();
        let addr = admin.local_addr();
        let stop = CancellationToken::new();
        let running = tokio::spawn(admin.run(CancellationToken::new(), stop.clone()));

        let started = tokio::time::Instant::now();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut socket = TcpStream::connect(addr).await.unwrap();
            socket.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
            silent.push(socket);
        }
        let mut patient = TcpStream::connect(addr).await.unwrap();
        patient.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        patient.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());

        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn the_page_comes_with_all_it_needs_and_a_policy_that_lets_in_nothing_else() {
        let answers = answers();
        let page = answer_to(&answers, &get("/")).await;
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        let html = page.into_body().collect().await.unwrap().to_bytes();
        let html = std::str::from_utf8(&html).unwrap();
        let assets: Vec<_> = html.split('"').filter(|text| text.starts_with("/assets/")).collect();
        assert!(assets.len() >= 3, "{assets:?}");
        for asset in assets {
            assert_eq!(answer_to(&answers, &get(asset)).await.status(), StatusCode::OK, "{asset}");
        }
    }

    fn follow() -> Request<()> {
        let mut request = get("/api/v1/events");
        request.headers_mut().insert(header::ACCEPT, EVENTS_TYPE);
        request
    }

    async fn next(body: &mut Body) -> String {
        let frame = body.frame().await.expect("it goes on").unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_told_as_they_happen_and_from_the_last_one_that_was_seen() {
        let answers = answers();
        let membership = answers.api.events().journal().clone();
        let tell = async |words: &str| {
            membership.tell(cluster::Kind::NodeLost, "b".to_owned(), words.to_owned()).await;
        };
        tell("one").await;
        tell("two").await;
        // The log of an earlier process was longer.
        for (seen, first) in [("1", "two"), ("70", "one"), ("nonsense", "one")] {
            let mut request = follow();
            request.headers_mut().insert("last-event-id", HeaderValue::from_static(seen));
            let mut body = answer_to(&answers, &request).await.into_body();
            assert_eq!(next(&mut body).await, ":\n\n");
            let event = next(&mut body).await;
            assert!(event.contains(&format!(r#""words":"{first}""#)), "{seen}: {event}");
        }
        let mut body = answer_to(&answers, &follow()).await.into_body();
        for _ in 0..3 {
            next(&mut body).await;
        }
        assert_eq!(next(&mut body).await, ":\n\n", "after a silence");
        tell("three").await;
        let event = next(&mut body).await;
        assert!(event.starts_with("id: 3\ndata: {") && event.contains(r#""words":"three""#), "{event}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_follows_is_told_to_ask_again_when_a_stream_is_there() {
        let answers = answers();
        let mut body = answer_to(&answers, &follow()).await.into_body();
        assert_eq!(next(&mut body).await, ":\n\n");
        let entry = cluster::StreamEntry {
            holder: answers.api.fleet().directory().holder().clone(),
            epoch: None,
            phase: cluster::StreamPhase::Live,
            session: None,
            since_ms: 0,
            unlisted: false,
        };
        let id = media::StreamId::new("live", "cam").unwrap();
        answers.api.fleet().claimed(&id, cluster::Epoch(1), entry);
        assert_eq!(next(&mut body).await, CHANGED);
        assert_eq!(next(&mut body).await, ":\n\n", "once");
        let told = answers.api.answer("/streams/live/cam/explain").await.unwrap();
        assert_eq!(told["words"], "live/cam is on a, which is not there");
        for path in
            ["/streams/live/explain", "/streams//explain", "/streams/live/cam", "/streams/live/../explain"]
        {
            assert!(answers.api.answer(path).await.is_none(), "{path}");
        }
    }

    #[tokio::test]
    async fn so_many_follow_at_once_and_no_page_of_another_site() {
        let answers = answers();
        let mut following = Vec::new();
        for _ in 0..FOLLOWERS_MAX {
            following.push(answer_to(&answers, &follow()).await);
        }
        assert_eq!(answer_to(&answers, &follow()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        following.pop();
        for (site, status) in [
            ("cross-site", StatusCode::FORBIDDEN),
            ("same-site", StatusCode::FORBIDDEN),
            ("same-origin", StatusCode::OK),
        ] {
            let mut request = follow();
            request.headers_mut().insert("sec-fetch-site", HeaderValue::from_static(site));
            assert_eq!(answer_to(&answers, &request).await.status(), status, "{site}");
        }
    }

    /// A drain that waited for them would not end.
    #[tokio::test(start_paused = true)]
    async fn who_follows_may_stay_beyond_the_time_of_an_answer_and_is_let_go_at_the_end() {
        let admin =
            Admin::bind(LoopbackAddr::v4(0), &mut Handed::default(), crate::metrics::registry(), api())
                .unwrap();
        let addr = admin.local_addr();
        let stop = CancellationToken::new();
        let running = tokio::spawn(admin.run(CancellationToken::new(), stop.clone()));
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let asked = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
        socket.write_all(asked).await.unwrap();
        let started = tokio::time::Instant::now();
        let mut told = Vec::new();
        // What is sent in silence: the hello, then one each FOLLOW_SILENCE_MAX.
        while told.windows(3).filter(|bytes| bytes == b":\n\n").count() < 3 {
            assert_ne!(socket.read_buf(&mut told).await.unwrap(), 0, "it was closed");
        }
        assert!(started.elapsed() >= 2 * FOLLOW_SILENCE_MAX, "{:?}", started.elapsed());
        let stopped = tokio::time::Instant::now();
        stop.cancel();
        running.await.unwrap();
        assert!(stopped.elapsed() < CONNECTION_TIME_MAX, "{:?}", stopped.elapsed());
    }
}
