//! A publish key as other nodes have it: nothing of it can be read, and it can be compared with what a publisher gives.

use anyhow::Context;
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use crate::authority::{hex, unhex};
use crate::keys::PublishKey;

const SALT_BYTES: usize = 16;

/// HMAC-SHA256 (RFC 2104) of the key, by a salt. Quick, since it is asked for each publisher: a key that we make has 130 random bits,
/// which nobody tries out, however quick it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HashedKey {
    /// In hexadecimal digits.
    salt: String,
    hash: String,
}

impl HashedKey {
    pub(crate) fn of(key: &PublishKey) -> anyhow::Result<Self> {
        let mut salt = [0_u8; SALT_BYTES];
        getrandom::fill(&mut salt).context("the system gives no random bytes for a salt")?;
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &salt), key.expose().as_bytes());
        Ok(Self { salt: hex(&salt), hash: hex(hash.as_ref()) })
    }

    /// Whether `given` is the key. How long this takes tells nothing about the key.
    pub(crate) fn verify(&self, given: &str) -> bool {
        let (Some(salt), Some(hash)) = (unhex(&self.salt), unhex(&self.hash)) else { return false };
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &salt), given.as_bytes(), &hash).is_ok()
    }

    pub(crate) fn is_of(&self, key: &PublishKey) -> bool {
        self.verify(key.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_key_is_compared_and_not_read() {
        let key = PublishKey::generate().unwrap();
        let hashed = HashedKey::of(&key).unwrap();
        assert!(hashed.verify(key.expose()));
        assert!(!hashed.verify(&key.expose()[1..]) && !hashed.verify(""));
        let text = serde_json::to_string(&hashed).unwrap();
        assert!(!text.contains(key.expose()));
        assert!(serde_json::from_str::<HashedKey>(&text).unwrap().is_of(&key));
        assert_ne!(text, serde_json::to_string(&HashedKey::of(&key).unwrap()).unwrap(), "salted");
    }

    #[test]
    fn what_is_no_hash_lets_nobody_in() {
        for text in [r#"{"salt":"","hash":""}"#, r#"{"salt":"zz","hash":"00"}"#, r#"{"salt":"00","hash":""}"#]
        {
            assert!(!serde_json::from_str::<HashedKey>(text).unwrap().verify(""));
        }
    }
}
