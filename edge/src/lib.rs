//! Viewer-facing delivery: the HTTP listener, LL-HLS out of the segment index, the state of streams as JSON,
//! and the pages; among them the one that tells a broadcaster how the stream is.

mod admission;
mod alternates;
mod audience;
mod connect;
mod drain;
mod endpoint;
mod listener;
mod metrics;
mod neighbours;
mod prefer;
mod pull;
mod redirect;
mod remote;
mod site;
mod state;
mod steering;
mod trust;
mod unlisted;
mod whep;

pub use admission::{Admission, Takes};
pub use alternates::Alternates;
pub use audience::Audience;
pub use connect::{Backstage, Refused};
pub use endpoint::Endpoint;
pub use listener::{Listener, SOCKET};
pub use metrics::Metrics;
pub use neighbours::{Neighbour, Neighbours};
pub use prefer::Transport;
pub use pull::{JoinError, Others, PullMetrics, Puller, Purpose, Route, Upstreams, Watching};
pub use site::Site;
#[cfg(any(test, fuzzing))]
pub use site::fuzzing;
pub use trust::Trust;
pub use unlisted::Unlisted;
pub use whep::{Programmes, StartError, VIEWERS_MAX, Whep};
