//! What unit tests of several files need.

use std::collections::BTreeMap;

use cluster::{Boot, Load, Node, Phase, Role};

/// One that serves, under its first boot, and has nothing else to tell.
pub(crate) fn node(name: &str, roles: &[Role]) -> Node {
    Node {
        id: name.parse().expect("a name"),
        boot: Boot(1),
        roles: roles.to_vec(),
        zone: String::new(),
        version: String::new(),
        phase: Phase::Serving,
        relay: None,
        viewers: None,
        load: Load::default(),
        room: None,
        certificate_ends_ms: None,
        settings: BTreeMap::new(),
    }
}
