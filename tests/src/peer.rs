//! Whoever knocks at the relay of a node, with papers or without, and as rude as it is told to be.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Beside its own name each node has this one.
const CLUSTER_NAME: &str = "node.tidecast.internal";
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A certificate and its key, in PEM.
pub struct Papers {
    certificate: String,
    key: String,
}

impl Papers {
    /// What the authority whose files are in `folder` would never sign: `node`, until the beginning of `last_year`.
    ///
    /// # Errors
    /// If there is no authority.
    pub fn forged_at(folder: &Path, node: &str, last_year: i32) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?;
        let mut params = CertificateParams::new(vec![node.to_owned(), CLUSTER_NAME.to_owned()])?;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// An open connection.
pub struct Peer {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// Of playlists and parts.
    format: u32,
}

impl Peer {
    /// Knocks at a relay, which is known by the roots in `folder`.
    ///
    /// # Errors
    /// From the system. Whether it is let in is only known when something is read.
    pub fn knock(relay: SocketAddr, folder: &Path, papers: Option<&Papers>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(folder.join("ca.pem"))? {
            roots.add(root?)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match papers {
            None => config.with_no_client_auth(),
            Some(Papers { certificate, key }) => config.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?,
        };
        let socket = TcpStream::connect(relay)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        let client = ClientConnection::new(Arc::new(config), CLUSTER_NAME.try_into()?)?;
        Ok(Self { stream: StreamOwned::new(client, socket), format: 0 })
    }

    /// The format that the node makes playlists and parts of: it says so to who knows another.
    ///
    /// # Errors
    /// If it does not.
    pub fn format(mut self) -> Result<u32> {
        let told = self.ask("/x/1/state", "1", "peer")?;
        let number = told.split_once("makes parts of format ").and_then(|(_, rest)| rest.split(',').next());
        number.context("no word of a format")?.parse().context("a number")
    }

    #[must_use]
    pub fn with_format(self, format: u32) -> Self {
        Self { format, ..self }
    }

    /// Asks for a path with these versions of the wire and these hops; the first bytes of the answer, empty if there is none.
    ///
    /// # Errors
    /// If nothing happens for too long.
    pub fn ask(&mut self, path: &str, versions: &str, hops: &str) -> Result<String> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: relay\r\ntidecast-wire: {versions}\r\ntidecast-format: {}\r\ntidecast-hops: {hops}\r\n\r\n",
            self.format
        );
        let mut answer = vec![0; 4_096];
        let read = self.stream.write_all(request.as_bytes()).and_then(|()| self.stream.read(&mut answer));
        match read {
            Ok(bytes) => answer.truncate(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error.into()),
            // Refused by an alert, or closed.
            Err(_) => answer.clear(),
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
