//! A certificate without an authority, for a network of one's own. It can vouch for this server and nothing else.
//!
//! Whoever trusts it does so by hand, so it is kept, and stays the same for as long as Apple's devices allow.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use net::tls::{Certificate, Served};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use tokio::time::sleep;
use tracing::warn;

use super::Told;
use super::kept::Kept;

/// Apple's devices refuse whatever is valid for more than 825 days (support.apple.com/103769).
const DAYS: i64 = 820;
/// Before its end it is made anew. Long, since people have to be told.
const RENEWED_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How often is looked whether it is time.
const LOOK_INTERVAL: Duration = Duration::from_secs(3_600);
/// A machine with more addresses is no laptop.
const ADDRESSES_MAX: usize = 32;

const FILE: &str = "self-signed.pem";

pub(super) struct SelfSigned {
    kept: Kept,
}

impl SelfSigned {
    /// The kept certificate, else a new one.
    ///
    /// # Errors
    /// If what is kept cannot be used, or nothing can be made.
    pub(super) fn load(data_dir: &Path, now: SystemTime) -> anyhow::Result<(Self, Certificate)> {
        let kept = Kept::new(data_dir, FILE);
        let names = names_of_this_machine();
        let certificate = match kept.read()? {
            Some(certificate) if !is_due(&certificate, now) => {
                tell_unnamed(&certificate, &names, kept.path());
                certificate
            }
            _ => make(&kept, &names, now)?,
        };
        Ok((Self { kept }, certificate))
    }

    /// What is kept and where, without making anything.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(super) fn look(data_dir: &Path) -> anyhow::Result<Option<(Certificate, String)>> {
        let kept = Kept::new(data_dir, FILE);
        Ok(kept.read()?.map(|certificate| (certificate, kept.path().display().to_string())))
    }

    pub(super) async fn keep(self, served: &Served, told: &Told) {
        loop {
            sleep(LOOK_INTERVAL).await;
            let now = SystemTime::now();
            if served.get().is_some_and(|certificate| !is_due(&certificate, now)) {
                continue;
            }
            match make(&self.kept, &names_of_this_machine(), now) {
                Ok(certificate) => {
                    warn!(
                        "made a new self-signed certificate in time before the old one ends; whoever trusted that one is \
                         asked again. SHA-256 {}",
                        certificate.fingerprint()
                    );
                    told.loaded(&certificate);
                    served.set(certificate);
                }
                Err(error) => {
                    told.failed();
                    warn!("cannot make a new self-signed certificate: {error:#}");
                }
            }
        }
    }
}

fn is_due(certificate: &Certificate, now: SystemTime) -> bool {
    certificate.not_after() < now + RENEWED_BEFORE
}

/// A changed address is no reason to make everybody trust anew; whoever uses that address should know, though.
fn tell_unnamed(certificate: &Certificate, names: &[String], path: &Path) {
    let unnamed: Vec<_> = names.iter().filter(|name| !certificate.names().contains(name)).cloned().collect();
    if !unnamed.is_empty() {
        warn!(
            "the self-signed certificate does not name {}: browsers refuse it there. Delete {} for a new one, which \
             has to be trusted anew",
            unnamed.join(", "),
            path.display()
        );
    }
}

fn make(kept: &Kept, names: &[String], now: SystemTime) -> anyhow::Result<Certificate> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")?;
    let certificate = params(names, now)?.self_signed(&key).context("cannot sign a certificate")?;
    kept.write(&certificate.pem(), &key.serialize_pem())
}

fn params(names: &[String], now: SystemTime) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    let host = names.first().map_or("localhost", String::as_str);
    params.distinguished_name.push(DnType::CommonName, format!("Tidecast on {host}"));
    // No authority: whoever trusts it trusts this server, and nothing that it could sign.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = Timestamp::try_from(now).context("the clock is beyond all calendars")?;
    let today = today.to_zoned(TimeZone::UTC).date();
    let day = |date: Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    // From yesterday, as clocks differ.
    params.not_before = day(today.checked_sub(1.day())?);
    params.not_after = day(today.checked_add((DAYS - 1).days())?);
    Ok(params)
}

/// Its host name, as the network knows it and with `.local`; "localhost"; every address but those of one link.
fn names_of_this_machine() -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let is_name = |name: &String| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed)
    };
    let local = (!host.contains('.')).then(|| format!("{host}.local"));
    let mut names: Vec<_> = [Some(host), local].into_iter().flatten().filter(is_name).collect();
    names.retain(|name| !name.starts_with("localhost"));
    names.push("localhost".to_owned());
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<_> =
        interfaces.iter().map(if_addrs::Interface::ip).filter(|ip| !is_of_one_link(*ip)).collect();
    // In an order of their own, since interfaces come and go.
    addresses.sort_unstable();
    addresses.dedup();
    names.extend(addresses.into_iter().take(ADDRESSES_MAX).map(|ip| ip.to_string()));
    names
}

/// Nobody types these: an IPv6 one needs the interface beside it, an IPv4 one changes with every start.
fn is_of_one_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    #[test]
    fn it_is_the_same_after_a_restart_and_another_before_its_end() {
        let home = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let at = |days: u32| SelfSigned::load(home.path(), now + DAY * days).unwrap().1;
        let first = at(0);
        assert_eq!(at(0).fingerprint(), first.fingerprint());
        assert_eq!(at(780).fingerprint(), first.fingerprint());
        let second = at(800);
        assert_ne!(second.fingerprint(), first.fingerprint());
        assert!(second.not_after() > now + 1_600 * DAY);
        assert!(first.not_after().duration_since(first.not_before()).unwrap() <= 825 * DAY);
    }

    #[test]
    fn it_names_this_machine_however_it_is_reached() {
        let home = tempfile::tempdir().unwrap();
        let (_, certificate) = SelfSigned::load(home.path(), SystemTime::now()).unwrap();
        for name in ["localhost", "127.0.0.1"] {
            assert!(certificate.names().iter().any(|other| other == name), "{certificate:?}");
        }
        assert!(!certificate.names().iter().any(|name| name.starts_with("fe80:")), "{certificate:?}");
    }

    /// Threat: a key that others may read; and a certificate that could vouch for other servers.
    #[test]
    fn the_key_is_private_and_the_certificate_is_no_authority() {
        use std::os::unix::fs::PermissionsExt;

        let home = tempfile::tempdir().unwrap();
        let (made, _) = SelfSigned::load(home.path(), SystemTime::now()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(made.kept.path()), mode(&home.path().join("tls"))), (0o600, 0o700));
        let params = params(&["localhost".to_owned()], SystemTime::now()).unwrap();
        assert_eq!(params.is_ca, IsCa::ExplicitNoCa);
    }

    #[test]
    fn a_broken_file_is_not_replaced_in_silence() {
        let home = tempfile::tempdir().unwrap();
        let (made, _) = SelfSigned::load(home.path(), SystemTime::now()).unwrap();
        std::fs::write(made.kept.path(), "-----BEGIN").unwrap();
        let error = format!("{:#}", SelfSigned::load(home.path(), SystemTime::now()).err().unwrap());
        assert!(error.contains("self-signed.pem cannot be used"), "{error}");
    }
}
