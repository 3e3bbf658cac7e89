//! Other nodes that encode, as a node sees them that has no encoder or no room.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use media::StreamId;
use tokio::io::{AsyncRead, AsyncWrite};

/// The messages of [`pipe`] go to and fro on it, the job first; the worker closes it when its child has ended.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Whoever was not found by then is not.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(4);

/// Until a worker is found, or none.
pub type Taking = Pin<Box<dyn Future<Output = Result<Box<dyn Connection>, Refusal>> + Send>>;

/// What both sides must speak, as [`Upgrade`](https://www.rfc-editor.org/rfc/rfc9110#section-7.8) names it.
pub fn protocol() -> String {
    format!("tidecast-encode/{}", pipe::VERSION)
}

pub trait Workers: Debug + Send + Sync + 'static {
    /// Cores that the one with the most room has left; 0 if there is none.
    fn free(&self) -> f64;

    /// Finds one that takes a job of `id` and of `cost` cores.
    fn take(&self, id: &StreamId, cost: f64) -> Taking;
}

/// Why no worker takes a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none, or none that could be reached.
    #[error("no other node encodes{}", told(reasons))]
    Nobody {
        /// Of each that was asked.
        reasons: Vec<String>,
    },
    #[error("no other node has room{}", told(reasons))]
    Full {
        /// Of each that was asked.
        reasons: Vec<String>,
    },
}

fn told(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
}
