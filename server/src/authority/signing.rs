//! The authority: its root and key, and while roots change those of before.

use anyhow::{Context, ensure};
use jiff::Timestamp;
use media::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, date_time_ymd,
};
use relay::CLUSTER_NAME;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::fingerprint;
use super::list::{SignedList, TrustList, hex};

/// The authority outlives the machines.
const AUTHORITY_DAYS: u32 = 20 * 365;
/// Certificates begin so long ago, as clocks differ.
const BEGINS_DAYS_AGO: i64 = 1;

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
    /// Its certificate and its key.
    old: Option<(String, KeyPair)>,
    /// The root, certified by the old one.
    cross: Option<String>,
}

impl Authority {
    pub(super) fn make() -> anyhow::Result<Self> {
        let (params, key) = (root_params("Tidecast cluster")?, new_key()?);
        let root = params.self_signed(&key).context("cannot sign the authority")?.pem();
        Ok(Self { issuer: Issuer::new(params, key), root, old: None, cross: None })
    }

    /// From its files: its key, the roots of the cluster, and of a change of roots the old key and the cross certificate.
    pub(super) fn read(
        key: &str,
        roots: &[String],
        old_key: Option<&str>,
        cross: Option<String>,
    ) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(key).context("ca.key holds no key")?;
        let of = |key: &KeyPair| roots.iter().find(|root| is_of(root, key)).cloned();
        let root = of(&key).context(
            "ca.key is of none of the roots in ca.pem; if ca.old.key is, a change of roots was broken off: give it the name \
             ca.key, and begin again",
        )?;
        let old = old_key.map(KeyPair::from_pem).transpose().context("ca.old.key holds no key")?;
        let old = old.and_then(|key| Some((of(&key)?, key)));
        let issuer = Issuer::from_ca_cert_pem(&root, key).context("ca.pem holds no authority")?;
        Ok(Self { issuer, root, old, cross })
    }

    /// One that takes over from this one.
    pub(super) fn successor(&self) -> anyhow::Result<Self> {
        let (params, key) = (root_params(&format!("Tidecast cluster {}", Timestamp::now()))?, new_key()?);
        let root = params.self_signed(&key).context("cannot sign the authority")?.pem();
        let cross = params.signed_by(&key, &self.issuer).context("cannot sign the new authority")?.pem();
        let old_key = KeyPair::from_pem(&self.key_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            root,
            old: Some((self.root.clone(), old_key)),
            cross: Some(cross),
        })
    }

    pub(super) fn root_pem(&self) -> &str {
        &self.root
    }

    /// What tells it from others in few characters: the beginning of its fingerprint.
    pub(super) fn root_name(&self) -> anyhow::Result<String> {
        let root = CertificateDer::from_pem_slice(self.root.as_bytes())?;
        Ok(hex(&fingerprint(&root)[..8]))
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub(super) fn cross(&self) -> Option<&str> {
        self.cross.as_deref()
    }

    /// A certificate in PEM, and what leads from it to the old root.
    pub(super) fn sign(&self, name: &NodeId, key: &impl PublicKeyData, days: u32) -> anyhow::Result<String> {
        let mut params = CertificateParams::new(vec![name.to_string(), CLUSTER_NAME.to_owned()])?;
        params.distinguished_name = common_name(name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, days);
        let certificate = params.signed_by(key, &self.issuer).context("cannot sign a certificate")?;
        Ok(format!("{}{}", certificate.pem(), self.cross.as_deref().unwrap_or_default()))
    }

    pub(super) fn first_list(&self) -> anyhow::Result<SignedList> {
        let roots = std::iter::once(&self.root).chain(self.old.iter().map(|(root, _)| root));
        let roots = roots.cloned().collect();
        self.sign_list(TrustList { number: 1, roots, revoked: Default::default(), authority: None })
    }

    pub(super) fn sign_list(&self, list: TrustList) -> anyhow::Result<SignedList> {
        let own = (self.root.as_str(), self.issuer.key());
        let keys: Vec<_> =
            std::iter::once(own).chain(self.old.iter().map(|(root, key)| (root.as_str(), key))).collect();
        let signed = SignedList::sign(list, &keys)?;
        ensure!(!signed.list.roots.is_empty(), "a list of trust has a root");
        Ok(signed)
    }
}

/// Whether a root (PEM) is of this key: its certificate holds the public one (RFC 5280, §4.1.2.7).
fn is_of(root: &str, key: &KeyPair) -> bool {
    let public = key.subject_public_key_info();
    CertificateDer::from_pem_slice(root.as_bytes())
        .is_ok_and(|root| root.windows(public.len()).any(|window| window == public))
}

/// Whether the first of `roots` has made the first of `chain` (PEM), and it is good now.
pub(super) fn certified_by(chain: &str, roots: &str) -> bool {
    let first = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    let (Some(own), Some(root)) = (first(chain), first(roots)) else { return false };
    let (Ok(own), Ok(anchor)) = (EndEntityCert::try_from(&own), anchor_from_trusted_cert(&root)) else {
        return false;
    };
    let algorithms = default_provider().signature_verification_algorithms.all;
    own.verify_for_usage(algorithms, &[anchor], &[], UnixTime::now(), KeyUsage::server_auth(), None, None)
        .is_ok()
}

fn root_params(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_DAYS);
    Ok(params)
}

pub(crate) fn new_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    const DAY_S: i64 = 24 * 3_600;
    let at = |unix_s: i64| {
        date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(u64::try_from(unix_s).unwrap_or(0))
    };
    let now_s = Timestamp::now().as_second();
    params.not_before = at(now_s - BEGINS_DAYS_AGO * DAY_S);
    params.not_after = at(now_s + i64::from(days) * DAY_S);
}
