//! The way of each stream through the nodes: who takes it in, who encodes its renditions, which origins have it, and which nodes read
//! it from whom.
//!
//! ```text
//!   /api/v1/streams ─▶ Paths ─┬▶ Here, of this node
//!                             └▶ the relay of each other node ─▶ Here, of that one
//! ```
//!
//! No node tells this by itself. A node that an operator asks asks the others, so that it costs nothing while nobody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::place::ORIGINS_READY;
use cluster::{Fleet, Named, Role, Seen, State, StreamEntry, place};
use edge::{Audience, Site};
use futures_util::future::join_all;
use hls::Catalog;
use media::{NodeId, StreamId, TrackKind};
use origin::RelayMetrics;
use relay::wire::{Hops, STREAMS};
use relay::{Dialer, StreamRegistry, TrackRecord, UpstreamUrl};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::debug;

use crate::membership::Membership;
use crate::transcoding::Transcoding;
use crate::workers::Loans;

/// Of one node's answer: of what is beyond there is the entry in the directory, and no more.
const STREAMS_MAX: usize = 1_024;
/// Of one stream's readers at one node, and of its edges in one answer: what is beyond is counted.
const READERS_MAX: usize = 64;

/// Of a large fleet: nodes that take publishers first, then origins, then edges.
const ASKED_MAX: usize = 64;
/// A node that hangs is not waited for. All are asked at once.
const ANSWER_MAX: Duration = Duration::from_millis(800);
/// What it said before counts for so long: who is busy has not lost what it had. One that cannot be reached has.
const STALE_MAX: Duration = Duration::from_secs(10);
/// However many operators look, and however often.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// What a node has of one stream. Of another release it has more fields, or fewer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Leg {
    /// What viewers' `/state` says, the frame rate of the last seconds and the ladder; of a stream that is published there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) facts: Option<Value>,
    /// Nodes that encode its renditions, that one among them; of a stream that is published there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) workers: Vec<String>,
    /// Nodes that read it from there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) readers: Vec<String>,
    pub(crate) readers_count: usize,
    pub(crate) viewers: u32,
}

/// By the stream's name.
pub(crate) type Legs = BTreeMap<String, Leg>;

/// What this node has. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct Here {
    /// `None` where nobody publishes.
    published: Option<Arc<(Site, StreamRegistry)>>,
    /// `None` where nobody watches, nor reads.
    watched: Option<(Catalog, Audience)>,
    readers: RelayMetrics,
    transcoding: Option<Arc<Transcoding>>,
    loans: Loans,
    own: String,
}

impl Here {
    /// Of a node that has nothing yet.
    pub(crate) fn new(membership: &Membership) -> Self {
        let own = membership.fleet.directory().holder().node.to_string();
        Self { loans: membership.loans.clone(), own, ..Self::default() }
    }

    pub(crate) fn with_published(self, site: Site, streams: StreamRegistry, by: Arc<Transcoding>) -> Self {
        Self { published: Some(Arc::new((site, streams))), transcoding: Some(by), ..self }
    }

    pub(crate) fn with_watched(self, catalog: Catalog, audience: Audience) -> Self {
        Self { watched: Some((catalog, audience)), ..self }
    }

    pub(crate) fn with_readers(&mut self, readers: &RelayMetrics) {
        self.readers = readers.clone();
    }

    pub(crate) fn legs(&self) -> Legs {
        let mut legs = BTreeMap::<StreamId, Leg>::new();
        if let Some((catalog, audience)) = &self.watched {
            for stream in catalog.streams().iter().filter(|stream| stream.state() != hls::State::Ended) {
                legs.entry(stream.id().clone()).or_default().viewers += stream.status().viewers;
            }
            for (id, viewers) in audience.all() {
                legs.entry(id).or_default().viewers += viewers;
            }
        }
        for (id, readers) in self.readers.readers() {
            let leg = legs.entry(id).or_default();
            leg.readers_count = readers.len();
            leg.readers = readers.iter().take(READERS_MAX).map(ToString::to_string).collect();
        }
        if let Some(published) = &self.published {
            let made_here = self.transcoding.as_ref().map(|by| by.made_here()).unwrap_or_default();
            for id in published.1.streams().keys() {
                let leg = legs.entry(id.clone()).or_default();
                leg.facts = facts(&published.0, &published.1, id);
                let mut workers: BTreeSet<_> = self.loans.of(id).iter().map(ToString::to_string).collect();
                if made_here.contains(id) {
                    workers.insert(self.own.clone());
                }
                leg.workers = workers.into_iter().collect();
            }
        }
        legs.into_iter().take(STREAMS_MAX).map(|(id, leg)| (id.to_string(), leg)).collect()
    }
}

/// From memory. Rates in bits per second.
fn facts(site: &Site, streams: &StreamRegistry, id: &StreamId) -> Option<Value> {
    let stream = streams.get(id)?;
    let mut facts: Value = serde_json::from_slice(&site.state_json(Some(id))).ok()?;
    // Of this node alone; on all of them there may be more.
    facts.as_object_mut()?.remove("viewers");
    facts["frame_rate"] = json!(stream.facts().frame_rate);
    let record = stream.record();
    let record = record.borrow();
    let tracks = record.iter().flat_map(|record| record.tracks.iter().zip(0..));
    let pictures = tracks.filter(|(track, _)| {
        track.codec.kind() == TrackKind::Video && !track.derived.is_some_and(|derived| derived.layer)
    });
    let rung = |(track, place): (&TrackRecord, usize)| {
        let (width, height) = track.codec.dimensions()?;
        let live = record.as_ref().and_then(|record| record.live.as_ref());
        let measured = live.and_then(|live| live.bandwidth.get(place)).map(|bandwidth| bandwidth.average);
        let configured = track.derived.map(|derived| derived.bandwidth.average);
        let bitrate = measured.filter(|average| *average > 0).or(configured);
        Some(json!({
            "name": &*track.name,
            "width": width,
            "height": height,
            "codec": track.codec.rfc6381(),
            "bitrate": bitrate,
            "encoded": track.derived.is_some(),
            "on_demand": track.derived.is_some_and(|derived| derived.on_demand),
        }))
    };
    facts["ladder"] = pictures.filter_map(rung).collect();
    Some(facts)
}

/// Of the whole cluster, for who asks this node.
pub(crate) struct Paths {
    fleet: Fleet,
    here: Here,
    /// `None` if there are no other nodes.
    dialer: Option<Dialer>,
    /// Locked by the one who asks; others wait for the answers.
    known: Mutex<Option<Asked>>,
}

struct Asked {
    at: Instant,
    /// When each of the others answered.
    heard: BTreeMap<String, Instant>,
    told: Arc<Told>,
}

/// By the node's name; of those that were asked. `None` of one that has not answered of late.
pub(crate) type Told = BTreeMap<String, Option<Legs>>;

impl Paths {
    pub(crate) fn new(membership: &Membership, here: Here) -> Self {
        let (fleet, dialer) = (membership.fleet.clone(), membership.dialer.clone());
        Self { fleet, here, dialer, known: Mutex::default() }
    }

    /// What all nodes have.
    pub(crate) async fn told(&self) -> Arc<Told> {
        let mut known = self.known.lock().await;
        if let Some(asked) = known.as_ref()
            && asked.at.elapsed() < FRESH_FOR
        {
            return asked.told.clone();
        }
        let answers = self.ask().await;
        let (mut told, mut heard) = (Told::new(), BTreeMap::new());
        for (node, answer) in answers {
            let before = known.as_ref().and_then(|before| {
                let at = before.heard.get(&node).filter(|at| at.elapsed() < STALE_MAX)?;
                Some((before.told.get(&node)?.clone()?, *at))
            });
            let last = match answer {
                Some(Ok(legs)) => Some((legs, Instant::now())),
                Some(Err(why)) => {
                    // Of an earlier release, or just gone.
                    debug!(node.id = node, "does not say what it has: {why}");
                    None
                }
                None => before,
            };
            if let Some((_, at)) = &last {
                heard.insert(node.clone(), *at);
            }
            told.insert(node, last.map(|(legs, _)| legs));
        }
        told.insert(self.here.own.clone(), Some(self.here.legs()));
        let told = Arc::new(told);
        *known = Some(Asked { at: Instant::now(), heard, told: told.clone() });
        told
    }

    /// The answers of the others, and why there is none; `None` if it is only late.
    async fn ask(&self) -> Vec<(String, Option<Result<Legs, String>>)> {
        let Some(dialer) = &self.dialer else { return Vec::new() };
        let asked = self.asked().into_iter().map(|(node, url)| async move {
            let upstream = dialer.at(url);
            let answer = timeout(ANSWER_MAX, upstream.get(STREAMS, Hops::default())).await.ok();
            let legs = answer.map(|answer| {
                let slices = answer.map_err(|error| error.to_string())?;
                serde_json::from_slice::<Legs>(&slices.concat()).map_err(|error| error.to_string())
            });
            (node.to_string(), legs)
        });
        join_all(asked).await
    }

    fn asked(&self) -> Vec<(NodeId, UpstreamUrl)> {
        let holders: BTreeSet<_> =
            self.fleet.streams().into_iter().map(|(_, entry)| entry.holder.node).collect();
        let mut asked: Vec<_> = self.fleet.look(|nodes| {
            let nodes = nodes.filter(|candidate| {
                candidate.state != State::Suspect && candidate.node.id.as_str() != self.here.own
            });
            let ranked = nodes.filter_map(|candidate| {
                let node = candidate.node;
                let rank = match () {
                    () if holders.contains(&node.id) => 0,
                    () if node.has(Role::Origin) => 1,
                    () if node.has(Role::Edge) => 2,
                    () => return None,
                };
                Some((rank, node.id.clone(), node.relay.as_ref()?.parse().ok()?))
            });
            ranked.collect()
        });
        asked.sort_by(|(rank, node, _), (other_rank, other, _)| (rank, node).cmp(&(other_rank, other)));
        asked.into_iter().take(ASKED_MAX).map(|(_, node, url)| (node, url)).collect()
    }

    /// An entry of the directory, with what the nodes have of the stream.
    pub(crate) fn tell(&self, stream: StreamId, entry: StreamEntry, nodes: &[Seen], told: &Told) -> Value {
        let (name, origins) = (stream.to_string(), self.fleet.origins(&stream));
        let path = Path::new(&name, &entry, &origins, nodes, told);
        let facts =
            told.get(entry.holder.node.as_str()).and_then(|legs| legs.as_ref()?.get(&name)?.facts.clone());
        let viewers: u32 = told
            .values()
            .flatten()
            .filter_map(|legs| legs.get(&name))
            .map(|leg| leg.viewers)
            .fold(0, u32::saturating_add);
        let mut all = json!(Named { stream, entry });
        all["path"] = json!(path);
        all["viewers"] = json!(viewers);
        if let Some(facts) = facts {
            all["facts"] = facts;
        }
        all
    }
}

/// The way of one stream.
#[derive(Debug, PartialEq, Serialize)]
struct Path {
    ingest: Hop,
    workers: Vec<Hop>,
    /// The first two are those that have to have it; none if edges read it from `ingest`.
    origins: Vec<Hop>,
    /// Whoever else reads it.
    edges: Vec<Hop>,
    edges_count: usize,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Hop {
    node: String,
    /// `None` of one that is not there.
    state: Option<State>,
    /// Of an origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<OriginPlace>,
    /// Whether it was asked what it has: of a large fleet not all are.
    asked: bool,
    /// Whether it has the stream; `None` if it does not say.
    has: Option<bool>,
    /// From whom it reads the stream.
    from: Vec<String>,
    viewers: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum OriginPlace {
    /// Edges that come now read it there.
    Primary,
    /// Has it at the ready.
    Standby,
    /// Reads it all the same.
    Other,
}

impl Path {
    fn new(name: &str, entry: &StreamEntry, origins: &[place::Origin], nodes: &[Seen], told: &Told) -> Self {
        let leg = |node: &str| told.get(node).and_then(Option::as_ref).map(|legs| legs.get(name));
        let hop = |node: &str, from: Vec<String>| Hop {
            node: node.to_owned(),
            state: nodes.iter().find(|seen| seen.node.id.as_str() == node).map(|seen| seen.state),
            place: None,
            asked: told.contains_key(node),
            has: leg(node).map(|leg| leg.is_some()),
            from,
            viewers: leg(node).flatten().map_or(0, |leg| leg.viewers),
        };
        let holder = entry.holder.node.as_str();
        let holding = nodes.iter().find(|seen| seen.node.id == entry.holder.node);
        let holding = holding.filter(|seen| seen.node.boot == entry.holder.boot);
        let ingest = Hop { state: holding.map(|seen| seen.state), ..hop(holder, Vec::new()) };
        let workers = leg(holder).flatten().into_iter().flat_map(|leg| &leg.workers);

        let mut reads = BTreeMap::<&str, Vec<String>>::new();
        for (node, legs) in told {
            for reader in legs.iter().filter_map(|legs| legs.get(name)).flat_map(|leg| &leg.readers) {
                reads.entry(reader).or_default().push(node.clone());
            }
        }
        // What a node that is gone was, nobody knows any more: origins have the stream all the same.
        let is_apart = holding.is_none_or(|seen| !seen.node.has(Role::Origin));
        let mut hops = Vec::new();
        for (number, origin) in origins.iter().enumerate().filter(|_| is_apart) {
            let place = match number {
                0 => OriginPlace::Primary,
                number if number < ORIGINS_READY => OriginPlace::Standby,
                _ => OriginPlace::Other,
            };
            let from = reads.remove(origin.node.as_str()).unwrap_or_default();
            let is_due = holding.is_some() && place != OriginPlace::Other;
            let origin = Hop { place: Some(place), ..hop(origin.node.as_str(), from) };
            if is_due || !origin.from.is_empty() || (holding.is_none() && origin.has == Some(true)) {
                hops.push(origin);
            }
        }
        let edges_count = reads.len();
        let edges = reads.into_iter().take(READERS_MAX).map(|(node, from)| hop(node, from));
        Self {
            workers: workers.map(|node| hop(node, Vec::new())).collect(),
            origins: hops,
            edges: edges.collect(),
            edges_count,
            ingest,
        }
    }
}

#[cfg(test)]
mod tests {
    use cluster::{Boot, Epoch, Holder, Node, StreamPhase};

    use super::*;
    use crate::testing;

    fn seen(name: &str, roles: &[Role], state: State) -> Seen {
        let node = Node { relay: Some(format!("https://{name}:7400")), ..testing::node(name, roles) };
        Seen { node, silent_ms: 0, state }
    }

    fn origins(nodes: &[Seen]) -> Vec<place::Origin> {
        let candidates = nodes.iter().map(|seen| cluster::Candidate { node: &seen.node, state: seen.state });
        place::origins(candidates, &StreamId::new("live", "cam").unwrap())
    }

    fn entry(boot: u64) -> StreamEntry {
        StreamEntry {
            holder: Holder { node: "in1".parse().unwrap(), boot: Boot(boot) },
            epoch: Some(Epoch(4)),
            phase: StreamPhase::Live,
            session: None,
            since_ms: 0,
            unlisted: false,
        }
    }

    fn told(of: &[(&str, Leg)]) -> Told {
        let legs = |leg: &Leg| Some(BTreeMap::from([("live/cam".to_owned(), leg.clone())]));
        of.iter().map(|(node, leg)| ((*node).to_owned(), legs(leg))).collect()
    }

    fn read_by(readers: &[&str]) -> Leg {
        let readers: Vec<_> = readers.iter().map(|reader| (*reader).to_owned()).collect();
        Leg { readers_count: readers.len(), readers, ..Leg::default() }
    }

    /// `node(state) < from`, of each.
    fn drawn(hops: &[Hop]) -> Vec<String> {
        let drawn = hops.iter().map(|hop| {
            let state = hop.state.map_or("gone".to_owned(), |state| format!("{state:?}").to_lowercase());
            format!("{}({state}) < {}", hop.node, hop.from.join(","))
        });
        drawn.collect()
    }

    #[test]
    fn edges_are_at_the_origins_that_they_read_and_the_one_that_stands_by_is_there() {
        let mut nodes = vec![
            seen("in1", &[Role::Ingest], State::Serving),
            seen("o1", &[Role::Origin], State::Serving),
            seen("o2", &[Role::Origin], State::Serving),
            seen("o3", &[Role::Origin], State::Serving),
            seen("e1", &[Role::Edge], State::Serving),
            seen("w1", &[Role::Transcode], State::Draining),
        ];
        let order = origins(&nodes);
        let [first, second, third] = [0, 1, 2].map(|number| order[number].node.as_str().to_owned());
        let ingest = Leg { workers: vec!["w1".to_owned()], ..read_by(&[&first, &second]) };
        // An edge of another cluster's making is not announced.
        let origin = Leg { viewers: 0, ..read_by(&["e1", "stranger"]) };
        let edge = Leg { viewers: 7, ..Leg::default() };
        let told = told(&[("in1", ingest), (&first, origin), (&second, read_by(&[])), ("e1", edge)]);
        let path = Path::new("live/cam", &entry(1), &order, &nodes, &told);
        assert_eq!((path.ingest.state, path.edges_count), (Some(State::Serving), 2));
        assert_eq!(drawn(&path.workers), ["w1(draining) < "]);
        assert_eq!(
            drawn(&path.origins),
            [format!("{first}(serving) < in1"), format!("{second}(serving) < in1")]
        );
        assert_eq!(path.origins[1].place, Some(OriginPlace::Standby));
        assert_eq!(
            drawn(&path.edges),
            [format!("e1(serving) < {first}"), format!("stranger(gone) < {first}")]
        );
        assert_eq!(path.edges[0].viewers, 7);

        // The first is killed: the third has to have it now, and does not say so yet.
        nodes.iter_mut().find(|seen| seen.node.id.as_str() == first).unwrap().state = State::Suspect;
        let order = origins(&nodes);
        let ingest = read_by(&[&second]);
        let told = self::told(&[("in1", ingest), (&second, read_by(&["e1"]))]);
        let path = Path::new("live/cam", &entry(1), &order, &nodes, &told);
        let places: Vec<_> = path.origins.iter().map(|hop| (hop.node.clone(), hop.has)).collect();
        assert_eq!(places, [(second.clone(), Some(true)), (third.clone(), None)]);
        assert_eq!(drawn(&path.edges), [format!("e1(serving) < {second}")]);

        // One that does not answer, and one that nobody asked.
        let told = Told::from([("in1".to_owned(), Some(Legs::new())), (second.clone(), None)]);
        let path = Path::new("live/cam", &entry(1), &order, &nodes, &told);
        let asked: Vec<_> = path.origins.iter().map(|hop| (hop.node.clone(), hop.has, hop.asked)).collect();
        assert_eq!(asked, [(second, None, true), (third, None, false)]);
    }

    #[test]
    fn a_holder_that_is_gone_or_another_process_is_not_there_and_one_that_is_an_origin_is_read_itself() {
        let nodes = [
            seen("in1", &[Role::Ingest, Role::Origin], State::Serving),
            seen("o1", &[Role::Origin], State::Serving),
        ];
        let told = told(&[("in1", read_by(&["e1"]))]);
        let path = |boot, nodes: &[Seen]| Path::new("live/cam", &entry(boot), &origins(nodes), nodes, &told);
        let alone = path(1, &nodes);
        assert!(alone.origins.is_empty(), "{alone:?}");
        assert_eq!(drawn(&alone.edges), ["e1(gone) < in1"]);
        assert_eq!(path(2, &nodes).ingest.state, None);
        let without = path(1, &nodes[1..]);
        assert_eq!(
            (without.ingest.state, without.origins.len()),
            (None, 0),
            "o1 has not said that it has it"
        );
        let told = self::told(&[("o1", read_by(&["e1"]))]);
        let entry = entry(1);
        let left = Path::new("live/cam", &entry, &origins(&nodes[1..]), &nodes[1..], &told);
        assert_eq!(drawn(&left.origins), ["o1(serving) < "]);
        assert_eq!(drawn(&left.edges), ["e1(gone) < o1"]);
    }

    #[test]
    fn what_another_release_has_of_a_stream_is_read() {
        let legs: Legs = serde_json::from_str(r#"{"live/cam":{"viewers":3,"mood":"good"}}"#).unwrap();
        assert_eq!((legs["live/cam"].viewers, legs["live/cam"].readers.len()), (3, 0));
    }
}
