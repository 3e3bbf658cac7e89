//! A stream on a catalog, a packager's hand to feed it, and viewers that can be watched while they wait.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use hls::http::{Body, Head, respond};
use hls::{
    Announcement, Bandwidth, Catalog, Metrics, Part, PushError, RenditionHeader, RenditionName, SegmentStart,
    StreamHeader, StreamWriter,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use media::cmaf::Init;
use media::codec::{aac, h264};
use media::{Captions, CodecConfig, SessionId, StreamId};
use tokio::io::DuplexStream;

pub(crate) const SESSION: SessionId = SessionId::from_random(0xAB);
pub(crate) const TARGET_DURATION_S: u32 = 4;
/// As ingest stamps it for 30 fps: fifteen frames and a millisecond.
pub(crate) const PART_TARGET_MS: u32 = 501;

/// x264, High profile, 1280x720.
const AVCC: &[u8] = &[
    0x01, 0x64, 0x00, 0x1f, 0xff, 0xe1, 0x00, 0x18, 0x67, 0x64, 0x00, 0x1f, 0xac, 0xb2, 0x00, 0xa0, 0x0b,
    0x76, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x07, 0x81, 0xe3, 0x06, 0x49, 0x01, 0x00,
    0x06, 0x68, 0xeb, 0xc3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
];
/// AAC-LC, 48 kHz, stereo.
const AUDIO_SPECIFIC_CONFIG: &[u8] = &[0x11, 0x90];

pub(crate) fn video_codec() -> CodecConfig {
    CodecConfig::H264(h264::Config::parse(Bytes::from_static(AVCC)).unwrap())
}

pub(crate) fn audio_codec() -> CodecConfig {
    CodecConfig::Aac(aac::Config::parse(Bytes::from_static(AUDIO_SPECIFIC_CONFIG)).unwrap())
}

pub(crate) fn name(text: &str) -> RenditionName {
    text.parse().unwrap()
}

pub(crate) fn id() -> StreamId {
    StreamId::new("live", "cam1").unwrap()
}

pub(crate) fn other_id() -> StreamId {
    StreamId::new("live", "cam2").unwrap()
}

pub(crate) fn video() -> RenditionHeader {
    RenditionHeader { name: name("v"), codec: video_codec(), part_target_ms: PART_TARGET_MS, derived: None }
}

pub(crate) fn audio() -> RenditionHeader {
    RenditionHeader { name: name("a"), codec: audio_codec(), part_target_ms: 512, derived: None }
}

pub(crate) fn header(renditions: Vec<RenditionHeader>) -> StreamHeader {
    StreamHeader {
        id: id(),
        session: SESSION,
        epoch: 1,
        part_hold_back_ms: 1536,
        retain_bytes_max: 1 << 28,
        renditions,
    }
}

pub(crate) fn announcement() -> Announcement {
    Announcement {
        target_duration_s: TARGET_DURATION_S,
        window_ms: 7000 * TARGET_DURATION_S,
        frame_rate: Some(30.0),
        bandwidths: vec![
            (name("v"), Bandwidth { peak: 3_000_000, average: 2_500_000 }),
            (name("a"), Bandwidth { peak: 130_000, average: 128_000 }),
        ],
        captions: Captions::default(),
    }
}

pub(crate) fn init(hash: &str) -> Arc<Init> {
    Arc::new(Init { bytes: Bytes::from(format!("init {hash}")), hash: hash.into() })
}

/// Half a second of a two-second segment, as all parts here unless a test says otherwise.
pub(crate) fn part(msn: u64, part: u32) -> Part {
    Part {
        msn,
        part,
        duration: 45_000,
        independent: part == 0,
        gap: false,
        last: part == 3,
        segment: SegmentStart {
            program_date_time_ms: 1_790_000_000_000 + 2000 * i64::try_from(msn).unwrap(),
            discontinuity_sequence: 0,
            init: init("c0ffee"),
        },
        body: vec![Bytes::from(format!("head {msn}.{part} ")), Bytes::from(format!("payload {msn}.{part};"))],
    }
}

pub(crate) struct Stream {
    pub(crate) catalog: Catalog,
    writer: Option<StreamWriter>,
}

impl Stream {
    /// Video and audio, announced.
    pub(crate) fn live() -> Self {
        let mut stream = Self::starting(header(vec![video(), audio()]));
        stream.writer().announce(announcement());
        stream
    }

    pub(crate) fn starting(header: StreamHeader) -> Self {
        Self::on(Catalog::new(Metrics::default()), header)
    }

    pub(crate) fn on(catalog: Catalog, header: StreamHeader) -> Self {
        let writer = catalog.open(header);
        Self { catalog, writer: Some(writer) }
    }

    pub(crate) fn writer(&mut self) -> &mut StreamWriter {
        self.writer.as_mut().expect("the stream has not ended")
    }

    pub(crate) fn try_push(&mut self, rendition: &str, part: Part) -> Result<(), PushError> {
        self.writer().rendition(&name(rendition)).expect("the rendition was opened").push(part)
    }

    pub(crate) fn push(&mut self, rendition: &str, part: Part) {
        self.try_push(rendition, part).unwrap();
    }

    /// The same part of both renditions.
    pub(crate) fn push_both(&mut self, msn: u64, number: u32) {
        let video = part(msn, number);
        let audio = Part { duration: 24_000, independent: true, ..video.clone() };
        self.push("v", video);
        self.push("a", audio);
    }

    /// All parts of both renditions up to and including `msn`.`part`, from segment 0 on.
    pub(crate) fn push_through(&mut self, msn: u64, last: u32) {
        for segment in 0..=msn {
            (0..=if segment == msn { last } else { 3 }).for_each(|part| self.push_both(segment, part));
        }
    }

    pub(crate) fn end(&mut self) {
        self.writer.take().expect("a stream ends once").end();
    }

    pub(crate) fn abandon(&mut self) {
        self.writer.take().expect("a stream is left once").abandon();
    }

    /// Someone who watches; lives independently of the packager's hand.
    pub(crate) fn viewer(&self) -> Viewer {
        Viewer { catalog: self.catalog.clone(), address: Ipv4Addr::LOCALHOST.into() }
    }

    pub(crate) async fn get(&self, path_and_query: &str) -> Answer {
        self.viewer().get(path_and_query).await
    }

    pub(crate) async fn request(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(HeaderName, &'static str)],
    ) -> Answer {
        self.viewer().request(method, path_and_query, headers).await
    }

    pub(crate) async fn playlist(&self, rendition: &str) -> String {
        let answer = self.get(&media_playlist(rendition)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.text()
    }

    pub(crate) fn renders(&self) -> u64 {
        self.catalog.metrics().playlist_renders.get()
    }

    pub(crate) fn held(&self) -> i64 {
        self.catalog.metrics().held_requests.get()
    }
}

#[derive(Clone)]
pub(crate) struct Viewer {
    catalog: Catalog,
    pub(crate) address: IpAddr,
}

impl Viewer {
    pub(crate) fn of(catalog: Catalog) -> Self {
        Self { catalog, address: Ipv4Addr::LOCALHOST.into() }
    }

    pub(crate) async fn get(&self, path_and_query: &str) -> Answer {
        self.request(Method::GET, path_and_query, &[]).await
    }

    /// `path_and_query` is below the stream, or absolute.
    pub(crate) async fn request(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(HeaderName, &'static str)],
    ) -> Answer {
        let path_and_query = match path_and_query.starts_with('/') {
            true => path_and_query.to_owned(),
            false => format!("/hls/{}/{path_and_query}", id()),
        };
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&path_and_query[..], None),
        };
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let head = Head::new(&method, path, query, &HeaderMap::from_iter(headers));
        Answer::of(respond(&self.catalog, self.address, &head).await).await
    }
}

pub(crate) fn media_playlist(rendition: &str) -> String {
    format!("{SESSION}/{rendition}/index.m3u8")
}

/// A media playlist, with these delivery directives.
pub(crate) fn reload(rendition: &str, directives: &str) -> String {
    format!("{}?{directives}", media_playlist(rendition))
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// The service behind a connection of HTTP/1.1, as the role that mounts it does.
pub(crate) async fn serve(catalog: Catalog, connection: DuplexStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let catalog = catalog.clone();
        async move {
            let uri = request.uri();
            let head = Head::new(request.method(), uri.path(), uri.query(), request.headers());
            Ok::<_, Infallible>(respond(&catalog, Ipv4Addr::LOCALHOST.into(), &head).await)
        }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
    // A test that is over hangs up, whatever is still being sent.
    drop(served);
}

/// Polls once: whether the request is still held.
pub(crate) async fn is_held<T>(mut request: Pin<&mut impl Future<Output = T>>) -> bool {
    poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_pending())).await
}
