//! Which of a publisher's layers (simulcast) the stream's own picture is made of. Pure.
//!
//! It is the largest that comes: LL-HLS shows it and the transcoder works from it, while viewers by WebRTC have the others
//! beside it. A browser sends no more layers than its line carries, the largest last, and turns off the largest first. So:
//!
//! - in the beginning the choice waits for all layers, but not for long;
//! - where the chosen one stops, the largest of the others takes its place at its next keyframe;
//! - a larger one takes it once it has come without interruption for a while. Each change is a discontinuity for players.
//!
//! Every change happens at a keyframe of the new layer. Both layers have theirs of the same frame, since all are asked for one
//! together, and the larger one comes a moment later. So where a larger one is to be turned to, the old one's pictures from
//! its keyframe on are held back for that moment; then they are let go, or forgotten.

use std::time::{Duration, Instant};

use super::offer::LAYERS_MAX;

/// From the first picture of any layer until one is chosen, if not all of them have come. On a good line a browser has
/// found out within a second that it carries all.
const CHOICE_TIME_MAX: Duration = Duration::from_secs(2);

/// A layer of which no picture has come for so long has stopped,
const STOPPED_AFTER: Duration = Duration::from_millis(500);
/// if one of the others has had so many meanwhile: a still screen may be sent once in a second.
const STOPPED_AFTER_PICTURES: u64 = 3;

/// For so long the old layer's pictures are held back for the new one's keyframe, and twice as long at the next one where that was
/// too short: it is larger, and comes later over a line that is slow or loses packets.
const HOLD: Duration = Duration::from_millis(250);
const HOLD_MAX: Duration = Duration::from_millis(500);
/// Most pictures held back, whatever time they say. At 60 a second there are 30.
const HELD_MAX: usize = 32;

/// Stamps of one frame in two layers differ by at most so much, in milliseconds: see `clock.rs`.
const SAME_FRAME_MS: i32 = 8;

/// For so long a larger layer must have come before it is turned to, and twice as long for each time but the first that one
/// stopped: every change is a discontinuity. Once the largest has lasted for the most of these, it is trusted again.
const STEADY: Duration = Duration::from_secs(5);
const STEADY_MAX: Duration = Duration::from_secs(60);

/// `T`: whatever is kept of a picture.
#[derive(Debug)]
pub(super) struct Layers<T> {
    layers: Vec<Layer>,
    /// How often the chosen one has stopped.
    falls: u32,
    /// Since when the chosen one is.
    chosen_at: Option<Instant>,
    began: Option<Instant>,
    /// The one that the stream's picture is made of.
    chosen: Option<usize>,
    /// The one that it shall be made of from its next keyframe on.
    next: Option<usize>,
    /// Stamp of the newest picture that was taken.
    taken: Option<u32>,
    held: Held<T>,
}

/// Pictures of the old layer, from the keyframe on at which the new one may take its place.
#[derive(Debug)]
struct Held<T> {
    since: Option<Instant>,
    /// At most.
    span: Duration,
    pictures: Vec<Taken<T>>,
}

#[derive(Debug, Default)]
struct Layer {
    /// Of a picture; known with the first one.
    pixels: u64,
    newest: Option<Instant>,
    pictures: u64,
    /// How many the others had when its newest came.
    others: [u64; LAYERS_MAX],
    /// Since when it has come without interruption.
    since: Option<Instant>,
}

/// One picture that can be decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) layer: usize,
    pub(super) key: bool,
    pub(super) pixels: u64,
    /// In milliseconds, on the clock that all layers share; wraps at 32 bits.
    pub(super) stamp: u32,
}

/// A picture of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken<T> {
    pub(super) picture: T,
    /// It is the first of its layer: its configuration comes before it.
    pub(super) is_first: bool,
    stamp: u32,
}

impl<T> Layers<T> {
    /// `count`: 1 where there are none.
    pub(super) fn new(count: usize) -> Self {
        let layers = std::iter::repeat_with(Layer::default).take(count.clamp(1, LAYERS_MAX)).collect();
        let held = Held { since: None, span: HOLD, pictures: Vec::new() };
        Self { layers, falls: 0, chosen_at: None, began: None, chosen: None, next: None, taken: None, held }
    }

    /// The one whose groups are the stream's; any, while none is chosen.
    pub(super) fn is_leading(&self, layer: usize) -> bool {
        self.chosen.is_none_or(|chosen| chosen == layer)
    }

    /// The choice waits for a keyframe of it.
    pub(super) fn wants_keyframe(&self) -> bool {
        self.next.is_some()
    }

    /// Adds to `taken` what is the stream's now.
    pub(super) fn picture(&mut self, seen: Seen, picture: T, now: Instant, taken: &mut Vec<Taken<T>>) {
        self.note(seen, now);
        self.choose(now);
        let stamp = seen.stamp;
        if self.next == Some(seen.layer) && seen.key && self.is_next(stamp) {
            (self.chosen, self.next, self.chosen_at) = (self.next, None, Some(now));
            (self.held.since, self.held.span) = (None, HOLD);
            taken.extend(self.held.pictures.drain(..).filter(|held| is_before(held.stamp, stamp)));
            taken.push(Taken { picture, is_first: true, stamp });
        } else if self.chosen == Some(seen.layer) {
            if self.next.is_some() && seen.key {
                self.held.since.get_or_insert(now);
            }
            self.held.pictures.push(Taken { picture, is_first: false, stamp });
            let span = self.held.span;
            let waits = |since| now.saturating_duration_since(since) < span;
            if self.next.is_none() || self.held.pictures.len() > HELD_MAX {
                self.held.since = None;
            }
            if self.held.since.is_some_and(waits) {
                return;
            }
            // What comes of the keyframe it was held for is late; the next one is held for anew.
            if self.held.since.take().is_some() {
                self.held.span = (span * 2).min(HOLD_MAX);
            }
            taken.append(&mut self.held.pictures);
        } else {
            return;
        }
        self.taken = taken.last().map(|last| last.stamp);
    }

    /// Whether a keyframe of the new layer is behind what was taken of the old one.
    fn is_next(&self, stamp: u32) -> bool {
        self.taken.is_none_or(|taken| is_before(taken, stamp))
    }

    fn note(&mut self, seen: Seen, now: Instant) {
        self.began.get_or_insert(now);
        let pictures = self.pictures();
        let Some(layer) = self.layers.get_mut(seen.layer) else { return };
        if layer.has_stopped(&pictures, now) {
            layer.since = Some(now);
        }
        layer.pictures += 1;
        (layer.pixels, layer.newest, layer.others) = (seen.pixels, Some(now), pictures);
    }

    /// Of each layer, so far.
    fn pictures(&self) -> [u64; LAYERS_MAX] {
        let mut pictures = [0; LAYERS_MAX];
        for (count, layer) in pictures.iter_mut().zip(&self.layers) {
            *count = layer.pictures;
        }
        pictures
    }

    fn choose(&mut self, now: Instant) {
        let Some(began) = self.began else { return };
        let for_long = |since: Option<Instant>, span| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= span)
        };
        let chosen = self.chosen.and_then(|chosen| self.layers.get(chosen));
        let is_largest =
            chosen.is_some_and(|chosen| self.layers.iter().all(|layer| layer.pixels <= chosen.pixels));
        if is_largest && for_long(self.chosen_at, STEADY_MAX) {
            self.falls = 0;
        }
        let doubled = 1_u32.checked_shl(self.falls.saturating_sub(1)).unwrap_or(u32::MAX);
        let (pictures, steady) = (self.pictures(), STEADY.saturating_mul(doubled).min(STEADY_MAX));
        let has_stopped = |layer: &Layer| layer.has_stopped(&pictures, now);
        let is_steady = |layer: &Layer| for_long(layer.since, steady);
        // Of equals the first in the offer.
        let largest = |suits: &dyn Fn(&Layer) -> bool| {
            let layers = self.layers.iter().enumerate();
            let coming = layers.filter(|(_, layer)| !has_stopped(layer) && suits(layer));
            coming.min_by_key(|(_, layer)| std::cmp::Reverse(layer.pixels)).map(|(number, _)| number)
        };
        let next = match self.chosen.and_then(|chosen| self.layers.get(chosen)) {
            None => {
                let all_come = self.layers.iter().all(|layer| layer.newest.is_some());
                if !all_come && now.saturating_duration_since(began) < CHOICE_TIME_MAX {
                    return;
                }
                largest(&|_| true)
            }
            Some(chosen) if has_stopped(chosen) => largest(&|_| true),
            Some(chosen) => largest(&|layer| layer.pixels > chosen.pixels && is_steady(layer)),
        };
        let stopped = self.chosen.and_then(|chosen| self.layers.get(chosen)).is_some_and(has_stopped);
        if stopped && self.chosen_at.take().is_some() {
            self.falls = self.falls.saturating_add(1);
        }
        self.next = next.filter(|next| self.chosen != Some(*next));
    }
}

/// Whether a picture is of a frame before that of another layer's.
fn is_before(stamp: u32, other: u32) -> bool {
    other.wrapping_sub(stamp) as i32 > SAME_FRAME_MS
}

impl Layer {
    /// `pictures`: of each layer, so far. One that never came has not begun.
    fn has_stopped(&self, pictures: &[u64; LAYERS_MAX], now: Instant) -> bool {
        let Some(newest) = self.newest else { return true };
        let is_left_behind =
            |(count, before): (&u64, &u64)| count.saturating_sub(*before) >= STOPPED_AFTER_PICTURES;
        now.saturating_duration_since(newest) > STOPPED_AFTER
            && pictures.iter().zip(&self.others).any(is_left_behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_MS: u64 = 40;

    /// Three layers of a browser: large, middle and small, at 25 pictures a second; all have a keyframe each two seconds, and
    /// where the choice wants one.
    struct Scene {
        start: Instant,
        layers: Layers<(u64, usize)>,
        frame: u64,
        /// Each change: at which frame, to which layer.
        changes: Vec<(u64, usize)>,
        taken: Vec<u64>,
    }

    impl Scene {
        fn new() -> Self {
            let (changes, taken) = (Vec::new(), Vec::new());
            Self { start: Instant::now(), layers: Layers::new(3), frame: 0, changes, taken }
        }

        /// `frames` of these layers, the smallest first, as they arrive.
        fn run(&mut self, frames: u64, coming: &[usize]) {
            for _ in 0..frames {
                let now = self.start + Duration::from_millis(self.frame * FRAME_MS);
                let key = self.frame.is_multiple_of(50) || self.layers.wants_keyframe();
                for &layer in coming.iter().rev() {
                    let pixels = [1280 * 720, 640 * 360, 320 * 180][layer];
                    let stamp = u32::MAX.wrapping_add((self.frame * FRAME_MS) as u32);
                    let mut taken = Vec::new();
                    self.layers.picture(
                        Seen { layer, key, pixels, stamp },
                        (self.frame, layer),
                        now,
                        &mut taken,
                    );
                    for Taken { picture: (frame, layer), is_first, .. } in taken {
                        if is_first {
                            self.changes.push((frame, layer));
                        }
                        self.taken.push(frame);
                    }
                }
                self.frame += 1;
            }
        }

        fn at(&self, seconds: f64) -> u64 {
            (seconds * 1_000.0) as u64 / FRAME_MS
        }
    }

    #[test]
    fn one_layer_is_taken_as_it_comes() {
        let (mut layers, now) = (Layers::new(1), Instant::now());
        let seen = |key, stamp| Seen { layer: 0, key, pixels: 1, stamp };
        let mut taken = Vec::new();
        layers.picture(seen(true, 7), 'a', now, &mut taken);
        layers.picture(seen(false, 40), 'b', now, &mut taken);
        // Its clock begins anew: that is the timeline's to see.
        layers.picture(seen(true, 3), 'c', now + Duration::from_secs(3), &mut taken);
        let told: Vec<_> = taken.iter().map(|taken| (taken.picture, taken.is_first)).collect();
        assert_eq!(told, [('a', true), ('b', false), ('c', false)]);
        assert!(!layers.wants_keyframe());
    }

    #[test]
    fn the_largest_is_chosen_once_all_have_come() {
        let mut scene = Scene::new();
        scene.run(10, &[2]);
        scene.run(10, &[1, 2]);
        assert_eq!(scene.changes, []);
        scene.run(100, &[0, 1, 2]);
        assert_eq!(scene.changes.len(), 1);
        let (frame, layer) = scene.changes[0];
        assert!(layer == 0 && (20..=21).contains(&frame), "{:?}", scene.changes);
        assert_eq!(scene.taken, (frame..120).collect::<Vec<_>>(), "no frame twice, and none left out");
    }

    #[test]
    fn who_cannot_send_all_begins_with_what_it_can() {
        let mut scene = Scene::new();
        scene.run(scene.at(4.0), &[1, 2]);
        let (frame, layer) = scene.changes[0];
        assert!(layer == 1 && (50..=51).contains(&frame), "{:?}", scene.changes);
        scene.run(scene.at(10.0), &[0, 1, 2]);
        let (frame, layer) = scene.changes[1];
        assert!(layer == 0 && (225..=230).contains(&frame), "after five seconds: {:?}", scene.changes);
        assert_eq!(scene.changes.len(), 2);
    }

    /// A browser turns off its largest layer on a bad line, and on again.
    #[test]
    fn where_the_largest_stops_the_next_takes_its_place_until_it_is_back_for_a_while() {
        let mut scene = Scene::new();
        scene.run(50, &[0, 1, 2]);
        scene.run(50, &[1, 2]);
        assert_eq!(scene.changes.len(), 2, "{:?}", scene.changes);
        let (frame, layer) = scene.changes[1];
        assert!(layer == 1 && (62..=66).contains(&frame), "within half a second: {:?}", scene.changes);
        for _ in 0..4 {
            scene.run(75, &[0, 1, 2]);
            scene.run(25, &[1, 2]);
        }
        assert_eq!(scene.changes.len(), 2, "it never stays: {:?}", scene.changes);
        scene.run(200, &[0, 1, 2]);
        assert_eq!(scene.changes.last().map(|change| change.1), Some(0));
        assert!(scene.taken.windows(2).all(|two| two[0] < two[1]), "no picture twice");
    }

    /// Each of its keyframes comes 360 ms after the smaller one's: it is larger, and the line is slow.
    #[test]
    fn a_layer_that_is_late_is_waited_for_longer_the_second_time() {
        let (mut layers, start, mut changed) = (Layers::new(2), Instant::now(), None);
        const LATE: u64 = 9;
        for frame in 0..400_u64 {
            let now = start + Duration::from_millis(frame * FRAME_MS);
            let large = frame.checked_sub(LATE).filter(|frame| *frame >= 75);
            for (layer, pixels, frame) in [(1, 100, Some(frame)), (0, 400, large)] {
                let Some(frame) = frame else { continue };
                let key = frame.is_multiple_of(50);
                let seen = Seen { layer, key, pixels, stamp: (frame * FRAME_MS) as u32 };
                let mut taken = Vec::new();
                layers.picture(seen, (frame, layer), now, &mut taken);
                changed = changed.or(taken.iter().find(|taken| taken.is_first && layer == 0).map(|_| frame));
            }
        }
        // Steady from frame 209 on; of the keyframe at 250 it is too late.
        assert_eq!(changed, Some(300));
    }

    /// The new one's keyframe is lost on its way: the old one goes on as if nothing had been, and the next one serves.
    #[test]
    fn pictures_are_held_back_for_a_moment_only() {
        let (mut layers, start, mut told) = (Layers::new(2), Instant::now(), Vec::new());
        for frame in 0..400_u64 {
            let now = start + Duration::from_millis(frame * FRAME_MS);
            let key = frame.is_multiple_of(50);
            for (layer, pixels) in [(1, 100), (0, 400)] {
                // It begins a second late, so that the smaller one is turned to first, and has no keyframe for long.
                if layer == 0 && (frame < 75 || key && frame < 250) {
                    continue;
                }
                let mut taken = Vec::new();
                let seen = Seen { layer, key, pixels, stamp: (frame * FRAME_MS) as u32 + layer as u32 };
                layers.picture(seen, (frame, layer), now, &mut taken);
                assert!(taken.len() <= 14, "{} pictures at once", taken.len());
                told.extend(taken.into_iter().map(|taken| taken.picture));
            }
        }
        let expected: Vec<_> =
            (50..250).map(|frame| (frame, 1)).chain((250..400).map(|frame| (frame, 0))).collect();
        assert_eq!(told, expected);
    }

    /// Of four, three others have a picture each before the largest has its own.
    #[test]
    fn slow_layers_are_not_taken_for_stopped_however_many_there_are() {
        let (mut layers, start, mut changes) = (Layers::new(4), Instant::now(), Vec::new());
        for second in 0..30_u32 {
            for (order, layer) in [3, 2, 1, 0].into_iter().enumerate() {
                let now = start + Duration::from_millis(u64::from(second) * 1_000 + order as u64 * 20);
                let key = second == 0 || layers.wants_keyframe();
                let seen = Seen { layer, key, pixels: 1_000 >> layer, stamp: second * 1_000 };
                let mut taken = Vec::new();
                layers.picture(seen, layer, now, &mut taken);
                changes.extend(taken.iter().filter(|taken| taken.is_first).map(|taken| taken.picture));
            }
        }
        assert_eq!(changes, [0]);
    }

    /// A line that carries the largest for eight seconds, and then does not for two, again and again.
    #[test]
    fn a_layer_that_comes_and_goes_is_turned_to_less_and_less() {
        let mut scene = Scene::new();
        for _ in 0..30 {
            scene.run(scene.at(8.0), &[0, 1, 2]);
            scene.run(scene.at(2.0), &[1, 2]);
        }
        assert!(scene.changes.len() <= 4, "{:?}", scene.changes);
        scene.run(scene.at(130.0), &[0, 1, 2]);
        assert_eq!(scene.changes.last().map(|change| change.1), Some(0), "in the end it stays");
        let before = scene.changes.len();
        scene.run(scene.at(2.0), &[1, 2]);
        scene.run(scene.at(8.0), &[0, 1, 2]);
        assert_eq!(scene.changes.len(), before + 2, "and is trusted again: {:?}", scene.changes);
    }

    /// One picture a second of a still screen is no layer that stopped.
    #[test]
    fn slow_layers_are_not_taken_for_stopped() {
        let (mut layers, start) = (Layers::new(2), Instant::now());
        for second in 0..30_u32 {
            let now = start + Duration::from_secs(second.into());
            for (layer, pixels) in [(1, 100), (0, 400)] {
                let seen = Seen {
                    layer,
                    key: second == 0 || layers.wants_keyframe(),
                    pixels,
                    stamp: second * 1_000,
                };
                let mut taken = Vec::new();
                layers.picture(seen, layer, now, &mut taken);
                assert!(second == 0 || taken.is_empty() == (layer == 1), "{second}: {layer} {taken:?}");
            }
        }
    }
}
