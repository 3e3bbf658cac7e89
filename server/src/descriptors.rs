//! Open files: every connection is one, and most systems allow a process 1,024 until it asks for more.

use ingest::rtmp::CONNECTIONS;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Connections of viewers with room for all of them. Each costs about 35 kB while it waits for a part.
pub(crate) const VIEWER_CONNECTIONS_MAX: u64 = 20_000;

/// For everything that is neither a viewer nor a publisher: listeners, admin, logs, the runtime.
const RESERVE: u64 = 64;

/// Fewer than this, in connections of viewers, is worth a warning: about a hundred browsers.
const VIEWER_CONNECTIONS_FEW: usize = 600;

/// How many connections each listener may hold, so that viewers can never keep a publisher out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) publishers: usize,
    pub(crate) viewers: usize,
}

/// Asks for all the descriptors that the system grants, and says how many these are; `None` if there is no limit.
pub(crate) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if raised.is_ok() { maximum } else { current }
}

/// Of all descriptors that the system grants.
pub(crate) fn share() -> Share {
    let files = raise();
    let share = Share::of(files.unwrap_or(u64::MAX));
    let Share { publishers, viewers } = share;
    if viewers < VIEWER_CONNECTIONS_FEW {
        warn!(
            open_files = files,
            publishers, viewers, "few connections: raise the limit of open files (ulimit -n)"
        );
    } else {
        info!(open_files = files, publishers, viewers, "connections at most");
    }
    share
}

impl Share {
    fn of(files: u64) -> Self {
        let free = files.saturating_sub(RESERVE);
        let publishers = (free / 8).clamp(1, CONNECTIONS.total as u64);
        let viewers = (free - publishers.min(free)).clamp(1, VIEWER_CONNECTIONS_MAX);
        Self { publishers: publishers as usize, viewers: viewers as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_leave_room_for_publishers() {
        assert_eq!(Share::of(1_024), Share { publishers: 120, viewers: 840 });
        assert_eq!(Share::of(1 << 20), Share { publishers: 1_000, viewers: 20_000 });
        assert_eq!(Share::of(u64::MAX), Share { publishers: 1_000, viewers: 20_000 });
        for files in [0, 63, 64, 65, 80] {
            let share = Share::of(files);
            assert!(share.publishers >= 1 && share.viewers >= 1, "{files}");
        }
    }
}
