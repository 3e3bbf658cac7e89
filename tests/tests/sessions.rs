//! Publishers that are lost and come back, and a server that is restarted under them: the same session goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::http::{Http, resolve};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Profile, Setup, Tidecast};
use harness::strict::{MediaPlaylist, MultivariantPlaylist, check_reload};

const PATIENCE: Duration = Duration::from_secs(25);
const STREAM: &str = "live/cam";

/// A viewer without a player: reloads one rendition's playlist, and holds every version against the one before it.
struct Viewer {
    http: Http,
    path: String,
    newest: Option<MediaPlaylist>,
}

impl Viewer {
    /// Once there is a playlist, of the rendition called `name`.
    fn join(server: &Tidecast, name: &str) -> Result<Self> {
        let http = server.viewer_http();
        let path = format!("/hls/{STREAM}/index.m3u8");
        let text = poll::until("the first playlist", PATIENCE, || {
            let answer = http.get(&path)?;
            Ok((answer.status == 200).then(|| answer.text()))
        })?;
        let uri = MultivariantPlaylist::parse(&text)?.variants.first().context("no variant")?.uri.clone();
        let path = resolve(&path, &uri).replace("/v/", &format!("/{name}/"));
        Ok(Self { http, path, newest: None })
    }

    fn reload(&mut self) -> Result<&MediaPlaylist> {
        let playlist = MediaPlaylist::parse(&self.http.get_ok(&self.path)?.text())?;
        let violations = self.newest.iter().flat_map(|before| check_reload(before, &playlist));
        let violations: Vec<_> = violations.map(|violation| violation.to_string()).collect();
        ensure!(violations.is_empty(), "{violations:?}");
        Ok(self.newest.insert(playlist))
    }

    /// Reloads until the playlist is as wanted.
    fn wait(&mut self, what: &str, wanted: impl Fn(&MediaPlaylist) -> bool) -> Result<()> {
        poll::until(what, PATIENCE, || Ok(wanted(self.reload()?).then_some(())))
    }
}

fn state(server: &Tidecast) -> Result<String> {
    let text = server.viewer_http().get_ok(&format!("/state/{STREAM}"))?.text();
    let state = text.split("\"state\":\"").nth(1).and_then(|rest| rest.split('"').next());
    Ok(state.with_context(|| format!("no state in {text}"))?.to_owned())
}

fn wait_for_state(server: &Tidecast, wanted: &str) -> Result<()> {
    poll::until(&format!("state {wanted}"), PATIENCE, || Ok((state(server)? == wanted).then_some(())))
}

fn ends_in_gap(playlist: &MediaPlaylist) -> bool {
    playlist.segments.last().and_then(|segment| segment.parts.last()).is_some_and(|part| part.gap)
}

fn ends_in_media(playlist: &MediaPlaylist) -> bool {
    !ends_in_gap(playlist)
}

/// How many there have been since the stream began.
fn discontinuities(playlist: &MediaPlaylist) -> u64 {
    playlist.segments.last().map_or(0, |segment| segment.discontinuity_sequence)
}

/// Killed without a word, back before the linger is over. Both renditions: gaps on the clock, one discontinuity.
#[test]
fn a_publisher_that_was_killed_and_comes_back_goes_on_with_the_same_playlists() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url(STREAM))?;
    let mut viewers = [Viewer::join(&server, "v")?, Viewer::join(&server, "a")?];
    publisher.kill()?;
    for viewer in &mut viewers {
        viewer.wait("gaps", ends_in_gap)?;
    }
    wait_for_state(&server, "interrupted")?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url(STREAM))?;
    for viewer in &mut viewers {
        viewer.wait("media", ends_in_media)?;
    }
    wait_for_state(&server, "live")?;
    for viewer in &mut viewers {
        ensure!(discontinuities(viewer.reload()?) == 1, "{}", viewer.path);
    }
    publisher.stop()?;
    for viewer in &mut viewers {
        viewer.wait("the end", |playlist| playlist.ended)?;
    }
    server.stop()
}

#[test]
fn a_publisher_that_does_not_come_back_ends_the_session_after_the_linger() -> Result<()> {
    let server = Setup::default().set("publish.linger", "4s").start()?;
    let publisher = Publisher::of_clip("gop-0.5", &server.publish_url(STREAM))?;
    let mut viewer = Viewer::join(&server, "v")?;
    publisher.kill()?;
    wait_for_state(&server, "interrupted")?;
    viewer.wait("the end", |playlist| playlist.ended)?;
    wait_for_state(&server, "ended")?;
    // The next publisher begins another session at the same address.
    let before = viewer.path.clone();
    let publisher = Publisher::of_clip("gop-0.5", &server.publish_url(STREAM))?;
    poll::until(
        "a new session",
        PATIENCE,
        || Ok((Viewer::join(&server, "v")?.path != before).then_some(())),
    )?;
    publisher.stop()?;
    server.stop()
}

/// A connection that died half-open must not keep a broadcaster out of the own stream.
#[test]
fn a_publisher_takes_over_from_its_own_half_open_connection() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let frozen = Publisher::of_clip("gop-2", &server.publish_url(STREAM))?;
    let mut viewer = Viewer::join(&server, "v")?;
    frozen.freeze()?;
    let second =
        Publisher::once_free(&server, PATIENCE, || Publisher::of_clip("gop-2", &server.publish_url(STREAM)))?;
    viewer.wait("media again", |playlist| discontinuities(playlist) == 1 && ends_in_media(playlist))?;
    // What the first one sends when it wakes up reaches nobody, and it is told so.
    frozen.thaw()?;
    server.wait_for_log("the first to be sent away", PATIENCE, |line| {
        line.contains("another publisher has taken over this stream").then_some(())
    })?;
    ensure!(discontinuities(viewer.reload()?) == 1);
    second.stop()?;
    server.stop()
}

/// An uplink that stalls for longer than viewers can be kept waiting: gaps, and then the stream goes on by itself.
#[test]
fn a_publisher_that_stalls_and_catches_up_is_back_at_its_next_keyframe() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url(STREAM))?;
    let mut viewers = [Viewer::join(&server, "v")?, Viewer::join(&server, "a")?];
    publisher.freeze()?;
    wait_for_state(&server, "interrupted")?;
    for viewer in &mut viewers {
        viewer.wait("gaps", ends_in_gap)?;
    }
    publisher.thaw()?;
    for viewer in &mut viewers {
        viewer.wait("media again", |playlist| discontinuities(playlist) == 1 && ends_in_media(playlist))?;
    }
    wait_for_state(&server, "live")?;
    publisher.stop()?;
    server.stop()
}

/// The session, its numbers and its clock go on, and the encoder connects again by itself.
fn goes_on_after_a_restart(end: End) -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url(STREAM))?;
    let mut viewers = [Viewer::join(&server, "v")?, Viewer::join(&server, "a")?];
    let mut before = Vec::new();
    for viewer in &mut viewers {
        viewer.wait("two segments", |playlist| playlist.segments.len() > 2)?;
        before.push(viewer.reload()?.clone());
    }
    let server = server.restart(end)?;
    publisher.refused(PATIENCE)?;
    // At once, although the publisher is away.
    ensure!(state(&server)? == "interrupted");
    for (viewer, before) in viewers.iter_mut().zip(&before) {
        viewer.newest = None;
        let after = viewer.reload()?;
        ensure!(after.edge() > before.edge(), "{:?} after {:?}", after.edge(), before.edge());
        ensure!(
            after.segments.first().context("no segment")?.msn
                <= before.segments.last().context("no segment")?.msn
        );
        ensure!(discontinuities(after) == discontinuities(before));
        ensure!(after.target_duration == before.target_duration && after.part_target == before.part_target);
    }
    let publisher = Publisher::of_clip("gop-2", &server.publish_url(STREAM))?;
    for viewer in &mut viewers {
        viewer.wait("media again", |playlist| discontinuities(playlist) > 0 && ends_in_media(playlist))?;
    }
    publisher.stop()?;
    server.stop()
}

#[test]
fn the_session_goes_on_after_the_process_was_killed() -> Result<()> {
    goes_on_after_a_restart(End::Killed)
}

#[test]
fn the_session_goes_on_after_an_orderly_restart() -> Result<()> {
    goes_on_after_a_restart(End::Drained)
}
