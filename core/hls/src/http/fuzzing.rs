//! The parsers that a viewer's request reaches, each behind one function, for `fuzz/` and for the replay of what it
//! found; compiled for nothing else. Each says whether it understood the bytes, and panics where a promise is broken.

use ::http::{HeaderMap, HeaderName, HeaderValue};

use super::negotiate::{self, RangeAnswer};
use super::target::{File, Item, Target};
use super::{accepts_gzip, is_known};
use crate::blocking::{Directives, LiveEdge, Reload, ReloadAnswer};
use crate::playlist::filter::{Filter, Selection};
use crate::segment::Position;

/// A query: delivery directives, and which renditions to leave out.
pub fn query(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let directives = Directives::parse(text).map_err(|error| error.to_string());
    if let Ok(Directives { reload, .. }) = directives {
        for (complete, ended) in [(false, false), (true, false), (true, true)] {
            held_for_what_comes_soon(reload, LiveEdge { msn: 7, parts: 3, complete, ended });
            held_for_what_comes_soon(reload, LiveEdge { msn: u64::MAX, parts: u32::MAX, complete, ended });
        }
    }
    let filter = Filter::parse(text).map_err(|error| error.to_string());
    if let Ok(filter) = filter {
        let heights = [360, 480, 1080];
        let selection = filter.select(&heights, true);
        assert!(!matches!(selection, Selection::Video { level, .. } if level >= heights.len()));
        filter.select(&[], false);
    }
    directives.is_ok() && filter.is_ok()
}

/// Whoever is held waits for one of the next two segments: any further, and holding would only pin memory.
fn held_for_what_comes_soon(reload: Reload, edge: LiveEdge) {
    const ADVANCE_PART_LIMIT: u32 = 3;
    if reload.decide(edge, ADVANCE_PART_LIMIT) == ReloadAnswer::Hold {
        let (Reload::Segment(msn) | Reload::Part(Position { msn, .. })) = reload else {
            panic!("nothing was waited for");
        };
        assert!(!edge.ended && msn >= edge.msn && msn - edge.msn <= 2);
    }
}

/// The path of a request below `/hls/`: everything has one spelling.
pub fn path(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let Some(target) = Target::parse(text) else { return false };
    target.kind();
    let stream = target.stream;
    let spelling = match target.item {
        Item::Multivariant => format!("/hls/{stream}/index.m3u8"),
        Item::Rendition { session, name, file } => {
            let file = match file {
                File::Playlist => "index.m3u8".to_owned(),
                File::Part(position) => format!("{position}.m4s"),
                File::Segment(msn) => format!("{msn}.m4s"),
                File::Init(hash) => format!("init-{hash}.mp4"),
            };
            format!("/hls/{stream}/{session}/{name}/{file}")
        }
    };
    assert_eq!(text, spelling);
    true
}

/// Header lines of a request, for bodies of several lengths. Understood when a part of one of them is asked for.
pub fn headers(bytes: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let etag = HeaderValue::from_static("\"a.1\"");
    accepts_gzip(&headers);
    is_known(&headers, &etag);
    let mut sliced = false;
    for length in [0, 1, 100, u64::MAX] {
        if let RangeAnswer::Slice(range) = negotiate::range(&headers, &etag, length) {
            assert!(range.start < range.end && range.end <= length);
            sliced = true;
        }
    }
    sliced
}

#[cfg(test)]
#[path = "../../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("hls_query", query);
    corpus::replay("request_path", path);
    corpus::replay("request_headers", headers);
}
