//! Several servers in a cluster, each with a certificate that its operator made and carried.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::nats::Nats;
use crate::ports;
use crate::router::Host;
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

    /// The node that the cluster was made on: takes publishers, and lets other nodes in.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub fn founder(self, setup: Setup) -> Result<Tidecast> {
        Tidecast::run(Command::new(binary()?), setup, self.authority, Ports::any())
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
        let relay = ports::free();
        self.edge_of(name, relay, Setup::default(), Ports { relay, ..Ports::any() })
    }

    /// A node that finds the others by NATS; `roles` as `--roles` takes them.
    ///
    /// # Errors
    /// As [`Cluster::origin`].
    pub fn node(&self, name: &str, roles: &str, nats: &Nats, setup: Setup) -> Result<Tidecast> {
        self.node_at(name, roles, &nats.url(), setup)
    }

    /// As [`Cluster::node`]; `nats` are the URLs of the servers as this node reaches them.
    ///
    /// # Errors
    /// As [`Cluster::origin`].
    pub fn node_at(&self, name: &str, roles: &str, nats: &str, setup: Setup) -> Result<Tidecast> {
        let setup = setup.set("http.connections_per_address", "10000");
        let setup = setup.set("roles", roles).set("cluster.nats", nats);
        Tidecast::run(Command::new(binary()?), setup, self.join(name)?, Ports::any())
    }

    /// As [`Cluster::node_at`], on a host of its own.
    ///
    /// # Errors
    /// As [`Cluster::origin`].
    pub fn node_on(
        &self,
        host: &Host,
        name: &str,
        roles: &str,
        nats: &str,
        setup: Setup,
    ) -> Result<Tidecast> {
        let listen = format!("{}:0", host.address());
        let listeners = ["http", "rtmp", "webrtc", "relay"].map(|listener| format!("{listener}.listen"));
        let setup = listeners.iter().fold(setup, |setup, key| setup.set(key, &listen));
        host.within(|| self.node_at(name, roles, nats, setup))
    }

    fn edge_of(&self, name: &str, upstream: SocketAddr, setup: Setup, ports: Ports) -> Result<Tidecast> {
        edge_in(self.join(name)?, upstream, setup, ports)
    }

    /// A bundle for `name`, as `tidecast cluster invite` prints it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn bundle(&self, name: &str) -> Result<Vec<u8>> {
        run(self.authority.path(), &["cluster", "invite", name])
    }

    /// A server that was on its own has joined as `name`, for its next [`Tidecast::restart`].
    ///
    /// # Errors
    /// If it cannot join.
    pub fn takes_in(&self, name: &str, alone: Tidecast) -> Result<Tidecast> {
        self.join_in(name, alone.data_dir())?;
        Ok(alone)
    }

    /// The data directory of a node that has joined.
    fn join(&self, name: &str) -> Result<TempDir> {
        let data_dir = TempDir::new()?;
        self.join_in(name, data_dir.path())?;
        Ok(data_dir)
    }

    fn join_in(&self, name: &str, data_dir: &Path) -> Result<()> {
        let bundle: PathBuf = data_dir.join("bundle");
        fs::write(&bundle, self.bundle(name)?)?;
        run(data_dir, &["cluster", "join", &bundle.to_string_lossy()]).map(drop)
    }
}

/// A machine that is to be a node.
pub struct Machine {
    data_dir: TempDir,
}

impl Machine {
    /// # Errors
    /// From the system.
    pub fn new() -> Result<Self> {
        Ok(Self { data_dir: TempDir::new()? })
    }

    /// Joins a cluster by a token of [`Tidecast::token`], or a bundle's file; what is printed for the operator.
    ///
    /// # Errors
    /// In the words of the command, if it is refused.
    pub fn join(&self, with: &str, more: &[&str]) -> Result<String> {
        let output = command(self.data_dir.path(), &[&["cluster", "join", with], more].concat())?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Where it keeps its certificate.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.data_dir.path().join("cluster")
    }

    /// It begins to serve the streams of `upstream`.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub fn edge(self, upstream: &Tidecast, setup: Setup) -> Result<Tidecast> {
        let relay = upstream.relay.context("the upstream is in no cluster")?;
        edge_in(self.data_dir, relay, setup, Ports::any())
    }

    /// It begins as a node that finds the others by NATS.
    ///
    /// # Errors
    /// As [`Machine::edge`].
    pub fn node(self, roles: &str, nats: &Nats, setup: Setup) -> Result<Tidecast> {
        let setup = setup.set("http.connections_per_address", "10000");
        let setup = setup.set("roles", roles).set("cluster.nats", &nats.url());
        Tidecast::run(Command::new(binary()?), setup, self.data_dir, Ports::any())
    }
}

impl Tidecast {
    /// A command of the operator of this machine; what it prints.
    ///
    /// # Errors
    /// In its words, if it is refused.
    pub fn operate(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(binary()?);
        bare(&mut command, self.data_dir.path());
        let output = command.envs(self.setup.variables()).args(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A token that lets a machine join: `name`, or whoever.
    ///
    /// # Errors
    /// If this node does not have the authority.
    pub fn token(&self, name: Option<&str>) -> Result<String> {
        let relay = self.relay.context("it is in no cluster")?.to_string();
        let mut arguments = vec!["cluster", "token", "--address", &relay];
        arguments.extend(name);
        Ok(self.operate(&arguments)?.trim().to_owned())
    }

    /// A node that has joined this one's cluster by a token, and serves its streams.
    ///
    /// # Errors
    /// If it cannot join, or is not ready in time.
    pub fn edge_by_token(&self, name: &str) -> Result<Self> {
        let machine = Machine::new()?;
        machine.join(&self.token(Some(name))?, &[])?;
        machine.edge(self, Setup::default())
    }

    /// Where other nodes read streams.
    ///
    /// # Errors
    /// If it is in no cluster.
    pub fn relay_address(&self) -> Result<SocketAddr> {
        self.relay.context("it is in no cluster")
    }
}

fn edge_in(data_dir: TempDir, upstream: SocketAddr, setup: Setup, ports: Ports) -> Result<Tidecast> {
    // All viewers of a test come from one address.
    let setup = setup.set("http.connections_per_address", "10000");
    let setup = setup.set("roles", "edge").set("upstream", &format!("https://{upstream}"));
    Tidecast::run(Command::new(binary()?), setup, data_dir, ports)
}

fn command(data_dir: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    bare(&mut command, data_dir);
    Ok(command.args(arguments).output()?)
}

/// Runs a command that ends by itself, and returns what it prints.
fn run(data_dir: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = command(data_dir, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
