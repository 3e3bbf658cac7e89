//! Where a viewer stands: which frame of which rendition it is sent next. Pure.
//!
//! All renditions of a stream have keyframes at the same times. A viewer changes from one to another at such a time `K`: it
//! is sent everything of the old one before `K`, and everything of the new one from `K` on, so that its decoder sees one
//! stream. The source has its keyframe before its rungs have theirs, by the time they take to encode; so where the new one
//! has none yet, the viewer is held for a moment.

use std::time::{Duration, Instant};

use super::ring::{Entry, Found, Ring};

/// The oldest keyframe that a viewer who joins begins with: all frames since are sent at once. After an older one it is better to
/// wait for the next.
const JOIN_AGE_MAX: Duration = Duration::from_millis(2_500);

/// For the keyframe of the new rendition, once the old one has had its own. A rung is this much behind its source if it is in
/// trouble, and a layer of a publisher whose line is; so where that was too short, it is twice as long at the next one.
const HOLD: Duration = Duration::from_millis(250);
const HOLD_MAX: Duration = Duration::from_secs(1);

/// Nothing is held for a rendition of which there was no frame for so long. A still screen may be sent once in a second.
const GONE_AFTER: Duration = Duration::from_millis(1_500);

/// Who flees is sent nothing for so long, or until there is a keyframe: what is under way gets through meanwhile, and the keyframe that
/// a rung was asked for is not of a moment that the viewer is past. Where the rung comes later it is waited for until it is that far.
const QUIET: Duration = Duration::from_millis(500);
/// The same, of video's clock.
const QUIET_TICKS: i64 = 45_000;

/// [`HOLD`] for who flees, and the longest quiet: what the path does not carry is no better than nothing, and a large keyframe of it the
/// worst. A rung that is two seconds behind its source has a gap there, and goes on at its edge (`tidecast-transcode`).
const FLIGHT_HOLD: Duration = Duration::from_millis(2_500);

/// A rendition that was given up may be there again: encoders are started anew, and machines are busy for a while.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A rendition without a frame for so long has stopped; nothing of it is waited for.
const STOPPED_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Place {
    /// `None` before the first frame, and after it lost its place.
    spot: Option<Spot>,
    wanted: usize,
    /// What it is sent the path does not carry, and it is not finished first.
    flees: bool,
    /// There are frames of the one that it flees to, though it has none that the viewer could begin with.
    is_awaiting: bool,
    /// Since when nothing is sent, unless it can go over.
    quiet_since: Option<Instant>,
    /// What was wanted and had nothing to send, and since when something else is wanted.
    given_up: Option<(usize, Instant)>,
    /// PTS of the newest frame that was sent.
    sent: Option<i64>,
    holds_since: Option<Instant>,
    /// For so long it is held at most.
    hold: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Spot {
    rendition: usize,
    next: u64,
}

/// What is to be done for the viewer.
#[derive(Debug)]
pub(crate) enum Next<'a, T> {
    Send(&'a Entry<T>),
    /// Nothing, until another frame comes or, if it is held for one of another rendition, until then.
    Wait(Option<Instant>),
    /// It can begin with nothing that is there.
    WaitForKey,
    /// It was so far behind that frames are gone, and begins anew.
    Lost,
}

impl Place {
    pub(crate) fn new(wanted: usize) -> Self {
        Self {
            spot: None,
            wanted,
            flees: false,
            is_awaiting: false,
            quiet_since: None,
            given_up: None,
            sent: None,
            holds_since: None,
            hold: HOLD,
        }
    }

    /// From the next keyframe on.
    pub(crate) fn want(&mut self, rendition: usize) {
        self.wanted = rendition;
        (self.flees, self.is_awaiting, self.quiet_since) = (false, false, None);
        self.given_up = None;
        (self.holds_since, self.hold) = (None, HOLD);
    }

    /// The renditions are numbered anew: it goes on with the next keyframe behind what it was sent.
    pub(crate) fn begin_anew(&mut self) {
        self.spot = None;
        self.holds_since = None;
    }

    /// It has nothing to send: the next larger one, until it is tried again.
    pub(crate) fn give_up(&mut self, now: Instant) {
        // Of several, one after the other, the first is what the path carries.
        let given_up = self.given_up.map_or(self.wanted, |(first, _)| first);
        self.want(self.wanted.saturating_sub(1));
        self.given_up = Some((given_up, now));
    }

    /// Turns back to what was given up, after a while: more than it would be is more than the path carries.
    pub(crate) fn retry(&mut self, now: Instant) {
        if let Some((given_up, since)) = self.given_up
            && now.saturating_duration_since(since) >= RETRY_AFTER
        {
            self.want(given_up);
            self.flees = true;
        }
    }

    /// From the next keyframe on, and what of the old one is before that and has not been sent is left out: the path does not carry
    /// it, and it would come late.
    pub(crate) fn flee_to(&mut self, rendition: usize, now: Instant) {
        self.want(rendition);
        (self.flees, self.quiet_since) = (true, Some(now));
    }

    /// It flees, and what it flees to comes.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.is_awaiting
    }

    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// The one that it is being sent.
    pub(crate) fn rendition(&self) -> Option<usize> {
        self.spot.map(|spot| spot.rendition)
    }

    /// `renditions`: by number. What is to be sent counts as sent.
    pub(crate) fn next<'a, T>(&mut self, renditions: &'a [Ring<T>], now: Instant) -> Next<'a, T> {
        let Some(spot) = self.spot else { return self.begin(renditions, now) };
        let Some(ring) = renditions.get(spot.rendition) else { return self.begin(renditions, now) };
        let found = ring.get(spot.next);
        if self.wanted != spot.rendition
            && let Some(wanted) = renditions.get(self.wanted)
        {
            let key = wanted.newest_key().filter(|(_, key)| self.sent.is_none_or(|sent| sent < key.pts));
            let comes = wanted.newest().is_some() && !is_gone(wanted, now);
            self.is_awaiting = self.flees && comes;
            let has_stopped = ring
                .newest()
                .is_none_or(|newest| now.saturating_duration_since(newest.arrived) > STOPPED_AFTER);
            match (&found, key) {
                (Found::Entry(entry), Some((number, key))) if self.flees || entry.pts >= key.pts => {
                    return self.send(self.wanted, number, key);
                }
                (Found::NotYet, Some((number, key))) if has_stopped => {
                    return self.send(self.wanted, number, key);
                }
                (Found::Entry(_), None) if self.quiet_until(wanted).is_some_and(|until| now < until) => {
                    return Next::Wait(self.quiet_until(wanted));
                }
                (Found::Entry(entry), None) if entry.key && !is_gone(wanted, now) => {
                    let hold = if self.is_awaiting { FLIGHT_HOLD } else { self.hold };
                    let until = *self.holds_since.get_or_insert(now) + hold;
                    if now < until {
                        return Next::Wait(Some(until));
                    }
                    self.hold = (self.hold * 2).min(HOLD_MAX);
                }
                _ => {}
            }
        }
        match found {
            Found::Entry(entry) => self.send(spot.rendition, spot.next, entry),
            Found::NotYet => Next::Wait(None),
            Found::Gone => {
                self.spot = None;
                Next::Lost
            }
        }
    }

    fn quiet_until<T>(&self, wanted: &Ring<T>) -> Option<Instant> {
        let since = self.quiet_since?;
        let comes = wanted.newest().zip(self.sent).filter(|(newest, sent)| newest.pts < sent + QUIET_TICKS);
        // Only as long as it does come.
        let late = comes.map(|(newest, _)| (newest.arrived + GONE_AFTER).min(since + FLIGHT_HOLD));
        Some(late.map_or(since + QUIET, |late| late.max(since + QUIET)))
    }

    fn begin<'a, T>(&mut self, renditions: &'a [Ring<T>], now: Instant) -> Next<'a, T> {
        let key = renditions.get(self.wanted).and_then(Ring::newest_key);
        let is_new = |key: &Entry<T>| {
            self.sent.is_none_or(|sent| sent < key.pts)
                && now.saturating_duration_since(key.arrived) <= JOIN_AGE_MAX
        };
        match key {
            Some((number, key)) if is_new(key) => self.send(self.wanted, number, key),
            _ => Next::WaitForKey,
        }
    }

    fn send<'a, T>(&mut self, rendition: usize, number: u64, entry: &'a Entry<T>) -> Next<'a, T> {
        self.is_awaiting &= rendition != self.wanted;
        self.spot = Some(Spot { rendition, next: number + 1 });
        self.sent = Some(entry.pts);
        self.holds_since = None;
        Next::Send(entry)
    }
}

/// It had frames, and has none any more.
fn is_gone<T>(rendition: &Ring<T>, now: Instant) -> bool {
    rendition.newest().is_some_and(|newest| now.saturating_duration_since(newest.arrived) > GONE_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(40);
    /// Of 25 frames a second, with a keyframe each second.
    const TICKS: i64 = 3_600;
    const SOURCE: usize = 0;
    const RUNG: usize = 1;

    struct Scene {
        start: Instant,
        renditions: [Ring<()>; 2],
        place: Place,
        told: Vec<(usize, i64)>,
    }

    impl Scene {
        fn new(wanted: usize) -> Self {
            let (start, renditions) = (Instant::now(), [Ring::default(), Ring::default()]);
            Self { start, renditions, place: Place::new(wanted), told: Vec::new() }
        }

        fn at(&self, number: u32) -> Instant {
            self.start + number * FRAME
        }

        /// Frame `number` arrives, `late` after the source would have had it.
        fn frame(&mut self, rendition: usize, number: u32, late: Duration) {
            let arrived = self.at(number) + late;
            let (pts, key) = (i64::from(number) * TICKS, number.is_multiple_of(25));
            self.renditions[rendition].push(Entry { pts, key, arrived, bytes: 1_000, packets: () });
            self.send_all(arrived);
        }

        fn send_all(&mut self, now: Instant) -> Option<Instant> {
            loop {
                match self.place.next(&self.renditions, now) {
                    Next::Send(entry) => {
                        let rendition = self.place.rendition().expect("it is sent one");
                        self.told.push((rendition, entry.pts / TICKS));
                    }
                    Next::Wait(until) => return until,
                    Next::WaitForKey | Next::Lost => return None,
                }
            }
        }

        fn told(&mut self) -> Vec<(usize, i64)> {
            std::mem::take(&mut self.told)
        }
    }

    fn frames(rendition: usize, numbers: std::ops::Range<i64>) -> Vec<(usize, i64)> {
        numbers.map(|number| (rendition, number)).collect()
    }

    #[test]
    fn who_joins_begins_with_the_newest_keyframe_unless_it_is_old() {
        let mut scene = Scene::new(SOURCE);
        scene.place.want(RUNG);
        (0..40).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        assert_eq!(scene.told(), []);
        scene.place.want(SOURCE);
        assert_eq!(scene.send_all(scene.at(40)), None);
        assert_eq!(scene.told(), frames(SOURCE, 25..40));

        let mut old = Scene::new(SOURCE);
        let place = std::mem::replace(&mut old.place, Place::new(RUNG));
        old.frame(SOURCE, 0, Duration::ZERO);
        old.place = place;
        let late = old.at(0) + JOIN_AGE_MAX + FRAME;
        assert!(matches!(old.place.next(&old.renditions, late), Next::WaitForKey));
    }

    /// Down: the source has the keyframe first. Up: the rung has frames to come that the source had long ago.
    #[test]
    fn a_change_of_rendition_leaves_nothing_out_and_sends_nothing_twice() {
        let mut scene = Scene::new(SOURCE);
        let late = FRAME + FRAME / 2;
        let step = |scene: &mut Scene, number: u32| {
            scene.frame(SOURCE, number, Duration::ZERO);
            if let Some(before) = number.checked_sub(1) {
                scene.frame(RUNG, before, late);
            }
        };
        (0..30).for_each(|number| step(&mut scene, number));
        scene.place.want(RUNG);
        (30..60).for_each(|number| step(&mut scene, number));
        scene.place.want(SOURCE);
        (60..90).for_each(|number| step(&mut scene, number));
        let expected = [frames(SOURCE, 0..50), frames(RUNG, 50..75), frames(SOURCE, 75..90)].concat();
        assert_eq!(scene.told(), expected);
    }

    /// A viewer that is behind, as its path is overrun, is not sent the rest of what overruns it.
    #[test]
    fn who_flees_from_a_rendition_leaves_out_what_waits() {
        let mut scene = Scene::new(SOURCE);
        (0..20).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        scene.told();
        scene.place.flee_to(RUNG, scene.at(7));
        scene.frame(SOURCE, 20, Duration::ZERO);
        assert_eq!(scene.told(), [(SOURCE, 20)], "until there is a keyframe, if that takes long");
        // It is paced, and so is not sent these.
        let place = std::mem::replace(&mut scene.place, Place::new(RUNG));
        (21..26).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        scene.frame(RUNG, 25, Duration::ZERO);
        scene.told();
        scene.place = place;
        scene.send_all(scene.at(26));
        assert_eq!(scene.told(), [(RUNG, 25)]);
    }

    /// The rung was asked for a keyframe, and makes it of a picture that the viewer would have been sent by then.
    #[test]
    fn who_flees_is_sent_nothing_for_a_moment_that_it_can_go_over_at_once() {
        let mut scene = Scene::new(SOURCE);
        (0..15).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        scene.told();
        scene.place.flee_to(RUNG, scene.at(15));
        (15..20).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        assert_eq!(scene.send_all(scene.at(20)), Some(scene.at(15) + QUIET), "the rung does not come at all");
        let (pts, arrived) = (16 * TICKS, scene.at(20));
        scene.renditions[RUNG].push(Entry { pts, key: true, arrived, bytes: 1_000, packets: () });
        scene.send_all(arrived);
        assert_eq!(scene.told(), [(RUNG, 16)]);
    }

    /// As rungs are on a busy machine. If the viewer went on meanwhile, no keyframe would ever be newer than what it was sent.
    #[test]
    fn who_flees_reaches_a_rung_that_is_nearly_two_seconds_late() {
        for asked in [true, false] {
            let mut scene = Scene::new(SOURCE);
            let late = 48;
            for number in 0..126 {
                if number == 60 {
                    scene.told();
                    scene.place.flee_to(RUNG, scene.at(60));
                }
                scene.frame(SOURCE, number, Duration::ZERO);
                let Some(before) = number.checked_sub(late) else { continue };
                if asked && before == 61 {
                    let (pts, arrived) = (61 * TICKS, scene.at(number));
                    scene.renditions[RUNG].push(Entry { pts, key: true, arrived, bytes: 1_000, packets: () });
                } else {
                    scene.frame(RUNG, before, late * FRAME);
                }
                scene.send_all(scene.at(number));
            }
            // Without the key that was asked for it goes over where the source has its own.
            let before = if asked { frames(SOURCE, 0..0) } else { frames(SOURCE, 60..75) };
            let from = if asked { 61 } else { 75 };
            assert_eq!(scene.told(), [before, frames(RUNG, from..78)].concat(), "asked: {asked}");
        }
    }

    #[test]
    fn a_rung_in_trouble_holds_its_viewer_for_a_moment_only() {
        let mut scene = Scene::new(SOURCE);
        (0..20).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        scene.place.want(RUNG);
        (20..33).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        // Held from 25 on, and let go by the frame that came after the time was over.
        assert_eq!(scene.told(), frames(SOURCE, 0..33));
        let mut held = Scene::new(SOURCE);
        (0..25).for_each(|number| held.frame(SOURCE, number, Duration::ZERO));
        held.place.want(RUNG);
        held.frame(SOURCE, 25, Duration::ZERO);
        assert_eq!(held.told(), frames(SOURCE, 0..25));
        assert_eq!(held.send_all(held.at(26)), Some(held.at(25) + HOLD));
        held.frame(RUNG, 25, FRAME);
        assert_eq!(held.told(), [(RUNG, 25)]);
    }

    #[test]
    fn a_rendition_that_stopped_is_left_at_the_next_keyframe_of_the_other() {
        let mut scene = Scene::new(RUNG);
        (0..10).for_each(|number| scene.frame(RUNG, number, Duration::ZERO));
        scene.place.want(SOURCE);
        (10..24).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        assert_eq!(scene.told(), frames(RUNG, 0..10));
        scene.frame(SOURCE, 25, Duration::ZERO);
        assert_eq!(scene.told(), [(SOURCE, 25)]);
    }

    /// Otherwise who has a narrow path would be sent what is too much for it ever after.
    #[test]
    fn what_was_given_up_is_tried_again() {
        let mut scene = Scene::new(RUNG);
        (0..10).for_each(|number| scene.frame(RUNG, number, Duration::ZERO));
        scene.place.give_up(scene.at(10));
        scene.frame(SOURCE, 25, Duration::ZERO);
        scene.told();
        scene.place.retry(scene.at(26));
        assert_eq!(scene.place.wanted(), SOURCE);
        scene.place.retry(scene.at(10) + RETRY_AFTER);
        assert_eq!(scene.place.wanted(), RUNG);
        scene.frame(SOURCE, 151, Duration::ZERO);
        scene.told();
        scene.frame(RUNG, 175, Duration::ZERO);
        scene.frame(SOURCE, 176, Duration::ZERO);
        assert_eq!(scene.told(), [(RUNG, 175)]);
    }

    /// One process makes all rungs.
    #[test]
    fn of_all_that_were_given_up_the_first_is_tried_again() {
        let (mut place, now) = (Place::new(2), Instant::now());
        place.give_up(now);
        place.give_up(now + FRAME);
        assert_eq!(place.wanted(), 0);
        place.retry(now + FRAME + RETRY_AFTER);
        assert_eq!(place.wanted(), 2);
    }

    /// Its publisher's line is slow: each keyframe of it comes 360 ms after the other's.
    #[test]
    fn a_rendition_that_is_late_is_waited_for_longer_the_second_time() {
        let mut scene = Scene::new(SOURCE);
        let late = 9;
        for number in 0..80 {
            scene.frame(SOURCE, number, Duration::ZERO);
            if let Some(before) = number.checked_sub(late) {
                scene.frame(RUNG, before, late * FRAME);
            }
            if number == 20 {
                scene.place.want(RUNG);
            }
            scene.send_all(scene.at(number));
        }
        assert_eq!(scene.told(), [frames(SOURCE, 0..50), frames(RUNG, 50..71)].concat());
    }

    /// What was pinned has stopped, and nobody is held at each keyframe for it.
    #[test]
    fn nothing_is_held_for_a_rendition_that_is_gone() {
        let mut scene = Scene::new(SOURCE);
        (0..10).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        scene.frame(RUNG, 0, FRAME * 10);
        scene.place.want(RUNG);
        (10..101).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        let held = scene.send_all(scene.at(100));
        assert_eq!((held, scene.told().last()), (None, Some(&(SOURCE, 100))));
    }

    /// A node lost the log and reads it again, from a keyframe that the viewer was sent long ago.
    #[test]
    fn who_begins_anew_is_sent_nothing_twice() {
        let mut scene = Scene::new(SOURCE);
        (0..30).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        scene.renditions = [Ring::default(), Ring::default()];
        scene.place.begin_anew();
        (25..60).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        assert_eq!(scene.told(), [frames(SOURCE, 0..30), frames(SOURCE, 50..60)].concat());
    }

    #[test]
    fn who_is_too_far_behind_begins_anew_with_a_keyframe() {
        let mut scene = Scene::new(SOURCE);
        (0..5).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        let place = std::mem::replace(&mut scene.place, Place::new(RUNG));
        (5..200).for_each(|number| scene.frame(SOURCE, number, Duration::ZERO));
        scene.told();
        scene.place = place;
        let now = scene.at(200);
        assert!(matches!(scene.place.next(&scene.renditions, now), Next::Lost));
        scene.send_all(now);
        assert_eq!(scene.told(), frames(SOURCE, 175..200));
    }
}
