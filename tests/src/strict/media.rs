//! A media playlist, read in one pass.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;

use super::attributes::Attributes;
use super::{Violation, integer, lines, relative_uri, seconds};

#[derive(Debug, Clone, PartialEq)]
pub struct MediaPlaylist {
    pub version: u64,
    pub independent_segments: bool,
    /// In whole seconds, as the tag has it.
    pub target_duration: u64,
    pub part_target: Option<Duration>,
    pub server_control: ServerControl,
    pub media_sequence: u64,
    /// As the tag has it: of the oldest segment, skipped or not.
    pub discontinuity_sequence: u64,
    /// Of a delta update: how many of the oldest segments it leaves out. Zero makes it a full playlist.
    pub skipped: u64,
    /// Without the skipped ones, oldest first. Only the last may be unfinished: it then has parts, but no EXTINF yet.
    pub segments: Vec<Segment>,
    pub preload_hint: Option<String>,
    pub rendition_reports: Vec<RenditionReport>,
    pub ended: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerControl {
    pub can_block_reload: bool,
    pub can_skip_until: Option<Duration>,
    pub hold_back: Option<Duration>,
    pub part_hold_back: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub msn: u64,
    pub program_date_time: Option<Timestamp>,
    /// How many discontinuities came before its first byte since the stream began: the header's number, and the tags.
    pub discontinuity_sequence: u64,
    pub gap: bool,
    /// URI of the initialization segment that applies; carried over from segment to segment, but not from what a delta
    /// update skips.
    pub map: Option<String>,
    pub parts: Vec<Part>,
    /// EXTINF and URI, once the segment is complete.
    pub finished: Option<(Duration, String)>,
}

impl Segment {
    /// No part of it can be fetched; a segment is a gap if a single one of its parts is.
    pub fn has_only_gaps(&self) -> bool {
        self.parts.iter().all(|part| part.gap) && (self.gap || self.finished.is_none())
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub uri: String,
    pub duration: Duration,
    pub independent: bool,
    pub gap: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RenditionReport {
    pub uri: String,
    pub last_msn: u64,
    pub last_part: Option<u64>,
}

impl MediaPlaylist {
    /// # Errors
    /// The first thing that is not as §4 wants it, or that this server has no reason to write.
    pub fn parse(text: &str) -> Result<Self, Violation> {
        let mut reader = Reader::default();
        for (line, text) in lines(text)? {
            reader.read(line, text)?;
        }
        reader.finish()
    }

    /// The newest thing in the playlist: segment, and part if it lists parts for it. None while it is empty.
    #[must_use]
    pub fn edge(&self) -> Option<(u64, Option<u64>)> {
        let last = self.segments.last()?;
        Some((last.msn, last.parts.len().checked_sub(1).map(|part| part as u64)))
    }

    /// The farthest segment that may be waited for (rfc8216bis §6.2.5.2): two past the last complete one. `None` if there is none
    /// yet.
    #[must_use]
    pub fn farthest(&self) -> Option<u64> {
        let newest = self.segments.last()?;
        Some(newest.msn + if newest.finished.is_some() { 2 } else { 1 })
    }

    #[must_use]
    pub fn segment(&self, msn: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.msn == msn)
    }

    /// The sum of all EXTINF.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.segments.iter().filter_map(Segment::duration).sum()
    }
}

impl Segment {
    /// EXTINF; None while the segment grows.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.finished.as_ref().map(|(duration, _)| *duration)
    }

    #[must_use]
    pub fn parts_duration(&self) -> Duration {
        self.parts.iter().map(|part| part.duration).sum()
    }
}

#[derive(Default)]
struct Reader {
    seen: HashSet<String>,
    place: Place,
    version: Option<u64>,
    independent_segments: bool,
    target_duration: Option<u64>,
    part_target: Option<Duration>,
    server_control: Option<ServerControl>,
    media_sequence: u64,
    discontinuity_sequence: u64,
    /// The tags so far.
    discontinuities: u64,
    skipped: u64,
    segments: Vec<Segment>,
    map: Option<String>,
    preload_hint: Option<String>,
    rendition_reports: Vec<RenditionReport>,
    ended: bool,

    // What was read since the last segment's URI, about the segment that follows.
    program_date_time: Option<Timestamp>,
    discontinuity: bool,
    gap: bool,
    parts: Vec<Part>,
    duration: Option<Duration>,
}

/// The order we hold playlists to; each place may be skipped, none may be returned to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Tags about the whole playlist.
    #[default]
    Header,
    Segments,
    /// EXT-X-PRELOAD-HINT: it names what follows the last part.
    Hint,
    Reports,
    End,
}

impl Reader {
    fn read(&mut self, line: usize, text: &str) -> Result<(), Violation> {
        if !text.starts_with('#') {
            return self.segment_uri(line, text);
        }
        let (tag, value) = match text.split_once(':') {
            Some((tag, value)) => (tag, Some(value)),
            None => (text, None),
        };
        if self.duration.is_some() {
            return Err(Violation::at_line(line, format!("{tag} stands between EXTINF and its URI")));
        }
        let place = match tag {
            "#EXT-X-VERSION"
            | "#EXT-X-INDEPENDENT-SEGMENTS"
            | "#EXT-X-TARGETDURATION"
            | "#EXT-X-SERVER-CONTROL"
            | "#EXT-X-PART-INF"
            | "#EXT-X-MEDIA-SEQUENCE"
            | "#EXT-X-DISCONTINUITY-SEQUENCE" => Place::Header,
            "#EXT-X-SKIP"
            | "#EXT-X-MAP"
            | "#EXT-X-PROGRAM-DATE-TIME"
            | "#EXT-X-DISCONTINUITY"
            | "#EXT-X-GAP"
            | "#EXT-X-PART"
            | "#EXTINF" => Place::Segments,
            "#EXT-X-PRELOAD-HINT" => Place::Hint,
            "#EXT-X-RENDITION-REPORT" => Place::Reports,
            "#EXT-X-ENDLIST" => Place::End,
            _ => return Err(Violation::at_line(line, format!("{tag} is not a tag of our media playlists"))),
        };
        if place < self.place {
            return Err(Violation::at_line(line, format!("{tag} comes too late, after {:?}", self.place)));
        }
        self.place = place;
        if matches!(place, Place::Header | Place::End) && !self.seen.insert(tag.to_owned()) {
            return Err(Violation::at_line(line, format!("{tag} appears twice")));
        }

        let value = match (tag, value) {
            (
                "#EXT-X-INDEPENDENT-SEGMENTS" | "#EXT-X-DISCONTINUITY" | "#EXT-X-GAP" | "#EXT-X-ENDLIST",
                None,
            ) => "",
            ("#EXT-X-INDEPENDENT-SEGMENTS" | "#EXT-X-DISCONTINUITY" | "#EXT-X-GAP" | "#EXT-X-ENDLIST", _) => {
                return Err(Violation::at_line(line, format!("{tag} takes no value")));
            }
            (_, Some(value)) => value,
            (_, None) => return Err(Violation::at_line(line, format!("{tag} needs a value"))),
        };
        match tag {
            "#EXT-X-VERSION" => self.version = Some(integer(line, value)?),
            "#EXT-X-INDEPENDENT-SEGMENTS" => self.independent_segments = true,
            "#EXT-X-TARGETDURATION" => self.target_duration = Some(integer(line, value)?),
            "#EXT-X-SERVER-CONTROL" => self.server_control = Some(server_control(line, value)?),
            "#EXT-X-PART-INF" => self.part_target = Some(part_inf(line, value)?),
            "#EXT-X-MEDIA-SEQUENCE" => self.media_sequence = integer(line, value)?,
            "#EXT-X-DISCONTINUITY-SEQUENCE" => self.discontinuity_sequence = integer(line, value)?,
            "#EXT-X-SKIP" => self.skip(line, value)?,
            "#EXT-X-MAP" => self.map(line, value)?,
            "#EXT-X-PROGRAM-DATE-TIME" => self.program_date_time(line, value)?,
            "#EXT-X-DISCONTINUITY" => self.discontinuity(line)?,
            "#EXT-X-GAP" => self.gap(line)?,
            "#EXT-X-PART" => self.part(line, value)?,
            "#EXTINF" => self.extinf(line, value)?,
            "#EXT-X-PRELOAD-HINT" => self.preload_hint(line, value)?,
            "#EXT-X-RENDITION-REPORT" => self.rendition_report(line, value)?,
            "#EXT-X-ENDLIST" => self.ended = true,
            _ => unreachable!("the tag was found above"),
        }
        Ok(())
    }

    fn segment_uri(&mut self, line: usize, text: &str) -> Result<(), Violation> {
        let Some(duration) = self.duration.take() else {
            return Err(Violation::at_line(line, "a URI without EXTINF (§4.4.4.1)"));
        };
        let uri = relative_uri(line, text)?;
        self.close(Some((duration, uri)));
        Ok(())
    }

    /// Moves what was collected into a segment.
    fn close(&mut self, finished: Option<(Duration, String)>) {
        let msn = self.media_sequence + self.skipped + self.segments.len() as u64;
        self.discontinuities += u64::from(std::mem::take(&mut self.discontinuity));
        self.segments.push(Segment {
            msn,
            program_date_time: self.program_date_time.take(),
            discontinuity_sequence: self.discontinuity_sequence + self.discontinuities,
            gap: std::mem::take(&mut self.gap),
            map: self.map.clone(),
            parts: std::mem::take(&mut self.parts),
            finished,
        });
    }

    fn skip(&mut self, line: usize, value: &str) -> Result<(), Violation> {
        let mut attributes = Attributes::parse(line, value)?;
        let skipped = attributes.integer("SKIPPED-SEGMENTS")?;
        let skipped = attributes.required("SKIPPED-SEGMENTS", skipped)?;
        // No RECENTLY-REMOVED-DATERANGES: there are no date ranges.
        attributes.finish()?;
        if self.skipped > 0 {
            return Err(Violation::at_line(line, "two EXT-X-SKIP (§4.4.5.2)"));
        }
        let is_first = self.segments.is_empty() && self.parts.is_empty() && self.map.is_none();
        if !is_first || self.discontinuity || self.program_date_time.is_some() || self.gap {
            return Err(Violation::at_line(
                line,
                "EXT-X-SKIP replaces the oldest segments, so it comes before all others",
            ));
        }
        if skipped == 0 {
            return Err(Violation::at_line(line, "EXT-X-SKIP replaces nothing"));
        }
        self.skipped = skipped;
        Ok(())
    }

    fn map(&mut self, line: usize, value: &str) -> Result<(), Violation> {
        self.before_parts(line, "EXT-X-MAP")?;
        let mut attributes = Attributes::parse(line, value)?;
        let uri = attributes.uri("URI")?;
        let uri = attributes.required("URI", uri)?;
        attributes.finish()?;
        if self.map.as_ref() == Some(&uri) {
            return Err(Violation::at_line(line, "EXT-X-MAP says again what applies already"));
        }
        // Where there were only gaps before, nothing of another initialization section was ever there to be played.
        let only_gaps = self.skipped == 0 && self.segments.iter().all(Segment::has_only_gaps);
        if self.map.is_some() && !self.discontinuity && !only_gaps {
            return Err(Violation::at_line(line, "EXT-X-MAP changes without a discontinuity before it"));
        }
        self.map = Some(uri);
        Ok(())
    }

    fn program_date_time(&mut self, line: usize, value: &str) -> Result<(), Violation> {
        self.before_parts(line, "EXT-X-PROGRAM-DATE-TIME")?;
        if self.program_date_time.is_some() {
            return Err(Violation::at_line(line, "two EXT-X-PROGRAM-DATE-TIME for one segment"));
        }
        // §4.4.4.6 wants a time zone and milliseconds, and jiff alone would do without the latter.
        let (stamp, zone) = value.split_at_checked("2026-11-21T08:10:31.151".len()).unwrap_or((value, ""));
        let has_millis = stamp.as_bytes().get("2026-11-21T08:10:31".len()) == Some(&b'.');
        let has_zone = zone == "Z" || zone.len() == "+00:00".len();
        match value.parse::<Timestamp>() {
            Ok(time) if has_millis && has_zone => {
                self.program_date_time = Some(time);
                Ok(())
            }
            _ => Err(Violation::at_line(
                line,
                format!("{value:?} is not date, time with milliseconds and zone (§4.4.4.6)"),
            )),
        }
    }

    fn discontinuity(&mut self, line: usize) -> Result<(), Violation> {
        self.before_parts(line, "EXT-X-DISCONTINUITY")?;
        if std::mem::replace(&mut self.discontinuity, true) {
            return Err(Violation::at_line(line, "two EXT-X-DISCONTINUITY for one segment"));
        }
        Ok(())
    }

    fn gap(&mut self, line: usize) -> Result<(), Violation> {
        if std::mem::replace(&mut self.gap, true) {
            return Err(Violation::at_line(line, "two EXT-X-GAP for one segment"));
        }
        Ok(())
    }

    /// Tags about the start of a segment are useless to players that already loaded its first part.
    fn before_parts(&self, line: usize, tag: &str) -> Result<(), Violation> {
        if self.parts.is_empty() {
            return Ok(());
        }
        Err(Violation::at_line(line, format!("{tag} must come before the first part of its segment")))
    }

    fn part(&mut self, line: usize, value: &str) -> Result<(), Violation> {
        let mut attributes = Attributes::parse(line, value)?;
        let (uri, duration) = (attributes.uri("URI")?, attributes.seconds("DURATION")?);
        let part = Part {
            uri: attributes.required("URI", uri)?,
            duration: attributes.required("DURATION", duration)?,
            independent: attributes.yes("INDEPENDENT")?,
            gap: attributes.yes("GAP")?,
        };
        // No BYTERANGE: one player crashes on it, so every part has its own URI.
        attributes.finish()?;
        if self.part_target.is_none() {
            return Err(Violation::at_line(line, "EXT-X-PART without EXT-X-PART-INF (§4.4.3.7)"));
        }
        self.parts.push(part);
        Ok(())
    }

    fn extinf(&mut self, line: usize, value: &str) -> Result<(), Violation> {
        let Some((duration, title)) = value.split_once(',') else {
            return Err(Violation::at_line(line, "EXTINF needs a comma after the duration (§4.4.4.1)"));
        };
        if !title.is_empty() {
            return Err(Violation::at_line(line, "EXTINF has a title, and we give none"));
        }
        self.duration = Some(seconds(line, duration)?);
        Ok(())
    }

    fn preload_hint(&mut self, line: usize, value: &str) -> Result<(), Violation> {
        let mut attributes = Attributes::parse(line, value)?;
        let kind = attributes.bare("TYPE")?;
        let uri = attributes.uri("URI")?;
        let uri = attributes.required("URI", uri)?;
        if attributes.required("TYPE", kind)? != "PART" {
            return Err(Violation::at_line(line, "only parts are hinted here"));
        }
        attributes.finish()?;
        if self.preload_hint.replace(uri).is_some() {
            return Err(Violation::at_line(line, "two EXT-X-PRELOAD-HINT of TYPE=PART (§4.4.5.3)"));
        }
        Ok(())
    }

    fn rendition_report(&mut self, line: usize, value: &str) -> Result<(), Violation> {
        let mut attributes = Attributes::parse(line, value)?;
        let (uri, last_msn) = (attributes.uri("URI")?, attributes.integer("LAST-MSN")?);
        let report = RenditionReport {
            uri: attributes.required("URI", uri)?,
            last_msn: attributes.required("LAST-MSN", last_msn)?,
            last_part: attributes.integer("LAST-PART")?,
        };
        attributes.finish()?;
        if self.rendition_reports.iter().any(|other| other.uri == report.uri) {
            return Err(Violation::at_line(line, format!("two reports about {}", report.uri)));
        }
        self.rendition_reports.push(report);
        Ok(())
    }

    fn finish(mut self) -> Result<MediaPlaylist, Violation> {
        let missing = |tag: &str| Violation::at("playlist", format!("{tag} is missing"));
        if self.duration.is_some() {
            return Err(Violation::at("the end", "EXTINF without a URI"));
        }
        let has_open_segment = !self.parts.is_empty();
        if has_open_segment {
            self.close(None);
        } else if self.program_date_time.is_some() || self.discontinuity || self.gap {
            return Err(Violation::at("the end", "tags about a segment that does not follow"));
        }
        Ok(MediaPlaylist {
            version: self.version.ok_or_else(|| missing("EXT-X-VERSION"))?,
            independent_segments: self.independent_segments,
            target_duration: self.target_duration.ok_or_else(|| missing("EXT-X-TARGETDURATION"))?,
            part_target: self.part_target,
            server_control: self.server_control.ok_or_else(|| missing("EXT-X-SERVER-CONTROL"))?,
            media_sequence: self.media_sequence,
            discontinuity_sequence: self.discontinuity_sequence,
            skipped: self.skipped,
            segments: self.segments,
            preload_hint: self.preload_hint,
            rendition_reports: self.rendition_reports,
            ended: self.ended,
        })
    }
}

fn server_control(line: usize, value: &str) -> Result<ServerControl, Violation> {
    let mut attributes = Attributes::parse(line, value)?;
    let control = ServerControl {
        can_block_reload: attributes.yes("CAN-BLOCK-RELOAD")?,
        can_skip_until: attributes.seconds("CAN-SKIP-UNTIL")?,
        hold_back: attributes.seconds("HOLD-BACK")?,
        part_hold_back: attributes.seconds("PART-HOLD-BACK")?,
    };
    attributes.finish()?;
    Ok(control)
}

fn part_inf(line: usize, value: &str) -> Result<Duration, Violation> {
    let mut attributes = Attributes::parse(line, value)?;
    let target = attributes.seconds("PART-TARGET")?;
    let target = attributes.required("PART-TARGET", target)?;
    attributes.finish()?;
    Ok(target)
}
