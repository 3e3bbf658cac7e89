//! Schedules of misfortune that can be told again: each is a number.

use std::env;

use anyhow::{Context, Result};

/// Runs `strike` for as many schedules as `CHAOS_SEEDS` says, from `CHAOS_FIRST` on; the first of all, if nothing is said.
///
/// # Errors
/// Of the first that it did not survive.
pub fn survive(mut strike: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let number = |name| env::var(name).map_or(Ok(1), |number| number.parse::<u64>());
    let first = number("CHAOS_FIRST")?;
    for seed in first..first + number("CHAOS_SEEDS")? {
        strike(seed).with_context(|| format!("seed {seed}"))?;
        println!("seed {seed}: survived");
    }
    Ok(())
}

/// Somebody asked for schedules: the machine is theirs, and has nothing else to do.
#[must_use]
pub fn is_asked_for() -> bool {
    env::var_os("CHAOS_SEEDS").is_some()
}
