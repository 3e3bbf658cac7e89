//! The command line, and the words of `--help`.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use cluster::ReaderName;
use jiff::Timestamp;
use media::{NodeId, StreamId};

use crate::authority::BUNDLED_DAYS;
use crate::config::SHARED;
use crate::events::Since;
use crate::telemetry::LogFormat;

pub(crate) const VERSION_NUMBER: &str = env!("CARGO_PKG_VERSION");
/// Of the checkout this was built from (see `build.rs`).
pub(crate) const COMMIT: &str = env!("TIDECAST_COMMIT");
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TIDECAST_COMMIT"), ")");

const ABOUT: &str = "\
Live media server: OBS or ffmpeg push RTMP in, browsers watch with low latency.

Without arguments it runs everything in this process on built-in defaults and
needs no other service.";

// Lines of at most 79 characters: longer ones are broken anywhere in an ordinary terminal.
const AFTER_HELP: &str = "\
First steps:
  tidecast                run; the log tells where to watch
  tidecast keys show      the publish key, made at the first start
  OBS, custom service     server rtmp://localhost/live
                          stream key cam1?key={publish key}
  ffmpeg                  ffmpeg -re -i clip.mp4 -c copy -f flv \\
                      \"rtmp://localhost/live/cam1?key=$(tidecast keys show)\"
  watch                   http://localhost:8080/watch/live/cam1

Addresses (all can be changed):
  :1935                   RTMP: server rtmp://{host}/{app},
                            stream key {stream}?key={publish key}
  :8080                   HTTP: / lists what is live, /watch/{app}/{stream},
                            /hls/{app}/{stream}/index.m3u8
  127.0.0.1:9090          admin, from this machine only:
                            /healthz, /readyz, /metrics (OpenMetrics),
                            /api/v1/nodes, streams and events (JSON);
                            / is a page of them
  :8443 and :1936         HTTPS and RTMPS, once there is a certificate (below)
  :7400                   relay, for other nodes of a cluster (below)

HTTPS, of which browsers make a condition for cameras, and iPhones for HTTP/2:
  tidecast --tls-self-signed         in a network of your own; /trust on the
                                     pages says what that means
  tidecast --domain live.example     from Let's Encrypt, on ports 80 and 443
  tls.certificate, tls.key           files of your own; changed ones are loaded
  tidecast tls check                 whom it names, until when

An edge on another machine:
  origin$ tidecast cluster init                      once, then restart it
  origin$ tidecast cluster token edge1               prints a line, good once
  edge1$  tidecast cluster join LINE
  edge1$  tidecast --roles edge --upstream https://origin:7400

Many nodes, each with such a certificate, that find each other by NATS:
  TIDECAST__CLUSTER__NATS=nats://10.0.0.1:4222       on every node
  tidecast                           takes publishers; so may others
  tidecast --roles edge              shows the streams of all of them
  tidecast --roles transcode         encodes for whoever has no room for it
  tidecast nodes                     who is there; also streams, events, top
  tidecast explain APP/STREAM        why its viewers are sent where they are
  tidecast nodes drain NODE          it takes nothing new, and its publishers
                                     and viewers go to others; --undo
  tidecast config set KEY VALUE      for all nodes, from the next start of each

Configuration:
  A TOML file (--config), and over it the environment: TIDECAST__ and the key
  in capitals, with two underscores for each dot. For instance:
    http.listen           TIDECAST__HTTP__LISTEN=127.0.0.1:8080
    auth.publish_key      TIDECAST__AUTH__PUBLISH_KEY=...
  Unknown keys are refused. tidecast.sample.toml explains every key.
  TIDECAST_LOG chooses what is logged: info (the default), debug, or
  info,tidecast_ingest=debug for one crate.

Stopping:
  SIGTERM or Ctrl-C finishes what is open, for at most 10 s; a second one
  stops at once. Of a node with others SIGTERM lets viewers go there first, for
  at most drain.timeout (15s); a second one ends that, and a third stops.
  `tidecast nodes drain` ends no process.

Exit codes:
  0  stopped clean, or the command was done
  1  could not start, or the command was refused
  2  wrong usage
  3  stopped with something still open";

#[derive(Parser)]
#[command(name = "tidecast", version = VERSION, about = ABOUT, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// Configuration file (TOML); without one, defaults and environment
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// What this process does: all (the default), or some of "ingest,origin", transcode and edge
    #[arg(long, value_name = "ROLES", global = true)]
    pub(crate) roles: Option<String>,
    /// The node whose streams an edge serves, https://HOST:PORT
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) upstream: Option<String>,
    /// Encrypt with a certificate made here, which nobody trusts until told so
    #[arg(long, global = true)]
    pub(crate) tls_self_signed: bool,
    /// Encrypt with a certificate from Let's Encrypt for this name, which leads here; uses ports 80 and 443
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) domain: Option<String>,
    /// Agree to the terms of the authority that --domain asks: https://letsencrypt.org/repository/
    #[arg(long, global = true)]
    pub(crate) acme_agree: bool,
    /// How the log on stderr is written
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// Keys that options set.
    pub(crate) fn settings(&self) -> Vec<(&'static str, &str)> {
        let flag = |is_set: bool| is_set.then_some("true");
        let options = [
            ("roles", self.roles.as_deref()),
            ("upstream", self.upstream.as_deref()),
            ("tls.self_signed", flag(self.tls_self_signed)),
            ("acme.domain", self.domain.as_deref()),
            ("acme.terms_agreed", flag(self.acme_agree)),
        ];
        options.into_iter().filter_map(|(key, text)| Some((key, text?))).collect()
    }

    /// What was asked for; with wrong usage, says so and ends the process.
    pub(crate) fn of_process() -> Self {
        let cli = Self::parse();
        // Both name a file, and clap sees no conflict between an option here and an argument of a command.
        if let (Some(_), Some(Command::Check { .. })) = (&cli.config, &cli.command) {
            let words = "check takes the file as its argument: tidecast check FILE, without --config";
            Self::command().error(ErrorKind::ArgumentConflict, words).exit();
        }
        cli
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Tell every mistake of a configuration file, with its line
    ///
    /// Judges the file alone: the environment is not looked at, so the answer is the same on every machine.
    Check {
        /// The file to judge
        file: PathBuf,
    },
    /// What is configured
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The publish key
    #[command(subcommand)]
    Keys(KeysCommand),
    /// The certificate that viewers and publishers see
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Who is in the cluster, and how busy: asks the tidecast that runs here
    #[command(args_conflicts_with_subcommands = true)]
    Nodes {
        #[command(subcommand)]
        command: Option<NodesCommand>,
        #[command(flatten)]
        output: Output,
    },
    /// What is published, and to which node: asks the tidecast that runs here
    #[command(args_conflicts_with_subcommands = true)]
    Streams {
        #[command(subcommand)]
        command: Option<StreamsCommand>,
        #[command(flatten)]
        output: Output,
    },
    /// Why viewers of a stream are sent to which edge, and who has and encodes it: asks the tidecast that runs here
    ///
    /// As it looks from here, in the zone of this node: of each edge, origin and worker the figures that decide, and why it was
    /// chosen or not.
    Explain {
        /// APP/STREAM, published or not
        #[arg(value_parser = stream)]
        stream: StreamId,
        #[command(flatten)]
        output: Output,
    },
    /// Nodes and streams, once a second until Ctrl-C: asks the tidecast that runs here
    Top,
    /// What has happened in the cluster: asks the tidecast that runs here
    ///
    /// The newest 100 events, or those from --since on; each is kept for 7 days.
    Events {
        /// From that event on, as in 1200, or what is not older, as in 90s, 15m, 2h, 7d
        #[arg(long, value_name = "EVENT|AGE")]
        since: Option<Since>,
        /// Go on where the last process of that name has ended, on whichever machine of the cluster
        ///
        /// Each event is printed once, and again only if a process ended before it could say that it was. A name that is new
        /// begins at --since, or at the oldest event; one that nobody has read under for 7 days is forgotten.
        #[arg(long = "as", value_name = "NAME")]
        reader: Option<ReaderName>,
        /// Go on with what happens
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Which nodes may read streams from each other
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

#[derive(Subcommand)]
pub(crate) enum NodesCommand {
    /// Have a node take nothing new, and send on who is there: before it is upgraded, say
    ///
    /// From any machine of the cluster, also of a node that is away. Publishers are sent to connect to another node, where
    /// their sessions go on; viewers by WebRTC are sent to nodes with room, and so are newcomers; who watches by HLS
    /// stays. The process does not end: `tidecast nodes` tells when nobody is left, and SIGTERM ends it then. The order
    /// holds, over restarts, until it is taken back with --undo.
    Drain {
        /// Its name, as `tidecast nodes` has it
        node: NodeId,
        /// Take the order back: the node takes publishers and viewers again
        #[arg(long)]
        undo: bool,
        /// Also the only node that takes publishers, or viewers, or encodes
        #[arg(long, conflicts_with = "undo")]
        force: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub(crate) enum StreamsCommand {
    /// Say how many viewers will come, so that enough edges have the stream before the first of them
    ///
    /// Edges open it a minute before its time, as many as the viewers fill by http.egress_max at 4 Mbit/s each, or 1000
    /// to an edge that has none. `tidecast streams` says which. It holds until another number is said; 0 takes it back.
    Expect {
        /// APP/STREAM, published or not
        #[arg(value_parser = stream)]
        stream: StreamId,
        /// How many
        viewers: u32,
        /// When they come, as in 2026-12-24T18:00:00Z; without it, now
        #[arg(long, value_name = "TIME")]
        at: Option<Timestamp>,
        #[command(flatten)]
        output: Output,
    },
}

/// `live/cam`
fn stream(text: &str) -> Result<StreamId, String> {
    let (app, stream) = text.split_once('/').ok_or("a stream is APP/STREAM, as in live/cam")?;
    StreamId::new(app, stream).map_err(|error| error.to_string())
}

#[derive(clap::Args)]
pub(crate) struct Output {
    /// A line of JSON each
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the values in force, each with where it comes from; secrets are hidden
    Show,
    /// Set a key for all nodes of the cluster: asks the tidecast that runs here
    ///
    /// Each node takes it at its next start, unless its own file or environment says otherwise; `tidecast nodes` tells on
    /// which nodes another value is in force. Needs cluster.nats.
    Set {
        #[arg(value_parser = SHARED)]
        key: String,
        /// As in the file, without quotes
        value: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take back what `config set` has set
    Unset {
        #[arg(value_parser = SHARED)]
        key: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Print the publish key
    ///
    /// That of a cluster is known on the node where it was made; the others can only compare it.
    Show,
    /// Make a new publish key, keep it in place of the old one and print it
    ///
    /// A running tidecast uses it within seconds, and so do all nodes of its cluster with cluster.nats; who is publishing
    /// already goes on. Refused when auth.publish_key is configured, since the kept key would not be used.
    New,
}

#[derive(Subcommand)]
pub(crate) enum TlsCommand {
    /// Say whom the certificate names, until when, its fingerprint, and whether the key fits
    ///
    /// The one that a start with the same configuration would use. Fails if there is none, if it cannot be used, or if
    /// it has expired.
    Check,
}

/// Certificates are kept in cluster.dir, by default the folder "cluster" in data_dir.
#[derive(Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make a cluster: its authority, and this node's certificate
    ///
    /// Keep the authority's key (ca.key) as safe as a root password: whoever has it can make nodes.
    Init {
        /// What this node is called
        #[arg(default_value = "origin")]
        name: NodeId,
    },
    /// Print a line that lets another machine join, once
    ///
    /// That machine makes its own key, and asks the relay of the tidecast that runs here for its certificate.
    Token {
        /// What that node will be called; without it, whatever it says that is free
        name: Option<NodeId>,
        /// How long the token is good
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=24 * 60))]
        minutes: u32,
        /// Where the relay of this machine is reached, HOST:PORT; may be given again. The default is relay.public, or
        /// this machine's addresses
        #[arg(long, value_name = "HOST:PORT")]
        address: Vec<String>,
    },
    /// Make a bundle for a machine that cannot reach this one to join with a token
    ///
    /// The bundle holds the private key of that node: carry it over a safe way (ssh), and delete it afterwards.
    Invite {
        /// What that node will be called; each has a name of its own
        name: NodeId,
        /// How long its certificate is good; a node that reaches the authority renews it before
        #[arg(long, default_value_t = BUNDLED_DAYS, value_parser = clap::value_parser!(u32).range(1..=i64::from(BUNDLED_DAYS)))]
        days: u32,
    },
    /// Join a cluster with a token of `cluster token`, or a bundle of `cluster invite`
    Join {
        /// The token; or the bundle's file, or - for standard input
        #[arg(value_name = "TOKEN|FILE")]
        with: String,
        /// What this node is called, if the token does not say
        #[arg(long)]
        name: Option<NodeId>,
    },
    /// Put a node out of the cluster: its certificate is good nowhere any more
    ///
    /// Its connections are cut within seconds. Its name is not given again while the root is trusted that signed its
    /// certificate.
    Revoke {
        /// What it is called
        node: NodeId,
    },
    /// Make another root beside the one in force; with --finish, drop the old one
    ///
    /// Nodes trust both in between, and renew their certificates by themselves.
    Rotate {
        /// Drop the old root: what it signed is worth nothing any more, and who was put out is forgotten with it
        #[arg(long)]
        finish: bool,
        /// Drop it though there are nodes that have not renewed their certificates, which puts them out
        #[arg(long, requires = "finish")]
        force: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_an_ordinary_terminal() {
        assert_eq!(AFTER_HELP.lines().find(|line| line.chars().count() > 79), None);
    }

    #[test]
    fn help_tells_the_grace_that_is_in_force() {
        assert!(AFTER_HELP.contains(&format!("at most {} s;", shutdown::GRACE.as_secs())));
    }
}
