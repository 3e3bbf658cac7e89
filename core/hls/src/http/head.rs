//! A request's head, as far as its answer depends on it.

use ::http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use ::http::{HeaderMap, HeaderValue, Method};

use super::negotiate::accepts_gzip;

/// By value: the head that came from the connection keeps the buffer it was read into, and hyper takes another 8 KiB for
/// what may follow a request that waits. With this instead, thousands of held requests keep one buffer each.
#[derive(Debug)]
pub struct Head {
    pub(super) method: Method,
    /// The path, and behind it the query.
    path_and_query: Box<str>,
    path_bytes: usize,
    pub(super) gzip: bool,
    pub(super) lower_only: bool,
    /// The epoch of the publication that the node knows; zero if it does not say.
    pub(super) by_node: Option<u32>,
    /// What makes an answer partial, or empty. Seldom any.
    pub(super) conditions: HeaderMap,
}

impl Head {
    /// Takes `path` and `query` rather than a URI, because the role that mounts the service may have stripped something
    /// from them.
    #[must_use]
    pub fn new(method: &Method, path: &str, query: Option<&str>, headers: &HeaderMap) -> Self {
        let mut conditions = HeaderMap::new();
        for (name, value) in headers {
            // Of bytes of its own: a clone would share the buffer.
            if matches!(*name, IF_NONE_MATCH | IF_RANGE | RANGE)
                && let Ok(value) = HeaderValue::from_bytes(value.as_bytes())
            {
                conditions.append(name, value);
            }
        }
        Self {
            method: method.clone(),
            path_and_query: [path, query.unwrap_or_default()].concat().into(),
            path_bytes: path.len(),
            gzip: accepts_gzip(headers),
            lower_only: false,
            by_node: None,
            conditions,
        }
    }

    /// Of a multivariant playlist only the lower renditions are wanted: for who comes when there is little room.
    #[must_use]
    pub fn with_lower_only(self) -> Self {
        Self { lower_only: true, ..self }
    }

    /// A node asks, for whoever may want it: that is no sign of a viewer. A part is given to it if it is of the publication of
    /// this `epoch`, or zero.
    #[must_use]
    pub fn by_node(self, epoch: u32) -> Self {
        Self { by_node: Some(epoch), ..self }
    }

    pub fn path(&self) -> &str {
        &self.path_and_query[..self.path_bytes]
    }

    pub(super) fn query(&self) -> &str {
        &self.path_and_query[self.path_bytes..]
    }
}
