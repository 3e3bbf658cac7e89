//! Certificates for a server, and a viewer that shakes hands and says which one it was shown.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Above what a handshake may take on a machine that is busy with something else.
const HANDSHAKE_MAX: Duration = Duration::from_secs(20);

/// A certificate of its own for `localhost`, and its key.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl Pair {
    /// # Errors
    /// From the system, if it has no randomness.
    pub fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        Ok(Self {
            certificate: made.cert.der().clone(),
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        })
    }
}

/// The two files of a server.
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") }
    }

    /// One after the other, and in place, as the rudest of renewal scripts does.
    ///
    /// # Errors
    /// From the system.
    pub fn write(&self, pair: &Pair) -> Result<()> {
        fs::write(&self.certificate, &pair.certificate_pem)?;
        Ok(fs::write(&self.key, &pair.key_pem)?)
    }
}

/// Shakes hands with the server, trusting these certificates only, and returns the one that it showed.
///
/// # Errors
/// If the handshake fails.
pub fn handshake(server: SocketAddr, trusted: &[&Pair]) -> Result<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        roots.add(pair.certificate.clone())?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into()?)?;
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(HANDSHAKE_MAX))?;
    while client.is_handshaking() {
        client.complete_io(&mut socket)?;
    }
    let shown = client.peer_certificates().and_then(<[_]>::first).context("no certificate was shown")?;
    Ok(shown.clone().into_owned())
}

/// What curl says to a request: its answer's body, and the version of HTTP that it came by.
pub struct Curled {
    pub version: String,
    pub status: u16,
    pub body: Vec<u8>,
}

/// Asks for `https://localhost:{port}{path}`, offering HTTP/2, and trusting that file of certificates.
///
/// # Errors
/// If there is no complete answer, or the certificate is not trusted.
pub fn curl(server: SocketAddr, path: &str, authority: &Path, more: &[&str]) -> Result<Curled> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--http2", "--max-time", "30", "--cacert"]).arg(authority);
    command.args(["--resolve", &format!("localhost:{}:{}", server.port(), server.ip())]).args(more);
    command.args(["--write-out", "\n%{http_version} %{http_code}"]);
    let output = command.arg(format!("https://localhost:{}{path}", server.port())).output()?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    let end = output.stdout.iter().rposition(|byte| *byte == b'\n').context("curl said nothing")?;
    let told = String::from_utf8(output.stdout[end + 1..].to_vec())?;
    let (version, status) = told.split_once(' ').context("a version and a status")?;
    Ok(Curled { version: version.to_owned(), status: status.parse()?, body: output.stdout[..end].to_vec() })
}
