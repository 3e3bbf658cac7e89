//! Which edge a viewer is sent to: near, not full, and the same one for a stream as long as that holds, so that each stream
//! is read by few edges. And which origins a stream has.

use media::{NodeId, StreamId};
use serde::Serialize;
use twox_hash::XxHash3_64;

use crate::fleet::{Candidate, State};
use crate::node::{Node, Role};
use crate::room::Room;

/// An edge, and why it was chosen or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    #[serde(with = "crate::node::text")]
    pub node: NodeId,
    /// Before the path of a page or a playlist.
    pub viewers: String,
    pub verdict: Verdict,
    /// Of those with one verdict the largest is the first.
    pub weight: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// In the viewer's zone, with room.
    Near,
    /// In another zone, with room.
    Far,
    /// Has little room left.
    Full,
    /// Takes nobody.
    Overfull,
    Draining,
    /// Not heard for a while.
    Suspect,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
            Self::Full => "full",
            Self::Overfull => "overfull",
            Self::Draining => "draining",
            Self::Suspect => "suspect",
        }
    }

    pub const fn may_take(self) -> bool {
        matches!(self, Self::Near | Self::Far | Self::Full)
    }

    pub const fn has_room(self) -> bool {
        matches!(self, Self::Near | Self::Far)
    }
}

/// How many origins have a stream at the ready: the one that is read, and the one that stands by.
pub const ORIGINS_READY: usize = 2;

/// An origin of streams of nodes that only take publishers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub node: NodeId,
    /// Where it is read.
    pub relay: String,
    pub state: State,
    /// Of those in one state the largest is the first.
    pub weight: u64,
}

/// Whether a node has streams that are published to others, for edges to read.
fn is_origin_of_any(node: &Node) -> bool {
    node.has(Role::Origin) && !node.has(Role::Ingest)
}

/// All origins, in the order in which edges read `id` from them. Each of them has every stream that it is asked for, so nobody
/// has to agree on the order: a node that knows of another origin than the next one reads the same bytes there.
pub fn origins<'a>(nodes: impl Iterator<Item = Candidate<'a>>, id: &StreamId) -> Vec<Origin> {
    let seed = XxHash3_64::oneshot(id.to_string().as_bytes());
    let origins = nodes.filter(|candidate| is_origin_of_any(candidate.node)).filter_map(|candidate| {
        let Candidate { node, state } = candidate;
        let weight = weight(&node.id, seed);
        Some(Origin { node: node.id.clone(), relay: node.relay.clone()?, state, weight })
    });
    let mut origins: Vec<_> = origins.collect();
    origins.sort_by_key(|origin| (origin.state, std::cmp::Reverse(origin.weight)));
    origins
}

/// Whether a node reads whatever stream its viewers ask for from others.
pub fn shows_any(node: &Node) -> bool {
    node.has(Role::Edge) && !node.has(Role::Ingest)
}

/// All nodes that can show `id`, the best first. `holder`: who has it. `zone`: of the viewer, or of who was asked.
pub fn rank<'a>(
    nodes: impl Iterator<Item = Candidate<'a>>,
    id: &StreamId,
    holder: Option<&NodeId>,
    zone: &str,
) -> Vec<Judged> {
    let mut ranked: Vec<_> = able(nodes, id, holder, zone).collect();
    ranked.sort_by_key(|(order, _)| *order);
    ranked.into_iter().map(|(order, node)| judged(order, node)).collect()
}

/// The first of [`rank`] that takes viewers, without `but`.
pub fn best<'a>(
    nodes: impl Iterator<Item = Candidate<'a>>,
    id: &StreamId,
    holder: Option<&NodeId>,
    zone: &str,
    but: Option<&NodeId>,
) -> Option<Judged> {
    let others = able(nodes, id, holder, zone).filter(|(_, node)| Some(&node.id) != but);
    let (order, node) = others.min_by_key(|(order, _)| *order)?;
    Some(judged(order, node)).filter(|judged| judged.verdict.may_take())
}

/// What a viewer is sent in a second, in bits, before anybody knows: a picture of 1080 lines.
const VIEWER_RATE: u64 = 4_000_000;
/// What an edge takes whose operator has not said.
const VIEWERS_UNSAID: u64 = 1_000;

/// The edges that `viewers` of `id` fill one after the other, in the order of [`rank`] in one zone.
pub(crate) fn edges_for<'a>(
    nodes: impl Iterator<Item = Candidate<'a>>,
    id: &StreamId,
    viewers: u32,
) -> Vec<NodeId> {
    let seed = XxHash3_64::oneshot(id.to_string().as_bytes());
    let serving = nodes.filter(|candidate| candidate.state == State::Serving);
    let mut edges: Vec<_> = serving.map(|candidate| candidate.node).filter(|node| shows_any(node)).collect();
    edges.sort_by_key(|node| std::cmp::Reverse(weight(&node.id, seed)));
    let mut left = u64::from(viewers);
    let fills = edges.into_iter().take_while(|node| {
        let is_needed = left > 0;
        let takes = match node.load.egress_max {
            0 => VIEWERS_UNSAID,
            max => (max / VIEWER_RATE).max(1),
        };
        left = left.saturating_sub(takes);
        is_needed
    });
    fills.map(|node| node.id.clone()).collect()
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): another edge more or less moves only its own streams.
type Order = (Verdict, std::cmp::Reverse<u64>);

fn able<'a>(
    nodes: impl Iterator<Item = Candidate<'a>>,
    id: &StreamId,
    holder: Option<&NodeId>,
    zone: &str,
) -> impl Iterator<Item = (Order, &'a Node)> {
    let shows = move |node: &Node| {
        node.viewers.is_some() && (shows_any(node) || (node.has(Role::Edge) && Some(&node.id) == holder))
    };
    let seed = XxHash3_64::oneshot(id.to_string().as_bytes());
    let able = nodes.filter(move |candidate| shows(candidate.node));
    able.map(move |candidate| {
        ((judge(candidate, zone), std::cmp::Reverse(weight(&candidate.node.id, seed))), candidate.node)
    })
}

fn judge(Candidate { node, state }: Candidate<'_>, zone: &str) -> Verdict {
    match (state, node.room()) {
        (State::Suspect, _) => Verdict::Suspect,
        (State::Draining, _) => Verdict::Draining,
        (State::Serving, Room::Scarce | Room::None) => Verdict::Overfull,
        (State::Serving, Room::Little) => Verdict::Full,
        (State::Serving, Room::Plenty) if node.zone == zone => Verdict::Near,
        (State::Serving, Room::Plenty) => Verdict::Far,
    }
}

fn judged((verdict, std::cmp::Reverse(weight)): Order, node: &Node) -> Judged {
    Judged { node: node.id.clone(), viewers: node.viewers.clone().unwrap_or_default(), verdict, weight }
}

/// A weight as people read it: 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub fn fraction(weight: u64) -> f64 {
    weight as f64 / u64::MAX as f64
}

/// `seed` is of the stream. The same on every node, of whatever release: so no hash that may change with a compiler.
fn weight(node: &NodeId, seed: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, node.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Boot, Load, Phase};

    fn edge(name: &str, zone: &str, cpu: f64) -> (Node, State) {
        let node = Node {
            id: name.parse().unwrap(),
            boot: Boot(1),
            roles: vec![Role::Edge],
            zone: zone.to_owned(),
            version: String::new(),
            phase: Phase::Serving,
            relay: None,
            viewers: Some(format!("https://{name}")),
            load: Load { cpu, ..Load::default() },
            room: None,
            certificate_ends_ms: None,
            settings: Default::default(),
        };
        (node, State::Serving)
    }

    fn candidates(nodes: &[(Node, State)]) -> impl Iterator<Item = Candidate<'_>> {
        nodes.iter().map(|(node, state)| Candidate { node, state: *state })
    }

    fn best(nodes: &[(Node, State)], stream: &str, zone: &str) -> (String, Verdict) {
        let id = StreamId::new("live", stream).unwrap();
        let best = super::best(candidates(nodes), &id, None, zone, None).unwrap();
        assert_eq!(rank(candidates(nodes), &id, None, zone).remove(0), best);
        (best.node.to_string(), best.verdict)
    }

    /// Two releases, or two machines, must not send viewers of a stream to two edges.
    #[test]
    fn the_order_is_the_same_wherever_it_is_asked_for() {
        let nodes: Vec<_> = (0..9).map(|number| edge(&format!("edge{number}"), "", 0.0)).collect();
        let best = ["cam", "cam1", "cam2", "stage"].map(|stream| best(&nodes, stream, "").0);
        assert_eq!(best, ["edge5", "edge1", "edge1", "edge2"]);
    }

    #[test]
    fn a_near_edge_with_room_comes_before_a_far_one_and_that_before_a_full_one() {
        let mut nodes = vec![edge("a", "eu", 0.9), edge("b", "us", 0.1), edge("c", "eu", 0.2)];
        assert_eq!(best(&nodes, "cam", "eu"), ("c".to_owned(), Verdict::Near));
        nodes[2].1 = State::Draining;
        assert_eq!(best(&nodes, "cam", "eu"), ("b".to_owned(), Verdict::Far));
        nodes[1].1 = State::Suspect;
        assert_eq!(best(&nodes, "cam", "eu"), ("a".to_owned(), Verdict::Full));
        nodes[0].0.load = Load { egress: 96, egress_max: 100, ..Load::default() };
        assert!(
            rank(candidates(&nodes), &StreamId::new("live", "cam").unwrap(), None, "eu")
                .iter()
                .all(|judged| !judged.verdict.may_take())
        );
    }

    #[test]
    fn as_many_edges_are_expected_to_be_needed_as_the_audience_fills() {
        let id = StreamId::new("live", "cam").unwrap();
        let mut nodes: Vec<_> = (0..4).map(|number| edge(&format!("edge{number}"), "", 0.0)).collect();
        let edges = |nodes: &[(Node, State)], viewers| edges_for(candidates(nodes), &id, viewers);
        assert!(edges(&nodes, 0).is_empty());
        let ranked: Vec<_> =
            rank(candidates(&nodes), &id, None, "").into_iter().map(|judged| judged.node).collect();
        for (viewers, needed) in [(1, 1), (1_000, 1), (1_001, 2), (3_500, 4), (1_000_000, 4)] {
            assert_eq!(edges(&nodes, viewers), ranked[..needed], "{viewers}");
        }
        let first = nodes.iter_mut().find(|(node, _)| node.id == ranked[0]).unwrap();
        first.0.load.egress_max = 40_000_000;
        assert_eq!(edges(&nodes, 11), ranked[..2], "ten of them fill the first");
        let first = nodes.iter_mut().find(|(node, _)| node.id == ranked[0]).unwrap();
        first.1 = State::Draining;
        assert_eq!(edges(&nodes, 1), ranked[1..2]);
    }

    fn origin(name: &str) -> (Node, State) {
        let (node, state) = edge(name, "", 0.0);
        let relay = Some(format!("https://{name}:7400"));
        (Node { roles: vec![Role::Origin], relay, viewers: None, ..node }, state)
    }

    #[test]
    fn a_stream_has_an_origin_and_another_that_stands_by() {
        let mut nodes: Vec<_> = ["a", "b", "c", "d"].map(origin).into();
        // Of an earlier release every node that takes publishers is the origin of its own streams, and of no others.
        nodes[0].0.roles = vec![Role::Ingest, Role::Origin];
        nodes.push(edge("edge1", "", 0.0));
        let order = |nodes: &[(Node, State)], stream: &str| -> Vec<_> {
            let origins = origins(candidates(nodes), &StreamId::new("live", stream).unwrap());
            origins.into_iter().map(|origin| origin.node.to_string()).collect()
        };
        let firsts = ["cam", "cam1", "cam2", "stage"].map(|stream| order(&nodes, stream).remove(0));
        assert_eq!(firsts, ["c", "c", "c", "d"]);
        let all = order(&nodes, "cam");
        assert_eq!(all.len(), 3);
        // Who leaves or is silent is read last, and the others stay in their order.
        for state in [State::Draining, State::Suspect] {
            let first = nodes.iter_mut().find(|(node, _)| node.id.as_str() == all[0]).unwrap();
            first.1 = state;
            assert_eq!(order(&nodes, "cam"), [all[1].clone(), all[2].clone(), all[0].clone()]);
        }
    }

    #[test]
    fn an_edge_more_moves_only_the_streams_that_it_gets() {
        let mut nodes: Vec<_> = (0..9).map(|number| edge(&format!("edge{number}"), "", 0.0)).collect();
        let before: Vec<_> = (0..1_000).map(|stream| best(&nodes, &format!("s{stream}"), "").0).collect();
        nodes.push(edge("newcomer", "", 0.0));
        let mut moved = 0;
        for (stream, before) in before.iter().enumerate() {
            let after = best(&nodes, &format!("s{stream}"), "").0;
            if after != *before {
                assert_eq!(after, "newcomer");
                moved += 1;
            }
        }
        assert!((50..=200).contains(&moved), "{moved} of 1,000 to one of ten");
    }
}
