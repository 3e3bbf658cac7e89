use super::*;

/// Out of Chromium 156: one audio and one video track, sendonly.
pub(in crate::whip) const CHROMIUM: &str = include_str!("chromium.sdp");

/// The same with three layers, as its script names them.
pub(in crate::whip) const LAYERED: &str = include_str!("layered.sdp");

/// As ffmpeg 9's WHIP muxer writes it, which waits for our DTLS hello.
pub(in crate::whip) const FFMPEG: &str = "v=0\r\no=FFmpeg 4489045141692799359 2 IN IP4 127.0.0.1\r\ns=FFmpegPublishSession\r\n\
    t=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:a174b\r\na=ice-pwd:550e8400e29b41d4a716446655440000\r\n\
    a=fingerprint:sha-256 EE:FE:A2:E5:6A:21:78:60:71:2C:21:DC:1A:2C:98:12:0C:E8:AD:68:07:61:1B:0E:FC:46:97:1E:BC:97:4A:54\r\n\
    a=setup:passive\r\na=mid:0\r\na=sendonly\r\na=msid:FFmpeg audio\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    a=ssrc:4267647086 cname:FFmpeg\r\na=ssrc:4267647086 msid:FFmpeg audio\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 106 105\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:a174b\r\na=ice-pwd:550e8400e29b41d4a716446655440000\r\n\
    a=fingerprint:sha-256 EE:FE:A2:E5:6A:21:78:60:71:2C:21:DC:1A:2C:98:12:0C:E8:AD:68:07:61:1B:0E:FC:46:97:1E:BC:97:4A:54\r\n\
    a=setup:passive\r\na=mid:1\r\na=sendonly\r\na=msid:FFmpeg video\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
    a=rtpmap:106 H264/90000\r\na=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
    a=rtcp-fb:106 nack\r\na=rtpmap:105 rtx/90000\r\na=fmtp:105 apt=106\r\na=ssrc:107169110 cname:FFmpeg\r\n";

fn parse(text: &str) -> Result<Offer, OfferError> {
    Offer::parse(text.as_bytes(), true)
}

#[test]
fn the_first_format_of_ours_is_taken_with_its_retransmissions() {
    let offer = parse(CHROMIUM).unwrap();
    let video = offer.video.as_ref().unwrap();
    assert_eq!((video.payload_type, video.rtx_payload_type), (102, Some(103)));
    assert!(video.parameters.contains("packetization-mode=1;profile-level-id=42001f"), "{video:?}");
    let audio = offer.audio.as_ref().unwrap();
    assert_eq!((audio.payload_type, audio.rtx_payload_type), (111, None));
    assert!(!offer.is_passive);

    let offer = parse(FFMPEG).unwrap();
    assert_eq!(offer.video.as_ref().unwrap().payload_type, 106, "High, which Chromium does not offer");
    assert!(offer.is_passive);
    assert_eq!(offer.ufrag(), "a174b");
}

#[test]
fn of_the_offer_only_what_is_taken_is_passed_on() {
    let reduced = parse(CHROMIUM).unwrap().reduced();
    assert!(reduced.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"), "{reduced}");
    assert!(reduced.contains("m=video 9 UDP/TLS/RTP/SAVPF 102 103\r\n"), "{reduced}");
    assert!(reduced.contains("a=group:BUNDLE 0 1\r\n") && reduced.contains("a=ssrc-group:FID"), "{reduced}");
    for left_out in ["VP8", "AV1", "red/48000", "a=candidate", "a=rtcp-fb:96", "a=fmtp:104"] {
        assert!(!reduced.contains(left_out), "{left_out}: {reduced}");
    }
    assert_eq!(parse(&reduced).unwrap().reduced(), reduced, "there is nothing left to leave out");
}

/// With codecs that nobody knows.
fn unknown() -> String {
    let names = ["VP8", "H264", "AV1", "VP9"];
    names.iter().fold(CHROMIUM.to_owned(), |text, name| {
        text.replace(&format!(" {name}/90000"), &format!(" X-{name}/90000"))
    })
}

/// Without the sound.
fn alone(text: &str) -> String {
    format!("{}m=video{}", text.split("m=audio").next().unwrap(), text.split("m=video").nth(1).unwrap())
}

/// Chromium's formats: VP8 is 96, H.264 102 and five more, AV1 45, VP9 98 (profile 0) and 100.
fn chosen(formats: &str, transcodes: bool) -> Result<(VideoCodec, u8), OfferError> {
    let line = CHROMIUM.lines().find(|line| line.starts_with("m=video")).unwrap();
    let text = CHROMIUM.replace(line, &format!("m=video 9 UDP/TLS/RTP/SAVPF {formats}"));
    let video = Offer::parse(text.as_bytes(), transcodes)?.video.unwrap();
    Ok((video.codec.unwrap(), video.payload_type))
}

#[test]
fn the_publishers_first_codec_is_taken_unless_it_is_only_the_browsers() {
    use VideoCodec::{Av1, H264, Vp8, Vp9};
    for transcodes in [true, false] {
        for (formats, codec) in [
            ("96 97 102 103 45 98", (H264, 102)),
            ("45 46 96 102", (Av1, 45)),
            ("98 99 102", (Vp9, 98)),
            ("100 98 102", (Vp9, 98)),
            ("102 45", (H264, 102)),
        ] {
            assert_eq!(chosen(formats, transcodes), Ok(codec), "{formats}");
        }
    }
    assert_eq!(chosen("96 97 98 99", true), Ok((Vp8, 96)));
}

/// There would be nothing that viewers by HLS could be shown.
#[test]
fn vp8_is_taken_only_where_it_is_transcoded() {
    assert_eq!(chosen("96 97", true), Ok((VideoCodec::Vp8, 96)));
    assert_eq!(chosen("96 97 98 99", false), Ok((VideoCodec::Vp9, 98)));
    let refused = chosen("96 97", false).unwrap_err();
    assert_eq!(refused, OfferError::NotTranscoded);
    assert!(!refused.is_malformed() && refused.to_string().contains("there is no encoder"), "{refused}");
}

#[test]
fn of_hevc_the_main_profile_is_taken() {
    let with = |parameters: &str| {
        let hevc = CHROMIUM.replace("a=rtpmap:102 H264/90000", "a=rtpmap:102 H265/90000");
        let old = "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f";
        assert!(hevc.contains(old));
        let hevc = hevc.replace(old, &format!("a=fmtp:102 {parameters}"));
        parse(&hevc.replace("SAVPF 96 97 ", "SAVPF ")).unwrap().video.unwrap().codec
    };
    for taken in ["level-id=93", "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST"] {
        assert_eq!(with(taken), Some(VideoCodec::H265), "{taken}");
    }
    for other in ["profile-id=2", "tx-mode=MRST", "sprop-max-don-diff=2"] {
        assert_eq!(with(other), Some(VideoCodec::H264), "{other}");
    }
}

#[test]
fn what_cannot_be_taken_is_refused_in_words() {
    let section = CHROMIUM.split("m=video").nth(1).unwrap();
    let twice = format!("{}m=video{}", CHROMIUM, section.replace("a=mid:1", "a=mid:2"));
    let alone = alone(&unknown());
    for (text, error, words) in [
        ("", true, "does not begin with v=0"),
        ("v=0\r\nhello", true, "not of the form"),
        ("v=0\r\nm=\r\n", true, "a media line is empty"),
        ("v=0\r\nm=video 9 X\r\n", true, "no formats"),
        (&CHROMIUM.replace("a=rtcp-mux\r\n", ""), true, "lacks rtcp-mux"),
        (&CHROMIUM.replace("a=ice-pwd:", "a=x:"), true, "lacks ice-pwd"),
        (&CHROMIUM.replace("a=fingerprint:", "a=x:"), true, "lacks fingerprint"),
        (&FFMPEG.replace("a=ice-ufrag:a174b", "a=ice-ufrag"), true, "lacks ice-ufrag"),
        (&CHROMIUM.replace("a=sendonly", "a=recvonly"), false, "this is where publishers send"),
        (&twice, false, "more than one video track"),
        (&alone, false, "video in X-VP8, X-H264, X-AV1, X-VP9, but only H.264"),
        (&CHROMIUM.replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0"), false, "not bundled"),
    ] {
        let refused = parse(text).unwrap_err();
        assert_eq!(refused.is_malformed(), error, "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

/// The sound goes on without the picture, and the answer says why there is none.
#[test]
fn a_section_that_is_not_taken_is_refused_in_the_answer_where_it_stood() {
    let offer = parse(&unknown()).unwrap();
    assert!(offer.video.is_none() && offer.audio.is_some());
    let ours = "v=0\r\ns=-\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n";
    let answer = offer.complete(ours, &["1 1 udp 1 192.0.2.7 8189 typ host".to_owned()]);
    let refused =
        "m=video 0 UDP/TLS/RTP/SAVPF 96\r\ni=the offer has video in X-VP8, X-H264, X-AV1, X-VP9, but only";
    assert!(answer.contains(refused), "{answer}");
    assert!(answer.contains(
        "a=mid:0\r\na=candidate:1 1 udp 1 192.0.2.7 8189 typ host\r\na=end-of-candidates\r\nm=video"
    ));
    assert!(answer.contains("a=mid:1\r\na=inactive\r\n"), "{answer}");
}

/// Threat 8: an offer that makes us keep or compute without end.
#[test]
fn an_offer_is_bounded() {
    let lines = format!("{CHROMIUM}{}", "a=x\r\n".repeat(LINES_MAX));
    assert!(parse(&lines).unwrap_err().is_malformed());
    let sections = format!("{CHROMIUM}{}", "m=audio 0 X 0\r\n".repeat(SECTIONS_MAX));
    assert!(parse(&sections).unwrap_err().is_malformed());
    assert!(Offer::parse(&[0xFF, 0xFE], true).unwrap_err().is_malformed());
}

proptest::proptest! {
    /// Whatever is done to an offer, it is refused or reduced to one that says the same.
    #[test]
    fn an_offer_with_lines_gone_wrong_never_panics(
        cut in 0..CHROMIUM.len(), twice in 0..160_usize, text in "[ -~]{0,20}",
    ) {
        let mut lines: Vec<_> = CHROMIUM.get(..cut).unwrap_or(CHROMIUM).lines().collect();
        if let Some(line) = lines.get_mut(twice) {
            *line = &text;
        }
        if let Ok(offer) = parse(&lines.join("\r\n")) {
            let reduced = parse(&offer.reduced()).unwrap();
            proptest::prop_assert_eq!(reduced.video, offer.video);
            proptest::prop_assert_eq!(reduced.audio, offer.audio);
        }
    }
}
