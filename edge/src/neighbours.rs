//! The other nodes of the cluster that viewers may be sent to.

use media::StreamId;
use serde::Serialize;

/// What is known of the others, at any moment. `server` plugs in the real one.
pub trait Neighbours: Send + Sync {
    /// The nodes that can show `id`, the best first, this one among them.
    fn ranked(&self, id: &StreamId) -> Vec<Neighbour>;

    /// The origin (RFC 6454) of the best one that takes viewers of `id`, this one among them.
    fn best(&self, id: &StreamId) -> Option<String>;

    /// As [`Neighbours::best`], of the others.
    fn best_other(&self, id: &StreamId) -> Option<String>;

    /// Whether viewers of `id` are to be sent to another node: it is of that one, or this one takes no viewers.
    fn is_elsewhere(&self, id: &StreamId) -> bool;

    /// Origins (RFC 6454) of the other nodes that take viewers of any stream.
    fn origins(&self) -> Vec<String>;
}

/// A node, and why viewers are sent to it or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    pub node: String,
    /// Before the path of a page or a playlist.
    pub origin: String,
    pub verdict: &'static str,
    pub takes_viewers: bool,
}
