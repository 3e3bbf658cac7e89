//! Waiting for what nobody announces.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const INTERVAL: Duration = Duration::from_millis(50);

/// Asks until there is an answer.
///
/// # Errors
/// If `ask` fails, or has no answer `within` that time.
pub fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that polls, for states that cannot be waited for"
        )]
        thread::sleep(INTERVAL);
    }
    bail!("{what}: not within {within:?}")
}
