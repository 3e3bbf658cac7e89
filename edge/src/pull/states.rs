//! States of streams as the upstream tells them, asked for at most once a second each, whoever polls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hls::Catalog;
use media::StreamId;
use net::Throttle;
use relay::wire::Hops;
use relay::{StreamRegistry, Upstream, UpstreamError};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::PullMetrics;
use super::upstreams::{Source, Upstreams};
use crate::audience::Audience;
use crate::state::Entry;

/// An answer is used so long without asking again.
const FRESH_FOR: Duration = Duration::from_millis(900);

/// And so long if the upstream does not answer: what a page shows may be a little old, but not wrong for minutes.
const STALE_MAX: Duration = Duration::from_secs(10);

/// Streams whose states are remembered. When there are more, all are forgotten.
const STATES_MAX: usize = 1024;

/// Of several nodes one that hangs is not waited for: the list is short of its streams then, and not late.
const LIST_ANSWER_MAX: Duration = Duration::from_secs(1);

/// Questions to the upstream at once.
const ASKING_MAX: usize = 16;

pub(super) struct States {
    upstreams: Upstreams,
    known: Mutex<HashMap<Option<StreamId>, Arc<Cell>>>,
    asking: Semaphore,
    failures: Throttle,
    metrics: PullMetrics,
}

/// Locked by the one who asks; others wait for the answer.
type Cell = tokio::sync::Mutex<Option<(Instant, Value)>>;

impl States {
    pub(super) fn new(upstreams: Upstreams, metrics: PullMetrics) -> Self {
        let asking = Semaphore::new(ASKING_MAX);
        Self { upstreams, known: Mutex::default(), asking, failures: Throttle::sparse(), metrics }
    }

    /// Of one stream, or of all.
    pub(super) async fn get(&self, source: Option<&Source>, hops: Hops) -> Option<Value> {
        let cell = self.cell(source.map(Source::id));
        let mut known = cell.lock().await;
        let fresh = known.as_ref().filter(|(at, _)| at.elapsed() < FRESH_FOR);
        if let Some((_, state)) = fresh {
            return Some(state.clone());
        }
        if let Some(state) = self.ask(source, hops).await {
            *known = Some((Instant::now(), state));
        }
        known.as_ref().filter(|(at, _)| at.elapsed() < STALE_MAX).map(|(_, state)| state.clone())
    }

    async fn ask(&self, source: Option<&Source>, hops: Hops) -> Option<Value> {
        let _asking = self.asking.acquire().await.ok()?;
        match source {
            Some(source) => {
                self.metrics.states.inc();
                match source.get(&format!("state/{}", source.id()), &hops).await {
                    Ok(slices) => serde_json::from_slice(&slices.concat()).ok(),
                    Err(UpstreamError::NotFound) => Some(offline(source.id())),
                    Err(error) => self.failed(&error),
                }
            }
            None => {
                let upstreams = self.upstreams.all();
                let is_one = upstreams.len() == 1;
                let lists = upstreams.iter().map(|upstream| {
                    let list = self.ask_one(upstream, "state", hops.clone());
                    async move {
                        if is_one { list.await } else { timeout(LIST_ANSWER_MAX, list).await.ok().flatten() }
                    }
                });
                merged(join_all(lists).await)
            }
        }
    }

    async fn ask_one(&self, upstream: &Upstream, path: &str, hops: Hops) -> Option<Value> {
        self.metrics.states.inc();
        match upstream.get(path, hops).await {
            Ok(slices) => serde_json::from_slice(&slices.concat()).ok(),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &UpstreamError) -> Option<Value> {
        if let Some(more) = self.failures.pass(Instant::now()) {
            warn!(more, "cannot tell the state of streams: {error}");
        }
        None
    }

    fn cell(&self, id: Option<&StreamId>) -> Arc<Cell> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let id = id.cloned();
        if known.len() >= STATES_MAX && !known.contains_key(&id) {
            known.clear();
        }
        known.entry(id).or_default().clone()
    }
}

/// Nobody has it.
fn offline(id: &StreamId) -> Value {
    let (registry, catalog) = (StreamRegistry::default(), Catalog::new(hls::Metrics::default()));
    let entry = Entry::of(id, &registry, &catalog, &Audience::default());
    serde_json::to_value(entry).expect("a state has only strings, numbers and lists")
}

/// One list of those that answered; `None` if there are nodes, and none did.
fn merged(lists: Vec<Option<Value>>) -> Option<Value> {
    let (asked, mut answered) = (lists.len(), lists.into_iter().flatten().peekable());
    if asked > 0 && answered.peek().is_none() {
        return None;
    }
    let mut whole = answered.next().unwrap_or_else(|| json!({ "streams": [] }));
    let more = answered.filter_map(|mut list| list.get_mut("streams").map(Value::take));
    if let Some(streams) = whole.get_mut("streams").and_then(Value::as_array_mut) {
        streams.extend(more.filter_map(|list| list.as_array().cloned()).flatten());
    }
    Some(whole)
}

/// Makes a state of the upstream one of this edge: its own viewers, and no port for publishers.
pub(super) fn localize(state: &mut Value, catalog: &Catalog, audience: &Audience) {
    if let Some(streams) = state.get_mut("streams").and_then(Value::as_array_mut) {
        streams.iter_mut().for_each(|stream| count_here(stream, catalog, audience));
        if let Some(list) = state.as_object_mut() {
            list.retain(|key, _| !["rtmp_port", "rtmps_port"].contains(&key.as_str()));
        }
        return;
    }
    count_here(state, catalog, audience);
}

fn count_here(state: &mut Value, catalog: &Catalog, audience: &Audience) {
    let text = |name: &str| state.get(name).and_then(Value::as_str);
    let id = text("app").zip(text("stream")).and_then(|(app, stream)| StreamId::new(app, stream).ok());
    let viewers = id.map_or(0, |id| audience.with_hls(&id, catalog.get(&id).as_deref()));
    if let Some(count) = state.get_mut("viewers") {
        *count = viewers.into();
    }
}
