//! When a request is answered: now, once a part exists, or never. Pure; `http.rs` does the waiting.
//!
//! Source: rfc8216bis §6.2.5.2, "Blocking Playlist Reload", and §6.2.6 for hinted parts.

use crate::segment::Position;

/// The delivery directives of a media playlist request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directives {
    pub reload: Reload,
    /// `_HLS_skip=YES` or `v2`: the viewer has what a delta update leaves out.
    pub skip: bool,
}

/// What a media playlist request asks to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Nothing: the playlist as it is.
    Plain,
    /// `_HLS_msn` alone: the whole segment.
    Segment(u64),
    /// `_HLS_msn` and `_HLS_part`.
    Part(Position),
}

/// A query whose delivery directives contradict themselves. The viewer must change it: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DirectiveError {
    #[error("_HLS_part needs _HLS_msn")]
    PartWithoutMsn,
    #[error("a delivery directive is not a decimal number")]
    NotANumber,
    #[error("a delivery directive is given twice")]
    Twice,
}

/// The newest part of a rendition and what may still follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveEdge {
    /// The newest segment that has a part.
    pub msn: u64,
    /// How many parts it has; at least one.
    pub parts: u32,
    /// No further part follows in it.
    pub complete: bool,
    /// Nothing follows at all: the playlist has ENDLIST.
    pub ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadAnswer {
    Now,
    Hold,
    /// So far ahead that holding would only pin memory: 400.
    TooFarAhead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartAnswer {
    Now,
    Hold,
    /// Neither here nor announced, or announced and withdrawn: 404.
    NotFound,
}

impl Directives {
    /// Reads the directives out of a query; other parameters are the business of whoever put them there.
    ///
    /// # Errors
    /// [`DirectiveError`], all of them to be answered with 400.
    pub fn parse(query: &str) -> Result<Self, DirectiveError> {
        let (mut msn, mut part, mut skip) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "_HLS_msn" => set_once(&mut msn, number(value)?)?,
                "_HLS_part" => {
                    // A part number that does not fit is merely far ahead; it must not read as malformed.
                    let part_number = u32::try_from(number(value)?).unwrap_or(u32::MAX);
                    set_once(&mut part, part_number)?;
                }
                // A value of the future asks for a saving that is not made: the full playlist is right for anybody.
                "_HLS_skip" => set_once(&mut skip, matches!(value, "YES" | "v2"))?,
                _ => {}
            }
        }
        let reload = match (msn, part) {
            (None, None) => Reload::Plain,
            (Some(msn), None) => Reload::Segment(msn),
            (Some(msn), Some(part)) => Reload::Part(Position { msn, part }),
            (None, Some(_)) => return Err(DirectiveError::PartWithoutMsn),
        };
        Ok(Self { reload, skip: skip.unwrap_or(false) })
    }
}

impl Reload {
    /// Whether the playlist that ends at `edge` answers this reload. `advance_limit` is
    /// [`advance_part_limit`] of the rendition.
    pub fn decide(self, edge: LiveEdge, advance_limit: u32) -> ReloadAnswer {
        // An ended playlist never changes again, so waiting for any of it is pointless (R7).
        if edge.ended {
            return ReloadAnswer::Now;
        }
        match self {
            Self::Plain => ReloadAnswer::Now,
            Self::Segment(msn) if msn < edge.msn || (msn == edge.msn && edge.complete) => ReloadAnswer::Now,
            Self::Segment(msn) => edge.hold_for_segment(msn),
            Self::Part(wanted) => edge.decide_part(wanted, advance_limit),
        }
    }
}

impl LiveEdge {
    /// The newest part.
    pub fn last(self) -> Position {
        Position { msn: self.msn, part: self.parts.saturating_sub(1) }
    }

    /// The part that follows: what the preload hint names. `None` once nothing follows.
    pub fn next(self) -> Option<Position> {
        match (self.ended, self.complete) {
            (true, _) => None,
            (false, true) => Some(self.after()),
            (false, false) => Some(Position { msn: self.msn, part: self.parts }),
        }
    }

    /// The first part of the segment after the newest, whether one comes or not.
    pub(crate) fn after(self) -> Position {
        Position { msn: self.msn.saturating_add(1), part: 0 }
    }

    /// A request for the part `wanted`, which is `present` or not. Only the hinted part is waited for: any other
    /// that is not here is a guess.
    pub fn part_answer(self, wanted: Position, present: bool) -> PartAnswer {
        if present {
            PartAnswer::Now
        } else if self.next() == Some(wanted) {
            PartAnswer::Hold
        } else {
            PartAnswer::NotFound
        }
    }

    fn decide_part(self, wanted: Position, advance_limit: u32) -> ReloadAnswer {
        if wanted.msn < self.msn || (wanted.msn == self.msn && wanted.part < self.parts) {
            return ReloadAnswer::Now;
        }
        if wanted.msn == self.msn && self.complete {
            // Past the last part of a finished segment means the first part of the next one (R3).
            return ReloadAnswer::Hold;
        }
        // Parts between the newest and the wanted one. Of a segment that has not begun, at least the parts
        // before the wanted one are missing.
        let ahead = match wanted.msn == self.msn {
            true => u64::from(wanted.part) + 1 - u64::from(self.parts),
            false => u64::from(wanted.part) + 1,
        };
        if ahead > u64::from(advance_limit) {
            return ReloadAnswer::TooFarAhead;
        }
        self.hold_for_segment(wanted.msn)
    }

    /// Two past the last complete segment is as far as a playlist can be asked to look (R5).
    fn hold_for_segment(self, msn: u64) -> ReloadAnswer {
        let farthest = self.msn.saturating_add(if self.complete { 2 } else { 1 });
        if msn > farthest { ReloadAnswer::TooFarAhead } else { ReloadAnswer::Hold }
    }
}

/// How many parts ahead of the newest a reload may ask for: the Advance Part Limit of rfc8216bis §6.2.5.2,
/// three seconds of parts, or three parts if they are longer than a second.
pub fn advance_part_limit(part_target_ms: u32) -> u32 {
    match part_target_ms {
        1..1000 => 3000_u32.div_ceil(part_target_ms),
        _ => 3,
    }
}

fn number(text: &str) -> Result<u64, DirectiveError> {
    // `parse` alone would let a sign through.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DirectiveError::NotANumber);
    }
    text.parse().map_err(|_| DirectiveError::NotANumber)
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), DirectiveError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DirectiveError::Twice),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ReloadAnswer::{Hold, Now, TooFarAhead};
    use super::*;

    /// Half-second parts: six of them are three seconds.
    const LIMIT: u32 = 6;

    /// Segment 10 is being written and has parts 0, 1 and 2.
    const OPEN: LiveEdge = LiveEdge { msn: 10, parts: 3, complete: false, ended: false };
    /// Segment 10 is finished with four parts.
    const COMPLETE: LiveEdge = LiveEdge { msn: 10, parts: 4, complete: true, ended: false };
    const ENDED: LiveEdge = LiveEdge { msn: 10, parts: 4, complete: true, ended: true };

    fn check(edge: LiveEdge, cases: &[(&str, ReloadAnswer)]) {
        for (query, expected) in cases {
            let reload = Directives::parse(query).unwrap().reload;
            assert_eq!(reload.decide(edge, LIMIT), *expected, "{query} at {edge:?}");
        }
    }

    #[test]
    fn r1_holds_until_the_part_or_anything_later_exists() {
        check(
            OPEN,
            &[
                ("", Now),
                ("_HLS_msn=10&_HLS_part=0", Now),
                ("_HLS_msn=10&_HLS_part=2", Now),
                ("_HLS_msn=10&_HLS_part=3", Hold),
                ("_HLS_msn=11&_HLS_part=0", Hold),
                // Left the playlist long ago: the whole current one is the answer.
                ("_HLS_msn=0&_HLS_part=0", Now),
            ],
        );
    }

    #[test]
    fn r2_msn_alone_waits_for_the_whole_segment() {
        check(OPEN, &[("_HLS_msn=9", Now), ("_HLS_msn=10", Hold), ("_HLS_msn=11", Hold)]);
        check(COMPLETE, &[("_HLS_msn=10", Now), ("_HLS_msn=11", Hold)]);
    }

    #[test]
    fn r3_a_part_past_the_last_of_a_segment_is_the_first_of_the_next() {
        check(COMPLETE, &[("_HLS_msn=10&_HLS_part=4", Hold), ("_HLS_msn=10&_HLS_part=99999999999", Hold)]);
        let next_began = LiveEdge { msn: 11, parts: 1, complete: false, ended: false };
        check(next_began, &[("_HLS_msn=10&_HLS_part=4", Now), ("_HLS_msn=10&_HLS_part=99", Now)]);
    }

    #[test]
    fn r4_a_part_without_an_msn_is_refused() {
        assert_eq!(Directives::parse("_HLS_part=1"), Err(DirectiveError::PartWithoutMsn));
        for query in ["_HLS_msn=", "_HLS_msn", "_HLS_msn=+1", "_HLS_msn=-1", "_HLS_msn=1e3", "_HLS_msn=%31"] {
            assert_eq!(Directives::parse(query), Err(DirectiveError::NotANumber), "{query}");
        }
        assert_eq!(Directives::parse("_HLS_msn=18446744073709551616"), Err(DirectiveError::NotANumber));
        assert_eq!(Directives::parse("_HLS_msn=1&_HLS_msn=2"), Err(DirectiveError::Twice));
    }

    #[test]
    fn r5_far_ahead_is_refused_at_once() {
        check(
            OPEN,
            &[
                // Segment 9 is the last complete one.
                ("_HLS_msn=11", Hold),
                ("_HLS_msn=12", TooFarAhead),
                ("_HLS_msn=18446744073709551615", TooFarAhead),
                // Part 2 is the newest: 8 is six ahead.
                ("_HLS_msn=10&_HLS_part=8", Hold),
                ("_HLS_msn=10&_HLS_part=9", TooFarAhead),
                ("_HLS_msn=11&_HLS_part=5", Hold),
                ("_HLS_msn=11&_HLS_part=6", TooFarAhead),
            ],
        );
        check(COMPLETE, &[("_HLS_msn=12", Hold), ("_HLS_msn=13", TooFarAhead)]);
    }

    #[test]
    fn r5_the_advance_part_limit_is_three_seconds_or_three_parts() {
        for (part_target_ms, limit) in [(200, 15), (501, 6), (512, 6), (999, 4), (1000, 3), (5000, 3), (0, 3)]
        {
            assert_eq!(advance_part_limit(part_target_ms), limit, "{part_target_ms} ms");
        }
    }

    #[test]
    fn r7_an_ended_playlist_answers_everything_at_once() {
        check(ENDED, &[("_HLS_msn=11&_HLS_part=0", Now), ("_HLS_msn=10", Now), ("_HLS_msn=99999", Now)]);
    }

    #[test]
    fn r8_a_skip_is_asked_for_by_yes_or_v2_and_never_waited_for() {
        for (value, expected) in
            [("YES", true), ("v2", true), ("yes", false), ("NO", false), ("v3", false), ("", false)]
        {
            let directives = Directives::parse(&format!("_HLS_skip={value}")).unwrap();
            assert_eq!(directives, Directives { reload: Reload::Plain, skip: expected }, "{value}");
        }
        check(OPEN, &[("_HLS_skip=YES", Now), ("_HLS_msn=10&_HLS_part=3&_HLS_skip=v2", Hold)]);
        assert_eq!(Directives::parse("_HLS_skip=YES&_HLS_skip=YES"), Err(DirectiveError::Twice));
    }

    #[test]
    fn r9_only_the_hinted_part_is_held() {
        let part = |msn, part| Position { msn, part };
        assert_eq!(OPEN.part_answer(part(10, 3), false), PartAnswer::Hold);
        assert_eq!(COMPLETE.part_answer(part(11, 0), false), PartAnswer::Hold);
        assert_eq!(OPEN.part_answer(part(10, 2), true), PartAnswer::Now);
        // The segment was closed short of the part that had been hinted.
        assert_eq!(COMPLETE.part_answer(part(10, 4), false), PartAnswer::NotFound);
        assert_eq!(ENDED.part_answer(part(11, 0), false), PartAnswer::NotFound);
    }

    #[test]
    fn r10_an_unknown_part_that_is_not_hinted_is_not_found() {
        for (msn, part) in [(10, 4), (11, 0), (12, 0), (0, 0), (u64::MAX, u32::MAX)] {
            assert_eq!(OPEN.part_answer(Position { msn, part }, false), PartAnswer::NotFound, "{msn}.{part}");
        }
    }

    #[test]
    fn r11_other_parameters_are_left_alone() {
        let directives = Directives::parse("_HLS_msn=4&token=a%3Db&_HLS_part=1&x&=&_HLS_push=1");
        let reload = Reload::Part(Position { msn: 4, part: 1 });
        assert_eq!(directives, Ok(Directives { reload, skip: false }));
    }

    proptest! {
        /// Threat: bytes of a stranger. Nothing in a query may panic, and what is held is always near the edge.
        #[test]
        fn any_query_is_answered(
            query in "(_HLS_(msn|part|skip)=(YES|v2|[0-9]{0,21})|[ -~]{0,12}|&){0,6}",
            msn: u64,
            parts in 1_u32..,
            complete: bool,
        ) {
            let edge = LiveEdge { msn, parts, complete, ended: false };
            let Ok(Directives { reload, .. }) = Directives::parse(&query) else { return Ok(()) };
            if reload.decide(edge, LIMIT) == Hold {
                let wanted = match reload {
                    Reload::Plain => unreachable!("a plain reload is never held"),
                    Reload::Segment(msn) | Reload::Part(Position { msn, .. }) => msn,
                };
                prop_assert!(wanted >= edge.msn && wanted - edge.msn <= 2);
            }
        }
    }
}
