//! Texts that a node vouches for, for whoever of the cluster reads them later, from wherever they lie meanwhile.

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use webpki::aws_lc_rs::ECDSA_P256_SHA256;

use crate::tls::{Identity, node_of};
use media::NodeId;

/// Begins what is signed, so that no signature of a handshake (RFC 8446, §4.4.3) is one of a text, or the other way round.
const CONTEXT: &[u8] = b"a node of a Tidecast cluster says:\n";

/// What vouches for a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// The node's certificate and what leads from it to a root, in DER.
    pub chain: Vec<Vec<u8>>,
    /// ECDSA with P-256 and SHA-256, in DER.
    pub signature: Vec<u8>,
}

/// Why a text is not vouched for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VouchError {
    #[error("this node's key does not sign with P-256")]
    Key,
    #[error("no node that this one trusts vouches for it: {0}")]
    Untrusted(rustls::Error),
    #[error("it is not what was signed")]
    Signature,
}

impl Identity {
    /// This node vouches for `text`.
    ///
    /// # Errors
    /// [`VouchError::Key`]
    pub fn vouch(&self, text: &[u8]) -> Result<Voucher, VouchError> {
        let certified = self.certified();
        let signer = certified.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let signed = signer.and_then(|signer| signer.sign(&[CONTEXT, text].concat()).ok());
        let chain = certified.cert.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Voucher { chain, signature: signed.ok_or(VouchError::Key)? })
    }

    /// The node that vouches for `text`, which is trusted now.
    ///
    /// # Errors
    /// [`VouchError`], also for a node that was put out, and for a certificate that has ended since.
    pub fn vouched(&self, text: &[u8], voucher: &Voucher) -> Result<NodeId, VouchError> {
        let chain: Vec<_> =
            voucher.chain.iter().map(|certificate| CertificateDer::from(certificate.as_slice())).collect();
        self.judge(&chain).map_err(VouchError::Untrusted)?;
        let own = chain.first().ok_or(VouchError::Signature)?;
        let parsed = EndEntityCert::try_from(own).map_err(|_| VouchError::Signature)?;
        parsed
            .verify_signature(ECDSA_P256_SHA256, &[CONTEXT, text].concat(), &voucher.signature)
            .map_err(|_| VouchError::Signature)?;
        node_of(own).ok_or(VouchError::Signature)
    }
}
