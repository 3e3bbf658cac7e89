//! What the admin port tells of the cluster, as JSON: nodes, streams, events; and the orders that it takes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::{Fleet, Key, Node, Phase, Role, Seen, State, StoreError};
use http::Method;
use jiff::Timestamp;
use media::{NodeId, StreamId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tracing::debug;

use crate::authority::ClusterFiles;
use crate::events::{Events, EventsError};
use crate::explain::explain;
use crate::membership::Membership;
use crate::paths::{Here, Paths};
use crate::settings::{ChangeError, SharedSettings};
use crate::standing::Standing;

/// How long an answer waits for what it tells of. Shorter than a connection may last.
const WAIT_MAX: Duration = Duration::from_secs(3);
const _: () = assert!(WAIT_MAX.as_millis() < crate::admin::CONNECTION_TIME_MAX.as_millis());

/// How often it is looked at whether a page that follows should ask again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why an order is not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// Whoever gave it must.
    #[error("not {0}")]
    Body(String),
    #[error(transparent)]
    Setting(ChangeError),
    #[error(transparent)]
    Events(EventsError),
    /// Whoever gave it must mean it.
    #[error("{0}. With --force ({{\"force\": true}}) it is done all the same")]
    Needed(String),
    #[error(transparent)]
    Store(StoreError),
}

/// `PUT /api/v1/nodes/{node}/drain`; an empty body is `{}`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Drain {
    /// Also if no other node has one of its roles.
    #[serde(default)]
    force: bool,
}

/// `PUT /api/v1/streams/{app}/{stream}/expected-viewers`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Audience {
    viewers: NonZeroU32,
    /// RFC 3339; without it, now.
    at: Option<String>,
}

/// `PUT /api/v1/settings/{key}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingValue {
    value: String,
}

pub(crate) struct Api {
    fleet: Fleet,
    events: Events,
    settings: SharedSettings,
    /// Whom the cluster trusts.
    files: ClusterFiles,
    paths: Paths,
    /// Of this node.
    zone: String,
    standing: watch::Receiver<Standing>,
}

impl Api {
    pub(crate) fn new(membership: &Membership, files: ClusterFiles) -> Self {
        Self {
            files,
            fleet: membership.fleet.clone(),
            events: Events::new(membership.journal.clone()),
            settings: membership.settings.clone(),
            paths: Paths::new(membership, Here::new(membership)),
            zone: String::new(),
            standing: membership.standing(),
        }
    }

    /// Tells what this node has of streams, too, and which edges a viewer of this `zone` is sent to.
    #[must_use]
    pub(crate) fn with_paths(self, paths: Paths, zone: String) -> Self {
        Self { paths, zone, ..self }
    }

    #[cfg(test)]
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// What is below `/api/v1`; `None` if there is no such thing.
    pub(crate) async fn answer(&self, path: &str) -> Option<Value> {
        Some(match path {
            "/nodes" => {
                let drained: Vec<_> = self.fleet.drained().iter().map(ToString::to_string).collect();
                let this = self.own().as_str();
                json!({ "this": this, "nodes": self.fleet.nodes(), "drained": drained })
            }
            "/streams" => {
                let (told, nodes) = (self.paths.told().await, self.fleet.nodes());
                let streams = self.fleet.streams().into_iter();
                let streams: Vec<_> =
                    streams.map(|(id, entry)| self.paths.tell(id, entry, &nodes, &told)).collect();
                json!({ "streams": streams, "expected": self.fleet.expected() })
            }
            "/settings" => self.settings.told(),
            "/trust" => self.trust().await,
            _ => {
                let id = path.strip_prefix("/streams/")?.strip_suffix("/explain")?;
                let (app, stream) = id.split_once('/')?;
                let id = StreamId::new(app, stream).ok()?;
                json!(explain(&self.fleet, &id, &self.zone, &*self.paths.told().await))
            }
        })
    }

    fn own(&self) -> &NodeId {
        &self.fleet.directory().holder().node
    }

    pub(crate) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// What an operator has to mend in the cluster's store, if it can be reached.
    pub(crate) fn unfit_store(&self) -> Option<String> {
        self.fleet.store().unfit()
    }

    /// What is ordered below `/api/v1`; `None` if there is no such thing to order.
    ///
    /// # Errors
    /// [`OrderError`].
    pub(crate) async fn order(
        &self,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Option<Result<Value, OrderError>> {
        let steps: Vec<_> = path.split('/').skip(1).collect();
        let ordered = match (steps.as_slice(), method) {
            (["nodes", node, "drain"], &Method::PUT) => {
                return Some(self.drain(&node.parse().ok()?, body).await);
            }
            (["nodes", node, "drain"], &Method::DELETE) => self.undrain(&node.parse().ok()?).await,
            (["streams", app, stream, "expected-viewers"], &Method::PUT) => {
                return Some(self.expect(&StreamId::new(app, stream).ok()?, body).await);
            }
            (["streams", app, stream, "expected-viewers"], &Method::DELETE) => {
                self.expect_nobody(&StreamId::new(app, stream).ok()?).await
            }
            (["events", "readers", name], &Method::PUT) => {
                let acknowledged = self.events.acknowledge(&name.parse().ok()?, body).await;
                return Some(acknowledged.map_err(OrderError::Events));
            }
            (["settings", key], &Method::PUT) => {
                let read = serde_json::from_slice::<SettingValue>(body);
                return Some(match read {
                    Ok(SettingValue { value }) => self.set(key, Some(value)).await,
                    Err(error) => Err(OrderError::Body(format!("{{\"value\": TEXT}}: {error}"))),
                });
            }
            (["settings", key], &Method::DELETE) => return Some(self.set(key, None).await),
            _ => return None,
        };
        Some(ordered.map_err(OrderError::Store))
    }

    /// `null` where there is no cluster, or a file of it cannot be read.
    async fn trust(&self) -> Value {
        let files = self.files.clone();
        let read = move || {
            let list = files.trust()?.map(|signed| signed.list);
            let waiting = files.waiting_tokens(now_ms());
            anyhow::Ok(list.map_or(
                Value::Null,
                |list| json!({ "roots": list.roots.len(), "revoked": list.revoked, "tokens": waiting }),
            ))
        };
        spawn_blocking(read).await.map_err(anyhow::Error::from).flatten().unwrap_or_else(|error| {
            debug!("whom the cluster trusts cannot be told: {error:#}");
            Value::Null
        })
    }

    async fn set(&self, key: &str, value: Option<String>) -> Result<Value, OrderError> {
        let words = self.settings.change(key, value).await.map_err(OrderError::Setting)?;
        Ok(json!({ "key": key, "words": words }))
    }

    async fn expect(&self, id: &StreamId, body: &[u8]) -> Result<Value, OrderError> {
        let body_error = |error: &dyn std::fmt::Display| {
            OrderError::Body(format!("{{\"viewers\": NUMBER from 1 on, \"at\": RFC 3339 or null}}: {error}"))
        };
        let audience: Audience = serde_json::from_slice(body).map_err(|error| body_error(&error))?;
        let at_ms = match &audience.at {
            Some(at) => at.parse::<Timestamp>().map_err(|error| body_error(&error))?.as_millisecond(),
            None => now_ms(),
        };
        let viewers = audience.viewers.get();
        self.fleet.orders().expect(id, viewers, at_ms).await.map_err(OrderError::Store)?;
        let mut changed = self.fleet.changed();
        let find = || self.fleet.expected().into_iter().find(|expected| expected.stream == *id);
        let is_heard = || find().is_some_and(|there| (there.viewers, there.at_ms) == (viewers, at_ms));
        let heard = async { while !is_heard() && changed.changed().await.is_ok() {} };
        let _in_time = timeout(WAIT_MAX, heard).await.is_ok();
        let edges = find().map(|expected| expected.edges).unwrap_or_default();
        let names: Vec<_> = edges.iter().map(ToString::to_string).collect();
        let words = match names.as_slice() {
            [] => format!("{viewers} viewers of {id} are expected, and there is no edge that takes them"),
            names => {
                format!("{viewers} viewers of {id} are expected; it will be open at {}", names.join(", "))
            }
        };
        Ok(
            json!({ "stream": id.to_string(), "viewers": viewers, "at_ms": at_ms, "edges": names, "words": words }),
        )
    }

    async fn expect_nobody(&self, id: &StreamId) -> Result<Value, StoreError> {
        let words = match self.fleet.orders().take_back(&Key::from(id)).await? {
            true => format!("nobody is expected of {id} any more"),
            false => format!("nobody was expected of {id}"),
        };
        Ok(json!({ "stream": id.to_string(), "viewers": 0, "words": words }))
    }

    async fn drain(&self, id: &NodeId, body: &[u8]) -> Result<Value, OrderError> {
        let asked = if body.is_empty() { Ok(Drain::default()) } else { serde_json::from_slice(body) };
        let Drain { force } =
            asked.map_err(|error| OrderError::Body(format!("{{\"force\": BOOLEAN}}: {error}")))?;
        if !force && let Some(words) = needed(id, &self.fleet.nodes()) {
            return Err(OrderError::Needed(words));
        }
        self.fleet.orders().drain(id, self.own()).await.map_err(OrderError::Store)?;
        let node = self.obeyed(id, Phase::Draining).await;
        let nodes = self.fleet.nodes();
        Ok(json!({
            "node": id.as_str(),
            "drained": true,
            "there": node.is_some(),
            "obeyed": node.as_ref().is_some_and(|node| node.phase == Phase::Draining),
            "words": drained(id, node.as_ref(), &nodes),
        }))
    }

    async fn undrain(&self, id: &NodeId) -> Result<Value, StoreError> {
        let was_ordered = self.fleet.orders().take_back(&Key::from(id)).await?;
        let node = self.obeyed(id, Phase::Serving).await;
        let obeyed = node.as_ref().is_some_and(|node| node.phase == Phase::Serving);
        let words = match (was_ordered, &node) {
            (false, _) => format!("nothing was ordered of {id}"),
            (true, None) => format!("the order is taken back; {id} is not there"),
            (true, Some(_)) if obeyed => format!("{id} takes publishers and viewers again"),
            (true, Some(_)) => format!("the order is taken back; {id} has not said yet that it heard of it"),
        };
        Ok(json!({
            "node": id.as_str(),
            "drained": false,
            "there": node.is_some(),
            "obeyed": obeyed,
            "words": words,
        }))
    }

    /// The node, once it says that it is in `phase`, or after a while all the same.
    async fn obeyed(&self, id: &NodeId, phase: Phase) -> Option<Node> {
        let mut changed = self.fleet.changed();
        let said = async {
            while self.fleet.node(id).is_some_and(|node| node.phase != phase)
                && changed.changed().await.is_ok()
            {}
        };
        let _in_time = timeout(WAIT_MAX, said).await.is_ok();
        self.fleet.node(id)
    }

    /// When nodes or streams look otherwise from now on.
    pub(crate) fn changes(&self) -> Changes {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Changes { seen: look(&self.fleet), fleet: self.fleet.clone(), every }
    }
}

/// For a page that shows them.
pub(crate) struct Changes {
    fleet: Fleet,
    seen: u64,
    /// Goes on when events come in between.
    every: Interval,
}

impl Changes {
    /// Done when they look otherwise than the last time. Nobody tells that a node has fallen silent, so they are looked at. May be
    /// dropped at any time, and called again.
    pub(crate) async fn next(&mut self) {
        loop {
            self.every.tick().await;
            let now = look(&self.fleet);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Of everything that a page shows and that is no figure: those change all the time, and are asked for.
fn look(fleet: &Fleet) -> u64 {
    let mut hasher = DefaultHasher::new();
    for Seen { node, state, .. } in fleet.nodes() {
        (node.id, node.boot, state as u8, node.version).hash(&mut hasher);
    }
    for (id, entry) in fleet.streams() {
        (id, entry.holder.node, entry.epoch, entry.phase as u8).hash(&mut hasher);
    }
    for expected in fleet.expected() {
        (expected.stream, expected.viewers, expected.at_ms, expected.edges).hash(&mut hasher);
    }
    hasher.finish()
}

/// Since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What nobody does any more once `id` takes nothing new; `None` if all of its roles are others' as well, or it is not there.
fn needed(id: &NodeId, nodes: &[Seen]) -> Option<String> {
    let node = &nodes.iter().find(|seen| seen.node.id == *id && seen.state != State::Draining)?.node;
    let others = || nodes.iter().filter(|seen| seen.node.id != *id && seen.state == State::Serving);
    // An origin that takes publishers itself gives nothing of what others take.
    let is_apart = |node: &Node| node.has(Role::Origin) && !node.has(Role::Ingest);
    let takes_alone = others().any(|other| other.node.has(Role::Ingest) && !other.node.has(Role::Origin));
    let is_alone = |role: Role| match role {
        Role::Origin if takes_alone && is_apart(node) => !others().any(|other| is_apart(&other.node)),
        _ => node.has(role) && !others().any(|other| other.node.has(role)),
    };
    let does = [
        (Role::Ingest, "takes publishers"),
        (Role::Transcode, "encodes"),
        (Role::Origin, "gives streams to other nodes"),
        (Role::Edge, "takes viewers"),
    ];
    // Of one that does both, one word is enough.
    let is_said = |role| role != Role::Origin || !is_alone(Role::Ingest);
    let alone: Vec<_> = does
        .into_iter()
        .filter(|(role, _)| is_alone(*role) && is_said(*role))
        .map(|(_, does)| does)
        .collect();
    let does = match alone.as_slice() {
        [] => return None,
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    };
    Some(format!("{id} is the only node that {does}"))
}

/// For who drained `id`: what happens now, and what does not.
fn drained(id: &NodeId, node: Option<&Node>, nodes: &[Seen]) -> String {
    let Some(node) = node else {
        return format!("{id} is not there; it is to take nothing new when it is back, until --undo");
    };
    let mut words = vec![match node.phase {
        Phase::Draining => format!("{id} takes nothing new, until --undo, and goes on running"),
        Phase::Serving => format!("{id} has not said yet that it heard of the order, which waits for it"),
    }];
    let others = |role| {
        nodes.iter().any(|seen| seen.node.id != *id && seen.state == State::Serving && seen.node.has(role))
    };
    let count =
        |count: u32, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let (viewers, streams) = (node.load.viewers, node.load.streams);
    if node.has(Role::Ingest) {
        let streams = count(streams, "stream");
        words.push(match others(Role::Ingest) {
            true => format!("it had {streams}, whose broadcasters are sent to connect to another node"),
            false => format!("it had {streams}, and no other node takes publishers: they find no way back"),
        });
    }
    if node.has(Role::Edge) {
        let viewers = count(viewers, "viewer");
        words.push(match others(Role::Edge) {
            true => format!("of {viewers} those by WebRTC are sent to nodes with room, and so is who comes"),
            false => format!("{viewers} stay, since no other node takes viewers"),
        });
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    fn seen(name: &str, roles: &[Role], state: State) -> Seen {
        Seen { node: node(name, roles), silent_ms: 0, state }
    }

    #[test]
    fn the_last_of_a_role_is_not_drained_by_a_slip_of_the_finger() {
        use Role::{Edge, Ingest, Origin, Transcode};
        let words = |id: &str, nodes: &[Seen]| needed(&id.parse().unwrap(), nodes);
        let all = [Ingest, Transcode, Origin, Edge];
        let nodes = [
            seen("a", &all, State::Serving),
            seen("edge1", &[Edge], State::Serving),
            seen("b", &[Ingest, Origin], State::Suspect),
            seen("c", &all, State::Draining),
        ];
        assert_eq!(
            words("a", &nodes).as_deref(),
            Some("a is the only node that takes publishers and encodes")
        );
        assert_eq!(words("edge1", &nodes), None, "a takes viewers");
        assert_eq!(words("edge1", &nodes[1..]).as_deref(), Some("edge1 is the only node that takes viewers"));
        assert_eq!(words("c", &nodes), None, "it is drained already");
        assert_eq!(words("away", &nodes), None);
        let other = [seen("a", &all, State::Serving), seen("d", &all, State::Serving)];
        assert_eq!(words("a", &other), None);
    }
}
