//! How pages play a stream where the viewer has not said it.

use serde::Serialize;

/// A way for media to a viewer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Files that caches take: for a crowd.
    #[default]
    Hls,
    /// Least delay, at the price of a session with this node for each viewer.
    WebRtc,
}

impl Transport {
    /// As in the configuration and in `GET /nodes`; `None` for other words.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hls, Self::WebRtc].into_iter().find(|transport| transport.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hls => "hls",
            Self::WebRtc => "webrtc",
        }
    }
}
