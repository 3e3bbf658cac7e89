//! A real nats-server, on a port and in a folder of its own, or three of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::Http;
use crate::media::root;
use crate::poll;
use crate::ports;
use crate::process::Process;
use crate::router::Host;

const READY_MAX: Duration = Duration::from_secs(30);

pub struct Nats {
    process: Process,
    address: SocketAddr,
    monitor: SocketAddr,
    dir: TempDir,
    more: &'static [&'static str],
}

impl Nats {
    /// # Errors
    /// If `scripts/setup.sh test` has not installed it, or it does not start.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// With more arguments.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub fn start_with(more: &'static [&'static str]) -> Result<Self> {
        let [address, monitor] = [(); 2].map(|()| ports::free());
        let dir = TempDir::new()?;
        Ok(Self { process: spawn(address, monitor, &dir, more)?, address, monitor, dir, more })
    }

    /// On a host of its own.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub fn start_on(host: &Host) -> Result<Self> {
        let [address, monitor] = [4222, 8222].map(|port| SocketAddr::from((host.address(), port)));
        let dir = TempDir::new()?;
        let process = host.within(|| spawn(address, monitor, &dir, &[]))?;
        Ok(Self { process, address, monitor, dir, more: &[] })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Messages that clients have sent to it and been sent by it since it began.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn messages(&self) -> Result<u64> {
        let told: serde_json::Value = serde_json::from_slice(&Http::new(self.monitor).get_ok("/varz")?.body)?;
        let count = |name: &str| told[name].as_u64().with_context(|| format!("no {name} in {told}"));
        Ok(count("in_msgs")? + count("out_msgs")?)
    }

    /// What it answers to a request, as to those of JetStream: one of another's program beside the nodes. `null` is sent as
    /// nothing.
    ///
    /// # Errors
    /// If there is no answer, or nobody who answers.
    pub fn ask(&self, subject: &str, request: &serde_json::Value) -> Result<serde_json::Value> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(READY_MAX))?;
        let body = if request.is_null() { String::new() } else { request.to_string() };
        let asked =
            format!("CONNECT {{}}\r\nSUB answers 1\r\nPUB {subject} answers {}\r\n{body}\r\n", body.len());
        (&socket).write_all(asked.as_bytes())?;
        let mut lines = BufReader::new(&socket);
        loop {
            let mut line = String::new();
            ensure!(lines.read_line(&mut line)? > 0, "NATS has closed the connection");
            ensure!(!line.starts_with("-ERR"), "{line}");
            if line.starts_with("MSG ") {
                let length = line.split_whitespace().next_back().context("MSG without a length")?.parse()?;
                let mut answer = vec![0; length];
                lines.read_exact(&mut answer)?;
                return Ok(serde_json::from_slice(&answer)?);
            }
        }
    }

    /// Ends it without asking. What it has on disk stays.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// After [`Nats::kill`]: forgets everything.
    ///
    /// # Errors
    /// From the system.
    pub fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.dir.path().join("jetstream"))?)
    }

    /// After [`Nats::kill`], on what is on disk.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(self.address, self.monitor, &self.dir, self.more)?;
        Ok(())
    }
}

/// Three servers that keep everything thrice.
pub struct NatsCluster {
    servers: Vec<Member>,
}

struct Member {
    name: String,
    /// `None` while it is killed.
    process: Option<Process>,
    clients: SocketAddr,
    route: SocketAddr,
    monitor: SocketAddr,
    dir: TempDir,
}

impl Member {
    fn config(&self) -> PathBuf {
        self.dir.path().join("nats.conf")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("jetstream")
    }

    fn start(&mut self) -> Result<()> {
        let mut command = Command::new(program()?);
        self.process = Some(Process::spawn(&self.name, command.arg("-c").arg(self.config()))?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().context("it is gone already")?.kill()
    }
}

impl NatsCluster {
    /// # Errors
    /// If they do not start, or do not find each other.
    pub fn start() -> Result<Self> {
        Self::at(Self::here(), plain, |_, start| start())
    }

    /// As an operator would, from a sample for the first of 10.0.0.1, 10.0.0.2 and 10.0.0.3.
    ///
    /// # Errors
    /// As [`NatsCluster::start`].
    pub fn start_as(sample: &str) -> Result<Self> {
        let config = |member: &Member, routes: &[SocketAddr; 3]| {
            let own = sample
                .replace("nats1", &member.name)
                .replace("0.0.0.0:4222", &member.clients.to_string())
                .replace("listen: \"10.0.0.1:6222\"", &format!("listen: \"{}\"", member.route))
                .replace("/var/lib/nats", &member.store().display().to_string());
            let with_routes = routes.iter().zip(1..).fold(own, |text, (route, number)| {
                text.replace(&format!("10.0.0.{number}:6222"), &route.to_string())
            });
            format!("http: \"{}\"\n{with_routes}", member.monitor)
        };
        Self::at(Self::here(), config, |_, start| start())
    }

    fn here() -> [[SocketAddr; 3]; 3] {
        [(); 3].map(|()| [(); 3].map(|()| ports::free()))
    }

    /// On hosts of their own.
    ///
    /// # Errors
    /// As [`NatsCluster::start`].
    pub fn start_on(hosts: &[Host; 3]) -> Result<Self> {
        let address = |host: &Host| [4222, 6222, 8222].map(|port| SocketAddr::from((host.address(), port)));
        Self::at(hosts.each_ref().map(address), plain, |number, start| hosts[number].within(start))
    }

    /// Each for clients, for the others, and for who watches over it.
    fn at(
        addresses: [[SocketAddr; 3]; 3],
        config: impl Fn(&Member, &[SocketAddr; 3]) -> String,
        within: impl Fn(usize, &mut (dyn FnMut() -> Result<()> + Send)) -> Result<()>,
    ) -> Result<Self> {
        let routes = addresses.map(|[_, route, _]| route);
        let mut servers = Vec::new();
        for (number, [clients, route, monitor]) in addresses.into_iter().enumerate() {
            let (name, dir) = (format!("n{number}"), TempDir::new()?);
            let mut member = Member { name, process: None, clients, route, monitor, dir };
            std::fs::write(member.config(), config(&member, &routes))?;
            within(number, &mut || member.start())?;
            servers.push(member);
        }
        let cluster = Self { servers };
        cluster.has_leader()?;
        Ok(cluster)
    }

    fn has_leader(&self) -> Result<()> {
        poll::until("the servers to have a leader", READY_MAX * 2, || {
            let told = self.jetstream(0);
            Ok(told.is_ok_and(|told| told["meta_cluster"]["leader"].is_string()).then_some(()))
        })
    }

    /// Of all, with commas between.
    #[must_use]
    pub fn urls(&self) -> String {
        let urls: Vec<_> = (0..self.servers.len()).map(|number| self.url(number)).collect();
        urls.join(", ")
    }

    /// Of one of them.
    #[must_use]
    pub fn url(&self, number: usize) -> String {
        format!("nats://{}", self.servers[number].clients)
    }

    /// Where one of them is for the others.
    #[must_use]
    pub fn route(&self, number: usize) -> SocketAddr {
        self.servers[number].route
    }

    /// How many are connected to one of them.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn clients(&self, number: usize) -> Result<u64> {
        let told = Http::new(self.servers[number].monitor).get_ok("/varz")?;
        let told: serde_json::Value = serde_json::from_slice(&told.body)?;
        told["connections"].as_u64().context("no connections in /varz")
    }

    /// SIGKILL for the server that decides what is written to `stream` (as JetStream calls it). Tells its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill_leader_of(&mut self, stream: &str) -> Result<String> {
        let server = self.leads(stream)?;
        let server = &mut self.servers[server];
        server.kill()?;
        Ok(server.name.clone())
    }

    /// Has the server that decides what is written to `stream` stand still, with its connections open.
    ///
    /// # Errors
    /// If there is none.
    pub fn freeze_leader_of(&mut self, stream: &str) -> Result<()> {
        let server = self.leads(stream)?;
        self.servers[server].process.as_ref().context("it is gone already")?.signal(Signal::STOP)
    }

    /// SIGKILL for all of them.
    ///
    /// # Errors
    /// If one is gone already, or the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Member::kill)
    }

    /// After [`NatsCluster::kill`]: all forget everything.
    ///
    /// # Errors
    /// From the system.
    pub fn empty(&self) -> Result<()> {
        self.servers.iter().try_for_each(|server| Ok(std::fs::remove_dir_all(server.store())?))
    }

    /// Those that were killed, on what is on disk.
    ///
    /// # Errors
    /// If they do not start, or do not find each other.
    pub fn start_again(&mut self) -> Result<()> {
        self.servers.iter_mut().filter(|server| server.process.is_none()).try_for_each(Member::start)?;
        self.has_leader()
    }

    /// Which of them decides what is written to `stream`, as [`NatsCluster::start_on`] was given their hosts.
    ///
    /// # Errors
    /// If there is none.
    pub fn leads(&self, stream: &str) -> Result<usize> {
        let leader = poll::until("a leader", READY_MAX, || Ok(self.leader_of(stream)))?;
        let number = self.servers.iter().position(|server| server.name == leader);
        number.context("no server has that name")
    }

    fn leader_of(&self, stream: &str) -> Option<String> {
        (0..self.servers.len()).find_map(|number| {
            let told = self.jetstream(number).ok()?;
            let accounts = told["account_details"].as_array()?;
            let mut streams =
                accounts.iter().flat_map(|account| account["stream_detail"].as_array()).flatten();
            let detail = streams.find(|detail| detail["name"] == stream)?;
            detail["cluster"]["leader"].as_str().map(str::to_owned)
        })
    }

    fn jetstream(&self, number: usize) -> Result<serde_json::Value> {
        let answer = Http::new(self.servers[number].monitor).get_ok("/jsz?accounts=true&streams=true")?;
        Ok(serde_json::from_slice(&answer.body)?)
    }
}

/// Without users, with `routes` to all three.
fn plain(member: &Member, routes: &[SocketAddr; 3]) -> String {
    let Member { name, clients, route, monitor, .. } = member;
    let urls = routes.map(|route| format!("nats://{route}")).join(", ");
    format!(
        "server_name: {name}\nlisten: \"{clients}\"\nhttp: \"{monitor}\"\njetstream {{ store_dir: {:?} }}\ncluster {{ name: test, \
         listen: \"{route}\", routes: [{urls}] }}\n",
        member.store(),
    )
}

/// What `NATS_SERVER` names, to try another version.
fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("NATS_SERVER") {
        return Ok(program.into());
    }
    let program = root().join("target/tools/nats/bin/nats-server");
    ensure!(program.is_file(), "{} is missing: scripts/setup.sh test installs it", program.display());
    Ok(program)
}

fn spawn(address: SocketAddr, monitor: SocketAddr, dir: &TempDir, more: &[&str]) -> Result<Process> {
    let mut command = Command::new(program()?);
    let [port, monitor] = [address, monitor].map(|address| address.port().to_string());
    command.args(["-a", &address.ip().to_string(), "-p", &port, "-m", &monitor, "-js", "-sd"]);
    let process = Process::spawn("nats-server", command.arg(dir.path()).args(more))?;
    process.wait_for("line that it is ready", READY_MAX, |line| {
        line.contains("Server is ready").then_some(())
    })?;
    Ok(process)
}
