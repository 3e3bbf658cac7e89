//! A panic ends the connection that caused it, and nothing else.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Our bug, met by one connection. Count it and say so as an error; the panic hook has told where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("panicked; this is a bug")]
pub struct Panicked;

/// Runs `connection` to its end.
///
/// What it shares with others must stay sound when it stops at any line: counters, maps behind locks whose holders
/// cannot panic, and channels do.
///
/// # Errors
/// [`Panicked`], with the connection's own state dropped.
pub async fn contain<T>(connection: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut connection = pin!(connection);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| connection.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_answer() {
        assert_eq!(contain(async { 7 }).await, Ok(7));
        let broken = contain::<u8>(async {
            tokio::task::yield_now().await;
            panic!("a bug of ours");
        });
        assert_eq!(broken.await, Err(Panicked));
    }
}
