//! Tokens: what an operator carries to a new machine instead of a key. Good once, for minutes.
//!
//! A token is a line: what names it, a secret, the fingerprint of the cluster's root, and where the authority's node listens.
//! The secret is never sent: any node of the cluster could answer in the authority's place, and would have it. What is sent is a
//! proof that holds for one request alone. Of the secret only its digest is kept (`tokens/ID.json` beside the certificates). Taking one is the renaming of its file to
//! `ID.used`, which succeeds once, however many try.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::hmac;
use media::NodeId;
use relay::Fingerprint;
use serde::{Deserialize, Serialize};

use super::list::{hex, unhex};
use super::sha256;
use crate::files::{PRIVATE, make_private_dir, read_bounded, write_whole};

/// Begins every token.
pub(crate) const TOKEN_PREFIX: &str = "tidecast1-";

const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 16;

/// Of one machine.
const ADDRESSES_MAX: usize = 4;
/// Longer is no token.
const TOKEN_TEXT_MAX: usize = 2_048;
/// On disk at once.
const TOKENS_MAX: usize = 1_000;
const FILE_BYTES_MAX: u64 = 4 * 1024;
/// What became of a token is known for so long after its end, in milliseconds.
const REMEMBERED_MS: i64 = 24 * 3_600 * 1_000;

/// As it is carried.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    id: String,
    secret: String,
    /// Of the root by which the authority's node is known.
    pub(crate) root: Fingerprint,
    /// `host:port`, in the order in which they are tried.
    pub(crate) addresses: Vec<String>,
}

/// What a new machine shows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    id: String,
    /// HMAC-SHA256 (RFC 2104) of what is asked for, by the digest of the secret; in hexadecimal digits.
    proof: String,
}

/// Not the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a token lets nobody in. In words for who holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is not one of this cluster")]
    Unknown,
    #[error("the token has been used: make another with `tidecast cluster token`")]
    Used,
    #[error("the token has ended: make another with `tidecast cluster token`")]
    Ended,
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the line that `tidecast cluster token` prints; was all of it copied?")]
pub(crate) struct NoToken;

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, secret, root, addresses } = self;
        write!(f, "{TOKEN_PREFIX}{id}{secret}{}@{}", hex(root), addresses.join(","))
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let text = text.trim();
        if text.len() > TOKEN_TEXT_MAX {
            return Err(NoToken);
        }
        let (digits, addresses) =
            text.strip_prefix(TOKEN_PREFIX).and_then(|rest| rest.split_once('@')).ok_or(NoToken)?;
        let bytes = unhex(digits).ok_or(NoToken)?;
        let (id, rest) = bytes.split_at_checked(ID_BYTES).ok_or(NoToken)?;
        let (secret, root) = rest.split_at_checked(SECRET_BYTES).ok_or(NoToken)?;
        let addresses: Vec<_> = addresses.split(',').map(str::to_owned).collect();
        let is_address = |address: &String| {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            port.is_some() && !address.contains(char::is_whitespace)
        };
        if addresses.len() > ADDRESSES_MAX || !addresses.iter().all(is_address) {
            return Err(NoToken);
        }
        Ok(Self { id: hex(id), secret: hex(secret), root: root.try_into().map_err(|_| NoToken)?, addresses })
    }
}

impl Token {
    /// That whoever asks for `asked` has it.
    pub(super) fn show(&self, asked: &str) -> Shown {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &sha256(self.secret.as_bytes()));
        Shown { id: self.id.clone(), proof: hex(hmac::sign(&key, asked.as_bytes()).as_ref()) }
    }
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    secret_sha256: String,
    /// Whom it lets in; `None`: whoever has a name that is free.
    node: Option<String>,
    /// In milliseconds since the Unix epoch.
    ends_ms: i64,
}

/// What may be told of a token that nobody has taken yet.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    /// Whom it lets in; `None`: whoever has a name that is free.
    node: Option<String>,
    /// In milliseconds since the Unix epoch.
    ends_ms: i64,
}

/// The folder of the tokens of a cluster.
pub(super) struct Tokens {
    dir: PathBuf,
}

/// A token that has been found good, and is not taken yet.
pub(super) struct Good<'a> {
    tokens: &'a Tokens,
    id: String,
    pub(super) node: Option<NodeId>,
}

impl Tokens {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(super) fn make(
        &self,
        node: Option<&NodeId>,
        lasts: Duration,
        root: Fingerprint,
        addresses: Vec<String>,
    ) -> anyhow::Result<Token> {
        ensure!(
            (1..=ADDRESSES_MAX).contains(&addresses.len()),
            "a token has one to {ADDRESSES_MAX} addresses"
        );
        make_private_dir(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        ensure!(
            self.forget(now_ms)? < TOKENS_MAX,
            "there are {TOKENS_MAX} tokens already; wait until some have ended"
        );
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        getrandom::fill(&mut id).context("the system has no random numbers")?;
        getrandom::fill(&mut secret).context("the system has no random numbers")?;
        let (id, secret) = (hex(&id), hex(&secret));
        let kept = Kept {
            secret_sha256: hex(&sha256(secret.as_bytes())),
            node: node.map(ToString::to_string),
            ends_ms: now_ms.saturating_add(i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX)),
        };
        let path = self.path(&id, "json");
        write_whole(&path, PRIVATE, &serde_json::to_string(&kept)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let token = Token { id, secret, root, addresses };
        ensure!(
            token.to_string().parse() == Ok(token.clone()),
            "an address of the token is none: HOST:PORT is one"
        );
        Ok(token)
    }

    /// Looks at a token that somebody shows who asks for `asked`, at a time in milliseconds since the Unix epoch.
    pub(super) fn check(&self, shown: &Shown, asked: &str, now_ms: i64) -> Result<Good<'_>, TokenError> {
        // A file's name is made of it.
        if unhex(&shown.id).is_none_or(|id| id.len() != ID_BYTES) {
            return Err(TokenError::Unknown);
        }
        let read = |ending| -> Option<Kept> {
            let bytes = read_bounded(&self.path(&shown.id, ending), FILE_BYTES_MAX).ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        let (kept, is_used) = match read("json") {
            Some(kept) => (kept, false),
            None => (read("used").ok_or(TokenError::Unknown)?, true),
        };
        let (Some(digest), Some(proof)) = (unhex(&kept.secret_sha256), unhex(&shown.proof)) else {
            return Err(TokenError::Unknown);
        };
        // In constant time.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &digest);
        hmac::verify(&key, asked.as_bytes(), &proof).map_err(|_| TokenError::Unknown)?;
        if is_used {
            return Err(TokenError::Used);
        }
        if now_ms >= kept.ends_ms {
            return Err(TokenError::Ended);
        }
        let node = kept.node.as_deref().map(str::parse).transpose().map_err(|_| TokenError::Unknown)?;
        Ok(Good { tokens: self, id: shown.id.clone(), node })
    }

    /// Whom those let in that are good at a time in milliseconds since the Unix epoch, and when they end.
    pub(super) fn good(&self, now_ms: i64) -> Vec<Waiting> {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|file| file.path());
        let unused = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
        let kept = unused.filter_map(|path| {
            serde_json::from_slice::<Kept>(&read_bounded(&path, FILE_BYTES_MAX).ok()?).ok()
        });
        let good = kept.filter(|kept| now_ms < kept.ends_ms);
        let mut waiting: Vec<_> = good.map(|Kept { node, ends_ms, .. }| Waiting { node, ends_ms }).collect();
        waiting.sort_by_key(|waiting| waiting.ends_ms);
        waiting
    }

    /// How many are left after those were removed that ended long ago.
    fn forget(&self, now_ms: i64) -> anyhow::Result<usize> {
        let mut left = 0;
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            let kept = read_bounded(&path, FILE_BYTES_MAX).ok();
            let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
            match kept {
                Some(kept) if now_ms < kept.ends_ms.saturating_add(REMEMBERED_MS) => left += 1,
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(left)
    }

    fn path(&self, id: &str, ending: &str) -> PathBuf {
        self.dir.join(Path::new(id).with_extension(ending))
    }
}

impl Good<'_> {
    /// Of several who take it at once one succeeds.
    pub(super) fn take(self) -> Result<(), TokenError> {
        let path = |ending| self.tokens.path(&self.id, ending);
        fs::rename(path("json"), path("used")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TokenError::Used,
            _ => TokenError::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Fingerprint = [7; 32];

    fn now_ms() -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    #[test]
    fn of_a_token_it_is_told_whom_it_waits_for_until_it_is_taken_or_has_ended() {
        let (_home, tokens) = tokens();
        assert_eq!(tokens.good(now_ms()), []);
        let node = "edge1".parse().unwrap();
        let make = |node, minutes: u64| {
            let lasts = Duration::from_secs(60 * minutes);
            tokens.make(node, lasts, ROOT, vec!["192.0.2.1:7400".to_owned()]).unwrap()
        };
        let (long, _short) = (make(Some(&node), 30), make(None, 10));
        let whom = |ahead_min: i64| -> Vec<_> {
            tokens.good(now_ms() + ahead_min * 60_000).into_iter().map(|waiting| waiting.node).collect()
        };
        assert_eq!(whom(0), [None, Some("edge1".to_owned())]);
        assert_eq!(whom(15), [Some("edge1".to_owned())]);
        tokens.check(&long.show("edge1"), "edge1", now_ms()).unwrap().take().unwrap();
        assert_eq!(whom(15), []);
    }

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let home = tempfile::tempdir().unwrap();
        let tokens = Tokens::new(home.path().join("tokens"));
        (home, tokens)
    }

    fn make(tokens: &Tokens) -> Token {
        let addresses = vec!["192.0.2.1:7400".to_owned(), "[2001:db8::1]:7400".to_owned()];
        tokens.make(Some(&"edge1".parse().unwrap()), Duration::from_secs(60), ROOT, addresses).unwrap()
    }

    /// What a machine asks for.
    const ASKED: &str = "a certificate for edge1";

    fn refused(tokens: &Tokens, shown: &Shown, now_ms: i64) -> TokenError {
        tokens.check(shown, ASKED, now_ms).map(drop).unwrap_err()
    }

    #[test]
    fn a_token_is_a_line_and_good_once() {
        let (_home, tokens) = tokens();
        let token = make(&tokens);
        assert!(!token.to_string().contains(char::is_whitespace));
        let carried: Token = format!("{token}\n").parse().unwrap();
        assert_eq!(carried, token);
        let shown = carried.show(ASKED);
        let (first, second) =
            (tokens.check(&shown, ASKED, now_ms()).unwrap(), tokens.check(&shown, ASKED, now_ms()).unwrap());
        assert_eq!(first.node.as_ref().unwrap().as_str(), "edge1");
        first.take().unwrap();
        assert_eq!(second.take(), Err(TokenError::Used), "two at once");
        assert_eq!(refused(&tokens, &shown, now_ms()), TokenError::Used);
    }

    #[test]
    fn what_is_wrong_or_late_is_refused_and_says_nothing_of_others() {
        let (_home, tokens) = tokens();
        let shown = make(&tokens).show(ASKED);
        assert_eq!(refused(&tokens, &shown, now_ms() + 61_000), TokenError::Ended);
        for proof in ["", "ä", "00", &"0".repeat(64)] {
            let wrong = Shown { proof: proof.to_owned(), ..shown.clone() };
            assert_eq!(refused(&tokens, &wrong, now_ms()), TokenError::Unknown, "{proof:?}");
        }
        let other = tokens.check(&shown, "a certificate for somebody else", now_ms());
        assert_eq!(other.map(drop).unwrap_err(), TokenError::Unknown, "who has heard it asks for another");
        for id in ["", "0000000000000000", "../../../etc/pas", "..", "ä"] {
            let wrong = Shown { id: id.to_owned(), ..shown.clone() };
            assert_eq!(refused(&tokens, &wrong, now_ms()), TokenError::Unknown, "{id}");
        }
        assert!(tokens.check(&shown, ASKED, now_ms()).is_ok(), "still good");
    }

    #[test]
    fn what_is_no_token_is_told_from_one() {
        let (_home, tokens) = tokens();
        let token = make(&tokens).to_string();
        for wrong in
            ["", "tidecast1-", &token[..60], &token[1..], &token.replace(":7400", ""), &format!("{token} x")]
        {
            assert_eq!(wrong.parse::<Token>(), Err(NoToken), "{wrong}");
        }
    }

    #[test]
    fn tokens_of_yesterday_are_removed_by_the_next() {
        let (_home, tokens) = tokens();
        make(&tokens);
        assert_eq!(tokens.forget(now_ms() + 60_000).unwrap(), 1, "it can still be said that it has ended");
        assert_eq!(tokens.forget(now_ms() + 61_000 + REMEMBERED_MS).unwrap(), 0);
    }
}
