//! Delta updates (§6.2.5.1, §6.3.7): put together with what a player has, and compared with what it would have got.

use std::time::Duration;

use super::{MediaPlaylist, Segment, Violation};

impl MediaPlaylist {
    /// The full playlist that this delta update stands for, made as a player makes it: from a version it has.
    ///
    /// # Errors
    /// If `known` lacks something that was skipped.
    pub fn merged(&self, known: &Self) -> Result<Self, Violation> {
        let first_kept = self.media_sequence + self.skipped;
        let mut segments = Vec::new();
        for msn in self.media_sequence..first_kept {
            let place = format!("skipped segment {msn}");
            let segment = known
                .segment(msn)
                .ok_or_else(|| Violation::at(&place, "the version before does not have it"))?;
            if segment.finished.is_none() {
                return Err(Violation::at(&place, "it was not complete in the version before"));
            }
            // Its parts left long ago: they stay for half as long as anything skipped is old.
            segments.push(Segment { parts: Vec::new(), ..segment.clone() });
        }
        if let Some(last_skipped) = segments.last().cloned() {
            // EXT-X-SKIP does not change EXT-X-DISCONTINUITY-SEQUENCE, so tags that were skipped still count.
            let skipped_tags =
                last_skipped.discontinuity_sequence.saturating_sub(self.discontinuity_sequence);
            segments.extend(self.segments.iter().cloned().map(|kept| Segment {
                map: kept.map.or_else(|| last_skipped.map.clone()),
                discontinuity_sequence: kept.discontinuity_sequence + skipped_tags,
                ..kept
            }));
        } else {
            segments.extend(self.segments.iter().cloned());
        }
        Ok(Self { version: known.version, skipped: 0, segments, ..self.clone() })
    }
}

/// What a delta update must satisfy, beside what any playlist must: with `known`, an earlier full playlist, it is `full`,
/// the full playlist of its own version.
#[must_use]
pub fn check_delta(known: &MediaPlaylist, delta: &MediaPlaylist, full: &MediaPlaylist) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            found.push(Violation::at("delta update", what));
        }
    };
    let Some(boundary) = delta.server_control.can_skip_until.filter(|_| delta.skipped > 0) else {
        expect(
            delta.skipped == 0,
            "EXT-X-SKIP, although CAN-SKIP-UNTIL is not offered (§6.2.5.1)".to_owned(),
        );
        expect(delta == full, "skips nothing, and is not the full playlist".to_owned());
        return found;
    };
    expect(!delta.ended, "EXT-X-SKIP after the end (§6.2.5.1)".to_owned());
    // §6.2.5.1: measured from the end of the last complete segment, so parts do not count.
    let kept = delta.duration();
    expect(
        kept >= boundary,
        format!("keeps {kept:?}, and so skips what is within {boundary:?} of the end (§6.2.5.1)"),
    );
    let oldest = delta.segments.first().and_then(Segment::duration).unwrap_or(Duration::ZERO);
    let breaks = delta.segments.first().is_some_and(|first| {
        let before = full.segment(first.msn.saturating_sub(1));
        before.is_some_and(|before| before.discontinuity_sequence != first.discontinuity_sequence)
    });
    expect(
        breaks || kept - oldest.min(kept) < boundary,
        format!("keeps {kept:?}, more than {boundary:?} needs (§6.2.5.1)"),
    );
    match delta.merged(known) {
        Err(violation) => found.push(violation),
        Ok(merged) if merged != *full => {
            found.push(Violation::at(
                "delta update",
                format!("makes {merged:?}, the full playlist is {full:?}"),
            ));
        }
        Ok(_) => {}
    }
    found
}
