//! Where viewers by WebRTC have their streams from: this node's publishers, or another node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use media::StreamId;
use relay::wire::Hops;
use relay::{Stream, StreamRegistry};
use rtc::signalling::try_again;
use tokio::time::{Instant, sleep, timeout};

use crate::pull::{JoinError, Puller, Watching};

/// For a stream that has just begun to have its tracks.
const OPENING_MAX: Duration = Duration::from_secs(3);
/// For a stream that the viewer wants to wait for (`?wait`): with what another node takes to answer, about what proxies give a
/// request.
const WAIT_MAX: Duration = Duration::from_secs(25);
/// How often another node is asked whether it has such a stream by now.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// For who comes to a stream that is not live, in seconds.
const RETRY_AFTER_S: u32 = 3;

pub enum Programmes {
    Own(StreamRegistry),
    Pulled(Puller),
}

/// A stream whose tracks are known. What is pulled is pulled for as long as somebody has the second.
pub(super) type Found = (Arc<Stream>, Option<Watching>);

impl Programmes {
    /// # Errors
    /// The answer to who asked.
    pub(super) async fn find(&self, id: &StreamId, waits: bool) -> Result<Found, Response<Bytes>> {
        let patience = if waits { WAIT_MAX } else { Duration::ZERO };
        match self {
            Self::Own(registry) => own(registry, id, patience).await.map(|stream| (stream, None)),
            Self::Pulled(puller) => {
                pulled(puller, id, patience).await.map(|(stream, watching)| (stream, Some(watching)))
            }
        }
    }
}

async fn own(
    registry: &StreamRegistry,
    id: &StreamId,
    patience: Duration,
) -> Result<Arc<Stream>, Response<Bytes>> {
    let mut streams = registry.watch();
    // In vain if nobody publishes in time, and then it is looked for once more all the same.
    let _came = timeout(patience, streams.wait_for(|streams| streams.contains_key(id))).await.is_ok();
    let stream = registry.get(id).ok_or_else(absent)?;
    let mut record = stream.record();
    let opening = timeout(patience.max(OPENING_MAX), record.wait_for(Option::is_some));
    match opening.await.map(|opened| opened.map(drop)) {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(_)) => Err(absent()),
        Err(_) => Err(try_again(StatusCode::NOT_FOUND, "the stream is only starting", RETRY_AFTER_S)),
    }
}

async fn pulled(
    puller: &Puller,
    id: &StreamId,
    patience: Duration,
) -> Result<(Arc<Stream>, Watching), Response<Bytes>> {
    let until = Instant::now() + patience;
    loop {
        match puller.join_log(id, Hops::default()).await {
            Ok(found) => return Ok(found),
            Err(JoinError::Absent) if Instant::now() < until => sleep(ASK_EVERY).await,
            Err(JoinError::Absent) => return Err(absent()),
            Err(JoinError::Unreachable) => {
                let words = "the origin does not answer";
                return Err(try_again(StatusCode::SERVICE_UNAVAILABLE, words, RETRY_AFTER_S));
            }
        }
    }
}

fn absent() -> Response<Bytes> {
    try_again(StatusCode::NOT_FOUND, "the stream is not live", RETRY_AFTER_S)
}
