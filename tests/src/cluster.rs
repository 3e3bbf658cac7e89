//! Several servers in a cluster, each with a certificate that its operator made and carried.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::nats::Nats;
use crate::server::{Ports, Setup, Tidecast, bare, binary};

/// A cluster: the files of its authority. Outlives its nodes.
pub struct Cluster {
    authority: TempDir,
}

impl Cluster {
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self> {
        let authority = TempDir::new()?;
        run(authority.path(), &["cluster", "init", "authority"])?;
        Ok(Self { authority })
    }

    /// A node that takes publishers.
    ///
    /// # Errors
    /// If it cannot join, or is not ready in time.
    pub fn origin(&self, setup: Setup) -> Result<Tidecast> {
        Tidecast::run(Command::new(binary()?), setup, self.join("origin")?, Ports::any())
    }

    /// A node that serves the streams of `upstream`.
    ///
    /// # Errors
    /// As [`Cluster::origin`].
    pub fn edge(&self, name: &str, upstream: &Tidecast) -> Result<Tidecast> {
        self.edge_with(name, upstream, Setup::default())
    }

    /// As [`Cluster::edge`], with more configuration.
    ///
    /// # Errors
    /// As [`Cluster::origin`].
    pub fn edge_with(&self, name: &str, upstream: &Tidecast, setup: Setup) -> Result<Tidecast> {
        let relay = upstream.relay.context("the upstream is in no cluster")?;
        self.edge_of(name, relay, setup, Ports::any())
    }

    /// A node that serves its own streams to itself.
    ///
    /// # Errors
    /// As [`Cluster::origin`].
    pub fn circle(&self, name: &str) -> Result<Tidecast> {
        // The port is free for as long as nobody else asks for one.
        let relay = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        self.edge_of(name, relay, Setup::default(), Ports { relay, ..Ports::any() })
    }

    /// A node that finds the others by NATS; `roles` as `--roles` takes them.
    ///
    /// # Errors
    /// As [`Cluster::origin`].
    pub fn node(&self, name: &str, roles: &str, nats: &Nats, setup: Setup) -> Result<Tidecast> {
        let setup = setup.set("http.connections_per_address", "10000");
        let setup = setup.set("roles", roles).set("cluster.nats", &nats.url());
        Tidecast::run(Command::new(binary()?), setup, self.join(name)?, Ports::any())
    }

    fn edge_of(&self, name: &str, upstream: SocketAddr, setup: Setup, ports: Ports) -> Result<Tidecast> {
        // All viewers of a test come from one address.
        let setup = setup.set("http.connections_per_address", "10000");
        let setup = setup.set("roles", "edge").set("upstream", &format!("https://{upstream}"));
        Tidecast::run(Command::new(binary()?), setup, self.join(name)?, ports)
    }

    /// A bundle for `name`, as `tidecast cluster invite` prints it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn bundle(&self, name: &str) -> Result<Vec<u8>> {
        run(self.authority.path(), &["cluster", "invite", name])
    }

    /// The data directory of a node that has joined.
    fn join(&self, name: &str) -> Result<TempDir> {
        let data_dir = TempDir::new()?;
        let bundle: PathBuf = data_dir.path().join("bundle");
        fs::write(&bundle, self.bundle(name)?)?;
        run(data_dir.path(), &["cluster", "join", &bundle.to_string_lossy()])?;
        Ok(data_dir)
    }
}

/// Runs a command that ends by itself, and returns what it prints.
fn run(data_dir: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new(binary()?);
    bare(&mut command, data_dir);
    let output = command.args(arguments).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
