//! The commands that print something and end. Answers go to stdout, so that scripts can use them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::{self, Effective, Environment, Origin};
use crate::keys::KeyFile;

/// The configuration that a start with these arguments would use.
pub(crate) fn load(file: Option<&PathBuf>) -> anyhow::Result<Effective> {
    let source = config::read(file.map(PathBuf::as_path))?;
    Ok(Effective::load(source.as_ref(), &Environment::of_process())?)
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

/// Not `print!`, which panics when the reader (`| head -1`) has gone.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the answer")
        }
        _ => Ok(()),
    }
}
