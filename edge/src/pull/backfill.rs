//! Bodies of one session, from the upstream.

use std::fmt;

use hls::{Backfill, Fetch, FetchError, Position, RenditionName};
use media::SessionId;
use prometheus_client::metrics::counter::Counter;
use relay::UpstreamError;
use relay::wire::{EPOCH, Hops};

use super::upstreams::Source;

pub(super) struct Bodies {
    pub(super) source: Source,
    pub(super) session: SessionId,
    pub(super) fetched: Counter,
}

impl fmt::Debug for Bodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bodies of {} {}", self.source.id(), self.session)
    }
}

impl Backfill for Bodies {
    fn part<'a>(&'a self, rendition: &'a RenditionName, position: Position, epoch: u32) -> Fetch<'a> {
        Box::pin(async move {
            self.fetched.inc();
            let id = self.source.id();
            let path = format!("{id}/{}/{rendition}/{position}.m4s?{EPOCH}{epoch}", self.session);
            let fetched = self.source.get(&path, &Hops::default()).await;
            fetched.map_err(|error| match error {
                UpstreamError::NotFound => FetchError::Gone,
                _ => FetchError::Unreachable,
            })
        })
    }
}
