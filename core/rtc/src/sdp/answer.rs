//! What we send, and where the viewer finds us.

use std::fmt::Write;

use super::codec::{Codec, CodecKind, Extensions, Feedback};
use super::h264::ProfileLevelId;
use super::offer::{Offer, OfferError, Section};
use crate::dtls::Fingerprint;
use crate::peer::Credentials;
use crate::port::{Candidate, Protocol};
use crate::srtp::Role;

/// What is on our side of the answer.
#[derive(Debug, Clone)]
pub struct AnswerSettings<'a> {
    /// Of the `o=` line: any number, the same for all answers of a session.
    pub session_id: u64,
    pub credentials: &'a Credentials,
    pub fingerprint: &'a Fingerprint,
    /// The best first.
    pub candidates: &'a [Candidate],
    /// Of the source, or of the rung that the viewer starts with; `None` for a stream without video.
    pub video: Option<ProfileLevelId>,
    /// Whether the stream has sound.
    pub audio: bool,
    /// Ties video and audio together for the viewer's clock (RFC 3550, §6.5.1), and names the media stream.
    pub cname: &'a str,
    pub ssrcs: Ssrcs,
}

/// All different, and random for each session (RFC 3550, §8.1).
#[derive(Debug, Clone, Copy)]
pub struct Ssrcs {
    pub video: u32,
    pub video_rtx: u32,
    pub audio: u32,
}

#[derive(Debug, Clone)]
pub struct Answer {
    /// The SDP.
    pub text: String,
    pub video: Option<Negotiated>,
    pub audio: Option<Negotiated>,
}

/// How one kind of media is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    pub mid: String,
    pub payload_type: u8,
    pub ssrc: u32,
    /// Payload type and SSRC of retransmissions (RFC 4588).
    pub rtx: Option<(u8, u32)>,
    pub extensions: Extensions,
    pub feedback: Feedback,
}

impl Offer {
    /// Takes the first video section with H.264 and the first audio section with Opus, as far as the stream has them,
    /// and refuses all others.
    ///
    /// # Errors
    /// [`OfferError::NoH264`] or [`OfferError::NoCodec`].
    pub fn answer(&self, settings: &AnswerSettings<'_>) -> Result<Answer, OfferError> {
        let (mut video, mut audio) = (None, None);
        let mut sections = Vec::with_capacity(self.sections.len());
        let mut wants_video = false;
        for section in &self.sections {
            let taken = match section.media.as_str() {
                _ if !section.is_receiving => None,
                "video" if video.is_none() => {
                    wants_video = true;
                    settings.video.and_then(|sent| best_video(section, sent))
                }
                "audio" if audio.is_none() && settings.audio => section.codecs.first(),
                _ => None,
            };
            if let Some(codec) = taken {
                let is_video = matches!(codec.kind, CodecKind::H264 { .. });
                let negotiated = negotiate(section, codec, &settings.ssrcs);
                let slot = if is_video { &mut video } else { &mut audio };
                sections.push((section, Some((codec, negotiated.clone()))));
                *slot = Some(negotiated);
            } else {
                sections.push((section, None));
            }
        }
        match (settings.video, &video, &audio) {
            (_, None, None) => return Err(OfferError::NoCodec),
            // Sound alone is not what a viewer expects who asked for the picture.
            (Some(_), None, _) if wants_video => return Err(OfferError::NoH264),
            _ => {}
        }
        let text = write(settings, self.transport().role, &sections);
        Ok(Answer { text, video, audio })
    }
}

fn best_video(section: &Section, sent: ProfileLevelId) -> Option<&Codec> {
    let fitness = |codec: &&Codec| match codec.kind {
        CodecKind::H264 { profile_level_id, .. } => profile_level_id.fitness(sent),
        CodecKind::Opus { .. } => None,
    };
    // Of equals, the one the viewer named first.
    section.codecs.iter().rev().filter(|codec| fitness(codec).is_some()).max_by_key(fitness)
}

fn negotiate(section: &Section, codec: &Codec, ssrcs: &Ssrcs) -> Negotiated {
    let is_video = matches!(codec.kind, CodecKind::H264 { .. });
    Negotiated {
        mid: section.mid.clone(),
        payload_type: codec.payload_type,
        ssrc: if is_video { ssrcs.video } else { ssrcs.audio },
        // Without NACK nobody would ask for one.
        rtx: codec.rtx.filter(|_| is_video && codec.feedback.nack).map(|number| (number, ssrcs.video_rtx)),
        extensions: section.extensions,
        feedback: codec.feedback,
    }
}

type Answered<'a> = (&'a Section, Option<(&'a Codec, Negotiated)>);

fn write(settings: &AnswerSettings<'_>, role: Role, sections: &[Answered<'_>]) -> String {
    let mut text = String::with_capacity(4_096);
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).and_then(|()| text.write_str("\r\n")).expect("a String takes everything");
    };
    line(format_args!("v=0"));
    line(format_args!("o=- {} 1 IN IP4 127.0.0.1", settings.session_id));
    line(format_args!("s=-"));
    line(format_args!("t=0 0"));
    line(format_args!("a=ice-lite"));
    let bundled =
        sections.iter().filter(|(_, taken)| taken.is_some()).map(|(section, _)| section.mid.as_str());
    let bundled: Vec<&str> = bundled.filter(|mid| !mid.is_empty()).collect();
    if !bundled.is_empty() {
        line(format_args!("a=group:BUNDLE {}", bundled.join(" ")));
    }
    line(format_args!("a=msid-semantic: WMS {}", settings.cname));
    let mut candidates = settings.candidates;
    for (section, taken) in sections {
        match taken {
            // Those of the first section are everybody's (RFC 9143, §7.3).
            Some((codec, negotiated)) => {
                write_taken(
                    &mut line,
                    settings,
                    role,
                    section,
                    codec,
                    negotiated,
                    std::mem::take(&mut candidates),
                );
            }
            None => write_refused(&mut line, section),
        }
    }
    text
}

/// RFC 8829, §5.3.1.
fn write_refused(line: &mut impl FnMut(std::fmt::Arguments<'_>), section: &Section) {
    line(format_args!("m={} 0 {} {}", section.media, section.protocol, section.first_format));
    line(format_args!("c=IN IP4 0.0.0.0"));
    if !section.mid.is_empty() {
        line(format_args!("a=mid:{}", section.mid));
    }
    line(format_args!("a=inactive"));
}

fn write_taken(
    line: &mut impl FnMut(std::fmt::Arguments<'_>),
    settings: &AnswerSettings<'_>,
    role: Role,
    section: &Section,
    codec: &Codec,
    negotiated: &Negotiated,
    candidates: &[Candidate],
) {
    let (payload_type, ssrc, cname) = (negotiated.payload_type, negotiated.ssrc, settings.cname);
    let rtx_format = negotiated.rtx.map(|(number, _)| format!(" {number}")).unwrap_or_default();
    line(format_args!("m={} 9 {} {payload_type}{rtx_format}", section.media, section.protocol));
    line(format_args!("c=IN IP4 0.0.0.0"));
    if !section.mid.is_empty() {
        line(format_args!("a=mid:{}", section.mid));
    }
    line(format_args!("a=ice-ufrag:{}", settings.credentials.ufrag));
    line(format_args!("a=ice-pwd:{}", settings.credentials.password));
    line(format_args!("a=fingerprint:{}", settings.fingerprint));
    line(format_args!("a=setup:{}", if role == Role::Server { "passive" } else { "active" }));
    line(format_args!("a=rtcp-mux"));
    line(format_args!("a=rtcp-rsize"));
    line(format_args!("a=sendonly"));
    line(format_args!("a=msid:{cname} {}", section.media));
    match codec.kind {
        CodecKind::H264 { profile_level_id: ProfileLevelId(id), is_level_asymmetric } => {
            let asymmetry = if is_level_asymmetric { "level-asymmetry-allowed=1;" } else { "" };
            line(format_args!("a=rtpmap:{payload_type} H264/90000"));
            line(format_args!(
                "a=fmtp:{payload_type} {asymmetry}packetization-mode=1;profile-level-id={:02x}{:02x}{:02x}",
                id[0], id[1], id[2]
            ));
        }
        CodecKind::Opus { is_stereo } => {
            let stereo = if is_stereo { ";stereo=1" } else { "" };
            line(format_args!("a=rtpmap:{payload_type} opus/48000/2"));
            line(format_args!("a=fmtp:{payload_type} minptime=10;useinbandfec=1;sprop-stereo=1{stereo}"));
        }
    }
    for name in negotiated.feedback.names() {
        line(format_args!("a=rtcp-fb:{payload_type} {name}"));
    }
    if let Some((rtx_payload_type, _)) = negotiated.rtx {
        line(format_args!("a=rtpmap:{rtx_payload_type} rtx/90000"));
        line(format_args!("a=fmtp:{rtx_payload_type} apt={payload_type}"));
    }
    for (id, name) in negotiated.extensions.offered() {
        line(format_args!("a=extmap:{id} {name}"));
    }
    if let Some((_, rtx_ssrc)) = negotiated.rtx {
        line(format_args!("a=ssrc-group:FID {ssrc} {rtx_ssrc}"));
    }
    for ssrc in [Some(ssrc), negotiated.rtx.map(|(_, rtx_ssrc)| rtx_ssrc)].into_iter().flatten() {
        line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
        line(format_args!("a=ssrc:{ssrc} msid:{cname} {}", section.media));
    }
    for candidate in candidate_lines(candidates) {
        line(format_args!("{candidate}"));
    }
}

/// With the line that says that there are no more; nothing if there are none.
pub(super) fn candidate_lines(candidates: &[Candidate]) -> impl Iterator<Item = String> {
    let end = (!candidates.is_empty()).then(|| "a=end-of-candidates".to_owned());
    candidates.iter().enumerate().map(|(position, candidate)| candidate_line(position, candidate)).chain(end)
}

/// RFC 8839, §5.1. Host candidates of component 1 in the order we like them, UDP before TCP (RFC 8421, §4; RFC 6544,
/// §4.2).
fn candidate_line(position: usize, candidate: &Candidate) -> String {
    let local_preference = 65_535_u32.saturating_sub(u32::try_from(position).unwrap_or(u32::MAX));
    let (type_preference, protocol, tcp_type) = match candidate.protocol {
        Protocol::Udp => (126_u32, "udp", ""),
        Protocol::Tcp => (90, "tcp", " tcptype passive"),
    };
    let priority = (type_preference << 24) + (local_preference << 8) + 255;
    let (ip, port) = (candidate.address.ip(), candidate.address.port());
    format!("a=candidate:{} 1 {protocol} {priority} {ip} {port} typ host{tcp_type}", position + 1)
}
