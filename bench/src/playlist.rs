//! As much of a playlist as it takes to follow it. Whether it is right is checked elsewhere, in `tests/src/strict`.

use harness::http::resolve;

/// The paths of all renditions of the multivariant playlist at `path`.
pub(crate) fn renditions(path: &str, text: &str) -> Vec<String> {
    let uris = text.lines().filter_map(|line| match line.split_once("URI=\"") {
        Some((_, rest)) => rest.split('"').next(),
        None => (!line.starts_with('#') && !line.is_empty()).then_some(line),
    });
    let mut paths: Vec<_> = uris.map(|uri| resolve(path, uri)).collect();
    paths.sort();
    // The variant of a stream without video is its audio rendition, listed twice.
    paths.dedup();
    paths
}

/// The names of the parts that have media, oldest first.
pub(crate) fn parts(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let parts = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PART:"));
    parts.filter(|attributes| !attributes.contains("GAP=YES")).filter_map(quoted_uri)
}

/// The names of the segments that have media, oldest first.
pub(crate) fn segments(text: &str) -> impl Iterator<Item = &str> {
    let mut gap = false;
    text.lines().filter(move |line| {
        let uri = !line.starts_with('#') && !line.is_empty();
        let of_a_gap = uri && std::mem::take(&mut gap);
        gap |= *line == "#EXT-X-GAP";
        uri && !of_a_gap
    })
}

/// MSN and number of the part that comes next; `None` once the stream is over.
pub(crate) fn hinted(text: &str) -> Option<(u64, u64)> {
    let name =
        text.lines().find_map(|line| quoted_uri(line.strip_prefix("#EXT-X-PRELOAD-HINT:TYPE=PART,")?))?;
    let mut numbers = name.split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

pub(crate) fn is_ended(text: &str) -> bool {
    text.lines().any(|line| line == "#EXT-X-ENDLIST")
}

/// In seconds.
pub(crate) fn target_duration(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:")?.parse().ok())
}

fn quoted_uri(attributes: &str) -> Option<&str> {
    attributes.split_once("URI=\"")?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_not_asked_for() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n6.m4s\n#EXT-X-GAP\n#EXTINF:2.0,\n7.m4s\n\
            #EXT-X-PART:DURATION=0.5,URI=\"8.0.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.5,URI=\"8.1.m4s\",GAP=YES\n\
            #EXTINF:2.0,\n8.m4s\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.0.m4s\"\n";
        assert_eq!(parts(text).collect::<Vec<_>>(), ["8.0.m4s"]);
        assert_eq!(segments(text).collect::<Vec<_>>(), ["6.m4s", "8.m4s"]);
        assert_eq!(hinted(text), Some((9, 0)));
        assert_eq!(target_duration(text), Some(2));
        assert!(!is_ended(text) && is_ended("#EXT-X-ENDLIST\n"));
    }

    #[test]
    fn a_rendition_is_followed_once() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"s/a/index.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=1\ns/v/index.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1\ns/a/index.m3u8\n";
        let paths = ["/hls/live/cam/s/a/index.m3u8", "/hls/live/cam/s/v/index.m3u8"];
        assert_eq!(renditions("/hls/live/cam/index.m3u8", text), paths);
    }
}
