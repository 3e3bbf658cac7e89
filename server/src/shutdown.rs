//! From the first signal to the exit code.
//!
//!   SIGTERM or SIGINT ─▶ drain: finish what is open, take nothing new ─▶ exit 0
//!                          │ second signal, or GRACE is over
//!                          └▶ exit 3 at once

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin;

/// How long a drain may take. Ending a stream and answering what is held takes milliseconds; this is for
/// viewers on slow lines who still receive a part. Shorter than the 30 s after which Kubernetes kills, and the
/// 90 s of systemd.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
const _: () = assert!(admin::CONNECTION_TIME_MAX.as_millis() < GRACE.as_millis());

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything that was open was finished.
    Clean,
    /// The operator asked twice.
    SecondSignal,
    /// Something was still open after [`GRACE`].
    GraceOver,
    /// The roles ended though nobody asked them to: a bug of ours.
    Unasked,
}

/// SIGTERM and SIGINT. From here on neither kills the process by itself.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs `roles` until they are drained: the first signal cancels `drain`, which `roles` watch.
pub(crate) async fn run_until_drained(
    roles: impl Future<Output = ()>,
    drain: CancellationToken,
    mut next_signal: impl AsyncFnMut() -> &'static str,
) -> Outcome {
    tokio::pin!(roles);
    let signal = tokio::select! {
        () = &mut roles => {
            error!("stopped without being asked to");
            return Outcome::Unasked;
        }
        signal = next_signal() => signal,
    };
    // Before it is told, so that whoever reads the line finds it true.
    drain.cancel();
    info!(signal, "draining: what is open is finished, nothing new is taken");
    tokio::select! {
        () = &mut roles => {
            info!("drained: clean, everything that was open was finished");
            Outcome::Clean
        }
        signal = next_signal() => {
            warn!(signal, "drained: not clean, stopped by a second signal");
            Outcome::SecondSignal
        }
        () = tokio::time::sleep(GRACE) => {
            warn!("drained: not clean, something was still open after {} s", GRACE.as_secs());
            Outcome::GraceOver
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// The given number of signals at once, then none.
    fn signals(mut count: u32) -> impl AsyncFnMut() -> &'static str {
        async move || {
            if count == 0 {
                pending::<()>().await;
            }
            count -= 1;
            "SIGTERM"
        }
    }

    #[tokio::test(start_paused = true)]
    async fn roles_that_heed_the_drain_end_clean() {
        let drain = CancellationToken::new();
        let roles = drain.clone().cancelled_owned();
        assert_eq!(run_until_drained(roles, drain, signals(1)).await, Outcome::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn roles_that_hang_are_given_up_after_the_grace() {
        let start = tokio::time::Instant::now();
        let outcome = run_until_drained(pending(), CancellationToken::new(), signals(1)).await;
        assert_eq!(outcome, Outcome::GraceOver);
        assert_eq!(start.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_does_not_wait() {
        let start = tokio::time::Instant::now();
        let outcome = run_until_drained(pending(), CancellationToken::new(), signals(2)).await;
        assert_eq!(outcome, Outcome::SecondSignal);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn roles_that_end_by_themselves_are_a_failure() {
        let outcome = run_until_drained(async {}, CancellationToken::new(), signals(0)).await;
        assert_eq!(outcome, Outcome::Unasked);
    }
}
