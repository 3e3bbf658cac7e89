//! Why viewers of a stream are sent to which edge, which origins it has and why, and which nodes encode it and why not the others: with
//! the figures by which that is decided.

use std::cmp::Ordering;

use cluster::place::{self, Judged, Origin, Verdict};
use cluster::{Fleet, RELIEF, Role, SHARE_LITTLE, SHARE_SCARCE, SILENCE_SUSPECT, Seen, State};
use edge::Neighbour;
use media::StreamId;
use serde::Serialize;

use crate::paths::Told;

/// By what a node was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) zone: String,
    /// Of its processors, 0 to 1.
    pub(crate) cpu_share: f64,
    /// Of what its operator lets it send; `None` if that was not said.
    pub(crate) egress_share: Option<f64>,
    /// From here on, of the larger of both, new viewers go elsewhere.
    pub(crate) share_limit: f64,
    /// Since it was last heard.
    pub(crate) silent_ms: u64,
    /// Of nodes that are as good the largest is the first.
    pub(crate) rendezvous: f64,
    pub(crate) words: String,
}

/// All of it, for one stream.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    stream: String,
    /// Who has it, in words.
    words: String,
    pub(crate) edges: Vec<Edge>,
    pub(crate) origins: Vec<Reason>,
    pub(crate) workers: Vec<Reason>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Edge {
    #[serde(flatten)]
    pub(crate) neighbour: Neighbour,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// A node, and why it does something or not.
#[derive(Debug, Serialize)]
pub(crate) struct Reason {
    node: String,
    zone: String,
    state: State,
    silent_ms: u64,
    /// Of an origin: the largest is the first of those that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    rendezvous: Option<f64>,
    /// Of a worker, in cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    encode_free: Option<f64>,
    words: String,
}

/// `told`: what the nodes have.
pub(crate) fn explain(fleet: &Fleet, id: &StreamId, zone: &str, told: &Told) -> Explained {
    let (nodes, ranked) = (fleet.nodes(), fleet.ranked(id, zone));
    let holder = fleet.heard_of(id);
    let own = fleet.directory().holder().node.as_str();
    let is_apart =
        holder.as_ref().and_then(|located| located.node.as_ref()).is_some_and(|node| !node.has(Role::Origin));
    let words = match &holder {
        None => format!("nobody publishes {id}: this is how it would be"),
        Some(located) => {
            let node = &located.entry.holder.node;
            let read = match (located.node.is_some(), is_apart) {
                (false, _) => "which is not there",
                (true, true) => "which only takes publishers: edges read it from origins",
                (true, false) => "which is an origin itself: edges read it there",
            };
            format!("{id} is on {node}, {read}")
        }
    };
    let origins = if holder.is_none() || is_apart { fleet.origins(id) } else { Vec::new() };
    let encoding = match &holder {
        None => Ok(&[][..]),
        Some(located) => encoding(located.entry.holder.node.as_str(), id, told),
    };
    Explained {
        stream: id.to_string(),
        words,
        edges: edges(ranked, &nodes, zone, own),
        origins: self::origins(&origins, &nodes),
        workers: workers(&nodes, &encoding),
    }
}

/// Each of `ranked`, the best first. `zone`: of the viewer, or of who was asked.
pub(crate) fn edges(ranked: Vec<Judged>, nodes: &[Seen], zone: &str, own: &str) -> Vec<Edge> {
    let first = ranked.first().cloned();
    let told = ranked.into_iter().filter_map(|judged| {
        let seen = nodes.iter().find(|seen| seen.node.id == judged.node)?;
        let first = first.as_ref().filter(|first| first.node != judged.node);
        Some(Edge { figures: figures(&judged, seen, zone, first), neighbour: neighbour(judged, own) })
    });
    told.collect()
}

pub(crate) fn neighbour(judged: Judged, own: &str) -> Neighbour {
    Neighbour {
        is_this: judged.node.as_str() == own,
        node: judged.node.to_string(),
        origin: judged.viewers,
        verdict: judged.verdict.as_str(),
        takes_viewers: judged.verdict.may_take(),
        has_room: judged.verdict.has_room(),
        is_draining: judged.verdict == Verdict::Draining,
    }
}

/// `first`: that comes before it.
fn figures(judged: &Judged, seen: &Seen, zone: &str, first: Option<&Judged>) -> Figures {
    let load = seen.node.load;
    let why = edge_words(judged.verdict, seen, zone);
    let place = match first {
        None if judged.verdict.may_take() => "; viewers are sent here".to_owned(),
        Some(first) if first.verdict == judged.verdict => format!(
            "; after {} by rendezvous hashing ({:.2} of {:.2})",
            first.node,
            place::fraction(judged.weight),
            place::fraction(first.weight)
        ),
        Some(first) if judged.verdict.may_take() => {
            format!("; after {}, which is {}", first.node, first.verdict.as_str())
        }
        _ => String::new(),
    };
    Figures {
        zone: seen.node.zone.clone(),
        cpu_share: rounded(load.cpu),
        egress_share: (load.egress_max > 0).then(|| rounded(load.egress_share())),
        share_limit: SHARE_LITTLE,
        silent_ms: seen.silent_ms,
        rendezvous: rounded(place::fraction(judged.weight)),
        words: format!("{why}{place}"),
    }
}

fn edge_words(verdict: Verdict, seen: &Seen, zone: &str) -> String {
    let (share, uses) = (seen.node.load.share(), uses(seen));
    match verdict {
        Verdict::Near if zone.is_empty() => format!("has room: it {uses}, below {}", percent(SHARE_LITTLE)),
        Verdict::Near => format!("in zone {zone}, and has room: it {uses}, below {}", percent(SHARE_LITTLE)),
        Verdict::Far => format!(
            "has room ({}), but is in {}, and viewers are asked for in {}",
            uses,
            named(&seen.node.zone),
            named(zone)
        ),
        Verdict::Full | Verdict::Overfull => {
            let (from, then) = match verdict {
                Verdict::Full => (SHARE_LITTLE, "new viewers go to an edge with room while there is one"),
                _ => (SHARE_SCARCE, "it takes nobody new, but by HLS where no other has room"),
            };
            match share.total_cmp(&from) {
                Ordering::Less => format!(
                    "has used {} or more, and now {uses}: it has room again clearly below that ({})",
                    percent(from),
                    percent(from - RELIEF)
                ),
                Ordering::Equal | Ordering::Greater => format!("it {uses}: from {} on {then}", percent(from)),
            }
        }
        Verdict::Draining => "drained, or about to end: takes nobody new".to_owned(),
        Verdict::Suspect => silent(seen),
    }
}

/// `uses 12 % of its processors and 3 % of its egress`
fn uses(seen: &Seen) -> String {
    let load = seen.node.load;
    let egress = match load.egress_max {
        0 => "has no limit of egress".to_owned(),
        _ => format!("{} of its egress", percent(load.egress_share())),
    };
    format!("uses {} of its processors and {egress}", percent(load.cpu))
}

fn silent(seen: &Seen) -> String {
    format!(
        "not heard for {} s: from {} s on a node gets nothing new",
        seen.silent_ms / 1_000,
        SILENCE_SUSPECT.as_secs()
    )
}

/// As exact as anybody needs it.
fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn named(zone: &str) -> String {
    if zone.is_empty() { "no zone".to_owned() } else { format!("zone {zone}") }
}

/// In the order in which edges read from them.
fn origins(origins: &[Origin], nodes: &[Seen]) -> Vec<Reason> {
    let told = origins.iter().enumerate().filter_map(|(number, origin)| {
        let seen = nodes.iter().find(|seen| seen.node.id == origin.node)?;
        let words = match (origin.state, number) {
            (State::Suspect, _) => silent(seen),
            (State::Draining, _) => "drained, or about to end: behind all others".to_owned(),
            (State::Serving, 0) => "first by rendezvous hashing: edges that come now read it here".to_owned(),
            (State::Serving, number) if number < place::ORIGINS_READY => {
                "next by rendezvous hashing: stands by, with all of it".to_owned()
            }
            (State::Serving, _) => "further behind by rendezvous hashing: not needed".to_owned(),
        };
        Some(Reason { rendezvous: Some(rounded(place::fraction(origin.weight))), ..reason(seen, words) })
    });
    told.collect()
}

/// Who encodes a stream, as the node says that has it; or why that is not known.
fn encoding<'a>(holder: &str, id: &StreamId, told: &'a Told) -> Result<&'a [String], String> {
    match told.get(holder) {
        Some(Some(legs)) => {
            Ok(legs.get(&id.to_string()).map(|leg| leg.workers.as_slice()).unwrap_or_default())
        }
        Some(None) => Err(format!("{holder} knows who encodes it, and did not answer")),
        None => Err(format!("{holder} knows who encodes it, and was not asked")),
    }
}

/// `encoding`: those that do, or why that is not known.
fn workers(nodes: &[Seen], encoding: &Result<&[String], String>) -> Vec<Reason> {
    let does = |seen: &Seen| encoding.iter().copied().flatten().any(|node| node == seen.node.id.as_str());
    let able = nodes
        .iter()
        .filter(|seen| seen.node.has(Role::Transcode) || seen.node.load.encode_free.is_some() || does(seen));
    let told = able.map(|seen| {
        let words = match (seen.node.load.encode_free, seen.state) {
            _ if does(seen) => "encodes it now".to_owned(),
            (_, State::Suspect) => silent(seen),
            (_, State::Draining) => "drained, or about to end: takes no job".to_owned(),
            (None, State::Serving) => {
                "lends no encoder: none works there, or that is not known yet".to_owned()
            }
            (Some(free), State::Serving) if free < 0.05 => "has no cores left".to_owned(),
            (Some(free), State::Serving) => {
                let why = match encoding {
                    Ok([]) => "nothing of it is encoded now",
                    Ok(_) => "others encode it",
                    Err(why) => why,
                };
                format!("has {free:.1} cores left: {why}")
            }
        };
        Reason { encode_free: seen.node.load.encode_free, ..reason(seen, words) }
    });
    told.collect()
}

fn reason(seen: &Seen, words: String) -> Reason {
    Reason {
        node: seen.node.id.to_string(),
        zone: seen.node.zone.clone(),
        state: seen.state,
        silent_ms: seen.silent_ms,
        rendezvous: None,
        encode_free: None,
        words,
    }
}

#[cfg(test)]
mod tests {
    use cluster::{Candidate, Load, Node};

    use super::*;
    use crate::paths::{Leg, Legs};
    use crate::testing;

    fn seen(name: &str, role: Role, zone: &str, load: Load, state: State) -> Seen {
        let node = Node {
            zone: zone.to_owned(),
            relay: Some(format!("https://{name}:7400")),
            viewers: Some(format!("https://{name}")),
            load,
            ..testing::node(name, &[role])
        };
        Seen { node, silent_ms: if state == State::Suspect { 12_300 } else { 400 }, state }
    }

    fn candidates(nodes: &[Seen]) -> impl Iterator<Item = Candidate<'_>> {
        nodes.iter().map(|seen| Candidate { node: &seen.node, state: seen.state })
    }

    fn id() -> StreamId {
        StreamId::new("live", "cam").unwrap()
    }

    #[test]
    fn each_edge_has_the_figures_by_which_it_was_judged() {
        let load = |cpu, egress| Load { cpu, egress, egress_max: 100, ..Load::default() };
        let mut full = seen("full", Role::Edge, "eu", load(0.1, 91), State::Serving);
        let relieved = seen("relieved", Role::Edge, "eu", load(0.82, 0), State::Serving);
        let nodes = [
            seen("far", Role::Edge, "us", Load { cpu: 0.125, ..Load::default() }, State::Serving),
            seen("gone", Role::Edge, "eu", load(0.0, 0), State::Suspect),
            seen("near", Role::Edge, "eu", load(0.25, 3), State::Serving),
            seen("leaving", Role::Edge, "eu", load(0.0, 0), State::Draining),
            Seen { node: Node { room: Some(cluster::Room::Little), ..relieved.node }, ..relieved },
            {
                full.node.room = None;
                full
            },
            seen("over", Role::Edge, "eu", load(0.0, 97), State::Serving),
        ];
        let ranked = place::rank(candidates(&nodes), &id(), None, "eu");
        let told: Vec<_> = edges(ranked, &nodes, "eu", "near")
            .into_iter()
            .map(|edge| (edge.neighbour.node, edge.figures.words))
            .collect();
        let words = |name: &str| told.iter().find(|(node, _)| node == name).unwrap().1.clone();
        assert_eq!(told[0].0, "near");
        assert_eq!(
            words("near"),
            "in zone eu, and has room: it uses 25 % of its processors and 3 % of its egress, below 85 %; viewers are sent here"
        );
        assert_eq!(
            words("far"),
            "has room (uses 12 % of its processors and has no limit of egress), but is in zone us, and viewers are asked for in \
             zone eu; after near, which is near"
        );
        assert_eq!(
            words("full"),
            "it uses 10 % of its processors and 91 % of its egress: from 85 % on new viewers go to an edge with room while there \
             is one; after near, which is near"
        );
        assert_eq!(
            words("relieved"),
            "has used 85 % or more, and now uses 82 % of its processors and 0 % of its egress: it has room again clearly below \
             that (80 %); after near, which is near"
        );
        assert_eq!(
            words("over"),
            "it uses 0 % of its processors and 97 % of its egress: from 95 % on it takes nobody new, but by HLS where no other \
             has room"
        );
        assert_eq!(words("leaving"), "drained, or about to end: takes nobody new");
        assert_eq!(words("gone"), "not heard for 12 s: from 9 s on a node gets nothing new");
    }

    #[test]
    fn of_edges_that_are_as_good_rendezvous_hashing_decides() {
        let nodes = ["a", "b"].map(|name| seen(name, Role::Edge, "", Load::default(), State::Serving));
        let ranked = place::rank(candidates(&nodes), &id(), None, "");
        let (first, other) = (ranked[0].clone(), ranked[1].clone());
        assert!(first.weight > other.weight);
        let told = edges(ranked, &nodes, "", "a");
        assert!(told[0].figures.rendezvous > told[1].figures.rendezvous);
        assert!(told[0].figures.words.ends_with("; viewers are sent here"), "{}", told[0].figures.words);
        let after = format!("; after {} by rendezvous hashing (", first.node);
        assert!(told[1].figures.words.contains(&after), "{}", told[1].figures.words);
    }

    #[test]
    fn an_origin_is_the_first_the_next_or_not_needed_and_one_that_is_silent_comes_last() {
        let state = |number| if number == 3 { State::Suspect } else { State::Serving };
        let nodes: Vec<_> = (0..4)
            .map(|number| seen(&format!("o{number}"), Role::Origin, "", Load::default(), state(number)))
            .collect();
        let told = origins(&place::origins(candidates(&nodes), &id()), &nodes);
        let begins: Vec<_> =
            told.iter().map(|reason| reason.words.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(begins, ["first", "next", "further", "not"]);
        assert!(told[0].rendezvous > told[1].rendezvous && told[1].rendezvous > told[2].rendezvous);
        assert_eq!(told[3].node, "o3");
    }

    #[test]
    fn a_worker_encodes_it_or_is_told_why_not() {
        let worker = |name: &str, encode_free, state| {
            seen(name, Role::Transcode, "", Load { encode_free, ..Load::default() }, state)
        };
        let nodes = [
            worker("busy", Some(0.0), State::Serving),
            worker("does", Some(0.0), State::Serving),
            worker("free", Some(1.5), State::Serving),
            worker("leaving", Some(2.0), State::Draining),
            worker("mute", None, State::Serving),
            seen("edge1", Role::Edge, "", Load::default(), State::Serving),
        ];
        let words = |told: &Told| -> Vec<_> {
            workers(&nodes, &encoding("in1", &id(), told)).into_iter().map(|reason| reason.words).collect()
        };
        let told = |workers: &[&str]| {
            let workers = workers.iter().map(|node| (*node).to_owned()).collect();
            let leg = Leg { workers, ..Leg::default() };
            Told::from([("in1".to_owned(), Some(Legs::from([(id().to_string(), leg)])))])
        };
        assert_eq!(
            words(&told(&["does"])),
            [
                "has no cores left",
                "encodes it now",
                "has 1.5 cores left: others encode it",
                "drained, or about to end: takes no job",
                "lends no encoder: none works there, or that is not known yet"
            ]
        );
        assert_eq!(words(&told(&[]))[2], "has 1.5 cores left: nothing of it is encoded now");
        let silent = Told::from([("in1".to_owned(), None)]);
        assert_eq!(words(&silent)[2], "has 1.5 cores left: in1 knows who encodes it, and did not answer");
        let unasked = Told::new();
        assert_eq!(words(&unasked)[2], "has 1.5 cores left: in1 knows who encodes it, and was not asked");
    }
}
