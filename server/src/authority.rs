//! The certificates of a cluster, as files, and the commands on them.
//!
//! ```text
//!   cluster init    ─▶ ca.pem ca.key trust.json  node.pem node.key     on the machine that lets nodes in
//!   cluster token   ─▶ a line for another machine (token.rs)           on that machine
//!   cluster join    ─▶ ca.pem trust.json  node.pem node.key            on the other; its key never leaves it
//!   cluster invite  ─▶ a bundle: certificate, key, ca.pem              for a machine that cannot reach the authority
//!   cluster revoke, cluster rotate ─▶ another trust.json (list.rs)
//! ```
//!
//! While roots change (`cluster rotate`) `ca.pem` has two, the one that signs first; `ca.old.key` is the other's, and
//! `ca.cross.pem` the new one certified by the old, so that whoever knows but the old one trusts what the new one signs
//! (RFC 4210, §4.4).
//!
//! Invariant: a file that holds a key can be read by its own user only.

mod list;
mod signing;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use media::NodeId;
use net::tls::Certificate;
use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PublicKeyData};
use relay::{Fingerprint, Identity, IdentityError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::files::{PRIVATE, PUBLIC, make_private_dir, write_whole};

pub(crate) use list::{LIST_BYTES_MAX, SignedList, TrustList, hex, unhex};
pub(crate) use signing::new_key;
use signing::{Authority, certified_by};
use token::{Shown, Tokens};
pub(crate) use token::{TOKEN_PREFIX, Token, TokenError, Waiting};

const AUTHORITY: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
const OLD_KEY: &str = "ca.old.key";
const CROSS: &str = "ca.cross.pem";
const CERTIFICATE: &str = "node.pem";
const KEY: &str = "node.key";
const TRUST: &str = "trust.json";
/// Names that have had a certificate, one a line, each with the beginning of the fingerprint of the root that signed its last.
const ISSUED: &str = "issued";
const LOCK: &str = "lock";
const TOKENS: &str = "tokens";

/// A certificate that its node renews itself.
const RENEWED_DAYS: u32 = 90;
/// One in a bundle, for who may never reach the authority.
pub(crate) const BUNDLED_DAYS: u32 = 5 * 365;

/// What a new machine sends.
#[derive(Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    #[serde(flatten)]
    shown: Shown,
    /// What it would be called, if the token does not say.
    node: Option<String>,
    /// A certificate request (PKCS #10) in PEM.
    request: String,
}

/// What a node sends that wants another certificate.
#[derive(Serialize, Deserialize)]
struct RenewRequest {
    request: String,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
struct Granted {
    /// In PEM: the certificate, and what leads from it to the older root while there is one.
    certificate: String,
    /// [`SignedList`].
    trust: String,
}

/// Why the authority says no. In words for who asks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LetInError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("this is no request of `tidecast cluster join`: {0}")]
    Malformed(String),
    #[error("the token names no node: say what this one shall be called with --name")]
    Nameless,
    #[error("the token is for {0}")]
    OtherName(NodeId),
    #[error("there has been a node called {0}: take another name, or make a token for that name")]
    Taken(NodeId),
    #[error("{0} was put out of the cluster: take another name")]
    Revoked(NodeId),
    #[error("the authority failed at it; its log says more")]
    Failed(anyhow::Error),
}

/// When a node's certificate begins and ends, and whether the root that signs now has made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    pub(crate) begins: SystemTime,
    pub(crate) ends: SystemTime,
    pub(crate) is_of_newest_root: bool,
}

/// The folder of the files.
#[derive(Clone)]
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
    /// If the files are there and cannot be used, or the node was put out.
    pub(crate) fn identity(&self) -> anyhow::Result<Option<Identity>> {
        if !self.path(CERTIFICATE).exists() {
            return Ok(None);
        }
        let revoked = self.revoked()?;
        let [authority, certificate, key] = self.own()?;
        let identity = Identity::from_pem_without(
            authority.as_bytes(),
            certificate.as_bytes(),
            key.as_bytes(),
            revoked.clone(),
        );
        let identity =
            identity.with_context(|| format!("the certificates in {} cannot be used", self.dir.display()))?;
        ensure!(
            !revoked.contains(identity.node()),
            "{} was put out of the cluster with `tidecast cluster revoke`; move {} away to join anew, under another name",
            identity.node(),
            self.dir.display()
        );
        Ok(Some(identity))
    }

    /// Puts what is on disk now in force.
    ///
    /// # Errors
    /// If it cannot be used; then nothing has changed.
    pub(crate) fn reload(&self, identity: &Identity) -> anyhow::Result<()> {
        let [authority, certificate, key] = self.own()?;
        let replaced: Result<(), IdentityError> =
            identity.replace(authority.as_bytes(), certificate.as_bytes(), key.as_bytes(), self.revoked()?);
        replaced.with_context(|| format!("the certificates in {} cannot be used", self.dir.display()))
    }

    /// Roots, certificate, key.
    fn own(&self) -> anyhow::Result<[String; 3]> {
        Ok([self.read(AUTHORITY)?, self.read(CERTIFICATE)?, self.read(KEY)?])
    }

    /// Changes with any file that [`ClusterFiles::reload`] reads.
    pub(crate) fn stamp(&self) -> Vec<Option<(SystemTime, u64)>> {
        let stamp = |name| {
            let there = fs::metadata(self.path(name)).ok()?;
            Some((there.modified().ok()?, there.len()))
        };
        [AUTHORITY, CERTIFICATE, KEY, TRUST].into_iter().map(stamp).collect()
    }

    pub(crate) fn validity(&self) -> anyhow::Result<Validity> {
        let [authority, certificate, key] = self.own()?;
        let read = Certificate::from_pem(certificate.as_bytes(), key.as_bytes())?;
        Ok(Validity {
            begins: read.not_before(),
            ends: read.not_after(),
            is_of_newest_root: certified_by(&certificate, &authority),
        })
    }

    /// The list in force; `None` in a cluster that never had one.
    ///
    /// # Errors
    /// If it is there and not signed by who is trusted.
    pub(crate) fn trust(&self) -> anyhow::Result<Option<SignedList>> {
        let path = self.path(TRUST);
        if !path.exists() {
            return Ok(None);
        }
        let list = SignedList::read(&self.read(TRUST)?, &self.read(AUTHORITY)?);
        list.map(Some).with_context(|| format!("{} cannot be used", path.display()))
    }

    /// A list that came from elsewhere.
    ///
    /// # Errors
    /// If nobody who is trusted has signed it.
    pub(crate) fn read_list(&self, text: &str) -> anyhow::Result<SignedList> {
        SignedList::read(text, &self.read(AUTHORITY)?)
    }

    /// Takes a list that came from elsewhere, if it is newer than ours.
    ///
    /// # Errors
    /// If nobody who is trusted has signed it, or it cannot be written.
    pub(crate) fn adopt(&self, text: &str) -> anyhow::Result<bool> {
        let _lock = self.lock()?;
        let newer = self.read_list(text)?;
        if self.trust()?.is_some_and(|ours| ours.list.number >= newer.list.number) {
            return Ok(false);
        }
        self.write_list(&newer)?;
        Ok(true)
    }

    /// The list first: it is signed by a root of before, too, so whatever is there after a crash can be used.
    fn write_list(&self, signed: &SignedList) -> anyhow::Result<()> {
        self.write(TRUST, PUBLIC, &signed.text)?;
        self.write(AUTHORITY, PUBLIC, &signed.list.roots_pem())
    }

    fn revoked(&self) -> anyhow::Result<BTreeSet<NodeId>> {
        Ok(self.trust()?.map(|signed| signed.list.revoked()).unwrap_or_default())
    }

    /// Makes an authority, and this node's certificate.
    ///
    /// # Errors
    /// If the node is in a cluster already: everything it was trusted by would be lost.
    pub(crate) fn init(&self, name: &NodeId) -> anyhow::Result<()> {
        self.refuse_if_member()?;
        let authority = Authority::make()?;
        let key = new_key()?;
        let certificate = authority.sign(name, &key, RENEWED_DAYS)?;
        self.make_dir()?;
        let _lock = self.lock()?;
        self.write(AUTHORITY_KEY, PRIVATE, &authority.key_pem())?;
        self.write_list(&authority.first_list()?)?;
        self.write_issued(&BTreeMap::from([(name.clone(), authority.root_name()?)]))?;
        self.write_node(&certificate, &key.serialize_pem())
    }

    /// A bundle that lets `name` join.
    ///
    /// # Errors
    /// If the cluster was not made here, or the node was put out of it.
    pub(crate) fn invite(&self, name: &NodeId, days: u32) -> anyhow::Result<String> {
        let authority = self.authority()?;
        let _lock = self.lock()?;
        self.refuse_revoked(name)?;
        let key = new_key()?;
        let certificate = authority.sign(name, &key, days)?;
        self.note_issued(name, &authority)?;
        // A bundle holds one certificate: whoever comes while roots change is certified by the new one alone.
        let (own, _) = first_block(&certificate);
        Ok(format!("{own}{}{}", key.serialize_pem(), authority.root_pem()))
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
        let is_known = known.is_some_and(|known| pem_blocks(&known).contains(authority));
        if !is_known {
            self.refuse_if_member()?;
        }
        self.make_dir()?;
        let _lock = self.lock()?;
        if !is_known {
            self.write(AUTHORITY, PUBLIC, authority)?;
        }
        self.write_node(certificate, key)?;
        Ok(identity.node().clone())
    }

    /// A token that lets a machine join: `node`, or whoever has a free name.
    ///
    /// # Errors
    /// If the cluster was not made here, or the node was put out of it.
    pub(crate) fn token(
        &self,
        node: Option<&NodeId>,
        lasts: Duration,
        addresses: Vec<String>,
    ) -> anyhow::Result<Token> {
        let authority = self.authority()?;
        if let Some(node) = node {
            self.refuse_revoked(node)?;
        }
        let root = CertificateDer::from_pem_slice(authority.root_pem().as_bytes())?;
        self.tokens().make(node, lasts, fingerprint(&root), addresses)
    }

    /// Tokens that wait for their machines; none where no certificates are made.
    pub(crate) fn waiting_tokens(&self, now_ms: i64) -> Vec<Waiting> {
        self.tokens().good(now_ms)
    }

    /// Whether certificates are made here.
    pub(crate) fn has_authority(&self) -> bool {
        self.path(AUTHORITY_KEY).exists()
    }

    /// At the authority: what a machine gets that shows a token. Also tells what it is called.
    ///
    /// # Errors
    /// [`LetInError`].
    pub(crate) fn let_in(&self, request: &str) -> Result<(NodeId, String), LetInError> {
        let malformed = |error: &dyn std::fmt::Display| LetInError::Malformed(error.to_string());
        let JoinRequest { shown, node, request } =
            serde_json::from_str(request).map_err(|error| malformed(&error))?;
        // Before anything of the request is looked at.
        let tokens = self.tokens();
        let asked = asked(node.as_deref(), &request);
        let good = tokens.check(&shown, &asked, jiff::Timestamp::now().as_millisecond())?;
        let wanted: Option<NodeId> =
            node.as_deref().map(str::parse).transpose().map_err(|error| malformed(&error))?;
        let name = match (good.node.clone(), wanted) {
            (Some(named), Some(wanted)) if named != wanted => return Err(LetInError::OtherName(named)),
            (Some(named), _) => named,
            (None, Some(wanted)) => wanted,
            (None, None) => return Err(LetInError::Nameless),
        };
        let lock = self.lock().map_err(LetInError::Failed)?;
        if self.revoked().map_err(LetInError::Failed)?.contains(&name) {
            return Err(LetInError::Revoked(name));
        }
        // Whoever holds a token for anybody must not become who is there.
        if good.node.is_none() {
            let (issued, own) = (self.issued(), self.identity());
            let (issued, own) = (issued.map_err(LetInError::Failed)?, own.map_err(LetInError::Failed)?);
            let own = own.is_some_and(|own| *own.node() == name);
            // Of a cluster that is older than this list nobody knows who is there.
            if own || issued.as_ref().is_none_or(|issued| issued.contains_key(&name)) {
                return Err(LetInError::Taken(name));
            }
        }
        let request =
            CertificateSigningRequestParams::from_pem(&request).map_err(|error| malformed(&error))?;
        good.take()?;
        let granted = self.grant(&name, &request.public_key).map_err(LetInError::Failed)?;
        drop(lock);
        Ok((name, granted))
    }

    /// At the authority: another certificate for a node that has one.
    ///
    /// # Errors
    /// [`LetInError`].
    pub(crate) fn renew(&self, node: &NodeId, request: &str) -> Result<String, LetInError> {
        let malformed = |error: &dyn std::fmt::Display| LetInError::Malformed(error.to_string());
        let RenewRequest { request } = serde_json::from_str(request).map_err(|error| malformed(&error))?;
        let request =
            CertificateSigningRequestParams::from_pem(&request).map_err(|error| malformed(&error))?;
        let _lock = self.lock().map_err(LetInError::Failed)?;
        if self.revoked().map_err(LetInError::Failed)?.contains(node) {
            return Err(LetInError::Revoked(node.clone()));
        }
        self.grant(node, &request.public_key).map_err(LetInError::Failed)
    }

    fn grant(&self, name: &NodeId, key: &impl PublicKeyData) -> anyhow::Result<String> {
        let authority = self.authority()?;
        let trust = match self.trust()? {
            Some(signed) => signed,
            None => authority.first_list()?,
        };
        self.note_issued(name, &authority)?;
        let certificate = authority.sign(name, key, RENEWED_DAYS)?;
        Ok(serde_json::to_string(&Granted { certificate, trust: trust.text })?)
    }

    /// On a new machine: a key that never leaves it, and what to send with a token.
    ///
    /// # Errors
    /// If this node is in a cluster already.
    pub(crate) fn prepare_to_join(
        &self,
        token: &Token,
        node: Option<&NodeId>,
    ) -> anyhow::Result<(KeyPair, String)> {
        self.refuse_if_member()?;
        let (key, node) = (new_key()?, node.map(ToString::to_string));
        let request = certificate_request(&key)?;
        let request = JoinRequest { shown: token.show(&asked(node.as_deref(), &request)), node, request };
        Ok((key, serde_json::to_string(&request)?))
    }

    /// On a new machine: keeps what the authority has granted, and returns what this node is called.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(crate) fn finish_joining(
        &self,
        token: &Token,
        key: &KeyPair,
        granted: &str,
    ) -> anyhow::Result<NodeId> {
        let Granted { certificate, trust } =
            serde_json::from_str(granted).context("the authority's answer cannot be read")?;
        // The one root that is known so far vouches for the others.
        let claimed: serde_json::Value = serde_json::from_str(&trust)?;
        let claimed: TrustList = serde_json::from_str(claimed["list"].as_str().unwrap_or_default())
            .context("the authority's answer has no list of trust")?;
        let pinned = claimed.roots.iter().find(|root| {
            CertificateDer::from_pem_slice(root.as_bytes()).is_ok_and(|root| fingerprint(&root) == token.root)
        });
        let signed =
            SignedList::read(&trust, pinned.context("the authority's answer is of another cluster")?)?;
        let roots = signed.list.roots_pem();
        let identity =
            Identity::from_pem(roots.as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes())
                .context("the authority's answer cannot be used")?;
        self.make_dir()?;
        let _lock = self.lock()?;
        self.write_list(&signed)?;
        self.write_node(&certificate, &key.serialize_pem())?;
        Ok(identity.node().clone())
    }

    /// What to send for another certificate. The key stays: with it a certificate can be written in one step.
    ///
    /// # Errors
    /// If the key cannot be read.
    pub(crate) fn renewal(&self) -> anyhow::Result<String> {
        let key = KeyPair::from_pem(&self.read(KEY)?).context("node.key holds no key")?;
        Ok(serde_json::to_string(&RenewRequest { request: certificate_request(&key)? })?)
    }

    /// Keeps a certificate that the authority has granted.
    ///
    /// # Errors
    /// If it cannot be used with our key.
    pub(crate) fn finish_renewal(&self, granted: &str) -> anyhow::Result<()> {
        let Granted { certificate, trust } =
            serde_json::from_str(granted).context("the authority's answer cannot be read")?;
        self.adopt(&trust)?;
        let _lock = self.lock()?;
        let [authority, own, key] = self.own()?;
        let identity = |certificate: &str| {
            Identity::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes())
        };
        let granted = identity(&certificate).context("the authority's answer cannot be used")?;
        let own = identity(&own).context("the certificate of before cannot be read")?;
        ensure!(granted.node() == own.node(), "the answer is a certificate of {}", granted.node());
        self.write(CERTIFICATE, PUBLIC, &certificate)
    }

    /// Another list: `change` makes it of the one before.
    fn change_trust(
        &self,
        authority: &Authority,
        change: impl FnOnce(&mut TrustList) -> anyhow::Result<()>,
    ) -> anyhow::Result<SignedList> {
        let mut list = match self.trust()? {
            Some(signed) => signed.list,
            None => authority.first_list()?.list,
        };
        change(&mut list)?;
        list.number += 1;
        let signed = authority.sign_list(list)?;
        self.write_list(&signed)?;
        Ok(signed)
    }

    /// Puts a node out of the cluster. Whether it is known to have been let in from here.
    ///
    /// # Errors
    /// If the cluster was not made here, or it is this node.
    pub(crate) fn revoke(&self, node: &NodeId) -> anyhow::Result<bool> {
        let _lock = self.lock()?;
        let authority = self.authority()?;
        let own = self.identity()?.context("this node has no certificate")?;
        ensure!(
            own.node() != node,
            "{node} is this node, which has the authority: nobody would be left to trust"
        );
        self.change_trust(&authority, |list| {
            list.revoked.insert(node.to_string());
            ensure!(
                list.revoked.len() <= list::REVOKED_MAX,
                "{} nodes have been put out: `tidecast cluster rotate` makes a new root, by which they are forgotten",
                list::REVOKED_MAX
            );
            Ok(())
        })?;
        Ok(self.issued()?.is_some_and(|issued| issued.contains_key(node)))
    }

    /// Makes a second root, which signs from now on; nodes trust both.
    ///
    /// # Errors
    /// If the cluster was not made here, or there are two roots already.
    pub(crate) fn rotate(&self) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        ensure!(
            !self.path(OLD_KEY).exists(),
            "there are two roots already: `tidecast cluster rotate --finish` drops the old one"
        );
        let old = self.authority()?;
        let [_, _, node_key] = self.own()?;
        let node = self.identity()?.context("this node has no certificate")?;
        let new = old.successor()?;
        self.write(OLD_KEY, PRIVATE, &old.key_pem())?;
        self.write(CROSS, PUBLIC, new.cross().unwrap_or_default())?;
        self.write(AUTHORITY_KEY, PRIVATE, &new.key_pem())?;
        self.change_trust(&new, |list| {
            list.roots.insert(0, new.root_pem().to_owned());
            Ok(())
        })?;
        let key = KeyPair::from_pem(&node_key).context("node.key holds no key")?;
        self.write(CERTIFICATE, PUBLIC, &new.sign(node.node(), &key, RENEWED_DAYS)?)?;
        self.note_issued(node.node(), &new)
    }

    /// Drops the older of two roots, and forgets who was put out while only that was there: what it signed is worth nothing any more.
    ///
    /// # Errors
    /// If there is but one, or, unless that is `forced`, if nodes would be put out that have not renewed their certificates.
    pub(crate) fn finish_rotation(&self, forced: bool) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        ensure!(
            self.path(OLD_KEY).exists(),
            "there is but one root: `tidecast cluster rotate` makes another"
        );
        let authority = self.authority()?;
        let (root, revoked) = (authority.root_name()?, self.revoked()?);
        let issued = self.issued()?;
        ensure!(
            forced || issued.is_some(),
            "this cluster is older than the list of who was let in: see in `tidecast nodes` that all have renewed their \
             certificates, then use --force"
        );
        let (renewed, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            issued.unwrap_or_default().into_iter().partition(|(_, of)| *of == root);
        let left: Vec<_> = left.keys().filter(|node| !revoked.contains(*node)).map(NodeId::as_str).collect();
        ensure!(
            forced || left.is_empty(),
            "still of the old root: {}. They renew by themselves within a minute while they run and reach this node; --force \
             puts them out",
            left.join(", ")
        );
        self.change_trust(&authority, |list| {
            list.roots.truncate(1);
            // Of the others nobody takes the certificate any more, whatever they are called.
            list.revoked.retain(|node| node.parse().is_ok_and(|node: NodeId| renewed.contains_key(&node)));
            Ok(())
        })?;
        self.write_issued(&renewed)?;
        for gone in [OLD_KEY, CROSS] {
            fs::remove_file(self.path(gone)).with_context(|| format!("cannot remove {gone}"))?;
        }
        Ok(())
    }

    /// At the authority: tells nodes where it is. Nothing if they know.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub(crate) fn tell_address(&self, url: &str) -> anyhow::Result<()> {
        if !self.has_authority() {
            return Ok(());
        }
        let _lock = self.lock()?;
        if self.trust()?.is_some_and(|signed| signed.list.authority.as_deref() == Some(url)) {
            return Ok(());
        }
        self.change_trust(&self.authority()?, |list| {
            list.authority = Some(url.to_owned());
            Ok(())
        })
        .map(drop)
    }

    fn authority(&self) -> anyhow::Result<Authority> {
        let read = |name| {
            let path = self.path(name);
            fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}: nodes are let in where the cluster was made, with `tidecast cluster init`",
                    path.display()
                )
            })
        };
        let (key, roots) = (read(AUTHORITY_KEY)?, pem_blocks(&read(AUTHORITY)?));
        let optional = |name| self.path(name).exists().then(|| read(name)).transpose();
        Authority::read(&key, &roots, optional(OLD_KEY)?.as_deref(), optional(CROSS)?)
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(self.path(TOKENS))
    }

    /// Who was let in, and by which root; `None` if that was not written down from the cluster's beginning on.
    fn issued(&self) -> anyhow::Result<Option<BTreeMap<NodeId, String>>> {
        let path = self.path(ISSUED);
        let names = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            names => names.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let line = |line: &str| {
            let (name, root) = line.split_once(' ')?;
            Some((name.parse().ok()?, root.to_owned()))
        };
        Ok(Some(names.lines().filter_map(line).collect()))
    }

    fn write_issued(&self, names: &BTreeMap<NodeId, String>) -> anyhow::Result<()> {
        let lines: String = names.iter().map(|(name, root)| format!("{name} {root}\n")).collect();
        self.write(ISSUED, PUBLIC, &lines)
    }

    fn note_issued(&self, name: &NodeId, authority: &Authority) -> anyhow::Result<()> {
        // Begun in the middle it would say that others are not there.
        let Some(mut names) = self.issued()? else { return Ok(()) };
        let root = authority.root_name()?;
        if names.get(name) == Some(&root) {
            return Ok(());
        }
        names.insert(name.clone(), root);
        self.write_issued(&names)
    }

    fn refuse_revoked(&self, node: &NodeId) -> anyhow::Result<()> {
        ensure!(!self.revoked()?.contains(node), "{node} was put out of the cluster: take another name");
        Ok(())
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

    /// Against a command and a process that change the list at once. Held until it is dropped.
    fn lock(&self) -> anyhow::Result<File> {
        let path = self.path(LOCK);
        let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
        locked.with_context(|| format!("cannot lock {}", path.display()))
    }

    /// The certificate last: without it the node is in no cluster.
    fn write_node(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        self.write(KEY, PRIVATE, key)?;
        self.write(CERTIFICATE, PUBLIC, certificate)
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        write_whole(&path, mode, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// What a token is shown for: a name, if it does not say one itself, and a key.
fn asked(node: Option<&str>, request: &str) -> String {
    format!("{}\n{request}", node.unwrap_or_default())
}

/// It only proves that the key is there: what is certified is for the authority to say.
fn certificate_request(key: &KeyPair) -> anyhow::Result<String> {
    let request = CertificateParams::new(Vec::new())?.serialize_request(key);
    Ok(request.context("cannot make a certificate request")?.pem()?)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    sha256(certificate)
}

/// The first block of a PEM text, and the others.
fn first_block(text: &str) -> (String, String) {
    let mut blocks = pem_blocks(text);
    let others = blocks.split_off(blocks.len().min(1));
    (blocks.concat(), others.concat())
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
mod tests;
