//! Headers of answers: those that all have, and those of a playlist, made once for all who get it.

use ::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_ENCODING,
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use ::http::{HeaderMap, HeaderName, HeaderValue};

const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
pub(crate) const ANY: HeaderValue = HeaderValue::from_static("*");
/// Players estimate latency from Date and Age.
const EXPOSED: HeaderValue = HeaderValue::from_static("Date, Age, Content-Length, Content-Range");
const PLAYLIST: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
pub(crate) const ACCEPT_ENCODING_MATTERS: HeaderValue = HeaderValue::from_static("Accept-Encoding");

/// Below half of any target duration, as a playlist that grows wants it; and the longest a 404 may be kept, for
/// what is not there now may be published in a moment.
pub(crate) const BRIEFLY: HeaderValue = HeaderValue::from_static("public, max-age=1");

/// Of one answer, `Connection` by the listener included.
const HEADERS_MAX: usize = 12;

/// Of every answer; with room for the others, so that none is moved to a larger table.
pub(crate) fn common() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(HEADERS_MAX);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(TIMING_ALLOW_ORIGIN, ANY);
    headers
}

/// Of a playlist of `bytes` in one encoding. `alternative`: there is another.
///
/// `Cache-Control` depends on how it is asked for. It is here, too: a clone has no room for one more.
pub(crate) fn of_playlist(
    etag: HeaderValue,
    bytes: usize,
    encoding: Option<&'static str>,
    alternative: bool,
) -> HeaderMap {
    let mut headers = common();
    headers.insert(CACHE_CONTROL, BRIEFLY);
    headers.insert(ETAG, etag);
    if alternative {
        headers.insert(VARY, ACCEPT_ENCODING_MATTERS);
    }
    headers.insert(CONTENT_TYPE, PLAYLIST);
    headers.insert(CONTENT_LENGTH, bytes.into());
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers
}
