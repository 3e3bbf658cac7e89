//! What a viewer's path means for the streams of another node.

use media::StreamId;
use relay::wire::Hops;
use serde_json::Value;

use crate::pull::{JoinError, Puller, Watching};

/// Waits until the stream of a media path is here. `Ok(None)` for a path that names none.
///
/// # Errors
/// [`JoinError`], also for a playlist that would be too old: another edge may know a newer one.
pub(crate) async fn admit(puller: &Puller, path: &str) -> Result<Option<Watching>, JoinError> {
    let mut steps = path.split('/').skip(2);
    let names = steps.next().zip(steps.next());
    let Some(id) = names.and_then(|(app, stream)| StreamId::new(app, stream).ok()) else { return Ok(None) };
    let watching = puller.join(&id, Hops::default()).await?;
    match path.ends_with(".m3u8") && watching.is_stale() {
        true => Err(JoinError::Unreachable),
        false => Ok(Some(watching)),
    }
}

/// The state that `/state` or `/state/{app}/{stream}` asks for: `None` for any other path, `Some(None)` if nobody knows.
pub(crate) async fn state(puller: &Puller, path: &str) -> Option<Option<Value>> {
    let steps: Vec<_> = path.split('/').skip(1).collect();
    let id = match *steps.as_slice() {
        ["state"] => None,
        ["state", app, stream] => Some(StreamId::new(app, stream).ok()?),
        _ => return None,
    };
    Some(puller.state(id.as_ref(), Hops::default()).await)
}
