//! The reader itself: one playlist it must accept, and one small damage for every rule it must notice.

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

#[test]
fn a_playlist_that_breaks_a_rule_by_itself_is_noticed() {
    for (find, replacement, words) in [
        ("VERSION:9", "VERSION:5", "below 6"),
        ("CAN-BLOCK-RELOAD=YES,", "", "CAN-BLOCK-RELOAD=YES is missing"),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=11.9", "six target durations"),
        ("CAN-SKIP-UNTIL=12.0", "HOLD-BACK=5.9", "three target durations"),
        (",PART-HOLD-BACK=1.536", "", "PART-HOLD-BACK is missing"),
        ("PART-HOLD-BACK=1.536", "PART-HOLD-BACK=1.5", "three part targets"),
        ("PART-TARGET=0.501", "PART-TARGET=0.499", "above PART-TARGET"),
        ("0.50000,URI=\"7.0", "0.42000,URI=\"7.0", "below 85 %"),
        ("EXTINF:1.00000", "EXTINF:2.50000", "rounds above TARGETDURATION"),
        ("EXTINF:1.00000", "EXTINF:1.00400", "and its parts"),
        ("#EXT-X-MAP:URI=\"init-5f2a.mp4\"\n", "", "no EXT-X-MAP applies"),
        ("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:31.000Z\n", "", "PROGRAM-DATE-TIME is missing"),
        ("08:10:31.000Z", "08:10:31.003Z", "after the one before"),
        ("08:10:31.000Z", "08:10:29.000Z", "is not after"),
        ("8.m4s\n", "7.m4s\n", "listed twice"),
        ("8.1.m4s", "7.1.m4s", "listed twice"),
        ("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.1.m4s\"\n", "", "PRELOAD-HINT is missing"),
        ("\"9.1.m4s\"", "\"9.0.m4s\"", "already listed"),
        ("#EXT-X-RENDITION", "#EXT-X-ENDLIST\n#", "a PRELOAD-HINT after the end"),
        ("#EXT-X-RENDITION", "#EXT-X-ENDLIST\n#", "belong to no segment"),
        ("VERSION:9", "VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS", ""),
    ] {
        let violations = parse(&damaged(find, replacement)).check();
        if words.is_empty() {
            assert_eq!(violations, [], "{replacement}");
        } else {
            assert_found(&violations, words);
        }
    }
    let dependent = damaged("VERSION:9", "VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS")
        .replace("\"8.0.m4s\",INDEPENDENT=YES", "\"8.0.m4s\"");
    assert_found(&parse(&dependent).check(), "its first part is not INDEPENDENT");
}

#[test]
fn parts_must_stay_for_three_target_durations_and_then_go() {
    let without = damaged(
        "#EXT-X-PART:DURATION=0.50000,URI=\"7.0.m4s\",INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.50000,URI=\"7.1.m4s\"\n",
        "",
    );
    assert_found(&parse(&without).check(), "has no parts, although");

    let long_ago = parse(&damaged("TARGETDURATION:2", "TARGETDURATION:1"));
    let mut grown = long_ago.clone();
    grown.segments = (0..10).map(|_| long_ago.segments[0].clone()).collect();
    assert_found(&grown.check(), "has parts, although");
}

#[test]
fn a_reload_may_only_add_at_the_end_and_remove_at_the_head() {
    let good = parse(GOOD);
    assert_eq!(check_reload(&good, &parse(&next_of_good())), []);
    assert_eq!(check_reload(&good, &good), []);
    assert_found(&check_reload(&parse(&next_of_good()), &good), "the end went back");

    for (find, replacement, words) in [
        ("TARGETDURATION:2", "TARGETDURATION:3", "TARGETDURATION went"),
        ("PART-TARGET=0.501", "PART-TARGET=0.502", "PART-TARGET went"),
        ("PART-HOLD-BACK=1.536", "PART-HOLD-BACK=1.6", "SERVER-CONTROL went"),
        ("MEDIA-SEQUENCE:7", "MEDIA-SEQUENCE:6", "MEDIA-SEQUENCE went back"),
        ("DISCONTINUITY-SEQUENCE:1", "DISCONTINUITY-SEQUENCE:0", "discontinuity 1 to 0"),
        ("init-5f2a", "init-0000", "EXT-X-MAP went"),
        ("08:10:31.000Z", "08:10:31.001Z", "PROGRAM-DATE-TIME went"),
        ("EXTINF:0.80000", "EXTINF:0.80001", "segment 8 after reload"),
        ("8.1.m4s", "8.5.m4s", "its parts changed"),
        ("DURATION=0.50000,URI=\"9.0", "DURATION=0.49999,URI=\"9.0", "its parts changed"),
        ("URI=\"9.1.m4s\"\n#EXT-X-PRELOAD", "URI=\"9.x.m4s\"\n#EXT-X-PRELOAD", "where 9.1.m4s was hinted"),
    ] {
        let next = next_of_good();
        assert!(next.contains(find), "{find:?}");
        assert_found(&check_reload(&good, &parse(&next.replacen(find, replacement, 1))), words);
    }
}

#[test]
fn segments_leave_only_when_enough_remains() {
    let old = parse(GOOD);
    let mut new = old.clone();
    new.media_sequence = 8;
    new.segments.remove(0);
    assert_found(&check_reload(&old, &new), "segments were removed although only");
}

#[test]
fn a_discontinuity_may_move_from_its_tag_into_the_header_but_not_vanish() {
    let tagged = parse(&damaged("#EXT-X-MAP", "#EXT-X-DISCONTINUITY\n#EXT-X-MAP"));
    assert_eq!(tagged.segment(7).unwrap().discontinuity_sequence, 2);
    assert_eq!(check_reload(&tagged, &parse(&damaged("SEQUENCE:1", "SEQUENCE:2"))), []);
    assert_found(&check_reload(&tagged, &parse(GOOD)), "discontinuity 2 to 1");
}

#[test]
fn nothing_may_follow_the_end() {
    let mut ended = parse(GOOD);
    ended.ended = true;
    assert_found(&check_reload(&ended, &parse(&next_of_good())), "after ENDLIST");
}

#[test]
fn renditions_share_control_grid_and_reports() {
    let video = parse(GOOD);
    let audio = parse(&GOOD.replace("../a/", "../v/"));
    assert_eq!(check_presentation(&[("video", &video), ("audio", &audio)]), []);

    let mut odd = audio.clone();
    odd.target_duration = 3;
    odd.server_control.part_hold_back = None;
    odd.segments[0].parts.pop();
    odd.rendition_reports[0].last_part = Some(4);
    let violations = check_presentation(&[("video", &video), ("audio", &odd)]);
    for words in
        ["TARGETDURATION 2 and 3", "SERVER-CONTROL", "2 parts and 1 parts", "reports ../v/index.m3u8"]
    {
        assert_found(&violations, words);
    }
    odd.rendition_reports.clear();
    assert_found(&check_presentation(&[("video", &video), ("audio", &odd)]), "0 rendition reports");
}

const MULTIVARIANT: &str = r#"#EXTM3U
#EXT-X-VERSION:6
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Audio",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="s1/a/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=2900000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=30.000,AUDIO="audio"
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
        ("BANDWIDTH=2900000,", "", "BANDWIDTH is missing"),
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
