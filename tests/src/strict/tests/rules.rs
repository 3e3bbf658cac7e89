//! That the reader can say no: one test for each rule of `core/hls/CONFORMANCE.md` a playlist can break by what it says.

use super::*;

const PART_9_0: &str = "#EXT-X-PART:DURATION=0.50000,URI=\"9.0.m4s\",INDEPENDENT=YES\n";

fn twin_of_good() -> MediaPlaylist {
    parse(&GOOD.replace("../a/", "../v/"))
}

/// What is against a presentation of the good playlist and this one beside it.
fn beside_good(change: impl FnOnce(&mut MediaPlaylist)) -> Vec<Violation> {
    let (video, mut audio) = (parse(GOOD), twin_of_good());
    change(&mut audio);
    check_presentation(&[("video", &video), ("audio", &audio)])
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(beside_good(|_| {}), []);
}

#[test]
fn p1_control_that_differs_between_renditions_or_over_time_is_noticed() {
    assert_found(&beside_good(|audio| audio.server_control.part_hold_back = None), "SERVER-CONTROL");
    assert_found(&beside_good(|audio| audio.server_control.can_skip_until = None), "SERVER-CONTROL");
    says_no_on_reload(&[("PART-HOLD-BACK=1.536", "PART-HOLD-BACK=1.6", "SERVER-CONTROL went")]);
}

#[test]
fn p2_a_part_hold_back_below_three_part_targets_is_noticed() {
    says_no(&[
        (",PART-HOLD-BACK=1.536", "", "PART-HOLD-BACK is missing"),
        ("PART-HOLD-BACK=1.536", "PART-HOLD-BACK=1.5", "three part targets"),
    ]);
}

#[test]
fn p3_a_hold_back_below_three_target_durations_is_noticed() {
    says_no(&[("CAN-SKIP-UNTIL=12.0", "HOLD-BACK=5.9", "three target durations")]);
}

#[test]
fn p4_a_part_that_is_too_long_or_too_short_is_noticed() {
    says_no(&[
        ("PART-TARGET=0.501", "PART-TARGET=0.499", "above PART-TARGET"),
        ("0.50000,URI=\"7.0", "0.42000,URI=\"7.0", "below 85 %"),
    ]);
    // Before a gap, and as one, it may be short.
    let short = "#EXT-X-PART:DURATION=0.10000,URI=\"9.0.m4s\",INDEPENDENT=YES\n";
    let gap = "#EXT-X-PART:DURATION=0.10000,URI=\"9.1.m4s\",GAP=YES\n";
    let playlist = damaged(PART_9_0, &format!("{short}{gap}{gap}"))
        .replacen("9.1.m4s", "9.2.m4s", 1)
        .replace("HINT:TYPE=PART,URI=\"9.1.m4s\"", "HINT:TYPE=PART,URI=\"9.3.m4s\"");
    assert_eq!(parse(&playlist).check(), []);
}

#[test]
fn p5_a_part_target_that_changes_is_noticed() {
    says_no_on_reload(&[("PART-TARGET=0.501", "PART-TARGET=0.502", "PART-TARGET went")]);
}

#[test]
fn p7_a_target_duration_that_does_not_hold_is_noticed() {
    says_no(&[("EXTINF:1.00000", "EXTINF:2.50000", "rounds above TARGETDURATION")]);
    says_no_on_reload(&[("TARGETDURATION:2", "TARGETDURATION:3", "TARGETDURATION went")]);
    assert_found(&beside_good(|audio| audio.target_duration = 3), "TARGETDURATION 2 and 3");
}

#[test]
fn p8_dates_that_are_missing_or_do_not_fit_are_noticed() {
    says_no(&[
        ("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:31.000Z\n", "", "PROGRAM-DATE-TIME is missing"),
        ("08:10:31.000Z", "08:10:31.003Z", "after the one before"),
        ("08:10:31.000Z", "08:10:29.000Z", "is not after"),
    ]);
    says_no_on_reload(&[("08:10:31.000Z", "08:10:31.001Z", "PROGRAM-DATE-TIME went")]);
    let later = "2026-11-21T08:10:30.200Z".parse().unwrap();
    assert_found(
        &beside_good(|audio| audio.segments[0].program_date_time = Some(later)),
        "dates are 200ms apart",
    );
}

#[test]
fn p9_a_false_claim_of_independence_is_noticed() {
    let claimed = damaged("VERSION:9", "VERSION:9\n#EXT-X-INDEPENDENT-SEGMENTS");
    assert_eq!(parse(&claimed).check(), []);
    let dependent = claimed.replace("\"8.0.m4s\",INDEPENDENT=YES", "\"8.0.m4s\"");
    assert_found(&parse(&dependent).check(), "its first part is not INDEPENDENT");
}

#[test]
fn p10_a_hint_that_is_missing_wrong_or_too_late_is_noticed() {
    says_no(&[
        ("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9.1.m4s\"\n", "", "PRELOAD-HINT is missing"),
        ("\"9.1.m4s\"", "\"9.0.m4s\"", "already listed"),
        ("#EXT-X-RENDITION", "#EXT-X-ENDLIST\n#", "a PRELOAD-HINT after the end"),
    ]);
    let other =
        ("URI=\"9.1.m4s\"\n#EXT-X-PRELOAD", "URI=\"9.x.m4s\"\n#EXT-X-PRELOAD", "where 9.1.m4s was hinted");
    says_no_on_reload(&[other]);
}

#[test]
fn p11_a_report_that_is_missing_or_out_of_step_is_noticed() {
    let late = beside_good(|audio| audio.rendition_reports[0].last_part = Some(4));
    assert_found(&late, "reports ../v/index.m3u8");
    assert_found(&beside_good(|audio| audio.rendition_reports.clear()), "0 rendition reports");
    let uneven = beside_good(|audio| drop(audio.segments[0].parts.pop()));
    assert_found(&uneven, "2 parts and 1 parts");
}

#[test]
fn p12_parts_that_leave_too_early_or_too_late_are_noticed() {
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
fn p13_segments_that_leave_too_early_or_from_the_middle_are_noticed() {
    let old = parse(GOOD);
    let mut new = old.clone();
    new.media_sequence = 8;
    new.segments.remove(0);
    assert_found(&check_reload(&old, &new), "segments were removed although only");
}

#[test]
fn p14_numbers_that_go_back_are_noticed() {
    says_no_on_reload(&[
        ("MEDIA-SEQUENCE:7", "MEDIA-SEQUENCE:6", "MEDIA-SEQUENCE went back"),
        ("DISCONTINUITY-SEQUENCE:1", "DISCONTINUITY-SEQUENCE:0", "discontinuity 1 to 0"),
    ]);
    assert_found(
        &beside_good(|audio| audio.segments[0].discontinuity_sequence = 9),
        "discontinuities 1 and 9",
    );
    // A tag may move into the header, but not vanish.
    let tagged = parse(&damaged("#EXT-X-MAP", "#EXT-X-DISCONTINUITY\n#EXT-X-MAP"));
    assert_eq!(tagged.segment(7).unwrap().discontinuity_sequence, 2);
    assert_eq!(check_reload(&tagged, &parse(&damaged("SEQUENCE:1", "SEQUENCE:2"))), []);
    assert_found(&check_reload(&tagged, &parse(GOOD)), "discontinuity 2 to 1");
}

#[test]
fn p15_gaps_that_contradict_themselves_are_noticed() {
    says_no(&[
        ("URI=\"8.0.m4s\",INDEPENDENT=YES", "URI=\"8.0.m4s\",INDEPENDENT=YES,GAP=YES", "GAP and INDEPENDENT"),
        ("URI=\"8.1.m4s\"", "URI=\"8.1.m4s\",GAP=YES", "but the segment is not EXT-X-GAP"),
        ("#EXTINF:0.8", "#EXT-X-GAP\n#EXTINF:0.8", "but all its parts are there"),
    ]);
    let lost = damaged("URI=\"8.1.m4s\"", "URI=\"8.1.m4s\",GAP=YES")
        .replace("#EXTINF:0.8", "#EXT-X-GAP\n#EXTINF:0.8");
    assert_eq!(parse(&lost).check(), []);
}

#[test]
fn p16_a_skip_boundary_or_a_version_too_low_for_it_is_noticed() {
    says_no(&[("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=11.9", "six target durations")]);
    let low = DELTA.replace("VERSION:9", "VERSION:8");
    assert_found(&parse(&low).check(), "below 9, which EXT-X-SKIP needs");
    let mut long = parse(&damaged("CAN-SKIP-UNTIL=12.0,", ""));
    long.segments = (0..130).map(|_| long.segments[0].clone()).collect();
    assert_found(&long.check(), "no delta updates offered");
}

/// Nine segments of two seconds, of which six target durations leave six.
fn nine_segments() -> String {
    let segment = |msn: u32| {
        format!(
            "#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:{:02}.000Z\n#EXTINF:2.00000,\n{msn}.m4s\n",
            10 + 2 * msn
        )
    };
    let header = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,PART-HOLD-BACK=1.536\n\
        #EXT-X-PART-INF:PART-TARGET=0.501\n#EXT-X-MEDIA-SEQUENCE:4\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n\
        #EXT-X-MAP:URI=\"init-5f2a.mp4\"\n";
    let segments: String = (4..13).map(segment).collect();
    format!("{header}{segments}#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"13.0.m4s\"\n")
}

/// Of [`nine_segments`].
const DELTA: &str = r#"#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,PART-HOLD-BACK=1.536
#EXT-X-PART-INF:PART-TARGET=0.501
#EXT-X-MEDIA-SEQUENCE:4
#EXT-X-DISCONTINUITY-SEQUENCE:1
#EXT-X-SKIP:SKIPPED-SEGMENTS=3
#EXT-X-MAP:URI="init-5f2a.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:24.000Z
#EXTINF:2.00000,
7.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:26.000Z
#EXTINF:2.00000,
8.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:28.000Z
#EXTINF:2.00000,
9.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:30.000Z
#EXTINF:2.00000,
10.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:32.000Z
#EXTINF:2.00000,
11.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:34.000Z
#EXTINF:2.00000,
12.m4s
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="13.0.m4s"
"#;

#[test]
fn p17_a_delta_update_is_put_together_and_its_mistakes_are_noticed() {
    let full = parse(&nine_segments());
    assert_eq!(check_delta(&full, &parse(DELTA), &full), []);
    assert_eq!(check_delta(&full, &full, &full), [], "no skip at all is the full playlist");

    let segment_7 = "#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:24.000Z\n#EXTINF:2.00000,\n7.m4s\n";
    for (find, replacement, words) in [
        // Numbers that do not add up: everything after the skip is another segment.
        ("SEGMENTS=3", "SEGMENTS=2", "makes MediaPlaylist"),
        ("MEDIA-SEQUENCE:4", "MEDIA-SEQUENCE:2", "the version before does not have it"),
        ("DISCONTINUITY-SEQUENCE:1", "DISCONTINUITY-SEQUENCE:0", "makes MediaPlaylist"),
        ("2026-11-21T08:10:24.000Z", "2026-11-21T08:10:24.001Z", "makes MediaPlaylist"),
        ("init-5f2a.mp4", "init-0000.mp4", "makes MediaPlaylist"),
        (",CAN-SKIP-UNTIL=12.0", "", "CAN-SKIP-UNTIL is not offered"),
        ("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=14.0", "skips what is within 14s"),
        ("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"13.0.m4s\"", "#EXT-X-ENDLIST", "EXT-X-SKIP after the end"),
        (segment_7, "", "keeps 10s, and so skips what is within 12s"),
    ] {
        let delta = DELTA.replacen(find, replacement, 1);
        assert_ne!(delta, DELTA, "{find:?}");
        assert_found(&check_delta(&full, &parse(&delta), &full), words);
    }
    let early = DELTA.replace("SEGMENTS=3\n", "SEGMENTS=2\n").replace(
        segment_7,
        &format!("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:22.000Z\n#EXTINF:2.00000,\n6.m4s\n{segment_7}"),
    );
    assert_found(&check_delta(&full, &parse(&early), &full), "keeps 14s, more than 12s needs");
    // One player cannot do without.
    let without_map = DELTA.replace("#EXT-X-MAP:URI=\"init-5f2a.mp4\"\n", "");
    assert_found(&parse(&without_map).check(), "no EXT-X-MAP applies");
}

#[test]
fn p17_a_skip_in_the_wrong_place_is_refused() {
    let skip = "#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n";
    for (find, replacement, words) in [
        (skip.to_owned(), format!("{skip}{skip}"), "two EXT-X-SKIP"),
        (skip.to_owned(), "#EXT-X-SKIP:SKIPPED-SEGMENTS=0\n".to_owned(), "replaces nothing"),
        (skip.to_owned(), "#EXT-X-SKIP:SEGMENTS=3\n".to_owned(), "SKIPPED-SEGMENTS is missing"),
        ("7.m4s\n".to_owned(), format!("7.m4s\n{skip}"), "two EXT-X-SKIP"),
        (
            "#EXT-X-MEDIA-SEQUENCE:4\n".to_owned(),
            format!("{skip}#EXT-X-MEDIA-SEQUENCE:4\n"),
            "comes too late",
        ),
    ] {
        let violation =
            MediaPlaylist::parse(&DELTA.replacen(&find, &replacement, 1)).expect_err(&replacement);
        assert_found(&[violation], words);
    }
    let late = DELTA.replace(skip, "").replace("7.m4s\n", &format!("7.m4s\n{skip}"));
    assert_found(&[MediaPlaylist::parse(&late).expect_err("late")], "comes before all others");
}

#[test]
fn p18_an_init_segment_that_is_missing_or_changes_is_noticed() {
    says_no(&[("#EXT-X-MAP:URI=\"init-5f2a.mp4\"\n", "", "no EXT-X-MAP applies")]);
    says_no_on_reload(&[("init-5f2a", "init-0000", "EXT-X-MAP went")]);
    let changed = damaged("8.m4s\n", "8.m4s\n#EXT-X-MAP:URI=\"init-0000.mp4\"\n");
    assert_found(&[MediaPlaylist::parse(&changed).expect_err("changed")], "without a discontinuity");
    // Nothing could have been played with the one before, if there were only gaps.
    let cold = changed
        .replace("7.0.m4s\",INDEPENDENT=YES", "7.0.m4s\",GAP=YES")
        .replace("7.1.m4s\"", "7.1.m4s\",GAP=YES")
        .replace("#EXTINF:1.0", "#EXT-X-GAP\n#EXTINF:1.0");
    assert_found(&[MediaPlaylist::parse(&cold).expect_err("changed")], "without a discontinuity");
    let cold = cold
        .replace("8.0.m4s\",INDEPENDENT=YES", "8.0.m4s\",GAP=YES")
        .replace("8.1.m4s\"", "8.1.m4s\",GAP=YES")
        .replace("#EXTINF:0.8", "#EXT-X-GAP\n#EXTINF:0.8");
    assert_eq!(parse(&cold).segment(9).unwrap().map.as_deref(), Some("init-0000.mp4"));
}

#[test]
fn r8_a_skip_that_was_not_offered_is_noticed() {
    let full = parse(&nine_segments().replace("CAN-SKIP-UNTIL=12.0,", ""));
    let delta = parse(&DELTA.replace("CAN-SKIP-UNTIL=12.0,", ""));
    assert_found(&check_delta(&full, &delta, &full), "CAN-SKIP-UNTIL is not offered");
    assert_found(&check_delta(&full, &parse(GOOD), &full), "skips nothing, and is not the full playlist");
}

#[test]
fn mistake_7_tags_of_low_latency_without_parts_are_noticed() {
    let without: String = GOOD
        .lines()
        .filter(|line| !line.starts_with("#EXT-X-PART:"))
        .map(|line| format!("{line}\n"))
        .collect();
    let without = without.replace("#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:10:31.800Z\n", "");
    assert_found(&parse(&without).check(), "has no parts, although");
}

#[test]
fn mistake_8_a_start_offset_is_refused() {
    let violation = MediaPlaylist::parse(&damaged("#EXT-X-MEDIA-SEQUENCE:7", "#EXT-X-START:TIME-OFFSET=-1"));
    assert_found(&[violation.expect_err("START")], "not a tag of our media playlists");
}
