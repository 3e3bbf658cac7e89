//! A certificate that this node keeps for itself: one private file in data_dir with the key and the chain, so that the
//! two can never be of different ages.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use net::tls::Certificate;

use crate::files::{PRIVATE, make_private_dir, read_bounded, write_whole};

/// A chain and a key are a few kilobytes.
pub(super) const PEM_BYTES_MAX: u64 = 256 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Kept {
    path: PathBuf,
}

impl Kept {
    pub(super) fn new(data_dir: &Path, name: &str) -> Self {
        Self { path: super::kept_dir(data_dir).join(name) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `None` if there is no such file.
    ///
    /// # Errors
    /// If it is there and cannot be used.
    pub(super) fn read(&self) -> anyhow::Result<Option<Certificate>> {
        let unusable = || format!("{} cannot be used", self.path.display());
        let pem = match read_bounded(&self.path, PEM_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(unusable)?,
        };
        Certificate::from_pem(&pem, &pem).map(Some).with_context(unusable)
    }

    /// Replaces what was kept, and returns what is kept now.
    ///
    /// # Errors
    /// If chain and key do not fit, or the file cannot be written.
    pub(super) fn write(&self, chain: &str, key: &str) -> anyhow::Result<Certificate> {
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes())?;
        let write = || {
            if let Some(dir) = self.path.parent() {
                make_private_dir(dir)?;
            }
            write_whole(&self.path, PRIVATE, &format!("{key}{chain}"))
        };
        write().with_context(|| format!("cannot write {}: set data_dir", self.path.display()))?;
        Ok(certificate)
    }
}
