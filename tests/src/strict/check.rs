//! The rules beyond syntax. Each check adds what it finds; nothing stops at the first.

use std::collections::HashSet;
use std::time::Duration;

use super::{MediaPlaylist, Segment, Violation};

/// EXTINF, part durations and dates are rounded on their own, to a millisecond or finer; that much apart is equal.
const ROUNDING: Duration = Duration::from_millis(1);

/// Sound is cut at the first frame after the picture's boundary: a frame of AAC at 8 kHz is the longest there is.
const DATES_APART_MAX: Duration = Duration::from_millis(128 + 1);

/// Services with longer windows should offer delta updates.
const WINDOW_WITHOUT_SKIP_MAX: Duration = Duration::from_secs(120);

/// Collects violations about one place.
struct Findings {
    found: Vec<Violation>,
}

impl Findings {
    fn expect(&mut self, holds: bool, place: &str, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(Violation::at(place, what()));
        }
    }
}

impl MediaPlaylist {
    /// Everything one playlist must satisfy without knowing another.
    #[must_use]
    pub fn check(&self) -> Vec<Violation> {
        let mut findings = Findings { found: Vec::new() };
        self.check_header(&mut findings);
        self.check_segments(&mut findings);
        self.check_parts(&mut findings);
        self.check_edge(&mut findings);
        findings.found
    }

    fn check_header(&self, findings: &mut Findings) {
        let header = "header";
        findings.expect(self.version >= 6, header, || {
            format!("EXT-X-VERSION {} is below 6, which EXT-X-MAP needs (§8)", self.version)
        });
        findings.expect(self.version >= 9 || self.skipped == 0, header, || {
            format!("EXT-X-VERSION {} is below 9, which EXT-X-SKIP needs (§8)", self.version)
        });
        findings.expect(self.target_duration > 0, header, || "TARGETDURATION is 0".to_owned());
        let target = Duration::from_secs(self.target_duration);
        let control = &self.server_control;
        if let Some(hold_back) = control.hold_back {
            findings.expect(hold_back >= 3 * target, header, || {
                format!("HOLD-BACK {hold_back:?} is below three target durations (§4.4.3.8)")
            });
        }
        match control.can_skip_until {
            Some(skip) => findings.expect(skip >= 6 * target, header, || {
                format!("CAN-SKIP-UNTIL {skip:?} is below six target durations (§4.4.3.8)")
            }),
            // Apple's authoring specification, 14.4.
            None => findings.expect(self.duration() <= WINDOW_WITHOUT_SKIP_MAX, header, || {
                format!("{:?} are listed, and no delta updates offered (Apple 14.4)", self.duration())
            }),
        }
        let Some(part_target) = self.part_target else {
            findings
                .expect(false, header, || "EXT-X-PART-INF is missing: this is not low latency".to_owned());
            return;
        };
        findings.expect(part_target > Duration::ZERO && part_target <= target, header, || {
            format!("PART-TARGET {part_target:?} does not fit the target duration {target:?}")
        });
        findings.expect(control.can_block_reload, header, || "CAN-BLOCK-RELOAD=YES is missing".to_owned());
        match control.part_hold_back {
            Some(hold_back) => findings.expect(hold_back >= 3 * part_target, header, || {
                format!("PART-HOLD-BACK {hold_back:?} is below three part targets (§4.4.3.8)")
            }),
            None => findings.expect(false, header, || "PART-HOLD-BACK is missing (§4.4.3.8)".to_owned()),
        }
    }

    fn check_segments(&self, findings: &mut Findings) {
        let mut uris = HashSet::new();
        for segment in &self.segments {
            let place = place_of(segment);
            findings.expect(segment.map.is_some(), &place, || {
                "no EXT-X-MAP applies, and fragmented MP4 needs one (§4.4.4.5)".to_owned()
            });
            findings.expect(segment.program_date_time.is_some(), &place, || {
                "EXT-X-PROGRAM-DATE-TIME is missing".to_owned()
            });
            if let Some((duration, uri)) = &segment.finished {
                findings.expect(rounded_seconds(*duration) <= self.target_duration, &place, || {
                    format!(
                        "EXTINF {duration:?} rounds above TARGETDURATION {} (§4.4.3.1)",
                        self.target_duration
                    )
                });
                findings.expect(*duration > Duration::ZERO, &place, || "EXTINF is 0".to_owned());
                findings.expect(uris.insert(uri.as_str()), &place, || format!("{uri} is listed twice"));
            }
            findings.expect(!self.independent_segments || starts_independent(segment), &place, || {
                "EXT-X-INDEPENDENT-SEGMENTS, but its first part is not INDEPENDENT (§4.4.2.1)".to_owned()
            });
        }
        for (segment, next) in self.segments.iter().zip(self.segments.iter().skip(1)) {
            check_dates(segment, next, findings);
        }
    }

    fn check_parts(&self, findings: &mut Findings) {
        let Some(part_target) = self.part_target else { return };
        let shortest = part_target.mul_f64(0.85);
        let mut uris = HashSet::new();
        for segment in &self.segments {
            for (index, part) in segment.parts.iter().enumerate() {
                let place = format!("part {}.{index}", segment.msn);
                findings.expect(uris.insert(part.uri.as_str()), &place, || {
                    format!("{} is listed twice", part.uri)
                });
                findings.expect(part.duration <= part_target, &place, || {
                    format!("DURATION {:?} is above PART-TARGET {part_target:?} (§4.4.4.9)", part.duration)
                });
                // The newest part of a growing segment may turn out to be its last. Nothing is known of how long what
                // was lost would have been, or what came before it.
                let next = segment.parts.get(index + 1);
                let may_be_short = part.gap || next.is_none_or(|next| next.gap);
                findings.expect(may_be_short || part.duration >= shortest, &place, || {
                    format!(
                        "DURATION {:?} is below 85 % of PART-TARGET {part_target:?} (§4.4.3.7)",
                        part.duration
                    )
                });
                findings.expect(!(part.gap && part.independent), &place, || {
                    "GAP and INDEPENDENT: nothing is there that could be decoded (§4.4.4.9)".to_owned()
                });
            }
            let has_gap = segment.parts.iter().any(|part| part.gap);
            findings.expect(
                !has_gap || segment.gap || segment.finished.is_none(),
                &place_of(segment),
                || {
                    "a part is GAP, but the segment is not EXT-X-GAP, and cannot be whole (§4.4.4.7)"
                        .to_owned()
                },
            );
            findings.expect(!segment.gap || has_gap || segment.parts.is_empty(), &place_of(segment), || {
                "EXT-X-GAP, but all its parts are there (§4.4.4.7)".to_owned()
            });
            if let (Some(duration), false) = (segment.duration(), segment.parts.is_empty()) {
                let apart = duration.abs_diff(segment.parts_duration());
                findings.expect(
                    apart <= ROUNDING * (segment.parts.len() as u32 + 1),
                    &place_of(segment),
                    || format!("EXTINF {duration:?} and its parts, {:?}, differ", segment.parts_duration()),
                );
            }
        }
        self.check_part_window(findings);
    }

    /// §6.2.2: parts are listed for the last three target durations. They come and go with their segment, so the one
    /// across that line may be listed or not.
    fn check_part_window(&self, findings: &mut Findings) {
        let window = Duration::from_secs(3 * self.target_duration);
        let mut end = Duration::ZERO;
        for segment in self.segments.iter().rev() {
            let start = end + segment.duration().unwrap_or_else(|| segment.parts_duration());
            let place = place_of(segment);
            findings.expect(!segment.parts.is_empty() || start > window, &place, || {
                format!("has no parts, although all of it is in the last {window:?}")
            });
            findings.expect(segment.parts.is_empty() || end <= window, &place, || {
                format!("has parts, although none of it is in the last {window:?}")
            });
            end = start;
        }
    }

    fn check_edge(&self, findings: &mut Findings) {
        let place = "the end";
        if self.ended {
            findings.expect(self.preload_hint.is_none(), place, || {
                "a PRELOAD-HINT after the end (§4.4.5.3)".to_owned()
            });
            let is_open = self.segments.last().is_some_and(|segment| segment.finished.is_none());
            findings
                .expect(!is_open, place, || "ENDLIST, but the last parts belong to no segment".to_owned());
            return;
        }
        let Some(hint) = &self.preload_hint else {
            findings.expect(false, place, || "PRELOAD-HINT is missing".to_owned());
            return;
        };
        let is_there = self.segments.iter().flat_map(|segment| &segment.parts).any(|part| part.uri == *hint);
        findings.expect(!is_there, place, || format!("the hinted part {hint} is already listed"));
    }
}

/// What must hold when `next` is loaded after `previous` from the same address.
#[must_use]
pub fn check_reload(previous: &MediaPlaylist, next: &MediaPlaylist) -> Vec<Violation> {
    let mut findings = Findings { found: Vec::new() };
    let header = "header after reload";
    findings.expect(previous.target_duration == next.target_duration, header, || {
        format!(
            "TARGETDURATION went from {} to {} (§4.4.3.1)",
            previous.target_duration, next.target_duration
        )
    });
    findings.expect(previous.part_target == next.part_target, header, || {
        format!("PART-TARGET went from {:?} to {:?}", previous.part_target, next.part_target)
    });
    findings.expect(previous.server_control == next.server_control, header, || {
        format!("SERVER-CONTROL went from {:?} to {:?}", previous.server_control, next.server_control)
    });
    findings.expect(previous.edge() <= next.edge(), header, || {
        format!("the end went back from {:?} to {:?}", previous.edge(), next.edge())
    });
    findings.expect(!previous.ended || previous.edge() == next.edge() && next.ended, header, || {
        "the playlist changed after ENDLIST (§6.2.1)".to_owned()
    });
    check_removal(previous, next, &mut findings);
    for old in &previous.segments {
        if let Some(new) = next.segment(old.msn) {
            check_same(old, new, &mut findings);
        }
    }
    check_hint_kept(previous, next, &mut findings);
    findings.found
}

/// §6.2.2: segments leave from the head only, and not too early.
fn check_removal(previous: &MediaPlaylist, next: &MediaPlaylist, findings: &mut Findings) {
    let place = "the head after reload";
    findings.expect(previous.media_sequence <= next.media_sequence, place, || {
        format!(
            "MEDIA-SEQUENCE went back from {} to {} (§4.4.3.2)",
            previous.media_sequence, next.media_sequence
        )
    });
    let shortest = Duration::from_secs(3 * next.target_duration);
    findings.expect(
        previous.media_sequence == next.media_sequence || next.duration() >= shortest,
        place,
        || format!("segments were removed although only {:?} remain (§6.2.2)", next.duration()),
    );
}

/// A segment or part, once published, never changes; parts may only be added to the last segment, or leave all together.
fn check_same(old: &Segment, new: &Segment, findings: &mut Findings) {
    let place = format!("{} after reload", place_of(old));
    findings.expect(old.program_date_time == new.program_date_time, &place, || {
        format!("PROGRAM-DATE-TIME went from {:?} to {:?}", old.program_date_time, new.program_date_time)
    });
    // By number, not by tag: the tag may leave with what was before it, and is counted in the header then (§4.4.3.3).
    findings.expect(old.discontinuity_sequence == new.discontinuity_sequence, &place, || {
        format!("went from discontinuity {} to {}", old.discontinuity_sequence, new.discontinuity_sequence)
    });
    findings
        .expect(old.map == new.map, &place, || format!("EXT-X-MAP went from {:?} to {:?}", old.map, new.map));
    findings.expect(old.finished.is_none() || old.finished == new.finished, &place, || {
        format!("went from {:?} to {:?}", old.finished, new.finished)
    });
    findings.expect(old.finished.is_none() || old.gap == new.gap, &place, || {
        format!("EXT-X-GAP went from {} to {}", old.gap, new.gap)
    });
    let parts_left_together = new.parts.is_empty() && old.finished.is_some();
    let parts_grew =
        new.parts.starts_with(&old.parts) && (old.finished.is_none() || old.parts.len() == new.parts.len());
    findings.expect(parts_left_together || parts_grew, &place, || {
        format!("its parts changed from {:?} to {:?}", old.parts, new.parts)
    });
}

/// The part that was hinted is the one that came next (§4.4.5.3): players have asked for it already.
fn check_hint_kept(previous: &MediaPlaylist, next: &MediaPlaylist, findings: &mut Findings) {
    let (Some(hint), Some((msn, last_part))) = (&previous.preload_hint, previous.edge()) else { return };
    let came = last_part
        .and_then(|part| next.segment(msn)?.parts.get(part as usize + 1))
        .or_else(|| next.segment(msn + 1)?.parts.first());
    if let Some(came) = came {
        findings.expect(came.uri == *hint, "the end after reload", || {
            format!("{} came where {hint} was hinted", came.uri)
        });
    }
}

/// What the playlists of one presentation must agree on (§6.2.4), each given with the name it goes by in words.
#[must_use]
pub fn check_presentation(playlists: &[(&str, &MediaPlaylist)]) -> Vec<Violation> {
    let mut findings = Findings { found: Vec::new() };
    let Some(((first_name, first), others)) = playlists.split_first() else { return findings.found };
    for (name, other) in others {
        let place = format!("{first_name} and {name}");
        findings.expect(first.target_duration == other.target_duration, &place, || {
            format!("TARGETDURATION {} and {}", first.target_duration, other.target_duration)
        });
        findings.expect(first.server_control == other.server_control, &place, || {
            format!("SERVER-CONTROL {:?} and {:?}", first.server_control, other.server_control)
        });
        for segment in &first.segments {
            let Some(twin) = other.segment(segment.msn) else { continue };
            let place = format!("{place}, {}", place_of(segment));
            if let (Some(date), Some(twin_date)) = (segment.program_date_time, twin.program_date_time) {
                let apart = Duration::try_from(date.duration_since(twin_date).abs()).unwrap_or_default();
                findings.expect(apart <= DATES_APART_MAX, &place, || {
                    format!("dates are {apart:?} apart, {date} and {twin_date} (§6.2.4)")
                });
            }
            let numbers = (segment.discontinuity_sequence, twin.discontinuity_sequence);
            findings.expect(numbers.0 == numbers.1, &place, || {
                format!("discontinuities {} and {}", numbers.0, numbers.1)
            });
            // One grid of (msn, part): a player that switches rendition continues with the same numbers.
            if segment.finished.is_some() && twin.finished.is_some() {
                let counts = (segment.parts.len(), twin.parts.len());
                findings.expect(counts.0 == counts.1 || counts.0 == 0 || counts.1 == 0, &place, || {
                    format!("{} parts and {} parts", counts.0, counts.1)
                });
            }
        }
    }
    for (name, playlist) in playlists {
        let expected = playlists.len() - 1;
        findings.expect(playlist.rendition_reports.len() == expected || playlist.ended, name, || {
            format!("{} rendition reports, not {expected} (§4.4.5.4)", playlist.rendition_reports.len())
        });
        let Some((msn, part)) = playlist.edge() else { continue };
        for report in &playlist.rendition_reports {
            findings.expect((report.last_msn, report.last_part) == (msn, part), name, || {
                format!(
                    "reports {} at {}.{:?}, but is itself at {msn}.{part:?}",
                    report.uri, report.last_msn, report.last_part
                )
            });
        }
    }
    findings.found
}

fn place_of(segment: &Segment) -> String {
    format!("segment {}", segment.msn)
}

fn starts_independent(segment: &Segment) -> bool {
    segment.gap || segment.parts.first().is_none_or(|part| part.independent || part.gap)
}

/// "Rounded to the nearest integer", half up.
fn rounded_seconds(duration: Duration) -> u64 {
    (duration + Duration::from_millis(500)).as_secs()
}

/// Within one timeline the dates follow from the durations.
fn check_dates(segment: &Segment, next: &Segment, findings: &mut Findings) {
    let (Some(date), Some(next_date)) = (segment.program_date_time, next.program_date_time) else { return };
    let place = place_of(next);
    findings.expect(next_date > date, &place, || format!("its date {next_date} is not after {date}"));
    let Some(duration) = segment.duration() else { return };
    if next.discontinuity_sequence != segment.discontinuity_sequence {
        return;
    }
    let elapsed = Duration::try_from(next_date.duration_since(date)).unwrap_or_default();
    findings.expect(elapsed.abs_diff(duration) <= 2 * ROUNDING, &place, || {
        format!("its date is {elapsed:?} after the one before, whose EXTINF is {duration:?}")
    });
}
