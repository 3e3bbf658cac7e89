//! What a path names. Each thing has exactly one spelling; every other is not found, or caches would keep copies
//! of it without end.

use media::SessionId;

use crate::metrics::RequestKind;
use crate::segment::Position;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// `{app}/{stream}`, not checked: the catalog knows which names exist.
    pub(super) stream: &'a str,
    pub(super) item: Item<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Multivariant,
    Rendition { session: SessionId, name: &'a str, file: File<'a> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum File<'a> {
    Playlist,
    Part(Position),
    Segment(u64),
    /// By content hash.
    Init(&'a str),
}

impl<'a> Target<'a> {
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/hls/")?;
        let (app, rest) = split(path)?;
        let (name, rest) = split(rest)?;
        let stream = path.get(..app.len() + 1 + name.len())?;
        let item = match split(rest) {
            None if rest == "index.m3u8" => Item::Multivariant,
            None => return None,
            Some((session, rest)) => {
                let (name, file) = split(rest)?;
                Item::Rendition { session: session.parse().ok()?, name, file: File::parse(file)? }
            }
        };
        Some(Self { stream, item })
    }

    pub(super) fn kind(&self) -> RequestKind {
        match self.item {
            Item::Multivariant => RequestKind::Multivariant,
            Item::Rendition { file: File::Playlist, .. } => RequestKind::MediaPlaylist,
            Item::Rendition { file: File::Part(_), .. } => RequestKind::Part,
            Item::Rendition { file: File::Segment(_), .. } => RequestKind::Segment,
            Item::Rendition { file: File::Init(_), .. } => RequestKind::Init,
        }
    }
}

impl<'a> File<'a> {
    fn parse(file: &'a str) -> Option<Self> {
        if file == "index.m3u8" {
            return Some(Self::Playlist);
        }
        if let Some(init) = file.strip_prefix("init-") {
            return init.strip_suffix(".mp4").map(Self::Init);
        }
        let number = file.strip_suffix(".m4s")?;
        match number.split_once('.') {
            None => canonical(number).map(Self::Segment),
            Some((msn, part)) => {
                let part = u32::try_from(canonical(part)?).ok()?;
                Some(Self::Part(Position { msn: canonical(msn)?, part }))
            }
        }
    }
}

/// At the first slash. `split_once` looks for it in words of memory, which costs more than names are long.
fn split(path: &str) -> Option<(&str, &str)> {
    let slash = path.bytes().position(|byte| byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

/// A decimal number as we write it: no sign, no leading zero.
fn canonical(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if digits && !leading_zero { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "/hls/live/cam1/00000000000000ab/v";

    #[test]
    fn each_item_has_one_spelling() {
        let file = |file: &str| match Target::parse(&format!("{BASE}/{file}"))?.item {
            Item::Rendition { name: "v", file, .. } => Some(format!("{file:?}")),
            other => panic!("{other:?}"),
        };
        assert_eq!(file("index.m3u8").as_deref(), Some("Playlist"));
        assert_eq!(file("0.m4s").as_deref(), Some("Segment(0)"));
        assert_eq!(file("17.4.m4s").as_deref(), Some("Part(Position { msn: 17, part: 4 })"));
        assert_eq!(file("init-c0ffee.mp4").as_deref(), Some("Init(\"c0ffee\")"));
        let others = [
            "",
            "/",
            "Index.m3u8",
            "index.m3u8/",
            "index.m3u8x",
            "index.m3u",
            "01.m4s",
            "+1.m4s",
            "1.00.m4s",
            "1.m4s.m4s",
            "1.2.3.m4s",
            ".m4s",
            "1..m4s",
            ".1.m4s",
            "1.-1.m4s",
            "%31.m4s",
            "1.m4s/..",
            "18446744073709551616.m4s",
            "1.4294967296.m4s",
            "init-x",
            "init.mp4",
            "a/b",
        ];
        for other in others {
            assert_eq!(file(other), None, "{other:?}");
        }
    }

    #[test]
    fn paths_have_no_room_for_anything_else() {
        let stream = |path| Target::parse(path).map(|target| (target.stream, target.item));
        assert_eq!(stream("/hls/live/cam1/index.m3u8"), Some(("live/cam1", Item::Multivariant)));
        let others = [
            "",
            "/",
            "/hls",
            "/hls/",
            "/hls/live",
            "/hls/live/cam1",
            "/hls/live/cam1/",
            "hls/live/cam1/index.m3u8",
            "//hls/live/cam1/index.m3u8",
            "/hls/live/cam1/x/index.m3u8",
            "/hls/live/cam1//index.m3u8",
            "/hls/live/cam1/00000000000000AB/v/index.m3u8",
            "/hls/live/cam1/ab/v/index.m3u8",
            "/hls/live/cam1/00000000000000ab/index.m3u8",
        ];
        for other in others {
            assert_eq!(stream(other), None, "{other:?}");
        }
    }

    proptest! {
        /// Threat: bytes of a stranger.
        #[test]
        fn any_path_is_parsed(path in "(/hls/)?[a-z/.0-9-]{0,40}|\\PC{0,40}") {
            let _ = Target::parse(&path);
        }
    }
}
