//! Which encoders really work here. Being installed says little: drivers lack hardware, and hardware lacks modes.
//!
//! Each is tried in a process of its own, with a time limit: a driver that crashes or hangs fails alone.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use pipe::{FrameRate, FromEncoder, Preset, Rung};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::clock::StreamClock;
use crate::element;
use crate::encoders::{PROFILES, Profile};
use crate::ledger::{Companion, Ledger};
use crate::output::{Event, Output};
use crate::scale::rung_caps;
use crate::stdio;
use crate::video::RungOutput;

/// Of one encoder, with its process and its driver.
const LIMIT: Duration = Duration::from_secs(3);
/// Of the pictures, within that: what remains is for the start, and to say what went wrong.
const PICTURES_LIMIT: Duration = Duration::from_secs(2);

const PICTURES: i64 = 10;
const KEY: i64 = 5;
const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const TICKS: i64 = 3_000;
const TIMESCALE: u32 = 90_000;
/// Where the first picture is: no round number, so that a stamp made from a count is seen.
const FIRST: i64 = 987_654_321;
/// A verdict is a line.
const VERDICT_BYTES_MAX: u64 = 4096;

#[derive(Debug, Serialize)]
struct Verdict<'a> {
    encoder: &'a str,
    works: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// From the first picture in to the last out; drivers included, the process's start not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
}

/// A line for every known encoder that is here.
pub(crate) fn all() -> ExitCode {
    if let Err(error) = gst::init() {
        eprintln!("tidecast-encoder: GStreamer does not start: {error}");
        return ExitCode::FAILURE;
    }
    for Profile { name, .. } in PROFILES.iter().filter(|profile| element::exists(profile.name)) {
        let line = in_a_process(name).unwrap_or_else(|why| {
            to_json(&Verdict { encoder: name, works: false, why: Some(why), ms: None })
        });
        if writeln!(io::stdout(), "{}", line.trim_end()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The verdict of a child on `encoder`, as it printed it.
fn in_a_process(encoder: &str) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .args(["probe", encoder])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let verdict = verdict_of(&mut child);
    let _gone_already = child.kill();
    let status = child.wait().map_err(|error| error.to_string())?;
    match verdict {
        Ok(line) if line.ends_with('\n') => Ok(line),
        Ok(_) => Err(format!("its process ended without a verdict: {status}")),
        Err(why) => Err(why),
    }
}

fn verdict_of(child: &mut Child) -> Result<String, String> {
    let output = child.stdout.take().ok_or("its process has no output")?;
    // The verdict is one write, below what a pipe takes at once.
    let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    let readable = poll(&mut [PollFd::new(&output.as_fd(), PollFlags::IN)], Some(&limit));
    if readable.map_err(|error| error.to_string())? == 0 {
        return Err(format!("no verdict within {} s", LIMIT.as_secs()));
    }
    let mut line = String::new();
    let read = output.take(VERDICT_BYTES_MAX).read_to_string(&mut line);
    read.map(|_| line).map_err(|error| error.to_string())
}

/// The verdict on `encoder`, from this process.
pub(crate) fn one(encoder: &str) -> ExitCode {
    let Ok((_, mut output)) = stdio::take() else { return ExitCode::FAILURE };
    let started = Instant::now();
    let tried = gst::init().map_err(|error| error.to_string()).and_then(|()| attempt(encoder));
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let verdict = match tried {
        Ok(()) => Verdict { encoder, works: true, why: None, ms: Some(ms) },
        Err(why) => Verdict { encoder, works: false, why: Some(why), ms: None },
    };
    match writeln!(output, "{}", to_json(&verdict)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn to_json(verdict: &Verdict<'_>) -> String {
    serde_json::to_string(verdict).expect("strings and numbers can be written")
}

/// Ten pictures through everything a rung has.
fn attempt(encoder: &str) -> Result<(), String> {
    let profile = PROFILES.iter().find(|profile| profile.name == encoder).ok_or("not an encoder we know")?;
    let (output, events) = Output::new(1);
    let ledger = Arc::new(Mutex::new(Ledger::new(&[1])));
    let clock = output.clock(|| StreamClock::starting_at(FIRST, TIMESCALE));
    let rung = Rung {
        number: 0,
        width: WIDTH as u16,
        height: HEIGHT as u16,
        kbit_s: 800,
        preset: Preset::Superfast,
        every: 1,
    };
    let encoder =
        RungOutput { index: 0, rung, timescale: TIMESCALE, ledger: ledger.clone(), output: output.clone() };

    let pipeline = gst::Pipeline::new();
    let appsrc = encoder.add(&pipeline, profile).map_err(|fault| fault.text)?;
    appsrc.set_caps(Some(&rung_caps(&rung, FrameRate { numerator: 30, denominator: 1 }, None)));
    crate::pipeline::report(&pipeline, &output).map_err(|fault| fault.text)?;

    for number in 0..PICTURES {
        let pts = FIRST + number * TICKS;
        let time = clock.nanos(pts, TIMESCALE).ok_or("a picture off the clock")?;
        let mut picture = gst::Buffer::from_mut_slice(picture(number));
        if let Some(fields) = picture.get_mut() {
            fields.set_pts(time);
            fields.set_duration(gst::ClockTime::from_nseconds(1_000_000_000 / 30));
        }
        let companion = Companion { duration: TICKS as u32, captions: Vec::new() };
        crate::pipeline::lock(&ledger).accept(pts, number == KEY, companion);
        appsrc.push_buffer(picture).map_err(|error| error.to_string())?;
    }
    appsrc.end_of_stream().map_err(|error| error.to_string())?;
    let judged = judge(&events);
    // A driver that hangs here is cut off with the process.
    let _ends_anyway = pipeline.set_state(gst::State::Null);
    judged
}

/// Whether what comes out is what was asked for.
fn judge(events: &std::sync::mpsc::Receiver<Event>) -> Result<(), String> {
    let deadline = Instant::now() + PICTURES_LIMIT;
    let (mut configured, mut stamps, mut keys) = (false, Vec::new(), Vec::new());
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Message(FromEncoder::RungConfig { codec, .. })) => {
                codec.config().map_err(|error| format!("its configuration: {error}"))?;
                configured = true;
            }
            Ok(Event::Message(FromEncoder::Unit(unit))) => {
                stamps.push(unit.pts);
                keys.extend(unit.key.then_some(unit.pts));
            }
            // Judged below, with all of them.
            Ok(Event::Message(FromEncoder::Fault(fault))) if !fault.class.ends() => {}
            Ok(Event::Message(FromEncoder::Fault(fault))) => return Err(fault.text),
            Ok(Event::Message(_) | Event::Abandoned) => {}
            Ok(Event::Ended) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!(
                    "{} of {PICTURES} pictures within {} s",
                    stamps.len(),
                    PICTURES_LIMIT.as_secs()
                ));
            }
            Err(RecvTimeoutError::Disconnected) => return Err("it stopped without a word".to_owned()),
        }
    }
    let expected =
        |numbers: &[i64]| -> Vec<i64> { numbers.iter().map(|number| FIRST + number * TICKS).collect() };
    let all: Vec<i64> = (0..PICTURES).collect();
    if !configured {
        return Err("it gave no configuration".to_owned());
    }
    if stamps.len() != all.len() {
        return Err(format!("{} pictures for {PICTURES}", stamps.len()));
    }
    if !stamps.is_sorted() {
        return Err("it makes B-frames".to_owned());
    }
    if stamps != expected(&all) {
        return Err("stamps are not those that went in".to_owned());
    }
    if keys != expected(&[0, KEY]) {
        let keys: Vec<_> = keys.iter().map(|key| (key - FIRST) / TICKS).collect();
        return Err(format!("keys at {keys:?}, asked for at [0, {KEY}]"));
    }
    Ok(())
}

/// A gradient that moves, so that there is something to predict.
fn picture(number: i64) -> Vec<u8> {
    let mut planes = vec![128; WIDTH * HEIGHT * 3 / 2];
    for (row, line) in planes.chunks_mut(WIDTH).take(HEIGHT).enumerate() {
        for (column, sample) in line.iter_mut().enumerate() {
            *sample = (row + column + 4 * number as usize) as u8;
        }
    }
    planes
}
