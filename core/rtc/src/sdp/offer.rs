//! What the viewer can take.

use std::io::Cursor;

use rtc_sdp::description::media::MediaDescription;
use rtc_sdp::description::session::SessionDescription;

use super::attributes::Attributes;
use super::codec::{Codec, Extensions};
use crate::dtls::Fingerprint;
use crate::srtp::Role;

/// Chromium's offer with all its codecs has 6 kB and 200 lines.
const OFFER_BYTES_MAX: usize = 64 * 1024;
const OFFER_LINES_MAX: usize = 2_000;
/// We answer every section, if only to refuse it.
const SECTIONS_MAX: usize = 16;
/// More than a client has certificates.
const FINGERPRINTS_MAX: usize = 8;

/// RFC 8839, §5.4.
pub(super) const UFRAG_CHARS: std::ops::RangeInclusive<usize> = 4..=256;

/// The offer cannot be answered. Every variant says what the client, or whoever wrote it, must do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    #[error(
        "the offer has more than {OFFER_BYTES_MAX} bytes, {OFFER_LINES_MAX} lines or {SECTIONS_MAX} media sections; offer one video and one audio section"
    )]
    TooLarge,
    #[error("the body is not SDP: {0}")]
    Malformed(String),
    #[error("the offer has no media section that can receive; add a recvonly transceiver")]
    NothingToReceive,
    #[error("the media sections are not in one BUNDLE group; use bundlePolicy max-bundle")]
    NotBundled,
    #[error("the offer lacks a=rtcp-mux")]
    NoRtcpMux,
    #[error("the offer lacks a=ice-ufrag, or it is shorter than 4 or longer than 256 characters")]
    NoUfrag,
    #[error("the client is ICE-lite, and so is this server: neither would look for the other")]
    IceLite,
    #[error("the offer lacks a=fingerprint with sha-256, sha-384 or sha-512")]
    NoFingerprint,
    #[error("a=setup must be actpass, active or passive")]
    Setup,
    /// In words what it has.
    #[error("the client offers no {0}; this stream has no other video")]
    NoVideo(String),
    #[error(
        "the client offers none of this stream's codecs: H.264 with packetization-mode=1, or what the publisher sends, \
         for video, Opus for audio"
    )]
    NoCodec,
}

impl OfferError {
    /// Whether the body is broken (400), rather than fine and of no use to us (406).
    pub fn is_malformed(&self) -> bool {
        matches!(
            self,
            Self::TooLarge | Self::Malformed(_) | Self::NoUfrag | Self::NoFingerprint | Self::Setup
        )
    }
}

/// A viewer's offer.
#[derive(Debug, Clone)]
pub struct Offer {
    pub(super) sections: Vec<Section>,
    transport: Transport,
}

/// How the viewer is reached, and how it proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    pub ufrag: String,
    /// At least one.
    pub fingerprints: Vec<Fingerprint>,
    /// Ours, in DTLS.
    pub role: Role,
}

/// One `m=` section, in the order of the offer, with what we might use of it.
#[derive(Debug, Clone)]
pub(super) struct Section {
    /// Of the `m=` line, as it came.
    pub(super) media: String,
    pub(super) protocol: String,
    pub(super) first_format: String,
    /// Empty if the section has none.
    pub(super) mid: String,
    /// It wants media, over the one transport.
    pub(super) is_receiving: bool,
    pub(super) codecs: Vec<Codec>,
    pub(super) extensions: Extensions,
}

impl Offer {
    /// # Errors
    /// [`OfferError`], for the body of the answer in HTTP.
    pub fn parse(text: &str) -> Result<Self, OfferError> {
        if text.len() > OFFER_BYTES_MAX || text.lines().count() > OFFER_LINES_MAX {
            return Err(OfferError::TooLarge);
        }
        let description = SessionDescription::unmarshal(&mut Cursor::new(text))
            .map_err(|error| OfferError::Malformed(error.to_string()))?;
        if description.media_descriptions.len() > SECTIONS_MAX {
            return Err(OfferError::TooLarge);
        }
        let session = Attributes(&description.attributes);
        if session.has("ice-lite") {
            return Err(OfferError::IceLite);
        }
        let wanted: Vec<&MediaDescription> =
            description.media_descriptions.iter().filter(|media| wants_media(media, session)).collect();
        let first = wanted.first().ok_or(OfferError::NothingToReceive)?;
        let bundled: Vec<&str> = session
            .values("group")
            .find_map(|group| group.strip_prefix("BUNDLE"))
            .map_or_else(Vec::new, |mids| mids.split_whitespace().collect());
        let is_bundled = |media: &MediaDescription| {
            Attributes(&media.attributes).value("mid").is_some_and(|mid| bundled.contains(&mid))
        };
        // One section is a bundle without saying so.
        if wanted.len() > 1 && !wanted.iter().all(|media| is_bundled(media)) {
            return Err(OfferError::NotBundled);
        }
        let sections = description
            .media_descriptions
            .iter()
            .map(|media| Section::read(media, wants_media(media, session)))
            .collect();
        Ok(Self { sections, transport: Transport::read(Attributes(&first.attributes), session)? })
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }
}

/// `recvonly`, and `sendrecv` of clients that do not know better. A port of 0 is a section that was refused, unless it
/// shares another one's (RFC 9143, §6).
fn wants_media(media: &MediaDescription, session: Attributes<'_>) -> bool {
    let own = Attributes(&media.attributes);
    let direction = |attributes: Attributes<'_>| {
        ["recvonly", "sendrecv", "sendonly", "inactive"].into_iter().find(|name| attributes.has(name))
    };
    let receives =
        matches!(direction(own).or_else(|| direction(session)), None | Some("recvonly" | "sendrecv"));
    let is_rtp = media.media_name.protos.iter().any(|part| part == "SAVPF");
    receives && is_rtp && (media.media_name.port.value != 0 || own.has("bundle-only"))
}

impl Transport {
    /// Of the section that all others are bundled with.
    fn read(own: Attributes<'_>, session: Attributes<'_>) -> Result<Self, OfferError> {
        let value = |name| own.value(name).or_else(|| session.value(name));
        if !own.has("rtcp-mux") {
            return Err(OfferError::NoRtcpMux);
        }
        let ufrag = value("ice-ufrag").filter(|ufrag| UFRAG_CHARS.contains(&ufrag.len()));
        let of = |attributes: Attributes<'_>| -> Vec<Fingerprint> {
            let read = attributes.values("fingerprint").filter_map(|text| text.parse().ok());
            read.take(FINGERPRINTS_MAX).collect()
        };
        let own_fingerprints = of(own);
        let fingerprints = if own_fingerprints.is_empty() { of(session) } else { own_fingerprints };
        if fingerprints.is_empty() {
            return Err(OfferError::NoFingerprint);
        }
        let role = match value("setup") {
            // Passive is what is left for us (RFC 5763, §5).
            None | Some("actpass" | "active") => Role::Server,
            Some("passive") => Role::Client,
            Some(_) => return Err(OfferError::Setup),
        };
        Ok(Self { ufrag: ufrag.ok_or(OfferError::NoUfrag)?.to_owned(), fingerprints, role })
    }
}

impl Section {
    fn read(media: &MediaDescription, is_receiving: bool) -> Self {
        let attributes = Attributes(&media.attributes);
        let mut extensions = Extensions::default();
        for value in attributes.values("extmap") {
            extensions.note(value);
        }
        let formats = &media.media_name.formats;
        Self {
            media: media.media_name.media.clone(),
            protocol: media.media_name.protos.join("/"),
            first_format: formats.first().cloned().unwrap_or_else(|| "0".to_owned()),
            mid: attributes.value("mid").unwrap_or_default().to_owned(),
            is_receiving,
            codecs: formats
                .iter()
                .filter_map(|format| Codec::read(format, &media.media_name.media, attributes))
                .collect(),
            extensions,
        }
    }
}
