//! Viewer-facing delivery: the HTTP listener, LL-HLS out of the segment index, the state of streams as JSON,
//! and the pages.

mod listener;
mod metrics;
mod pull;
mod remote;
mod site;
mod state;

pub use listener::Listener;
pub use metrics::Metrics;
pub use pull::{JoinError, PullMetrics, Puller, Watching};
pub use site::Site;
