//! The other nodes that may have a stream.

use async_trait::async_trait;
use media::StreamId;

use crate::checkpoint::Checkpoint;

/// Another node has a publisher of the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} has it")]
pub struct Elsewhere {
    pub node: String,
}

/// Asked before a publisher with the right key is let in to a stream that is not of this node. `server` plugs in the real one.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Makes the stream one of this node.
    ///
    /// # Errors
    /// [`Elsewhere`].
    async fn claim(&self, id: &StreamId) -> Result<(), Elsewhere>;

    /// The session of another node that a stream goes on with that was claimed, if there is one; for who asks first.
    fn take_left(&self, id: &StreamId) -> Option<Checkpoint>;
}

/// For a node that is alone.
pub struct NoOtherNodes;

#[async_trait]
impl Claims for NoOtherNodes {
    async fn claim(&self, _: &StreamId) -> Result<(), Elsewhere> {
        Ok(())
    }

    fn take_left(&self, _: &StreamId) -> Option<Checkpoint> {
        None
    }
}
