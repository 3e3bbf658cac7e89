//! The one binary: reads what was asked for, then builds, runs and drains the roles.
//!
//!   arguments ─▶ config ─▶ telemetry ─▶ build (binds every port) ─▶ run ─▶ drain ─▶ exit code

mod admin;
mod agreed;
mod ahead;
mod api;
mod ask;
mod authority;
mod backstage;
mod certificates;
mod checkpoints;
mod claims;
mod cli;

mod commands;
mod config;
mod descriptors;
mod desk;
mod encoding;
mod events;
mod explain;
mod files;
mod keeper;
mod keys;
mod lending;
mod listen;
mod membership;
mod metrics;
mod offer;
mod origins;
mod paths;
mod publishing;
mod roles;
mod route;
mod settings;
mod shutdown;
mod standing;
mod telemetry;
#[cfg(test)]
mod testing;
mod transcoding;
mod trust;
mod viewers;
mod workers;

use std::panic::resume_unwind;
use std::process::ExitCode;

use anyhow::Context;
use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use ask::{Question, Reading};
use authority::ClusterFiles;
use certificates::Certificates;
use cli::{
    Cli, ClusterCommand, Command, ConfigCommand, KeysCommand, NodesCommand, Output, StreamsCommand,
    TlsCommand,
};
use config::Effective;
use encoding::Encoding;
use keeper::KeyKeeper;
use listen::Handed;
use membership::Membership;
use roles::Roles;
use settings::SettingsKeeper;
use shutdown::{Outcome, Signals};

/// Could not start, or the command was refused. 2 is clap's, for wrong usage.
const EXIT_FAILED: u8 = 1;
const EXIT_NOT_CLEAN: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::of_process();
    let done = match &cli.command {
        None => return serve(&cli),
        Some(Command::Check { file }) => commands::check(file),
        Some(Command::Config(ConfigCommand::Show)) => commands::load(&cli).and_then(commands::config_show),
        Some(Command::Config(ConfigCommand::Set { key, value, output })) => {
            ask(&cli, Question::Set { key: key.clone(), value: Some(value.clone()) }, output)
        }
        Some(Command::Config(ConfigCommand::Unset { key, output })) => {
            ask(&cli, Question::Set { key: key.clone(), value: None }, output)
        }
        Some(Command::Keys(KeysCommand::Show)) => {
            commands::load(&cli).and_then(|loaded| commands::keys_show(&loaded))
        }
        Some(Command::Keys(KeysCommand::New)) => {
            commands::load(&cli).and_then(|loaded| commands::keys_new(&loaded))
        }
        Some(Command::Tls(TlsCommand::Check)) => {
            commands::load(&cli).and_then(|loaded| commands::tls_check(&loaded))
        }
        Some(Command::Nodes { command: None, output }) => ask(&cli, Question::Nodes, output),
        Some(Command::Nodes { command: Some(NodesCommand::Drain { node, undo, force, output }), .. }) => {
            ask(&cli, Question::Drain { node: node.clone(), undo: *undo, force: *force }, output)
        }
        Some(Command::Streams { command: None, output }) => ask(&cli, Question::Streams, output),
        Some(Command::Streams {
            command: Some(StreamsCommand::Expect { stream, viewers, at, output }),
            ..
        }) => ask(&cli, Question::Expect { stream: stream.clone(), viewers: *viewers, at: *at }, output),
        Some(Command::Explain { stream, output }) => {
            ask(&cli, Question::Explain { stream: stream.clone() }, output)
        }
        Some(Command::Top) => ask(&cli, Question::Top, &Output { json: false }),
        Some(Command::Events { since, reader, follow, output }) => {
            let reading = Reading { since: *since, reader: reader.clone(), follow: *follow };
            ask(&cli, Question::Events(reading), output)
        }
        Some(Command::Cluster(command)) => commands::load(&cli).and_then(|loaded| match command {
            ClusterCommand::Init { name } => commands::cluster_init(&loaded, name),
            ClusterCommand::Token { name, minutes, address } => {
                commands::cluster_token(&loaded, name.as_ref(), *minutes, address)
            }
            ClusterCommand::Invite { name, days } => commands::cluster_invite(&loaded, name, *days),
            ClusterCommand::Join { with, name } => commands::cluster_join(&loaded, with, name.as_ref()),
            ClusterCommand::Revoke { node } => commands::cluster_revoke(&loaded, node),
            ClusterCommand::Rotate { finish, force } => commands::cluster_rotate(&loaded, *finish, *force),
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

fn ask(cli: &Cli, question: Question, output: &Output) -> anyhow::Result<()> {
    let loaded = commands::load(cli)?;
    ask::run(loaded.config.admin.listen.get(), question, output.json)
}

/// Before there is a log.
fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::from(EXIT_FAILED)
}

fn serve(cli: &Cli) -> ExitCode {
    let prepared = commands::load(cli).and_then(|loaded| {
        telemetry::init(cli.log_format)?;
        // Before the runtime makes threads: it changes the environment.
        Ok((loaded, Handed::of_process()?))
    });
    let (loaded, handed) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return refuse(&error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let outcome = runtime.block_on(run(loaded, handed));
    // Does not wait: what is still open after the drain was given its time.
    runtime.shutdown_background();
    match outcome {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::SecondSignal | Outcome::GraceOver) => ExitCode::from(EXIT_NOT_CLEAN),
        Ok(Outcome::Unasked) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            error!("cannot start: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// # Errors
/// If the process cannot start; after that every end is an [`Outcome`].
async fn run(mut loaded: Effective, mut handed: Handed) -> anyhow::Result<Outcome> {
    // First, so that a signal during the start is not lost.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let identity = ClusterFiles::new(loaded.config.cluster_dir()).identity()?;
    let mut registry = metrics::registry();
    let certificates = Certificates::load(&loaded.config, &mut registry)?;
    let mut membership = Membership::join(&loaded.config, identity.as_ref()).await?;
    let drain = CancellationToken::new();
    let (settings, settings_keeper) =
        SettingsKeeper::start(&mut loaded, &membership, identity.as_ref()).await;
    membership.settings = settings;
    let config = &loaded.config;
    let leave = membership.clone().leave(config.drain.timeout);
    // On the runtime's threads: what this one waited for itself would wake one of those first, and then this one, for
    // each tick and each datagram.
    let running = if config.roles.has_streams() {
        let (roles, keeper) = if config.roles.ingest {
            let keeper = KeyKeeper::new(&loaded, &membership, identity.as_ref())?;
            let key = keeper.key();
            let roles = Roles::build(config, key, membership, identity, certificates, &mut handed, registry)?;
            (roles, Some(keeper))
        } else {
            (Roles::build_edge(config, membership, identity, certificates, &mut handed, registry)?, None)
        };
        let node = roles.node(config)?;
        handed.finish();
        announce(&roles)?;
        let running = roles.run(node, drain.clone());
        let keeping = keeper.map(|keeper| keeper.run(drain.clone()));
        tokio::spawn(async {
            tokio::join!(running, async {
                if let Some(keeping) = keeping {
                    keeping.await;
                }
            });
        })
    } else {
        let encoding = Encoding::build(config, membership, identity.as_ref(), &mut handed, registry)?;
        let node = encoding.node(config)?;
        handed.finish();
        encoding.announce()?;
        tokio::spawn(encoding.run(node, drain.clone()))
    };
    let keeping = settings_keeper.map(|keeper| tokio::spawn(keeper.run(drain.clone())));
    tell_service_manager(NotifyState::Ready);
    let running = async {
        let watched = |task: JoinHandle<()>| async {
            if let Err(ended) = task.await
                && let Ok(panic) = ended.try_into_panic()
            {
                // A bug of ours ends the process.
                resume_unwind(panic);
            }
        };
        // The process is over when the first is, whatever becomes of the second.
        tokio::select! {
            () = watched(running) => {}
            () = async {
                if let Some(keeping) = keeping {
                    watched(keeping).await;
                }
                std::future::pending::<()>().await;
            } => {}
        }
    };
    Ok(shutdown::run_until_drained(running, leave, drain, async || {
        let signal = signals.next().await;
        tell_service_manager(NotifyState::Stopping);
        signal
    })
    .await)
}

/// `sd_notify(3)`; nothing if nobody asked to be told.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "cannot tell the service manager");
    }
}

fn announce(roles: &Roles) -> anyhow::Result<()> {
    let bound = roles.addresses()?;
    match bound.relay {
        Some(relay) => info!(relay.listen = %relay, "relay: nodes of the cluster may read streams here"),
        None => info!("relay: off, this node is in no cluster; `tidecast cluster init` makes one"),
    }
    if let Some((https, fingerprint)) =
        bound.https.as_ref().and_then(|https| Some((https, https.self_signed.as_ref()?)))
    {
        info!(
            "certificate: self-signed, so browsers warn of it; what that means and how to trust it: {}/trust (SHA-256 \
             {fingerprint})",
            https.origin()
        );
    }
    let (pages, webrtc) = (bound.pages(), bound.webrtc);
    if bound.rtmp.is_some() {
        info!(webrtc.listen = %webrtc, "WHIP: publish to {pages}/whip/{{app}}/{{stream}} with the publish key as bearer token");
    } else {
        info!(webrtc.listen = %webrtc, "WHEP: WebRTC players watch at {pages}/whep/{{app}}/{{stream}}");
    }
    let watch = format!("{}/watch/{{app}}/{{stream}}", bound.pages());
    let role = if roles.is_origin_of_others() { "origin" } else { "edge" };
    match (&bound.rtmp, roles.upstream()) {
        (Some(rtmp), _) => info!(
            version = cli::VERSION,
            http.listen = %bound.http,
            https.listen = bound.https.as_ref().map(|https| tracing::field::display(https.addr)),
            rtmp.listen = %rtmp,
            rtmps.listen = bound.rtmps.map(tracing::field::display),
            admin.listen = %bound.admin,
            "ready: watch at {watch}, publish to {} with stream key {{stream}}?key={{publish key}}",
            bound.publish(*rtmp),
        ),
        (None, upstream) => info!(
            version = cli::VERSION,
            http.listen = %bound.http,
            https.listen = bound.https.as_ref().map(|https| tracing::field::display(https.addr)),
            admin.listen = %bound.admin,
            upstream,
            "ready: watch at {watch}, an {role} of {upstream}",
        ),
    }
    Ok(())
}
