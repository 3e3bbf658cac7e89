//! Where the streams of the cluster are, for those who read them and for viewers: what the fleet knows, as edge asks it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use cluster::place;
use cluster::{Fleet, Located, Role, State};
use media::{NodeId, StreamId};
use relay::UpstreamUrl;

use crate::config::RoleSet;

/// Questions to the store about streams that this node has not heard of, in a second. Strangers make names up.
const QUESTIONS_PER_SECOND: u32 = 50;

/// Implements [`edge::Route`] and [`edge::Neighbours`].
pub(crate) struct FleetRoute {
    fleet: Fleet,
    own: NodeId,
    zone: String,
    roles: RoleSet,
    asked: Mutex<(Instant, u32)>,
}

impl FleetRoute {
    pub(crate) fn new(fleet: Fleet, zone: String, roles: RoleSet) -> Self {
        let own = fleet.directory().holder().node.clone();
        Self { fleet, own, zone, roles, asked: Mutex::new((Instant::now(), 0)) }
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
        located.as_ref().map(Self::url).transpose()
    }

    async fn left(&self, id: &StreamId, url: &UpstreamUrl) {
        let mut changed = self.fleet.changed();
        loop {
            let located = self.fleet.heard_of(id);
            if located.is_some_and(|located| Self::url(&located).is_ok_and(|there| there != *url)) {
                return;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn all(&self) -> Vec<UpstreamUrl> {
        self.fleet.look(|nodes| {
            let origins = nodes.map(|candidate| candidate.node);
            let origins = origins.filter(|node| node.has(Role::Origin) && node.id != self.own);
            origins.filter_map(|node| node.relay.as_ref()?.parse().ok()).collect()
        })
    }
}

impl edge::Neighbours for FleetRoute {
    fn ranked(&self, id: &StreamId) -> Vec<edge::Neighbour> {
        let ranked = self.fleet.ranked(id, &self.zone).into_iter();
        ranked
            .map(|judged| edge::Neighbour {
                node: judged.node.to_string(),
                origin: judged.viewers,
                verdict: judged.verdict.as_str(),
                takes_viewers: judged.verdict.may_take(),
            })
            .collect()
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
