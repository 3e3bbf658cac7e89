//! What people are told of a certificate that nobody vouches for.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use net::tls::Served;
use serde::Serialize;

/// The certificate that this node made for itself, as it is now.
#[derive(Clone)]
pub struct Trust {
    served: Arc<Served>,
}

/// `GET /trust/state`
#[derive(Debug, Serialize)]
pub(crate) struct State {
    /// SHA-256, as browsers show it.
    fingerprint: String,
    names: Vec<String>,
    /// Milliseconds since the Unix epoch.
    not_after: u64,
}

impl Trust {
    pub fn new(served: Arc<Served>) -> Self {
        Self { served }
    }

    pub(crate) fn state(&self) -> Option<State> {
        let certificate = self.served.get()?;
        let not_after = certificate.not_after().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Some(State {
            fingerprint: certificate.fingerprint().to_owned(),
            names: certificate.names().to_vec(),
            not_after: u64::try_from(not_after).unwrap_or(u64::MAX),
        })
    }

    /// For a device that is to keep it, in DER.
    pub(crate) fn certificate(&self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(self.served.get()?.der()))
    }
}
