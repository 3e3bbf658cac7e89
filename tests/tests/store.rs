//! A NATS that is not as the nodes need it: they say so, instead of going on as if each were alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cluster::Cluster;
use harness::nats::Nats;
use harness::poll;
use harness::server::Setup;
use serde_json::json;

/// For a node to look at a NATS that came back, also on a busy machine.
const LOOKED_MAX: Duration = Duration::from_secs(30);

/// Streams as somebody else made them, under a name of ours.
fn made_wrong(nats: &Nats, name: &str, subject: &str) -> Result<()> {
    let config = json!({
        "name": name,
        "subjects": [subject],
        "retention": "limits",
        "storage": "file",
        "num_replicas": 1,
        "max_bytes": 1000,
    });
    let made = nats.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &config)?;
    ensure!(made["error"].is_null() && made["config"]["max_bytes"] == 1000, "{made}");
    Ok(())
}

#[test]
fn a_node_does_not_start_on_a_store_that_is_not_as_it_has_to_be() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    made_wrong(&nats, "KV_tidecast_streams", "$KV.tidecast_streams.>")?;
    for roles in ["all", "edge"] {
        let started = cluster.node(&format!("a-{roles}"), roles, &nats, Setup::default());
        let why = format!("{:#}", started.err().context("it has started")?);
        for words in [
            "exit status: 1",
            "cannot start: cluster.nats: the cluster's store is not as it has to be: of the stream KV_tidecast_streams",
            "max_bytes is 1000 and has to be -1, discard is Old and has to be New",
            "deny_delete is false and has to be true",
            "`nats stream edit KV_tidecast_streams`",
        ] {
            ensure!(why.contains(words), "not {words:?}: {why}");
        }
    }
    Ok(())
}

/// A node goes on without NATS, and cannot refuse to start when that comes back as another.
#[test]
fn a_store_that_turns_out_to_be_unfit_later_is_an_error_in_the_log_and_the_node_is_not_ready() -> Result<()> {
    let (cluster, mut nats) = (Cluster::new()?, Nats::start()?);
    made_wrong(&nats, "KV_tidecast_streams", "$KV.tidecast_streams.>")?;
    nats.kill()?;
    let node = cluster.node("a", "all", &nats, Setup::default())?;
    ensure!(node.admin_http().get("/readyz")?.status == 200, "nobody needs NATS for that");
    nats.start_again()?;
    let told = "this node works alone until the cluster's store is mended: of the stream KV_tidecast_streams";
    node.wait_for_log(told, LOOKED_MAX, |line| line.contains(told).then_some(()))?;
    let answer = poll::until("an answer that it is not ready", LOOKED_MAX, || {
        Ok(Some(node.admin_http().get("/readyz")?).filter(|answer| answer.status == 503))
    })?;
    ensure!(answer.text().contains("max_bytes is 1000 and has to be -1"), "{}", answer.text());

    let deleted = nats.ask("$JS.API.STREAM.DELETE.KV_tidecast_streams", &json!(null))?;
    ensure!(deleted["success"] == true, "{deleted}");
    poll::until("the node to be ready", LOOKED_MAX, || {
        Ok((node.admin_http().get("/readyz")?.status == 200).then_some(()))
    })?;
    let lines = node.log().iter().filter(|line| line.contains(told)).count();
    ensure!(lines == 1, "it is said {lines} times:\n{}", node.log().join("\n"));
    node.stop()
}
