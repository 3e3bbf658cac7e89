//! The commands that print something and end. Answers go to stdout, so that scripts can use them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use media::NodeId;
use relay::JoinError;

use crate::authority::{ClusterFiles, TOKEN_PREFIX, Token};
use crate::certificates;
use crate::cli::Cli;
use crate::config::{self, Effective, Environment, Origin};
use crate::keeper::{Wish, made_elsewhere};
use crate::keys::KeyFile;
use crate::settings::take_kept;

/// A bundle is two certificates and a key, a few kilobytes.
const BUNDLE_BYTES_MAX: u64 = 64 * 1024;

/// Addresses of this machine in a token.
const TOKEN_ADDRESSES: usize = 4;

/// The configuration that a start with these arguments would use.
pub(crate) fn load(cli: &Cli) -> anyhow::Result<Effective> {
    let source = config::read(cli.config.as_deref())?;
    Ok(Effective::load_with(source.as_ref(), &Environment::of_process(), &cli.settings())?)
}

pub(crate) fn check(file: &Path) -> anyhow::Result<()> {
    let source = config::read(Some(file))?;
    Effective::load(source.as_ref(), &Environment::empty())?;
    print("OK\n")
}

pub(crate) fn config_show(mut loaded: Effective) -> anyhow::Result<()> {
    take_kept(&mut loaded).context("settings of the cluster")?;
    for words in &loaded.passed_over {
        eprintln!("{words}");
    }
    print(&loaded.show())
}

pub(crate) fn keys_show(loaded: &Effective) -> anyhow::Result<()> {
    if let Some(key) = &loaded.config.auth.publish_key {
        return print(&format!("{}\n", key.expose()));
    }
    let file = KeyFile::new(&loaded.config.data_dir);
    let own = file.read()?;
    if !loaded.config.cluster.nats.is_empty()
        && let Some(node) = made_elsewhere(&loaded.config, own.as_ref())?
    {
        bail!(
            "the cluster's publish key was made on {node}, and `tidecast keys show` shows it there alone; other nodes can only \
             compare it. `tidecast keys new` here makes another one, for all"
        );
    }
    let Some(key) = own else {
        bail!(
            "there is no publish key in {} yet: tidecast makes one at its first start, `tidecast keys new` at once",
            file.path().display()
        );
    };
    print(&format!("{}\n", key.expose()))
}

pub(crate) fn keys_new(loaded: &Effective) -> anyhow::Result<()> {
    if let origin @ (Origin::File { .. } | Origin::Environment { .. }) = loaded.origin("auth.publish_key") {
        bail!(
            "auth.publish_key is configured ({origin}) and wins over a kept key: change it there, or remove it first"
        );
    }
    let in_cluster = !loaded.config.cluster.nats.is_empty();
    if in_cluster && !loaded.config.roles.ingest {
        bail!("this node takes no publishers: make the key on one that does; `tidecast nodes` lists them");
    }
    let file = KeyFile::new(&loaded.config.data_dir);
    let key = file.replace()?;
    Wish::make(&loaded.config.data_dir, &key)?;
    print(&format!("{}\n", key.expose()))?;
    let path = file.path().display();
    match in_cluster {
        false => eprintln!(
            "kept in {path}; a running tidecast uses it within seconds. Who publishes already goes on"
        ),
        true => eprintln!(
            "kept in {path}; while a tidecast that takes publishers runs here, all nodes of the cluster use it within seconds. \
             Who publishes already goes on"
        ),
    }
    Ok(())
}

pub(crate) fn tls_check(loaded: &Effective) -> anyhow::Result<()> {
    print(&certificates::check(&loaded.config)?)
}

pub(crate) fn cluster_init(loaded: &Effective, name: &NodeId) -> anyhow::Result<()> {
    let files = ClusterFiles::new(loaded.config.cluster_dir());
    files.init(name)?;
    eprintln!(
        "made a cluster in {}; this node is {name}. After a restart it serves other nodes; \
         `tidecast cluster token NAME` lets one in",
        files.dir().display()
    );
    Ok(())
}

pub(crate) fn cluster_invite(loaded: &Effective, name: &NodeId, days: u32) -> anyhow::Result<()> {
    let bundle = ClusterFiles::new(loaded.config.cluster_dir()).invite(name, days)?;
    print(&bundle)?;
    eprintln!(
        "the bundle holds the private key of {name}: carry it over a safe way, and delete it afterwards"
    );
    Ok(())
}

pub(crate) fn cluster_token(
    loaded: &Effective,
    node: Option<&NodeId>,
    minutes: u32,
    addresses: &[String],
) -> anyhow::Result<()> {
    let addresses = if addresses.is_empty() { own_addresses(loaded)? } else { addresses.to_vec() };
    let lasts = Duration::from_secs(u64::from(minutes) * 60);
    let files = ClusterFiles::new(loaded.config.cluster_dir());
    let token = files.token(node, lasts, addresses)?;
    print(&format!("{token}\n"))?;
    let whom =
        node.map_or_else(|| "a node of a name that is free".to_owned(), |node| format!("{node} alone"));
    eprintln!(
        "good once, for {minutes} minutes, for {whom}, while a tidecast runs here; on the other machine: tidecast cluster \
         join TOKEN. It is asked for at {}",
        token.addresses.join(", ")
    );
    Ok(())
}

/// Where other machines most likely reach the relay of this one.
fn own_addresses(loaded: &Effective) -> anyhow::Result<Vec<String>> {
    if let Some(public) = &loaded.config.relay.public {
        return Ok(vec![public.to_string().trim_start_matches("https://").to_owned()]);
    }
    let listen = loaded.config.relay.listen;
    if !listen.ip().is_unspecified() {
        return Ok(vec![listen.to_string()]);
    }
    let interfaces = if_addrs::get_if_addrs().context("cannot list the addresses of this machine")?;
    let ips = interfaces.iter().map(if_addrs::Interface::ip);
    // Link-local ones of version 6 mean nothing without an interface.
    let outside =
        ips.filter(|ip| !ip.is_loopback() && !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
    let addresses: Vec<_> =
        outside.take(TOKEN_ADDRESSES).map(|ip| SocketAddr::new(ip, listen.port()).to_string()).collect();
    if addresses.is_empty() {
        bail!("this machine has no address that others reach: say it with --address HOST:PORT");
    }
    Ok(addresses)
}

pub(crate) fn cluster_join(loaded: &Effective, with: &str, name: Option<&NodeId>) -> anyhow::Result<()> {
    let files = ClusterFiles::new(loaded.config.cluster_dir());
    if with.starts_with(TOKEN_PREFIX) {
        let name = join_by_token(&files, &with.parse()?, name)?;
        eprintln!("joined as {name}, with files in {}", files.dir().display());
        return Ok(());
    }
    if name.is_some() {
        bail!("--name is for a token that names no node; a bundle has the name");
    }
    let bundle = Path::new(with);
    let text = match bundle == Path::new("-") {
        true => io::read_to_string(io::stdin().take(BUNDLE_BYTES_MAX)),
        false => File::open(bundle).and_then(|file| io::read_to_string(file.take(BUNDLE_BYTES_MAX))),
    };
    let text = text.with_context(|| format!("cannot read {}", bundle.display()))?;
    let name = files.join(&text)?;
    eprintln!("joined as {name}, with files in {}; now the bundle can be deleted", files.dir().display());
    Ok(())
}

/// Asks at each address of the token until somebody there is who made it.
fn join_by_token(files: &ClusterFiles, token: &Token, name: Option<&NodeId>) -> anyhow::Result<NodeId> {
    let (key, request) = files.prepare_to_join(token, name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut failures = Vec::new();
    for address in &token.addresses {
        match runtime.block_on(relay::ask_to_join(address, token.root, request.clone().into())) {
            Ok(granted) => {
                let granted =
                    String::from_utf8(granted.into()).context("the authority's answer is no text")?;
                return files.finish_joining(token, &key, &granted);
            }
            Err(refused @ JoinError::Refused { .. }) => return Err(refused.into()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    bail!("nobody lets this node in: {}", failures.join("; "))
}

pub(crate) fn cluster_revoke(loaded: &Effective, node: &NodeId) -> anyhow::Result<()> {
    let is_known = ClusterFiles::new(loaded.config.cluster_dir()).revoke(node)?;
    let doubt = if is_known { "" } else { " (no node of that name was let in from here; is it spelled so?)" };
    eprintln!(
        "{node} is put out{doubt}: the tidecast that runs here tells the others within seconds. What else it has, as a user of \
         NATS, is for you to take back"
    );
    Ok(())
}

pub(crate) fn cluster_rotate(loaded: &Effective, finish: bool, force: bool) -> anyhow::Result<()> {
    let files = ClusterFiles::new(loaded.config.cluster_dir());
    if finish {
        files.finish_rotation(force)?;
        eprintln!("the old root is dropped: what it signed is worth nothing any more");
    } else {
        files.rotate()?;
        eprintln!(
            "there are two roots now, and nodes trust both; each renews its certificate within a minute. Then, and no sooner: \
             tidecast cluster rotate --finish"
        );
    }
    Ok(())
}

/// Not `print!`, which panics when the reader (`| head -1`) has gone.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the answer")
        }
        _ => Ok(()),
    }
}
