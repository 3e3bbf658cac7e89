//! When the publisher is asked for a keyframe (PLI, RFC 4585, §6.3.1): a browser sends none by itself. Pure.

use std::time::{Duration, Instant};

/// Between two requests, whoever wants them: a keyframe costs the publisher's line ten ordinary pictures.
const REQUEST_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// How old the newest group may become where it is read in segments: what LL-HLS cuts them at, and workers.
pub(super) const GROUP_AGE_MAX: Duration = Duration::from_secs(2);

/// The same where all who watch do so by WebRTC, if anybody does: who joins asks for one.
pub(super) const GROUP_AGE_ALONE_MAX: Duration = Duration::from_secs(4);

/// So many requests without an answer, and the publisher is one that sends keyframes when it likes to, as OBS does. It
/// is asked only if nothing can be decoded, or a viewer waits.
const IGNORED_MAX: u32 = 2;

#[derive(Debug)]
pub(super) struct Keyframes {
    /// Since when there is a group, or was media without one.
    group_began: Option<Instant>,
    requested: Option<Instant>,
    /// Somebody cannot go on without one.
    wanted: bool,
    unanswered: u32,
    group_age_max: Duration,
}

impl Keyframes {
    pub(super) fn new() -> Self {
        Self { group_began: None, requested: None, wanted: true, unanswered: 0, group_age_max: GROUP_AGE_MAX }
    }

    /// Media came, a keyframe or not.
    pub(super) fn picture(&mut self, key: bool, now: Instant) {
        if key {
            (self.group_began, self.wanted, self.unanswered) = (Some(now), false, 0);
        } else {
            self.group_began.get_or_insert(now);
        }
    }

    /// Nothing can be decoded, or a viewer cannot begin, without one.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// How old the newest group may become from now on.
    pub(super) fn limit(&mut self, group_age_max: Duration) {
        self.group_age_max = group_age_max;
    }

    /// When [`Keyframes::take_due`], if nothing else happens; `None` while there is no media.
    pub(super) fn due(&self) -> Option<Instant> {
        let earliest = self.requested.map(|requested| requested + REQUEST_INTERVAL_MIN);
        let began = self.group_began;
        let due = if self.wanted {
            began.or(earliest)
        } else if self.unanswered >= IGNORED_MAX {
            None
        } else {
            began.map(|began| began + self.group_age_max)
        };
        due.max(earliest.filter(|_| due.is_some()))
    }

    /// Whether to ask now; then it counts as asked.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.due().is_some_and(|due| now >= due);
        if due {
            self.requested = Some(now);
            self.unanswered = self.unanswered.saturating_add(1);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 30 pictures a second for `seconds`; at which milliseconds the publisher is asked, and answers `delay_ms` later.
    fn requests(seconds: u64, delay_ms: Option<u64>, wants_at: &[u64]) -> Vec<u64> {
        let (start, mut keyframes) = (Instant::now(), Keyframes::new());
        let (mut asked, mut answer_at) = (Vec::new(), None);
        for millis in (0..seconds * 1_000).step_by(33) {
            let now = start + Duration::from_millis(millis);
            let key = answer_at.is_some_and(|at| millis >= at);
            if key {
                answer_at = None;
            }
            keyframes.picture(key, now);
            if wants_at.iter().any(|at| (millis..millis + 33).contains(at)) {
                keyframes.want();
            }
            if keyframes.take_due(now) {
                asked.push(millis);
                answer_at = delay_ms.map(|delay| millis + delay);
            }
        }
        asked
    }

    #[test]
    fn a_browser_is_asked_as_often_as_segments_want_it() {
        let times = requests(11, Some(50), &[]);
        assert_eq!(times.first(), Some(&0), "for the first picture at once");
        assert_eq!(times.len(), 6, "{times:?}");
        assert!(times.windows(2).all(|two| (2_000..2_150).contains(&(two[1] - two[0]))), "{times:?}");
    }

    #[test]
    fn a_hundred_viewers_at_once_are_one_request_a_second() {
        let wants: Vec<_> = (3_000..3_900).step_by(9).collect();
        let times = requests(6, Some(300), &wants);
        assert!(times.windows(2).all(|two| two[1] - two[0] >= 1_000), "{times:?}");
        assert!((4..=6).contains(&times.len()), "{times:?}");
    }

    /// A keyframe is ten ordinary pictures: the publisher's line is spared where nobody cuts at them.
    #[test]
    fn who_is_watched_by_webrtc_alone_is_asked_half_as_often() {
        let (start, mut keyframes) = (Instant::now(), Keyframes::new());
        let later = |millis| start + Duration::from_millis(millis);
        keyframes.picture(true, start);
        keyframes.limit(GROUP_AGE_ALONE_MAX);
        assert_eq!(keyframes.due(), Some(later(4_000)));
        keyframes.limit(GROUP_AGE_MAX);
        assert!(!keyframes.take_due(later(1_999)) && keyframes.take_due(later(2_000)));
        keyframes.picture(true, later(2_050));
        keyframes.limit(GROUP_AGE_ALONE_MAX);
        keyframes.want();
        assert!(keyframes.take_due(later(3_000)), "who joins does not wait for it");
    }

    /// OBS sends a keyframe when its settings say so. Until there was a first one it is asked all the same.
    #[test]
    fn who_does_not_answer_is_left_alone_unless_nothing_can_be_decoded() {
        let never = requests(10, None, &[]);
        assert_eq!(never.len(), 10, "once a second: nothing can be shown");
        let (start, mut keyframes) = (Instant::now(), Keyframes::new());
        keyframes.picture(true, start);
        let later = |seconds| start + Duration::from_secs(seconds);
        let asked = (0..60).filter(|&second| keyframes.take_due(later(second))).count();
        assert_eq!(asked, 2);
        keyframes.want();
        assert!(keyframes.take_due(later(61)));
        keyframes.picture(true, later(62));
        assert!(keyframes.take_due(later(64)), "it does answer");
    }
}
