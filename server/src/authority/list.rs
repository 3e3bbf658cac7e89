//! Whom the nodes of a cluster trust: its roots, and the nodes that were put out. A text that the authority signs, so that it
//! may come by any way: NATS, an upstream, a file.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use media::NodeId;
use rcgen::{KeyPair, SigningKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use webpki::EndEntityCert;
use webpki::aws_lc_rs::ECDSA_P256_SHA256;

use super::fingerprint;

/// Of the text. Above what [`REVOKED_MAX`] names and four roots take.
pub(crate) const LIST_BYTES_MAX: usize = 256 * 1024;

/// A cluster that has put out more nodes makes a new root, by which all of them are forgotten.
pub(super) const REVOKED_MAX: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TrustList {
    /// Counts the lists of a cluster: the greatest holds.
    pub(crate) number: u64,
    /// Certificates in PEM; the first signs, another one is on its way out.
    pub(crate) roots: Vec<String>,
    pub(crate) revoked: BTreeSet<String>,
    /// Where certificates are renewed: `https://host:port`.
    #[serde(default)]
    pub(crate) authority: Option<String>,
}

impl TrustList {
    pub(crate) fn revoked(&self) -> BTreeSet<NodeId> {
        self.revoked.iter().filter_map(|name| name.parse().ok()).collect()
    }

    pub(crate) fn roots_pem(&self) -> String {
        self.roots.concat()
    }
}

/// A list and what vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedList {
    pub(crate) list: TrustList,
    /// As it goes from node to node.
    pub(crate) text: String,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The very text that is signed.
    list: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    /// SHA-256 of the certificate that it is by, in hexadecimal digits.
    root: String,
    /// ECDSA with P-256 and SHA-256, in DER.
    signature: String,
}

impl SignedList {
    /// Signs with each of `keys`, which stand beside their certificates in PEM.
    pub(super) fn sign(list: TrustList, keys: &[(&str, &KeyPair)]) -> anyhow::Result<Self> {
        let text = serde_json::to_string(&list)?;
        let signatures = keys.iter().map(|(certificate, key)| {
            let signature = key.sign(text.as_bytes()).context("cannot sign the list of trust")?;
            let root = hex(&fingerprint(&CertificateDer::from_pem_slice(certificate.as_bytes())?));
            anyhow::Ok(Signature { root, signature: hex(&signature) })
        });
        let signatures = signatures.collect::<anyhow::Result<_>>()?;
        let text = serde_json::to_string(&Envelope { list: text, signatures })?;
        ensure!(text.len() <= LIST_BYTES_MAX, "the list of trust is longer than nodes read");
        Ok(Self { list, text })
    }

    /// A list that one of `roots` (PEM) has signed.
    ///
    /// # Errors
    /// If none has, or it is no list.
    pub(crate) fn read(text: &str, roots: &str) -> anyhow::Result<Self> {
        ensure!(text.len() <= LIST_BYTES_MAX, "the list of trust is too long");
        let envelope: Envelope = serde_json::from_str(text).context("this is no list of trust")?;
        let roots = CertificateDer::pem_slice_iter(roots.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let is_signed = envelope.signatures.iter().take(4).any(|Signature { root, signature }| {
            let known = roots.iter().find(|known| hex(&fingerprint(known)) == *root);
            known.zip(unhex(signature)).is_some_and(|(known, signature)| {
                EndEntityCert::try_from(known).is_ok_and(|known| {
                    let list = envelope.list.as_bytes();
                    known.verify_signature(ECDSA_P256_SHA256, list, &signature).is_ok()
                })
            })
        });
        ensure!(is_signed, "nobody whom this node trusts has signed the list of trust");
        let list: TrustList = serde_json::from_str(&envelope.list).context("this is no list of trust")?;
        ensure!((1..=4).contains(&list.roots.len()), "the list of trust has no root, or too many");
        Ok(Self { list, text: text.to_owned() })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = text.chars().map(|char| char.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |[high, low]: &[u32; 2]| u8::try_from(high * 16 + low).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;

    use super::*;
    use crate::authority::new_key;

    fn root() -> (String, KeyPair) {
        let key = new_key().unwrap();
        (CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem(), key)
    }

    fn list(root: &str) -> TrustList {
        let revoked = ["edge1".to_owned()].into();
        TrustList { number: 7, roots: vec![root.to_owned()], revoked, authority: None }
    }

    #[test]
    fn a_list_is_believed_if_one_who_is_trusted_has_signed_it() {
        let ((old, old_key), (new, new_key)) = (root(), root());
        let signed = SignedList::sign(list(&new), &[(&new, &new_key), (&old, &old_key)]).unwrap();
        for trusted in [&old, &new, &format!("{new}{old}")] {
            assert_eq!(SignedList::read(&signed.text, trusted).unwrap(), signed);
        }
        let (other, _) = root();
        let told = SignedList::read(&signed.text, &other).unwrap_err().to_string();
        assert!(told.contains("nobody whom this node trusts"), "{told}");
    }

    /// Threat: whoever may write to NATS lets a node back in, or makes a root of its own.
    #[test]
    fn a_list_that_somebody_has_changed_is_not_believed() {
        let (root, key) = root();
        let signed = SignedList::sign(list(&root), &[(&root, &key)]).unwrap();
        let changed = signed.text.replace("edge1", "edge2");
        assert_ne!(changed, signed.text);
        assert!(SignedList::read(&changed, &root).is_err());
        for text in ["", "{}", "[1", r#"{"list":"{}","signatures":[]}"#] {
            assert!(SignedList::read(text, &root).is_err(), "{text}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_read_back() {
        assert_eq!(unhex(&hex(&[0, 0xAB, 255])), Some(vec![0, 0xAB, 255]));
        for text in ["a", "zz", "äö"] {
            assert_eq!(unhex(text), None);
        }
    }
}
