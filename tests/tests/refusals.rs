//! What a broadcaster is told who does something wrong, and what is written down about it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{PUBLISH_KEY, Profile, Tidecast};

/// ffmpeg notices a refusal in the middle of publishing when it writes the next packets; and it has to start.
const REFUSAL_MAX: Duration = Duration::from_secs(30);
const WRONG_KEY: &str = "canary-of-somebody-else-81c2";

/// One publisher that must be refused, with words for the broadcaster and for the log.
fn is_refused(server: &Tidecast, clip: &str, url: &str, words: &str) -> Result<()> {
    is_refused_by(server, Publisher::of_clip, clip, url, words)
}

fn is_refused_by(
    server: &Tidecast,
    publish: fn(&str, &str) -> Result<Publisher>,
    clip: &str,
    url: &str,
    words: &str,
) -> Result<()> {
    let closed =
        |server: &Tidecast| server.log().iter().filter(|line| line.contains("publisher closed")).count();
    let before = closed(server);
    let told = publish(clip, url)?.refused(REFUSAL_MAX)?;
    ensure!(told.contains(words), "ffmpeg did not say {words:?}:\n{told}");

    let line =
        server.wait_for_log(words, REFUSAL_MAX, |line| line.contains(words).then(|| line.to_owned()))?;
    ensure!(line.contains("publisher closed") && line.contains("peer.addr="), "the log says: {line}");
    let lines = closed(server) - before;
    ensure!(lines == 1, "{lines} lines in the log about one refusal:\n{}", server.log().join("\n"));
    Ok(())
}

fn is_live(server: &Tidecast, stream: &str) -> Result<bool> {
    let state = server.viewer_http().get_ok(&format!("/state/{stream}"))?.text();
    Ok(state.contains(r#""state":"live""#))
}

fn wait_until_live(server: &Tidecast, stream: &str) -> Result<()> {
    poll::until(&format!("{stream} live"), Duration::from_secs(20), || {
        Ok(is_live(server, stream)?.then_some(()))
    })
}

fn assert_no_key_in_log(server: &Tidecast) -> Result<()> {
    let told = server.log().into_iter().find(|line| line.contains(PUBLISH_KEY) || line.contains(WRONG_KEY));
    ensure!(told.is_none(), "a key is in the log: {told:?}");
    Ok(())
}

#[test]
fn a_wrong_key_is_refused_in_words_that_do_not_repeat_it() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let wrong = server.publish_url_with_key("live/wrong", WRONG_KEY);
    is_refused(&server, "gop-2", &wrong, "the publish key is missing or wrong")?;
    ensure!(!is_live(&server, "live/wrong")?, "it is live all the same");
    assert_no_key_in_log(&server)
}

#[test]
fn a_name_that_could_be_a_path_is_refused() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let url = server.publish_url("live/a.b");
    is_refused(&server, "gop-2", &url, "a name may hold only letters, digits, '-' and '_'")?;
    assert_no_key_in_log(&server)
}

#[test]
fn a_taken_name_is_refused_and_the_first_publisher_goes_on() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let url = server.publish_url("live/taken");
    let first = Publisher::of_clip("gop-0.5", &url)?;
    wait_until_live(&server, "live/taken")?;
    is_refused(&server, "gop-2", &url, "live/taken is already being published")?;
    ensure!(is_live(&server, "live/taken")?, "the first publisher was thrown out");
    first.stop()?;
    assert_no_key_in_log(&server)
}

#[test]
fn codecs_without_a_place_in_the_output_are_refused_by_name() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    is_refused(
        &server,
        "mp3-audio",
        &server.publish_url("live/mp3"),
        "MP3 audio is not supported; send AAC or Opus",
    )?;
    is_refused(
        &server,
        "flv1-video",
        &server.publish_url("live/flv1"),
        "H.263 video is not supported; send H.264, HEVC or AV1",
    )?;
    assert_no_key_in_log(&server)
}

#[test]
fn codecs_of_enhanced_rtmp_that_we_do_not_take_are_refused_by_name() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    for (clip, words) in [
        ("vp9-video", "VP9 video (Enhanced RTMP) is not supported; send H.264, HEVC or AV1"),
        ("flac-audio", "FLAC audio (Enhanced RTMP) is not supported; send AAC or Opus"),
    ] {
        let url = server.publish_url(&format!("live/{clip}"));
        is_refused_by(&server, Publisher::of_enhanced_clip, clip, &url, words)?;
    }
    assert_no_key_in_log(&server)
}

/// The whole way of the key once: a publisher that is welcome, its viewers, its end, and the server's own.
#[test]
fn the_key_is_in_no_log_state_or_metric() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let publisher = Publisher::of_clip("gop-0.5", &server.publish_url("live/open"))?;
    wait_until_live(&server, "live/open")?;
    let answers = [
        server.viewer_http().get_ok("/state")?.text(),
        server.viewer_http().get_ok("/hls/live/open/index.m3u8")?.text(),
        server.admin_http().get_ok("/metrics")?.text(),
    ];
    publisher.stop()?;
    poll::until("the end", REFUSAL_MAX, || Ok((!is_live(&server, "live/open")?).then_some(())))?;
    let told = answers.iter().find(|answer| answer.contains(PUBLISH_KEY));
    ensure!(told.is_none(), "the key is in {told:?}");
    assert_no_key_in_log(&server).context("after the stream")?;
    server.stop()
}
