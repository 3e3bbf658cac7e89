//! What a viewer's URL leads to.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hls::Catalog;
use hls::http::{Head, accepts_gzip, is_known};
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use media::{NameError, StreamId};
use player_demo::{Asset, Page};
use relay::StreamRegistry;
use serde::Serialize;

use crate::admission::{Admission, Answer, Takes, judge};
use crate::alternates::{Alternates, widened};
use crate::audience::Audience;
use crate::connect::{self, Backstage};
use crate::endpoint::Endpoint;
use crate::listener::Respond;
use crate::neighbours::{self, Neighbours};
use crate::prefer::Transport;
use crate::pull::{JoinError, Others, Puller, others};
use crate::state::PublishPorts;
use crate::steering::Manifest;
use crate::trust::Trust;
use crate::unlisted::Unlisted;
use crate::{redirect, remote, state};

pub(crate) type Body = Either<hls::http::Body, Full<Bytes>>;

/// Ask again before using a copy: pages change with the binary, states by themselves.
const REVALIDATED: HeaderValue = HeaderValue::from_static("no-cache");
/// The name holds a hash of the content.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// For one person: no cache on the way may keep it.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What phones offer to install (RFC 2585, §4.1, names `application/pkix-cert`, which iOS does not).
const X509_CERTIFICATE: HeaderValue = HeaderValue::from_static("application/x-x509-ca-cert");
const NOT_FOUND_BRIEFLY: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// In a policy.
const ANY_SERVER: &str = "https: http:";

/// The longest viewing token: a signed claim or two in base64 fits many times.
const TOKEN_BYTES_MAX: usize = 1_024;

/// Everything the viewers' listener serves.
pub struct Site {
    registry: StreamRegistry,
    catalog: Catalog,
    /// Viewers by WebRTC.
    audience: Audience,
    ports: PublishPorts,
    unlisted: Unlisted,
    /// As the operator has listed them.
    alternates: Alternates,
    /// `None` if there is no other node.
    neighbours: Option<Arc<dyn Neighbours>>,
    /// Whose streams are listed beside those of this node.
    others: Option<Arc<Others>>,
    admission: Admission,
    /// `None` where there are no viewers by WebRTC.
    prefer: Option<Transport>,
    /// `None` where nobody publishes.
    backstage: Option<Arc<dyn Backstage>>,
    /// Of WebRTC.
    endpoints: Vec<Arc<dyn Endpoint>>,
    /// Where the streams come from, unless they are of this node.
    upstream: Option<Puller>,
    /// `None` unless the certificate is one that nobody vouches for.
    trust: Option<Trust>,
    /// The port of HTTPS, if pages are to be read there and not here.
    redirect: Option<u16>,
}

impl Site {
    pub fn new(registry: StreamRegistry, catalog: Catalog, rtmp_port: u16) -> Self {
        Self {
            registry,
            catalog,
            audience: Audience::default(),
            ports: PublishPorts { rtmp: rtmp_port, rtmps: None },
            unlisted: Unlisted::default(),
            alternates: Alternates::default(),
            neighbours: None,
            others: None,
            admission: Admission::default(),
            prefer: None,
            backstage: None,
            endpoints: Vec::new(),
            upstream: None,
            trust: None,
            redirect: None,
        }
    }

    /// Of a node whose streams are those of another.
    pub fn remote(puller: Puller) -> Self {
        let catalog = puller.catalog().clone();
        Self { upstream: Some(puller), ..Self::new(StreamRegistry::default(), catalog, 0) }
    }

    /// The state of a stream or of all, as JSON, for a node that has its streams from here.
    pub fn state_json(&self, id: Option<&StreamId>) -> Bytes {
        let json = match id {
            Some(id) => {
                serde_json::to_vec(&state::Entry::of(id, &self.registry, &self.catalog, &self.audience))
            }
            None => serde_json::to_vec(&state::List::of(
                &self.registry,
                &self.catalog,
                &self.audience,
                &self.unlisted,
                self.ports,
            )),
        };
        json.expect("a state has only strings, numbers and lists").into()
    }

    /// Counts those who watch by WebRTC.
    #[must_use]
    pub fn with_audience(mut self, audience: Audience) -> Self {
        self.audience = audience;
        self
    }

    /// Sends publishers to this port, where they are encrypted.
    #[must_use]
    pub fn with_rtmps(mut self, port: Option<u16>) -> Self {
        self.ports.rtmps = port;
        self
    }

    /// Keeps some streams off the lists.
    #[must_use]
    pub fn with_unlisted(mut self, unlisted: Unlisted) -> Self {
        self.unlisted = unlisted;
        self
    }

    /// Tells pages of other nodes with the same streams.
    #[must_use]
    pub fn with_alternates(mut self, alternates: Alternates) -> Self {
        self.alternates = alternates;
        self
    }

    /// Sends viewers to other nodes: those of streams that this one does not have, and those who ask where to go.
    #[must_use]
    pub fn with_neighbours(mut self, neighbours: Option<Arc<dyn Neighbours>>) -> Self {
        self.neighbours = neighbours;
        self
    }

    fn alternates(&self) -> Alternates {
        self.alternates.or(|| self.neighbours.as_ref().map(|others| others.origins()).unwrap_or_default())
    }

    /// Lists the streams of other nodes too: who asks for one is sent to where it can be watched.
    #[must_use]
    pub fn with_others(mut self, others: Option<Arc<Others>>) -> Self {
        self.others = others;
        self
    }

    /// Takes newcomers only as far as `admission` says.
    #[must_use]
    pub fn with_admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// Whether `request` is answered here.
    fn turn(&self, method: &Method, uri: &Uri) -> Turn {
        let path = without_token(uri.path());
        if let Some(neighbours) = self.neighbours.as_ref().filter(|_| self.upstream.is_none())
            && let Some(id) = neighbours::stream_of(&path)
            && neighbours.is_elsewhere(&id)
        {
            return Turn::Away(match neighbours.best_other(&id) {
                Some(origin) => neighbours::sent_to(&origin, uri),
                None => neighbours::full(),
            });
        }
        let takes = self.admission.get();
        // As nearly always: for each request as little as can be.
        if takes == Takes::Everybody {
            return Turn::Here;
        }
        let Some((newcomer, id)) = neighbours::newcomer(method, &path) else { return Turn::Here };
        let other = || {
            let neighbours = self.neighbours.as_ref().filter(|_| !neighbours::was_sent(uri))?;
            match takes {
                Takes::Everybody | Takes::WhoeverIsLeft => neighbours.other_with_room(&id),
                // One that has little room has more than this one.
                Takes::LowerOnly | Takes::Nobody => neighbours.best_other(&id),
            }
        };
        match judge(newcomer, takes, other) {
            Answer::Welcome => Turn::Here,
            Answer::Lower => Turn::Lower,
            Answer::Other(origin) => Turn::Away(neighbours::sent_for_room(&origin, uri)),
            Answer::Full => Turn::Away(neighbours::full()),
        }
    }

    /// `GET /where/{app}/{stream}`: the playlist at the node that the viewer is best off with, or why it is which.
    fn whereabouts(&self, id: &StreamId, headers: &HeaderMap) -> Response<Bytes> {
        let playlist = format!("/hls/{id}/index.m3u8");
        let sent = |origin: &str| neighbours::redirect(origin, &playlist, "watch it there\n");
        let Some(neighbours) = &self.neighbours else { return sent("") };
        if wants_json(headers) {
            return json(&serde_json::json!({ "nodes": neighbours.ranked(id) }), headers);
        }
        match neighbours.best(id) {
            Some(origin) => sent(&origin),
            None => neighbours::full(),
        }
    }

    /// `GET /where/{app}/{stream}/steering.json`
    fn steering(&self, id: &StreamId, headers: &HeaderMap) -> Response<Bytes> {
        // Whoever reads in plain what is known as encrypted would find the others encrypted too.
        let neighbours = self.neighbours.as_ref().filter(|_| self.redirect.is_none());
        let nodes = neighbours.map(|neighbours| neighbours.ranked(id)).unwrap_or_default();
        json(&Manifest::new(&nodes), headers)
    }

    /// Tells pages that there are two ways to play, and which one to try first.
    #[must_use]
    pub fn with_prefer(mut self, prefer: Transport) -> Self {
        self.prefer = Some(prefer);
        self
    }

    /// Opens the connect page and the studio, for the broadcasters of this node.
    #[must_use]
    pub fn with_backstage(mut self, backstage: Arc<dyn Backstage>) -> Self {
        self.backstage = Some(backstage);
        self
    }

    /// Takes publishers or viewers by WebRTC.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Arc<dyn Endpoint>) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    fn endpoint(&self, path: &str) -> Option<&dyn Endpoint> {
        let mut endpoints = self.endpoints.iter();
        endpoints.find(|endpoint| path.starts_with(endpoint.prefix())).map(AsRef::as_ref)
    }

    /// Has a page on what its certificate means, for a node that made it itself.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// Leads browsers that ask for pages to HTTPS on `port` of the same host. Media stays: players that are under way
    /// go on, and who cannot encrypt may watch.
    #[must_use]
    pub fn with_redirect(mut self, port: u16) -> Self {
        self.redirect = Some(port);
        self
    }

    async fn media(&self, viewer: IpAddr, head: &Head) -> Response<hls::http::Body> {
        // Held until the answer: what is being watched is not let go.
        let _watching = match &self.upstream {
            Some(puller) => match Box::pin(remote::admit(puller, head.path())).await {
                Err(JoinError::Unreachable) => return hls::http::unreachable(&self.catalog, head),
                // What ended is still here for a while; what never was is not found below.
                Err(JoinError::Absent) => None,
                Ok(watching) => watching,
            },
            None => None,
        };
        hls::http::respond(&self.catalog, viewer, head).await
    }

    async fn other(&self, viewer: IpAddr, request: &Request<()>) -> Response<Bytes> {
        let path = without_token(request.uri().path());
        let (path, headers) = (path.as_ref(), request.headers());
        let response = match *request.method() {
            Method::GET | Method::HEAD if self.is_elsewhere(path) => self.redirected(request),
            Method::GET | Method::HEAD => match &self.upstream {
                Some(puller) if path == "/state" || path.starts_with("/state/") => {
                    self.remote_state(puller, path, headers, viewer).await
                }
                None if path == "/state" => self.list(headers).await,
                _ => self.get(path, headers, viewer),
            },
            _ => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        };
        let head = request.method() == Method::HEAD;
        response.map(|bytes| if head { Bytes::new() } else { bytes })
    }

    /// Whether a page is to be read over HTTPS. What tells how to trust that may be read before one does.
    fn is_elsewhere(&self, path: &str) -> bool {
        self.redirect.is_some()
            && (["/", "/connect", "/studio"].contains(&path)
                || ["/watch/", "/embed/"].iter().any(|prefix| path.starts_with(prefix)))
    }

    fn redirected(&self, request: &Request<()>) -> Response<Bytes> {
        let target =
            self.redirect.and_then(|port| redirect::encrypted(request.uri(), request.headers(), port));
        let Some(target) = target else {
            return text(StatusCode::BAD_REQUEST, "the request names no host\n");
        };
        let mut response = text(StatusCode::PERMANENT_REDIRECT, "this page is served over HTTPS\n");
        response.headers_mut().insert(LOCATION, target);
        // An operator may take it back.
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        response
    }

    /// What is live, here and at the other nodes.
    async fn list(&self, headers: &HeaderMap) -> Response<Bytes> {
        let (registry, catalog) = (&self.registry, &self.catalog);
        let own = state::List::of(registry, catalog, &self.audience, &self.unlisted, self.ports);
        let Some(others) = &self.others else { return json(&own, headers) };
        let own = serde_json::to_value(own).expect("a state has only strings, numbers and lists");
        json(&others::joined(own, others.streams().await), headers)
    }

    async fn remote_state(
        &self,
        puller: &Puller,
        path: &str,
        headers: &HeaderMap,
        viewer: IpAddr,
    ) -> Response<Bytes> {
        match remote::state(puller, path).await {
            Some(Some(state)) => self.told_state(path, &state, headers),
            Some(None) => {
                let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "the origin does not answer\n");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            None => self.get(path, headers, viewer),
        }
    }

    /// To whoever watches: of one stream also that they had better go on at another node.
    fn told_state(&self, path: &str, state: &impl Serialize, headers: &HeaderMap) -> Response<Bytes> {
        if !self.admission.is_drained() || neighbours::stream_of(path).is_none() {
            return json(state, headers);
        }
        let mut state = serde_json::to_value(state).expect("a state has only strings, numbers and lists");
        state["drained"] = true.into();
        json(&state, headers)
    }

    fn get(&self, path: &str, headers: &HeaderMap, viewer: IpAddr) -> Response<Bytes> {
        let segments: Vec<_> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            [""] => self.page(Page::Home, headers),
            ["watch", app, stream] if StreamId::new(app, stream).is_ok() => self.page(Page::Watch, headers),
            ["embed", app, stream] if StreamId::new(app, stream).is_ok() => self.page(Page::Embed, headers),
            ["connect"] if self.backstage.is_some() => self.page(Page::Connect, headers),
            ["studio"] if self.backstage.is_some() => self.page(Page::Studio, headers),
            ["connect", "state", app, stream] => match (&self.backstage, StreamId::new(app, stream)) {
                (Some(backstage), Ok(id)) => self.report(&id, backstage.as_ref(), headers, viewer),
                (Some(_), Err(error)) => no_name(error),
                (None, _) => text(StatusCode::NOT_FOUND, "this node takes no publishers\n"),
            },
            ["where", app, stream] => match StreamId::new(app, stream) {
                Ok(id) => self.whereabouts(&id, headers),
                Err(error) => no_name(error),
            },
            ["where", app, stream, "steering.json"] => match StreamId::new(app, stream) {
                Ok(id) => self.steering(&id, headers),
                Err(error) => no_name(error),
            },
            ["nodes"] => {
                let alternates = self.alternates();
                let alternates = alternates.origins();
                let told = serde_json::json!({
                    "alternates": alternates,
                    "drained": self.admission.is_drained(),
                    "prefer": self.prefer,
                    "self_signed": self.trust.is_some(),
                });
                json(&told, headers)
            }
            ["trust", rest @ ..] if self.trust.is_some() => self.trust(rest, headers),
            ["state", app, stream] => match StreamId::new(app, stream) {
                Ok(id) => {
                    let entry = state::Entry::of(&id, &self.registry, &self.catalog, &self.audience);
                    self.told_state(path, &entry, headers)
                }
                Err(error) => no_name(error),
            },
            _ => match player_demo::get(path) {
                Some(found) => asset(found, headers),
                // A person who mistyped gets a page; everything else gets words.
                None if wants_html(headers) => {
                    let mut response = self.page(Page::Watch, headers);
                    *response.status_mut() = StatusCode::NOT_FOUND;
                    response
                }
                None => text(StatusCode::NOT_FOUND, "nothing here; the live streams are at /\n"),
            },
        }
    }

    fn trust(&self, rest: &[&str], headers: &HeaderMap) -> Response<Bytes> {
        let trust = self.trust.as_ref();
        match rest {
            [] => self.page(Page::Trust, headers),
            ["state"] => match trust.and_then(Trust::state) {
                Some(state) => json(&state, headers),
                None => text(StatusCode::NOT_FOUND, "there is no certificate\n"),
            },
            // The name that a device shows when it asks whether to keep it.
            ["tidecast.crt"] => match trust.and_then(Trust::certificate) {
                Some(certificate) => {
                    let mut response = text(StatusCode::OK, "");
                    response.headers_mut().insert(CONTENT_TYPE, X509_CERTIFICATE);
                    response.headers_mut().insert(CONTENT_LENGTH, certificate.len().into());
                    response.map(|_| certificate)
                }
                None => text(StatusCode::NOT_FOUND, "there is no certificate\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "nothing here; the page is at /trust\n"),
        }
    }

    fn page(&self, page: Page, headers: &HeaderMap) -> Response<Bytes> {
        let mut response = asset(player_demo::page(page), headers);
        let policy = player_demo::content_security_policy(page);
        let outlives_nodes =
            matches!(page, Page::Watch | Page::Embed) && self.alternates.origins().is_empty();
        let policy = match self.alternates().origins() {
            // A page that plays is open for longer than nodes are there: it turns to such as come after it.
            _ if outlives_nodes && self.neighbours.is_some() => {
                HeaderValue::try_from(widened(policy, ANY_SERVER))
            }
            [] => Ok(HeaderValue::from_static(policy)),
            origins => HeaderValue::try_from(widened(policy, &origins.join(" "))),
        };
        let policy = policy.expect("origins are of characters that a header may have");
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        response
    }

    /// What only the holder of the publish key is told.
    fn report(
        &self,
        id: &StreamId,
        backstage: &dyn Backstage,
        headers: &HeaderMap,
        viewer: IpAddr,
    ) -> Response<Bytes> {
        let allowed = connect::bearer(headers).map(|key| backstage.may_publish(id, key, viewer));
        let mut response = match allowed {
            Some(Ok(true)) => {
                let listed = !self.unlisted.holds(id);
                let (registry, catalog) = (&self.registry, &self.catalog);
                let report =
                    connect::Report::of(id, registry, catalog, &self.audience, backstage, self.ports, listed);
                let (body, etag) = serialized(&report);
                cached(body, "application/json", &etag, headers)
            }
            Some(Err(guessing)) => {
                let mut refusal = text(StatusCode::TOO_MANY_REQUESTS, &format!("{guessing}\n"));
                let seconds = guessing.retry_after.as_secs().saturating_add(1);
                refusal.headers_mut().insert(RETRY_AFTER, seconds.into());
                refusal
            }
            Some(Ok(false)) | None => {
                let mut refusal = text(StatusCode::UNAUTHORIZED, "the publish key is missing or wrong\n");
                // RFC 9110, §15.5.2; no browser asks its user because of this scheme.
                refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                refusal
            }
        };
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        response
    }
}

fn no_name(error: NameError) -> Response<Bytes> {
    text(StatusCode::NOT_FOUND, &format!("not the name of a stream: {error}\n"))
}

/// Whose a request is.
enum Turn {
    Here,
    /// Of this node, and with fewer renditions.
    Lower,
    /// Another node's, or nobody's.
    Away(Response<Bytes>),
}

enum Wanted {
    /// Below `/hls/`: may be held, so that the request itself is not kept.
    Media(Head),
    Away(Response<Bytes>),
    Other(Request<()>),
}

impl Wanted {
    fn of(request: Request<()>, turn: Turn) -> Self {
        if let Turn::Away(response) = turn {
            return Self::Away(response);
        }
        let path = without_token(request.uri().path());
        if !path.starts_with("/hls/") {
            return Self::Other(request);
        }
        let head = Head::new(request.method(), &path, request.uri().query(), request.headers());
        Self::Media(if matches!(turn, Turn::Lower) { head.with_lower_only() } else { head })
    }
}

impl Respond for Site {
    fn respond(&self, viewer: IpAddr, request: Request<()>) -> impl Future<Output = Response<Body>> + Send {
        let turn = self.turn(request.method(), request.uri());
        let wanted = Wanted::of(request, turn);
        async move {
            // By reference, and in a box what is seldom: this is moved about for each request.
            match &wanted {
                Wanted::Away(response) => response.clone().map(|bytes| Either::Right(Full::new(bytes))),
                Wanted::Media(head) => self.media(viewer, head).await.map(Either::Left),
                Wanted::Other(request) => {
                    let other = Box::pin(self.other(viewer, request));
                    other.await.map(|bytes| Either::Right(Full::new(bytes)))
                }
            }
        }
    }

    fn body_bytes_max(&self, request: &Request<()>) -> Option<usize> {
        self.endpoint(request.uri().path()).map(|endpoint| endpoint.body_bytes_max())
    }

    async fn respond_to(&self, peer: IpAddr, request: Request<Bytes>) -> Response<Body> {
        let response = match self.endpoint(request.uri().path()) {
            Some(endpoint) => match self.turn(request.method(), request.uri()) {
                Turn::Away(response) => response,
                Turn::Here | Turn::Lower => endpoint.respond(peer, request).await,
            },
            None => text(StatusCode::NOT_FOUND, "nothing here\n"),
        };
        response.map(|bytes| Either::Right(Full::new(bytes)))
    }

    fn drain(&self) {
        self.catalog.drain();
    }
}

/// The path with a viewing token taken out: `/hls/~{token}/…` is `/hls/…`. Before anything else, so that whatever is
/// made for one viewer is made for all; relative URLs in playlists inherit the token by themselves. No token is
/// checked yet: any is as good as none. One that is empty or too long leads nowhere.
fn without_token(path: &str) -> Cow<'_, str> {
    let token_and_rest = path.strip_prefix("/hls/~").and_then(|rest| rest.split_once('/'));
    match token_and_rest {
        Some((token, rest)) if (1..=TOKEN_BYTES_MAX).contains(&token.len()) => {
            Cow::Owned(format!("/hls/{rest}"))
        }
        _ => Cow::Borrowed(path),
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    accepts(headers, "text/html")
}

fn wants_json(headers: &HeaderMap) -> bool {
    accepts(headers, "application/json")
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(media_type))
}

fn asset(asset: Asset, headers: &HeaderMap) -> Response<Bytes> {
    let gzip = asset.gzip.filter(|_| accepts_gzip(headers));
    let encoded = gzip.is_some();
    let (bytes, etag) = gzip.map_or((asset.bytes, asset.etag), |gzip| (gzip.bytes, gzip.etag));
    let mut response = cached(bytes, asset.content_type, &etag, headers);
    let out = response.headers_mut();
    out.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if encoded {
        out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if asset.immutable {
        out.insert(CACHE_CONTROL, IMMUTABLE);
    }
    response
}

fn json(value: &impl Serialize, headers: &HeaderMap) -> Response<Bytes> {
    let (body, etag) = serialized(value);
    let mut response = cached(body, "application/json", &etag, headers);
    // Pages on other sites may show what is live here; nothing of it is a secret.
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// The JSON, and its strong ETag.
fn serialized(value: &impl Serialize) -> (Bytes, String) {
    let body = Bytes::from(serde_json::to_vec(value).expect("a state has only strings, numbers and lists"));
    let etag = format!("\"{:016x}\"", hash(&body));
    (body, etag)
}

/// The body under its strong ETag, or 304 if the client has it.
fn cached(body: Bytes, content_type: &'static str, etag: &str, headers: &HeaderMap) -> Response<Bytes> {
    let etag = HeaderValue::from_str(etag).expect("an ETag of ours is hexadecimal digits in quotes");
    let fresh = is_known(headers, &etag);
    let length = body.len();
    let mut response = Response::new(if fresh { Bytes::new() } else { body });
    let out = response.headers_mut();
    out.insert(ETAG, etag);
    out.insert(CACHE_CONTROL, REVALIDATED);
    out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        out.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        out.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

pub(crate) fn text(status: StatusCode, words: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(words.as_bytes()));
    *response.status_mut() = status;
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    out.insert(CACHE_CONTROL, NOT_FOUND_BRIEFLY);
    out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::header::{IF_NONE_MATCH, LOCATION};
    use http_body_util::BodyExt;
    use media::SessionId;
    use prometheus_client::registry::Registry;
    use relay::Facts;

    use super::*;

    fn site() -> (Site, StreamRegistry) {
        let streams = StreamRegistry::default();
        let catalog = Catalog::new(hls::Metrics::register(&mut Registry::default()));
        (Site::new(streams.clone(), catalog, 1935), streams)
    }

    async fn ask(site: &Site, request: http::request::Builder) -> (StatusCode, HeaderMap, Bytes) {
        let viewer = Ipv4Addr::LOCALHOST.into();
        let response = site.respond(viewer, request.body(()).unwrap()).await;
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    async fn get(site: &Site, path: &str) -> (StatusCode, HeaderMap, Bytes) {
        ask(site, Request::get(path)).await
    }

    #[tokio::test]
    async fn pages_come_with_their_policy_and_assets_for_ever() {
        let (site, _streams) = site();
        for path in ["/", "/watch/live/cam1"] {
            let (status, headers, body) = get(&site, path).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(headers[CACHE_CONTROL], "no-cache");
            assert!(
                headers.contains_key(CONTENT_SECURITY_POLICY) && headers[X_CONTENT_TYPE_OPTIONS] == "nosniff"
            );
            // The address of the connect page names its stream to nobody else.
            assert_eq!(headers[REFERRER_POLICY], "same-origin");
            let html = String::from_utf8(body.to_vec()).unwrap();
            let asset = html.split('"').find(|text| text.starts_with("/assets/")).unwrap();
            let (status, headers, _) = get(&site, asset).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(headers[CACHE_CONTROL], "public, max-age=31536000, immutable");
            let (_, headers, _) = ask(&site, Request::get(path).header("accept-encoding", "gzip")).await;
            assert_eq!(headers[CONTENT_ENCODING], "gzip");
        }
    }

    /// Threat: a name that leads out of a directory, or means something to whoever reads it next.
    #[tokio::test]
    async fn nothing_is_found_behind_a_name_that_is_none() {
        let (site, _streams) = site();
        let long = format!("/watch/live/{}", "a".repeat(65));
        let paths = [
            "/watch/live/..",
            "/watch/../etc",
            "/watch/live/%2e%2e",
            "/watch/live/a%00b",
            "/watch/live",
            "/watch/live/a/b",
            "/state/live/..%2f..",
            "/state/live/%3Cscript%3E",
            "/assets/../Cargo.toml",
            "/index.html",
            "//",
            &long,
        ];
        for path in paths {
            let (status, headers, body) = get(&site, path).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(headers[CONTENT_TYPE], "text/plain; charset=utf-8", "{path}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            assert!(
                !headers.contains_key(LOCATION) && !body.windows(7).any(|word| word == b"<script"),
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn a_state_is_polled_for_little() {
        let (site, streams) = site();
        let (status, headers, body) = get(&site, "/state/live/cam1").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers[CONTENT_TYPE], "application/json");
        assert!(body.starts_with(br#"{"app":"live","stream":"cam1","state":"offline","#));
        let etag = headers[ETAG].clone();
        let again = Request::get("/state/live/cam1").header(IF_NONE_MATCH, &etag);
        assert_eq!(ask(&site, again).await.0, StatusCode::NOT_MODIFIED);

        let id = StreamId::new("live", "cam1").unwrap();
        let writer = streams.open(id, SessionId::from_random(0xAB)).unwrap();
        writer.set_facts(Facts { starting: Some("Waiting.".to_owned()), ..Facts::default() });
        let again = Request::get("/state/live/cam1").header(IF_NONE_MATCH, &etag);
        let (status, _, body) = ask(&site, again).await;
        let state: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!((&state["state"], &state["reason"]), (&"starting".into(), &"Waiting.".into()));
        assert_eq!(state["session"], "00000000000000ab");
        let list: serde_json::Value = serde_json::from_slice(&get(&site, "/state").await.2).unwrap();
        assert_eq!(list["streams"], serde_json::json!([state]));
        drop(writer);
        assert_eq!(get(&site, "/state").await.2, br#"{"streams":[],"rtmp_port":1935}"#.as_slice());
    }

    #[tokio::test]
    async fn whoever_watches_at_a_node_that_is_drained_is_told_with_the_state() {
        let (site, _streams) = site();
        let admission = Admission::default();
        let site = site.with_admission(admission.clone());
        for (drained, told) in [(false, serde_json::Value::Null), (true, true.into())] {
            admission.set_drained(drained);
            let state: serde_json::Value =
                serde_json::from_slice(&get(&site, "/state/live/cam1").await.2).unwrap();
            assert_eq!((&state["state"], &state["drained"]), (&"offline".into(), &told));
        }
        assert!(!String::from_utf8(get(&site, "/state").await.2.into()).unwrap().contains("drained"));
    }

    #[tokio::test]
    async fn what_viewers_have_read_the_end_of_does_not_start() {
        let streams = StreamRegistry::default();
        let catalog = Catalog::new(hls::Metrics::register(&mut Registry::default()));
        let site = Site::new(streams.clone(), catalog.clone(), 1935);
        let (id, session) = (StreamId::new("live", "cam1").unwrap(), SessionId::from_random(0xAB));
        let _closing = streams.open(id.clone(), session).unwrap();
        let header = hls::StreamHeader {
            id,
            session,
            epoch: 1,
            part_hold_back_ms: 1_500,
            retain_bytes_max: 1_000_000,
            renditions: Vec::new(),
        };
        catalog.open(header).end();
        let (_, _, body) = get(&site, "/state/live/cam1").await;
        assert!(body.starts_with(br#"{"app":"live","stream":"cam1","state":"ended","#));
    }

    /// Media stays, or players under way would stop; and what explains a warning may be read before it is seen.
    #[tokio::test]
    async fn pages_are_led_to_https_where_that_is_wanted_and_nothing_else_is() {
        let (plain, _streams) = site();
        let site = plain.with_redirect(8443);
        let to = |path: &str| Request::get(path.to_owned()).header("host", "live.example:8080");
        for path in ["/", "/watch/live/cam1?t=1", "/embed/live/cam1", "/connect", "/studio"] {
            let (status, headers, _) = ask(&site, to(path)).await;
            assert_eq!(status, StatusCode::PERMANENT_REDIRECT, "{path}");
            assert_eq!(headers[LOCATION], format!("https://live.example:8443{path}"));
            assert_eq!(headers[CACHE_CONTROL], "no-store", "it may be taken back");
        }
        for path in
            ["/state", "/state/live/cam1", "/nodes", "/hls/live/cam1/index.m3u8", "/assets/x.js", "/trust"]
        {
            let (status, headers, _) = ask(&site, to(path)).await;
            assert!(!status.is_redirection() && !headers.contains_key(LOCATION), "{path}: {status}");
        }
        assert_eq!(ask(&site, Request::get("/")).await.0, StatusCode::BAD_REQUEST, "to which host?");
    }

    #[tokio::test]
    async fn a_certificate_of_one_s_own_is_explained_and_no_other_is() {
        let (without, _streams) = site();
        assert_eq!(get(&without, "/trust").await.0, StatusCode::NOT_FOUND);
        assert_eq!(
            get(&without, "/nodes").await.2,
            br#"{"alternates":[],"drained":false,"prefer":null,"self_signed":false}"#.as_slice()
        );

        let made = rcgen::generate_simple_self_signed(vec!["studio.local".to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        let certificate =
            net::tls::Certificate::from_pem(made.cert.pem().as_bytes(), key.as_bytes()).unwrap();
        let fingerprint = certificate.fingerprint().to_owned();
        let site = without.with_trust(Trust::new(Arc::new(net::tls::Served::new(Some(certificate)))));
        let (status, headers, page) = get(&site, "/trust").await;
        assert_eq!(
            (status, &headers[CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static("text/html; charset=utf-8"))
        );
        assert!(headers.contains_key(CONTENT_SECURITY_POLICY));
        assert!(String::from_utf8(page.to_vec()).unwrap().contains("does not protect from"));
        let state: serde_json::Value = serde_json::from_slice(&get(&site, "/trust/state").await.2).unwrap();
        assert_eq!(
            (&state["fingerprint"], &state["names"][0]),
            (&fingerprint.into(), &"studio.local".into())
        );
        let (_, headers, certificate) = get(&site, "/trust/tidecast.crt").await;
        assert_eq!(headers[CONTENT_TYPE], "application/x-x509-ca-cert");
        assert_eq!(&certificate[..], made.cert.der().as_ref());
        assert_eq!(get(&site, "/trust/key").await.0, StatusCode::NOT_FOUND);
        assert_eq!(
            get(&site, "/nodes").await.2,
            br#"{"alternates":[],"drained":false,"prefer":null,"self_signed":true}"#.as_slice()
        );
    }

    #[tokio::test]
    async fn pages_are_told_which_transport_to_try_first_where_there_are_two() {
        let (site, _streams) = site();
        assert_eq!(
            get(&site, "/nodes").await.2,
            br#"{"alternates":[],"drained":false,"prefer":null,"self_signed":false}"#.as_slice()
        );
        for (prefer, told) in [(Transport::Hls, "hls"), (Transport::WebRtc, "webrtc")] {
            let site = self::site().0.with_prefer(prefer);
            let nodes: serde_json::Value = serde_json::from_slice(&get(&site, "/nodes").await.2).unwrap();
            assert_eq!(nodes["prefer"], told);
            assert_eq!(Transport::parse(told), Some(prefer));
        }
        assert_eq!(Transport::parse("rtsp"), None);
    }

    /// Threat 22: a playlist made for one token and kept by a cache for another.
    #[test]
    fn a_token_is_gone_before_anything_is_looked_up() {
        let long = format!("/hls/~{}/live/cam1/index.m3u8", "t".repeat(TOKEN_BYTES_MAX + 1));
        for (path, meant) in [
            ("/hls/~abc.def-_/live/cam1/index.m3u8", "/hls/live/cam1/index.m3u8"),
            ("/hls/~~/live/cam1/index.m3u8", "/hls/live/cam1/index.m3u8"),
            // Once only: what is left is a name, and no name has a tilde.
            ("/hls/~a/~b/live/cam1/index.m3u8", "/hls/~b/live/cam1/index.m3u8"),
            ("/hls/live/cam1/index.m3u8", "/hls/live/cam1/index.m3u8"),
            ("/hls/~/live/cam1/index.m3u8", "/hls/~/live/cam1/index.m3u8"),
            ("/hls/~abc", "/hls/~abc"),
            ("/watch/~abc/live/cam1", "/watch/~abc/live/cam1"),
            (&long, &long),
        ] {
            assert_eq!(without_token(path), meant);
        }
    }

    #[tokio::test]
    async fn only_reading_is_answered() {
        let (site, _streams) = site();
        let (status, headers, _) = ask(&site, Request::post("/state")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers[ALLOW], "GET, HEAD");
        let (status, headers, body) = ask(&site, Request::head("/")).await;
        assert_eq!((status, body.len()), (StatusCode::OK, 0));
        assert_ne!(headers[CONTENT_LENGTH], "0");
    }
}
