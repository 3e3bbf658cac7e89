//! A stream as it is at a moment: which renditions there are, and which segments of them have media.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::{Http, resolve};
use crate::poll;
use crate::server::Tidecast;
use crate::strict::{MediaPlaylist, MultivariantPlaylist};

/// The path of the playlist of a stream's picture, once there is one.
///
/// # Errors
/// If there is none `within` that time, or a playlist breaks a rule.
pub fn video_path(http: &Http, stream: &str, within: Duration) -> Result<String> {
    let path = format!("/hls/{stream}/index.m3u8");
    let text = poll::until("the first playlist", within, || {
        let answer = http.get(&path)?;
        Ok((answer.status == 200).then(|| answer.text()))
    })?;
    let variants = MultivariantPlaylist::parse(&text)?.variants;
    Ok(resolve(&path, &variants.first().context("no variant")?.uri))
}

/// A stream with a picture, for whoever looks now and then.
pub struct Watched {
    http: Http,
    stream: String,
}

impl Watched {
    pub fn of(server: &Tidecast, stream: &str) -> Self {
        Self { http: server.viewer_http(), stream: stream.to_owned() }
    }

    /// Of the rendition of this name; `None` while there is none.
    ///
    /// # Errors
    /// If a playlist breaks a rule.
    pub fn playlist(&self, name: &str) -> Result<Option<MediaPlaylist>> {
        let Some(path) = self.path(name)? else { return Ok(None) };
        let answer = self.http.get(&path)?;
        if answer.status != 200 {
            return Ok(None);
        }
        Ok(Some(MediaPlaylist::parse(&answer.text())?))
    }

    /// Of the playlist of a rendition.
    fn path(&self, name: &str) -> Result<Option<String>> {
        let path = format!("/hls/{}/index.m3u8", self.stream);
        let answer = self.http.get(&path)?;
        if answer.status != 200 {
            return Ok(None);
        }
        let variants = MultivariantPlaylist::parse(&answer.text())?.variants;
        let own = resolve(&path, &variants.first().context("no variant")?.uri);
        Ok(Some(own.replace("/v/", &format!("/{name}/"))))
    }

    /// A part or segment, by its address in the playlist of a rendition.
    ///
    /// # Errors
    /// If it is not there.
    pub fn fetch(&self, name: &str, uri: &str) -> Result<Vec<u8>> {
        let path = self.path(name)?.context("no playlist")?;
        Ok(self.http.get_ok(&resolve(&path, uri))?.body)
    }

    /// MSNs of the complete segments of a rendition that have media.
    ///
    /// # Errors
    /// As [`Watched::playlist`].
    pub fn whole(&self, name: &str) -> Result<Vec<u64>> {
        let playlist = self.playlist(name)?;
        let segments = playlist.into_iter().flat_map(|playlist| playlist.segments);
        let whole = segments.filter(|segment| segment.finished.is_some() && !segment.gap);
        Ok(whole.map(|segment| segment.msn).collect())
    }

    /// The last of them, or 0.
    ///
    /// # Errors
    /// As [`Watched::playlist`].
    pub fn newest(&self, name: &str) -> Result<u64> {
        Ok(self.whole(name)?.last().copied().unwrap_or(0))
    }

    /// How many pictures are offered.
    ///
    /// # Errors
    /// If there is no multivariant playlist, or it breaks a rule.
    pub fn variants(&self) -> Result<usize> {
        let text = self.http.get_ok(&format!("/hls/{}/index.m3u8", self.stream))?.text();
        let variants = MultivariantPlaylist::parse(&text)?.variants;
        Ok(variants.iter().filter(|variant| variant.resolution.is_some()).count())
    }
}
