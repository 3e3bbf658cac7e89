//! What a viewer's headers make of an answer: encoding, revalidation, ranges. RFC 9110 §12–§14.

use std::ops::Range;

use ::http::header::{ACCEPT_ENCODING, IF_NONE_MATCH, IF_RANGE, RANGE};
use ::http::{HeaderMap, HeaderName, HeaderValue};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RangeAnswer {
    Whole,
    Slice(Range<u64>),
    /// Beyond the end: 416.
    Unsatisfiable,
}

/// Whether gzip is among the accepted encodings, RFC 9110 §12.5.3. A coding named outranks `*`, and a weight of
/// zero refuses; no other weight matters, as plain text is all there is besides.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    for item in list(headers, ACCEPT_ENCODING) {
        let mut fields = item.split(';').map(str::trim);
        let coding = fields.next().unwrap_or_default();
        let refused = fields.any(is_zero_weight);
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            return !refused;
        }
        if coding == "*" {
            any = !refused;
        }
    }
    any
}

/// Whether the viewer holds what `etag` names, by If-None-Match (RFC 9110 §13.1.2, weak comparison).
pub fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    list(headers, IF_NONE_MATCH)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == etag.as_bytes())
}

/// The single byte range asked for, of `bytes` in all. Several ranges, other units and malformed ones are
/// answered with the whole, as RFC 9110 §14.2 allows.
pub(super) fn range(headers: &HeaderMap, etag: &HeaderValue, bytes: u64) -> RangeAnswer {
    if headers.get(IF_RANGE).is_some_and(|version| version != etag) {
        return RangeAnswer::Whole;
    }
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let Some((first, last)) = range.and_then(parse_range) else { return RangeAnswer::Whole };
    let range = match (first, last) {
        (Some(first), Some(last)) if first > last => return RangeAnswer::Whole,
        (Some(first), last) => first..last.map_or(bytes, |last| last.saturating_add(1).min(bytes)),
        (None, Some(suffix)) => bytes.saturating_sub(suffix)..bytes,
        (None, None) => return RangeAnswer::Whole,
    };
    if range.is_empty() { RangeAnswer::Unsatisfiable } else { RangeAnswer::Slice(range) }
}

fn parse_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    Some((position(first)?, position(last)?))
}

/// `Some(None)` if it is left out.
fn position(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Some)
}

fn is_zero_weight(field: &str) -> bool {
    let Some((name, weight)) = field.split_once('=') else { return false };
    name.trim().eq_ignore_ascii_case("q") && weight.trim().parse::<f32>().is_ok_and(|weight| weight == 0.0)
}

/// The items of a list header, over all its lines. None of the headers read here may hold a comma inside an item.
fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn gzip_is_sent_only_to_those_who_accept_it() {
        for value in
            ["gzip", "gzip, deflate, br, zstd", "br;q=1.0, GZIP;q=0.1", "*", "identity, *;q=0.5", "x-gzip"]
        {
            assert!(accepts_gzip(&with(ACCEPT_ENCODING, value)), "{value}");
        }
        for value in
            ["", "identity", "br", "gzip;q=0", "gzip; Q = 0.000, *", "*;q=0", "notgzip", "gzip;q=0,*"]
        {
            assert!(!accepts_gzip(&with(ACCEPT_ENCODING, value)), "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn revalidation_compares_whole_tags() {
        let etag = HeaderValue::from_static("\"a.1\"");
        for value in ["\"a.1\"", "W/\"a.1\"", "\"x\", \"a.1\"", "*"] {
            assert!(is_known(&with(IF_NONE_MATCH, value), &etag), "{value}");
        }
        for value in ["\"a.10\"", "a.1", "\"a.1", ""] {
            assert!(!is_known(&with(IF_NONE_MATCH, value), &etag), "{value}");
        }
    }

    #[test]
    fn single_ranges_are_served() {
        let etag = HeaderValue::from_static("\"a.1\"");
        let cases = [
            ("bytes=0-0", RangeAnswer::Slice(0..1)),
            ("bytes=10-19", RangeAnswer::Slice(10..20)),
            ("bytes=90-", RangeAnswer::Slice(90..100)),
            ("bytes=90-18446744073709551615", RangeAnswer::Slice(90..100)),
            ("bytes=-10", RangeAnswer::Slice(90..100)),
            ("bytes=-1000", RangeAnswer::Slice(0..100)),
            ("bytes=100-", RangeAnswer::Unsatisfiable),
            ("bytes=-0", RangeAnswer::Unsatisfiable),
            ("bytes=5-4", RangeAnswer::Whole),
            ("bytes=0-1,3-4", RangeAnswer::Whole),
            ("bytes=-", RangeAnswer::Whole),
            ("bytes=+1-2", RangeAnswer::Whole),
            ("seconds=0-1", RangeAnswer::Whole),
        ];
        for (value, expected) in cases {
            assert_eq!(range(&with(RANGE, value), &etag, 100), expected, "{value}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_not_served() {
        let etag = HeaderValue::from_static("\"a.1\"");
        let mut headers = with(RANGE, "bytes=0-9");
        headers.insert(IF_RANGE, etag.clone());
        assert_eq!(range(&headers, &etag, 100), RangeAnswer::Slice(0..10));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"a.0\""));
        assert_eq!(range(&headers, &etag, 100), RangeAnswer::Whole);
    }
}
