//! Sources that lie. A child may give up in words; it never crashes, and never makes up what it was not asked for.

use pipe::{SourceUnit, ToEncoder};

use crate::child::{Child, ladder, lone_rung};
use crate::clip::clip;

/// xorshift64: the same damage for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

fn survives(name: &'static str, seed: u64, damage: fn(&mut Vec<u8>, &mut Random)) {
    println!("{name}, seed {seed}");
    let clip = clip(name);
    let mut random = Random(seed);
    let mut child = Child::start(lone_rung(&clip));
    for (index, unit) in clip.units.iter().enumerate() {
        let mut data = unit.data.to_vec();
        if index % 5 == 4 {
            damage(&mut data, &mut random);
        }
        // After a fault it no longer reads.
        if !child.try_send(&ToEncoder::Unit(SourceUnit { data: data.into(), ..unit.clone() })) {
            break;
        }
    }
    child.try_send(&ToEncoder::End);
    let outcome = child.finish();
    let code = outcome.status.and_then(|status| status.code());
    assert!(code.is_some(), "it crashed: {:?}: {}", outcome.status, outcome.said);
    assert!(!outcome.said.contains("panicked"), "{}", outcome.said);
    assert_eq!(
        code == Some(0),
        !outcome.faults.iter().any(|fault| fault.class.ends()),
        "{:?}",
        outcome.faults
    );
    let source = clip.stamps();
    assert!(
        outcome.stamps(9).iter().all(|pts| source.contains(pts)),
        "a stamp that the source does not have"
    );
    assert!(outcome.stamps(9).is_sorted());
}

#[test]
fn flipped_bits() {
    for (seed, name) in [(1, "plain"), (2, "b-frames"), (3, "hevc"), (4, "av1")] {
        survives(name, seed, |data, random| {
            for _ in 0..20 {
                let at = random.below(data.len());
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        });
    }
}

#[test]
fn truncated_units() {
    for (seed, name) in [(5, "plain"), (6, "hevc"), (7, "av1")] {
        survives(name, seed, |data, random| {
            let length = random.below(data.len());
            data.truncate(length);
        });
    }
}

#[test]
fn nothing_but_noise() {
    for (seed, name) in [(8, "plain"), (9, "hevc")] {
        survives(name, seed, |data, random| data.fill_with(|| random.below(256) as u8));
    }
}

/// It began in the middle of a GOP: nothing can be shown before the key, and everything after it is there.
#[test]
fn a_start_without_a_key() {
    let clip = clip("plain");
    let mut child = Child::start(ladder(&clip));
    clip.units[20..].iter().for_each(|unit| child.send(&ToEncoder::Unit(unit.clone())));
    child.send(&ToEncoder::End);
    let outcome = child.finish();
    outcome.assert_clean();
    for rung in [2, 5, 9] {
        let after_the_key = &clip.stamps()[60..];
        assert!(outcome.stamps(rung).ends_with(after_the_key));
        assert!(clip.keys()[1..].iter().all(|key| outcome.keys(rung).contains(key)));
    }
}
