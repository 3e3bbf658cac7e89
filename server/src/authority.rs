//! The certificates of a cluster, as files that an operator makes and carries.
//!
//! ```text
//!   cluster init    ─▶ ca.pem ca.key  node.pem node.key     on the machine that lets nodes in
//!   cluster invite  ─▶ a bundle: certificate, key, ca.pem   on that machine, for another
//!   cluster join    ─▶ ca.pem  node.pem node.key            on the other
//! ```
//!
//! Invariant: a file that holds a key can be read by its own user only.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use media::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use relay::{CLUSTER_NAME, Identity};

use crate::files::{PRIVATE, PUBLIC, make_private_dir, write_whole};

const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "node.pem";
const KEY: &str = "node.key";

/// The authority outlives the machines.
const AUTHORITY_YEARS: i64 = 20;
/// A node's certificate. When it has expired, peers refuse the node in words, and another bundle mends it.
const CERTIFICATE_YEARS: i64 = 5;

/// The folder of the files.
pub(crate) struct ClusterFiles {
    dir: PathBuf,
}

impl ClusterFiles {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who this node is; `None` if it is in no cluster.
    ///
    /// # Errors
    /// If the files are there and cannot be used.
    pub(crate) fn identity(&self) -> anyhow::Result<Option<Identity>> {
        if !self.path(CERTIFICATE).exists() {
            return Ok(None);
        }
        let read = |name| {
            let path = self.path(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let identity = Identity::from_pem(&read(AUTHORITY)?, &read(CERTIFICATE)?, &read(KEY)?);
        identity
            .map(Some)
            .with_context(|| format!("the certificates in {} cannot be used", self.dir.display()))
    }

    /// Makes an authority, and this node's certificate.
    ///
    /// # Errors
    /// If the node is in a cluster already: everything it was trusted by would be lost.
    pub(crate) fn init(&self, name: &NodeId) -> anyhow::Result<()> {
        self.refuse_if_member()?;
        let key = new_key()?;
        let certificate = authority_params()?.self_signed(&key).context("cannot sign the authority")?;
        let authority = Authority { issuer: Issuer::new(authority_params()?, key), pem: certificate.pem() };
        let node = authority.sign(name)?;
        self.make_dir()?;
        self.write(AUTHORITY_KEY, PRIVATE, &authority.issuer.key().serialize_pem())?;
        self.write_node(&node, &authority.pem)
    }

    /// A bundle that lets `name` join.
    ///
    /// # Errors
    /// If the cluster was not made here.
    pub(crate) fn invite(&self, name: &NodeId) -> anyhow::Result<String> {
        let authority = self.authority()?;
        let node = authority.sign(name)?;
        Ok(format!("{}{}{}", node.certificate, node.key, authority.pem))
    }

    /// Takes a bundle's files, and returns the name that this node has by it.
    ///
    /// # Errors
    /// If the bundle is none, or this node is in a cluster already.
    pub(crate) fn join(&self, bundle: &str) -> anyhow::Result<NodeId> {
        let blocks = pem_blocks(bundle);
        let [certificate, key, authority] = blocks.as_slice() else {
            bail!(
                "the bundle is not what `tidecast cluster invite` prints: a certificate, a key, a certificate"
            );
        };
        let identity = Identity::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes())
            .context("the bundle cannot be used")?;
        // A bundle of the same cluster renews a certificate; one of another would take the node out of its own.
        let known = fs::read_to_string(self.path(AUTHORITY)).ok();
        if known.is_none_or(|known| known.trim() != authority.trim()) {
            self.refuse_if_member()?;
        }
        self.make_dir()?;
        self.write_node(&Node { certificate: certificate.clone(), key: key.clone() }, authority)?;
        Ok(identity.node().clone())
    }

    fn authority(&self) -> anyhow::Result<Authority> {
        let read = |name| {
            let path = self.path(name);
            fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}: nodes are invited where the cluster was made, with `tidecast cluster init`",
                    path.display()
                )
            })
        };
        let key = KeyPair::from_pem(&read(AUTHORITY_KEY)?).context("ca.key holds no key")?;
        Ok(Authority { pem: read(AUTHORITY)?, issuer: Issuer::new(authority_params()?, key) })
    }

    fn refuse_if_member(&self) -> anyhow::Result<()> {
        let path = self.path(CERTIFICATE);
        ensure!(
            !path.exists(),
            "this node is in a cluster already ({}): move the folder away if it shall leave it",
            path.display()
        );
        Ok(())
    }

    fn make_dir(&self) -> anyhow::Result<()> {
        let made = make_private_dir(&self.dir);
        made.with_context(|| format!("cannot make {}: set cluster.dir or data_dir", self.dir.display()))
    }

    /// The certificate last: without it the node is in no cluster.
    fn write_node(&self, node: &Node, authority: &str) -> anyhow::Result<()> {
        self.write(AUTHORITY, PUBLIC, authority)?;
        self.write(KEY, PRIVATE, &node.key)?;
        self.write(CERTIFICATE, PUBLIC, &node.certificate)
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        write_whole(&path, mode, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// PEM texts.
struct Node {
    certificate: String,
    key: String,
}

impl Authority {
    fn sign(&self, name: &NodeId) -> anyhow::Result<Node> {
        let mut params = CertificateParams::new(vec![name.to_string(), CLUSTER_NAME.to_owned()])?;
        params.distinguished_name = common_name(name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, CERTIFICATE_YEARS)?;
        let key = new_key()?;
        let certificate = params.signed_by(&key, &self.issuer).context("cannot sign a certificate")?;
        Ok(Node { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// The same at every call, so that the authority need not be read back from its certificate.
fn authority_params() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = common_name("Tidecast cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, AUTHORITY_YEARS)?;
    Ok(params)
}

fn new_key() -> anyhow::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From yesterday, as clocks differ.
fn set_validity(params: &mut CertificateParams, years: i64) -> anyhow::Result<()> {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    params.not_before = day(today.checked_sub(1.day())?);
    params.not_after = day(today.checked_add(years.years())?);
    Ok(())
}

/// Each block of a PEM text, with its lines of begin and end.
fn pem_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            block = Some(String::new());
        }
        if let Some(block) = &mut block {
            block.push_str(line.trim_end());
            block.push('\n');
        }
        if line.starts_with("-----END ") {
            blocks.extend(block.take());
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn files(home: &tempfile::TempDir, dir: &str) -> ClusterFiles {
        ClusterFiles::new(home.path().join(dir))
    }

    #[test]
    fn a_node_joins_with_a_bundle_and_is_who_it_was_invited_as() {
        let home = tempfile::tempdir().unwrap();
        let (origin, edge) = (files(&home, "origin"), files(&home, "edge"));
        assert!(origin.identity().unwrap().is_none());
        origin.init(&name("origin")).unwrap();
        assert_eq!(origin.identity().unwrap().unwrap().node(), &name("origin"));

        let bundle = origin.invite(&name("edge1")).unwrap();
        assert_eq!(edge.join(&bundle).unwrap(), name("edge1"));
        assert_eq!(edge.identity().unwrap().unwrap().node(), &name("edge1"));
        assert!(edge.invite(&name("edge2")).unwrap_err().to_string().contains("where the cluster was made"));
        // Renewed before it expires.
        assert_eq!(edge.join(&origin.invite(&name("edge1")).unwrap()).unwrap(), name("edge1"));
    }

    #[test]
    fn keys_are_private() {
        let home = tempfile::tempdir().unwrap();
        let origin = files(&home, "origin");
        origin.init(&name("origin")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(origin.dir()), 0o700);
        for key in [AUTHORITY_KEY, KEY] {
            assert_eq!(mode(&origin.path(key)), 0o600, "{key}");
        }
        assert_eq!(fs::read_dir(origin.dir()).unwrap().count(), 4, "nothing unfinished stays");
    }

    #[test]
    fn a_member_is_not_made_one_of_another_cluster_by_mistake() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (files(&home, "one"), files(&home, "other"));
        one.init(&name("origin")).unwrap();
        other.init(&name("origin")).unwrap();
        for refused in [one.init(&name("origin")), one.join(&other.invite(&name("edge1")).unwrap()).map(drop)]
        {
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("in a cluster already"), "{told}");
        }
        assert_eq!(one.identity().unwrap().unwrap().node(), &name("origin"));
    }

    #[test]
    fn what_is_no_bundle_is_refused_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (origin, edge) = (files(&home, "origin"), files(&home, "edge"));
        origin.init(&name("origin")).unwrap();
        let bundle = origin.invite(&name("edge1")).unwrap();
        let swapped: Vec<_> = pem_blocks(&bundle).into_iter().rev().collect();
        let stranger = files(&home, "stranger");
        stranger.init(&name("origin")).unwrap();
        let foreign =
            [&pem_blocks(&bundle)[..2], &pem_blocks(&stranger.invite(&name("x")).unwrap())[2..]].concat();
        for wrong in
            ["", "-----BEGIN KEY-----", &bundle[..bundle.len() / 2], &swapped.concat(), &foreign.concat()]
        {
            assert!(edge.join(wrong).is_err(), "{wrong}");
            assert!(!edge.dir().exists());
        }
    }
}
