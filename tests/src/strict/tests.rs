//! The reader itself: one playlist it must accept, and one small damage for everything it must notice.

mod rules;

use std::time::Duration;

use super::*;

/// 30 fps, two segments done and one begun. 15 frames a part; the hold-back is three times audio's longer part.
const GOOD: &str = r#"#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,PART-HOLD-BACK=1.536
#EXT-X-PART-INF:PART-TARGET=0.501
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DISCONTINUITY-SEQUENCE:1
#EXT-X-MAP:URI="init-5f2a.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:30.000Z
#EXT-X-PART:DURATION=0.50000,URI="7.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.50000,URI="7.1.m4s"
#EXTINF:1.00000,
7.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:31.000Z
#EXT-X-PART:DURATION=0.50000,URI="8.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.30000,URI="8.1.m4s"
#EXTINF:0.80000,
8.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:31.800Z
#EXT-X-PART:DURATION=0.50000,URI="9.0.m4s",INDEPENDENT=YES
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="9.1.m4s"
#EXT-X-RENDITION-REPORT:URI="../a/index.m3u8",LAST-MSN=9,LAST-PART=0
"#;

/// The same a part later.
fn next_of_good() -> String {
    GOOD.replace(
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.1.m4s\"\n",
        "#EXT-X-PART:DURATION=0.50000,URI=\"9.1.m4s\"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.2.m4s\"\n",
    )
    .replace("LAST-PART=0", "LAST-PART=1")
}

fn parse(text: &str) -> MediaPlaylist {
    MediaPlaylist::parse(text).unwrap()
}

fn damaged(find: &str, replacement: &str) -> String {
    assert!(GOOD.contains(find), "{find:?} is not in the good playlist");
    GOOD.replacen(find, replacement, 1)
}

#[track_caller]
fn assert_found(violations: &[Violation], words: &str) {
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|told| told.contains(words)), "{words:?} is not among {told:#?}");
}

#[test]
fn a_correct_playlist_is_read_and_has_nothing_against_it() {
    let playlist = parse(GOOD);
    assert_eq!(playlist.check(), []);
    assert_eq!(playlist.edge(), Some((9, Some(0))));
    assert_eq!(playlist.duration(), Duration::from_millis(1800));
    assert_eq!(playlist.segments.len(), 3);
    assert_eq!(playlist.segment(8).unwrap().map.as_deref(), Some("init-5f2a.mp4"));
    assert!(playlist.segment(9).unwrap().finished.is_none());
}

#[test]
fn wrong_syntax_is_refused() {
    for (find, replacement, words) in [
        ("#EXTM3U\n", "", "first line"),
        ("LAST-PART=0\n", "LAST-PART=0", "last line has no end"),
        ("#EXT-X-VERSION:9", "#EXT-X-VERSION:9\u{7}", "control characters"),
        ("#EXT-X-VERSION:9", "#EXT-X-VERSION", "needs a value"),
        ("#EXT-X-VERSION:9\n", "", "EXT-X-VERSION is missing"),
        ("#EXT-X-VERSION:9", "#EXT-X-VERSION:9\n#EXT-X-VERSION:9", "appears twice"),
        ("#EXT-X-TARGETDURATION:2", "#EXT-X-TARGETDURATION:2.0", "not a decimal integer"),
        ("#EXT-X-TARGETDURATION:2", "#EXT-X-TARGETDURATION:+2", "not a decimal integer"),
        ("#EXT-X-MEDIA-SEQUENCE:7", "#EXT-X-START:TIME-OFFSET=-1", "not a tag of our media playlists"),
        ("CAN-BLOCK-RELOAD=YES", "CAN-BLOCK-RELOAD=\"YES\"", "must not be quoted"),
        ("CAN-BLOCK-RELOAD=YES", "CAN-BLOCK-RELOAD=yes", "neither YES nor NO"),
        ("CAN-BLOCK-RELOAD=YES", "CAN-BLOCK-RELOAD", "attribute"),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=", "has the value"),
        ("CAN-SKIP-UNTIL=12.0", "SKIP=12.0", "not an attribute of this tag"),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=12.0,CAN-SKIP-UNTIL=12.0", "appears twice"),
        ("CAN-SKIP-UNTIL=12.0", " CAN-SKIP-UNTIL=12.0", "not an attribute name"),
        ("PART-TARGET=0.501", "PART-TARGET=.501", "not a decimal number"),
        ("PART-TARGET=0.501", "PART-TARGET=5e-1", "not a decimal number"),
        ("URI=\"init-5f2a.mp4\"", "URI=\"/init-5f2a.mp4\"", "not a plain relative URI"),
        ("URI=\"init-5f2a.mp4\"", "URI=\"http://host/init.mp4\"", "not a plain relative URI"),
        ("URI=\"init-5f2a.mp4\"", "URI=\"init-5f2a.mp4", "no closing quote"),
        ("URI=\"init-5f2a.mp4\"", "URI=init-5f2a.mp4", "must be quoted"),
        ("08:10:30.000Z", "08:10:30.000", "not date, time"),
        ("08:10:30.000Z", "08:10:30Z", "not date, time"),
        ("DURATION=0.50000,", "", "DURATION is missing"),
        ("URI=\"7.1.m4s\"", "URI=\"7.1.m4s\",BYTERANGE=\"9@0\"", "BYTERANGE is not an attribute"),
        ("#EXT-X-PART-INF:PART-TARGET=0.501\n", "", "EXT-X-PART without EXT-X-PART-INF"),
        ("#EXTINF:1.00000,", "#EXTINF:1.00000", "needs a comma"),
        ("#EXTINF:1.00000,\n", "", "a URI without EXTINF"),
        ("#EXTINF:1.00000,\n7.m4s\n", "#EXTINF:1.00000,\n", "between EXTINF and its URI"),
        ("TYPE=PART", "TYPE=MAP", "only parts"),
        ("LAST-MSN=9,", "", "LAST-MSN is missing"),
    ] {
        let text = damaged(find, replacement);
        let violation = MediaPlaylist::parse(&text).expect_err(replacement);
        assert_found(&[violation], words);
    }
}

#[test]
fn tags_in_the_wrong_order_are_refused() {
    let hint = "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.1.m4s\"\n";
    for (find, replacement, words) in [
        ("7.m4s\n#", "7.m4s\n#EXT-X-DISCONTINUITY-SEQUENCE:2\n#", "comes too late"),
        (
            "#EXTINF:1.0",
            "#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:30.000Z\n#EXTINF:1.0",
            "before the first part",
        ),
        ("#EXTINF:1.0", "#EXT-X-DISCONTINUITY\n#EXTINF:1.0", "before the first part"),
        (hint, "#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:32.300Z\n", "before the first part"),
        ("8.m4s\n", "8.m4s\n#EXT-X-MAP:URI=\"init-0000.mp4\"\n", "without a discontinuity"),
        (hint, &format!("{hint}{hint}"), "two EXT-X-PRELOAD-HINT"),
        (hint, &format!("#EXT-X-ENDLIST\n{hint}"), "comes too late"),
    ] {
        let violation = MediaPlaylist::parse(&damaged(find, replacement)).expect_err(replacement);
        assert_found(&[violation], words);
    }
}

/// Finds `words` among what is against the good playlist, once this is replaced in it.
#[track_caller]
fn says_no(cases: &[(&str, &str, &str)]) {
    for (find, replacement, words) in cases {
        assert_found(&parse(&damaged(find, replacement)).check(), words);
    }
}

/// The same for the playlist a part later, loaded after the good one.
#[track_caller]
fn says_no_on_reload(cases: &[(&str, &str, &str)]) {
    let good = parse(GOOD);
    for (find, replacement, words) in cases {
        let next = next_of_good();
        assert!(next.contains(find), "{find:?}");
        assert_found(&check_reload(&good, &parse(&next.replacen(find, replacement, 1))), words);
    }
}

#[test]
fn a_playlist_that_breaks_a_rule_by_itself_is_noticed() {
    says_no(&[
        ("VERSION:9", "VERSION:5", "below 6"),
        ("CAN-BLOCK-RELOAD=YES,", "", "CAN-BLOCK-RELOAD=YES is missing"),
        ("EXTINF:1.00000", "EXTINF:1.00400", "and its parts"),
        ("8.m4s\n", "7.m4s\n", "listed twice"),
        ("8.1.m4s", "7.1.m4s", "listed twice"),
        ("#EXT-X-RENDITION", "#EXT-X-ENDLIST\n#", "belong to no segment"),
    ]);
}

#[test]
fn a_reload_may_only_add_at_the_end() {
    let good = parse(GOOD);
    assert_eq!(check_reload(&good, &parse(&next_of_good())), []);
    assert_eq!(check_reload(&good, &good), []);
    assert_found(&check_reload(&parse(&next_of_good()), &good), "the end went back");
    says_no_on_reload(&[
        ("EXTINF:0.80000", "EXTINF:0.80001", "segment 8 after reload"),
        ("8.1.m4s", "8.5.m4s", "its parts changed"),
        ("DURATION=0.50000,URI=\"9.0", "DURATION=0.49999,URI=\"9.0", "its parts changed"),
        ("#EXTINF:1.0", "#EXT-X-GAP\n#EXTINF:1.0", "EXT-X-GAP went from false to true"),
    ]);
}

#[test]
fn nothing_may_follow_the_end() {
    let mut ended = parse(GOOD);
    ended.ended = true;
    assert_found(&check_reload(&ended, &parse(&next_of_good())), "after ENDLIST");
}

const MULTIVARIANT: &str = r#"#EXTM3U
#EXT-X-VERSION:6
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Audio",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="s1/a/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=2900000,AVERAGE-BANDWIDTH=2500000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=30.000,AUDIO="audio"
s1/v/index.m3u8
"#;

#[test]
fn a_multivariant_playlist_is_read_as_strictly() {
    let playlist = MultivariantPlaylist::parse(MULTIVARIANT).unwrap();
    let variant = playlist.variants.first().unwrap();
    assert_eq!((variant.bandwidth, variant.resolution), (2_900_000, Some((1280, 720))));
    assert_eq!(variant.codecs, ["avc1.64001f", "mp4a.40.2"]);
    assert_eq!(playlist.renditions.first().unwrap().uri.as_deref(), Some("s1/a/index.m3u8"));

    for (find, replacement, words) in [
        (":BANDWIDTH=2900000,", ":", "BANDWIDTH is missing"),
        ("AVERAGE-BANDWIDTH=2500000,", "", "AVERAGE-BANDWIDTH is missing"),
        ("RESOLUTION=1280x720,", "", "RESOLUTION or FRAME-RATE is missing"),
        ("FRAME-RATE=30.000,", "", "RESOLUTION or FRAME-RATE is missing"),
        ("CODECS=\"avc1.64001f,mp4a.40.2\",", "", "CODECS is missing"),
        ("avc1.64001f", "avc1.64001F", "not a codec"),
        ("avc1.64001f", "h264", "not a codec"),
        ("1280x720", "1280*720", "not WIDTHxHEIGHT"),
        ("30.000", "29.97003", "three decimals"),
        ("AUDIO=\"audio\"", "AUDIO=\"sound\"", "a group that is not there"),
        (",AUTOSELECT=YES", "", "needs AUTOSELECT"),
        ("s1/v/index.m3u8\n", "", "without its URI"),
        ("#EXT-X-VERSION:6", "#EXT-X-INDEPENDENT-SEGMENTS", "has no place"),
        ("s1/a/", "http://elsewhere/a/", "relative URI"),
    ] {
        assert!(MULTIVARIANT.contains(find), "{find:?}");
        let violation =
            MultivariantPlaylist::parse(&MULTIVARIANT.replacen(find, replacement, 1)).expect_err(replacement);
        assert_found(&[violation], words);
    }
}

#[test]
fn steering_is_told_of_once_and_by_its_address_alone() {
    let told = |tag: &str| MultivariantPlaylist::parse(&format!("{MULTIVARIANT}{tag}"));
    let tag = "#EXT-X-CONTENT-STEERING:SERVER-URI=\"/where/live/cam/steering.json\"\n";
    assert_eq!(told("").unwrap().steering, None);
    assert_eq!(told(tag).unwrap().steering.as_deref(), Some("/where/live/cam/steering.json"));
    for (wrong, words) in [
        (tag.repeat(2), "twice"),
        (tag.replace("/where/", "https://elsewhere/"), "not where"),
        (tag.replace("SERVER-URI", "PATHWAY-ID"), "is missing"),
    ] {
        assert_found(&[told(&wrong).expect_err(&wrong)], words);
    }
}

#[test]
fn a_filtered_playlist_leaves_out_and_changes_nothing() {
    let whole = MultivariantPlaylist::parse(MULTIVARIANT).unwrap();
    let text = |rendition, codecs: &str| {
        format!(
            "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-STREAM-INF:BANDWIDTH=200000,AVERAGE-BANDWIDTH=128000,CODECS=\"{codecs}\"\n\
             s1/{rendition}/index.m3u8\n"
        )
    };
    let audio = MultivariantPlaylist::parse(&text("a", "mp4a.40.2")).unwrap();
    assert_eq!(check_filtered(&whole, &whole), []);
    assert_eq!(check_filtered(&whole, &audio), []);
    let unknown = MultivariantPlaylist::parse(&text("b", "mp4a.40.2")).unwrap();
    assert_found(&check_filtered(&whole, &unknown), "s1/b/index.m3u8: is not in the whole playlist");
    // It says it is the whole stream's video, and is not.
    let other = MultivariantPlaylist::parse(&text("v", "mp4a.40.2")).unwrap();
    assert_found(&check_filtered(&whole, &other), "s1/v/index.m3u8: is Variant");
    let mut renamed = whole.clone();
    renamed.renditions[0].channels = Some("6".to_owned());
    assert_found(&check_filtered(&whole, &renamed), "Audio: is not in the whole playlist");
}

#[test]
fn a_peak_far_above_what_was_said_is_noticed() {
    let whole = MultivariantPlaylist::parse(MULTIVARIANT).unwrap();
    let found = |peak| Vec::from_iter(check_bandwidth(&whole.variants[0], peak));
    assert_eq!(found(3_625_000), []);
    assert_found(&found(3_625_001), "3625001 bit/s");
}

#[test]
fn codecs_are_written_as_their_standards_say() {
    let fits =
        |codec: &str| MultivariantPlaylist::parse(&MULTIVARIANT.replacen("avc1.64001f", codec, 1)).is_ok();
    for codec in
        ["hvc1.1.6.L93.90", "hvc1.2.4.H120", "av01.0.05M.08", "av01.0.09M.10.0.110.09.16.09.0", "opus"]
    {
        assert!(fits(codec), "{codec}");
    }
    for codec in [
        "hvc1",
        "hvc1.1.6.93.90",
        "hvc1.1.6.L93.90.0",
        "hvc1.1.6.L93.b0",
        "av01.0.5M.08",
        "av01.0.05M.8",
        "av01.0.05M.08.0.110",
        "Opus.1",
    ] {
        assert!(!fits(codec), "{codec}");
    }
}
