//! The commands that print something and end. Answers go to stdout, so that scripts can use them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use media::NodeId;

use crate::authority::ClusterFiles;
use crate::certificates;
use crate::cli::Cli;
use crate::config::{self, Effective, Environment, Origin};
use crate::keys::KeyFile;

/// A bundle is two certificates and a key, a few kilobytes.
const BUNDLE_BYTES_MAX: u64 = 64 * 1024;

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

pub(crate) fn config_show(loaded: &Effective) -> anyhow::Result<()> {
    print(&loaded.show())
}

pub(crate) fn keys_show(loaded: &Effective) -> anyhow::Result<()> {
    if let Some(key) = &loaded.config.auth.publish_key {
        return print(&format!("{}\n", key.expose()));
    }
    let file = KeyFile::new(&loaded.config.data_dir);
    let Some(key) = file.read()? else {
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
    let file = KeyFile::new(&loaded.config.data_dir);
    let key = file.replace()?;
    print(&format!("{}\n", key.expose()))?;
    eprintln!("kept in {}; a running tidecast uses it after a restart", file.path().display());
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
         `tidecast cluster invite NAME` lets one in",
        files.dir().display()
    );
    Ok(())
}

pub(crate) fn cluster_invite(loaded: &Effective, name: &NodeId) -> anyhow::Result<()> {
    let bundle = ClusterFiles::new(loaded.config.cluster_dir()).invite(name)?;
    print(&bundle)?;
    eprintln!(
        "the bundle holds the private key of {name}: carry it over a safe way, and delete it afterwards"
    );
    Ok(())
}

pub(crate) fn cluster_join(loaded: &Effective, bundle: &Path) -> anyhow::Result<()> {
    let text = match bundle == Path::new("-") {
        true => io::read_to_string(io::stdin().take(BUNDLE_BYTES_MAX)),
        false => File::open(bundle).and_then(|file| io::read_to_string(file.take(BUNDLE_BYTES_MAX))),
    };
    let text = text.with_context(|| format!("cannot read {}", bundle.display()))?;
    let files = ClusterFiles::new(loaded.config.cluster_dir());
    let name = files.join(&text)?;
    eprintln!("joined as {name}, with files in {}; now the bundle can be deleted", files.dir().display());
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
