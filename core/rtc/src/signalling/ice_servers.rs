//! STUN and TURN servers for clients, told in the answer to their offer (RFC 9725, §4.6). Pure.
//!
//! A TURN server lets in who has a user name and a password. Both are made here, of a secret that it has too, for each client
//! anew and for a while (draft-uberti-behave-turn-rest-00, §2.2; coturn's `use-auth-secret`).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use http::HeaderValue;
use http::header::InvalidHeaderValue;

/// How long a client may use what it was told: what the draft recommends. A relay that was asked for within that time lasts on.
const CREDENTIALS_LAST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a TURN server and we know, and nobody else.
#[derive(Clone)]
pub struct TurnSecret(hmac::Key);

impl TurnSecret {
    pub fn new(secret: &str) -> Self {
        // The draft has no other, and what is signed is a number.
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes()))
    }

    /// A user name, which is the second since 1970 after which it is worth nothing, and its password.
    fn credentials(&self, now: SystemTime) -> (String, String) {
        let until = now.checked_add(CREDENTIALS_LAST).and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        let name = until.unwrap_or_default().as_secs().to_string();
        let password = base64(hmac::sign(&self.0, name.as_bytes()).as_ref());
        (name, password)
    }
}

impl fmt::Debug for TurnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnSecret(…)")
    }
}

/// What clients are told.
#[derive(Debug, Clone, Default)]
pub struct IceServers {
    /// RFC 7064 and RFC 7065.
    urls: Vec<String>,
    secret: Option<TurnSecret>,
}

impl IceServers {
    /// `secret`: of all TURN servers among them; without one they have to let in everybody.
    ///
    /// # Errors
    /// If a URL cannot stand in a header.
    pub fn new(urls: Vec<String>, secret: Option<TurnSecret>) -> Result<Self, InvalidHeaderValue> {
        for url in &urls {
            HeaderValue::try_from(url)?;
        }
        Ok(Self { urls, secret })
    }

    /// `Link` headers, one for each server.
    pub fn links(&self, now: SystemTime) -> Vec<HeaderValue> {
        let credentials = self.secret.as_ref().map(|secret| {
            let (name, password) = secret.credentials(now);
            format!("; username=\"{name}\"; credential=\"{password}\"; credential-type=\"password\"")
        });
        let link = |url: &String| {
            let credentials = credentials.as_deref().filter(|_| is_turn(url)).unwrap_or_default();
            HeaderValue::try_from(format!("<{url}>; rel=\"ice-server\"{credentials}")).ok()
        };
        self.urls.iter().filter_map(link).collect()
    }
}

/// Whether this is the URL of a server that wants credentials.
pub fn is_turn(url: &str) -> bool {
    url.starts_with("turn:") || url.starts_with("turns:")
}

/// RFC 4648, §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at) & 63) as usize;
            text.push(if at <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The password by `printf 1800086400 | openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn turn_servers_are_told_with_credentials_that_end() {
        let urls = ["stun:stun.example", "turn:turn.example:3478?transport=udp", "turns:turn.example"];
        let urls = urls.map(str::to_owned).to_vec();
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let servers = IceServers::new(urls.clone(), Some(TurnSecret::new("north"))).unwrap();
        let credentials = "; username=\"1800086400\"; credential=\"/sfTIxP6tenIPleGUPBCfSCF4iI=\"; credential-type=\"password\"";
        let expected = [
            "<stun:stun.example>; rel=\"ice-server\"".to_owned(),
            format!("<turn:turn.example:3478?transport=udp>; rel=\"ice-server\"{credentials}"),
            format!("<turns:turn.example>; rel=\"ice-server\"{credentials}"),
        ];
        assert_eq!(servers.links(now), expected);
        let later = servers.links(now + Duration::from_secs(1));
        assert!(later[1].to_str().unwrap().contains("username=\"1800086401\"") && later[0] == expected[0]);
        let open = IceServers::new(urls, None).unwrap();
        assert!(open.links(now).iter().all(|link| !link.to_str().unwrap().contains("credential")));
        assert!(IceServers::new(vec!["stun:\n".to_owned()], None).is_err());
    }

    #[test]
    fn base64_is_filled_up() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
