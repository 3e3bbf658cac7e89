//! Content steering (rfc8216bis, §7): players that know it, and are not our page, go on at another node when theirs is gone or
//! is drained.
//!
//! The playlist is the same text at all nodes, so it names no node: only that there is a manifest to ask for. Each node
//! answers that with what it knows of the others. hls.js 1.7.4 leaves a node for five minutes when it has stalled for seconds,
//! also where all nodes have; so each node names the ones behind it, in a ring, and takes over the players of one other.

use http::Uri;
use serde::Serialize;

use crate::neighbours::Neighbour;

/// The pathway of a playlist that names none: the host where the player found it.
const HERE: &str = ".";
/// One that gets another wish of its operator across within seconds, and costs a player a small request in many.
const TTL_S: u32 = 10;
/// A player that finds neither of these will not find a fourth.
const OTHERS_MAX: usize = 3;

#[derive(Debug, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub(crate) struct Manifest {
    version: u32,
    ttl: u32,
    pathway_priority: Vec<String>,
    pathway_clones: Vec<PathwayClone>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
struct PathwayClone {
    base_id: &'static str,
    id: String,
    uri_replacement: UriReplacement,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
struct UriReplacement {
    host: String,
}

impl Manifest {
    /// `nodes`: that can show the stream, the best first. A pathway differs from this node's in its host alone, so a
    /// node with another scheme or port is none.
    pub(crate) fn new(nodes: &[Neighbour]) -> Self {
        let (before, behind) = nodes.split_at(nodes.iter().position(|node| node.is_this).unwrap_or(0));
        let own = behind.first().filter(|node| node.is_this);
        let own_origin = own.and_then(|own| own.origin.parse().ok());
        let others = behind.iter().chain(before).filter(|node| !node.is_this && node.takes_viewers);
        let mut others: Vec<_> = others.collect();
        others.sort_by_key(|node| !node.has_room);
        let clones = others.into_iter().filter_map(|node| {
            let host = host_beside(own_origin.as_ref()?, &node.origin.parse().ok()?)?;
            Some(PathwayClone {
                base_id: HERE,
                id: node.node.clone(),
                uri_replacement: UriReplacement { host },
            })
        });
        let pathway_clones: Vec<_> = clones.take(OTHERS_MAX).collect();
        let mut pathway_priority: Vec<_> = pathway_clones.iter().map(|clone| clone.id.clone()).collect();
        let here = if own.is_some_and(|own| own.is_draining) { pathway_priority.len() } else { 0 };
        pathway_priority.insert(here, HERE.to_owned());
        Self { version: 1, ttl: TTL_S, pathway_priority, pathway_clones }
    }
}

/// The host of `other`, if it is all that is different.
fn host_beside(own: &Uri, other: &Uri) -> Option<String> {
    let is_alike = own.scheme() == other.scheme() && own.port_u16() == other.port_u16();
    other.host().filter(|host| is_alike && own.host() != Some(host)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, origin: &str) -> Neighbour {
        Neighbour {
            node: name.into(),
            origin: origin.into(),
            verdict: "near",
            takes_viewers: true,
            has_room: true,
            is_this: name == "here",
            is_draining: false,
        }
    }

    fn told(nodes: &[Neighbour]) -> serde_json::Value {
        serde_json::to_value(Manifest::new(nodes)).unwrap()
    }

    #[test]
    fn players_stay_here_and_know_where_else_to_go() {
        let nodes = [node("b", "https://b.example"), node("here", "https://a.example")];
        let expected = serde_json::json!({
            "VERSION": 1,
            "TTL": 10,
            "PATHWAY-PRIORITY": [".", "b"],
            "PATHWAY-CLONES": [{ "BASE-ID": ".", "ID": "b", "URI-REPLACEMENT": { "HOST": "b.example" } }],
        });
        assert_eq!(told(&nodes), expected);
    }

    #[test]
    fn each_node_names_the_ones_behind_it_and_those_without_room_last() {
        let full = Neighbour { has_room: false, ..node("b", "https://b.example") };
        let nodes = ["c", "here", "d"].map(|name| node(name, &format!("https://{name}.example")));
        let [first, here, last] = nodes.clone();
        assert_eq!(told(&nodes)["PATHWAY-PRIORITY"], serde_json::json!([".", "d", "c"]));
        let nodes = [first, here, full, last];
        assert_eq!(told(&nodes)["PATHWAY-PRIORITY"], serde_json::json!([".", "d", "c", "b"]));
    }

    #[test]
    fn a_node_that_is_drained_sends_them_on() {
        let here = Neighbour { is_draining: true, takes_viewers: false, ..node("here", "https://a.example") };
        let nodes = [node("b", "https://b.example"), node("c", "https://c.example"), here.clone()];
        assert_eq!(told(&nodes)["PATHWAY-PRIORITY"], serde_json::json!(["b", "c", "."]));
        assert_eq!(told(&[here])["PATHWAY-PRIORITY"], serde_json::json!(["."]));
    }

    #[test]
    fn only_a_node_that_takes_viewers_and_differs_in_its_host_alone_is_a_pathway() {
        let full = Neighbour { takes_viewers: false, ..node("full", "https://full.example:8443") };
        let nodes = [
            full,
            node("plain", "http://plain.example:8443"),
            node("port", "https://port.example"),
            node("same", "https://a.example:8443"),
            node("here", "https://a.example:8443"),
            node("v6", "https://[2001:db8::1]:8443"),
        ];
        let told = told(&nodes);
        assert_eq!(told["PATHWAY-PRIORITY"], serde_json::json!([".", "v6"]));
        assert_eq!(told["PATHWAY-CLONES"][0]["URI-REPLACEMENT"]["HOST"], "[2001:db8::1]");
        // Of a node that the cluster does not know, nothing can be said.
        assert_eq!(
            self::told(&[node("b", "https://b.example")])["PATHWAY-PRIORITY"],
            serde_json::json!(["."])
        );
    }
}
