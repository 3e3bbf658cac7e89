//! A job from its start to its end, and the child in reserve.

use std::time::Duration;

use pipe::{FromEncoder, ToEncoder};
use transcode::child::{Ended, Event, SendError};
use transcode::probe::Probe;

use crate::clip::clip;
use crate::support::{Bench, PATIENCE, executable, gone, id, job, next, send_all};

/// All of a clip goes in before anything is taken out: writing does not wait for reading.
#[tokio::test(flavor = "multi_thread")]
async fn a_clip_goes_through_a_rung() {
    let (bench, clip) = (Bench::real(), clip("plain"));
    let mut child = bench.start(&clip);
    send_all(&mut child, &clip);
    let (mut stamps, mut keys, mut cpu, mut encoder) = (Vec::new(), Vec::new(), Duration::ZERO, None);
    while stamps.len() < clip.units.len() {
        match next(&mut child).await {
            Event::Message(FromEncoder::Ready { encoder: name }) => encoder = Some(name),
            Event::Message(FromEncoder::Unit(unit)) => {
                assert_eq!(unit.rung, 7);
                stamps.push(unit.pts);
                keys.extend(unit.key.then_some(unit.pts));
            }
            Event::Message(FromEncoder::Progress(progress)) => cpu = progress.cpu,
            Event::Message(FromEncoder::RungConfig { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(encoder.as_deref(), Some("x264enc"));
    assert_eq!(stamps, clip.stamps());
    assert_eq!(keys, clip.keys());
    assert_eq!(child.queued(), 0);

    child.end(PATIENCE);
    assert_eq!(child.send(&ToEncoder::End), Err(SendError::Ended));
    let ended = loop {
        match next(&mut child).await {
            Event::Message(FromEncoder::Progress(progress)) => cpu = progress.cpu,
            Event::Message(other) => panic!("{other:?}"),
            Event::Ended(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Finished);
    assert!(cpu > Duration::ZERO);
    assert_eq!(next(&mut child).await, Event::Ended(Ended::Finished));
}

/// A decoder holds pictures of a source with B-frames back. At the end they come out.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_what_is_in_the_encoder() {
    let (bench, clip) = (Bench::real(), clip("b-frames"));
    let mut child = bench.start(&clip);
    send_all(&mut child, &clip);
    let mut stamps = Vec::new();
    let ended = loop {
        match next(&mut child).await {
            Event::Message(FromEncoder::Unit(unit)) => {
                stamps.push(unit.pts);
                if stamps.len() == clip.units.len() - 2 {
                    child.end(PATIENCE);
                }
            }
            Event::Message(_) => {}
            Event::Ended(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Finished);
    assert_eq!(stamps, clip.stamps());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_to_the_child_in_reserve() {
    let (bench, clip) = (Bench::real(), clip("plain"));
    let spare = bench.spare().await;
    let first = bench.start(&clip);
    assert_eq!(id(&first), spare);
    let spare = bench.spare().await;
    assert_ne!(spare, id(&first));
    let mut second = bench.start(&clip);
    assert_eq!(id(&second), spare);
    assert!(matches!(next(&mut second).await, Event::Message(FromEncoder::Ready { .. })));
}

/// It may have died while it waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_in_reserve_that_is_gone_is_not_used() {
    use rustix::process::{Pid, Signal, kill_process};
    let (bench, clip) = (Bench::real(), clip("plain"));
    let spare = bench.spare().await;
    kill_process(Pid::from_raw(spare as i32).expect("a process"), Signal::KILL).expect("it is ours");
    gone(spare).await;
    let mut child = bench.start(&clip);
    assert_ne!(id(&child), spare);
    assert!(matches!(next(&mut child).await, Event::Message(FromEncoder::Ready { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_dropped_is_killed() {
    let (bench, clip) = (Bench::real(), clip("plain"));
    let mut child = bench.start(&clip);
    assert!(matches!(next(&mut child).await, Event::Message(FromEncoder::Ready { .. })));
    let (id, spare) = (id(&child), bench.spare().await);
    drop(child);
    gone(id).await;
    drop(bench);
    gone(spare).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_is_refused_before_it_is_sent() {
    let (bench, clip) = (Bench::real(), clip("plain"));
    let error =
        bench.encoders.start(pipe::VideoJob { timescale: 0, ..job(&clip) }.into()).expect_err("no job");
    assert_eq!(error.to_string(), "a job with a timescale of 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executable_that_is_gone_is_told() {
    let (bench, clip) = (Bench::script("exec cat"), clip("plain"));
    bench.spare().await;
    std::fs::remove_file(bench.folder.path().join("encoder")).expect("it is ours");
    drop(bench.start(&clip));
    let error = bench.encoders.start(job(&clip).into()).expect_err("it is gone");
    assert!(error.to_string().starts_with("tidecast-encoder does not start: No such file"), "{error}");
}

#[tokio::test]
async fn encoders_of_this_machine_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = Probe::run(&executable(), folder.path()).await.expect("x264 is installed");
    assert!(probe.encoders.iter().any(|name| name == "x264enc"), "{probe:?}");
    assert!(folder.path().join("gstreamer-registry.bin").is_file());
}
