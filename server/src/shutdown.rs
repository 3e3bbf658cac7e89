//! From the first signal to the exit code.
//!
//!   SIGTERM ─▶ leave: viewers go to other nodes ─┬▶ drain: finish what is open, take nothing new ─▶ exit 0
//!               │ another signal                 │   │ another signal, or GRACE is over
//!               └────────────────────────────────┤   └▶ exit 3 at once
//!   SIGINT ──────────────────────────────────────┘
//!
//! Whoever sends SIGINT sits at a terminal and waits.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin;

/// How long a drain may take. Ending a stream and answering what is held takes milliseconds; this is for
/// viewers on slow lines who still receive a part. With the time that viewers get to leave (`drain.timeout`) shorter than the 30 s
/// after which Kubernetes kills.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
const _: () = assert!(admin::CONNECTION_TIME_MAX.as_millis() < GRACE.as_millis());

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything that was open was finished.
    Clean,
    /// The operator asked again while it drained.
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
            _ = self.terminate.recv() => TERMINATE,
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

const TERMINATE: &str = "SIGTERM";

/// Runs `roles` until they are drained. `leave`: what comes before; then `drain` is cancelled, which `roles` watch.
pub(crate) async fn run_until_drained(
    roles: impl Future<Output = ()>,
    leave: impl Future<Output = ()>,
    drain: CancellationToken,
    mut next_signal: impl AsyncFnMut() -> &'static str,
) -> Outcome {
    tokio::pin!(roles);
    let unasked = || {
        error!("stopped without being asked to");
        Outcome::Unasked
    };
    let mut signal = tokio::select! {
        () = &mut roles => return unasked(),
        signal = next_signal() => signal,
    };
    if signal == TERMINATE {
        tokio::select! {
            () = leave => {}
            () = &mut roles => return unasked(),
            again = next_signal() => signal = again,
        }
    }
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
    use std::future::{pending, ready};

    use super::*;

    /// The given ones at once, then none.
    fn signals(all: impl IntoIterator<Item = &'static str>) -> impl AsyncFnMut() -> &'static str {
        let mut all = all.into_iter();
        async move || match all.next() {
            Some(signal) => signal,
            None => pending().await,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn roles_that_heed_the_drain_end_clean() {
        let drain = CancellationToken::new();
        let roles = drain.clone().cancelled_owned();
        assert_eq!(run_until_drained(roles, ready(()), drain, signals([TERMINATE])).await, Outcome::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn roles_that_hang_are_given_up_after_the_grace() {
        let start = tokio::time::Instant::now();
        let outcome =
            run_until_drained(pending(), ready(()), CancellationToken::new(), signals(["SIGINT"])).await;
        assert_eq!(outcome, Outcome::GraceOver);
        assert_eq!(start.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_does_not_wait() {
        let start = tokio::time::Instant::now();
        let outcome =
            run_until_drained(pending(), ready(()), CancellationToken::new(), signals(["SIGINT"; 2])).await;
        assert_eq!(outcome, Outcome::SecondSignal);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn viewers_get_time_to_leave_unless_somebody_waits_at_a_terminal_or_asks_again() {
        for (sent, expected) in [
            (vec![TERMINATE], Duration::from_secs(15)),
            (vec!["SIGINT"], Duration::ZERO),
            (vec![TERMINATE, TERMINATE], Duration::ZERO),
        ] {
            let (drain, start) = (CancellationToken::new(), tokio::time::Instant::now());
            let leave = tokio::time::sleep(Duration::from_secs(15));
            let roles = drain.clone().cancelled_owned();
            assert_eq!(run_until_drained(roles, leave, drain, signals(sent)).await, Outcome::Clean);
            assert_eq!(start.elapsed(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn roles_that_end_by_themselves_are_a_failure() {
        let outcome = run_until_drained(async {}, ready(()), CancellationToken::new(), signals([])).await;
        assert_eq!(outcome, Outcome::Unasked);
    }
}
