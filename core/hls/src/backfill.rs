//! Bodies of parts that this node lists and another node has: fetched when the first viewer asks, or
//! [all](StreamIndex::fetch_bodies) of them unasked, once, and then kept.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::index::StreamIndex;
use crate::rendition::{Rendition, RenditionName};
use crate::segment::{Position, StoredPart};

/// A viewer waits no longer than this for a body from another node, behind whoever asked before.
const FETCH_MAX: Duration = Duration::from_secs(5);

pub type Fetch<'a> = Pin<Box<dyn Future<Output = Result<Vec<Bytes>, FetchError>> + Send + 'a>>;

/// Where the bodies of one session come from.
pub trait Backfill: Send + Sync + fmt::Debug {
    /// The body of a part, as the node made it that packaged it in the publication of this `epoch`; see
    /// [`StreamHeader::epoch`](crate::StreamHeader::epoch).
    fn part<'a>(&'a self, rendition: &'a RenditionName, position: Position, epoch: u32) -> Fetch<'a>;
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The other node does not have it any more: 404.
    #[error("the part is gone")]
    Gone,
    /// The other node does not answer, or not what it promised: 503.
    #[error("the node that has the part does not give it")]
    Unreachable,
}

impl StreamIndex {
    /// Fetches every body that is not here, the newest first, as far as they are to be had: for a node that others will ask.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`]: some are still not here, and may be had later.
    pub async fn fetch_bodies(&self) -> Result<(), FetchError> {
        for rendition in &self.renditions {
            let snapshot = rendition.snapshot();
            for segment in snapshot.segments().iter().rev() {
                for (number, part) in (0..).zip(&segment.parts) {
                    let position = Position { msn: segment.msn, part: number };
                    // What is gone meanwhile is gone elsewhere too.
                    match self.body(rendition, position, part).await {
                        Ok(_) | Err(FetchError::Gone) => {}
                        Err(unreachable @ FetchError::Unreachable) => return Err(unreachable),
                    }
                }
            }
        }
        Ok(())
    }

    /// The body of `part`, fetched if it is not here. Whoever asks for the same part waits for the same fetch; if the
    /// one who began it hangs up, the next goes on.
    pub(crate) async fn body(
        &self,
        rendition: &Rendition,
        position: Position,
        part: &StoredPart,
    ) -> Result<Vec<Bytes>, FetchError> {
        if let Some(body) = part.body.get() {
            return Ok(body.clone());
        }
        let backfill = self.backfill.as_ref().ok_or(FetchError::Gone)?;
        let fetch = async || {
            let body = backfill.part(&rendition.header.name, position, self.epoch()).await?;
            let bytes: u64 = body.iter().map(|slice| slice.len() as u64).sum();
            if bytes == part.bytes { Ok(body) } else { Err(FetchError::Unreachable) }
        };
        let fetched = Box::pin(timeout(FETCH_MAX, part.body.get_or_try_init(fetch))).await;
        fetched.map_err(|_| FetchError::Unreachable)?.cloned()
    }
}
