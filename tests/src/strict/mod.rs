//! A reader of HLS playlists that forgives nothing, written from the rules and not from our writer.
//!
//!   text ─▶ [`MediaPlaylist::parse`]      syntax, order of tags, required attributes; a tag we never write is refused
//!        ─▶ [`MediaPlaylist::check`]      what one playlist must satisfy by itself
//!        ─▶ [`check_reload`]              what a playlist must satisfy after the one before it
//!        ─▶ [`check_delta`]               what a delta update must satisfy beside the full playlist
//!        ─▶ [`check_presentation`]        what all playlists of one presentation must agree on
//!
//!   text ─▶ [`MultivariantPlaylist::parse`]
//!        ─▶ [`check_bandwidth`]           what a variant says of its bit rate, beside what was measured
//!        ─▶ [`check_filtered`]            a filtered one beside the whole
//!
//! Sections are those of draft-pantos-hls-rfc8216bis. Where the draft says SHOULD and players break, we say must.

mod attributes;
mod check;
mod delta;
mod media;
mod multivariant;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use check::{check_presentation, check_reload};
pub use delta::check_delta;
pub use media::{MediaPlaylist, Part, RenditionReport, Segment, ServerControl};
pub use multivariant::{MultivariantPlaylist, Rendition, Variant, check_bandwidth, check_filtered};

/// One broken rule, in words that name the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Violation {
    /// A line of the playlist, or the segment and part the rule is about.
    pub place: String,
    pub what: String,
}

impl Violation {
    fn at_line(line: usize, what: impl Into<String>) -> Self {
        Self { place: format!("line {line}"), what: what.into() }
    }

    fn at(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// The non-comment lines of a playlist, numbered from 1, after the checks of §4.1 on the text as a whole.
fn lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, Violation> {
    if text.starts_with('\u{feff}') {
        return Err(Violation::at_line(1, "a byte order mark is forbidden (§4.1)"));
    }
    if !text.ends_with('\n') {
        return Err(Violation::at_line(text.lines().count(), "the last line has no end"));
    }
    let mut numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    if let Some((line, _)) = numbered.clone().find(|(_, line)| line.contains(char::is_control)) {
        return Err(Violation::at_line(line, "control characters are forbidden (§4.1)"));
    }
    match numbered.next() {
        Some((_, "#EXTM3U")) => {}
        _ => return Err(Violation::at_line(1, "the first line must be #EXTM3U (§4.4.1.1)")),
    }
    let is_comment = |line: &str| line.is_empty() || (line.starts_with('#') && !line.starts_with("#EXT"));
    Ok(numbered.filter(move |(_, line)| !is_comment(line)))
}

/// decimal-integer of §4.2: digits only, at most 20.
fn integer(line: usize, text: &str) -> Result<u64, Violation> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if plain => Ok(number),
        _ => Err(Violation::at_line(line, format!("{text:?} is not a decimal integer"))),
    }
}

/// decimal-floating-point of §4.2, as seconds; at most nanoseconds.
fn seconds(line: usize, text: &str) -> Result<Duration, Violation> {
    let wrong = || Violation::at_line(line, format!("{text:?} is not a decimal number of seconds"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 {
        return Err(wrong());
    }
    let whole = integer(line, whole).map_err(|_| wrong())?;
    let nanos = integer(line, &format!("{fraction:0<9}")).map_err(|_| wrong())?;
    Ok(Duration::from_secs(whole) + Duration::from_nanos(nanos))
}

/// A URI players resolve against the playlist's own: relative, so that a path prefix (a token, a proxy) carries over.
fn relative_uri(line: usize, text: &str) -> Result<String, Violation> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%?=&+".contains(&byte);
    if text.is_empty() || text.starts_with('/') || !text.bytes().all(allowed) {
        return Err(Violation::at_line(line, format!("{text:?} is not a plain relative URI")));
    }
    Ok(text.to_owned())
}
