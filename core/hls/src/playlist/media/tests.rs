//! Golden playlists, and one test a rule.

use ::http::HeaderValue;
use bytes::Bytes;
use media::cmaf::Init;

use super::*;
use crate::segment::{SegmentStart, StoredPart};

/// 2026-11-21T08:00:00Z.
const NOON_MS: i64 = 1_795_248_000_000;

fn part(duration: u32, independent: bool) -> StoredPart {
    let etag = HeaderValue::from_static("\"\"");
    StoredPart { duration, independent, gap: false, last: false, body: Vec::new().into(), bytes: 0, etag }
}

fn gap(duration: u32) -> StoredPart {
    StoredPart { gap: true, ..part(duration, false) }
}

/// Segments of four half-second parts follow each other every two seconds.
fn segment(msn: u64, parts: Vec<StoredPart>) -> Segment {
    Segment {
        msn,
        start: SegmentStart {
            program_date_time_ms: NOON_MS + 2000 * i64::try_from(msn).unwrap(),
            discontinuity_sequence: 0,
            init: Arc::new(Init { bytes: Bytes::new(), hash: "c0ffee".into() }),
        },
        duration: parts.iter().map(|part| u64::from(part.duration)).sum(),
        parts: parts.into_iter().map(Arc::new).collect(),
        bytes: 0,
        complete: true,
        etag: HeaderValue::from_static("\"\""),
    }
}

fn two_seconds(msn: u64) -> Segment {
    segment(msn, vec![part(45_000, true), part(45_000, false), part(45_000, false), part(45_000, false)])
}

fn open(segment: Segment) -> Segment {
    Segment { complete: false, ..segment }
}

fn render(segments: Vec<Segment>) -> String {
    rendered(segments, |_| {})
}

fn rendered(segments: Vec<Segment>, change: impl FnOnce(&mut MediaPlaylist<'_>)) -> String {
    forms(segments, change).0
}

/// The full playlist, and its delta update if there is one.
fn forms(segments: Vec<Segment>, change: impl FnOnce(&mut MediaPlaylist<'_>)) -> (String, Option<String>) {
    let segments: Vec<_> = segments.into_iter().map(Arc::new).collect();
    let siblings = ["a".parse().unwrap()];
    let mut playlist = MediaPlaylist {
        target_duration_s: 4,
        part_target_ms: 501,
        part_hold_back_ms: 1536,
        skip_boundary_ms: Some(24_000),
        timescale: Timescale::VIDEO,
        segments: &segments,
        siblings: &siblings,
        ended: false,
    };
    change(&mut playlist);
    let (full, skip) = playlist.render();
    let delta = skip.map(|skip| skip.delta(&full));
    (full, delta)
}

fn lines<'a>(playlist: &'a str, tag: &str) -> Vec<&'a str> {
    playlist.lines().filter(|line| line.starts_with(tag)).collect()
}

#[test]
fn golden_live() {
    let newest = open(segment(9, vec![part(45_000, true), part(45_000, false)]));
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.000,PART-HOLD-BACK=1.536
#EXT-X-PART-INF:PART-TARGET=0.501
#EXT-X-MEDIA-SEQUENCE:8
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI=\"init-c0ffee.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:16.000Z
#EXT-X-PART:DURATION=0.500000,URI=\"8.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.500000,URI=\"8.1.m4s\"
#EXT-X-PART:DURATION=0.500000,URI=\"8.2.m4s\"
#EXT-X-PART:DURATION=0.500000,URI=\"8.3.m4s\"
#EXTINF:2.000000,
8.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:18.000Z
#EXT-X-PART:DURATION=0.500000,URI=\"9.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.500000,URI=\"9.1.m4s\"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.2.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"../a/index.m3u8\",LAST-MSN=9,LAST-PART=1
";
    assert_eq!(render(vec![two_seconds(8), newest]), expected);
}

#[test]
fn golden_ended() {
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.000,PART-HOLD-BACK=1.536
#EXT-X-PART-INF:PART-TARGET=0.501
#EXT-X-MEDIA-SEQUENCE:3
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-MAP:URI=\"init-c0ffee.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:06.000Z
#EXT-X-PART:DURATION=0.500000,URI=\"3.0.m4s\",INDEPENDENT=YES
#EXTINF:0.500000,
3.m4s
#EXT-X-ENDLIST
";
    let last = segment(3, vec![part(45_000, true)]);
    assert_eq!(rendered(vec![last], |playlist| playlist.ended = true), expected);
}

#[test]
fn golden_gap_and_return() {
    let lost = segment(6, vec![gap(45_000)]);
    let mut back = open(segment(7, vec![part(45_000, true)]));
    back.start.discontinuity_sequence = 1;
    back.start.program_date_time_ms += 123;
    let playlist = render(vec![two_seconds(5), lost, back]);
    let from_the_gap = playlist.split_once("5.m4s\n").unwrap().1;
    let expected = "\
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:12.000Z
#EXT-X-PART:DURATION=0.500000,URI=\"6.0.m4s\",GAP=YES
#EXT-X-GAP
#EXTINF:0.500000,
6.m4s
#EXT-X-DISCONTINUITY
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:14.123Z
#EXT-X-PART:DURATION=0.500000,URI=\"7.0.m4s\",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"7.1.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"../a/index.m3u8\",LAST-MSN=7,LAST-PART=0
";
    assert_eq!(from_the_gap, expected);
}

#[test]
fn p1_control_attributes_do_not_depend_on_the_rendition() {
    let video = render(vec![two_seconds(0)]);
    let audio = rendered(vec![two_seconds(0)], |playlist| playlist.part_target_ms = 512);
    let control = |playlist: &str| lines(playlist, "#EXT-X-SERVER-CONTROL").join("\n");
    assert_eq!(control(&video), control(&audio));
}

/// 29.97 fps at 90 kHz: a third of a second is no whole number of anything.
#[test]
fn p4_no_part_is_printed_above_the_target_by_rounding() {
    for (duration, hertz, target_ms) in [(45_045, 90_000, 501), (24_576, 48_000, 512), (9_438, 44_100, 215)] {
        // An odd part first, so that every later end is rounded.
        let mut parts = vec![part(duration - 1001, true)];
        parts.extend((0..20).map(|_| part(duration, false)));
        let segments = vec![segment(0, parts)];
        let playlist = rendered(segments, |playlist| {
            playlist.part_target_ms = target_ms;
            playlist.timescale = Timescale::from_hertz(hertz).unwrap();
        });
        for line in lines(&playlist, "#EXT-X-PART:") {
            let printed: f64 =
                line["#EXT-X-PART:DURATION=".len()..].split(',').next().unwrap().parse().unwrap();
            assert!(printed <= f64::from(target_ms) / 1000.0, "{line}");
        }
    }
}

#[test]
fn p10_there_is_one_hint_for_the_very_next_part() {
    let hint = |segments| lines(&render(segments), "#EXT-X-PRELOAD-HINT").join("|");
    let half = open(segment(9, vec![part(45_000, true), part(45_000, false)]));
    assert_eq!(hint(vec![two_seconds(8), half]), "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.2.m4s\"");
    assert_eq!(hint(vec![two_seconds(8)]), "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.0.m4s\"");
}

#[test]
fn p11_every_other_rendition_is_reported_at_this_ones_position() {
    let siblings = ["a".parse().unwrap(), "v720".parse().unwrap()];
    let segments = [Arc::new(two_seconds(8))];
    let playlist = MediaPlaylist {
        target_duration_s: 4,
        part_target_ms: 501,
        part_hold_back_ms: 1536,
        skip_boundary_ms: Some(24_000),
        timescale: Timescale::VIDEO,
        segments: &segments,
        siblings: &siblings,
        ended: false,
    };
    let expected = [
        "#EXT-X-RENDITION-REPORT:URI=\"../a/index.m3u8\",LAST-MSN=8,LAST-PART=3",
        "#EXT-X-RENDITION-REPORT:URI=\"../v720/index.m3u8\",LAST-MSN=8,LAST-PART=3",
    ];
    assert_eq!(lines(&playlist.render().0, "#EXT-X-RENDITION-REPORT"), expected);
}

#[test]
fn p12_parts_are_listed_within_three_target_durations_of_the_end() {
    let playlist = render((0..14).map(two_seconds).collect());
    let with_parts = lines(&playlist, "#EXT-X-PART:");
    // Twelve seconds are the last six segments.
    assert_eq!((with_parts.len(), with_parts[0].contains("\"8.0.m4s\"")), (24, true), "{playlist}");
    assert_eq!(lines(&playlist, "#EXTINF").len(), 14);
}

#[test]
fn p12_an_open_segment_is_listed_however_long_it_grows() {
    let endless = open(segment(1, vec![part(14 * 90_000, true)]));
    assert_eq!(lines(&render(vec![two_seconds(0), endless]), "#EXT-X-PART:").len(), 1);
}

/// The tag that started the oldest segment has left: it is in the number instead.
#[test]
fn p14_a_discontinuity_that_left_is_counted() {
    let after = |discontinuity_sequence, mut segment: Segment| {
        segment.start.discontinuity_sequence = discontinuity_sequence;
        segment
    };
    let all = render(vec![two_seconds(0), after(1, two_seconds(1)), after(1, two_seconds(2))]);
    assert_eq!(
        lines(&all, "#EXT-X-DISCONTINUITY"),
        ["#EXT-X-DISCONTINUITY-SEQUENCE:0", "#EXT-X-DISCONTINUITY"]
    );
    let moved_on = render(vec![after(1, two_seconds(1)), after(1, two_seconds(2))]);
    assert_eq!(lines(&moved_on, "#EXT-X-DISCONTINUITY"), ["#EXT-X-DISCONTINUITY-SEQUENCE:1"]);
}

#[test]
fn p9_independent_segments_is_claimed_only_while_it_is_true() {
    let claimed = |segments| !lines(&render(segments), "#EXT-X-INDEPENDENT-SEGMENTS").is_empty();
    let continued = |msn| segment(msn, vec![part(45_000, false)]);
    assert!(claimed(vec![two_seconds(0), two_seconds(1)]));
    assert!(!claimed(vec![two_seconds(0), continued(1)]));
    assert!(!claimed(vec![two_seconds(0), open(continued(1))]));
    assert!(claimed(vec![two_seconds(0), segment(1, vec![gap(45_000)]), two_seconds(2)]));
}

/// A start offset contradicts PART-HOLD-BACK, and one player crashes on byte ranges in parts.
#[test]
fn mistake_8_nothing_is_there_that_breaks_players() {
    let (full, delta) = forms((0..14).map(two_seconds).collect(), |_| {});
    for tag in ["EXT-X-START", "BYTERANGE", "PLAYLIST-TYPE"] {
        assert!(!full.contains(tag) && !delta.as_ref().unwrap().contains(tag), "{tag}");
    }
}

/// Its default is three target durations, the least that is allowed.
#[test]
fn p3_hold_back_is_left_at_its_default() {
    let playlist = render(vec![two_seconds(0)]);
    assert_eq!(playlist.matches("HOLD-BACK=").count(), 1, "{playlist}");
    assert!(playlist.contains(",PART-HOLD-BACK=1.536\n"), "{playlist}");
}

#[test]
fn p9_a_part_says_independent_if_it_starts_with_a_keyframe() {
    let playlist = render(vec![segment(3, vec![part(45_000, false), part(45_000, true), gap(45_000)])]);
    let attributes = |line: &str| line.split_once("m4s\"").unwrap().1.to_owned();
    let parts: Vec<_> = lines(&playlist, "#EXT-X-PART:").into_iter().map(attributes).collect();
    assert_eq!(parts, ["", ",INDEPENDENT=YES", ",GAP=YES"]);
}

#[test]
fn p10_nothing_is_hinted_after_the_end() {
    let playlist = rendered(vec![two_seconds(0)], |playlist| playlist.ended = true);
    assert!(!playlist.contains("PRELOAD-HINT") && playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
}

fn delta(segments: Vec<Segment>) -> Option<String> {
    forms(segments, |_| {}).1
}

#[test]
fn golden_delta() {
    let newest = open(segment(16, vec![part(45_000, true)]));
    let segments: Vec<_> = (2..16).map(two_seconds).chain([newest]).collect();
    let (full, delta) = forms(segments, |_| {});
    let (head, tail) = full.split_once("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:08.000Z\n").unwrap();
    let expected_head = "\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:4
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=24.000,PART-HOLD-BACK=1.536
#EXT-X-PART-INF:PART-TARGET=0.501
#EXT-X-MEDIA-SEQUENCE:2
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-SKIP:SKIPPED-SEGMENTS=2
#EXT-X-MAP:URI=\"init-c0ffee.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:08.000Z
#EXTINF:2.000000,
4.m4s
";
    let expected = format!("{expected_head}{}", tail.split_once("4.m4s\n").unwrap().1);
    assert_eq!(delta.unwrap(), expected);
    assert!(head.contains("#EXT-X-VERSION:6\n") && head.ends_with("3.m4s\n"), "{head}");
}

#[test]
fn p16_skipping_is_offered_where_the_window_reaches_beyond_six_target_durations() {
    let control = |boundary| {
        let playlist = rendered(vec![two_seconds(0)], |playlist| playlist.skip_boundary_ms = boundary);
        lines(&playlist, "#EXT-X-SERVER-CONTROL").concat()
    };
    assert!(control(Some(24_000)).contains(",CAN-SKIP-UNTIL=24.000,"));
    assert!(!control(None).contains("SKIP"));
}

#[test]
fn p16_only_a_delta_update_needs_version_9() {
    let (full, delta) = forms((0..14).map(two_seconds).collect(), |_| {});
    assert_eq!(lines(&full, "#EXT-X-VERSION"), ["#EXT-X-VERSION:6"]);
    assert_eq!(lines(&delta.unwrap(), "#EXT-X-VERSION"), ["#EXT-X-VERSION:9"]);
}

/// The open segment lies beyond the end that counts: with it, one more would be skipped, and a player that is half a
/// boundary behind would miss it.
#[test]
fn p17_the_boundary_counts_from_the_end_of_the_last_complete_segment() {
    let skipped = |segments| delta(segments).map(|delta| lines(&delta, "#EXT-X-SKIP").concat());
    let window = |count| (0..count).map(two_seconds).collect::<Vec<_>>();
    assert_eq!(
        skipped(window(12)),
        None,
        "twelve segments of two seconds reach the boundary, and none lies beyond"
    );
    assert_eq!(skipped(window(13)).as_deref(), Some("#EXT-X-SKIP:SKIPPED-SEGMENTS=1"));
    let mut with_open = window(12);
    with_open.push(open(two_seconds(12)));
    assert_eq!(skipped(with_open), None);
    // A segment across the boundary stays.
    let mut across = window(13);
    across[12] = segment(12, vec![part(44_000, true)]);
    assert_eq!(skipped(across), None);
}

#[test]
fn p17_everything_that_is_not_skipped_remains_and_ends_as_the_full_playlist() {
    let (full, delta) = forms((0..16).map(two_seconds).collect(), |_| {});
    let delta = delta.unwrap();
    let (header, kept) =
        delta.split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=4\n#EXT-X-MAP:URI=\"init-c0ffee.mp4\"\n").unwrap();
    assert!(full.ends_with(kept) && kept.starts_with("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:08.000Z\n"));
    assert!(full.starts_with(&header.replace("VERSION:9", "VERSION:6")), "{header}");
    assert!(header.contains("#EXT-X-MEDIA-SEQUENCE:0\n"), "of the full playlist: {header}");
}

#[test]
fn p17_a_discontinuity_is_never_skipped() {
    let broken = |at, hash: &str| {
        let mut segments: Vec<_> = (0..16).map(two_seconds).collect();
        for segment in &mut segments[at..] {
            segment.start.discontinuity_sequence = 1;
            segment.start.init = Arc::new(Init { bytes: Bytes::new(), hash: hash.into() });
        }
        delta(segments).unwrap()
    };
    // The third segment begins a timeline of its own with an init segment of its own; nothing older is named.
    let delta = broken(2, "decaf");
    let after = "#EXT-X-DISCONTINUITY-SEQUENCE:0\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n\
        #EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-decaf.mp4\"\n#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:04.000Z\n";
    assert!(delta.contains(after), "{delta}");
    // The same, with the init segment going on: it was named in what is skipped.
    let delta = broken(2, "c0ffee");
    assert!(
        delta.contains("=2\n#EXT-X-MAP:URI=\"init-c0ffee.mp4\"\n#EXT-X-DISCONTINUITY\n#EXT-X-PRO"),
        "{delta}"
    );
    // Behind the boundary it is no concern.
    assert!(broken(5, "decaf").contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=4\n"));
}

#[test]
fn r8_an_ended_playlist_has_no_delta_update() {
    let (_, delta) = forms((0..16).map(two_seconds).collect(), |playlist| playlist.ended = true);
    assert_eq!(delta, None);
}
