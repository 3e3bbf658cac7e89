//! Keys are where they were asked for, in every rung, whatever happens to the source.

use std::collections::BTreeSet;

use pipe::{SourceUnit, ToEncoder};

use crate::child::{Outcome, RUNGS, encode, ladder};
use crate::clip::{clip, sorted};

fn units(units: Vec<SourceUnit>) -> impl Iterator<Item = ToEncoder> {
    units.into_iter().map(ToEncoder::Unit)
}

/// Every rung has these pictures and these keys, and nobody found fault.
fn assert_pictures(outcome: &Outcome, stamps: &[i64], keys: &[i64]) {
    outcome.assert_clean();
    for rung in RUNGS {
        assert_eq!(outcome.stamps(rung.number), stamps, "rung {}", rung.number);
        assert_eq!(outcome.keys(rung.number), keys, "rung {}", rung.number);
    }
}

/// Also that a key forced at the first picture, where x264enc makes one anyway, does not silence all later ones.
#[test]
fn every_rung_has_its_keys_where_they_were_asked_for() {
    let clip = clip("plain");
    assert!(clip.units[0].force);
    assert_eq!((clip.units.len(), clip.keys().len()), (240, 4));
    let outcome = encode(ladder(&clip), clip.messages());
    assert_pictures(&outcome, &clip.stamps(), &clip.keys());
    assert_eq!(outcome.encoder.as_deref(), Some("x264enc"));
    for rung in RUNGS {
        let config = outcome.inits()[&rung.number].config().expect("it can be read");
        assert_eq!(config.dimensions(), Some((rung.width.into(), rung.height.into())));
        let durations: BTreeSet<_> = outcome.units[&rung.number].iter().map(|unit| unit.duration).collect();
        assert_eq!(durations, BTreeSet::from([3_000]));
    }
}

/// Half of the pictures, counted from each key; the larger rungs, and one that is smaller still, have all.
#[test]
fn a_thinned_rung_has_its_keys_too() {
    let clip = clip("b-frames");
    let mut source = clip.units.clone();
    let shown = clip.stamps();
    let keys = [shown[0], shown[60], shown[101], shown[120], shown[180]];
    for unit in &mut source {
        unit.force = keys.contains(&unit.pts);
    }
    let mut job = ladder(&clip);
    job.rungs[0].every = 2;
    let outcome = encode(job, units(source));
    outcome.assert_clean();
    let mut expected = Vec::new();
    for (index, pts) in shown.iter().enumerate() {
        let last_key = [180, 120, 101, 60, 0].into_iter().find(|key| *key <= index).expect("the first");
        expected.extend((index - last_key).is_multiple_of(2).then_some(*pts));
    }
    assert_eq!(outcome.stamps(2), expected);
    assert_eq!(outcome.keys(2), keys);
    assert!(outcome.units[&2].iter().all(|unit| unit.duration == 6_000));
    for full in [5, 9] {
        assert_eq!(outcome.stamps(full), shown);
        assert_eq!(outcome.keys(full), keys);
    }
    let progress = outcome.progress.expect("at the end");
    assert_eq!((progress.units_in, progress.units_out), (240, 240));
}

/// Where a broadcaster's keys are eight seconds apart, rungs get more; and what comes before the first of them is decoded
/// for its sake alone.
#[test]
fn keys_come_where_the_source_has_none() {
    let clip = clip("plain");
    let mut source = clip.units.clone();
    for (index, unit) in source.iter_mut().enumerate() {
        unit.force = index % 60 == 17;
    }
    let keys = sorted(source.iter().filter(|unit| unit.force).map(|unit| unit.pts));
    assert_pictures(&encode(ladder(&clip), units(source)), &clip.stamps()[17..], &keys);
}

#[test]
fn lost_units_move_no_key() {
    let clip = clip("plain");
    let lost = |index: &usize| (70..85).contains(index);
    let kept: Vec<_> = (0..240).filter(|index| !lost(index)).map(|index| clip.units[index].clone()).collect();
    let stamps = sorted(kept.iter().map(|unit| unit.pts));
    assert_pictures(&encode(ladder(&clip), units(kept)), &stamps, &clip.keys());
}

/// The cutter's boundary stands; the rung's key is at the first picture from there on that can be decoded.
#[test]
fn a_lost_key_comes_with_the_next_picture() {
    let clip = clip("plain");
    let mut source = clip.units.clone();
    // What a decoder cannot make anything of: its first slice is gone.
    source[120].data = source[120].data.slice(..4);
    let outcome = encode(ladder(&clip), units(source));
    outcome.assert_clean();
    for rung in RUNGS {
        let stamps = outcome.stamps(rung.number);
        let next = *stamps.iter().find(|pts| **pts >= clip.units[120].pts).expect("it goes on");
        assert!((clip.units[121].pts..clip.units[140].pts).contains(&next), "soon: {next}");
        let expected = [clip.units[0].pts, clip.units[60].pts, next, clip.units[180].pts];
        assert_eq!(outcome.keys(rung.number), expected);
    }
}

#[test]
fn a_gap_of_five_seconds_moves_no_key() {
    let clip = clip("plain");
    let source = clip.moved(|index| if index < 110 { 0 } else { 5 * 90_000 });
    let (stamps, keys) = stamps_and_keys(&source);
    assert_pictures(&encode(ladder(&clip), units(source)), &stamps, &keys);
}

#[test]
fn a_variable_frame_rate_moves_no_key() {
    let clip = clip("plain");
    // Pauses as of a screen capture, and single ticks of jitter.
    let source = clip.moved(|index| (index as i64 / 7) * 4_321 + (index as i64 * 37) % 11);
    let (stamps, keys) = stamps_and_keys(&source);
    assert_pictures(&encode(ladder(&clip), units(source)), &stamps, &keys);
}

#[test]
fn b_frames_move_no_key() {
    let clip = clip("b-frames");
    assert!(clip.units.iter().any(|unit| unit.pts > unit.dts + 3_000), "there are B-frames");
    assert_pictures(&encode(ladder(&clip), clip.messages()), &clip.stamps(), &clip.keys());
}

/// The stream clock of a broadcast that began long ago; and x264enc moves its own by a thousand hours.
#[test]
fn a_thousand_hours_move_no_key() {
    let clip = clip("plain");
    for start in [1_000 * 3_600 * 90_000, 2_000 * 3_600 * 90_000 + 1, -123_456] {
        let source = clip.moved(|_| start);
        let (stamps, keys) = stamps_and_keys(&source);
        assert_pictures(&encode(ladder(&clip), units(source)), &stamps, &keys);
    }
}

#[test]
fn another_size_in_the_middle_changes_no_rung() {
    let (wide, narrow) = (clip("plain"), clip("4:3"));
    let mut source = wide.units[..120].to_vec();
    let later = narrow.moved(|_| wide.units[120].pts - narrow.units[0].pts);
    let (stamps, keys) = stamps_and_keys(&[source.clone(), later.clone()].concat());
    source.truncate(120);
    let messages = units(source).chain([ToEncoder::Config(narrow.codec.clone())]).chain(units(later));
    let outcome = encode(ladder(&wide), messages);
    assert_pictures(&outcome, &stamps, &keys);
    assert_eq!(outcome.inits().len(), 3, "the same to the end");
}

fn stamps_and_keys(source: &[SourceUnit]) -> (Vec<i64>, Vec<i64>) {
    let keys = source.iter().filter(|unit| unit.key).map(|unit| unit.pts);
    (sorted(source.iter().map(|unit| unit.pts)), sorted(keys))
}
