//! Where the viewers of every stream are sent, in a large cluster, before and after an edge is gone.

use anyhow::{Result, ensure};
use cluster::{Boot, Candidate, Load, Node, Phase, Role, State, place};
use media::{NodeId, StreamId};

use crate::Options;
use crate::measure::cpu_time_of;
use crate::table::{Table, Target};

/// Each with ten times as many streams.
const EDGES: [usize; 3] = [250, 500, 1_000];
/// Everything placed anew.
const SECONDS_MAX: f64 = 2.0;

const COLUMNS: &[&str] = &["CPU s", "one less", "moved", "streams"];

pub(crate) fn run(_: &Options) -> Result<Vec<Table>> {
    let mut table = Table::new("the edge of every stream", COLUMNS);
    for edges in EDGES {
        let streams = (0..edges * 10).map(|number| StreamId::new("live", &format!("s{number}")));
        let streams: Vec<_> = streams.collect::<Result<_, _>>()?;
        let mut nodes: Vec<_> = (0..edges).map(edge).collect::<Result<_>>()?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let first = cpu_time_of(|| before = place_all(&nodes, &streams));
        let gone = nodes.swap_remove(0).id;
        let second = cpu_time_of(|| after = place_all(&nodes, &streams));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        let had_to = before.iter().filter(|node| node.as_ref() == Some(&gone)).count();
        ensure!(moved == had_to, "{moved} moved, and {had_to} had to");
        #[expect(clippy::cast_precision_loss, reason = "figures of a table")]
        let figures = [first.as_secs_f64(), second.as_secs_f64(), moved as f64, streams.len() as f64];
        table.judge(format!("{edges} edges"), &figures, Target { column: 1, limit: SECONDS_MAX });
    }
    Ok(vec![table])
}

fn edge(number: usize) -> Result<Node> {
    Ok(Node {
        id: format!("edge{number}").parse()?,
        boot: Boot(1),
        roles: vec![Role::Edge],
        zone: format!("zone{}", number % 4),
        version: String::new(),
        phase: Phase::Serving,
        relay: None,
        viewers: Some(format!("https://edge{number}.example")),
        load: Load::default(),
        room: None,
        certificate_ends_ms: None,
        settings: Default::default(),
    })
}

fn place_all(nodes: &[Node], streams: &[StreamId]) -> Vec<Option<NodeId>> {
    let candidates = || nodes.iter().map(|node| Candidate { node, state: State::Serving });
    let best = |id| place::best(candidates(), id, None, "zone0", None).map(|judged| judged.node);
    streams.iter().map(best).collect()
}
