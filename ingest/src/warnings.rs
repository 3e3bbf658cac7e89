//! What is not as the broadcaster may think it is, in the broadcaster's words. Each is logged once. Pure.

use media::flv::{PassedOver, Tracks};

/// Tracks that are named one by one; beyond that they are counted.
const TRACKS_NAMED_MAX: usize = 8;

#[derive(Default)]
pub(crate) struct Warnings {
    /// Pictures came that open a GOP, but lean on the one before.
    pub(crate) open_gops: bool,
    logged: Vec<String>,
}

impl Warnings {
    /// All that there is to say now.
    pub(crate) fn told(&mut self, video: &Tracks, audio: &Tracks) -> Vec<String> {
        let mut warnings = Vec::new();
        let others = [("video", video.passed_over()), ("audio", audio.passed_over())];
        let mut names: Vec<_> =
            others.iter().flat_map(|(kind, tracks)| tracks.iter().map(|track| name(kind, track))).collect();
        if !names.is_empty() {
            let more = names.len().saturating_sub(TRACKS_NAMED_MAX);
            names.truncate(TRACKS_NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            warnings.push(format!(
                "Only the first video and the first audio track are shown. Left out: {}{more}.",
                names.join(", ")
            ));
        }
        if self.open_gops {
            warnings.push(
                "The encoder writes open GOPs, where viewers can hardly join: set it to closed GOPs \
                 (x265: no-open-gop)."
                    .to_owned(),
            );
        }
        for warning in &warnings {
            if !self.logged.contains(warning) {
                tracing::warn!("{warning}");
            }
        }
        self.logged.clone_from(&warnings);
        warnings
    }
}

fn name(kind: &str, track: &PassedOver) -> String {
    format!("{kind} track {track}")
}
