//! Captions of television, from a broadcaster's encoder to the eyes of a viewer of any rendition.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::captions::{ERASED, SHOWN, captions_in};
use harness::fmp4;
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::viewer::{RecordedPart, Recording, follow_variants};
use harness::watched::Watched as Playlists;
use serde::Deserialize;

const STREAM: &str = "live/told";
const LIVE_MAX: Duration = Duration::from_secs(90);
const RUNG: &str = "v180";
/// Of media that is compared; renditions are followed from where each is found.
const MEDIA: Duration = Duration::from_secs(12);
const FRAME_S: f64 = 1.0 / 30.0;
/// Captions are shown for two seconds and more: what is in time is seen long before its end.
const LATE_MAX_S: f64 = 0.5;

#[derive(Debug, Deserialize)]
struct Watched {
    /// Of the picture.
    height: u64,
    rendition: String,
    /// In the order in which they were seen.
    captions: Vec<Caption>,
    label: String,
    problems: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Ended {
    problems: Vec<String>,
}

/// In seconds of media.
#[derive(Debug, Deserialize)]
struct Caption {
    text: String,
    start: f64,
    end: f64,
    /// Where the picture was when it was first on the screen.
    seen: f64,
}

#[test]
fn captions_are_declared_are_in_every_rung_and_are_shown_when_they_are_switched_on() -> Result<()> {
    let (server, publisher) = publish("gop-2")?;
    let recording = follow_variants(&server.viewer_http(), STREAM, MEDIA, 2, 0)?;
    let told: Vec<String> = recording.violations.iter().map(ToString::to_string).collect();
    ensure!(told.is_empty(), "{}", told.join("\n"));
    ensure!(recording.multivariant.captions == ["CC1"], "{:?}", recording.multivariant.captions);
    are_the_same(&recording)?;
    are_shown(&server)?;
    publisher.stop()?;
    server.stop()
}

/// Pictures come in another order than they are shown, also beyond the ends of parts.
#[test]
fn captions_beside_b_frames_are_read_in_the_order_of_what_is_shown() -> Result<()> {
    let (server, publisher) = publish("b-frames")?;
    are_shown(&server)?;
    publisher.stop()?;
    server.stop()
}

fn publish(clip: &str) -> Result<(Tidecast, Publisher)> {
    let server = Setup::default().set("transcode.ladder", "180:150k").start()?;
    let publisher = Publisher::of_captioned(clip, &server.publish_url(STREAM))?;
    let found = |name: &str| Playlists::of(&server, STREAM).whole(name);
    poll::until("renditions", LIVE_MAX, || {
        Ok((!found("v")?.is_empty() && !found(RUNG)?.is_empty()).then_some(()))
    })?;
    Ok((server, publisher))
}

fn are_shown(server: &Tidecast) -> Result<()> {
    let origin = format!("http://{}", server.http_address());
    let folder = output_dir()?;
    let arguments = [&origin, STREAM, folder.to_str().context("a folder's name")?];
    let browser = Browser::run("captions.mjs", &arguments)?;
    for (height, rendition) in [(360, "v"), (180, RUNG)] {
        let watched: Watched =
            browser.wait_until("captions", Duration::from_secs(120), |watched: &Watched| {
                watched.height == height
            })?;
        println!("{watched:?}");
        ensure!(watched.rendition == rendition, "{watched:?}");
        watched.check()?;
    }
    // And on again at the next visit.
    let Ended { problems } = browser.wait_for("done", Duration::from_secs(120))?;
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(())
}

/// Part by part, with one message for each picture.
fn are_the_same(recording: &Recording) -> Result<()> {
    let parts = |name: &str| -> Result<&Vec<RecordedPart>> {
        let found = recording.renditions.iter().find(|rendition| rendition.name == name);
        Ok(&found.with_context(|| format!("no rendition {name}"))?.parts)
    };
    let mut compared = 0;
    for part in parts(RUNG)? {
        let of_source = |other: &&RecordedPart| (other.msn, other.number) == (part.msn, part.number);
        let Some(source) = parts("v")?.iter().find(of_source) else { continue };
        let [here, there] = [&part.bytes, &source.bytes].map(|bytes| -> Result<Vec<Vec<&[u8]>>> {
            fmp4::samples(bytes)?.into_iter().map(captions_in).collect()
        });
        let (here, there) = (here?, there?);
        ensure!(there.iter().all(|captions| captions.len() == 1), "the source has {there:?}");
        ensure!(here == there, "part {}.{} has {here:?}, and its source {there:?}", part.msn, part.number);
        compared += 1;
    }
    ensure!(compared >= 8, "only {compared} parts to compare");
    Ok(())
}

impl Watched {
    fn check(&self) -> Result<()> {
        ensure!(self.problems.is_empty(), "{:?}", self.problems);
        ensure!(self.label == "Captions", "the track is called {}", self.label);
        let number = |caption: &Caption| caption.text.strip_prefix("TIDE ")?.parse::<usize>().ok();
        let numbers: Option<Vec<_>> = self.captions.iter().map(number).collect();
        let numbers = numbers.with_context(|| format!("other words: {self:?}"))?;
        ensure!(numbers.windows(2).all(|pair| (pair[0] + 1) % 10 == pair[1]), "{numbers:?}");
        let lasts = (ERASED - SHOWN) as f64 * FRAME_S;
        // The clip begins anew after thirty seconds, with stamps of its own.
        let is_whole = |caption: &Caption| (caption.end - caption.start - lasts).abs() < 2.5 * FRAME_S;
        let begun_before = 1;
        ensure!(self.captions.iter().skip(begun_before).all(is_whole), "for {lasts} s each: {self:?}");
        let late = self.captions.iter().map(|caption| caption.seen - caption.start);
        ensure!(late.fold(f64::INFINITY, f64::min) < LATE_MAX_S, "all were shown late: {self:?}");
        Ok(())
    }
}
