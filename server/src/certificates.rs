//! The certificate that viewers and publishers see: where it comes from, and how it is kept from expiring.
//!
//!   files.rs        of the operator; looked at every few seconds, and at SIGHUP
//!   self_signed.rs  made here, kept in data_dir, made anew before its end
//!   acme.rs         from a certificate authority, kept in data_dir, ordered anew before its end
//!        └──▶ net::tls::Served, which every handshake asks
//!
//! Not the certificates of a cluster (`cluster.rs`), which only nodes see.

mod acme;
mod files;
mod kept;
mod renewal;
mod self_signed;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use edge::Trust;
use jiff::Timestamp;
use net::tls::{Certificate, Protocols, Served, Tls};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{CertificateSource, Config};
use acme::Acme;
use files::Files;
use self_signed::SelfSigned;

/// A certificate that ends within this time is told of when it is loaded.
const EXPIRY_NEAR: Duration = Duration::from_secs(14 * 24 * 3_600);

/// The certificate of this node, and what keeps it.
pub(crate) struct Certificates {
    served: Arc<Served>,
    source: Source,
    told: Told,
}

enum Source {
    Files(Files),
    SelfSigned(SelfSigned),
    Acme(Box<Acme>),
}

impl Certificates {
    /// What `config` names, loaded; `None` if there is to be no TLS. A certificate that is still to be ordered is no
    /// error: until it is there, handshakes fail, and the log says why.
    ///
    /// # Errors
    /// If there is one and it cannot be used.
    pub(crate) fn load(config: &Config, metrics: &mut Registry) -> anyhow::Result<Option<Self>> {
        let Some(source) = config.certificate_source() else { return Ok(None) };
        let told = Told::register(metrics);
        let (source, certificate) = match source {
            CertificateSource::Files { certificate, key } => {
                let (files, loaded) = Files::load(&certificate, key.as_deref())?;
                (Source::Files(files), Some(loaded))
            }
            CertificateSource::SelfSigned => {
                let (self_signed, loaded) = SelfSigned::load(&config.data_dir, SystemTime::now())?;
                (Source::SelfSigned(self_signed), Some(loaded))
            }
            CertificateSource::Acme(settings) => {
                let (acme, loaded) = Acme::load(&config.data_dir, &settings);
                (Source::Acme(Box::new(acme)), loaded)
            }
        };
        if let Some(certificate) = &certificate {
            told.loaded(certificate);
        }
        Ok(Some(Self { served: Arc::new(Served::new(certificate)), source, told }))
    }

    pub(crate) fn tls(&self, protocols: Protocols) -> anyhow::Result<Tls> {
        Tls::new(Arc::clone(&self.served), protocols).context("cannot set up TLS")
    }

    /// For the page that tells people what a self-signed certificate means; `None` if it is not one.
    pub(crate) fn trust(&self) -> Option<Trust> {
        matches!(self.source, Source::SelfSigned(_)).then(|| Trust::new(Arc::clone(&self.served)))
    }

    /// The host to write into addresses for people: the first that can be typed. `None` if the certificate is for
    /// whatever this machine is called.
    pub(crate) fn host(&self) -> Option<String> {
        match &self.source {
            Source::SelfSigned(_) => None,
            Source::Acme(acme) => acme.names().first().cloned(),
            Source::Files(_) => {
                let certificate = self.served.get()?;
                certificate.names().iter().find(|name| !name.starts_with("*.")).cloned()
            }
        }
    }

    /// Ordered for a name that leads here.
    pub(crate) fn is_of_domain(&self) -> bool {
        matches!(self.source, Source::Acme(_))
    }

    /// SHA-256 of a certificate that people must trust by themselves.
    pub(crate) fn fingerprint_to_compare(&self) -> Option<String> {
        let self_signed = matches!(self.source, Source::SelfSigned(_));
        self.served.get().filter(|_| self_signed).map(|certificate| certificate.fingerprint().to_owned())
    }

    /// Keeps the certificate from expiring until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { served, source, told } = self;
        let keeping = async {
            match source {
                Source::Files(files) => files.keep(&served, &told).await,
                Source::SelfSigned(self_signed) => self_signed.keep(&served, &told).await,
                Source::Acme(acme) => acme.keep(&served, &told).await,
            }
        };
        tokio::select! {
            () = keeping => {}
            () = stop.cancelled() => {}
        }
    }
}

/// What operators are told of certificates.
#[derive(Clone)]
struct Told {
    expiry: Gauge,
    loads: Family<Labels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

impl Told {
    fn register(registry: &mut Registry) -> Self {
        let told = Self { expiry: Gauge::default(), loads: Family::default() };
        let registry = registry.sub_registry_with_prefix("tls_certificate");
        registry.register_with_unit(
            "expiry",
            "When the certificate in use ends, since the Unix epoch; 0 while there is none",
            Unit::Seconds,
            told.expiry.clone(),
        );
        registry.register(
            "loads",
            "Certificates that were loaded or ordered, and those that could not be",
            told.loads.clone(),
        );
        told
    }

    /// `certificate` is in use from now on.
    fn loaded(&self, certificate: &Certificate) {
        let not_after = certificate.not_after();
        let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.expiry.set(seconds.try_into().unwrap_or(i64::MAX));
        self.loads.get_or_create(&Labels { result: "ok" }).inc();
        let (names, until) = (certificate.names().join(", "), day(not_after));
        let left = not_after.duration_since(SystemTime::now());
        match left {
            Err(_) => warn!("certificate for {names}: it EXPIRED on {until}, browsers refuse it"),
            Ok(left) if left < EXPIRY_NEAR => warn!("certificate for {names}: it ends soon, on {until}"),
            Ok(_) => info!("certificate for {names}, until {until}"),
        }
    }

    fn failed(&self) {
        self.loads.get_or_create(&Labels { result: "failed" }).inc();
    }
}

/// As people write it, in UTC.
pub(crate) fn day(at: SystemTime) -> String {
    Timestamp::try_from(at)
        .map_or_else(|_| "a day beyond all calendars".to_owned(), |at| at.strftime("%F").to_string())
}

/// For `tidecast tls check`: the certificate that a start would use, in words, and whether it is good now.
///
/// # Errors
/// In words, if it is not.
pub(crate) fn check(config: &Config) -> anyhow::Result<String> {
    let now = SystemTime::now();
    let (certificate, of) = match config.certificate_source() {
        None => anyhow::bail!(
            "no certificate is configured: set tls.certificate and tls.key, tls.self_signed, or acme.domain"
        ),
        Some(CertificateSource::Files { certificate, key }) => {
            (Files::load(&certificate, key.as_deref())?.1, certificate.display().to_string())
        }
        Some(CertificateSource::SelfSigned) => {
            let kept = SelfSigned::look(&config.data_dir)?;
            kept.context("there is none yet: tidecast makes it at its first start with tls.self_signed")?
        }
        Some(CertificateSource::Acme(settings)) => {
            let kept = Acme::look(&config.data_dir, &settings)?;
            kept.context("there is none yet: tidecast orders it when it runs with acme.domain")?
        }
    };
    anyhow::ensure!(
        certificate.not_after() > now,
        "{of}: the certificate for {} expired on {}",
        certificate.names().join(", "),
        day(certificate.not_after())
    );
    anyhow::ensure!(
        certificate.not_before() <= now,
        "{of}: the certificate is not valid before {}: is a clock wrong?",
        day(certificate.not_before())
    );
    let days = certificate.not_after().duration_since(now).unwrap_or_default().as_secs() / 86_400;
    Ok(format!(
        "file     {of}\nnames    {}\nuntil    {} ({days} days)\nSHA-256  {}\nthe key fits\n",
        certificate.names().join(", "),
        day(certificate.not_after()),
        certificate.fingerprint()
    ))
}

/// The folder in data_dir for what is made or ordered here.
fn kept_dir(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("tls")
}
