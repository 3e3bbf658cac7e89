//! The commands that ask the running process of this machine, by its admin port, and what they print.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use cluster::{Acknowledgement, ReaderName, Sequence};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use media::{NodeId, StreamId};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::commands::print;
use crate::events::Since;
use crate::trust::ENDS_SOON;

const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often a store that is away is asked again.
const AGAIN_EVERY: Duration = Duration::from_secs(1);

/// The cluster's store did not answer the node that was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Away(String);

/// As often as nodes read their loads.
const TOP_EVERY: Duration = Duration::from_secs(1);

/// For a terminal (ECMA-48, and what every one has taken over from xterm): another screen without a cursor on which lines
/// are cut and not broken; back to the one before; to the top; nothing more on this line; nothing more below.
const SCREEN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const SCREEN_BACK: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const TOP: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K\n";
const BELOW: &str = "\x1b[J";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Nodes,
    Drain {
        node: NodeId,
        undo: bool,
        force: bool,
    },
    Streams,
    Explain {
        stream: StreamId,
    },
    /// None takes back what was expected.
    Expect {
        stream: StreamId,
        viewers: u32,
        at: Option<Timestamp>,
    },
    /// Of the whole cluster; without a value it is taken back.
    Set {
        key: String,
        value: Option<String>,
    },
    Top,
    Events(Reading),
}

/// What of the log is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Without it, some of the newest; of a reader that is new, all.
    pub(crate) since: Option<Since>,
    /// Under which name: from where that was, which is moved by what is printed.
    pub(crate) reader: Option<ReaderName>,
    pub(crate) follow: bool,
}

/// # Errors
/// If the process does not answer, or the answer cannot be printed.
pub(crate) fn run(admin: SocketAddr, question: Question, as_json: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match question {
            Question::Nodes => {
                let answer = get(admin, "/api/v1/nodes").await?;
                print(&if as_json {
                    lines(&answer["nodes"])
                } else {
                    nodes(&answer["nodes"], &answer["drained"])
                })
            }
            Question::Drain { node, undo, force } => {
                let path = format!("/api/v1/nodes/{node}/drain");
                let answer = match undo {
                    true => ask(admin, Method::DELETE, &path, None).await?,
                    false => ask(admin, Method::PUT, &path, Some(json!({ "force": force }))).await?,
                };
                print(&if as_json { format!("{answer}\n") } else { format!("{}\n", text(&answer["words"])) })
            }
            Question::Streams => {
                let answer = get(admin, "/api/v1/streams").await?;
                print(&if as_json {
                    lines(&answer["streams"]) + &lines(&answer["expected"])
                } else {
                    streams(&answer["streams"]) + &expected(&answer["expected"])
                })
            }
            Question::Explain { stream } => {
                let answer = get(admin, &format!("/api/v1/streams/{stream}/explain")).await?;
                print(&if as_json { format!("{answer}\n") } else { explained(&answer) })
            }
            Question::Expect { stream, viewers, at } => {
                let path = format!("/api/v1/streams/{stream}/expected-viewers");
                let answer = match viewers {
                    0 => ask(admin, Method::DELETE, &path, None).await?,
                    _ => {
                        let at = at.map(|at| at.to_string());
                        ask(admin, Method::PUT, &path, Some(json!({ "viewers": viewers, "at": at }))).await?
                    }
                };
                print(&if as_json { format!("{answer}\n") } else { format!("{}\n", text(&answer["words"])) })
            }
            Question::Set { key, value } => {
                let path = format!("/api/v1/settings/{key}");
                let answer = match value {
                    None => ask(admin, Method::DELETE, &path, None).await?,
                    Some(value) => ask(admin, Method::PUT, &path, Some(json!({ "value": value }))).await?,
                };
                print(&if as_json { format!("{answer}\n") } else { format!("{}\n", text(&answer["words"])) })
            }
            Question::Top => top(admin).await,
            Question::Events(reading) => events(admin, &reading, as_json).await,
        }
    })
}

/// Until Ctrl-C; what is no terminal gets it once.
async fn top(admin: SocketAddr) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        return print(&both(&get(admin, "/api/v1/nodes").await?, &get(admin, "/api/v1/streams").await?));
    }
    let interrupted = tokio::signal::ctrl_c();
    print(SCREEN)?;
    let drawing = async {
        loop {
            let (nodes, streams) = (get(admin, "/api/v1/nodes").await, get(admin, "/api/v1/streams").await);
            let text = match (nodes, streams) {
                (Ok(nodes), Ok(streams)) => both(&nodes, &streams),
                // It may come back.
                (Err(error), _) | (_, Err(error)) => format!("{error:#}\n"),
            };
            print(&format!("{TOP}{}{BELOW}", text.replace('\n', LINE_END)))?;
            tokio::time::sleep(TOP_EVERY).await;
        }
    };
    let drawn: anyhow::Result<()> = tokio::select! {
        drawn = drawing => drawn,
        pressed = interrupted => pressed.context("cannot listen for Ctrl-C"),
    };
    print(SCREEN_BACK)?;
    drawn
}

fn both(told_nodes: &Value, told_streams: &Value) -> String {
    let nodes = nodes(&told_nodes["nodes"], &told_nodes["drained"]);
    format!("{nodes}\n{}{}", streams(&told_streams["streams"]), expected(&told_streams["expected"]))
}

/// All that the log has when it is asked, or without an end.
async fn events(admin: SocketAddr, reading: &Reading, as_json: bool) -> anyhow::Result<()> {
    let wait = if reading.follow { "" } else { "&wait=false" };
    let place = reading.reader.as_ref().map(|name| Place::new(admin, name, reading.follow));
    let mut place = place.transpose()?;
    // Of the newest event at the beginning.
    let mut end = None;
    let mut after = None;
    loop {
        let from = match (&place, after, reading.since) {
            (Some(place), ..) => place.query(reading.since),
            (None, Some(after), _) => format!("after={after}"),
            (None, None, Some(since)) => format!("since={since}"),
            (None, None, None) => String::new(),
        };
        let path = format!("/api/v1/events?{from}{wait}");
        let answer = match reading.follow {
            true => ask_until_there(admin, Method::GET, &path, None).await?,
            false => get(admin, &path).await?,
        };
        if let Some(place) = &mut place {
            place.compare(&answer).await?;
        }
        let events = answer["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(missing) = answer["missing"].as_u64().filter(|missing| *missing > 0) {
            eprintln!("{missing} events are not in the log any more: it goes on at the oldest that is");
        }
        let printed = match as_json {
            true => lines(&answer["events"]),
            false => events.iter().map(event).collect(),
        };
        let mut out = io::stdout();
        match out.write_all(printed.as_bytes()).and_then(|()| out.flush()) {
            // Nobody reads on, and nobody has what comes from here on.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write the answer")?,
        }
        let last = events.last().and_then(|event| event["sequence"].as_u64());
        if let (Some(place), Some(last)) = (&mut place, last) {
            place.acknowledge(Sequence(last)).await?;
        }
        let is_all = last.is_none() || last >= *end.get_or_insert(answer["newest"].as_u64());
        if is_all && !reading.follow {
            return Ok(());
        }
        after = answer["after"].as_u64().or(after);
    }
}

/// How far a reader has come, which the cluster knows as well.
struct Place<'a> {
    admin: SocketAddr,
    name: &'a ReaderName,
    /// This process, of all that may read under the name.
    by: String,
    /// `None`: it has not been told yet.
    at: Option<Sequence>,
    /// For a store that is away.
    waits: bool,
}

impl<'a> Place<'a> {
    fn new(admin: SocketAddr, name: &'a ReaderName, waits: bool) -> anyhow::Result<Self> {
        let by = getrandom::u64().context("the system has no random numbers")?;
        Ok(Self { admin, name, by: format!("{by:016x}"), at: None, waits })
    }

    fn query(&self, since: Option<Since>) -> String {
        let since = since.filter(|_| self.at.is_none());
        format!("as={}{}", self.name, since.map(|since| format!("&since={since}")).unwrap_or_default())
    }

    /// With what the cluster says, before anything of the answer is printed.
    async fn compare(&mut self, answer: &Value) -> anyhow::Result<()> {
        let told = &answer["reader"];
        let from = Sequence(told["from"].as_u64().context("what answers there does not know readers")?);
        let is_known = told["known"] == true;
        if self.at.is_some() && !is_known {
            bail!("the cluster does not know {} any more, as when its store was emptied", self.name);
        }
        if let Some(at) = self.at.filter(|at| *at != from) {
            bail!(
                "{} has events up to {from}, and this process those up to {at}: another one reads under that name",
                self.name
            );
        }
        if told["anew"] == true && answer["events"].as_array().is_some_and(|events| !events.is_empty()) {
            eprintln!(
                "the log has begun anew since {} read event {from}: it goes on at its oldest",
                self.name
            );
        }
        self.at = Some(from);
        if !is_known {
            // So that it begins there the next time, too, whatever happens until then.
            self.acknowledge(from).await?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self, to: Sequence) -> anyhow::Result<()> {
        let from = self.at.unwrap_or(to);
        let moved = json!(Acknowledgement { from, to, by: self.by.clone() });
        let path = format!("/api/v1/events/readers/{}", self.name);
        match self.waits {
            // Where it was done and not told, that is found.
            true => ask_until_there(self.admin, Method::PUT, &path, Some(moved)).await?,
            false => ask(self.admin, Method::PUT, &path, Some(moved)).await?,
        };
        self.at = Some(to);
        Ok(())
    }
}

/// As [`ask`], of who goes on when the cluster's store is back.
async fn ask_until_there(
    admin: SocketAddr,
    method: Method,
    path: &str,
    order: Option<Value>,
) -> anyhow::Result<Value> {
    let mut has_said = false;
    loop {
        match ask(admin, method.clone(), path, order.clone()).await {
            Err(error) if error.is::<Away>() => {
                if !has_said {
                    eprintln!("{error}; it goes on when that is back");
                }
                has_said = true;
                tokio::time::sleep(AGAIN_EVERY).await;
            }
            told => return told,
        }
    }
}

async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<Value> {
    ask(admin, Method::GET, path, None).await
}

async fn ask(admin: SocketAddr, method: Method, path: &str, order: Option<Value>) -> anyhow::Result<Value> {
    let asked = async {
        let socket = TcpStream::connect(admin).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, admin.to_string());
        let request =
            request.body(Full::<Bytes>::from(order.map(|order| order.to_string()).unwrap_or_default()))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
    };
    let asked = tokio::time::timeout(ANSWER_MAX, asked).await.context("no answer in time")?;
    let (status, body) = asked
        .with_context(|| format!("no tidecast answers on {admin}: is it running, with this admin.listen?"))?;
    let is_refused = [StatusCode::CONFLICT, StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST].contains(&status);
    let is_away = status == StatusCode::SERVICE_UNAVAILABLE;
    if (is_refused || is_away)
        && let Ok(refusal) = serde_json::from_slice::<Value>(&body)
    {
        let words = text(&refusal["error"]);
        return Err(if is_away { Away(words).into() } else { anyhow!(words) });
    }
    if status != StatusCode::OK {
        bail!("{admin} answers {status}: {}", String::from_utf8_lossy(&body).trim());
    }
    serde_json::from_slice(&body).context("what answers there is no tidecast")
}

/// One line of JSON each, for programs.
fn lines(list: &Value) -> String {
    list.as_array().into_iter().flatten().map(|item| format!("{item}\n")).collect()
}

/// `drained`: whom an order waits for, there or not.
fn nodes(nodes: &Value, drained: &Value) -> String {
    let mut rows = vec![
        [
            "NODE",
            "STATE",
            "ROLES",
            "ZONE",
            "CPU",
            "FREE",
            "EGRESS",
            "VIEWERS",
            "STREAMS",
            "HEARD",
            "AT",
            "CERTIFICATE",
        ]
        .map(str::to_owned),
    ];
    for node in nodes.as_array().into_iter().flatten() {
        let load = &node["load"];
        let roles: Vec<_> = node["roles"].as_array().into_iter().flatten().map(text).collect();
        rows.push([
            text(&node["id"]),
            text(&node["state"]),
            roles.join(","),
            text(&node["zone"]),
            format!("{:.0} %", load["cpu"].as_f64().unwrap_or_default() * 100.0),
            free(load),
            egress(load),
            text(&load["viewers"]),
            text(&load["streams"]),
            format!("{:.1} s ago", node["silent_ms"].as_f64().unwrap_or_default() / 1000.0),
            text(&node["viewers"]),
            certificate(&node["certificate_ends_ms"]),
        ]);
    }
    let is_there = |name: &&Value| nodes.as_array().into_iter().flatten().any(|node| node["id"] == **name);
    let away = drained.as_array().into_iter().flatten().filter(|name| !is_there(name));
    let away = away.map(|name| format!("{} is to take nothing new when it is back\n", text(name)));
    table(&rows) + &away.collect::<String>() + &unequal(nodes)
}

/// A session that moves to another node goes on as that is configured.
fn unequal(nodes: &Value) -> String {
    let mut settings = BTreeMap::<&str, BTreeMap<&str, Vec<String>>>::new();
    for node in nodes.as_array().into_iter().flatten() {
        for (name, value) in node["settings"].as_object().into_iter().flatten() {
            let values = settings.entry(name).or_default();
            values.entry(value.as_str().unwrap_or_default()).or_default().push(text(&node["id"]));
        }
    }
    let unequal = settings.into_iter().filter(|(_, values)| values.len() > 1).map(|(name, values)| {
        let told = values.into_iter().map(|(value, nodes)| format!("{value:?} on {}", nodes.join(", ")));
        let told = text(&json!(told.collect::<Vec<_>>().join("; ")));
        format!("{} should be equal on all nodes that take publishers: it is {told}\n", text(&json!(name)))
    });
    unequal.collect()
}

/// Nothing of one that is good for long.
fn certificate(ends_ms: &Value) -> String {
    let Some(left_ms) = ends_ms.as_i64().map(|ends_ms| ends_ms - Timestamp::now().as_millisecond()) else {
        return "-".to_owned();
    };
    match u128::try_from(left_ms) {
        Err(_) => "has ended".to_owned(),
        Ok(left_ms) if left_ms < ENDS_SOON.as_millis() => {
            format!("ends in {} days", left_ms / 1_000 / (24 * 3_600))
        }
        Ok(_) => "-".to_owned(),
    }
}

/// What its encoders have left for streams of others; nothing of a node that lends none.
fn free(load: &Value) -> String {
    load["encode_free"].as_f64().map_or_else(|| "-".to_owned(), |cores| format!("{cores:.1} cores"))
}

fn egress(load: &Value) -> String {
    let megabits = |name: &str| load[name].as_f64().unwrap_or_default() / 1e6;
    match megabits("egress_max") {
        0.0 => format!("{:.1} Mbit/s", megabits("egress")),
        max => format!("{:.1} of {max:.0} Mbit/s", megabits("egress")),
    }
}

fn streams(streams: &Value) -> String {
    let headings = [
        "STREAM",
        "STATE",
        "NODE",
        "EPOCH",
        "PICTURE",
        "KEYFRAMES",
        "RATE",
        "VIEWERS",
        "PATH",
        "SINCE",
        "SESSION",
    ];
    let mut rows = vec![headings.map(str::to_owned)];
    for stream in streams.as_array().into_iter().flatten() {
        let facts = &stream["facts"];
        rows.push([
            text(&stream["stream"]),
            text(&stream["phase"]),
            text(&stream["holder"]["node"]),
            text(&stream["epoch"]),
            picture(facts),
            facts["keyframe_interval"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |every| format!("each {every:.1} s")),
            facts["bitrate"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |rate| format!("{:.1} Mbit/s", rate / 1e6)),
            text(&stream["viewers"]),
            path(&stream["path"]),
            time(&stream["since_ms"]),
            text(&stream["session"]),
        ]);
    }
    table(&rows)
}

/// `1280x720@30, 480p, 360p`
fn picture(facts: &Value) -> String {
    let video = &facts["video"];
    let Some((width, height)) = video["width"].as_u64().zip(video["height"].as_u64()) else {
        return "-".to_owned();
    };
    let rate = facts["frame_rate"].as_f64().or_else(|| video["frame_rate"].as_f64());
    let rate = rate.map(|rate| format!("@{rate:.0}")).unwrap_or_default();
    let rungs = facts["ladder"].as_array().into_iter().flatten().filter(|rung| rung["encoded"] == true);
    let rungs = rungs.filter_map(|rung| Some(format!(", {}p", rung["height"].as_u64()?)));
    format!("{width}x{height}{rate}{}", rungs.collect::<String>())
}

/// `ingest1 > origin1 > edge1, edge2; origin2 stands by; worker1 encodes`. Who is not well says so: `origin1 (suspect)`.
fn path(path: &Value) -> String {
    let list = |name: &str| path[name].as_array().into_iter().flatten();
    let named = |hop: &Value| match hop["state"].as_str() {
        Some("serving") => text(&hop["node"]),
        Some(state) => format!("{} ({})", text(&hop["node"]), text(&json!(state))),
        None => format!("{} (not there)", text(&hop["node"])),
    };
    if path["ingest"].is_null() {
        return "-".to_owned();
    }
    let readers = |of: &Value| {
        let reads = |edge: &&Value| edge["from"].as_array().is_some_and(|from| from.contains(&of["node"]));
        list("edges").filter(reads).map(named).collect::<Vec<_>>().join(", ")
    };
    let ingest = named(&path["ingest"]);
    let mut told = Vec::new();
    let direct = readers(&path["ingest"]);
    if !direct.is_empty() {
        told.push(format!("{ingest} > {direct}"));
    }
    for origin in list("origins") {
        told.push(match (readers(origin), origin["place"].as_str()) {
            (readers, _) if !readers.is_empty() => format!("{ingest} > {} > {readers}", named(origin)),
            (_, Some("standby")) => format!("{} stands by", named(origin)),
            _ => format!("{ingest} > {}", named(origin)),
        });
    }
    if told.is_empty() {
        told.push(ingest);
    }
    told.extend(list("workers").map(|worker| format!("{} encodes", named(worker))));
    told.join("; ")
}

fn explained(answer: &Value) -> String {
    let share = |share: &Value| {
        share.as_f64().map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
    };
    let heard =
        |node: &Value| format!("{:.1} s ago", node["silent_ms"].as_f64().unwrap_or_default() / 1000.0);
    let hash = |node: &Value| {
        node["rendezvous"].as_f64().map_or_else(|| "-".to_owned(), |hash| format!("{hash:.2}"))
    };
    let list = |name: &str| answer[name].as_array().into_iter().flatten();
    let mut edges =
        vec![["EDGE", "VERDICT", "ZONE", "CPU", "EGRESS", "HASH", "HEARD", "WHY"].map(str::to_owned)];
    edges.extend(list("edges").map(|edge| {
        [
            text(&edge["node"]),
            text(&edge["verdict"]),
            text(&edge["zone"]),
            share(&edge["cpu_share"]),
            share(&edge["egress_share"]),
            hash(edge),
            heard(edge),
            text(&edge["words"]),
        ]
    }));
    let mut others =
        vec![["NODE", "ROLE", "STATE", "ZONE", "FREE", "HASH", "HEARD", "WHY"].map(str::to_owned)];
    for (role, name) in [("origin", "origins"), ("worker", "workers")] {
        others.extend(list(name).map(|node| {
            let free = node["encode_free"].as_f64();
            [
                text(&node["node"]),
                role.to_owned(),
                text(&node["state"]),
                text(&node["zone"]),
                free.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.1} cores")),
                hash(node),
                heard(node),
                text(&node["words"]),
            ]
        }));
    }
    let mut told = format!("{}\n", text(&answer["words"]));
    for rows in [edges, others] {
        if rows.len() > 1 {
            told += &format!("\n{}", table(&rows));
        }
    }
    told
}

fn expected(list: &Value) -> String {
    let line = |expected: &Value| {
        let edges: Vec<_> = expected["edges"].as_array().into_iter().flatten().map(text).collect();
        let at = if edges.is_empty() { "no edge".to_owned() } else { edges.join(", ") };
        let [stream, viewers] = [text(&expected["stream"]), text(&expected["viewers"])];
        format!("{stream}: {viewers} viewers are expected from {} on, at {at}\n", time(&expected["at_ms"]))
    };
    list.as_array().into_iter().flatten().map(line).collect()
}

fn event(event: &Value) -> String {
    let [at, kind, node, words] =
        [time(&event["at_ms"]), text(&event["kind"]), text(&event["node"]), text(&event["words"])];
    format!("{at}  {kind:18}  {node:12}  {words}\n")
}

/// Seconds are enough for people.
fn time(ms: &Value) -> String {
    let at = ms.as_i64().filter(|ms| *ms > 0).and_then(|ms| Timestamp::from_millisecond(ms - ms % 1000).ok());
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

/// No control characters of anybody's: this goes to a terminal.
fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let text: String = text.chars().filter(|char| !char.is_control()).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    // A column in which nothing is said.
    let bare = |column: &usize| rows.iter().skip(1).all(|row| row[*column] == "-") && rows.len() > 1;
    let bare: BTreeSet<_> = (0..COLUMNS).filter(bare).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths).enumerate().filter(|(column, _)| !bare.contains(column));
        let cells: Vec<_> = cells.map(|(_, (cell, width))| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_no_column_that_says_nothing_and_no_control_characters() {
        let list = json!([{ "stream": "live/cam", "phase": "live\u{1b}[31m", "holder": { "node": "a" }, "epoch": 7, "since_ms": 0 }]);
        assert_eq!(streams(&list), "STREAM    STATE     NODE  EPOCH\nlive/cam  live[31m  a     7\n");
    }

    #[test]
    fn a_stream_is_told_with_its_picture_and_its_way() {
        let hop =
            |node: &str, state: &str, from: &[&str]| json!({ "node": node, "state": state, "from": from });
        let mut origins = [hop("o1", "serving", &["in1"]), hop("o2", "draining", &["in1"])];
        origins[1]["place"] = json!("standby");
        let mut way = json!({
            "ingest": hop("in1", "serving", &[]),
            "workers": [hop("w1", "suspect", &[])],
            "origins": origins,
            "edges": [hop("e1", "serving", &["o1"]), { "node": "e2", "state": null, "from": ["o1"] }],
        });
        assert_eq!(
            path(&way),
            "in1 > o1 > e1, e2 (not there); o2 (draining) stands by; w1 (suspect) encodes"
        );
        way["origins"] = json!([]);
        way["edges"] = json!([hop("e1", "serving", &["in1"])]);
        assert_eq!(path(&way), "in1 > e1; w1 (suspect) encodes");
        way["edges"] = json!([]);
        assert_eq!(path(&way), "in1; w1 (suspect) encodes");
        assert_eq!(path(&Value::Null), "-");
        let rung = |height: u32, encoded: bool| json!({ "height": height, "encoded": encoded });
        let facts = json!({
            "video": { "width": 1280, "height": 720, "frame_rate": 30.0 },
            "frame_rate": 24.9,
            "ladder": [rung(720, false), rung(480, true)],
        });
        assert_eq!(
            (picture(&facts), picture(&Value::Null)),
            ("1280x720@25, 480p".to_owned(), "-".to_owned())
        );
    }

    #[test]
    fn what_is_explained_has_a_table_for_edges_and_one_for_the_others() {
        let answer = json!({
            "words": "live/cam is on in1, which is an origin itself: edges read it there",
            "edges": [{ "node": "e1", "verdict": "near", "cpu_share": 0.25, "egress_share": null, "rendezvous": 0.5, "silent_ms": 1200, "words": "has room" }],
            "origins": [],
            "workers": [{ "node": "w1", "state": "serving", "encode_free": 1.5, "silent_ms": 0, "words": "encodes it now" }],
        });
        assert_eq!(
            explained(&answer),
            "live/cam is on in1, which is an origin itself: edges read it there\n\n\
             EDGE  VERDICT  CPU   HASH  HEARD      WHY\n\
             e1    near     25 %  0.50  1.2 s ago  has room\n\n\
             NODE  ROLE    STATE    FREE       HEARD      WHY\n\
             w1    worker  serving  1.5 cores  0.0 s ago  encodes it now\n"
        );
    }

    #[test]
    fn an_order_that_waits_for_a_node_is_told() {
        let list = json!([{ "id": "a", "state": "draining", "load": {} }]);
        let told = nodes(&list, &json!(["a", "b"]));
        assert_eq!(told.lines().last(), Some("b is to take nothing new when it is back"), "{told}");
        assert_eq!(told.lines().count(), 3, "{told}");
    }

    #[test]
    fn a_worker_has_free_cores() {
        let list = json!([{ "id": "a", "load": { "encode_free": 1.5 } }, { "id": "b", "load": { "encode_free": null } }]);
        let told = nodes(&list, &json!([]));
        assert!(told.lines().next().is_some_and(|heading| heading.contains("FREE")), "{told}");
        assert_eq!(told.matches("1.5 cores").count(), 1, "{told}");
        assert!(!nodes(&json!([{ "id": "b", "load": {} }]), &json!([])).contains("FREE"));
    }

    #[test]
    fn what_should_be_equal_and_is_not_is_told() {
        let node = |id: &str, linger: &str| json!({ "id": id, "load": {}, "settings": { "hls.profile": "low", "publish.linger": linger } });
        let list =
            json!([node("a", "20s"), node("b", "20s"), node("c", "5s"), { "id": "edge1", "load": {} }]);
        let told = nodes(&list, &json!([]));
        assert_eq!(
            told.lines().last(),
            Some(
                "publish.linger should be equal on all nodes that take publishers: it is \"20s\" on a, b; \"5s\" on c"
            )
        );
        assert_eq!(told.lines().count(), 6, "{told}");
    }

    #[test]
    fn who_is_expected_is_told_with_where_they_will_be() {
        let list = json!([{ "stream": "live/cam", "viewers": 5000, "at_ms": 1_732_700_000_000_i64, "edges": ["a", "b"] }]);
        let told = "live/cam: 5000 viewers are expected from 2024-11-27T09:33:20Z on, at a, b\n";
        assert_eq!(expected(&list), told);
    }

    #[test]
    fn an_event_is_a_line() {
        let logged = json!({ "sequence": 1, "at_ms": 1_732_700_000_123_i64, "kind": "node-lost", "node": "a", "words": "b was not heard" });
        assert_eq!(
            event(&logged),
            "2024-11-27T09:33:20Z  node-lost           a             b was not heard\n"
        );
    }
}
