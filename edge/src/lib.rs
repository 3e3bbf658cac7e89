//! Viewer-facing delivery: the HTTP listener, LL-HLS out of the segment index, the state of streams as JSON,
//! and the pages.

mod listener;
mod metrics;
mod site;
mod state;

pub use listener::{Listener, SOCKET};
pub use metrics::Metrics;
pub use site::Site;
