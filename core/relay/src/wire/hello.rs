//! What two nodes tell each other before the first frame: versions, and who asked whom.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use media::NodeId;

use super::VERSIONS;

/// Versions of the wire: a child lists those it speaks, its upstream names the one it chose.
pub const WIRE: HeaderName = HeaderName::from_static("tidecast-wire");
/// Version of playlists and parts.
pub const FORMAT: HeaderName = HeaderName::from_static("tidecast-format");
/// The nodes between the viewer and here, nearest to the viewer first.
pub const HOPS: HeaderName = HeaderName::from_static("tidecast-hops");

/// Nodes between an origin and a viewer: a shield or two and the edge. More is a mistake of configuration.
pub(super) const HOPS_MAX: usize = 4;

/// The nodes a request came through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hops(Vec<NodeId>);

/// A node asks itself, through however many others: 508.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayLoop {
    #[error("{node} asks itself by way of {hops}: its upstream must lead to an origin")]
    Itself { node: NodeId, hops: Hops },
    #[error("more than {HOPS_MAX} nodes ask one after the other: {hops}")]
    TooMany { hops: Hops },
}

impl Hops {
    /// These, and `node` after them: what `node` sends on.
    ///
    /// # Errors
    /// [`RelayLoop`] if that leads nowhere.
    pub fn through(mut self, node: &NodeId) -> Result<Self, RelayLoop> {
        self.check(node)?;
        self.0.push(node.clone());
        if self.0.len() > HOPS_MAX { Err(RelayLoop::TooMany { hops: self }) } else { Ok(self) }
    }

    /// Whether `node`, which was just asked, may answer.
    ///
    /// # Errors
    /// [`RelayLoop`] if it is among those who ask, or they are too many.
    pub fn check(&self, node: &NodeId) -> Result<(), RelayLoop> {
        if self.0.contains(node) {
            return Err(RelayLoop::Itself { node: node.clone(), hops: self.clone() });
        }
        if self.0.len() > HOPS_MAX { Err(RelayLoop::TooMany { hops: self.clone() }) } else { Ok(()) }
    }
}

impl fmt::Display for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(NodeId::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

/// The headers of a child's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub hops: Hops,
    pub format: u32,
}

/// Why a hello is not answered. Whoever runs the nodes must act: 400, 406.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error(
        "this node speaks version {} of the wire, the other {theirs}: bring both to the same release",
        list(VERSIONS)
    )]
    Version { theirs: String },
    #[error("this node makes parts of format {ours}, the other {theirs}: bring both to the same release")]
    Format { ours: u32, theirs: String },
    #[error("{0} is missing or malformed: this port is for nodes of the cluster")]
    Malformed(&'static str),
}

impl Hello {
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(WIRE, value(list(VERSIONS)));
        headers.insert(FORMAT, self.format.into());
        headers.insert(HOPS, value(self.hops.to_string()));
    }

    /// Reads a child's hello; `format` is ours.
    ///
    /// # Errors
    /// [`HelloError`], to be sent back in words.
    pub fn read(headers: &HeaderMap, format: u32) -> Result<Self, HelloError> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let versions = text(&WIRE).ok_or(HelloError::Malformed("tidecast-wire"))?;
        let spoken =
            |version: &str| version.trim().parse().is_ok_and(|version: u32| VERSIONS.contains(&version));
        if !versions.split(',').any(spoken) {
            return Err(HelloError::Version { theirs: shown(versions) });
        }
        let theirs = text(&FORMAT).ok_or(HelloError::Malformed("tidecast-format"))?;
        if theirs.parse() != Ok(format) {
            return Err(HelloError::Format { ours: format, theirs: shown(theirs) });
        }
        let hops = text(&HOPS).ok_or(HelloError::Malformed("tidecast-hops"))?;
        let hops = hops.split(',').take(HOPS_MAX + 1).map(|name| name.trim().parse());
        let hops = hops.collect::<Result<_, _>>().map_err(|_| HelloError::Malformed("tidecast-hops"))?;
        Ok(Self { hops: Hops(hops), format })
    }
}

/// The version an upstream answers in.
pub fn chosen_version() -> HeaderValue {
    value(list(&VERSIONS[VERSIONS.len() - 1..]))
}

fn list(versions: &[u32]) -> String {
    versions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// What a stranger sent, short enough for a log line.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("versions and names of nodes are visible ASCII")
}
