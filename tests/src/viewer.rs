//! A viewer that follows a stream by blocking reloads, as a player does, checks every playlist strictly, full and as a
//! delta update, and keeps every byte for others to look into.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;

use crate::http::{Http, resolve};
use crate::poll;
use crate::strict::{
    MediaPlaylist, MultivariantPlaylist, Segment, Variant, Violation, check_bandwidth, check_delta,
    check_presentation, check_reload,
};

/// The longest a stream may be *starting*: 12 s until segment 0 is complete, and room for a loaded machine; and until it
/// has its rungs.
const START_MAX: Duration = Duration::from_secs(40);

/// What a rendition may lack, as where one track begins later than the other. The stream would go on in gaps for ever.
const GAPS_MAX: Duration = Duration::from_secs(5);

/// Everything one viewer got.
pub struct Recording {
    pub multivariant: MultivariantPlaylist,
    /// Video first, if there is any.
    pub renditions: Vec<RecordedRendition>,
    /// What was against the rules, each once.
    pub violations: Vec<Violation>,
}

pub struct RecordedRendition {
    pub kind: Kind,
    /// As its playlist's path has it: `v`, `v360`, `a`.
    pub name: String,
    pub init: Vec<u8>,
    pub parts: Vec<RecordedPart>,
    /// Every version seen, in order.
    pub playlists: Vec<MediaPlaylist>,
    /// The delta updates that came in the same version as a full playlist, and were compared with it.
    pub deltas: Vec<MediaPlaylist>,
    violations: Vec<Violation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Video,
    Audio,
}

pub struct RecordedPart {
    pub msn: u64,
    pub number: usize,
    pub duration: Duration,
    pub independent: bool,
    /// Of its segment.
    pub program_date_time: Option<Timestamp>,
    pub bytes: Vec<u8>,
}

/// Follows `stream` ("live/name") from its first playlist until `media` of it was received.
///
/// # Errors
/// If the stream does not come, ends early, or an answer is not what a player can go on with.
pub fn follow(http: &Http, stream: &str, media: Duration) -> Result<Recording> {
    follow_variants(http, stream, media, 1, 0)
}

/// The same, of a stream of so many variants and at least so many renditions of sound, as soon as all of them are offered.
///
/// # Errors
/// As [`follow`].
pub fn follow_variants(
    http: &Http,
    stream: &str,
    media: Duration,
    variants: usize,
    sounds: usize,
) -> Result<Recording> {
    let path = format!("/hls/{stream}/index.m3u8");
    let multivariant = poll::until(&format!("{variants} variants of {stream}"), START_MAX, || {
        let answer = http.get(&path)?;
        let multivariant = match answer.status {
            200 => MultivariantPlaylist::parse(&answer.text())?,
            404 => return Ok(None),
            status => bail!("GET {path}: status {status}: {}", answer.text()),
        };
        let found = pictures(&multivariant).len();
        ensure!(found <= variants, "{variants} variants were expected:\n{}", answer.text());
        // A sound that is made of another comes a moment after the pictures, or before them.
        Ok((found == variants && multivariant.renditions.len() >= sounds).then_some(multivariant))
    })?;

    let mut sources = Vec::new();
    for variant in pictures(&multivariant) {
        let is_video = variant.resolution.is_some();
        sources.push((if is_video { Kind::Video } else { Kind::Audio }, resolve(&path, &variant.uri)));
    }
    let audio = multivariant.renditions.iter().filter_map(|rendition| rendition.uri.as_ref());
    sources.extend(audio.map(|uri| (Kind::Audio, resolve(&path, uri))));

    let renditions: Vec<RecordedRendition> = thread::scope(|scope| {
        let followers: Vec<_> = sources
            .iter()
            .map(|(kind, path)| scope.spawn(move || Follower::new(http, *kind, path).follow(media)))
            .collect();
        followers
            .into_iter()
            .map(|follower| follower.join().expect("a follower does not panic"))
            .collect::<Result<_>>()
    })?;

    let mut violations: Vec<Violation> =
        renditions.iter().flat_map(|rendition| rendition.violations.clone()).collect();
    violations.extend(violations_between(&renditions));
    // Bit rates are stamped again once the first keyframe intervals are known.
    let multivariant = MultivariantPlaylist::parse(&http.get_ok(&path)?.text())?;
    for variant in &multivariant.variants {
        let group =
            multivariant.renditions.iter().filter(|audio| Some(&audio.group_id) == variant.audio.as_ref());
        let mut names: Vec<_> = group.filter_map(|audio| audio.uri.as_deref()).map(name_in).collect();
        names.push(name_in(&variant.uri));
        names.dedup();
        let of_it = |rendition: &&RecordedRendition| names.contains(&rendition.name.as_str());
        let peak = renditions.iter().filter(of_it).map(RecordedRendition::peak_bits_per_second).sum();
        violations.extend(check_bandwidth(variant, peak));
    }
    let mut told = HashSet::new();
    violations.retain(|violation| told.insert(violation.to_string()));
    Ok(Recording { multivariant, renditions, violations })
}

/// The variants with a picture, each once whatever its sound; all, where there is none. Sound alone is also what goes
/// with the others.
fn pictures(multivariant: &MultivariantPlaylist) -> Vec<&Variant> {
    let all = &multivariant.variants;
    let mut told = HashSet::new();
    let with = all.iter().filter(|variant| variant.resolution.is_some() && told.insert(variant.uri.clone()));
    let with: Vec<_> = with.collect();
    if with.is_empty() { all.iter().collect() } else { with }
}

/// Of a rendition, in the path of its playlist.
fn name_in(path: &str) -> &str {
    path.rsplit('/').nth(1).unwrap_or_default()
}

/// Compares the playlists of all renditions that stood at the same segment and part.
fn violations_between(renditions: &[RecordedRendition]) -> Vec<Violation> {
    let Some((first, others)) = renditions.split_first() else { return Vec::new() };
    let mut violations = Vec::new();
    for playlist in &first.playlists {
        let mut same = vec![(first.name.as_str(), playlist)];
        for other in others {
            same.extend(
                other
                    .playlists
                    .iter()
                    .find(|twin| twin.edge() == playlist.edge())
                    .map(|twin| (other.name.as_str(), twin)),
            );
        }
        if same.len() == renditions.len() {
            violations.extend(check_presentation(&same));
        }
    }
    violations
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

impl RecordedRendition {
    /// Of the complete segments.
    fn peak_bits_per_second(&self) -> u64 {
        let segments = self.playlists.iter().flat_map(|playlist| &playlist.segments);
        let rate = |segment: &Segment| {
            let parts = self.parts.iter().filter(|part| part.msn == segment.msn);
            let bytes: usize = parts.map(|part| part.bytes.len()).sum();
            Some((bytes as f64 * 8.0 / segment.duration()?.as_secs_f64()) as u64)
        };
        segments.filter_map(rate).max().unwrap_or_default()
    }

    /// Init and all parts in one file, as a demuxer reads it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_to(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let path = folder.join(format!("{name}-{}.mp4", self.name));
        let mut bytes = self.init.clone();
        for part in &self.parts {
            bytes.extend_from_slice(&part.bytes);
        }
        fs::write(&path, bytes)?;
        Ok(path)
    }
}

struct Follower<'a> {
    http: &'a Http,
    path: &'a str,
    init_uri: Option<String>,
    recorded: RecordedRendition,
    /// Segment and number of the newest part that is a gap, and how long all of them are.
    gaps: (Option<(u64, usize)>, Duration),
}

impl<'a> Follower<'a> {
    fn new(http: &'a Http, kind: Kind, path: &'a str) -> Self {
        let recorded = RecordedRendition {
            kind,
            name: name_in(path).to_owned(),
            init: Vec::new(),
            parts: Vec::new(),
            playlists: Vec::new(),
            deltas: Vec::new(),
            violations: Vec::new(),
        };
        Self { http, path, init_uri: None, recorded, gaps: (None, Duration::ZERO) }
    }

    fn follow(mut self, media: Duration) -> Result<RecordedRendition> {
        self.take(self.path.to_owned())?;
        loop {
            let playlist = self.recorded.playlists.last().context("one was just taken")?;
            let received: Duration = self.recorded.parts.iter().map(|part| part.duration).sum();
            if received >= media {
                return Ok(self.recorded);
            }
            ensure!(!playlist.ended, "the stream ended after {received:?} of {media:?}");
            let (_, gaps) = self.gaps;
            ensure!(gaps <= GAPS_MAX, "{}: {gaps:?} of gaps beside {received:?} of media", self.path);
            let last = playlist.segments.last().context("a playlist appears with its first segment")?;
            let next = match &last.finished {
                Some(_) => (last.msn + 1, 0),
                None => (last.msn, last.parts.len() as u64),
            };
            // Every second time the hinted part is asked for before it is announced, as Safari does.
            let hinted = match (&playlist.preload_hint, next.1 % 2) {
                (Some(hint), 1) => Some(self.http.get(&resolve(self.path, hint))?),
                _ => None,
            };
            self.take(format!("{}?_HLS_msn={}&_HLS_part={}", self.path, next.0, next.1))?;
            if let Some(hinted) = hinted {
                // It may have become a gap.
                let newest = self.recorded.playlists.last();
                let segment = newest.and_then(|newest| newest.segment(next.0));
                let is_gap = segment
                    .is_some_and(|segment| segment.parts.get(next.1 as usize).is_some_and(|part| part.gap));
                let expected = if is_gap { 404 } else { 200 };
                ensure!(hinted.status == expected, "the hinted part: {}: {}", hinted.status, hinted.text());
            }
            let edge = self.recorded.playlists.last().and_then(MediaPlaylist::edge);
            if edge < Some((next.0, Some(next.1))) {
                let place = format!("reload for {}.{}", next.0, next.1);
                self.recorded
                    .violations
                    .push(Violation { place, what: format!("answered with {edge:?} (§6.2.5.2)") });
            }
        }
    }

    /// Loads a version of the playlist, checks it, and fetches what is new in it.
    fn take(&mut self, request: String) -> Result<()> {
        let text = self.http.get_ok(&request)?.text();
        let playlist = MediaPlaylist::parse(&text).with_context(|| format!("{request}:\n{text}"))?;
        let mut violations = playlist.check();
        if let Some(previous) = self.recorded.playlists.last() {
            violations.extend(check_reload(previous, &playlist));
            let request = format!("{request}&_HLS_skip=YES");
            let text = self.http.get_ok(&request)?.text();
            let delta = MediaPlaylist::parse(&text).with_context(|| format!("{request}:\n{text}"))?;
            violations.extend(delta.check());
            // A part may have come in between.
            if (delta.edge(), delta.ended) == (playlist.edge(), playlist.ended) {
                violations.extend(check_delta(previous, &delta, &playlist));
                self.recorded.deltas.push(delta);
            }
        }
        let name = &self.recorded.name;
        self.recorded.violations.extend(
            violations
                .into_iter()
                .map(|Violation { place, what }| Violation { place: format!("{name}, {place}"), what }),
        );
        self.fetch(&playlist)?;
        self.recorded.playlists.push(playlist);
        Ok(())
    }

    fn fetch(&mut self, playlist: &MediaPlaylist) -> Result<()> {
        for segment in &playlist.segments {
            if self.init_uri != segment.map {
                ensure!(
                    self.init_uri.is_none(),
                    "the init segment changed, and no fixture changes its codec"
                );
                let uri = segment.map.as_ref().context("no init segment")?;
                self.recorded.init = self.http.get_ok(&resolve(self.path, uri))?.body;
                self.init_uri = segment.map.clone();
            }
            for (number, part) in segment.parts.iter().enumerate() {
                // As a player: what the playlist calls a gap is not asked for.
                if part.gap {
                    let (newest, gaps) = &mut self.gaps;
                    if newest.is_none_or(|newest| newest < (segment.msn, number)) {
                        *newest = Some((segment.msn, number));
                        *gaps += part.duration;
                    }
                    continue;
                }
                let is_new = self
                    .recorded
                    .parts
                    .last()
                    .is_none_or(|last| (last.msn, last.number) < (segment.msn, number));
                if is_new {
                    self.recorded.parts.push(RecordedPart {
                        msn: segment.msn,
                        number,
                        duration: part.duration,
                        independent: part.independent,
                        program_date_time: segment.program_date_time,
                        bytes: self.http.get_ok(&resolve(self.path, &part.uri))?.body,
                    });
                }
            }
            let was_open = self
                .recorded
                .playlists
                .last()
                .and_then(|last| last.segment(segment.msn)?.finished.clone())
                .is_none();
            if let (Some((_, uri)), true, false) = (&segment.finished, was_open, segment.gap) {
                self.compare_segment(segment.msn, uri)?;
            }
        }
        Ok(())
    }

    /// A segment is its parts, byte for byte: players mix both.
    fn compare_segment(&mut self, msn: u64, uri: &str) -> Result<()> {
        let whole = self.http.get_ok(&resolve(self.path, uri))?.body;
        let parts: Vec<u8> = self
            .recorded
            .parts
            .iter()
            .filter(|part| part.msn == msn)
            .flat_map(|part| part.bytes.clone())
            .collect();
        if whole != parts {
            let what = format!("{} bytes, its parts {}; they must be the same", whole.len(), parts.len());
            self.recorded.violations.push(Violation { place: format!("segment {msn}"), what });
        }
        Ok(())
    }
}
