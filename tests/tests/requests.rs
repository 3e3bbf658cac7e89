//! What the server answers to requests a player, a cache or a stranger may make, on the wire.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::http::{Answer, Http, resolve};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Profile, Tidecast};
use harness::strict::{MediaPlaylist, MultivariantPlaylist, check_filtered};
use harness::viewer::follow;
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

/// Also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream of two-second segments that just went live.
struct Live {
    server: Tidecast,
    http: Http,
    publisher: Publisher,
    multivariant: &'static str,
    /// Path of the video playlist.
    video: String,
}

impl Live {
    fn start() -> Result<Self> {
        Self::start_with(Profile::Default)
    }

    fn start_with(profile: Profile) -> Result<Self> {
        let server = Tidecast::start(profile)?;
        let http = server.viewer_http();
        let publisher = Publisher::of_clip("gop-0.5", &server.publish_url("live/cam"))?;
        let multivariant = "/hls/live/cam/index.m3u8";
        let text = poll::until("the first playlist", PATIENCE, || {
            let answer = http.get(multivariant)?;
            Ok((answer.status == 200).then(|| answer.text()))
        })?;
        let variants = MultivariantPlaylist::parse(&text)?.variants;
        let video = resolve(multivariant, &variants.first().context("no variant")?.uri);
        Ok(Self { server, http, publisher, multivariant, video })
    }

    fn playlist(&self, query: &str) -> Result<MediaPlaylist> {
        Ok(MediaPlaylist::parse(&self.http.get_ok(&format!("{}{query}", self.video))?.text())?)
    }

    fn newest_msn(&self) -> Result<u64> {
        Ok(self.playlist("")?.edge().context("an empty playlist")?.0)
    }

    /// The path of some part that is listed.
    fn part(&self) -> Result<String> {
        let playlist = self.playlist("")?;
        let part = playlist.segments.iter().flat_map(|segment| &segment.parts).next().context("no part")?;
        Ok(resolve(&self.video, &part.uri))
    }
}

#[track_caller]
fn expect_header(answer: &Answer, name: &str, value: &str) {
    assert!(answer.header(name).contains(value), "{name} is {:?}, without {value:?}", answer.header(name));
}

/// The answer is the whole newest playlist, with the part that was asked for or something later.
#[test]
fn r1_a_reload_is_held_until_its_part_is_there() -> Result<()> {
    let live = Live::start()?;
    let (msn, part) = live.playlist("")?.edge().context("an empty playlist")?;
    let next = (msn + 1, Some(1));
    let playlist = live.playlist(&format!("?_HLS_msn={}&_HLS_part=1", msn + 1))?;
    ensure!(
        playlist.edge() >= Some(next),
        "asked for {next:?} at {:?}, got {:?}",
        (msn, part),
        playlist.edge()
    );
    Ok(())
}

/// Safari asks so at segment boundaries, and spins if it is answered early.
#[test]
fn r2_mistake_3_a_reload_for_a_segment_is_held_until_it_is_complete() -> Result<()> {
    let live = Live::start()?;
    let msn = live.newest_msn()? + 1;
    let playlist = live.playlist(&format!("?_HLS_msn={msn}"))?;
    let segment = playlist.segment(msn).context("the segment is not there")?;
    ensure!(segment.finished.is_some(), "segment {msn} still grows");
    Ok(())
}

/// Past the last part of a segment means the first of the next.
#[test]
fn r3_a_part_after_the_last_of_its_segment_is_the_first_of_the_next() -> Result<()> {
    let live = Live::start()?;
    let msn = live.newest_msn()?;
    let playlist = live.playlist(&format!("?_HLS_msn={msn}&_HLS_part=4"))?;
    ensure!(playlist.edge() >= Some((msn + 1, Some(0))), "{:?}", playlist.edge());
    Ok(())
}

/// Such a request would be held for ever, or pin memory. What else is in the query does not matter.
#[test]
fn r4_r5_r11_directives_that_make_no_sense_are_refused_at_once() -> Result<()> {
    let live = Live::start()?;
    let msn = live.newest_msn()?;
    for query in [
        "?_HLS_part=0".to_owned(),
        format!("?_HLS_msn={}", msn + 10),
        format!("?_HLS_msn={}&_HLS_part=0", msn + 10),
        format!("?_HLS_msn={}&_HLS_part=4000", msn + 1),
        "?_HLS_msn=x".to_owned(),
        "?_HLS_msn=-1".to_owned(),
        "?_HLS_msn=99999999999999999999999".to_owned(),
    ] {
        // What was held would be answered with a playlist, or with 503.
        let answer = live.http.get(&format!("{}{query}", live.video))?;
        ensure!(answer.status == 400, "{query}: {}", answer.status);
        expect_header(&answer, "cache-control", "no-store");
    }
    live.playlist("?token=abc&_HLS_what=ever").map(drop)
}

/// Players must learn of the end at once, whatever they asked for.
#[test]
fn r7_mistake_6_the_end_wakes_every_held_request_and_then_holds_none() -> Result<()> {
    let live = Live::start()?;
    // As far as may be asked for, and seconds away.
    let ahead = live.playlist("")?.farthest().context("an empty playlist")?;
    let (http, path) = (live.http.clone(), format!("{}?_HLS_msn={ahead}", live.video));
    let held = thread::spawn(move || http.get_ok(&path));
    poll::until("a held request", PATIENCE, || {
        Ok((held.is_finished() || live.server.metric("hls_held_requests")? == 1.0).then_some(()))
    })?;
    live.publisher.stop()?;
    // Who is held for longer than three target durations is told 503.
    let answer = held.join().expect("asking does not panic")?;
    let playlist = MediaPlaylist::parse(&answer.text())?;
    ensure!(
        playlist.ended || playlist.segment(ahead).is_some(),
        "woken without a reason:\n{}",
        answer.text()
    );

    let playlist = poll::until("ENDLIST", PATIENCE, || {
        let text = live.http.get_ok(&live.video)?.text();
        Ok(Some(MediaPlaylist::parse(&text)?).filter(|playlist| playlist.ended))
    })?;
    let beyond = format!("{}?_HLS_msn={}&_HLS_part=0", live.video, playlist.edge().context("empty")?.0 + 1);
    let answer = live.http.get_ok(&beyond)?;
    ensure!(MediaPlaylist::parse(&answer.text())? == playlist, "the playlist changed after its end");
    Ok(())
}

/// Whatever strangers try: nothing but 4xx, nothing kept by caches.
#[test]
fn r10_h4_what_is_not_there_is_not_found() -> Result<()> {
    let live = Live::start()?;
    let msn = live.newest_msn()?;
    let folder = live.video.trim_end_matches("index.m3u8");
    for path in [
        format!("{folder}{}.0.m4s", msn + 100),
        format!("{folder}{}.m4s", msn + 100),
        format!("{folder}init-0000000000000000.mp4"),
        format!("{folder}x.m4s"),
        format!("{folder}../../../../../etc/passwd"),
        "/hls/live/nobody/index.m3u8".to_owned(),
        "/hls/live/%2e%2e/index.m3u8".to_owned(),
        "/hls/live/cam/../../../etc/passwd".to_owned(),
        "/hls/live/cam%00/index.m3u8".to_owned(),
        "/hls".to_owned(),
        "/watch/live/..%2f..%2fetc".to_owned(),
    ] {
        let answer = live.http.get(&path)?;
        ensure!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        let cached = answer.header("cache-control");
        ensure!(
            ["no-store", "public, max-age=1", "no-cache"].contains(&cached),
            "{path}: cache-control is {cached:?}"
        );
    }
    Ok(())
}

#[test]
fn h2_h3_h7_h8_h9_h10_browsers_and_caches_are_told_what_they_need() -> Result<()> {
    let live = Live::start()?;
    let part = live.part()?;
    for (path, content_type, cache_control) in [
        (live.multivariant.to_owned(), "application/vnd.apple.mpegurl", "no-cache"),
        (live.video.clone(), "application/vnd.apple.mpegurl", "max-age=1"),
        (part, "video/mp4", "immutable"),
    ] {
        let answer = live.http.get_ok(&path)?;
        expect_header(&answer, "content-type", content_type);
        expect_header(&answer, "cache-control", cache_control);
        expect_header(&answer, "access-control-allow-origin", "*");
        expect_header(&answer, "access-control-expose-headers", "Date");
        // Players estimate latency from it.
        let date = rfc2822::parse(answer.header("date")).with_context(|| format!("{path}: Date"))?;
        let off = date.timestamp().duration_since(Timestamp::now()).abs();
        ensure!(off < SignedDuration::from_secs(30), "{path}: Date is {off:?} off");
        let etag = answer.header("etag").to_owned();
        ensure!(!etag.is_empty(), "{path}: no ETag");
        // The playlist may have grown in between, and then is another one.
        let again = live.http.get_with(&path, &[("if-none-match", &etag)])?;
        ensure!(
            again.status == 304 || again.header("etag") != etag,
            "{path}: sent again although it is known"
        );
    }
    Ok(())
}

#[test]
fn h6_playlists_are_compressed_for_those_who_can_and_media_never() -> Result<()> {
    let live = Live::start()?;
    let plain = live.http.get_ok(&live.video)?;
    expect_header(&plain, "vary", "Accept-Encoding");
    let packed = live.http.get_with(&live.video, &[("accept-encoding", "gzip")])?;
    expect_header(&packed, "content-encoding", "gzip");
    ensure!(packed.body.starts_with(&[0x1f, 0x8b]), "not gzip");
    ensure!(packed.body.len() < plain.body.len(), "{} bytes, plain {}", packed.body.len(), plain.body.len());
    let part = live.http.get_with(&live.part()?, &[("accept-encoding", "gzip")])?;
    ensure!(part.header("content-encoding").is_empty(), "media is compressed");
    Ok(())
}

/// Followed for longer than six target durations, which delta updates never skip.
#[test]
fn p16_p17_r8_every_delta_update_makes_the_full_playlist_of_its_version() -> Result<()> {
    let live = Live::start()?;
    let boundary = live.playlist("")?.server_control.can_skip_until.context("CAN-SKIP-UNTIL is missing")?;
    let recording = follow(&live.http, "live/cam", boundary + Duration::from_secs(3))?;
    let told: Vec<String> = recording.violations.iter().map(ToString::to_string).collect();
    ensure!(told.is_empty(), "{} violations:\n{}", told.len(), told.join("\n"));
    for rendition in &recording.renditions {
        let (compared, seen) = (rendition.deltas.len(), rendition.playlists.len());
        let kind = rendition.kind.name();
        // A part that comes between two requests is nothing to compare; it mostly does where they take long.
        ensure!(compared * 10 > seen, "{kind}: only {compared} of {seen} versions were compared");
        ensure!(rendition.deltas.iter().any(|delta| delta.skipped > 0), "{kind}: nothing was ever skipped");
    }
    Ok(())
}

#[test]
fn filters_leave_what_a_viewer_wants_or_what_comes_closest() -> Result<()> {
    let live = Live::start()?;
    let filtered = |query: &str| -> Result<(Answer, MultivariantPlaylist)> {
        let answer = live.http.get_ok(&format!("{}{query}", live.multivariant))?;
        let playlist = MultivariantPlaylist::parse(&answer.text())?;
        Ok((answer, playlist))
    };
    let (_, whole) = filtered("")?;
    let mut etags = Vec::new();
    for (query, variant, renditions) in [
        ("?only=audio", "/a/index.m3u8", 0),
        ("?only=video", "/v/index.m3u8", 0),
        // The film is 360 lines high, so nothing is lower, and it stays.
        ("?max=240", "/v/index.m3u8", 1),
        ("?max=240&only=audio", "/a/index.m3u8", 0),
    ] {
        let (answer, playlist) = filtered(query)?;
        let [only] = playlist.variants.as_slice() else { bail!("{query}: {playlist:?}") };
        ensure!(
            only.uri.ends_with(variant) && playlist.renditions.len() == renditions,
            "{query}: {playlist:?}"
        );
        let violations = check_filtered(&whole, &playlist);
        ensure!(violations.is_empty(), "{query}: {violations:?}");
        ensure!(live.http.get(&resolve(live.multivariant, &only.uri))?.status == 200, "{query}");
        etags.push(answer.header("etag").to_owned());
    }
    ensure!(etags[0] == etags[3] && etags[0] != etags[1] && etags[1] != etags[2], "{etags:?}");
    for query in ["?max=big", "?only=words", "?max=0"] {
        let answer = live.http.get(&format!("{}{query}", live.multivariant))?;
        ensure!(
            answer.status == 400 && answer.text().contains(' '),
            "{query}: {} {}",
            answer.status,
            answer.text()
        );
        expect_header(&answer, "cache-control", "no-store");
    }
    Ok(())
}

/// Half a second suits the public internet, where one in twenty round trips takes 150 ms; a fifth suits nearby viewers.
#[test]
fn p6_parts_are_half_a_second_or_by_configuration_a_fifth() -> Result<()> {
    for (profile, expected) in [(Profile::Default, 0.5), (Profile::Low, 0.2)] {
        let live = Live::start_with(profile)?;
        let target = live.playlist("")?.part_target.context("PART-TARGET is missing")?.as_secs_f64();
        ensure!((target - expected).abs() < 0.015, "{profile:?}: PART-TARGET is {target}");
    }
    Ok(())
}

/// Threat: an admin page that answers strangers, or a viewer's port that answers admins.
#[test]
fn each_port_answers_only_what_it_is_for() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    for path in ["/healthz", "/readyz", "/metrics"] {
        ensure!(server.admin_http().get(path)?.status == 200, "{path} on the admin port");
        ensure!(server.viewer_http().get(path)?.status == 404, "{path} on the viewers' port");
    }
    ensure!(server.viewer_http().get("/")?.status == 200, "the list of streams");
    ensure!(server.admin_http().get("/state")?.status == 404, "/state on the admin port");
    server.stop()
}
