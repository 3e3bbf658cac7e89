//! What this node's relay has for others: its own streams, or those that it pulls itself.

use bytes::Bytes;
use edge::{JoinError, Puller, Site};
use hls::Catalog;
use media::StreamId;
use origin::{Found, FoundLog, NotFound};
use relay::StreamRegistry;
use relay::wire::Hops;

pub(crate) enum Offer {
    /// The site makes the states of streams.
    Own {
        catalog: Catalog,
        streams: StreamRegistry,
        site: Site,
    },
    Pulled {
        catalog: Catalog,
        puller: Puller,
    },
    /// It has no streams.
    Nothing,
}

impl origin::Offer for Offer {
    async fn find(&self, id: &StreamId, hops: Hops) -> Result<Found, NotFound> {
        let (catalog, keep): (_, Box<dyn Send>) = match self {
            Self::Own { catalog, .. } => (catalog, Box::new(())),
            Self::Pulled { catalog, puller } => match puller.join(id, hops).await {
                Ok(watching) => (catalog, Box::new(watching)),
                // What ended is still here for a while.
                Err(JoinError::Absent) => (catalog, Box::new(())),
                Err(JoinError::Unreachable) => return Err(NotFound::Unreachable),
            },
            Self::Nothing => return Err(NotFound::Absent),
        };
        let index = catalog.get(id).ok_or(NotFound::Absent)?;
        Ok(Found { index, keep })
    }

    async fn find_log(&self, id: &StreamId, hops: Hops) -> Result<FoundLog, NotFound> {
        match self {
            Self::Own { streams, .. } => {
                let stream = streams.get(id).ok_or(NotFound::Absent)?;
                Ok(FoundLog { stream, keep: Box::new(()) })
            }
            Self::Pulled { puller, .. } => match puller.join_log(id, hops).await {
                Ok((stream, watching)) => Ok(FoundLog { stream, keep: Box::new(watching) }),
                Err(JoinError::Absent) => Err(NotFound::Absent),
                Err(JoinError::Unreachable) => Err(NotFound::Unreachable),
            },
            Self::Nothing => Err(NotFound::Absent),
        }
    }

    async fn state(&self, id: Option<&StreamId>, hops: Hops) -> Option<Bytes> {
        match self {
            Self::Own { site, .. } => Some(site.state_json(id)),
            Self::Pulled { puller, .. } => puller.state_json(id, hops).await,
            Self::Nothing => None,
        }
    }
}
