//! A publisher's SDP offer: what of it is taken, and what is not, in words. Pure.
//!
//!   text ─▶ [`Offer::parse`]: one video and one audio track, one codec each ─▶ [`Offer::reduced`] ─▶ `peer.rs`
//!             └▶ layers.rs: in how many sizes the video comes
//!
//! What is chosen here is all that the peer connection gets to see, so that the answer cannot say anything else.

mod layers;
mod rewrite;

use media::{TrackKind, VideoCodec};

pub(super) use self::layers::{LAYERS_MAX, RidExtensions};

/// Longest offer, in bytes. Chromium's has 6 kB with all its codecs.
pub(super) const OFFER_BYTES_MAX: usize = 64 * 1024;
/// Most lines and media sections. Browsers write 300 lines and three sections.
const LINES_MAX: usize = 2_000;
const SECTIONS_MAX: usize = 16;

/// H.264's `profile_idc` of what is taken: baseline, main, high. The rest has more than 4:2:0 in 8 bits, or nobody sends it.
const PROFILES: [u8; 3] = [66, 77, 100];

/// Why an offer is refused. The publisher must act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OfferError {
    #[error("the offer is no SDP: {0}")]
    Malformed(&'static str),
    #[error("the offer lacks {0}, without which there is no WebRTC")]
    Lacks(&'static str),
    #[error("the offer asks for media: this is where publishers send; set the tracks to sendonly")]
    NothingSent,
    #[error("the offer has more than one {} track; send one", .0.name())]
    Several(Kind),
    #[error("the offer has {} in {offered}, but only {} is taken", .kind.name(), .kind.codec())]
    Codec { kind: Kind, offered: String },
    /// Of all that we take it has nothing that could be shown without an encoder.
    #[error(
        "the offer has video in VP8, which is shown to viewers after it was transcoded, and this server transcodes \
         nothing of this stream (there is no encoder, none has room, or its ladder is off); offer H.264, VP9 or AV1"
    )]
    NotTranscoded,
    #[error("the offer has video in {0} sizes, but no more than {LAYERS_MAX} are taken")]
    Layers(usize),
    #[error("the offer's tracks are not bundled (RFC 9143); set bundlePolicy to max-bundle")]
    NotBundled,
}

impl OfferError {
    /// It is not even what it says it is.
    pub(super) fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::Lacks(_))
    }
}

/// As [`TrackKind`], with words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(pub(super) TrackKind);

impl Kind {
    fn name(self) -> &'static str {
        match self.0 {
            TrackKind::Video => "video",
            TrackKind::Audio => "audio",
        }
    }

    fn codec(self) -> &'static str {
        match self.0 {
            TrackKind::Video => {
                "H.264 (baseline, main or high), HEVC (main), AV1 (main), VP8 or VP9 (profile 0)"
            }
            TrackKind::Audio => "Opus",
        }
    }
}

/// One track that the publisher will send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) payload_type: u8,
    /// Of video.
    pub(super) codec: Option<VideoCodec>,
    /// Retransmissions of it (RFC 4588).
    pub(super) rtx_payload_type: Option<u8>,
    /// Its format parameters as the publisher wrote them.
    pub(super) parameters: String,
    /// The names of its layers (RFC 8851), if the publisher sends more than one, or one by its name.
    pub(super) rids: Vec<String>,
    pub(super) rid_extensions: Option<RidExtensions>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    session: Vec<String>,
    sections: Vec<Section>,
    pub(super) video: Option<Track>,
    pub(super) audio: Option<Track>,
    /// The publisher waits for us to begin the DTLS handshake (RFC 5763, §5).
    pub(super) is_passive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    /// The `m=` line in words, without the `m=`.
    media: Vec<String>,
    lines: Vec<String>,
    /// What of it is taken.
    taken: Option<Track>,
    /// Why nothing is, for the answer.
    refused: Option<String>,
}

impl Offer {
    /// `transcodes`: what not every viewer can be shown is made into something else here.
    ///
    /// # Errors
    /// [`OfferError`], in words meant for the publisher.
    pub(super) fn parse(body: &[u8], transcodes: bool) -> Result<Self, OfferError> {
        let text = std::str::from_utf8(body).map_err(|_| OfferError::Malformed("it is not UTF-8"))?;
        let mut lines = text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty());
        if lines.next() != Some("v=0") {
            return Err(OfferError::Malformed("it does not begin with v=0"));
        }
        let (mut session, mut sections) = (vec!["v=0".to_owned()], Vec::<Section>::new());
        for (number, line) in lines.enumerate() {
            let is_field = line.as_bytes().get(1) == Some(&b'=');
            if !is_field || number > LINES_MAX || line.contains(|char: char| char.is_control()) {
                return Err(OfferError::Malformed("a line is not of the form letter=value"));
            }
            if let Some(media) = line.strip_prefix("m=") {
                if sections.len() == SECTIONS_MAX {
                    return Err(OfferError::Malformed("it has too many media sections"));
                }
                let media = media.split_whitespace().map(str::to_owned).collect();
                sections.push(Section { media, lines: Vec::new(), taken: None, refused: None });
            } else {
                let lines = sections.last_mut().map_or(&mut session, |section| &mut section.lines);
                lines.push(line.to_owned());
            }
        }
        Self { session, sections, video: None, audio: None, is_passive: false }.choose(transcodes)
    }

    fn choose(mut self, transcodes: bool) -> Result<Self, OfferError> {
        let mut sends = 0;
        for index in 0..self.sections.len() {
            let section = &self.sections[index];
            let kind = match section.media.first().map(String::as_str) {
                Some("video") => Kind(TrackKind::Video),
                Some("audio") => Kind(TrackKind::Audio),
                Some(_) => continue,
                None => return Err(OfferError::Malformed("a media line is empty")),
            };
            if section.media.len() < 4 {
                return Err(OfferError::Malformed("a media line has no formats"));
            }
            if !self.is_sent(section) {
                continue;
            }
            sends += 1;
            for needed in ["ice-ufrag", "ice-pwd", "fingerprint", "setup"] {
                if self.attribute(section, needed).is_none_or(str::is_empty) {
                    return Err(OfferError::Lacks(needed));
                }
            }
            for needed in ["mid", "rtcp-mux"] {
                if section.attribute(needed).is_none() {
                    return Err(OfferError::Lacks(needed));
                }
            }
            self.is_passive |= self.attribute(section, "setup") == Some("passive");
            let section = &mut self.sections[index];
            match section.choose(kind, transcodes) {
                Ok(track) => {
                    section.taken = Some(track.clone());
                    let place = match kind.0 {
                        TrackKind::Video => &mut self.video,
                        TrackKind::Audio => &mut self.audio,
                    };
                    if place.replace(track).is_some() {
                        return Err(OfferError::Several(kind));
                    }
                }
                Err(error @ (OfferError::Layers(_) | OfferError::NotTranscoded)) => return Err(error),
                Err(error) => section.refused = Some(error.to_string()),
            }
        }
        if sends == 0 {
            return Err(OfferError::NothingSent);
        }
        let taken = || self.sections.iter().filter(|section| section.taken.is_some());
        let Some(first) = taken().next() else {
            // Why the picture was not taken is worth more than why the sound was not.
            let refused = self.sections.iter().filter(|section| section.refused.is_some());
            let worst =
                refused.max_by_key(|section| section.media.first().is_some_and(|kind| kind == "video"));
            let kind = match worst.and_then(|section| section.media.first()).map(String::as_str) {
                Some("video") => Kind(TrackKind::Video),
                _ => Kind(TrackKind::Audio),
            };
            let offered = worst.map(Section::codecs).unwrap_or_default();
            return Err(OfferError::Codec { kind, offered });
        };
        // One transport carries both: what is not in the first one's group would need another.
        let group = self.group(first);
        let bundled = |section: &Section| {
            group.is_some_and(|group| {
                section.attribute("mid").is_some_and(|mid| group.split(' ').any(|other| other == mid))
            })
        };
        if taken().count() > 1 && !taken().all(bundled) {
            return Err(OfferError::NotBundled);
        }
        Ok(self)
    }

    fn group(&self, section: &Section) -> Option<&str> {
        let mid = section.attribute("mid")?;
        let groups = values(&self.session, "group");
        groups
            .filter_map(|group| group.strip_prefix("BUNDLE "))
            .find(|group| group.split(' ').any(|other| other == mid))
    }

    fn is_sent(&self, section: &Section) -> bool {
        let direction = ["sendrecv", "sendonly", "recvonly", "inactive"]
            .into_iter()
            .find(|direction| self.attribute(section, direction).is_some());
        let off = section.media.get(1).is_some_and(|port| port == "0")
            && section.attribute("bundle-only").is_none();
        !off && matches!(direction, None | Some("sendrecv" | "sendonly"))
    }

    /// Of the section, or of the session if that is where it stands.
    fn attribute<'a>(&'a self, section: &'a Section, name: &str) -> Option<&'a str> {
        section.attribute(name).or_else(|| values(&self.session, name).next())
    }

    /// The publisher's ICE username fragment.
    pub(super) fn ufrag(&self) -> &str {
        self.taken().find_map(|section| self.attribute(section, "ice-ufrag")).unwrap_or_default()
    }

    fn taken(&self) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(|section| section.taken.is_some())
    }
}

impl Section {
    fn attribute(&self, name: &str) -> Option<&str> {
        values(&self.lines, name).next()
    }

    /// One format of ours. The publisher's order is its preference (RFC 3264, §5.1): what it puts first it encodes best, or
    /// in hardware. But a browser that was not told otherwise puts VP8 first, which says nothing; H.264 is worth more to it
    /// then, since everybody can be shown that as it is, and VP8 nobody by HLS. A page that wants VP8 offers no H.264.
    fn choose(&self, kind: Kind, transcodes: bool) -> Result<Track, OfferError> {
        let formats = || self.media.iter().skip(3).filter_map(|format| format.parse::<u8>().ok());
        let mut ours = formats().filter_map(|format| self.taken(kind, format));
        let first = ours.next().ok_or_else(|| OfferError::Codec { kind, offered: self.codecs() })?;
        let is = |codec| move |track: &Track| track.codec == Some(codec);
        let mut track = if is(VideoCodec::Vp8)(&first) {
            match ours.clone().find(is(VideoCodec::H264)) {
                Some(h264) => h264,
                None if transcodes => first,
                None => ours.find(|track| !is(VideoCodec::Vp8)(track)).ok_or(OfferError::NotTranscoded)?,
            }
        } else {
            first
        };
        let apt = track.payload_type.to_string();
        track.rtx_payload_type = formats().find(|&format| {
            let is_rtx = self.codec(format).is_some_and(|codec| codec.eq_ignore_ascii_case("rtx/90000"));
            is_rtx
                && parameter(self.of_format("fmtp", format).unwrap_or_default(), "apt") == Some(apt.as_str())
        });
        if let (TrackKind::Video, Some(extensions)) = (kind.0, RidExtensions::of(&self.lines)) {
            track.rids = layers::rids(&self.lines, track.payload_type)?;
            track.rid_extensions = (!track.rids.is_empty()).then_some(extensions);
        }
        Ok(track)
    }

    /// The format as a track, if we take it.
    fn taken(&self, kind: Kind, format: u8) -> Option<Track> {
        let parameters = self.of_format("fmtp", format).unwrap_or_default();
        let name = self.codec(format)?;
        let codec = match kind.0 {
            TrackKind::Audio if name.eq_ignore_ascii_case("opus/48000/2") => None,
            TrackKind::Audio => return None,
            TrackKind::Video => Some(video_codec(name, parameters)?),
        };
        Some(Track {
            payload_type: format,
            codec,
            rtx_payload_type: None,
            parameters: parameters.to_owned(),
            rids: Vec::new(),
            rid_extensions: None,
        })
    }

    fn codec(&self, format: u8) -> Option<&str> {
        self.of_format("rtpmap", format)
    }

    fn of_format(&self, name: &str, format: u8) -> Option<&str> {
        values(&self.lines, name).find_map(|value| {
            let (of, rest) = value.split_once(' ')?;
            (of.parse() == Ok(format)).then_some(rest)
        })
    }

    /// The names of what is offered, for people; of repairs nobody wants to hear.
    fn codecs(&self) -> String {
        let mut names = Vec::new();
        for value in values(&self.lines, "rtpmap") {
            let name =
                value.split_once(' ').map_or("", |(_, codec)| codec.split('/').next().unwrap_or_default());
            let plain =
                name.chars().all(|char| char.is_ascii_alphanumeric() || char == '-') && name.len() <= 16;
            let repair = ["rtx", "red", "ulpfec", "flexfec-03", "telephone-event", "CN"].contains(&name);
            if plain && !repair && !name.is_empty() && !names.contains(&name) && names.len() < 8 {
                names.push(name);
            }
        }
        if names.is_empty() { "nothing known".to_owned() } else { names.join(", ") }
    }
}

/// What is sent under this name, if we take it: 4:2:0 in 8 bits, which is all that everybody can be shown.
fn video_codec(name: &str, parameters: &str) -> Option<VideoCodec> {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    let has = |name, wanted: &str| parameter(parameters, name).is_none_or(|value| value == wanted);
    if is("H264/90000") {
        // RFC 6184, §8.1: mode 2 interleaves, for which nobody has a use.
        let mode = parameter(parameters, "packetization-mode");
        let profile = parameter(parameters, "profile-level-id")
            .and_then(|id| u8::from_str_radix(id.get(..2)?, 16).ok());
        let is_taken =
            matches!(mode, Some("0" | "1")) && profile.is_some_and(|profile| PROFILES.contains(&profile));
        is_taken.then_some(VideoCodec::H264)
    } else if is("H265/90000") {
        // RFC 7798, §7.1: Main, one stream, in decoding order.
        let is_taken = has("profile-id", "1") && has("tx-mode", "SRST") && has("sprop-max-don-diff", "0");
        is_taken.then_some(VideoCodec::H265)
    } else if is("AV1/90000") {
        // AV1 RTP, §7.2.1: Main.
        has("profile", "0").then_some(VideoCodec::Av1)
    } else if is("VP9/90000") {
        // RFC 9628, §7.1.
        has("profile-id", "0").then_some(VideoCodec::Vp9)
    } else {
        is("VP8/90000").then_some(VideoCodec::Vp8)
    }
}

/// The values of `a={name}` and `a={name}:value`.
fn values<'a>(lines: &'a [String], name: &str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(move |line| {
        let rest = line.strip_prefix("a=")?.strip_prefix(name)?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix(':') }
    })
}

/// Of `a=1;b=2`.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    let pairs = parameters.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

#[cfg(test)]
pub(super) mod tests;
