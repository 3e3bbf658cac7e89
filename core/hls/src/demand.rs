//! Renditions that are made only while somebody watches: how whoever makes them learns of it.

use std::fmt;

/// Whoever makes a rendition.
pub trait Demand: fmt::Debug + Send + Sync {
    /// A viewer asked for its playlist or its media. Called for each such request, before it is answered or held.
    fn touch(&self);

    /// Another node follows the session, until what is returned is dropped.
    fn hold(&self) -> Box<dyn Send + Sync>;
}

/// On a node that follows another: there the rendition is wanted for as long as this one subscribes, whoever watches it
/// here.
#[derive(Debug, Clone, Copy)]
pub struct HeldByOrigin;

impl Demand for HeldByOrigin {
    fn touch(&self) {}

    fn hold(&self) -> Box<dyn Send + Sync> {
        Box::new(())
    }
}
