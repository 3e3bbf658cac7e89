//! Hosts of their own for the nodes of a scenario, joined by a router that can drop what goes between them: nobody is told, as when a
//! cable is cut somewhere on the way.
//!
//! ```text
//! router: the scenario's thread, publishers, viewers ─┬─ veth ─ host, in a network namespace of its own
//!                                                     └─ veth ─ host
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result};

use crate::namespace::{Namespace, run};

/// Leads from host to host. Its addresses are nobody else's: it is a namespace, too.
pub struct Router {
    hosts: u8,
}

pub struct Host {
    namespace: Namespace,
    address: Ipv4Addr,
}

/// Of what is dropped; ends with [`Cut::mend`].
#[must_use = "it has to be mended"]
pub struct Cut {
    /// Selectors of `ip rule`.
    dropped: Vec<Vec<String>>,
}

impl Router {
    /// Goes through a scenario, at a router of its own. All that the scenario starts is there, too.
    ///
    /// # Errors
    /// If we may not make one, or the system lacks `ip`, `unshare` or `nsenter`; and those of the scenario.
    pub fn with(scenario: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        let namespace = Namespace::new()?;
        namespace.within(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("a namespace that routes")?;
            scenario(&mut Self { hosts: 0 })
        })
    }

    /// # Errors
    /// From the system.
    pub fn host(&mut self) -> Result<Host> {
        self.hosts = self.hosts.checked_add(1).context("too many hosts")?;
        let namespace = Namespace::new()?;
        let [here, address] = [1, 2].map(|end| Ipv4Addr::new(10, 0, self.hosts, end));
        let name = format!("host{}", self.hosts);
        ip(&["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &namespace.id()])?;
        ip(&["addr", "add", &format!("{here}/30"), "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        namespace.within(|| {
            ip(&["addr", "add", &format!("{address}/30"), "dev", "eth0"])?;
            ip(&["link", "set", "eth0", "up"])?;
            ip(&["route", "add", "default", "via", &here.to_string()])
        })?;
        Ok(Host { namespace, address })
    }

    /// Nothing gets from one to the other any more.
    ///
    /// # Errors
    /// From the system.
    pub fn cut(&self, one: &Host, other: &Host) -> Result<Cut> {
        self.split([one], [other])
    }

    /// Nothing gets from these to those any more.
    ///
    /// # Errors
    /// From the system.
    pub fn split<'a>(
        &self,
        these: impl IntoIterator<Item = &'a Host>,
        those: impl IntoIterator<Item = &'a Host> + Clone,
    ) -> Result<Cut> {
        let pairs = these.into_iter().flat_map(|one| {
            those.clone().into_iter().map(move |other| [one, other].map(|host| host.address.to_string()))
        });
        let pairs: Vec<_> = pairs.collect();
        let dropped = pairs.iter().flat_map(|[one, other]| {
            [["from", one.as_str(), "to", other.as_str()], ["from", other.as_str(), "to", one.as_str()]]
        });
        let dropped: Vec<_> = dropped.collect();
        let dropped: Vec<&[&str]> = dropped.iter().map(<[_; 4]>::as_slice).collect();
        Cut::new(&dropped)
    }

    /// Nothing gets from it to anybody any more, nor to it: the router itself may hear it, and cannot answer.
    ///
    /// # Errors
    /// From the system.
    pub fn cut_off(&self, host: &Host) -> Result<Cut> {
        let host = host.address.to_string();
        Cut::new(&[&["from", &host], &["to", &host]])
    }
}

impl Host {
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// What `act` does and starts is on this host.
    ///
    /// # Errors
    /// Those of `act`.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.within(act)
    }
}

impl Cut {
    /// A packet that is forwarded to a black hole vanishes (ip-rule(8)).
    fn new(dropped: &[&[&str]]) -> Result<Self> {
        let dropped = dropped.iter().map(|words| words.iter().map(|&word| word.to_owned()).collect());
        let cut = Self { dropped: dropped.collect() };
        cut.dropped.iter().try_for_each(|dropped| rule("add", dropped))?;
        Ok(cut)
    }

    /// # Errors
    /// From the system.
    pub fn mend(self) -> Result<()> {
        self.dropped.iter().try_for_each(|dropped| rule("del", dropped))
    }
}

fn rule(verb: &str, dropped: &[String]) -> Result<()> {
    run(Command::new("ip").args(["rule", verb]).args(dropped).arg("blackhole"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments))
}
