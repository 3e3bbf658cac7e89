//! Any sequence of parts a packager may push gives playlists that keep the rules, read by a parser that shares
//! nothing with the renderer.

use std::collections::{HashMap, HashSet};

use hls::{Part, SegmentStart};
use http::StatusCode;
use proptest::prelude::*;

use crate::fixture::{
    SESSION, Stream, TARGET_DURATION_S, announcement, header, init, media_playlist, part, video,
};

const SECOND: u64 = 1_000_000;
const TARGET_DURATION: u64 = TARGET_DURATION_S as u64 * SECOND;
const PART_TARGET: u64 = 501_000;

/// A media playlist, in microseconds.
#[derive(Debug, Default)]
struct Playlist {
    media_sequence: u64,
    discontinuity_sequence: u64,
    segments: Vec<Segment>,
    /// The one being written; without `duration`.
    open: Segment,
    hint: Option<String>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Segment {
    uri: String,
    duration: u64,
    parts: Vec<(u64, String)>,
    discontinuities: u64,
    gap: bool,
    dated: bool,
    init: Option<String>,
}

impl Playlist {
    /// Strict: an unknown line, a tag out of its place or a second hint fails the test.
    fn parse(text: &str) -> Self {
        let mut playlist = Self::default();
        let mut segment = Segment::default();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#EXTM3U"));
        for line in lines {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            assert!(playlist.hint.is_none() || tag == "#EXT-X-RENDITION-REPORT", "{line} after the hint");
            assert!(!playlist.ended, "{line} after the end");
            match tag {
                "#EXT-X-VERSION" | "#EXT-X-INDEPENDENT-SEGMENTS" => {}
                "#EXT-X-TARGETDURATION" => assert_eq!(value, "4"),
                "#EXT-X-SERVER-CONTROL" => {
                    assert_eq!(value, "CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.000,PART-HOLD-BACK=1.536");
                }
                "#EXT-X-PART-INF" => assert_eq!(value, "PART-TARGET=0.501"),
                "#EXT-X-MEDIA-SEQUENCE" => playlist.media_sequence = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => playlist.discontinuity_sequence = value.parse().unwrap(),
                "#EXT-X-DISCONTINUITY" => {
                    assert!(!segment.dated && segment.init.is_none() && segment.parts.is_empty(), "{text}");
                    segment.discontinuities += 1;
                }
                "#EXT-X-MAP" => segment.init = Some(quoted(value, "URI").into()),
                "#EXT-X-PROGRAM-DATE-TIME" => {
                    assert!(value.ends_with('Z') && value.len() == 24 && segment.parts.is_empty(), "{line}");
                    segment.dated = true;
                }
                "#EXT-X-PART" => {
                    let duration = value.strip_prefix("DURATION=").and_then(|rest| rest.split(',').next());
                    segment.parts.push((micros(duration.unwrap()), quoted(value, "URI").into()));
                }
                "#EXT-X-GAP" => segment.gap = true,
                "#EXTINF" => segment.duration = micros(value.strip_suffix(',').unwrap()),
                "#EXT-X-PRELOAD-HINT" => playlist.hint = Some(quoted(value, "URI").into()),
                "#EXT-X-ENDLIST" => playlist.ended = true,
                uri if !uri.starts_with('#') => {
                    segment.uri = uri.into();
                    playlist.segments.push(std::mem::take(&mut segment));
                }
                _ => panic!("unknown: {line}"),
            }
        }
        playlist.open = segment;
        playlist
    }

    fn duration(&self) -> u64 {
        self.segments.iter().map(|segment| segment.duration).sum()
    }
}

fn quoted<'a>(attributes: &'a str, name: &str) -> &'a str {
    let (_, rest) = attributes.split_once(&format!("{name}=\"")).unwrap();
    rest.split('"').next().unwrap()
}

/// Exactly six decimals, so that no float hides an error.
fn micros(seconds: &str) -> u64 {
    let (whole, fraction) = seconds.split_once('.').unwrap();
    assert_eq!(fraction.len(), 6, "{seconds}");
    whole.parse::<u64>().unwrap() * SECOND + fraction.parse::<u64>().unwrap()
}

#[derive(Debug, Clone)]
struct Planned {
    parts: Vec<u32>,
    discontinuity: bool,
    new_init: bool,
    gap: bool,
    independent: bool,
}

fn planned_segment() -> impl Strategy<Value = Planned> {
    let parts = prop::collection::vec(prop_oneof![4 => 38_300_u32..=45_045, 1 => 1_u32..38_300], 1..=8);
    let flags =
        (prop::bool::weighted(0.1), any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.9));
    (parts, flags).prop_map(|(parts, (discontinuity, new_init, gap, independent))| Planned {
        parts,
        discontinuity,
        new_init: discontinuity && new_init,
        gap,
        independent,
    })
}

/// What was pushed so far, to compare with.
#[derive(Default)]
struct Truth {
    discontinuity_sequences: HashMap<u64, u64>,
    gaps: HashSet<u64>,
    /// By MSN: when a segment left the playlist, and how long it must still be there, in media time.
    unlisted: HashMap<u64, (u64, u64)>,
    durations: HashMap<u64, u64>,
    elapsed: u64,
    longest_playlist: u64,
}

/// P17: with the segments a viewer has, a delta update is the full playlist again; and it reaches beyond the boundary.
async fn check_delta(stream: &Stream, full: &str) {
    const BOUNDARY: u64 = 6 * TARGET_DURATION;
    let delta = stream.get(&format!("{}?_HLS_skip=YES", media_playlist("v"))).await.text();
    let Some((header, kept)) = delta.split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=") else {
        return assert_eq!(delta, full);
    };
    let (skipped, kept) = kept.split_once('\n').unwrap();
    let skipped: usize = skipped.parse().unwrap();
    let header = header.replace("EXT-X-VERSION:9", "EXT-X-VERSION:6");
    let known = full.strip_prefix(&header).unwrap();
    let uris = known.match_indices(".m4s\n").map(|(at, uri)| at + uri.len());
    let known = &known[..uris.take(skipped).last().unwrap()];
    let again = |kept: &str| format!("{header}{known}{kept}") == full;
    // The init segment in force is named again; those who have it need not be told.
    assert!(again(kept) || again(kept.split_once('\n').unwrap().1), "{delta}\nis not\n{full}");

    let segments = Playlist::parse(full).segments;
    let kept: u64 = segments[skipped..].iter().map(|segment| segment.duration).sum();
    assert!(kept >= BOUNDARY, "{kept} of {BOUNDARY}: {delta}");
    assert!(segments[1..skipped].iter().all(|segment| segment.discontinuities == 0), "{full}");
}

async fn check(stream: &Stream, truth: &mut Truth, before: &Playlist, next: (u64, usize)) -> Playlist {
    let text = stream.playlist("v").await;
    check_delta(stream, &text).await;
    let playlist = Playlist::parse(&text);

    // P14: numbers never go back, and every segment's discontinuity sequence is the one it was pushed with.
    assert!(playlist.media_sequence >= before.media_sequence, "{text}");
    assert!(playlist.discontinuity_sequence >= before.discontinuity_sequence, "{text}");
    let mut discontinuity_sequence = playlist.discontinuity_sequence;
    let mut from_end =
        playlist.duration() + playlist.open.parts.iter().map(|(duration, _)| duration).sum::<u64>();
    let segments = playlist.segments.iter().chain([&playlist.open]);
    for (msn, segment) in (playlist.media_sequence..).zip(segments) {
        let is_open = std::ptr::eq(segment, &playlist.open);
        if is_open && segment.parts.is_empty() {
            break;
        }
        assert!(is_open || segment.uri == format!("{msn}.m4s"), "{text}");
        assert!(segment.dated, "P8: {text}");
        discontinuity_sequence += segment.discontinuities;
        assert_eq!(discontinuity_sequence, truth.discontinuity_sequences[&msn], "{msn} in {text}");
        for (number, (duration, uri)) in segment.parts.iter().enumerate() {
            assert_eq!(*uri, format!("{msn}.{number}.m4s"), "{text}");
            assert!(*duration <= PART_TARGET, "P4: {text}");
        }
        if !is_open && !segment.parts.is_empty() {
            let sum: u64 = segment.parts.iter().map(|(duration, _)| duration).sum();
            assert_eq!(sum, segment.duration, "{text}");
            assert!(from_end <= 3 * TARGET_DURATION, "P12: {text}");
        }
        if !is_open && segment.parts.is_empty() {
            assert!(from_end > 3 * TARGET_DURATION, "P12: {text}");
        }
        from_end -= segment.duration;
    }
    assert!(playlist.segments[0].init.is_some() && playlist.segments[0].discontinuities == 0, "P18: {text}");

    // P10: exactly one hint, for what comes next.
    assert_eq!(playlist.hint.as_deref(), Some(format!("{}.{}.m4s", next.0, next.1).as_str()), "{text}");

    // P13: once as long as three target durations, a playlist stays so, and loses segments from its head only.
    // The window is kept in ticks, and each printed duration may be half a microsecond short.
    let rounding = playlist.segments.len() as u64;
    let shortest = 3 * TARGET_DURATION - rounding;
    assert!(before.duration() < 3 * TARGET_DURATION || playlist.duration() >= shortest, "{text}");
    truth.longest_playlist = truth.longest_playlist.max(playlist.duration());
    for segment in &playlist.segments {
        let msn = segment.uri.strip_suffix(".m4s").unwrap().parse().unwrap();
        truth.durations.insert(msn, segment.duration);
    }
    for gone in before.media_sequence..playlist.media_sequence {
        truth.unlisted.insert(gone, (truth.elapsed, truth.durations[&gone] + truth.longest_playlist));
    }
    playlist
}

/// P13: what is listed can be fetched, and what left the playlist for as long as a player may still want it.
async fn check_fetchable(stream: &Stream, truth: &Truth, playlist: &Playlist) {
    let mut wanted: Vec<String> = Vec::new();
    for segment in playlist.segments.iter().chain([&playlist.open]) {
        wanted.extend(segment.init.clone());
        if !segment.gap && !segment.uri.is_empty() {
            wanted.push(segment.uri.clone());
        }
    }
    for file in wanted {
        assert_eq!(stream.get(&format!("{SESSION}/v/{file}")).await.status, StatusCode::OK, "{file}");
    }
    for (msn, (left, stays)) in &truth.unlisted {
        if truth.elapsed < left + stays {
            let expected = if truth.gaps.contains(msn) { StatusCode::NOT_FOUND } else { StatusCode::OK };
            assert_eq!(stream.get(&format!("{SESSION}/v/{msn}.m4s")).await.status, expected, "{msn}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn playlists_keep_the_rules(plan in prop::collection::vec(planned_segment(), 2..60), first_msn in 0_u64..1000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut stream = Stream::starting(header(vec![video()]));
            stream.writer().announce(announcement());
            let mut truth = Truth::default();
            let mut playlist = Playlist { media_sequence: first_msn, ..Playlist::default() };
            let (mut discontinuity_sequence, mut generation) = (7, 0);
            for (msn, planned) in (first_msn..).zip(&plan) {
                discontinuity_sequence += u64::from(planned.discontinuity);
                generation += u32::from(planned.new_init);
                truth.discontinuity_sequences.insert(msn, discontinuity_sequence);
                if planned.gap {
                    truth.gaps.insert(msn);
                }
                for (number, &duration) in planned.parts.iter().enumerate() {
                    let last = number + 1 == planned.parts.len();
                    let template = part(msn, u32::try_from(number).unwrap());
                    stream.push("v", Part {
                        duration,
                        last,
                        gap: planned.gap,
                        independent: planned.independent && number == 0,
                        segment: SegmentStart {
                            discontinuity_sequence,
                            init: init(&format!("{generation:08x}")),
                            ..template.segment.clone()
                        },
                        ..template
                    });
                    truth.elapsed += u64::from(duration) * SECOND / 90_000;
                    if msn > first_msn || last {
                        let next = if last { (msn + 1, 0) } else { (msn, number + 1) };
                        playlist = check(&stream, &mut truth, &playlist, next).await;
                    }
                }
                check_fetchable(&stream, &truth, &playlist).await;
            }
            stream.end();
            let ended = Playlist::parse(&stream.playlist("v").await);
            prop_assert!(ended.ended && ended.hint.is_none());
            Ok(())
        })?;
    }
}
