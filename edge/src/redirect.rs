//! Where a page is that was asked for without encryption.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri};

/// The same address over HTTPS, on `port` of the host that the browser asked; `None` if it named none.
///
/// The host is what a stranger says. That leads nobody astray but the one who said it: no cache on the way keeps the
/// answer, and a page cannot make a browser send another host than the one it connects to.
pub(crate) fn encrypted(uri: &Uri, headers: &HeaderMap, port: u16) -> Option<HeaderValue> {
    let host: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    // RFC 9110, §7.2: a host has no user.
    if host.as_str().contains('@') || host.host().is_empty() {
        return None;
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    HeaderValue::try_from(format!("https://{}{port}{path}", host.host())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(host: &str, path: &str, port: u16) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        let target = encrypted(&path.parse().unwrap(), &headers, port)?;
        Some(target.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_browser_stays_at_the_host_it_asked() {
        for (host, path, port, target) in [
            (
                "live.example:8080",
                "/watch/live/cam?t=1",
                8443,
                "https://live.example:8443/watch/live/cam?t=1",
            ),
            ("live.example", "/", 443, "https://live.example/"),
            ("[2001:db8::1]:8080", "/connect", 8443, "https://[2001:db8::1]:8443/connect"),
            ("192.0.2.1:80", "//evil.example/", 443, "https://192.0.2.1//evil.example/"),
        ] {
            assert_eq!(redirected(host, path, port).as_deref(), Some(target));
        }
    }

    #[test]
    fn a_host_that_is_none_leads_nowhere() {
        for host in ["", "a b", "user@evil.example", "live.example/x"] {
            assert_eq!(redirected(host, "/", 443), None, "{host}");
        }
        assert_eq!(encrypted(&Uri::from_static("/"), &HeaderMap::new(), 443), None);
    }
}
