//! What this node's relay has for others: its own streams, or those that it pulls itself.

use std::future::pending;

use bytes::Bytes;
use edge::{JoinError, Puller, Purpose, Site, Watching};
use hls::Catalog;
use media::StreamId;
use origin::{Found, FoundLog, Keep, NotFound};
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

/// What an origin has lost is better read from another one. An edge's children stay: they have no other.
fn keep(puller: &Puller, watching: Watching) -> Result<Keep, NotFound> {
    match puller.purpose() {
        Purpose::Nodes if watching.is_cut_off() => Err(NotFound::Unreachable),
        Purpose::Nodes => Ok(Box::pin(async move { watching.cut_off().await })),
        Purpose::Viewers => Ok(Box::pin(async move {
            let _watching = watching;
            pending::<()>().await;
        })),
    }
}

impl origin::Offer for Offer {
    async fn find(&self, id: &StreamId, hops: Hops) -> Result<Found, NotFound> {
        let (catalog, keep): (_, Keep) = match self {
            Self::Own { catalog, .. } => (catalog, Box::pin(pending())),
            Self::Pulled { catalog, puller } => match puller.join(id, hops).await {
                Ok(watching) => (catalog, keep(puller, watching)?),
                // What ended is still here for a while.
                Err(JoinError::Absent) => (catalog, Box::pin(pending())),
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
                Ok(FoundLog { stream, keep: Box::pin(pending()) })
            }
            Self::Pulled { puller, .. } => match puller.join_log(id, hops).await {
                Ok((stream, watching)) => Ok(FoundLog { stream, keep: keep(puller, watching)? }),
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
