//! The origin: wraps the access units of the live log into CMAF parts, and hands them to the segment index
//! that viewers are served from. It draws no boundary and stamps no time; both come from ingest.

mod packager;
mod serve;
mod server;

pub use packager::Packager;
pub use serve::{Found, FoundLog, Keep, NotFound, Offer, Relay, RelayMetrics};
pub use server::{Origin, PackageError};
