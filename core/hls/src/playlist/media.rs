//! The media playlist of one rendition, as text. A plain function of the segments it lists.
//!
//! Rules P1–P18 in the tests' names are those of `CONFORMANCE.md`.

use std::fmt::Write;
use std::ops::Range;
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
    /// CAN-SKIP-UNTIL; `None` offers no delta updates.
    pub(crate) skip_boundary_ms: Option<u32>,
    pub(crate) timescale: Timescale,
    /// The window, oldest first; the last one may still be growing.
    pub(crate) segments: &'a [Arc<Segment>],
    /// The other renditions of the stream.
    pub(crate) siblings: &'a [RenditionName],
    pub(crate) ended: bool,
}

/// First lines of a full playlist. EXT-X-MAP in an ordinary media playlist needs version 6 (rfc8216bis §8), and no
/// tag of low latency needs more.
const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:6\n";

impl MediaPlaylist<'_> {
    /// The full playlist, and what a delta update of it leaves out.
    pub(crate) fn render(&self) -> (String, Option<Skip>) {
        let mut text = String::with_capacity(4096);
        let skip = self.write(&mut text).expect("writing to a string cannot fail");
        (text, skip)
    }

    fn write(&self, out: &mut String) -> Result<Option<Skip>, std::fmt::Error> {
        self.write_header(out)?;
        let with_parts = self.segments_with_parts();
        let skipped = self.skipped_segments();
        let (skip_from, mut skip) = (out.len(), None);
        let mut previous: Option<&Segment> = None;
        for (index, segment) in self.segments.iter().enumerate() {
            if let Some(last_skipped) = previous.filter(|_| index == skipped) {
                skip = Some(Skip::new(skipped, skip_from..out.len(), last_skipped, segment));
            }
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
        self.write_tail(out)?;
        Ok(skip)
    }

    fn write_header(&self, out: &mut String) -> std::fmt::Result {
        let hold_back = Millis(self.part_hold_back_ms);
        let part_target = Millis(self.part_target_ms);
        out.push_str(HEAD);
        writeln!(out, "#EXT-X-TARGETDURATION:{}", self.target_duration_s)?;
        write!(out, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES")?;
        if let Some(boundary) = self.skip_boundary_ms {
            write!(out, ",CAN-SKIP-UNTIL={}", Millis(boundary))?;
        }
        writeln!(out, ",PART-HOLD-BACK={hold_back}")?;
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
            out.push_str(&map_tag(init));
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

    /// How many of the oldest segments a delta update leaves out: those that end at the skip boundary or before it,
    /// measured from the end of the last complete segment (rfc8216bis §6.2.5.1).
    ///
    /// None at or after a discontinuity. The draft would allow it, but shaka numbers discontinuities from the header
    /// and the tags it sees, and would give segments after a skipped one the number of another timeline.
    fn skipped_segments(&self) -> usize {
        let (Some(boundary_ms), false) = (self.skip_boundary_ms, self.ended) else { return 0 };
        // In durations as printed, so that a player adding them up finds the rule kept to the last digit.
        let boundary = 1000 * u64::from(boundary_ms);
        let mut from_end = 0;
        let complete = self.segments.iter().rev().skip_while(|segment| !segment.complete);
        let beyond = complete
            .skip_while(|segment| {
                let kept = from_end < boundary;
                from_end += Seconds::from_ticks(segment.duration, self.timescale).micros;
                kept
            })
            .count();
        let sequence = |segment: &Arc<Segment>| segment.start.discontinuity_sequence;
        let timeline =
            self.segments.iter().take_while(|segment| sequence(segment) == sequence(&self.segments[0]));
        beyond.min(timeline.count())
    }

    /// Parts are listed within three target durations of the end, rfc8216bis §6.2.2, and for whole segments only:
    /// players take the first part they see as the start of its segment.
    fn segments_with_parts(&self) -> Range<usize> {
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

/// What a delta update leaves out of the full playlist: a run of its text, rfc8216bis §4.4.5.2.
#[derive(Debug)]
pub(crate) struct Skip {
    segments: usize,
    text: Range<usize>,
    /// EXT-X-MAP, if it was left out although it applies to what follows.
    map: String,
}

impl Skip {
    fn new(segments: usize, text: Range<usize>, last_skipped: &Segment, first_kept: &Segment) -> Self {
        // Players should carry it over from what they have, and shaka does not: without it here, every segment it
        // learns of from a delta update lacks its init segment. Said twice it means the same to all.
        let init = &first_kept.start.init.hash;
        let map = if last_skipped.start.init.hash == *init { map_tag(init) } else { String::new() };
        Self { segments, text, map }
    }

    /// The delta update of the playlist that was rendered with this. EXT-X-SKIP needs version 9, rfc8216bis §8.
    ///
    /// It answers `_HLS_skip=v2`, too: there are no date ranges that a v2 update could leave out.
    pub(crate) fn delta(&self, full: &str) -> String {
        let (header, kept) = (&full[HEAD.len()..self.text.start], &full[self.text.end..]);
        let Self { segments, map, .. } = self;
        format!("#EXTM3U\n#EXT-X-VERSION:9\n{header}#EXT-X-SKIP:SKIPPED-SEGMENTS={segments}\n{map}{kept}")
    }
}

fn map_tag(init: &str) -> String {
    format!("#EXT-X-MAP:URI=\"init-{init}.mp4\"\n")
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
mod tests;
