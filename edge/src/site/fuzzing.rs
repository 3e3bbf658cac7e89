//! What a viewer's path and headers reach before anything is looked up, each behind one function, for `fuzz/` and for
//! the replay of what it found; compiled for nothing else. Each says whether it understood the bytes.

use std::net::Ipv4Addr;

use super::*;

/// A path: the viewing token in it, and what it leads to on a node without streams.
pub fn path(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let path = without_token(text);
    assert!(path.len() <= text.len());
    let catalog = Catalog::new(hls::Metrics::default());
    let site = Site::new(StreamRegistry::default(), catalog, 1935);
    site.get(&path, &HeaderMap::new(), Ipv4Addr::LOCALHOST.into());
    path != text
}

/// The value of an `Authorization` header.
pub fn authorization(bytes: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return false };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    connect::bearer(&headers).is_some()
}

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("request_path", path);
    corpus::replay("request_authorization", authorization);
}
