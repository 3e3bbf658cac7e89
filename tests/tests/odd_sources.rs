//! What broadcasters send by mistake, or for mischief, through the server and its encoders: it is shown as far as it can
//! be, and nobody else notices.

use std::collections::BTreeSet;
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::lanes::Lanes;
use harness::media::clip;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::strict::check_presentation;
use harness::watched::Watched;

/// Of what is at least 90 lines high.
const LADDER: &str = "90:60k";
const RUNG: &str = "v90";

/// GStreamer's first look at its plugins takes seconds, and so does the first segment of one frame a second.
const SHOWN_MAX: Duration = Duration::from_secs(60);

const X264: &str = "-c:v libx264 -preset ultrafast -g 60 -bf 0";

/// ffmpeg waits ten seconds for a track that has ended.
const ALONE: &str = "-c:a aac -max_interleave_delta 100000";

static LANES: Lanes<2> = Lanes::free();

/// One stream with a ladder that is as it should be, beside the others.
struct Scene {
    server: Tidecast,
    steady: Publisher,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Result<Self> {
        let turn = LANES.turn();
        let server = Setup::default().set("transcode.ladder", LADDER).start()?;
        let steady = Publisher::of_clip("gop-2", &server.publish_url("live/steady"))?;
        let scene = Self { server, steady, _turn: turn };
        scene.wait_for("steady", RUNG, 2)?;
        Ok(scene)
    }

    fn publish(&self, name: &str, arguments: &str) -> Result<Publisher> {
        Publisher::of_arguments(arguments, &self.server.publish_url(&format!("live/{name}")))
    }

    fn watched(&self, stream: &str) -> Watched {
        Watched::of(&self.server, &format!("live/{stream}"))
    }

    fn wait_for(&self, stream: &str, rendition: &str, segments: usize) -> Result<()> {
        let watched = self.watched(stream);
        poll::until(&format!("{segments} segments of {stream}/{rendition}"), SHOWN_MAX, || {
            Ok((watched.whole(rendition)?.len() >= segments).then_some(()))
        })
    }

    /// Nobody panicked, and the steady stream has everything.
    fn finish(self) -> Result<()> {
        let watched = self.watched("steady");
        for rendition in ["v", RUNG] {
            let playlist = watched.playlist(rendition)?.context("the steady one")?;
            let first = watched.whole(rendition)?.first().copied().context("no segment")?;
            let gaps = playlist.segments.iter().filter(|segment| segment.gap && segment.msn > first).count();
            ensure!(gaps == 0, "{gaps} gaps in {rendition} of a stream that nothing befell");
        }
        let panics = self.server.log().into_iter().find(|line| line.contains("panicked"));
        ensure!(panics.is_none(), "{panics:?}");
        self.steady.stop()?;
        self.server.stop()
    }
}

/// Pictures that few encoders are set to, and that a decoder understands.
#[test]
fn odd_pictures_have_their_rungs() -> Result<()> {
    let scene = Scene::new()?;
    let mut publishers = Vec::new();
    for (name, size, rate, more) in [
        ("one-a-second", "320x180", 1, "-g 2"),
        ("hundred-and-twenty", "160x92", 120, "-g 240"),
        ("high-4-2-2", "320x180", 15, "-pix_fmt yuv422p10le"),
        ("upright", "102x180", 15, ""),
    ] {
        let arguments = format!("-f lavfi -i testsrc2=size={size}:rate={rate} {X264} {more}");
        publishers.push((name, scene.publish(name, &arguments)?));
    }
    for (name, _) in &publishers {
        scene.wait_for(name, "v", 2)?;
        scene.wait_for(name, RUNG, 2)?;
        // In this order: the source may have one more by then.
        let (rung, source) = (scene.watched(name).whole(RUNG)?, scene.watched(name).whole("v")?);
        let is_listed = |msn: &&u64| source.first().is_some_and(|first| *msn >= first);
        ensure!(
            rung.iter().filter(is_listed).all(|msn| source.contains(msn)),
            "{name}: {source:?} and {rung:?}"
        );
    }
    publishers.into_iter().try_for_each(|(_, publisher)| publisher.stop())?;
    scene.finish()
}

/// A picture smaller than the ladder has no rungs; a track that stops takes nothing with it.
#[test]
fn what_is_too_small_or_stops_is_shown_as_far_as_it_goes() -> Result<()> {
    let scene = Scene::new()?;
    let picture = "-f lavfi -i testsrc2=size=320x180:rate=15";
    let tiny = scene.publish("tiny", &format!("-f lavfi -i testsrc2=size=16x16:rate=15 {X264}"))?;
    let silent = format!("{picture} -f lavfi -re -t 6 -i sine=sample_rate=48000 {X264} {ALONE}");
    let silent = scene.publish("sound-stops", &silent)?;
    let dark = "-f lavfi -t 6 -i testsrc2=size=320x180:rate=15 -f lavfi -re -i sine=sample_rate=48000";
    let dark = scene.publish("picture-stops", &format!("{dark} {X264} {ALONE}"))?;

    scene.wait_for("tiny", "v", 3)?;
    ensure!(scene.watched("tiny").playlist(RUNG)?.is_none(), "a rung above its source");
    scene.wait_for("sound-stops", RUNG, 5)?;
    scene.wait_for("sound-stops", "v", 5)?;
    ensure!(
        scene.watched("sound-stops").whole("v")?.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "the picture went on"
    );
    scene.wait_for("picture-stops", "a", 5)?;
    let gaps = |rendition| -> Result<bool> {
        let playlist = scene.watched("picture-stops").playlist(rendition)?.context("a playlist")?;
        Ok(playlist.segments.iter().any(|segment| segment.gap))
    };
    ensure!(gaps("v")? && gaps(RUNG)? && !gaps("a")?, "the picture stopped, and the sound did not");
    [tiny, silent, dark].into_iter().try_for_each(Publisher::stop)?;
    scene.finish()
}

/// The broadcaster comes back with another picture: one discontinuity, at the same place of every rung.
#[test]
fn a_change_of_size_is_one_discontinuity_in_all_renditions() -> Result<()> {
    let scene = Scene::new()?;
    let publish = |size| {
        let picture = format!("-f lavfi -i testsrc2=size={size}:rate=15");
        scene.publish("changing", &format!("{picture} -f lavfi -i sine=sample_rate=48000 {X264} {ALONE}"))
    };
    let small = publish("320x180")?;
    scene.wait_for("changing", RUNG, 2)?;
    small.kill()?;
    let large = publish("480x270")?;
    let watched = scene.watched("changing");
    let after = |rendition| -> Result<usize> {
        let segments = watched.playlist(rendition)?.into_iter().flat_map(|playlist| playlist.segments);
        let after = segments.filter(|segment| segment.discontinuity_sequence > 0 && !segment.gap);
        Ok(after.filter(|segment| segment.finished.is_some()).count())
    };
    poll::until("three segments of the other size", SHOWN_MAX, || {
        Ok((after("v")? >= 3 && after(RUNG)? >= 3).then_some(()))
    })?;
    // All of one moment, or one may have a segment more.
    let [source, rung, sound] = poll::until("three playlists of one moment", SHOWN_MAX, || {
        let [source, rung, sound] = ["v", RUNG, "a"].map(|name| watched.playlist(name));
        let playlists = [source?.context("v")?, rung?.context("a rung")?, sound?.context("a")?];
        let edge = playlists[0].edge();
        Ok(playlists.iter().all(|playlist| playlist.edge() == edge).then_some(playlists))
    })?;
    let violations = check_presentation(&[("v", &source), (RUNG, &rung), ("a", &sound)]);
    ensure!(violations.is_empty(), "{violations:?}");
    // A rung begins when its encoder is there.
    for twin in &rung.segments {
        let segment = source.segment(twin.msn).with_context(|| format!("no {} in the source", twin.msn))?;
        ensure!(segment.duration() == twin.duration(), "{segment:?} and {twin:?}");
    }
    let numbers: BTreeSet<_> = source.segments.iter().map(|segment| segment.discontinuity_sequence).collect();
    ensure!(numbers == BTreeSet::from([0, 1]), "{numbers:?}");
    let missing = rung.segments.iter().filter(|segment| segment.gap).count();
    let own = source.segments.iter().filter(|segment| segment.gap).count();
    ensure!(missing <= own + 2, "{missing} segments of the rung are missing, and {own} of the source");
    large.stop()?;
    scene.finish()
}

/// Bits that flipped on the way, in one packet of many or in nearly all.
#[test]
fn damage_stays_with_the_stream_that_has_it() -> Result<()> {
    let scene = Scene::new()?;
    let clip = clip("gop-2")?;
    let mut publishers = Vec::new();
    for (name, amount) in [("scratched", 20_000), ("ruined", 50)] {
        let arguments = format!("-stream_loop -1 -i {} -c copy -bsf:v noise=amount={amount}", clip.display());
        publishers.push((name, scene.publish(name, &arguments)?));
    }
    scene.wait_for("scratched", "v", 4)?;
    scene.wait_for("scratched", RUNG, 1)?;
    scene.wait_for("steady", RUNG, 8)?;
    for (name, publisher) in publishers {
        // The server may have had enough of it.
        println!("{name}: {:?}", publisher.stop());
    }
    scene.finish()
}
