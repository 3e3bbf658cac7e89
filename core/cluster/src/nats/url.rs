//! Where a server of NATS is, and as whom a node comes to it.

use std::fmt;
use std::str::FromStr;

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

/// One server of a NATS cluster: `nats://host:4222` or `tls://host:4222`, with `user:password@` before the host or without.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl {
    /// Without the login, as servers tell of each other.
    pub(super) server: ServerAddr,
    login: Option<NatsLogin>,
}

/// As a server has it: what stands in a URL, percent-decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsLogin {
    pub(super) user: String,
    pub(super) password: String,
}

/// Why a text is no URL of a server. Tells nothing of what may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NatsUrlError {
    #[error(
        "{0:?} is no URL like nats://host:4222 or tls://host:4222, or with a login nats://user:password@host:4222, in which all but \
         letters and digits is percent-encoded"
    )]
    NoUrl(String),
    #[error("{0:?} has no user with a password before the host; a token is none")]
    HalfALogin(String),
    #[error("{0:?} has a user or password that is not UTF-8 once it is percent-decoded")]
    NoText(String),
}

impl NatsUrl {
    pub fn host(&self) -> &str {
        self.server.host()
    }

    pub fn port(&self) -> u16 {
        self.server.port()
    }

    pub fn login(&self) -> Option<&NatsLogin> {
        self.login.as_ref()
    }
}

impl FromStr for NatsUrl {
    type Err = NatsUrlError;

    fn from_str(text: &str) -> Result<Self, NatsUrlError> {
        let no_url = || NatsUrlError::NoUrl(hidden(text));
        let mut url = text.parse::<ServerAddr>().map_err(|_| no_url())?.into_inner();
        let is_url = ["nats://", "tls://"].iter().any(|scheme| text.starts_with(scheme));
        // A password in clear may end where a path begins, and what is before it is taken for a host.
        let is_all = ["", "/"].contains(&url.path()) && url.query().is_none() && url.fragment().is_none();
        if !is_url || !is_all || url.host_str().is_none_or(str::is_empty) {
            return Err(no_url());
        }
        let decoded = |part: &str| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded.map(String::from).map_err(|_| NatsUrlError::NoText(hidden(text)))
        };
        let login = match (url.username(), url.password().unwrap_or_default()) {
            ("", "") => None,
            ("", _) | (_, "") => return Err(NatsUrlError::HalfALogin(hidden(text))),
            (user, password) => Some(NatsLogin { user: decoded(user)?, password: decoded(password)? }),
        };
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| no_url())?;
        Ok(Self { server: ServerAddr::from_url(url).map_err(|_| no_url())?, login })
    }
}

/// Without the login that may be in it.
impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.server.scheme(), self.server.host(), self.server.port())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hidden(text: &str) -> String {
    let Some((login, host)) = text.rsplit_once('@') else { return text.to_owned() };
    let scheme = login.split_once("://").map(|(scheme, _)| format!("{scheme}://"));
    format!("{}(hidden)@{host}", scheme.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> Option<(String, String)> {
        let NatsUrl { login, .. } = text.parse().unwrap();
        login.map(|login| (login.user, login.password))
    }

    #[test]
    fn who_a_node_is_may_stand_in_a_url() {
        let own = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(login("nats://10.0.0.1"), None);
        assert_eq!(login("tls://ada:canary@nats.example:4333"), own("ada", "canary"));
        assert_eq!(login("nats://a%40b:c%3Ad%2Fe%25%C3%A9@10.0.0.1:4222"), own("a@b", "c:d/e%é"));
        let url: NatsUrl = "nats://ada:canary@10.0.0.1".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "nats://10.0.0.1:4222 nats://10.0.0.1:4222");
        assert_eq!(url.server, "nats://10.0.0.1".parse::<NatsUrl>().unwrap().server);
    }

    #[test]
    fn what_is_no_url_is_refused_without_the_password_in_it() {
        use NatsUrlError::{HalfALogin, NoText, NoUrl};
        for (text, why) in [
            ("10.0.0.1:4222", NoUrl("10.0.0.1:4222".to_owned())),
            ("http://10.0.0.1", NoUrl("http://10.0.0.1".to_owned())),
            ("nats://", NoUrl("nats://".to_owned())),
            ("ada:canary@a", NoUrl("(hidden)@a".to_owned())),
            ("nats://ada:can/ary@a", NoUrl("nats://(hidden)@a".to_owned())),
            ("nats://ada:12/canary@a", NoUrl("nats://(hidden)@a".to_owned())),
            ("nats://ada:12#canary@a", NoUrl("nats://(hidden)@a".to_owned())),
            ("nats://canary@a", HalfALogin("nats://(hidden)@a".to_owned())),
            ("nats://ada:@a", HalfALogin("nats://(hidden)@a".to_owned())),
            ("nats://:canary@a", HalfALogin("nats://(hidden)@a".to_owned())),
            ("nats://ada:canary%ff@a", NoText("nats://(hidden)@a".to_owned())),
        ] {
            assert_eq!(text.parse::<NatsUrl>(), Err(why), "{text}");
        }
    }
}
