//! Golden playlists, and what filters leave of them.

use bytes::Bytes;
use media::codec::{aac, h264, h265, opus};

use super::*;
use crate::rendition::Derived;

/// x264, High profile, 1280x720; AAC-LC, 48 kHz, stereo.
const AVCC: &[u8] =
    b"\x01\x64\x00\x1f\xff\xe1\x00\x18\x67\x64\x00\x1f\xac\xb2\x00\xa0\x0b\x76\x02\x20\x00\x00\x03\
    \x00\x20\x00\x00\x07\x81\xe3\x06\x49\x01\x00\x06\x68\xeb\xc3\xcb\x22\xc0\xfd\xf8\xf8\x00";
const AUDIO_SPECIFIC_CONFIG: &[u8] = &[0x11, 0x90];

fn video(name: &str) -> RenditionHeader {
    let codec = CodecConfig::H264(h264::Config::parse(Bytes::from_static(AVCC)).unwrap());
    RenditionHeader { name: name.parse().unwrap(), codec, part_target_ms: 501, derived: None }
}

fn audio() -> RenditionHeader {
    let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(AUDIO_SPECIFIC_CONFIG)).unwrap());
    RenditionHeader { name: "a".parse().unwrap(), codec, part_target_ms: 512, derived: None }
}

fn rendered(renditions: &[RenditionHeader], bandwidths: &[Bandwidth]) -> String {
    multivariants(renditions, bandwidths).text("")
}

fn multivariants(renditions: &[RenditionHeader], bandwidths: &[Bandwidth]) -> Multivariants {
    captioned(renditions, bandwidths, Captions::default())
}

fn captioned(renditions: &[RenditionHeader], bandwidths: &[Bandwidth], captions: Captions) -> Multivariants {
    let renditions: Vec<_> = renditions.iter().cloned().zip(bandwidths.iter().copied()).collect();
    let frame_rate = Some(30_000.0 / 1001.0);
    Multivariants::new(
        SessionId::from_random(0xAB),
        None,
        Offered(u64::MAX),
        &renditions,
        frame_rate,
        captions,
    )
}

impl Multivariants {
    fn ask(&self, query: &str) -> &Rendered {
        self.get(Filter::parse(query).unwrap())
    }

    fn text(&self, query: &str) -> String {
        String::from_utf8(self.ask(query).plain.body.to_vec()).unwrap()
    }
}

const VIDEO: Bandwidth = Bandwidth { peak: 3_000_000, average: 2_500_000 };
const AUDIO: Bandwidth = Bandwidth { peak: 200_000, average: 128_000 };

#[test]
fn golden_video_and_audio() {
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-MEDIA:TYPE=AUDIO,URI=\"00000000000000ab/a/index.m3u8\",GROUP-ID=\"audio\",NAME=\"Audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"
#EXT-X-STREAM-INF:BANDWIDTH=3200000,AVERAGE-BANDWIDTH=2628000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=29.97,AUDIO=\"audio\"
00000000000000ab/v/index.m3u8
";
    assert_eq!(rendered(&[video("v"), audio()], &[VIDEO, AUDIO]), expected);
}

#[test]
fn golden_video_only() {
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-STREAM-INF:BANDWIDTH=3000000,AVERAGE-BANDWIDTH=2500000,CODECS=\"avc1.64001f\",RESOLUTION=1280x720,FRAME-RATE=29.97
00000000000000ab/v/index.m3u8
";
    assert_eq!(rendered(&[video("v")], &[VIDEO]), expected);
}

/// In a cluster, the whole and the filtered, under other ETags than elsewhere.
#[test]
fn golden_steering() {
    let id = StreamId::new("live", "cam").unwrap();
    let steered = |steering| {
        let (session, captions) = (SessionId::from_random(0xAB), Captions::default());
        Multivariants::new(session, steering, Offered(u64::MAX), &[(audio(), AUDIO)], None, captions)
    };
    let (with, without) = (steered(Some(&id)), steered(None));
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-STREAM-INF:BANDWIDTH=200000,AVERAGE-BANDWIDTH=128000,CODECS=\"mp4a.40.2\"
00000000000000ab/a/index.m3u8
#EXT-X-CONTENT-STEERING:SERVER-URI=\"/where/live/cam/steering.json\"
";
    assert_eq!(with.text(""), expected);
    assert_eq!(with.text("only=audio"), expected);
    assert!(expected.starts_with(&without.text("")));
    assert_ne!(with.ask("").plain.etag, without.ask("").plain.etag);
}

/// CC1 and CC3. Sound alone has none, and a player that has kept the playlist without them is told of another.
#[test]
fn golden_captions() {
    let captions = Captions::from_bits(0b101);
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-MEDIA:TYPE=AUDIO,URI=\"00000000000000ab/a/index.m3u8\",GROUP-ID=\"audio\",NAME=\"Audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"
#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"captions\",NAME=\"Captions\",AUTOSELECT=YES,INSTREAM-ID=\"CC1\"
#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID=\"captions\",NAME=\"Captions 3\",AUTOSELECT=YES,INSTREAM-ID=\"CC3\"
#EXT-X-STREAM-INF:BANDWIDTH=3200000,AVERAGE-BANDWIDTH=2628000,CODECS=\"avc1.64001f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=29.97,AUDIO=\"audio\",CLOSED-CAPTIONS=\"captions\"
00000000000000ab/v/index.m3u8
";
    let (renditions, bandwidths) = ([video("v"), audio()], [VIDEO, AUDIO]);
    let with = captioned(&renditions, &bandwidths, captions);
    assert_eq!(with.text(""), expected);
    assert!(!with.text("only=audio").contains("CAPTIONS"));
    let services = captioned(&renditions, &bandwidths, Captions::from_bits(1 << 4)).text("");
    assert!(
        services.contains("EXT-X-VERSION:7\n") && services.contains("INSTREAM-ID=\"SERVICE1\""),
        "{services}"
    );
    let without = multivariants(&renditions, &bandwidths);
    assert_ne!(with.ask("").plain.etag, without.ask("").plain.etag);
}

/// x265, Main 10, BT.2020 with the curve of SMPTE ST 2084.
const HVCC_PQ: &str = "\
    01022000000090000000000078f000fcfdfafa00000f03a00001001840010c01ffff0220000003009000000300000300789598\
    09a100010038420101022000000300900000030000030078a003c08010e4d96566924caf016a1220120800001f480003a98300\
    a4b3700016e360002dc6c4a2000100074401c172b46240";

#[test]
fn golden_high_dynamic_range() {
    let pairs = HVCC_PQ.as_bytes().chunks(2);
    let hvcc: Vec<_> =
        pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let codec = CodecConfig::H265(h265::Config::parse(hvcc.into()).unwrap());
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-STREAM-INF:BANDWIDTH=3000000,AVERAGE-BANDWIDTH=2500000,CODECS=\"hvc1.2.4.L120.90\",RESOLUTION=1920x1080,FRAME-RATE=29.97,VIDEO-RANGE=PQ
00000000000000ab/v/index.m3u8
";
    assert_eq!(rendered(&[RenditionHeader { codec, ..video("v") }], &[VIDEO]), expected);
}

#[test]
fn golden_audio_only() {
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-STREAM-INF:BANDWIDTH=200000,AVERAGE-BANDWIDTH=128000,CODECS=\"mp4a.40.2\"
00000000000000ab/a/index.m3u8
";
    assert_eq!(rendered(&[audio()], &[AUDIO]), expected);
}

#[test]
fn every_rung_is_a_variant_with_the_same_audio() {
    let text = rendered(&[video("v"), audio(), video("v480")], &[VIDEO, AUDIO, AUDIO]);
    let Ok((_, parsed)) = m3u8_rs::parse_master_playlist(text.as_bytes()) else { panic!("{text}") };
    let uris: Vec<_> = parsed.variants.iter().map(|variant| &variant.uri[17..]).collect();
    assert_eq!(uris, ["v/index.m3u8", "v480/index.m3u8"]);
    assert!(parsed.variants.iter().all(|variant| variant.audio.as_deref() == Some("audio")));
    assert_eq!(parsed.alternatives.len(), 1);
    assert!(!parsed.independent_segments);
}

#[test]
fn a_ladder_has_sound_alone_at_its_foot_and_each_codec_of_sound_in_a_group_of_its_own() {
    let rung = RenditionHeader { derived: Some(Derived::always(2)), ..video("v480") };
    let codec = CodecConfig::Opus(opus::Config::parse(Bytes::from_static(OPUS_HEAD)).unwrap());
    let sound = [
        RenditionHeader { codec, ..audio() },
        RenditionHeader { name: "aac".parse().unwrap(), derived: Some(Derived::always(1)), ..audio() },
    ];
    let [own, aac] = sound;
    let text = rendered(&[video("v"), own, rung, aac], &[VIDEO, AUDIO, AUDIO, AUDIO]);
    let Ok((_, parsed)) = m3u8_rs::parse_master_playlist(text.as_bytes()) else { panic!("{text}") };
    let told = parsed.variants.iter().map(|variant| {
        let codecs = variant.codecs.clone().unwrap();
        let rate = variant.frame_rate.map(|rate| rate as u32);
        (variant.uri[17..].to_owned(), codecs, variant.audio.clone().unwrap(), rate)
    });
    let expected = [
        ("v/index.m3u8", "avc1.64001f,opus", "audio", Some(29)),
        ("v480/index.m3u8", "avc1.64001f,opus", "audio", Some(14)),
        ("v/index.m3u8", "avc1.64001f,mp4a.40.2", "aac", Some(29)),
        ("v480/index.m3u8", "avc1.64001f,mp4a.40.2", "aac", Some(14)),
        ("a/index.m3u8", "opus", "audio", None),
        ("aac/index.m3u8", "mp4a.40.2", "aac", None),
    ];
    let expected = expected
        .map(|(uri, codecs, audio, rate)| (uri.to_owned(), codecs.to_owned(), audio.to_owned(), rate));
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let groups: Vec<_> = parsed.alternatives.iter().map(|audio| audio.group_id.as_str()).collect();
    assert_eq!(groups, ["audio", "aac"]);
}

/// Version 1, stereo, no pre-skip, 48 kHz (RFC 7845, §5.1).
const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0";

/// x264, High profile, 854x480 and 640x360.
const AVCC_480: &[u8] =
    b"\x01\x64\x00\x1f\xff\xe1\x00\x19\x67\x64\x00\x1f\xac\xb4\x06\xc1\xef\x37\x80\x88\x00\x00\x03\x00\
    \x08\x00\x00\x03\x01\xe0\x78\xc1\x95\x01\x00\x04\x68\xef\x0f\xcb\xfd\xf8\xf8\x00";
const AVCC_360: &[u8] =
    b"\x01\x64\x00\x1e\xff\xe1\x00\x19\x67\x64\x00\x1e\xac\xb4\x05\x01\x7f\xcb\x80\x88\x00\x00\x03\x00\
    \x08\x00\x00\x03\x01\xe0\x78\xb1\x75\x01\x00\x04\x68\xef\x0f\xcb\xfd\xf8\xf8\x00";

/// As a ladder has it: the same picture in three heights.
fn ladder() -> Multivariants {
    let rung = |name: &str, avcc: &'static [u8]| {
        let codec = CodecConfig::H264(h264::Config::parse(Bytes::from_static(avcc)).unwrap());
        RenditionHeader { codec, ..video(name) }
    };
    let renditions = [video("v"), audio(), rung("v480", AVCC_480), rung("v360", AVCC_360)];
    let half = Bandwidth { peak: 1_500_000, average: 1_200_000 };
    multivariants(&renditions, &[VIDEO, AUDIO, half, half])
}

/// The variants' renditions and the group of audio, as they are read by another implementation.
fn listed(text: &str) -> (Vec<String>, usize) {
    let Ok((_, playlist)) = m3u8_rs::parse_master_playlist(text.as_bytes()) else { panic!("{text}") };
    let name = |uri: &str| uri.split('/').nth(1).unwrap().to_owned();
    let variants = playlist.variants.iter().map(|variant| name(&variant.uri)).collect();
    (variants, playlist.alternatives.len())
}

#[test]
fn a_filter_leaves_what_it_says() {
    let ladder = ladder();
    let listed = |query| listed(&ladder.text(query));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(listed(""), (names(&["v", "v480", "v360"]), 1));
    assert_eq!(listed("max=719"), (names(&["v480", "v360"]), 1));
    assert_eq!(listed("max=400"), (names(&["v360"]), 1));
    assert_eq!(listed("max=1"), (names(&["v360"]), 1), "the closest that still plays");
    assert_eq!(listed("only=audio"), (names(&["a"]), 0));
    assert_eq!(listed("only=video&max=480"), (names(&["v480", "v360"]), 0));
}

/// What a variant says of itself is what is left of it.
#[test]
fn picture_alone_needs_no_bandwidth_or_codec_for_sound() {
    let text = ladder().text("only=video&max=360");
    assert!(
        text.contains(
            "BANDWIDTH=1500000,AVERAGE-BANDWIDTH=1200000,CODECS=\"avc1.64001e\",RESOLUTION=640x360"
        ),
        "{text}"
    );
    assert!(!text.contains("AUDIO") && !text.contains("mp4a"), "{text}");
}

/// Threat: a stranger who asks for `?max=1`, `?max=2`, … to make this grow.
#[test]
fn filters_with_one_outcome_are_one_playlist() {
    let ladder = ladder();
    let playlists: std::collections::HashSet<_> =
        (1..2000).map(|max| std::ptr::from_ref(ladder.ask(&format!("max={max}")))).collect();
    assert_eq!((playlists.len(), ladder.slots.len()), (3, 7));
}

#[test]
fn what_differs_has_another_etag() {
    let ladder = ladder();
    let queries = ["", "max=480", "max=360", "only=audio", "only=video", "only=video&max=480"];
    let etags: std::collections::HashSet<_> =
        queries.map(|query| ladder.ask(query).plain.etag.clone()).into();
    assert_eq!(etags.len(), queries.len());
    assert_eq!(ladder.ask("max=480").plain.etag, ladder.ask("max=500").plain.etag, "the same bytes");
}

/// For who comes when there is little room; the tag must not say that it is the whole.
#[test]
fn the_lower_renditions_are_a_playlist_of_their_own() {
    let ladder = ladder();
    let lower = ladder.get(Filter::default().lower());
    let text = String::from_utf8(lower.plain.body.to_vec()).unwrap();
    assert_eq!(listed(&text), listed(&ladder.text("max=480")));
    assert_ne!(lower.plain.etag, ladder.ask("").plain.etag);
}
