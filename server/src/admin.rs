//! The admin listener: is the process alive, does it take work, what does it count.
//!
//! Reachable from this machine only ([`LoopbackAddr`]) until it has authentication. It is bound last and answers
//! only once every other port is bound, so "ready" needs no flag of its own; it stops last too, so that whoever
//! asks during a drain hears that it is one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use net::Options;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::api::Api;
use crate::config::LoopbackAddr;
use crate::listen::Handed;

/// What the listening socket must be: few connections, which are short.
const SOCKET: Options = Options { backlog: 128, unsent_bytes_max: None };
/// Connections open at once. A few scrapers and probes are honest; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 32;
/// From accept to the last byte. One connection carries one request, so this bounds slow headers, slow readers
/// and idle connections alike. Shorter than the drain's grace, which a silent client must not use up.
pub(crate) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);
/// After a failed accept (usually: no file descriptors left), so that the loop does not spin until one is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// OpenMetrics 1.0, "Protocol negotiation".
const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");

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

    /// Answers until `stop`, then finishes the connections that were accepted. Not ready once `drain` began.
    pub(crate) async fn run(self, drain: CancellationToken, stop: CancellationToken) {
        let answers = Arc::new(Answers { drain, metrics: self.metrics, api: self.api });
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
                    let connection = serve(socket, Arc::clone(&answers));
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

async fn serve(socket: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answers = answers.clone();
        async move { Ok::<_, std::convert::Infallible>(answers.to(&request).await) }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(socket), service);
    match tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin: connection broken"),
        Err(_) => debug!("admin: connection too slow, closed"),
    }
}

struct Answers {
    drain: CancellationToken,
    metrics: Registry,
    api: Api,
}

impl Answers {
    async fn to<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !names_this_machine(request) {
            return error(
                StatusCode::MISDIRECTED_REQUEST,
                "this address is for programs of this machine only",
            );
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refusal = error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if let Some(question) = path.strip_prefix("/api/v1")
            && let Some(told) = self.api.answer(question, query).await
        {
            return json(StatusCode::OK, &told);
        }
        match path {
            "/healthz" => json(StatusCode::OK, &serde_json::json!({ "alive": true })),
            "/readyz" => self.readiness(),
            "/metrics" => self.metrics(),
            _ => error(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz, /metrics, and /api/v1/nodes, streams and events",
            ),
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        if self.drain.is_cancelled() {
            let why = "draining: what is open is finished, nothing new is taken";
            return json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "ready": false, "why": why }));
        }
        json(StatusCode::OK, &serde_json::json!({ "ready": true }))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
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

fn error(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": why }))
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    answer(status, JSON_TYPE, format!("{body}\n"))
}

fn answer(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::membership::Membership;

    fn api() -> Api {
        let holder = cluster::Holder { node: "a".parse().unwrap(), boot: cluster::Boot(1) };
        Api::new(&Membership::of(holder, Arc::new(cluster::Memory::default())))
    }

    fn answers() -> Answers {
        Answers { drain: CancellationToken::new(), metrics: crate::metrics::registry(), api: api() }
    }

    fn get(path: &str) -> Request<()> {
        Request::builder().uri(path).header(header::HOST, "127.0.0.1:9090").body(()).unwrap()
    }

    #[tokio::test]
    async fn ready_ends_when_the_drain_begins_but_alive_does_not() {
        let answers = answers();
        assert_eq!(answers.to(&get("/readyz")).await.status(), StatusCode::OK);
        answers.drain.cancel();
        assert_eq!(answers.to(&get("/readyz")).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answers.to(&get("/healthz")).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn nothing_else_is_answered() {
        for path in ["/", "/metrics/", "/api/v1/", "/debug/pprof", "//healthz"] {
            assert_eq!(answers().to(&get(path)).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
        let mut post = get("/metrics");
        *post.method_mut() = Method::POST;
        assert_eq!(answers().to(&post).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn a_web_page_cannot_read_the_metrics_through_a_name_of_its_own() {
        let host = async |host: &str| {
            let request = Request::builder().uri("/metrics").header(header::HOST, host).body(()).unwrap();
            answers().to(&request).await.status()
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
}
