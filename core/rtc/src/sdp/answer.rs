//! What we send, and where the viewer finds us.

use std::fmt::Write;

use super::codec::{Codec, CodecKind, Extensions, Feedback};
use super::h264::ProfileLevelId;
use super::offer::{Offer, OfferError, Section};
use crate::dtls::Fingerprint;
use crate::outbound::PayloadTypes;
use crate::packetize::Format;
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
    /// Those of the stream's renditions, what the viewer starts with first; none of a stream without video.
    pub video: &'a [VideoFormat],
    /// Whether the stream has sound.
    pub audio: bool,
    /// Ties video and audio together for the viewer's clock (RFC 3550, §6.5.1), and names the media stream.
    pub cname: &'a str,
    pub ssrcs: Ssrcs,
}

/// A format of video, with what decides which of a viewer's payload types suits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoFormat {
    H264(ProfileLevelId),
    Av1,
    Vp8,
    Vp9,
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
    /// Of video one for each format that both have, of which the line may change; not empty.
    pub payload_types: Vec<(Format, PayloadTypes)>,
    pub ssrc: u32,
    /// Of retransmissions (RFC 4588).
    pub rtx_ssrc: Option<u32>,
    pub extensions: Extensions,
    pub feedback: Feedback,
}

impl Offer {
    /// Takes the first video section with a format of the stream's and the first audio section with Opus, as far as the
    /// stream has them, and refuses all others.
    ///
    /// # Errors
    /// [`OfferError::NoVideo`] or [`OfferError::NoCodec`].
    pub fn answer(&self, settings: &AnswerSettings<'_>) -> Result<Answer, OfferError> {
        let (mut video, mut audio) = (None, None);
        let mut sections = Vec::with_capacity(self.sections.len());
        let mut wants_video = false;
        for section in &self.sections {
            let taken: Vec<&Codec> = match section.media.as_str() {
                _ if !section.is_receiving => Vec::new(),
                "video" if video.is_none() => {
                    wants_video = true;
                    settings.video.iter().filter_map(|sent| best_video(section, *sent)).collect()
                }
                "audio" if audio.is_none() && settings.audio => section.codecs.first().into_iter().collect(),
                _ => Vec::new(),
            };
            if let Some(first) = taken.first() {
                let slot = if first.kind.is_video() { &mut video } else { &mut audio };
                let negotiated = negotiate(section, &taken, &settings.ssrcs);
                sections.push((section, Some((taken, negotiated.clone()))));
                *slot = Some(negotiated);
            } else {
                sections.push((section, None));
            }
        }
        match (settings.video, &video, &audio) {
            (_, None, None) => return Err(OfferError::NoCodec),
            // Sound alone is not what a viewer expects who asked for the picture.
            ([_, ..], None, _) if wants_video => return Err(OfferError::NoVideo(names(settings.video))),
            _ => {}
        }
        let text = write(settings, self.transport().role, &sections);
        Ok(Answer { text, video, audio })
    }
}

fn names(sent: &[VideoFormat]) -> String {
    let names = sent.iter().map(|format| match format {
        VideoFormat::H264(_) => "H.264 with packetization-mode=1",
        VideoFormat::Av1 => "AV1 (profile 0)",
        VideoFormat::Vp8 => "VP8",
        VideoFormat::Vp9 => "VP9 (profile 0)",
    });
    names.collect::<Vec<_>>().join(", ")
}

fn best_video(section: &Section, sent: VideoFormat) -> Option<&Codec> {
    let of = |kind| section.codecs.iter().find(|codec| codec.kind == kind);
    match sent {
        VideoFormat::H264(sent) => {
            let fitness = |codec: &&Codec| match codec.kind {
                CodecKind::H264 { profile_level_id, .. } => profile_level_id.fitness(sent),
                _ => None,
            };
            // Of equals, the one the viewer named first.
            section.codecs.iter().rev().filter(|codec| fitness(codec).is_some()).max_by_key(fitness)
        }
        VideoFormat::Av1 => of(CodecKind::Av1),
        VideoFormat::Vp8 => of(CodecKind::Vp8),
        VideoFormat::Vp9 => of(CodecKind::Vp9),
    }
}

/// `codecs` is not empty. What the first wants to hear of the line is said of all.
fn negotiate(section: &Section, codecs: &[&Codec], ssrcs: &Ssrcs) -> Negotiated {
    let is_video = codecs.iter().any(|codec| codec.kind.is_video());
    // Without NACK nobody would ask for one.
    let rtx = |codec: &Codec| codec.rtx.filter(|_| is_video && codec.feedback.nack);
    let payload_types = codecs.iter().map(|codec| {
        let payload_types = PayloadTypes { media: codec.payload_type, rtx: rtx(codec) };
        (codec.kind.format(), payload_types)
    });
    Negotiated {
        mid: section.mid.clone(),
        payload_types: payload_types.collect(),
        ssrc: if is_video { ssrcs.video } else { ssrcs.audio },
        rtx_ssrc: codecs.iter().any(|codec| rtx(codec).is_some()).then_some(ssrcs.video_rtx),
        extensions: section.extensions,
        feedback: codecs.first().map(|codec| codec.feedback).unwrap_or_default(),
    }
}

type Answered<'a> = (&'a Section, Option<(Vec<&'a Codec>, Negotiated)>);

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
            Some((codecs, negotiated)) => {
                write_taken(
                    &mut line,
                    settings,
                    role,
                    section,
                    codecs,
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
    codecs: &[&Codec],
    negotiated: &Negotiated,
    candidates: &[Candidate],
) {
    let (ssrc, cname) = (negotiated.ssrc, settings.cname);
    let numbers = negotiated.payload_types.iter().flat_map(|(_, types)| [Some(types.media), types.rtx]);
    let formats: Vec<_> = numbers.flatten().map(|number| number.to_string()).collect();
    line(format_args!("m={} 9 {} {}", section.media, section.protocol, formats.join(" ")));
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
    for (codec, (_, payload_types)) in codecs.iter().zip(&negotiated.payload_types) {
        write_format(line, codec, *payload_types);
    }
    for (id, name) in negotiated.extensions.offered() {
        line(format_args!("a=extmap:{id} {name}"));
    }
    if let Some(rtx_ssrc) = negotiated.rtx_ssrc {
        line(format_args!("a=ssrc-group:FID {ssrc} {rtx_ssrc}"));
    }
    for ssrc in [Some(ssrc), negotiated.rtx_ssrc].into_iter().flatten() {
        line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
        line(format_args!("a=ssrc:{ssrc} msid:{cname} {}", section.media));
    }
    for candidate in candidate_lines(candidates) {
        line(format_args!("{candidate}"));
    }
}

fn write_format(
    line: &mut impl FnMut(std::fmt::Arguments<'_>),
    codec: &Codec,
    PayloadTypes { media, rtx }: PayloadTypes,
) {
    let mut plain = |name: &str| {
        line(format_args!("a=rtpmap:{media} {name}/90000"));
        if !codec.parameters.is_empty() {
            line(format_args!("a=fmtp:{media} {}", codec.parameters));
        }
    };
    match codec.kind {
        CodecKind::H264 { profile_level_id: ProfileLevelId(id), is_level_asymmetric } => {
            let asymmetry = if is_level_asymmetric { "level-asymmetry-allowed=1;" } else { "" };
            line(format_args!("a=rtpmap:{media} H264/90000"));
            line(format_args!(
                "a=fmtp:{media} {asymmetry}packetization-mode=1;profile-level-id={:02x}{:02x}{:02x}",
                id[0], id[1], id[2]
            ));
        }
        CodecKind::Av1 => plain("AV1"),
        CodecKind::Vp8 => plain("VP8"),
        CodecKind::Vp9 => plain("VP9"),
        CodecKind::Opus { is_stereo } => {
            let stereo = if is_stereo { ";stereo=1" } else { "" };
            line(format_args!("a=rtpmap:{media} opus/48000/2"));
            line(format_args!("a=fmtp:{media} minptime=10;useinbandfec=1;sprop-stereo=1{stereo}"));
        }
    }
    for name in codec.feedback.names() {
        line(format_args!("a=rtcp-fb:{media} {name}"));
    }
    if let Some(rtx) = rtx {
        line(format_args!("a=rtpmap:{rtx} rtx/90000"));
        line(format_args!("a=fmtp:{rtx} apt={media}"));
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
