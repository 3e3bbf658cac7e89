//! Nothing is held back, and what does not depend on the pictures is the same each time.

use std::collections::BTreeMap;

use pipe::{Codec, FromEncoder, Preset, Rung, ToEncoder, VideoJob};

use crate::child::{Child, RUNGS, encode, ladder};
use crate::clip::{Clip, clip};

/// Each picture comes out of every rung before the next goes in.
#[test]
fn no_picture_is_held_back() {
    let clip = clip("plain");
    let mut child = Child::start(ladder(&clip));
    for unit in &clip.units[..90] {
        child.send(&ToEncoder::Unit(unit.clone()));
        let mut outstanding = RUNGS.len();
        while outstanding > 0 {
            match child.next().expect("it goes on") {
                FromEncoder::Unit(encoded) => {
                    assert_eq!(encoded.pts, unit.pts);
                    outstanding -= 1;
                }
                FromEncoder::Fault(fault) => panic!("{fault:?}"),
                _ => {}
            }
        }
    }
    child.send(&ToEncoder::End);
    child.finish().assert_clean();
}

/// Two B-frames are two pictures that the decoder needs first, and no more.
#[test]
fn no_picture_is_held_back_but_for_b_frames() {
    let clip = clip("b-frames");
    let mut child = Child::start(ladder(&clip));
    let mut outstanding = 0;
    for (index, unit) in clip.units[..90].iter().enumerate() {
        child.send(&ToEncoder::Unit(unit.clone()));
        outstanding += RUNGS.len();
        while outstanding > 2 * RUNGS.len() {
            if let FromEncoder::Unit(_) = child.next().expect("it goes on") {
                outstanding -= 1;
            }
        }
        assert!(index < 2 || outstanding <= 2 * RUNGS.len());
    }
}

fn inits(job: VideoJob, clip: &Clip, first: usize) -> BTreeMap<u16, Codec> {
    let units = clip.units[first..first + 10].iter().cloned().map(ToEncoder::Unit);
    let outcome = encode(job, units);
    outcome.assert_clean();
    outcome.inits().into_iter().map(|(rung, codec)| (rung, codec.clone())).collect()
}

/// A restarted child goes on with the init segments that viewers have; and so does one with a cheaper preset, which is
/// how a busy machine saves itself.
#[test]
fn the_same_job_has_the_same_configuration_whenever_it_starts() {
    let clip = clip("plain");
    let first = inits(ladder(&clip), &clip, 0);
    assert_eq!(first.len(), 3);
    assert_eq!(inits(ladder(&clip), &clip, 0), first);
    assert_eq!(inits(ladder(&clip), &clip, 120), first, "from another picture on");
    for preset in Preset::ALL {
        let rungs = RUNGS.iter().map(|rung| Rung { preset, ..*rung }).collect();
        assert_eq!(inits(VideoJob { rungs, ..ladder(&clip) }, &clip, 0), first, "{preset:?}");
    }
    // A rung alone is what it is among others.
    let alone = inits(VideoJob { rungs: vec![RUNGS[0]], ..ladder(&clip) }, &clip, 0);
    assert_eq!(alone[&2], first[&2]);
}
