//! Rules about a playlist over time and about renditions together, by what the service answers.

use hls::{Announcement, Part};
use http::StatusCode;

use crate::fixture::{SESSION, Stream, TARGET_DURATION_S, announcement, header, media_playlist, part, video};

fn tag<'a>(playlist: &'a str, name: &str) -> &'a str {
    playlist.lines().find(|line| line.starts_with(name)).unwrap_or_default()
}

fn tags<'a>(playlist: &'a str, name: &str) -> Vec<&'a str> {
    playlist.lines().filter(|line| line.starts_with(name)).collect()
}

#[tokio::test]
async fn p1_p7_control_and_target_duration_are_the_same_in_every_rendition() {
    let mut stream = Stream::live();
    stream.push_through(20, 1);
    let (video, audio) = (stream.playlist("v").await, stream.playlist("a").await);
    for name in ["#EXT-X-SERVER-CONTROL", "#EXT-X-TARGETDURATION"] {
        assert_eq!(tag(&video, name), tag(&audio, name));
    }
    assert_ne!(tag(&video, "#EXT-X-PART-INF"), tag(&audio, "#EXT-X-PART-INF"), "only this may differ");
}

#[tokio::test]
async fn p2_part_hold_back_is_three_times_the_longest_part_target() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    for rendition in ["v", "a"] {
        let playlist = stream.playlist(rendition).await;
        assert!(tag(&playlist, "#EXT-X-SERVER-CONTROL").ends_with(",PART-HOLD-BACK=1.536"), "{playlist}");
    }
    assert_eq!(tag(&stream.playlist("a").await, "#EXT-X-PART-INF"), "#EXT-X-PART-INF:PART-TARGET=0.512");
}

/// Apple's player pauses for good when PART-TARGET changes.
#[tokio::test]
async fn p5_mistake_1_part_target_and_hold_back_stay_whatever_the_parts_are() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    let fixed = |playlist: &str| {
        ["#EXT-X-PART-INF", "#EXT-X-SERVER-CONTROL"].map(|name| tag(playlist, name).to_owned())
    };
    let before = fixed(&stream.playlist("v").await);
    for (msn, duration) in [(1, 3_000), (2, 20_000), (3, 45_090)] {
        (0..=3).for_each(|number| stream.push("v", Part { duration, ..part(msn, number) }));
        assert_eq!(fixed(&stream.playlist("v").await), before);
    }
}

#[tokio::test]
async fn p7_target_duration_is_fixed_by_the_first_announcement() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    stream.writer().announce(Announcement { target_duration_s: 9, ..announcement() });
    stream.push_both(1, 0);
    for rendition in ["v", "a"] {
        assert_eq!(
            tag(&stream.playlist(rendition).await, "#EXT-X-TARGETDURATION"),
            "#EXT-X-TARGETDURATION:4"
        );
    }
}

#[tokio::test]
async fn p8_every_segment_of_every_rendition_has_the_date_that_was_stamped() {
    let mut stream = Stream::live();
    stream.push_through(20, 1);
    let dates = |playlist: &str| {
        tags(playlist, "#EXT-X-PROGRAM-DATE-TIME").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (video, audio) = (stream.playlist("v").await, stream.playlist("a").await);
    assert_eq!(dates(&video).len(), tags(&video, "#EXTINF").len() + 1, "the open segment, too");
    assert_eq!(dates(&video), dates(&audio));
}

#[tokio::test]
async fn p12_a_part_can_be_fetched_for_three_target_durations_after_it_left_the_playlist() {
    let mut stream = Stream::live();
    stream.push_through(20, 3);
    let oldest = tag(&stream.playlist("v").await, "#EXT-X-PART:").split('"').nth(1).unwrap().to_owned();
    for msn in 21..=20 + u64::from(3 * TARGET_DURATION_S / 2) {
        (0..=3).for_each(|number| stream.push_both(msn, number));
    }
    assert!(!stream.playlist("v").await.contains(&oldest), "{oldest}");
    assert_eq!(stream.get(&format!("{SESSION}/v/{oldest}")).await.status, StatusCode::OK, "{oldest}");
}

/// Segments of half a target duration in a window of seven: fourteen are listed, and each stays for its own duration and
/// the longest playlist once it left.
#[tokio::test]
async fn p13_a_playlist_loses_its_head_only_and_what_left_can_still_be_fetched() {
    let mut stream = Stream::live();
    stream.push_through(40, 3);
    let playlist = stream.playlist("v").await;
    let listed = tags(&playlist, "#EXTINF").len() as u64;
    assert_eq!((listed, tag(&playlist, "#EXT-X-MEDIA-SEQUENCE")), (14, "#EXT-X-MEDIA-SEQUENCE:27"));
    for msn in 27 - (listed + 1)..27 {
        assert_eq!(stream.get(&format!("{SESSION}/v/{msn}.m4s")).await.status, StatusCode::OK, "{msn}");
    }
    assert_eq!(
        stream.get(&format!("{SESSION}/v/5.m4s")).await.status,
        StatusCode::NOT_FOUND,
        "memory is bounded"
    );
}

#[tokio::test]
async fn p13_a_live_playlist_is_never_shorter_than_three_target_durations() {
    let mut short = Stream::starting(header(vec![video()]));
    short.writer().announce(Announcement { window_ms: 0, ..announcement() });
    for msn in 0..30 {
        (0..=3).for_each(|number| short.push("v", part(msn, number)));
        let listed = tags(&short.playlist("v").await, "#EXTINF").len() as u64;
        assert!(
            listed >= (msn + 1).min(u64::from(3 * TARGET_DURATION_S / 2)),
            "{listed} after segment {msn}"
        );
    }
}

/// Nothing between the packager and a viewer adds to the time from one part to the next.
#[tokio::test]
async fn p15_a_part_is_listed_the_moment_it_is_pushed() {
    let mut stream = Stream::live();
    stream.push_through(0, 3);
    for msn in 1..4 {
        for number in 0..=3 {
            stream.push_both(msn, number);
            let playlist = stream.playlist("v").await;
            assert!(
                playlist.contains(&format!("URI=\"{msn}.{number}.m4s\"")),
                "{msn}.{number} in {playlist}"
            );
        }
    }
}

/// Another server gave audio without parts the tags of low latency: every reload ran into its time limit.
#[tokio::test]
async fn mistake_7_audio_has_parts_of_its_own_and_reports_where_it_is() {
    let mut stream = Stream::live();
    stream.push_through(20, 1);
    for (rendition, other) in [("v", "a"), ("a", "v")] {
        let playlist = stream.playlist(rendition).await;
        assert_eq!(tags(&playlist, "#EXT-X-PART:").len(), 4 * 6 - 2, "{playlist}");
        let report = format!("#EXT-X-RENDITION-REPORT:URI=\"../{other}/index.m3u8\",LAST-MSN=20,LAST-PART=1");
        assert_eq!(tags(&playlist, "#EXT-X-RENDITION-REPORT"), [report]);
    }
    let held = stream.get(&format!("{}?_HLS_msn=20&_HLS_part=1", media_playlist("a"))).await;
    assert_eq!(held.status, StatusCode::OK);
}
