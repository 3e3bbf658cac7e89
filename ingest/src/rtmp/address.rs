//! Which stream a publisher names, and with which key.
//!
//! People type `rtmp://host/{app}` and `{stream}?key={publish key}` into two fields, or one whole URL; what
//! arrives is an application (`connect`), the URL behind it, and a name (`publish`), each perhaps with a query.

use media::{NameError, StreamId};

use crate::Secret;

/// What `connect` said. Has no `Debug`: both may hold the publish key.
pub(super) struct Application {
    pub(super) app: String,
    pub(super) tc_url: String,
}

impl Application {
    /// The stream called `name` in this application. Nothing is percent-decoded: names have no character that
    /// needs it, and a key is compared as it was typed.
    pub(super) fn stream(&self, name: &str) -> Result<StreamId, NameError> {
        // `rtmp://host/live/` is how many guides write it.
        StreamId::new(path(&self.app).trim_end_matches('/'), path(name))
    }

    /// The publish key, from wherever it was put; empty if nowhere.
    pub(super) fn key(&self, name: &str) -> Secret {
        let key = [name, &self.app, &self.tc_url].into_iter().find_map(key_in);
        Secret::new(key.unwrap_or_default().to_owned())
    }
}

fn path(address: &str) -> &str {
    address.split_once('?').map_or(address, |(path, _)| path)
}

fn key_in(address: &str) -> Option<&str> {
    let (_, query) = address.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("key="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(app: &str, tc_url: &str, name: &str) -> Result<(String, String), NameError> {
        let application = Application { app: app.to_owned(), tc_url: tc_url.to_owned() };
        let id = application.stream(name)?;
        Ok((id.to_string(), application.key(name).expose().to_owned()))
    }

    #[test]
    fn the_key_is_found_wherever_people_put_it() {
        let found = Ok(("live/x".to_owned(), "k".to_owned()));
        assert_eq!(parsed("live", "rtmp://host/live", "x?key=k"), found);
        assert_eq!(parsed("live/", "rtmp://host/live/", "x?a=b&key=k&c=d"), found);
        assert_eq!(parsed("live?key=k", "rtmp://host/live?key=k", "x"), found);
        assert_eq!(parsed("live", "rtmp://host/live?key=k", "x"), found);
        assert_eq!(parsed("live?key=other", "rtmp://host/live?key=other", "x?key=k"), found);
        assert_eq!(parsed("live", "rtmp://host/live", "x"), Ok(("live/x".to_owned(), String::new())));
        assert_eq!(parsed("live", "", "x?monkey=k"), Ok(("live/x".to_owned(), String::new())));
    }

    /// Threat: a name that becomes a path, a URL or a wildcard. The rule itself is `media::StreamId`'s.
    #[test]
    fn hostile_names_stop_here() {
        let long = "a".repeat(65_536);
        for name in
            ["", "..", "../x", "a/b", "%2e%2e", "x%00", "a\\b", "/etc/passwd", "*", ">", "a.b", "x#y", &long]
        {
            assert!(parsed("live", "rtmp://host/live", name).is_err(), "{name:.20} as a stream");
            assert!(parsed(name, "rtmp://host/live", "x").is_err(), "{name:.20} as an application");
        }
    }
}
