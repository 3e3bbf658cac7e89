//! Says to every connection when to end.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

/// A token, and whether it was cancelled. To look at a token takes locks that all who hold it share, and thousands of
/// connections would do so with every packet.
#[derive(Debug)]
pub(crate) struct Drain {
    token: CancellationToken,
    has_begun: AtomicBool,
}

impl Drain {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self { token, has_begun: AtomicBool::new(false) }
    }

    /// Waits for the beginning. The token is looked at when it wakes the task, not whenever something else does.
    pub(crate) async fn begun(&self) {
        let mut cancelled = FuturesUnordered::from_iter([self.token.cancelled()]);
        cancelled.next().await;
        self.has_begun.store(true, Ordering::Release);
    }

    /// Whether anybody has seen the beginning.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_and_then_all_know() {
        let token = CancellationToken::new();
        let drain = Drain::new(token.clone());
        let mut other = pin!(drain.begun());
        assert_eq!(other.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
        let waiting = async {
            drain.begun().await;
            assert!(drain.has_begun());
        };
        let cancelling = async {
            assert!(!drain.has_begun());
            token.cancel();
        };
        tokio::join!(waiting, cancelling);
        assert_eq!(other.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
        // Who comes late does not wait.
        drain.begun().await;
    }
}
