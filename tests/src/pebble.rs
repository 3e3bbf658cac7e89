//! A certificate authority of one's own: pebble, with which Let's Encrypt tests clients, and its DNS, in which every name
//! is this machine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::media::root;
use crate::poll;
use crate::ports;
use crate::process::Process;

const START_MAX: Duration = Duration::from_secs(20);

pub struct Pebble {
    _authority: Process,
    _names: Process,
    folder: TempDir,
    address: SocketAddr,
}

impl Pebble {
    /// One that looks for challenges at `server`, where in the world is port 443.
    ///
    /// # Errors
    /// If `scripts/setup.sh test` has not installed it.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let folder = TempDir::new()?;
        let [address, management, dns, dns_management] =
            [ports::free(), ports::free(), ports::free(), ports::free()];
        let mut names = Command::new(binary("pebble-challtestsrv")?);
        names.args(["-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]);
        names.args(["-dnsserver", &dns.to_string(), "-management", &dns_management.to_string()]);
        let names = Process::spawn("pebble-challtestsrv", &mut names)?;

        make_its_own_certificate(folder.path())?;
        let config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": folder.path().join("pebble.pem"),
            "privateKey": folder.path().join("pebble.key"),
            "httpPort": 9,
            "tlsPort": server.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": { "description": "", "validityPeriod": 7_776_000 } },
        } });
        let path = folder.path().join("pebble.json");
        fs::write(&path, config.to_string())?;
        let mut authority = Command::new(binary("pebble")?);
        authority.env("PEBBLE_VA_NOSLEEP", "1").arg("-config").arg(&path);
        authority.args(["-dnsserver", &dns.to_string()]);
        let authority = Process::spawn("pebble", &mut authority)?;
        poll::until("pebble listens", START_MAX, || {
            Ok(std::net::TcpStream::connect(address).is_ok().then_some(()))
        })?;
        Ok(Self { _authority: authority, _names: names, folder, address })
    }

    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.address.port())
    }

    /// The certificate to trust of the server of that directory; what it signs is another matter.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }
}

fn binary(name: &str) -> Result<PathBuf> {
    let path = root().join("target/tools/pebble").join(name);
    ensure!(path.is_file(), "{} is not there: run scripts/setup.sh test", path.display());
    Ok(path)
}

fn make_its_own_certificate(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority_key = KeyPair::generate()?;
    fs::write(folder.join("authority.pem"), authority.self_signed(&authority_key)?.pem())?;
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(authority, authority_key);
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    fs::write(folder.join("pebble.pem"), certificate.pem())?;
    Ok(fs::write(folder.join("pebble.key"), key.serialize_pem())?)
}
