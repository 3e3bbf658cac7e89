//! What publishers do, by chance: the same seed, the same script. Pure; `publishers.rs` plays it.

use std::time::Duration;

use fastrand::Rng;

/// How a publisher leaves, and who comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Says goodbye: the session ends, and the next one is another.
    Goodbye,
    /// Killed, and back within the linger: the session goes on.
    KilledAndBack,
    /// Killed, and back when the linger is over.
    KilledForLong,
    /// Stands still with its connection open, until another takes its name over.
    HalfOpen,
}

/// One publisher's time on a stream, and what follows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) on_air: Duration,
    pub(crate) exit: Exit,
    /// Until the next publisher.
    pub(crate) pause: Duration,
    /// The next publisher takes a name that never was: what is kept by name must be forgotten, too.
    pub(crate) renamed: bool,
}

const ON_AIR_S: (f64, f64) = (30.0, 90.0);

/// How many in ten.
const EXITS: &[(Exit, u32)] =
    &[(Exit::Goodbye, 3), (Exit::KilledAndBack, 4), (Exit::KilledForLong, 1), (Exit::HalfOpen, 2)];

impl Exit {
    /// The shortest and the longest pause behind it, in seconds.
    fn pause_s(self) -> (f64, f64) {
        match self {
            Self::Goodbye => (0.5, 3.0),
            Self::KilledAndBack => (0.5, 12.0),
            // The linger is 20 s.
            Self::KilledForLong => (21.0, 26.0),
            // A publisher is taken over after 3 s of silence, and cut off after 10 s.
            Self::HalfOpen => (3.5, 8.0),
        }
    }
}

/// The scenes of one stream, without end.
pub(crate) struct Script(Rng);

impl Script {
    /// Every stream has a script of its own.
    pub(crate) fn new(seed: u64, stream: usize) -> Self {
        Self(rng(seed, "publisher", stream))
    }
}

impl Iterator for Script {
    type Item = Scene;

    fn next(&mut self) -> Option<Scene> {
        let Self(rng) = self;
        let mut ticket = rng.u32(0..10);
        let exit = EXITS.iter().find(|(_, share)| match ticket.checked_sub(*share) {
            Some(rest) => {
                ticket = rest;
                false
            }
            None => true,
        });
        let (exit, _) = exit.expect("the shares add up to ten");
        Some(Scene {
            on_air: seconds(rng, ON_AIR_S),
            exit: *exit,
            pause: seconds(rng, exit.pause_s()),
            renamed: matches!(exit, Exit::Goodbye | Exit::KilledForLong) && rng.bool(),
        })
    }
}

/// Chance of its own for each who needs some, so that nobody's depends on how the others were scheduled.
pub(crate) fn rng(seed: u64, role: &str, number: usize) -> Rng {
    // FNV-1a over the role, the number and the seed.
    let bytes = role.bytes().chain(number.to_le_bytes()).chain(seed.to_le_bytes());
    Rng::with_seed(
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }),
    )
}

pub(crate) fn seconds(rng: &mut Rng, (shortest, longest): (f64, f64)) -> Duration {
    Duration::from_secs_f64(shortest + (longest - shortest) * rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exits(seed: u64, stream: usize) -> Vec<Exit> {
        Script::new(seed, stream).take(200).map(|scene| scene.exit).collect()
    }

    #[test]
    fn a_seed_is_a_script() {
        assert_eq!(exits(7, 0), exits(7, 0));
        assert_ne!(exits(7, 0), exits(8, 0));
        assert_ne!(exits(7, 0), exits(7, 1));
    }

    #[test]
    fn every_exit_is_played_about_as_often_as_it_should() {
        assert_eq!(EXITS.iter().map(|(_, share)| share).sum::<u32>(), 10);
        let played = exits(1, 0);
        for (exit, share) in EXITS {
            let count = played.iter().filter(|played| *played == exit).count() as u32;
            assert!((share * 10..=share * 30).contains(&count), "{exit:?}: {count} of 200");
        }
    }

    #[test]
    fn only_a_session_that_is_over_changes_its_name() {
        let lasting = [Exit::KilledAndBack, Exit::HalfOpen];
        assert!(Script::new(1, 0).take(200).all(|scene| !(scene.renamed && lasting.contains(&scene.exit))));
    }
}
