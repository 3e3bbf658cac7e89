//! Where the streams of the cluster are, for those who read them and for viewers: what the fleet knows, as edge asks it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::place;
use cluster::{Fleet, Located, Role, State};
use media::{NodeId, StreamId};
use relay::UpstreamUrl;
use tokio::time::sleep;

use crate::config::RoleSet;
use crate::explain;
use crate::origins::NO_ORIGIN;

/// Questions to the store about streams that this node has not heard of, in a second. Strangers make names up.
const QUESTIONS_PER_SECOND: u32 = 50;

/// An origin that did not answer is asked last for so long; by then the others know that it is suspect.
const FAILED_FOR: Duration = Duration::from_secs(15);

/// How often it is looked at whether a stream is better read elsewhere: all nodes have to be looked at, and each of them is heard
/// of every few seconds.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Implements [`edge::Route`] and [`edge::Neighbours`].
pub(crate) struct FleetRoute {
    fleet: Fleet,
    own: NodeId,
    zone: String,
    roles: RoleSet,
    asked: Mutex<(Instant, u32)>,
    failed: Mutex<Vec<Failed>>,
}

/// An upstream that is asked last.
struct Failed {
    url: UpstreamUrl,
    /// `None`: for all.
    stream: Option<StreamId>,
    until: Instant,
}

/// The nodes from which this one can read a stream, as things stand.
enum Sources {
    /// Whoever has it.
    Holder(UpstreamUrl),
    /// The best first, with what is known against them.
    Origins(Vec<(UpstreamUrl, State)>),
}

impl FleetRoute {
    pub(crate) fn new(fleet: Fleet, zone: String, roles: RoleSet) -> Self {
        let own = fleet.directory().holder().node.clone();
        let (asked, failed) = (Mutex::new((Instant::now(), 0)), Mutex::default());
        Self { fleet, own, zone, roles, asked, failed }
    }

    fn may_ask(&self) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.0.elapsed().as_secs() > 0 {
            *asked = (Instant::now(), 0);
        }
        asked.1 += 1;
        asked.1 <= QUESTIONS_PER_SECOND
    }

    fn best_but(&self, id: &StreamId, but: Option<&NodeId>) -> Option<String> {
        self.fleet.best(id, &self.zone, but).map(|judged| judged.viewers)
    }

    /// Where other nodes read what `located` is.
    fn url(located: &Located) -> Result<UpstreamUrl, String> {
        let holder = &located.entry.holder.node;
        let node = located.node.as_ref().ok_or_else(|| format!("node {holder} is not there"))?;
        let relay = node.relay.as_ref().ok_or_else(|| format!("node {holder} serves no other nodes"))?;
        relay.parse()
    }

    fn sources(&self, id: &StreamId, located: &Located) -> Result<Sources, String> {
        if self.roles.origin || located.node.as_ref().is_some_and(|node| node.has(Role::Origin)) {
            return Self::url(located).map(Sources::Holder);
        }
        let origins = self.fleet.origins(id).into_iter();
        let origins: Vec<_> =
            origins.filter_map(|origin| Some((origin.relay.parse().ok()?, origin.state))).collect();
        match (&located.node, origins.is_empty()) {
            (_, false) => Ok(Sources::Origins(origins)),
            (Some(node), true) => Err(format!("{} only takes publishers, and {NO_ORIGIN}", node.id)),
            (None, true) => Self::url(located).map(Sources::Holder),
        }
    }

    /// Of a stream that has been heard of.
    fn heard_sources(&self, id: &StreamId) -> Option<Sources> {
        self.sources(id, &self.fleet.heard_of(id)?).ok()
    }

    fn has_failed(&self, id: &StreamId, url: &UpstreamUrl) -> bool {
        self.failed_until(id, url).is_some()
    }

    /// `None` of one that is well.
    fn failed_until(&self, id: &StreamId, url: &UpstreamUrl) -> Option<Instant> {
        let (failed, now) = (self.failed.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let of_it = failed
            .iter()
            .filter(|failed| failed.url == *url && failed.stream.as_ref().is_none_or(|stream| stream == id));
        of_it.map(|failed| failed.until).filter(|until| *until > now).max()
    }
}

#[async_trait]
impl edge::Route for FleetRoute {
    async fn of(&self, id: &StreamId) -> Result<Option<UpstreamUrl>, String> {
        let heard = self.fleet.heard_of(id);
        let located = match heard {
            Some(located) => Some(located),
            None if self.may_ask() => self.fleet.find(id).await.map_err(|error| error.to_string())?,
            None => None,
        };
        let Some(located) = located else { return Ok(None) };
        match self.sources(id, &located)? {
            Sources::Holder(url) => Ok(Some(url)),
            Sources::Origins(origins) => {
                // Of those that have failed, the one that may be well again first.
                let best = origins.iter().min_by_key(|(url, _)| self.failed_until(id, url));
                Ok(best.map(|(url, _)| url.clone()))
            }
        }
    }

    async fn left(&self, id: &StreamId, url: &UpstreamUrl) {
        let mut changed = self.fleet.changed();
        loop {
            changed.borrow_and_update();
            let sources = self.heard_sources(id);
            match &sources {
                Some(Sources::Holder(holder)) if holder != url => return,
                // As long as it is well it is read, even if there is a better one by now.
                Some(Sources::Origins(origins)) => {
                    let mut well = origins.iter().filter(|(_, state)| *state == State::Serving).peekable();
                    if well.peek().is_some() && well.all(|(origin, _)| origin != url) {
                        return;
                    }
                }
                Some(Sources::Holder(_)) | None => {}
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
            if matches!(sources, Some(Sources::Origins(_))) {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    fn other(&self, id: &StreamId, url: &UpstreamUrl) -> Option<UpstreamUrl> {
        match self.heard_sources(id)? {
            Sources::Origins(origins) => {
                let mut origins = origins.into_iter().map(|(origin, _)| origin);
                origins.find(|origin| origin != url && !self.has_failed(id, origin))
            }
            Sources::Holder(holder) => (holder != *url).then_some(holder),
        }
    }

    fn failed(&self, stream: Option<&StreamId>, url: &UpstreamUrl) {
        let failure =
            Failed { url: url.clone(), stream: stream.cloned(), until: Instant::now() + FAILED_FOR };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|known| {
            known.until > Instant::now() && (&known.url, &known.stream) != (&failure.url, &failure.stream)
        });
        failed.push(failure);
    }

    fn answered(&self, url: &UpstreamUrl) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|known| known.url != *url || known.stream.is_some());
    }

    fn all(&self) -> Vec<UpstreamUrl> {
        self.fleet.look(|nodes| {
            let publishers = nodes.map(|candidate| candidate.node);
            let publishers = publishers.filter(|node| node.has(Role::Ingest) && node.id != self.own);
            publishers.filter_map(|node| node.relay.as_ref()?.parse().ok()).collect()
        })
    }
}

impl edge::Neighbours for FleetRoute {
    fn ranked(&self, id: &StreamId) -> Vec<edge::Neighbour> {
        let ranked = self.fleet.ranked(id, &self.zone).into_iter();
        ranked.map(|judged| explain::neighbour(judged, self.own.as_str())).collect()
    }

    fn best(&self, id: &StreamId) -> Option<String> {
        self.best_but(id, None)
    }

    fn best_other(&self, id: &StreamId) -> Option<String> {
        self.best_but(id, Some(&self.own))
    }

    fn other_with_room(&self, id: &StreamId) -> Option<String> {
        let best = self.fleet.best(id, &self.zone, Some(&self.own));
        best.filter(|judged| judged.verdict.has_room()).map(|judged| judged.viewers)
    }

    fn is_elsewhere(&self, id: &StreamId) -> bool {
        let Some(holder) = self.fleet.holder_of(id).filter(|_| self.roles.ingest) else { return false };
        // Its own streams a node without viewers shows all the same while there is nobody else to.
        holder != self.own || !self.roles.edge && self.best_other(id).is_some()
    }

    fn origins(&self) -> Vec<String> {
        self.fleet.look(|nodes| {
            let others = nodes.filter(|candidate| {
                candidate.node.id != self.own
                    && candidate.state == State::Serving
                    && place::shows_any(candidate.node)
            });
            others.filter_map(|candidate| candidate.node.viewers.clone()).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::{
        Boot, Bucket, Directory, Holder, Journal, Key, Memory, Node, Store, StreamEntry, StreamPhase,
    };
    use edge::Route;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::testing;

    const EDGE: RoleSet = RoleSet { ingest: false, origin: false, transcode: false, edge: true };

    fn id(stream: &str) -> StreamId {
        StreamId::new("live", stream).unwrap()
    }

    /// Of a cluster of `nodes`, the first of which has two streams: what a node with `roles` knows.
    async fn route(nodes: &[(&str, &[Role])], roles: RoleSet) -> FleetRoute {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let holder = Holder { node: nodes[0].0.parse().unwrap(), boot: Boot(1) };
        let fleet = Fleet::new(store.clone(), Directory::new(store.clone(), holder.clone()));
        let journal = Journal::new(store.clone(), holder.node.clone(), holder.boot);
        tokio::spawn({
            let fleet = fleet.clone();
            async move { fleet.run(journal, CancellationToken::new()).await }
        });
        for (name, roles) in nodes {
            let relay = Some(format!("https://{name}:7400"));
            let node = Node { relay, ..testing::node(name, roles) };
            let value = serde_json::to_vec(&node).unwrap().into();
            store.put(Bucket::Nodes, &Key::from(&node.id), value).await.unwrap();
            fleet.wait_for(&node.id).await;
        }
        for stream in ["cam", "cam1"].map(id) {
            let (epoch, phase, holder) = (None, StreamPhase::Live, holder.clone());
            let entry = StreamEntry { holder, epoch, phase, session: None, since_ms: 0, unlisted: false };
            fleet.directory().claim(&stream, entry, |_| false).await.unwrap();
            let mut changed = fleet.changed();
            while fleet.heard_of(&stream).is_none() {
                changed.changed().await.unwrap();
            }
        }
        FleetRoute::new(fleet, String::new(), roles)
    }

    async fn of(route: &FleetRoute, stream: &str) -> Result<String, String> {
        route.of(&id(stream)).await.map(|url| url.unwrap().to_string())
    }

    #[tokio::test]
    async fn an_origin_that_fails_is_passed_over_for_the_other_and_asked_all_the_same_when_both_have() {
        let nodes: &[(&str, &[Role])] =
            &[("in1", &[Role::Ingest]), ("o1", &[Role::Origin]), ("o2", &[Role::Origin])];
        let route = route(nodes, EDGE).await;
        let first = of(&route, "cam").await.unwrap();
        let failed = first.parse().unwrap();
        assert!(first.starts_with("https://o") && route.other(&id("cam"), &failed).is_some());
        route.failed(Some(&id("cam")), &failed);
        let second = of(&route, "cam").await.unwrap();
        assert!(second.starts_with("https://o") && second != first);
        // Of one stream alone: of others it may have more.
        assert!(route.other(&id("cam1"), &second.parse().unwrap()).is_some());
        assert!(route.other(&id("cam"), &second.parse().unwrap()).is_none());
        route.failed(None, &failed);
        assert!(route.other(&id("cam1"), &second.parse().unwrap()).is_none());
        assert_eq!(of(&route, "cam1").await.unwrap(), second);
        route.failed(None, &second.parse().unwrap());
        assert_eq!(of(&route, "cam").await.unwrap(), first);
    }

    #[tokio::test]
    async fn origins_and_nobody_else_read_from_who_only_takes_publishers() {
        let nodes: &[(&str, &[Role])] = &[("in1", &[Role::Ingest]), ("o1", &[Role::Origin])];
        let origin = RoleSet { origin: true, edge: false, ..EDGE };
        assert_eq!(of(&route(nodes, origin).await, "cam").await.unwrap(), "https://in1:7400");
        let edge = route(nodes, EDGE).await;
        assert_eq!(of(&edge, "cam").await.unwrap(), "https://o1:7400");
        assert!(edge.other(&id("cam"), &"https://o1:7400".parse().unwrap()).is_none());
        let told = of(&route(&nodes[..1], EDGE).await, "cam").await.unwrap_err();
        assert_eq!(told, format!("in1 only takes publishers, and {NO_ORIGIN}"));
        // Who is both is read itself, whoever else is an origin.
        let nodes: &[(&str, &[Role])] = &[("in1", &[Role::Ingest, Role::Origin]), ("o1", &[Role::Origin])];
        assert_eq!(of(&route(nodes, EDGE).await, "cam").await.unwrap(), "https://in1:7400");
    }
}
