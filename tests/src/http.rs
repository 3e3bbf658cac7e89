//! A plain HTTP client that takes every status as an answer and waits for none for ever.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ureq::Agent;

/// Above every hold of the server: three target durations of at most 12 s.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// Beyond any part or segment of the test media.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    server: SocketAddr,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    #[must_use]
    pub fn new(server: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            // They are answers, too.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(ANSWER_MAX))
            .build();
        Self { agent: config.into(), server }
    }

    /// # Errors
    /// If there is no complete answer; any status is one.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.get_with(path, &[])
    }

    /// # Errors
    /// As [`Self::get`].
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let mut request = self.agent.get(format!("http://{}{path}", self.server));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let asked = || format!("GET {path}");
        let mut response = request.call().with_context(asked)?;
        let body =
            response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec().with_context(asked)?;
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }

    /// Any request.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let mut request = ureq::http::Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.uri(format!("http://{}{path}", self.server)).body(body)?;
        let asked = || format!("{method} {path}");
        let mut response = self.agent.run(request).with_context(asked)?;
        let body =
            response.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_vec().with_context(asked)?;
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body })
    }

    /// As [`Self::get`], and nothing but 200 will do.
    ///
    /// # Errors
    /// If the status is another.
    pub fn get_ok(&self, path: &str) -> Result<Answer> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "GET {path}: status {}: {}", answer.status, answer.text());
        Ok(answer)
    }
}

impl Answer {
    /// The values of all headers of this name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// The header's value, or "" without one.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The path a relative reference means, seen from the document at `base` (RFC 3986 §5.2, as far as playlists go).
#[must_use]
pub fn resolve(base: &str, reference: &str) -> String {
    let mut folders: Vec<&str> = base.split('/').collect();
    folders.pop();
    for step in reference.split('/') {
        match step {
            "." => {}
            ".." => drop(folders.pop()),
            step => folders.push(step),
        }
    }
    folders.join("/")
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn references_are_resolved_against_the_folder_of_their_document() {
        for (base, reference, path) in [
            ("/hls/live/cam/index.m3u8", "s1/v/index.m3u8", "/hls/live/cam/s1/v/index.m3u8"),
            ("/hls/live/cam/s1/v/index.m3u8", "7.0.m4s", "/hls/live/cam/s1/v/7.0.m4s"),
            ("/hls/live/cam/s1/v/index.m3u8", "../a/index.m3u8", "/hls/live/cam/s1/a/index.m3u8"),
        ] {
            assert_eq!(resolve(base, reference), path);
        }
    }
}
