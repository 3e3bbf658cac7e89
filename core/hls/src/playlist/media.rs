//! The media playlist of one rendition, as text. A plain function of the segments it lists.
//!
//! Rules P1–P18 in the tests' names are our numbering of what rfc8216bis and Apple's authoring specification
//! demand of a live low-latency playlist.

use std::fmt::Write;
use std::sync::Arc;

use jiff::Timestamp;
use media::Timescale;

use crate::rendition::RenditionName;
use crate::segment::Segment;

/// Everything a media playlist is made of. Equal on every node that holds the same parts: nothing here depends
/// on when, where or for whom it is rendered.
#[derive(Debug)]
pub(crate) struct MediaPlaylist<'a> {
    pub(crate) target_duration_s: u32,
    pub(crate) part_target_ms: u32,
    pub(crate) part_hold_back_ms: u32,
    pub(crate) timescale: Timescale,
    /// The window, oldest first; the last one may still be growing.
    pub(crate) segments: &'a [Arc<Segment>],
    /// The other renditions of the stream.
    pub(crate) siblings: &'a [RenditionName],
    pub(crate) ended: bool,
}

impl MediaPlaylist<'_> {
    pub(crate) fn render(&self) -> String {
        let mut text = String::with_capacity(4096);
        self.write(&mut text).expect("writing to a string cannot fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        self.write_header(out)?;
        let with_parts = self.segments_with_parts();
        let mut previous: Option<&Segment> = None;
        for (index, segment) in self.segments.iter().enumerate() {
            self.write_segment_tags(out, segment, previous)?;
            if with_parts.contains(&index) {
                self.write_parts(out, segment)?;
            }
            if segment.complete {
                if segment.gap() {
                    writeln!(out, "#EXT-X-GAP")?;
                }
                let duration = Seconds::from_ticks(segment.duration, self.timescale);
                writeln!(out, "#EXTINF:{duration},\n{}.m4s", segment.msn)?;
            }
            previous = Some(segment);
        }
        self.write_tail(out)
    }

    fn write_header(&self, out: &mut String) -> std::fmt::Result {
        let hold_back = Millis(self.part_hold_back_ms);
        let part_target = Millis(self.part_target_ms);
        // EXT-X-MAP in an ordinary media playlist needs version 6 (rfc8216bis §8); nothing here needs more.
        writeln!(out, "#EXTM3U\n#EXT-X-VERSION:6")?;
        writeln!(out, "#EXT-X-TARGETDURATION:{}", self.target_duration_s)?;
        writeln!(out, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={hold_back}")?;
        writeln!(out, "#EXT-X-PART-INF:PART-TARGET={part_target}")?;
        if let Some(first) = self.segments.first() {
            writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.msn)?;
            writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", first.start.discontinuity_sequence)?;
        }
        // A gap has no media that could depend on anything.
        if self.segments.iter().all(|segment| segment.gap() || segment.starts_independent()) {
            writeln!(out, "#EXT-X-INDEPENDENT-SEGMENTS")?;
        }
        Ok(())
    }

    /// What applies from this segment on: it stands before the first part, or a player would apply it late.
    ///
    /// The oldest segment carries no DISCONTINUITY. That tag left with the segment before it and is counted in
    /// EXT-X-DISCONTINUITY-SEQUENCE, so the text depends on nothing that is no longer listed.
    fn write_segment_tags(
        &self,
        out: &mut String,
        segment: &Segment,
        previous: Option<&Segment>,
    ) -> std::fmt::Result {
        let discontinuity = previous.is_some_and(|previous| {
            previous.start.discontinuity_sequence != segment.start.discontinuity_sequence
        });
        if discontinuity {
            writeln!(out, "#EXT-X-DISCONTINUITY")?;
        }
        let init = &segment.start.init.hash;
        if previous.is_none_or(|previous| previous.start.init.hash != *init) {
            writeln!(out, "#EXT-X-MAP:URI=\"init-{init}.mp4\"")?;
        }
        // A wall clock beyond the year 9999 is not worth a failure: the segment goes without.
        if let Ok(time) = Timestamp::from_millisecond(segment.start.program_date_time_ms) {
            writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{time:.3}")?;
        }
        Ok(())
    }

    fn write_parts(&self, out: &mut String, segment: &Segment) -> std::fmt::Result {
        let mut end = Seconds::default();
        let mut end_ticks = 0_u64;
        for (number, part) in segment.parts.iter().enumerate() {
            // Differences of rounded ends, not rounded durations: so parts add up to EXTINF to the last digit.
            // And since PART-TARGET is whole milliseconds, no part within it is printed above it.
            let start = end;
            end_ticks += u64::from(part.duration);
            end = Seconds::from_ticks(end_ticks, self.timescale);
            let duration = Seconds { micros: end.micros - start.micros };
            write!(out, "#EXT-X-PART:DURATION={duration},URI=\"{}.{number}.m4s\"", segment.msn)?;
            let attribute = match (part.gap, part.independent) {
                (true, _) => ",GAP=YES",
                (false, true) => ",INDEPENDENT=YES",
                (false, false) => "",
            };
            writeln!(out, "{attribute}")?;
        }
        Ok(())
    }

    fn write_tail(&self, out: &mut String) -> std::fmt::Result {
        if self.ended {
            return writeln!(out, "#EXT-X-ENDLIST");
        }
        let Some(newest) = self.segments.last() else { return Ok(()) };
        let (msn, next) = match newest.complete {
            true => (newest.msn.saturating_add(1), 0),
            false => (newest.msn, newest.parts.len()),
        };
        writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{msn}.{next}.m4s\"")?;
        // All renditions are cut on one grid, so the others are reported to be where this one is. Their true
        // state at this instant would differ from node to node, and be stale when read. A player that comes over
        // early is held until the part is there.
        let last_part = newest.parts.len().saturating_sub(1);
        for name in self.siblings {
            writeln!(
                out,
                "#EXT-X-RENDITION-REPORT:URI=\"../{name}/index.m3u8\",LAST-MSN={},LAST-PART={last_part}",
                newest.msn
            )?;
        }
        Ok(())
    }

    /// Parts are listed within three target durations of the end, rfc8216bis §6.2.2, and for whole segments only:
    /// players take the first part they see as the start of its segment.
    fn segments_with_parts(&self) -> std::ops::Range<usize> {
        // In durations as printed, so that a player adding them up finds the rule kept to the last digit.
        let reach = 3_000_000 * u64::from(self.target_duration_s);
        let mut from_end = 0;
        let listed = self
            .segments
            .iter()
            .rev()
            .take_while(|segment| {
                from_end += Seconds::from_ticks(segment.duration, self.timescale).micros;
                from_end <= reach
            })
            .count();
        // The segment being written is only its parts; it is listed however long it grows.
        let open = usize::from(self.segments.last().is_some_and(|segment| !segment.complete));
        self.segments.len() - listed.max(open)..self.segments.len()
    }
}

/// A span in the notation of a playlist, to the microsecond: finer than any part of ours can be off.
#[derive(Debug, Clone, Copy, Default)]
struct Seconds {
    micros: u64,
}

impl Seconds {
    fn from_ticks(ticks: u64, scale: Timescale) -> Self {
        let hertz = u128::from(scale.hertz());
        let micros = (u128::from(ticks) * 1_000_000 + hertz / 2) / hertz;
        Self { micros: u64::try_from(micros).unwrap_or(u64::MAX) }
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.micros / 1_000_000, self.micros % 1_000_000)
    }
}

struct Millis(u32);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;
    use bytes::Bytes;
    use media::cmaf::Init;

    use super::*;
    use crate::segment::{SegmentStart, StoredPart};

    /// 2026-11-21T08:00:00Z.
    const NOON_MS: i64 = 1_795_248_000_000;

    fn part(duration: u32, independent: bool) -> StoredPart {
        let etag = HeaderValue::from_static("\"\"");
        StoredPart { duration, independent, gap: false, body: Vec::new(), bytes: 0, etag }
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
        let segments: Vec<_> = segments.into_iter().map(Arc::new).collect();
        let siblings = ["a".parse().unwrap()];
        let mut playlist = MediaPlaylist {
            target_duration_s: 4,
            part_target_ms: 501,
            part_hold_back_ms: 1536,
            timescale: Timescale::VIDEO,
            segments: &segments,
            siblings: &siblings,
            ended: false,
        };
        change(&mut playlist);
        playlist.render()
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
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.536
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
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.536
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
        for (duration, hertz, target_ms) in
            [(45_045, 90_000, 501), (24_576, 48_000, 512), (9_438, 44_100, 215)]
        {
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
            timescale: Timescale::VIDEO,
            segments: &segments,
            siblings: &siblings,
            ended: false,
        };
        let expected = [
            "#EXT-X-RENDITION-REPORT:URI=\"../a/index.m3u8\",LAST-MSN=8,LAST-PART=3",
            "#EXT-X-RENDITION-REPORT:URI=\"../v720/index.m3u8\",LAST-MSN=8,LAST-PART=3",
        ];
        assert_eq!(lines(&playlist.render(), "#EXT-X-RENDITION-REPORT"), expected);
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
    fn independent_segments_is_claimed_only_while_it_is_true() {
        let claimed = |segments| !lines(&render(segments), "#EXT-X-INDEPENDENT-SEGMENTS").is_empty();
        let continued = |msn| segment(msn, vec![part(45_000, false)]);
        assert!(claimed(vec![two_seconds(0), two_seconds(1)]));
        assert!(!claimed(vec![two_seconds(0), continued(1)]));
        assert!(!claimed(vec![two_seconds(0), open(continued(1))]));
        assert!(claimed(vec![two_seconds(0), segment(1, vec![gap(45_000)]), two_seconds(2)]));
    }

    /// Mistakes of other servers that cost players dearly: a start offset beside PART-HOLD-BACK, byte ranges in
    /// parts, delta updates that were never offered.
    #[test]
    fn nothing_is_there_that_breaks_players() {
        let playlist = render((0..14).map(two_seconds).collect());
        for tag in ["EXT-X-START", "BYTERANGE", "EXT-X-SKIP", "CAN-SKIP-UNTIL", "PLAYLIST-TYPE"] {
            assert!(!playlist.contains(tag), "{tag}");
        }
    }
}
