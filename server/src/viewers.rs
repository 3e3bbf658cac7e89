//! The listeners of viewers: plain, and encrypted once there is a certificate.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Context;
use edge::{Listener, Metrics, Site};
use net::Places;
use net::tls::Protocols;
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;
use crate::config::Config;
use crate::listen::{Handed, host_in_url};

/// Bound, and not running.
pub(crate) struct Viewers {
    plain: Listener,
    encrypted: Option<Listener>,
}

impl Viewers {
    /// Both serve the same `site`, as far as it does not depend on which of them was asked; and share their `places`.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub(crate) fn bind(
        config: &Config,
        certificates: Option<&Certificates>,
        handed: &mut Handed,
        site: impl Fn() -> Site,
        places: Places,
        metrics: Metrics,
    ) -> anyhow::Result<Self> {
        let plain = handed.listen("http", config.http.listen, edge::SOCKET)?;
        let Some(certificates) = certificates else {
            return Ok(Self { plain: Listener::new(plain, site(), places, metrics), encrypted: None });
        };
        let encrypted = handed.listen("https", config.https.listen, edge::SOCKET)?;
        let port = public_port(certificates, encrypted.local_addr().context("https.listen")?);
        let site = || match certificates.trust() {
            Some(trust) => site().with_trust(trust),
            None => site(),
        };
        let tls = certificates.tls(Protocols::Http)?;
        let at_plain = if config.http.redirect { site().with_redirect(port) } else { site() };
        Ok(Self {
            encrypted: Some(Listener::encrypted(encrypted, tls, site(), places.clone(), metrics.clone())),
            plain: Listener::new(plain, at_plain, places, metrics),
        })
    }

    pub(crate) fn plain_addr(&self) -> anyhow::Result<SocketAddr> {
        self.plain.local_addr().context("http.listen")
    }

    pub(crate) fn encrypted_addr(&self) -> anyhow::Result<Option<SocketAddr>> {
        self.encrypted.as_ref().map(Listener::local_addr).transpose().context("https.listen")
    }

    /// Runs until `drain`, then finishes what is open.
    pub(crate) async fn run(self, drain: CancellationToken) {
        let encrypted = async {
            if let Some(listener) = self.encrypted {
                listener.run(drain.clone()).await;
            }
        };
        tokio::join!(self.plain.run(drain.clone()), encrypted);
    }
}

/// An authority comes to port 443, so that port leads here, whatever this machine calls it.
fn public_port(certificates: &Certificates, bound: SocketAddr) -> u16 {
    if certificates.is_of_domain() { 443 } else { bound.port() }
}

/// Where viewers come in over TLS, as it is told to people.
pub(crate) struct Encrypted {
    pub(crate) addr: SocketAddr,
    port: u16,
    host: String,
    /// SHA-256 of a certificate that nobody trusts who was not told to.
    pub(crate) self_signed: Option<String>,
}

impl Encrypted {
    pub(crate) fn new(certificates: &Certificates, addr: SocketAddr) -> Self {
        // Of a self-signed certificate any name is as good as the other.
        let host = certificates.host().map_or_else(|| host_in_url(addr), |name| bracketed(&name));
        let self_signed = certificates.fingerprint_to_compare();
        Self { addr, port: public_port(certificates, addr), host, self_signed }
    }

    /// Before the path of a page.
    pub(crate) fn origin(&self) -> String {
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        format!("https://{}{port}", self.host)
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

/// RFC 3986, §3.2.2.
fn bracketed(name: &str) -> String {
    if name.parse::<Ipv6Addr>().is_ok() { format!("[{name}]") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_people_can_be_opened() {
        let https = |host: &str, port| Encrypted {
            addr: SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            port,
            host: bracketed(host),
            self_signed: None,
        };
        assert_eq!(https("live.example", 443).origin(), "https://live.example");
        assert_eq!(https("live.example", 8443).origin(), "https://live.example:8443");
        assert_eq!(https("2001:db8::1", 8443).origin(), "https://[2001:db8::1]:8443");
    }
}
