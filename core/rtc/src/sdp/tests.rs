use super::*;
use crate::dtls::Identity;
use crate::packetize::Format;
use crate::peer::Credentials;
use crate::port::{Candidate, Protocol};
use crate::srtp::Role;

/// Chromium 156 and aiortc 1.16 as they write it themselves; Firefox and Safari after what is known of them.
const CHROMIUM: &str = include_str!("fixtures/chromium.sdp");
const FIREFOX: &str = include_str!("fixtures/firefox.sdp");
const SAFARI: &str = include_str!("fixtures/safari.sdp");
const AIORTC: &str = include_str!("fixtures/aiortc.sdp");

const HIGH: ProfileLevelId = ProfileLevelId([0x64, 0, 0x28]);
const SSRCS: Ssrcs = Ssrcs { video: 11, video_rtx: 12, audio: 13 };

fn candidates() -> [Candidate; 2] {
    let candidate = |text: &str, protocol| Candidate { address: text.parse().unwrap(), protocol };
    [candidate("203.0.113.7:8189", Protocol::Udp), candidate("[2001:db8::7]:8189", Protocol::Tcp)]
}

fn answer_with(text: &str, video: Option<ProfileLevelId>, audio: bool) -> Result<Answer, OfferError> {
    let video: Vec<_> = video.map(VideoFormat::H264).into_iter().collect();
    answer_of(text, &video, audio)
}

fn answer_of(text: &str, video: &[VideoFormat], audio: bool) -> Result<Answer, OfferError> {
    let credentials = Credentials { ufrag: "ours".to_owned(), password: "the password".to_owned() };
    Offer::parse(text)?.answer(&AnswerSettings {
        session_id: 7,
        credentials: &credentials,
        fingerprint: Identity::generate().unwrap().fingerprint(),
        candidates: &candidates(),
        video,
        audio,
        cname: "live",
        ssrcs: SSRCS,
    })
}

fn answer(text: &str) -> Answer {
    answer_with(text, Some(HIGH), true).unwrap()
}

/// The error that `CHROMIUM` leads to with `from` replaced by `to`.
fn error(from: &str, to: &str) -> OfferError {
    assert!(CHROMIUM.contains(from), "{from}");
    answer_with(&CHROMIUM.replace(from, to), Some(HIGH), true).unwrap_err()
}

/// The lines of one section, which begins with `m={media}`.
fn section<'a>(text: &'a str, media: &str) -> Vec<&'a str> {
    let begin = format!("m={media} ");
    let lines = text.lines().skip_while(|line| !line.starts_with(&begin));
    let (first, rest) = (lines.clone().take(1), lines.skip(1).take_while(|line| !line.starts_with("m=")));
    first.chain(rest).collect()
}

#[test]
fn every_client_gets_h264_and_opus() {
    let feedback = Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: true };
    let of = |transport_cc, abs_send_time, playout_delay, mid| Extensions {
        transport_cc,
        abs_send_time,
        playout_delay,
        mid,
    };
    // Payload types of video, its retransmission and audio.
    for (name, text, payload_types, extensions) in [
        ("Chromium", CHROMIUM, [116, 117, 111], of(Some(4), Some(2), Some(5), Some(9))),
        ("Firefox", FIREFOX, [126, 127, 109], of(Some(7), Some(4), Some(6), Some(3))),
        ("Safari", SAFARI, [96, 97, 111], of(Some(4), Some(2), Some(5), Some(9))),
    ] {
        let answer = answer(text);
        let (video, audio) = (answer.video.unwrap(), answer.audio.unwrap());
        let (own, sound) = (video.payload_types[0].1, audio.payload_types[0].1);
        assert_eq!([own.media, own.rtx.unwrap(), sound.media], payload_types, "{name}");
        assert_eq!([video.ssrc, video.rtx_ssrc.unwrap(), audio.ssrc], [11, 12, 13]);
        assert_eq!((video.extensions, video.feedback), (extensions, feedback), "{name}");
        assert_eq!((audio.rtx_ssrc, audio.extensions.playout_delay), (None, None));
        assert_ne!(video.mid, audio.mid);
    }
    // It knows neither FIR nor transport-wide congestion control.
    let answer = answer(AIORTC);
    let video = answer.video.unwrap();
    assert_eq!(video.feedback, Feedback { fir: false, transport_cc: false, ..feedback });
    assert_eq!(video.extensions, of(None, Some(3), None, Some(1)));
    assert_eq!(answer.audio.unwrap().extensions.mid, Some(1));
}

#[test]
fn the_answer_says_what_the_standard_wants() {
    let answer = answer(CHROMIUM).text;
    let video = section(&answer, "video");
    assert_eq!(
        &video[..5],
        [
            "m=video 9 UDP/TLS/RTP/SAVPF 116 117",
            "c=IN IP4 0.0.0.0",
            "a=mid:0",
            "a=ice-ufrag:ours",
            "a=ice-pwd:the password"
        ]
    );
    for line in [
        "a=setup:passive",
        "a=rtcp-mux",
        "a=sendonly",
        "a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f",
        "a=rtcp-fb:116 nack pli",
        "a=fmtp:117 apt=116",
        "a=extmap:4 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        "a=ssrc-group:FID 11 12",
        "a=ssrc:12 cname:live",
        "a=candidate:1 1 udp 2130706431 203.0.113.7 8189 typ host",
        "a=candidate:2 1 tcp 1526726399 2001:db8::7 8189 typ host tcptype passive",
        "a=end-of-candidates",
    ] {
        assert!(video.contains(&line), "{line} is not in\n{answer}");
    }
    for line in ["a=ice-lite", "a=group:BUNDLE 0 1"] {
        assert!(answer.lines().take_while(|line| !line.starts_with("m=")).any(|found| found == line));
    }
    let audio = section(&answer, "audio");
    assert!(audio.contains(&"a=fmtp:111 minptime=10;useinbandfec=1;sprop-stereo=1"));
    assert!(!audio.iter().any(|line| line.starts_with("a=candidate") || line.contains("rtx")));
    assert!(answer.ends_with("\r\n") && !answer.replace("\r\n", "").contains(['\r', '\n']));
    // Whoever asks for stereo is told that it will come.
    assert!(answer_with(FIREFOX, Some(HIGH), true).unwrap().text.contains("sprop-stereo=1;stereo=1"));
}

/// The publisher's own, and what is made of it: one line, that changes between them.
#[test]
fn a_line_has_a_payload_type_for_each_format_that_both_have() {
    let sent = [VideoFormat::Vp8, VideoFormat::H264(HIGH)];
    let answer = answer_of(CHROMIUM, &sent, true).unwrap();
    let video = answer.video.unwrap();
    let types: Vec<_> =
        video.payload_types.iter().map(|(format, types)| (*format, types.media, types.rtx)).collect();
    assert_eq!(types, [(Format::Vp8, 96, Some(97)), (Format::H264, 116, Some(117))]);
    let lines = section(&answer.text, "video");
    for line in [
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 116 117",
        "a=rtpmap:96 VP8/90000",
        "a=rtcp-fb:96 nack pli",
        "a=fmtp:97 apt=96",
        "a=rtpmap:116 H264/90000",
        "a=fmtp:117 apt=116",
        "a=ssrc-group:FID 11 12",
    ] {
        assert_eq!(lines.iter().filter(|found| **found == line).count(), 1, "{line}: {lines:#?}");
    }
    for (format, rtpmap, fmtp) in [
        (VideoFormat::Vp9, "VP9/90000", "profile-id=0"),
        (VideoFormat::Av1, "AV1/90000", "level-idx=5;profile=0;tier=0"),
    ] {
        let text = answer_of(CHROMIUM, &[format], true).unwrap().text;
        let video = section(&text, "video");
        let has = |end: &str| video.iter().any(|line| line.ends_with(end));
        assert!(has(rtpmap) && has(fmtp), "{text}");
    }
    let refused = answer_of(&CHROMIUM.replace(" VP9/", " X/"), &[VideoFormat::Vp9], true).unwrap_err();
    assert_eq!(refused, OfferError::NoVideo("VP9 (profile 0)".into()));
}

#[test]
fn what_is_not_wanted_is_refused_in_its_place() {
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n";
    let more = section(CHROMIUM, "video").join("\r\n").replace("a=mid:0", "a=mid:3");
    let offer = format!("{CHROMIUM}{data}{more}\r\n").replace("BUNDLE 0 1", "BUNDLE 0 1 2 3");
    let answer = answer(&offer);
    let begins: Vec<&str> = answer.text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        begins,
        [
            "m=video 9 UDP/TLS/RTP/SAVPF 116 117",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
            "m=video 0 UDP/TLS/RTP/SAVPF 96"
        ]
    );
    assert!(answer.text.contains("a=group:BUNDLE 0 1\r\n"));
}

#[test]
fn a_stream_without_sound_or_picture_is_answered_for_what_it_has() {
    let silent = answer_with(CHROMIUM, Some(HIGH), false).unwrap();
    assert!(
        silent.audio.is_none() && silent.text.contains("m=audio 0 ") && silent.text.contains("BUNDLE 0\r\n")
    );
    let blind = answer_with(CHROMIUM, None, true).unwrap();
    assert!(blind.video.is_none() && blind.audio.is_some());
    assert!(section(&blind.text, "audio").contains(&"a=end-of-candidates"), "in the first that is taken");
    assert_eq!(answer_with(CHROMIUM, None, false).unwrap_err(), OfferError::NoCodec);
    // A viewer that asks for sound only gets it.
    let audio = format!("{}\r\n", section(CHROMIUM, "audio").join("\r\n"));
    let head: String = CHROMIUM.split_inclusive("m=").next().unwrap().trim_end_matches("m=").into();
    let only_audio =
        answer_with(&format!("{}{audio}", head.replace("BUNDLE 0 1", "BUNDLE 1")), Some(HIGH), true);
    assert!(only_audio.unwrap().audio.is_some());
}

#[test]
fn the_profile_nearest_to_what_is_sent_is_chosen() {
    let chosen = |video: &str| {
        let answer = answer_with(CHROMIUM, Some(video.parse().unwrap()), true).unwrap();
        answer.video.unwrap().payload_types[0].1.media
    };
    assert_eq!(["42c01f", "42001f", "4d4028", "640028"].map(chosen), [108, 102, 116, 116]);
}

#[test]
fn both_dtls_roles_are_left_to_the_client() {
    for (setup, role, answered) in [
        ("actpass", Role::Server, "passive"),
        ("active", Role::Server, "passive"),
        ("passive", Role::Client, "active"),
    ] {
        let text = CHROMIUM.replace("a=setup:actpass", &format!("a=setup:{setup}"));
        assert_eq!(Offer::parse(&text).unwrap().transport().role, role);
        assert!(answer(&text).text.contains(&format!("a=setup:{answered}\r\n")));
    }
}

#[test]
fn whoever_must_act_is_told() {
    assert_eq!(error("BUNDLE 0 1", "BUNDLE 0"), OfferError::NotBundled);
    assert_eq!(error("a=group:BUNDLE 0 1\r\n", ""), OfferError::NotBundled);
    assert_eq!(error("a=rtcp-mux\r\n", ""), OfferError::NoRtcpMux);
    assert_eq!(error("a=ice-ufrag:j5V9\r\n", ""), OfferError::NoUfrag);
    assert_eq!(error("a=ice-ufrag:j5V9", "a=ice-ufrag:j5"), OfferError::NoUfrag);
    assert_eq!(error("a=fingerprint:sha-256", "a=fingerprint:sha-1"), OfferError::NoFingerprint);
    assert_eq!(error("a=setup:actpass", "a=setup:holdconn"), OfferError::Setup);
    assert_eq!(error("a=recvonly", "a=sendonly"), OfferError::NothingToReceive);
    assert_eq!(error("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n"), OfferError::IceLite);
    assert_eq!(
        error("packetization-mode=1", "packetization-mode=0"),
        OfferError::NoVideo("H.264 with packetization-mode=1".into())
    );
    let malformed = Offer::parse("{}").unwrap_err();
    assert!(malformed.is_malformed() && !OfferError::NoCodec.is_malformed(), "{malformed}");
}

/// Threat 8.
#[test]
fn an_offer_has_bounds() {
    let section = format!("{}\r\n", section(CHROMIUM, "audio").join("\r\n"));
    for text in [
        format!("{CHROMIUM}{}", section.repeat(15)),
        format!("{CHROMIUM}{}", "a=x\r\n".repeat(2_000)),
        format!("{CHROMIUM}a={}\r\n", "x".repeat(64 * 1024)),
    ] {
        assert_eq!(Offer::parse(&text).unwrap_err(), OfferError::TooLarge);
    }
}

#[test]
fn a_broken_offer_is_an_error_or_an_answer() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let identity = Identity::generate().unwrap();
    for _ in 0..3_000 {
        let mut bytes = random.choice([CHROMIUM, FIREFOX, SAFARI, AIORTC]).unwrap().as_bytes().to_vec();
        for _ in 0..random.usize(1..30) {
            let (at, to) = (random.usize(..bytes.len()), random.usize(..bytes.len()));
            match random.u8(..3) {
                0 => bytes[at] = random.u8(32..127),
                1 => bytes[at] = bytes[to],
                _ => drop(bytes.drain(at.min(to)..at.max(to).min(at.min(to) + 20))),
            }
        }
        let Ok(offer) = Offer::parse(&String::from_utf8_lossy(&bytes)) else { continue };
        let _ = offer.answer(&AnswerSettings {
            session_id: 7,
            credentials: &Credentials::generate().unwrap(),
            fingerprint: identity.fingerprint(),
            candidates: &candidates(),
            video: &[VideoFormat::Vp9, VideoFormat::H264(HIGH)],
            audio: true,
            cname: "live",
            ssrcs: SSRCS,
        });
    }
}
