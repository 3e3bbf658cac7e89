//! The conversation with the worker.
//!
//!   standard input ─▶ reader (a thread) ─Feed─▶ pipeline (GStreamer's threads) ─Output─▶ writer (here) ─▶ standard output
//!
//! The writer ends the process, whatever the others are stuck in: after everything was encoded, after a fault that
//! nothing can follow, or when the worker is gone.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use pipe::{Fault, FaultClass, FromEncoder, Job, ToEncoder, read_message, write_message};

use crate::limits::Limits;
use crate::output::{Event, Output};
use crate::pipeline::Feed;
use crate::{audio, stdio, video};

/// How often the worker hears how far we are.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// A keyframe and its header in one write.
const WRITE_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// Elements that most jobs need. Loaded while a spare child waits, which is what makes it a spare.
const USUAL: &[&str] = &[
    "appsrc",
    "appsink",
    "videoconvert",
    "h264parse",
    "avdec_h264",
    "x264enc",
    "audioconvert",
    "audioresample",
    "capsfilter",
    "opusenc",
];

pub(crate) fn run(limits: Limits) -> ExitCode {
    if let Err(error) = limits.apply() {
        eprintln!("tidecast-encoder: its limits: {error}");
        return ExitCode::FAILURE;
    }
    let (input, output) = match stdio::take() {
        Ok(pipe) => pipe,
        Err(error) => {
            eprintln!("tidecast-encoder: standard input and output: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut writer = BufWriter::with_capacity(WRITE_BYTES, output);
    match converse(BufReader::with_capacity(READ_BYTES, input), &mut writer) {
        Ok(code) => code,
        // It hears by the pipe that we are gone, if it is there.
        Err(WorkerGone) => ExitCode::FAILURE,
    }
}

/// The pipe is broken.
struct WorkerGone;

type Writer = BufWriter<File>;

fn converse(mut reader: BufReader<File>, writer: &mut Writer) -> Result<ExitCode, WorkerGone> {
    if let Err(error) = gst::init() {
        let text = format!("GStreamer does not start: {error}");
        return refuse(writer, Fault { class: FaultClass::Pipeline, text });
    }
    for name in USUAL {
        // What is missing is told when a job needs it.
        let _warm = gst::ElementFactory::find(name).and_then(|factory| factory.load().ok());
    }
    let job = match read_message(&mut reader) {
        Ok(Some(ToEncoder::Job(job))) => job,
        // A spare that was not needed.
        Ok(None) => return Ok(ExitCode::SUCCESS),
        Ok(Some(_)) => return refuse(writer, protocol("the first message is no job")),
        Err(error) => return refuse(writer, protocol(error.to_string())),
    };
    let (rungs, timescale) = match &job {
        Job::Video(job) => (job.rungs.len(), job.timescale),
        Job::Audio(job) => (1, job.timescale),
    };
    let (output, events) = Output::new(rungs);
    let started = match &job {
        Job::Video(job) => video::start(job, &output),
        Job::Audio(job) => audio::start(job, &output),
    };
    let (feed, encoder) = match started {
        Ok(started) => started,
        Err(fault) => return refuse(writer, fault),
    };
    write(writer, &FromEncoder::Ready { encoder: encoder.to_owned() })?;
    let told = output.clone();
    thread::spawn(move || read(reader, feed, timescale, &told));
    answer(writer, &events, || output.progress(timescale))
}

/// Writes what the pipeline gives, until it ends.
fn answer(
    writer: &mut Writer,
    events: &Receiver<Event>,
    progress: impl Fn() -> pipe::Progress,
) -> Result<ExitCode, WorkerGone> {
    loop {
        match events.recv() {
            Ok(Event::Message(message)) => {
                write(writer, &message)?;
                if matches!(&message, FromEncoder::Fault(fault) if fault.class.ends()) {
                    return Ok(ExitCode::FAILURE);
                }
            }
            Ok(Event::Ended) => {
                write(writer, &FromEncoder::Progress(progress()))?;
                return Ok(ExitCode::SUCCESS);
            }
            Ok(Event::Abandoned) | Err(_) => return Err(WorkerGone),
        }
    }
}

/// Feeds the pipeline with what the worker sends. The feed lives until the process ends: after the last unit, pictures
/// are still in it.
fn read(mut reader: BufReader<File>, mut feed: Feed, timescale: u32, output: &Output) {
    let mut told = Instant::now();
    let fault = loop {
        let taken = match read_message(&mut reader) {
            Ok(Some(ToEncoder::Unit(unit))) => feed.push(unit),
            Ok(Some(ToEncoder::Config(codec))) => feed.reconfigure(&codec),
            Ok(Some(ToEncoder::End)) => {
                feed.end();
                thread::park();
                return;
            }
            Ok(Some(ToEncoder::Job(_))) => Err(protocol("a second job")),
            // The worker died without a goodbye.
            Ok(None) => {
                output.event(Event::Abandoned);
                return;
            }
            Err(error) => Err(protocol(error.to_string())),
        };
        if let Err(fault) = taken {
            break fault;
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            output.send(FromEncoder::Progress(output.progress(timescale)));
        }
    };
    output.fault(fault);
}

fn protocol(text: impl Into<String>) -> Fault {
    Fault { class: FaultClass::Protocol, text: text.into() }
}

fn refuse(writer: &mut Writer, fault: Fault) -> Result<ExitCode, WorkerGone> {
    write(writer, &FromEncoder::Fault(fault))?;
    Ok(ExitCode::FAILURE)
}

fn write(writer: &mut Writer, message: &FromEncoder) -> Result<(), WorkerGone> {
    write_message(writer, message).and_then(|()| writer.flush()).map_err(|_| WorkerGone)
}
