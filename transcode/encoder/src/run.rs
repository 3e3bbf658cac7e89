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

fn converse(mut reader: BufReader<File>, writer: &mut BufWriter<File>) -> Result<ExitCode, WorkerGone> {
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
    answer(writer, &events, &output, timescale)
}

/// Writes what the pipeline gives, until it ends.
fn answer(
    writer: &mut BufWriter<impl Write>,
    events: &Receiver<Event>,
    output: &Output,
    timescale: u32,
) -> Result<ExitCode, WorkerGone> {
    // A picture that some rungs have given and others are at. The worker is woken once for all of them.
    let mut open = None;
    loop {
        match events.recv() {
            Ok(Event::Message(FromEncoder::Unit(unit))) => {
                let (pts, is_last) = (unit.pts, output.taken(unit.pts));
                put(writer, &FromEncoder::Unit(unit))?;
                // Of two pictures none waits: a rung that hangs does not hold the others up.
                open = (!is_last && open.is_none_or(|open| open == pts)).then_some(pts);
                if open.is_none() {
                    flush(writer)?;
                }
            }
            Ok(Event::Message(message)) => {
                write(writer, &message)?;
                if matches!(&message, FromEncoder::Fault(fault) if fault.class.ends()) {
                    return Ok(ExitCode::FAILURE);
                }
            }
            Ok(Event::Ended) => {
                write(writer, &FromEncoder::Progress(output.progress(timescale)))?;
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

fn refuse(writer: &mut BufWriter<File>, fault: Fault) -> Result<ExitCode, WorkerGone> {
    write(writer, &FromEncoder::Fault(fault))?;
    Ok(ExitCode::FAILURE)
}

fn write(writer: &mut BufWriter<impl Write>, message: &FromEncoder) -> Result<(), WorkerGone> {
    put(writer, message)?;
    flush(writer)
}

fn put(writer: &mut impl Write, message: &FromEncoder) -> Result<(), WorkerGone> {
    write_message(writer, message).map_err(|_| WorkerGone)
}

fn flush(writer: &mut impl Write) -> Result<(), WorkerGone> {
    writer.flush().map_err(|_| WorkerGone)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use pipe::{RungUnit, decode};

    use super::*;

    /// What was written at once.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Rung and PTS of the units in each write, when each picture goes to as many rungs as it says.
    fn written(pictures: &[(i64, usize)], units: &[(u16, i64)]) -> Vec<Vec<(u16, i64)>> {
        let (output, events) = Output::new(2);
        for (pts, rungs) in pictures {
            (0..*rungs).for_each(|_| output.begun(*pts));
        }
        for &(rung, pts) in units {
            let data = Bytes::from_static(b"unit");
            output.send(FromEncoder::Unit(RungUnit { rung, pts, duration: 3_000, key: false, data }));
        }
        // What is not written by now never is.
        output.event(Event::Abandoned);
        let mut writer = BufWriter::with_capacity(WRITE_BYTES, Writes::default());
        assert!(answer(&mut writer, &events, &output, 90_000).is_err());
        let units = |bytes: Vec<u8>| {
            let (mut bytes, mut units) = (BytesMut::from(&bytes[..]), Vec::new());
            while let Some(FromEncoder::Unit(unit)) = decode(&mut bytes).expect("what we write is sound") {
                units.push((unit.rung, unit.pts));
            }
            units
        };
        writer.into_parts().0.0.into_iter().map(units).collect()
    }

    #[test]
    fn the_units_of_a_picture_are_written_together() {
        let pictures = [(0, 2), (3_000, 1), (6_000, 2)];
        let units = [(1, 0), (0, 0), (0, 3_000), (0, 6_000), (1, 6_000)];
        let (first, last) = (vec![(1, 0), (0, 0)], vec![(0, 6_000), (1, 6_000)]);
        assert_eq!(written(&pictures, &units), [first, vec![(0, 3_000)], last]);
    }

    #[test]
    fn a_rung_that_hangs_holds_the_others_up_for_one_picture_at_most() {
        let pictures = [(0, 2), (3_000, 2), (6_000, 2), (9_000, 2)];
        let units = [(0, 0), (0, 3_000), (0, 6_000), (0, 9_000)];
        let writes = written(&pictures, &units);
        assert_eq!(writes, [[(0, 0), (0, 3_000)], [(0, 6_000), (0, 9_000)]]);
    }

    #[test]
    fn what_is_no_picture_waits_for_nothing() {
        assert_eq!(written(&[], &[(0, 0), (0, 960)]), [[(0, 0)], [(0, 960)]]);
    }
}
