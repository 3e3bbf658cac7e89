//! A cluster in which one thing after the other dies, hangs or is taken away, while people watch in a browser: how long their
//! pictures stand still. They measure it themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::chaos;
use harness::cluster::Cluster;
use harness::media::output_dir;
use harness::nats::NatsCluster;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::watched::Watched;
use serde::Deserialize;

const STREAM: &str = "live/cam";
const RUNG: &str = "v180";
/// Small, so that two cores have time for everything else.
const LADDER: &str = "180:200k";

/// What a node or a page does until it tells something, also on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(90);
/// After this viewers are gone: nobody is kept waiting for longer, whatever the machine has to do besides.
const FREEZE_MAX: Duration = Duration::from_secs(25);
/// Looked at in one go.
const WATCHED_S: &str = "8";

/// Once in all schedules: as long as nobody is to notice. Else for one look.
const NATS_IS_GONE_FOR: Duration = Duration::from_mins(10);

/// A cluster and its viewers are all that a small machine carries at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Our page, by Low-Latency HLS and by WebRTC.
const PLAYERS: [&str; 2] = ["watch", "webrtc"];
/// As [`PLAYERS`], milliseconds: shorter is not seen as a pause.
const UNSEEN: [u64; 2] = [200, 200];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    EdgeIsKilled,
    EdgeStandsStill,
    EdgeIsDrained,
    EdgeIsStopped,
    OriginIsKilled,
    OriginStandsStill,
    OriginIsDrained,
    WorkerIsKilled,
    WorkerStandsStill,
    NodeOfThePublisherIsKilled,
    LeaderOfNatsIsKilled,
    NatsIsGone,
    NatsHasLostEverything,
}

/// What viewers, and nodes, ask.
const WHO_ANSWERS: [Fault; 7] = [
    Fault::EdgeIsKilled,
    Fault::EdgeStandsStill,
    Fault::EdgeIsDrained,
    Fault::EdgeIsStopped,
    Fault::LeaderOfNatsIsKilled,
    Fault::NatsIsGone,
    Fault::NatsHasLostEverything,
];
/// What the stream goes through before that.
const WHO_MAKES: [Fault; 6] = [
    Fault::OriginIsKilled,
    Fault::OriginStandsStill,
    Fault::OriginIsDrained,
    Fault::WorkerIsKilled,
    Fault::WorkerStandsStill,
    Fault::NodeOfThePublisherIsKilled,
];

impl Fault {
    /// Freezes that we promise on a machine that has nothing else to do, as [`UNSEEN`].
    fn target_ms(self) -> [u64; 2] {
        match self {
            Self::EdgeIsKilled => [2_000, 3_000],
            // Its silence has to be told from a slow line.
            Self::EdgeStandsStill => [10_000, 10_000],
            // Pictures in the buffer last until its silence is told from a pause.
            Self::OriginStandsStill => [200, 1_000],
            // As long as the broadcaster takes to come back, and a GOP.
            Self::NodeOfThePublisherIsKilled => [5_000, 5_000],
            Self::EdgeIsDrained
            | Self::EdgeIsStopped
            | Self::OriginIsKilled
            | Self::OriginIsDrained
            | Self::WorkerIsKilled
            | Self::WorkerStandsStill
            | Self::LeaderOfNatsIsKilled
            | Self::NatsIsGone
            | Self::NatsHasLostEverything => UNSEEN,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::EdgeIsKilled => "an edge is killed",
            Self::EdgeStandsStill => "an edge stands still",
            Self::EdgeIsDrained => "an edge is drained by order",
            Self::EdgeIsStopped => "an edge is stopped",
            Self::OriginIsKilled => "the origin that is read is killed",
            Self::OriginStandsStill => "the origin that is read stands still",
            Self::OriginIsDrained => "the origin that is read is drained",
            Self::WorkerIsKilled => "the busy worker is killed",
            Self::WorkerStandsStill => "the busy worker stands still",
            Self::NodeOfThePublisherIsKilled => "the publisher's node is killed",
            Self::LeaderOfNatsIsKilled => "the leader of NATS is killed",
            Self::NatsIsGone => "NATS is gone",
            Self::NatsHasLostEverything => "NATS has lost everything",
        })
    }
}

#[derive(Deserialize)]
struct Told {}

#[derive(Debug, Deserialize)]
struct Report {
    /// Of the time that was looked at.
    number: usize,
    players: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    name: String,
    /// `None`: the picture never came back.
    freeze_ms: Option<u64>,
    #[expect(dead_code, reason = "for the message")]
    problems: Vec<String>,
}

/// The longest freezes of each fault, as [`UNSEEN`], and how often it has struck.
type Worst = BTreeMap<Fault, ([u64; 2], u32)>;

struct Named {
    name: String,
    node: Tidecast,
}

/// Two nodes each for publishers, of origins, workers and edges, and NATS thrice.
struct Scene {
    cluster: Cluster,
    nats: NatsCluster,
    /// The publisher is at the first.
    takers: Vec<Named>,
    origins: Vec<Named>,
    workers: Vec<Named>,
    edges: Vec<Named>,
    publisher: Option<Publisher>,
    /// Nodes there have been: none comes back under its name.
    nodes: u32,
    /// What is out of service and not gone.
    aside: Option<Tidecast>,
}

impl Scene {
    fn new() -> Result<Self> {
        let mut scene = Self {
            cluster: Cluster::new()?,
            nats: NatsCluster::start()?,
            takers: Vec::new(),
            origins: Vec::new(),
            workers: Vec::new(),
            edges: Vec::new(),
            publisher: None,
            nodes: 0,
            aside: None,
        };
        scene.fill_up()?;
        scene.all_are_there()?;
        scene.publish()?;
        scene.has_rung()?;
        Ok(scene)
    }

    /// Whatever is missing comes, under another name.
    fn fill_up(&mut self) -> Result<()> {
        let roles = [
            ("ingest", &mut self.takers),
            ("origin", &mut self.origins),
            ("transcode", &mut self.workers),
            ("edge", &mut self.edges),
        ];
        for (role, nodes) in roles {
            while nodes.len() < 2 {
                self.nodes += 1;
                let name = format!("n{}", self.nodes);
                let setup = Setup::default()
                    .set("transcode.ladder", LADDER)
                    .set("cluster.nats_replicas", "3")
                    .set("drain.timeout", "15s");
                let node = self.cluster.node_at(&name, role, &self.nats.urls(), setup)?;
                nodes.push(Named { name, node });
            }
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        let url = self.takers[0].node.publish_url(STREAM);
        self.publisher = Some(Publisher::of_clock("gop-2", &url)?);
        Ok(())
    }

    fn serving(&self) -> impl Iterator<Item = &Named> {
        [&self.takers, &self.origins, &self.workers, &self.edges].into_iter().flatten()
    }

    /// Every node that is not dead knows every other that is not, as one that serves; workers have tried their encoders.
    fn all_are_there(&self) -> Result<()> {
        let names: Vec<_> = self.serving().map(|named| named.name.as_str()).collect();
        let is_worker = |name: &str| self.workers.iter().any(|worker| worker.name == name);
        poll::until("nodes to hear of each other", STEP_MAX, || {
            for Named { node, .. } in self.serving() {
                let heard = node.ask("nodes")?;
                let serves = |name: &&&str| {
                    let node = heard.iter().find(|node| node["id"] == ***name);
                    node.is_some_and(|node| {
                        let lends = node["load"]["encode_free"].as_f64().is_some_and(|free| free > 0.0);
                        node["state"] == "serving" && (lends || !is_worker(name))
                    })
                };
                if names.iter().filter(serves).count() < names.len() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// A worker makes the rung, and viewers have media of it.
    fn has_rung(&self) -> Result<()> {
        let watched = Watched::of(&self.edges[0].node, STREAM);
        let newest = || watched.newest("v").unwrap_or(0);
        let from = newest();
        poll::until("the rung", STEP_MAX, || {
            let rung = watched.newest(RUNG).unwrap_or(0);
            Ok((rung > 0 && rung >= from).then_some(()))
        })
        .with_context(|| self.takers[0].node.log().join("\n"))
    }

    fn strike(&mut self, fault: Fault, random: &mut fastrand::Rng) -> Result<()> {
        // Of two edges not always that of the viewer by WebRTC.
        let of_webrtc = random.bool();
        let mut take = |this: &mut Self| match of_webrtc {
            true => take_busy(&mut this.edges, "whep_viewers"),
            false => Ok(this.edges.remove(random.usize(..this.edges.len()))),
        };
        match fault {
            Fault::EdgeIsKilled => take(self)?.node.kill()?,
            Fault::EdgeIsStopped => take(self)?.node.stop()?,
            Fault::EdgeStandsStill => {
                let edge = take(self)?;
                self.stand_still(edge)?;
            }
            Fault::EdgeIsDrained => {
                let edge = take(self)?;
                let left = self.drain(edge)?;
                poll::until("viewers by WebRTC to leave", STEP_MAX, || {
                    Ok((left.metric("whep_viewers")? == 0.0).then_some(()))
                })?;
            }
            Fault::OriginIsKilled => self.take_origin()?.node.kill()?,
            Fault::OriginStandsStill => {
                let origin = self.take_origin()?;
                self.stand_still(origin)?;
            }
            Fault::OriginIsDrained => {
                let origin = self.take_origin()?;
                self.drain(origin)?;
            }
            Fault::WorkerIsKilled => self.take_worker()?.node.kill()?,
            Fault::WorkerStandsStill => {
                let worker = self.take_worker()?;
                self.stand_still(worker)?;
            }
            Fault::NodeOfThePublisherIsKilled => {
                self.takers.remove(0).node.kill()?;
                self.publish()?;
            }
            Fault::LeaderOfNatsIsKilled => {
                self.nats.kill_leader_of("KV_tidecast_streams")?;
            }
            Fault::NatsIsGone => self.nats.kill()?,
            Fault::NatsHasLostEverything => {
                self.nats.kill()?;
                self.nats.empty()?;
                self.nats.start_again()?;
            }
        }
        Ok(())
    }

    fn take_origin(&mut self) -> Result<Named> {
        take_busy(&mut self.origins, "relay_subscriptions")
    }

    fn take_worker(&mut self) -> Result<Named> {
        self.has_rung()?;
        take_busy(&mut self.workers, "transcode_lent")
    }

    fn stand_still(&mut self, Named { node, .. }: Named) -> Result<()> {
        node.freeze()?;
        self.aside = Some(node);
        Ok(())
    }

    fn drain(&mut self, Named { name, node }: Named) -> Result<&Tidecast> {
        let told = self.takers[0].node.ask(&format!("nodes drain {name}"))?;
        ensure!(told.iter().any(|told| told["obeyed"] == true), "{told:?}");
        Ok(self.aside.insert(node))
    }

    fn mend(&mut self) -> Result<()> {
        self.nats.start_again()?;
        if let Some(aside) = self.aside.take() {
            aside.thaw()?;
            aside.kill()?;
        }
        self.fill_up()?;
        self.all_are_there()
    }
}

/// Of these, the one that works most for others.
fn take_busy(nodes: &mut Vec<Named>, metric: &str) -> Result<Named> {
    let work = nodes.iter().map(|Named { node, .. }| node.metric(metric));
    let work = work.collect::<Result<Vec<_>>>()?;
    let most = work.iter().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
    let (busiest, _) = most.context("there is none")?;
    Ok(nodes.remove(busiest))
}

/// Adds what players saw of a fault since they had told `before` times.
fn note(worst: &mut Worst, fault: Fault, pages: &Browser, before: usize) -> Result<()> {
    let (freezes, strikes) = worst.entry(fault).or_default();
    *strikes += 1;
    for report in pages.all::<Report>("seen").iter().skip(before) {
        println!("{fault}: {report:?}");
        for (name, freeze) in PLAYERS.into_iter().zip(&mut *freezes) {
            let seen = report.players.iter().find(|seen| seen.name == name).context(name)?;
            *freeze = seen.freeze_ms.context("it came back")?.max(*freeze);
        }
    }
    Ok(())
}

/// Whether every target was met, as it says.
fn judge(worst: &Worst) -> bool {
    println!("{:36} {:>7} {:>18} {:>18}", "longest freeze, ms", "strikes", "LL-HLS", "WebRTC");
    let mut all_met = true;
    for (fault, (freezes, strikes)) in worst {
        let verdicts = freezes.iter().zip(fault.target_ms()).map(|(freeze, target)| {
            let is_met = *freeze <= target;
            all_met &= is_met;
            format!("{freeze:>6} <= {target:>5} {}", if is_met { "PASS" } else { "MISS" })
        });
        println!("{fault:36} {strikes:>7} {}", verdicts.collect::<Vec<_>>().join(" "));
    }
    all_met
}

#[test]
fn whatever_befalls_edges_and_nats_players_go_on() -> Result<()> {
    players_go_on(&WHO_ANSWERS)
}

#[test]
fn whatever_befalls_who_makes_the_stream_players_go_on() -> Result<()> {
    players_go_on(&WHO_MAKES)
}

/// Each of `faults` once in a schedule. Targets are demanded where schedules were asked for, and else only printed: how long a picture
/// stands still depends on what else the machine does.
fn players_go_on(faults: &[Fault]) -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut worst = Worst::new();
    let survived = chaos::survive(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut faults = faults.to_vec();
        random.shuffle(&mut faults);
        let mut scene = Scene::new()?;
        let pages = watch(&scene)?;
        let mut judged = 0;
        for fault in faults {
            // The whole of the second is behind what was mended: pages have heard of new nodes by its end. And so that they
            // look at the whole of what comes.
            look(&pages, &mut judged)?;
            look(&pages, &mut judged)?;
            println!("seed {seed}: {fault}");
            let before = pages.all::<Report>("seen").len();
            let lasts = match fault {
                Fault::NatsIsGone if chaos::is_asked_for() && !worst.contains_key(&fault) => NATS_IS_GONE_FOR,
                _ => Duration::ZERO,
            };
            scene.strike(fault, &mut random)?;
            let struck = Instant::now();
            loop {
                look(&pages, &mut judged).with_context(|| fault.to_string())?;
                if struck.elapsed() >= lasts {
                    break;
                }
            }
            note(&mut worst, fault, &pages, before)?;
            scene.mend().with_context(|| fault.to_string())?;
        }
        look(&pages, &mut judged)?;
        pages.terminate();
        Ok(())
    });
    let all_met = judge(&worst);
    survived?;
    ensure!(all_met || !chaos::is_asked_for(), "targets were missed");
    Ok(())
}

/// Waits until players have told of the time that they look at now. In what they have seen since `judged` none of them stood
/// still for too long.
fn look(pages: &Browser, judged: &mut usize) -> Result<()> {
    let told = pages.all::<Report>("seen").len();
    let report = pages.wait_until("seen", STEP_MAX, |report: &Report| report.number > told)?;
    for report in pages.all::<Report>("seen").iter().filter(|report| report.number > *judged) {
        for seen in &report.players {
            let ms = seen.freeze_ms.with_context(|| format!("it never came back: {report:?}"))?;
            ensure!(Duration::from_millis(ms) < FREEZE_MAX, "{report:?}");
        }
    }
    *judged = report.number;
    Ok(())
}

fn watch(scene: &Scene) -> Result<Browser> {
    let folder = output_dir()?.to_string_lossy().into_owned();
    let edge = &scene.edges[0].node;
    let players = PLAYERS.join(",");
    let pages = Browser::run("players.mjs", &[&edge.page_url(""), STREAM, &players, &folder, WATCHED_S])?;
    let Told {} = pages.wait_for("playing", STEP_MAX)?;
    poll::until("somebody to watch by WebRTC", STEP_MAX, || {
        Ok((edge.metric("whep_viewers")? > 0.0).then_some(()))
    })?;
    Ok(pages)
}
