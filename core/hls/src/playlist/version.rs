//! One version of a media playlist, in every form it is asked for.

use std::sync::OnceLock;

use ::http::HeaderValue;
use prometheus_client::metrics::counter::Counter;

use super::Rendered;
use super::media::{MediaPlaylist, Skip};
use crate::FORMAT_VERSION;
use crate::segment::header_value;

/// The full playlist, rendered by whoever publishes; its delta update, rendered for the first who asks.
///
/// A delta update costs as much to compress as the full playlist. Many streams are watched by nobody who wants one,
/// and they pay nothing for it; where thousands want it, it is still made once.
#[derive(Debug)]
pub(crate) struct Version {
    full: Rendered,
    skip: Option<Skip>,
    delta: OnceLock<Rendered>,
    /// Session, rendition, position and state.
    tag: String,
}

impl Version {
    /// `tag` names this version among all of its stream.
    pub(crate) fn new(playlist: &MediaPlaylist<'_>, tag: String) -> Self {
        let (text, skip) = playlist.render();
        let full = Rendered::new(text, |encoding| etag(&tag, "full", encoding));
        Self { full, skip, delta: OnceLock::new(), tag }
    }

    pub(crate) fn full(&self) -> &Rendered {
        &self.full
    }

    /// The delta update; the full playlist, if nothing in it is old enough to be left out. `renders` counts those
    /// that had to be made.
    pub(crate) fn delta(&self, renders: &Counter) -> &Rendered {
        let Some(skip) = &self.skip else { return &self.full };
        self.delta.get_or_init(|| {
            renders.inc();
            let full = std::str::from_utf8(&self.full.plain.body).expect("it was made from a string");
            Rendered::new(skip.delta(full), |encoding| etag(&self.tag, "delta", encoding))
        })
    }
}

fn etag(tag: &str, form: &str, encoding: &str) -> HeaderValue {
    header_value(format!("\"{tag}.{form}.{encoding}.{FORMAT_VERSION}\""))
}
