//! What other nodes publish, for the list of one that has streams of its own.

use relay::wire::Hops;
use serde_json::Value;

use super::PullMetrics;
use super::states::States;
use super::upstreams::Upstreams;

/// The lists of the other nodes.
pub struct Others(States);

impl Others {
    pub fn new(upstreams: Upstreams) -> Self {
        Self(States::new(upstreams, PullMetrics::default()))
    }

    /// As each of them tells it; what is unlisted they do not tell.
    pub(crate) async fn streams(&self) -> Vec<Value> {
        let list = self.0.get(None, Hops::default()).await;
        let streams = list.and_then(|mut list| list.get_mut("streams").map(Value::take));
        match streams {
            Some(Value::Array(streams)) => streams,
            _ => Vec::new(),
        }
    }
}

/// `list` and the streams of `others` that are not in it already, as of a session that is on its way from one node to another.
pub(crate) fn joined(mut list: Value, others: Vec<Value>) -> Value {
    if let Some(streams) = list.get_mut("streams").and_then(Value::as_array_mut) {
        let is_same =
            |one: &Value, other: &Value| one["app"] == other["app"] && one["stream"] == other["stream"];
        for other in others {
            if !streams.iter().any(|stream| is_same(stream, &other)) {
                streams.push(other);
            }
        }
        let name = |stream: &Value| {
            let text = |key: &str| stream[key].as_str().unwrap_or_default().to_owned();
            (text("app"), text("stream"))
        };
        streams.sort_by_cached_key(name);
    }
    list
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_of_this_node_is_told_as_this_node_knows_it_and_all_in_order() {
        let stream = |name: &str, state: &str| json!({ "app": "live", "stream": name, "state": state });
        let own = json!({ "streams": [stream("b", "live")], "rtmp_port": 1935 });
        let others = vec![
            stream("c", "live"),
            stream("b", "interrupted"),
            stream("a", "live"),
            stream("a", "starting"),
        ];
        let expected = [stream("a", "live"), stream("b", "live"), stream("c", "live")];
        assert_eq!(joined(own, others), json!({ "streams": expected, "rtmp_port": 1935 }));
    }
}
