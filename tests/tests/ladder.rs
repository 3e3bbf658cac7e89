//! Rungs: made by a child process, cut where their source is cut, and nobody's trouble but their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::browser::Browser;
use harness::chaos;
use harness::ffprobe::{self, Packet};
use harness::fmp4;
use harness::lanes::Lanes;
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::strict::{MediaPlaylist, Segment};
use harness::viewer::{RecordedRendition, Recording, follow_variants};
use harness::watched::Watched;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// Small, so that several streams at once leave two cores time for everything else.
const LADDER: &str = "180:150k, 90:60k";
const RUNGS: [&str; 2] = ["v180", "v90"];

/// Of media that is compared; with the wait for the first segment.
const MEDIA: Duration = Duration::from_secs(12);

/// An application whose ladder is found by itself.
const AUTO: &str = "fast = auto";

/// Until a stream has its ladder: GStreamer's first look at its plugins takes seconds, and more beside other tests.
const LADDER_MAX: Duration = Duration::from_secs(40);

/// Until what somebody asks for is made. Below the half minute after which what nobody asks for any more is not.
const ON_DEMAND_MAX: Duration = Duration::from_secs(25);

/// One for all tests that only look; the last of them ends it.
fn shared_server() -> Result<Arc<Tidecast>> {
    static SERVER: Mutex<Weak<Tidecast>> = Mutex::new(Weak::new());
    let mut shared = SERVER.lock().expect("starting a server does not panic");
    if let Some(server) = shared.upgrade() {
        return Ok(server);
    }
    let server = Arc::new(Setup::default().set("transcode.ladder", &format!("{LADDER}; {AUTO}")).start()?);
    *shared = Arc::downgrade(&server);
    Ok(server)
}

static LANES: Lanes<2> = Lanes::free();

/// A server of one's own, for a test that does it harm.
fn server(ladder: &str) -> Result<Tidecast> {
    Setup::default().set("transcode.ladder", ladder).start()
}

/// Publishes a clip to an address.
type Publish = fn(&str, &str) -> Result<Publisher>;

/// Publishes a clip and records it with its rungs.
fn record(clip: &str, publish: Publish, variants: usize) -> Result<Recording> {
    record_in("live", clip, publish, variants, 0)
}

fn record_in(app: &str, clip: &str, publish: Publish, variants: usize, sounds: usize) -> Result<Recording> {
    let server = shared_server()?;
    let _turn = LANES.turn();
    let stream = format!("{app}/{}", clip.replace('.', "_"));
    let publisher = publish(clip, &server.publish_url(&stream))?;
    let recording = follow_variants(&server.viewer_http(), &stream, MEDIA, variants, sounds)
        .with_context(|| format!("server log:\n{}", server.log().join("\n")))?;
    let state = server.viewer_http().get_ok(&format!("/state/{stream}"))?.text();
    let [own, ..] = recording.multivariant.variants.as_slice() else { bail!("no variant") };
    let (width, height) = own.resolution.context("a picture")?;
    let size = format!("\"width\":{width},\"height\":{height}");
    ensure!(state.contains(&size), "the state is not that of the publisher's own: {state}");
    publisher.stop()?;
    for fault in
        ["transcode_failures_total", "transcode_missed_keys_total", "transcode_unexpected_keys_total"]
    {
        ensure!(server.metric(fault)? == 0.0, "{fault}:\n{}", server.log().join("\n"));
    }
    let told: Vec<String> = recording.violations.iter().map(ToString::to_string).collect();
    ensure!(told.is_empty(), "{} violations:\n{}", told.len(), told.join("\n"));
    Ok(recording)
}

fn rendition<'a>(recording: &'a Recording, name: &str) -> Result<&'a RecordedRendition> {
    let found = recording.renditions.iter().find(|rendition| rendition.name == name);
    found.with_context(|| format!("no rendition {name}"))
}

/// All rungs have the segments, the parts and the pictures of the source, at the same times.
fn is_aligned(clip: &str, recording: &Recording, rungs: &[&str]) -> Result<()> {
    let source = rendition(recording, "v")?;
    let packets = |rendition: &RecordedRendition| -> Result<Vec<Packet>> {
        let file = rendition.write_to(&output_dir()?, &format!("ladder-{clip}"))?;
        ffprobe::packets(&file, "v:0")
    };
    let shown = |packets: &[Packet]| -> Vec<i64> {
        let mut shown: Vec<_> = packets.iter().map(|packet| (packet.pts * 1e4).round() as i64).collect();
        shown.sort_unstable();
        shown
    };
    let source_shown = shown(&packets(source)?);
    let parts: BTreeMap<_, _> = source.parts.iter().map(|part| ((part.msn, part.number), part)).collect();
    for name in rungs {
        let rung = rendition(recording, name)?;
        let mut compared = 0;
        for part in &rung.parts {
            let place = format!("{name}: part {}.{}", part.msn, part.number);
            let Some(same) = parts.get(&(part.msn, part.number)) else { continue };
            compared += 1;
            ensure!(part.duration == same.duration, "{place}: {:?} and {:?}", part.duration, same.duration);
            ensure!(part.program_date_time == same.program_date_time, "{place}: another date");
            ensure!(part.number > 0 || part.independent, "{place} begins a segment without a keyframe");
            let [fragment, other] = [&part.bytes, &same.bytes].map(|bytes| fmp4::fragments(bytes));
            let samples = |fragments: &[fmp4::Fragment]| {
                fragments.iter().map(|fragment| fragment.durations.len()).sum::<usize>()
            };
            let (pictures, expected) = (samples(&fragment?), samples(&other?));
            // Which part a B-frame falls into depends on whether it is counted by its DTS or its PTS.
            ensure!(pictures.abs_diff(expected) <= 2, "{place}: {pictures} pictures of {expected}");
        }
        ensure!(compared >= 8, "{name}: only {compared} parts to compare");

        let rung_shown = shown(&packets(rung)?);
        let start = source_shown.first().max(rung_shown.first()).context("no picture")?;
        let end = source_shown.last().min(rung_shown.last()).context("no picture")? - REORDERED;
        let others = |here: &[i64], there: &[i64]| {
            let compared = here.iter().filter(|time| (*start..end).contains(*time));
            compared.filter(|time| !near(there, **time)).copied().collect::<Vec<_>>()
        };
        let (lost, added) = (others(&source_shown, &rung_shown), others(&rung_shown, &source_shown));
        ensure!(lost.is_empty() && added.is_empty(), "{name}: {lost:?} lost, {added:?} added");
    }
    Ok(())
}

/// The last part of a source with B-frames lacks pictures that come after later ones; in tenths of a millisecond.
const REORDERED: i64 = 5_000;

/// ffprobe rounds to a microsecond; these are tenths of a millisecond.
fn near(times: &[i64], time: i64) -> bool {
    (time - 1..=time + 1).any(|near| times.binary_search(&near).is_ok())
}

fn rungs_are_aligned(clip: &str, rungs: &[&str]) -> Result<()> {
    is_aligned(clip, &record(clip, Publisher::of_clip, 1 + rungs.len())?, rungs)
}

#[test]
fn a_steady_source() -> Result<()> {
    let recording = record("gop-2", Publisher::of_clip, 3)?;
    is_aligned("gop-2", &recording, &RUNGS)?;
    let variants = &recording.multivariant.variants;
    let told: Vec<_> =
        variants.iter().map(|variant| (variant.resolution, variant.codecs.join(","))).collect();
    ensure!(told[0].0 == Some((640, 360)), "the publisher's own comes first: {told:?}");
    ensure!(told[1] == (Some((320, 180)), "avc1.64000d,mp4a.40.2".to_owned()), "{told:?}");
    // What is announced before anything is encoded is what is encoded.
    for (variant, name) in variants[1..].iter().zip(RUNGS) {
        let init = &rendition(&recording, name)?.init;
        let record = init.windows(4).position(|name| name == b"avcC").context("no avcC")? + 5;
        let encoded: String = init[record..record + 3].iter().map(|byte| format!("{byte:02x}")).collect();
        ensure!(
            variant.codecs[0] == format!("avc1.{encoded}"),
            "{name}: {} and {encoded}",
            variant.codecs[0]
        );
    }
    ensure!(told[3] == (None, "mp4a.40.2".to_owned()), "sound alone is the lowest: {told:?}");
    ensure!(told[2] == (Some((160, 90)), "avc1.64000b,mp4a.40.2".to_owned()), "{told:?}");
    Ok(())
}

/// WebRTC cannot show it, so it has a rung of its own size too.
#[test]
fn a_source_with_b_frames() -> Result<()> {
    rungs_are_aligned("b-frames", &["v360", "v180", "v90"])
}

#[test]
fn a_source_of_variable_frame_rate() -> Result<()> {
    rungs_are_aligned("vfr", &RUNGS)
}

#[test]
fn a_source_of_29_97_frames_a_second() -> Result<()> {
    rungs_are_aligned("fps-29.97", &RUNGS)
}

/// Everybody else sees a rendition of its own size, and the broadcaster is told in words, in the log too.
#[test]
fn a_source_that_most_browsers_cannot_show() -> Result<()> {
    let server = shared_server()?;
    let recording = record("hevc", Publisher::of_enhanced_clip, 3)?;
    is_aligned("hevc", &recording, &["v180", "v90"])?;
    let codecs = |name: &str| {
        let of_it = |uri: &str| uri.ends_with(&format!("/{name}/index.m3u8"));
        let variant = recording.multivariant.variants.iter().find(|variant| of_it(&variant.uri));
        variant.map(|variant| (variant.codecs[0].clone(), variant.resolution)).context("no such variant")
    };
    ensure!(codecs("v")?.0.starts_with("hvc1."), "{:?}", codecs("v")?);
    ensure!(codecs("v180")? == ("avc1.64000c".to_owned(), Some((320, 180))), "{:?}", codecs("v180")?);
    server.wait_for_log("the pre-flight words", Duration::from_secs(20), |line| {
        line.contains("pre-flight: The video is HEVC").then_some(())
    })
}

/// What OBS sends when nobody asks for a keyframe interval: whoever joins a rung need not wait for the next one.
#[test]
fn a_source_of_few_keyframes_has_more_of_them_in_its_rungs() -> Result<()> {
    let recording = record("gop-8.3", Publisher::of_clip, 3)?;
    is_aligned("gop-8.3", &recording, &RUNGS)?;
    for name in RUNGS {
        let mut since_key = Duration::ZERO;
        for part in &rendition(&recording, name)?.parts {
            since_key = if part.independent { Duration::ZERO } else { since_key + part.duration };
            ensure!(since_key < Duration::from_millis(2_600), "{name}: {since_key:?} without a keyframe");
        }
    }
    Ok(())
}

/// At more than 30 frames a second the lowest rungs have every second picture, and say so.
#[test]
fn a_source_of_sixty_frames_a_second() -> Result<()> {
    let recording = record_in("fast", "fps-60", Publisher::of_clip, 2, 0)?;
    let rates: Vec<_> =
        recording.multivariant.variants.iter().map(|variant| variant.frame_rate.clone()).collect();
    ensure!(rates == [Some("60".to_owned()), Some("30".to_owned()), None], "{rates:?}");
    let pictures = |name| -> Result<f64> {
        let parts = &rendition(&recording, name)?.parts;
        let counts = parts
            .iter()
            .map(|part| Ok(fmp4::fragments(&part.bytes)?.iter().map(|it| it.durations.len()).sum::<usize>()));
        let seconds: Duration = parts.iter().map(|part| part.duration).sum();
        Ok(counts.sum::<Result<usize>>()? as f64 / seconds.as_secs_f64())
    };
    let (source, rung) = (pictures("v")?, pictures("v240")?);
    ensure!(
        (source - 60.0).abs() < 1.0 && (rung - 30.0).abs() < 1.0,
        "{source} and {rung} pictures a second"
    );
    Ok(())
}

/// Sound that some players lack a decoder for, or loudspeakers, is there in stereo AAC too.
#[test]
fn sound_that_not_everybody_plays() -> Result<()> {
    let cases: [(&str, Publish, &str); 2] =
        [("surround", Publisher::of_clip, "mp4a.40.2"), ("h264-opus", Publisher::of_enhanced_clip, "opus")];
    for (clip, publish, own) in cases {
        let recording = record_in("live", clip, publish, 3, 2)?;
        let groups: Vec<_> =
            recording.multivariant.renditions.iter().map(|audio| audio.group_id.clone()).collect();
        ensure!(groups == ["audio", "aac"], "{clip}: {groups:?}");
        let channels =
            recording.multivariant.renditions.iter().map(|audio| audio.channels.clone()).collect::<Vec<_>>();
        ensure!(channels[1] == Some("2".to_owned()), "{clip}: {channels:?}");
        let codecs = &recording.multivariant.variants[0].codecs;
        ensure!(codecs.last().is_some_and(|codec| codec == own), "{clip}: {codecs:?}");

        let (source, aac) = (rendition(&recording, "a")?, rendition(&recording, "aac")?);
        let starts = |rendition: &RecordedRendition| -> Result<BTreeMap<(u64, usize), f64>> {
            let scale = f64::from(fmp4::timescale(&rendition.init)?);
            let start = |bytes: &Vec<u8>| -> Result<f64> {
                Ok(fmp4::fragments(bytes)?.first().context("an empty part")?.base as f64 / scale)
            };
            rendition.parts.iter().map(|part| Ok(((part.msn, part.number), start(&part.bytes)?))).collect()
        };
        let (source_starts, aac_starts) = (starts(source)?, starts(aac)?);
        let mut compared = 0;
        for (place, start) in &aac_starts {
            let Some(same) = source_starts.get(place) else { continue };
            compared += 1;
            // A frame of AAC lasts 21 ms; a part begins with the first that begins in it.
            ensure!(
                (-0.001..0.022).contains(&(start - same)),
                "{clip}: part {place:?} begins {} s later",
                start - same
            );
        }
        ensure!(compared >= 8, "{clip}: only {compared} parts to compare");
        let packets = ffprobe::packets(&aac.write_to(&output_dir()?, &format!("ladder-{clip}"))?, "a:0")?;
        let steps = packets.windows(2).map(|pair| pair[1].pts - pair[0].pts);
        ensure!(
            steps.clone().all(|step| (step - 1024.0 / 48_000.0).abs() < 0.001),
            "{clip}: {:?}",
            steps.collect::<Vec<_>>()
        );
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Switches {
    problems: Vec<String>,
    switches: Vec<Switch>,
}

#[derive(Debug, Deserialize)]
struct Switch {
    /// `None` leaves it to the player.
    height: Option<u64>,
    shown_ms: Option<f64>,
    stalls: u64,
    /// Parts that were loaded though the player had them.
    again: Vec<String>,
}

/// In real Chromium, by our page's menu. What makes the picture stand still is a segment that is loaded again, over what the decoder is
/// about to show. hls.js does that at every change by itself; of six, two may go wrong on a machine that has no time for it.
#[test]
fn a_viewer_changes_the_rendition_and_goes_on_watching() -> Result<()> {
    let _turn = LANES.turn();
    let server = server("180:150k, 90:60k")?;
    let publisher = Publisher::of_clock("gop-2", &server.publish_url("live/choice"))?;
    let watched = Watched::of(&server, "live/choice");
    poll::until("a ladder", LADDER_MAX, || {
        Ok((watched.whole("v90")?.len() > 2 && watched.variants()? == 3).then_some(()))
    })?;
    let origin = format!("http://{}", server.http_address());
    let folder = output_dir()?;
    let folder = folder.to_str().context("a folder's name")?;
    let browser = Browser::run("quality.mjs", &[&origin, "live/choice", folder])?;
    let seen: Switches = browser.wait_for("done", Duration::from_secs(180))?;
    println!("{seen:?}");
    ensure!(seen.problems.is_empty(), "{:?}", seen.problems);
    let heights: Vec<_> = seen.switches.iter().map(|switch| switch.height).collect();
    ensure!(heights == [Some(360), Some(180), Some(90), Some(180), Some(360), None], "{heights:?}");
    ensure!(seen.switches.iter().all(|switch| switch.shown_ms.is_some()), "one was never shown: {seen:?}");
    let went_wrong = |switch: &&Switch| switch.stalls > 0 || !switch.again.is_empty();
    let wrong = seen.switches.iter().filter(went_wrong).count();
    ensure!(wrong <= 2, "{wrong} switches stood still or loaded something twice: {seen:?}");
    publisher.stop()
}

/// Process ids of the children that were given a job, the newest last.
fn children(server: &Tidecast) -> Vec<i32> {
    children_of(server, "")
}

/// Those of one stream.
fn children_of(server: &Tidecast, stream: &str) -> Vec<i32> {
    let started = |line: &String| {
        (line.contains("encoder started") && line.contains(&format!("stream.id={stream}")))
            .then(|| line.clone())
    };
    let id = |line: String| line.split("child=").nth(1)?.split_whitespace().next()?.parse().ok();
    server.log().iter().filter_map(started).filter_map(id).collect()
}

fn signal(child: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(child).context("a process id")?;
    Ok(kill_process(pid, signal)?)
}

/// A child is killed, and the next stands still: rungs are back within two segments, with the same numbers, and what the
/// publisher sends never stalls.
#[test]
fn a_child_that_dies_or_hangs_costs_its_rungs_two_segments_and_nobody_else_anything() -> Result<()> {
    let _turn = LANES.turn();
    let server = server(LADDER)?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/hurt"))?;
    let watched = Watched::of(&server, "live/hurt");
    poll::until("a ladder", LADDER_MAX, || {
        Ok((!watched.whole("v90")?.is_empty() && watched.variants()? == 3).then_some(()))
    })?;
    for how in [Signal::KILL, Signal::STOP] {
        let before = children(&server);
        let child = *before.last().context("a child")?;
        let (struck_at, newest) = (Instant::now(), watched.newest("v")?);
        signal(child, how)?;
        poll::until("another child", LADDER_MAX, || {
            Ok((children(&server).len() > before.len()).then_some(()))
        })?;
        let noticed = struck_at.elapsed();
        let back =
            poll::until("rungs with media again", LADDER_MAX, || first_whole(&watched, &RUNGS, newest + 1))?;
        println!("{how:?}: noticed after {noticed:?}, struck in {}, whole again in {back}", newest + 1);
        // The open one is lost, and so may be the next: its key may have passed already.
        ensure!(back <= newest + 1 + 2, "struck in {}, whole again only in {back}", newest + 1);
    }
    let playlist = watched.playlist("v")?.context("the publisher's own")?;
    ensure!(playlist.segments.iter().all(|segment| !segment.gap), "the publisher's own has a gap");
    ensure!(watched.variants()? == 3);
    let numbers = |name: &str| -> Result<Vec<u64>> {
        let playlist = watched.playlist(name)?.context("a playlist")?;
        Ok(playlist.segments.iter().map(|segment| segment.msn).collect())
    };
    for name in RUNGS {
        let rung = numbers(name)?;
        ensure!(rung.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{name}: {rung:?}");
    }
    publisher.stop()?;
    poll::until("the end of all", Duration::from_secs(40), || {
        let ended =
            ["v", "v180", "v90"].iter().map(|name| Ok(watched.playlist(name)?.is_some_and(|it| it.ended)));
        Ok(ended.collect::<Result<Vec<_>>>()?.into_iter().all(|ended| ended).then_some(()))
    })?;
    server.stop()
}

/// Children of two streams with a ladder each are killed and stopped at random.
#[test]
fn whatever_befalls_children_other_streams_do_not_notice() -> Result<()> {
    let _turn = LANES.turn();
    chaos::survive(strike_children)
}

fn strike_children(seed: u64) -> Result<()> {
    const STREAMS: [&str; 2] = ["live/left", "live/right"];
    /// Smaller than elsewhere: there are two of it, and encoders that are started all the time.
    const RUNGS: [&str; 2] = ["v120", "v90"];
    let server = server("120:80k, 90:60k")?;
    let publishers = STREAMS.map(|stream| Publisher::of_clip("gop-2", &server.publish_url(stream)));
    let watched = STREAMS.map(|stream| Watched::of(&server, stream));
    for stream in &watched {
        poll::until("a ladder", LADDER_MAX, || {
            let are_there = RUNGS.iter().map(|rung| Ok(stream.whole(rung)?.len() > 1));
            let are_there = are_there.collect::<Result<Vec<_>>>()?.into_iter().all(|is_there| is_there);
            Ok((are_there && stream.variants()? == 3).then_some(()))
        })?;
    }
    let (mut parts, mut cut_short) = (BTreeSet::new(), [0; STREAMS.len()]);
    let mut random = fastrand::Rng::with_seed(seed);
    for strike in 0..4 {
        let hit = random.usize(0..STREAMS.len());
        let how = if random.bool() { Signal::KILL } else { Signal::STOP };
        let pause = Duration::from_millis(random.u64(0..3_000));
        let start = Instant::now();
        poll::until("the moment", Duration::from_secs(5), || Ok((start.elapsed() >= pause).then_some(())))?;
        let before = children_of(&server, STREAMS[hit]);
        let newest = watched[hit].newest("v")?;
        println!(
            "seed {seed}, strike {strike}: {how:?} for {} in {} after {pause:?}",
            STREAMS[hit],
            newest + 1
        );
        signal(*before.last().context("a child")?, how)?;
        let back = poll::until("rungs with media again", LADDER_MAX, || {
            let is_anew = children_of(&server, STREAMS[hit]).len() > before.len();
            Ok(first_whole(&watched[hit], &RUNGS, newest + 1)?.filter(|_| is_anew))
        })?;
        // After the second failure within a minute a child waits a second, and after that five.
        let waited = [0, 0, 1, 3][strike];
        ensure!(back <= newest + 3 + waited, "struck in {}, whole again only in {back}", newest + 1);
        for ((stream, watched), cut_short) in STREAMS.iter().zip(&watched).zip(&mut cut_short) {
            let found = has_no_torn_part(watched, stream, &RUNGS, &mut parts);
            *cut_short += found.with_context(|| (*stream).to_owned())?;
            let ended = children_of(&server, stream).len() - 1;
            ensure!(
                *cut_short <= RUNGS.len() * ended,
                "{stream}: {cut_short} parts cut short by {ended} ends"
            );
        }
    }
    ensure!(parts.len() >= 40, "only {} parts were looked at", parts.len());
    for (stream, watched) in STREAMS.iter().zip(&watched) {
        let gaps = |name: &str| -> Result<usize> {
            let playlist = watched.playlist(name)?.context("a playlist")?;
            Ok(playlist.segments.iter().filter(|segment| segment.gap).count())
        };
        ensure!(gaps("v")? == 0, "{stream}: the publisher's own has a gap");
        let untouched = children_of(&server, stream).len() == 1;
        for rung in RUNGS {
            ensure!(!untouched || gaps(rung)? == 0, "{stream}: nobody struck it, and its {rung} has a gap");
        }
    }
    publishers.into_iter().try_for_each(|publisher| publisher?.stop())?;
    server.stop()
}

/// From which segment behind `behind` on each of the rungs has had media; `None` while one has none.
fn first_whole(watched: &Watched, rungs: &[&str], behind: u64) -> Result<Option<u64>> {
    let first = rungs.iter().map(|rung| Ok(watched.whole(rung)?.into_iter().find(|msn| *msn > behind)));
    Ok(first.collect::<Result<Option<Vec<_>>>>()?.and_then(|first| first.into_iter().max()))
}

/// Every part of a rung that is listed, and is no gap, is as long as the same part of the source, and has its pictures, all of
/// them whole. Fewer only before a gap or a key, where its encoder ended; returns how many such there are. Notes in `known`
/// which were looked at.
fn has_no_torn_part(
    watched: &Watched,
    stream: &str,
    rungs: &[&str],
    known: &mut BTreeSet<(String, u64, usize)>,
) -> Result<usize> {
    let mut cut_short = 0;
    for rung in rungs {
        let playlist = watched.playlist(rung)?.context("a playlist")?;
        // After the rung's, so that it has all that is in there.
        let source = watched.playlist("v")?.context("the publisher's own")?;
        let parts = playlist.segments.iter().flat_map(|segment| {
            segment.parts.iter().enumerate().map(|(number, part)| (segment.msn, number, part))
        });
        let parts: Vec<_> = parts.collect();
        for pair in parts.windows(2) {
            let [(msn, number, part), (_, _, next)] = *pair else { continue };
            let same = source.segment(msn).and_then(|same| same.parts.get(number));
            let (false, Some(same)) = (part.gap, same) else { continue };
            if !known.insert((format!("{stream}/{rung}"), msn, number)) {
                continue;
            }
            let place = || format!("{rung}: part {msn}.{number}");
            let bytes = watched.fetch(rung, &part.uri)?;
            let pictures = fmp4::samples(&bytes).with_context(place)?;
            let own = fmp4::samples(&watched.fetch("v", &same.uri)?)?.len();
            let is_cut_short = (next.gap || next.independent) && (1..own).contains(&pictures.len());
            cut_short += usize::from(is_cut_short);
            ensure!(
                pictures.len() == own || is_cut_short,
                "{}: {} of {own} pictures",
                place(),
                pictures.len()
            );
            ensure!(pictures.iter().all(|picture| is_whole(picture)), "{}: a torn picture", place());
            ensure!(part.duration == same.duration, "{}: another length", place());
        }
    }
    Ok(cut_short)
}

/// NAL units behind lengths of four bytes, and nothing left over.
fn is_whole(mut picture: &[u8]) -> bool {
    while let Some((length, after)) = picture.split_first_chunk() {
        let Some((_, rest)) = after.split_at_checked(u32::from_be_bytes(*length) as usize) else {
            return false;
        };
        picture = rest;
    }
    picture.is_empty()
}

/// Nobody watches: nothing is encoded, and the rungs are there as gaps. Somebody watches one: it has media, and the other
/// has none. To look at a rung is to watch it, so each is looked at no earlier than its turn comes.
#[test]
fn a_rung_on_demand_is_encoded_for_whoever_watches_it_and_no_other_is() -> Result<()> {
    let _turn = LANES.turn();
    let server = server(&format!("on-demand {LADDER}"))?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/asked"))?;
    let watched = Watched::of(&server, "live/asked");
    let made = || server.metric("transcode_rungs");
    poll::until("a ladder", LADDER_MAX, || {
        let is_offered = watched.playlist("v")?.is_some() && watched.variants()? == 3;
        Ok((is_offered && watched.whole("v")?.len() > 2).then_some(()))
    })?;
    ensure!(made()? == 0.0 && children(&server).is_empty(), "encoded for nobody");

    let cold = watched.playlist("v90")?.context("a playlist")?;
    let is_cold = |playlist: &MediaPlaylist| {
        !playlist.ended && playlist.segments.len() > 2 && playlist.segments.iter().all(Segment::has_only_gaps)
    };
    ensure!(is_cold(&cold), "{cold:?}");
    let asked = Instant::now();
    let first =
        poll::until("media of the rung", ON_DEMAND_MAX, || Ok(watched.whole("v90")?.first().copied()))?;
    println!("first whole segment {first}, {:?} after the first question", asked.elapsed());
    ensure!(made()? == 1.0 && children(&server).len() == 1, "{} rungs are made", made()?);
    let (source, warm) = (watched.playlist("v")?, watched.playlist("v90")?);
    let (source, warm) = (source.context("the publisher's own")?, warm.context("a playlist")?);
    for segment in warm.segments.iter().filter(|segment| segment.finished.is_some()) {
        let Some(same) = source.segment(segment.msn) else { continue };
        let length = |finished: &Option<(Duration, String)>| finished.as_ref().map(|(length, _)| *length);
        ensure!(length(&segment.finished) == length(&same.finished), "{}: another length", segment.msn);
        ensure!(segment.program_date_time == same.program_date_time, "{}: another date", segment.msn);
        ensure!(segment.gap == (segment.msn < first), "{}: what was a gap is none any more", segment.msn);
    }
    let told: Vec<String> = warm.check().iter().map(ToString::to_string).collect();
    ensure!(told.is_empty(), "{told:?}");
    ensure!(source.segments.iter().all(|segment| !segment.gap), "the publisher's own has a gap");

    let other = watched.playlist("v180")?.context("a playlist")?;
    ensure!(is_cold(&other), "nobody watched it: {other:?}");
    poll::until("media of both", ON_DEMAND_MAX, || Ok((made()? == 2.0).then_some(())))?;
    let back = watched.newest("v90")?;
    poll::until("a later segment of both", ON_DEMAND_MAX, || {
        let has = |name| Ok::<_, anyhow::Error>(watched.newest(name)? > back);
        Ok((has("v90")? && has("v180")?).then_some(()))
    })?;
    let whole = watched.whole("v90")?;
    ensure!(
        whole.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "a gap where the encoder was replaced: {whole:?}"
    );
    ensure!(server.metric("transcode_failures_total")? == 0.0);
    publisher.stop()?;
    server.stop()
}

/// A restart of the process goes on with the rungs as with everything else.
#[test]
fn rungs_go_on_after_a_restart_of_the_process() -> Result<()> {
    let _turn = LANES.turn();
    let server = server(LADDER)?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/again"))?;
    let watched = Watched::of(&server, "live/again");
    poll::until("a ladder", LADDER_MAX, || {
        Ok((!watched.whole("v90")?.is_empty() && watched.variants()? == 3).then_some(()))
    })?;
    let newest = watched.newest("v90")?;
    let init = |name: &str| -> Result<Option<String>> {
        let playlist = watched.playlist(name)?.context("a playlist")?;
        Ok(playlist.segments.last().and_then(|segment| segment.map.clone()))
    };
    let before = init("v90")?;
    let server = server.restart(End::Killed)?;
    drop(publisher);
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/again"))?;
    poll::until("rungs with media again", LADDER_MAX, || {
        Ok((watched.newest("v90")? > newest && watched.variants()? == 3).then_some(()))
    })?;
    ensure!(init("v90")? == before, "another init segment: players would have to set up their decoders anew");
    publisher.stop()?;
    server.stop()
}

/// A machine without GStreamer: it is said in words, and streams are passed through.
#[test]
fn without_an_encoder_streams_are_passed_through_and_the_log_says_so() -> Result<()> {
    let absent =
        Setup::default().set("transcode.ladder", "auto").set("transcode.encoder", "/nonexistent/encoder");
    let server = absent.start()?;
    server.wait_for_log("the reason", LADDER_MAX, |line| {
        line.contains("/nonexistent/encoder is no program that can be started: streams are passed through")
            .then_some(())
    })?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/alone"))?;
    let recording = follow_variants(&server.viewer_http(), "live/alone", Duration::from_secs(4), 1, 0)?;
    ensure!(recording.violations.is_empty(), "{:?}", recording.violations);
    publisher.stop()?;
    server.stop()
}

/// Only the encoder links GStreamer.
#[test]
fn the_server_needs_no_gstreamer() -> Result<()> {
    let libraries = |program: &str| -> Result<String> {
        let path = harness::server::built(program)?;
        let output = std::process::Command::new("ldd").arg(path).output()?;
        ensure!(output.status.success(), "ldd {program}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    ensure!(!libraries("tidecast")?.contains("gst"), "tidecast links GStreamer");
    ensure!(
        libraries("tidecast-encoder")?.contains("libgstreamer"),
        "nor does the encoder: this test shows nothing"
    );
    Ok(())
}
