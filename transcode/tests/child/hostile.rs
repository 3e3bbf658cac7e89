//! Children that are killed, stopped, stuck, or no encoders at all.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pipe::{FromEncoder, ToEncoder};
use rustix::process::{Pid, Signal, kill_process};
use transcode::child::{Child, DRAIN, Ended, Event, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, SendError};

use crate::clip::{Clip, clip};
use crate::support::{Bench, gone, id, next, send_all, until_it_works};

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(id(child) as i32).expect("a process"), signal).expect("it is ours");
}

async fn until_ended(child: &mut Child) -> Ended {
    loop {
        if let Event::Ended(ended) = next(child).await {
            return ended;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_killed_says_so_and_the_others_go_on() {
    let (bench, clip) = (Bench::real(), clip("plain"));
    let (mut one, mut other) = (bench.start(&clip), bench.start(&clip));
    for child in [&mut one, &mut other] {
        send_all(child, &clip);
        until_it_works(child).await;
    }
    // Stopped first, so that much still waits for it.
    signal(&one, Signal::STOP);
    fill(&mut one, &clip);
    signal(&one, Signal::KILL);
    assert_eq!(until_ended(&mut one).await, Ended::Signal { number: 9 });
    assert_eq!(one.send(&ToEncoder::End), Err(SendError::Ended));
    assert_eq!(one.queued(), 0);
    let mut units = 1;
    while units < clip.units.len() {
        units += usize::from(matches!(next(&mut other).await, Event::Message(FromEncoder::Unit(_))));
    }
}

/// Sends until the queue is full; how many it took.
fn fill(child: &mut Child, clip: &Clip) -> usize {
    let mut units = clip.units.iter().cycle();
    let mut taken = 0;
    loop {
        let unit = units.next().expect("a cycle").clone();
        match child.send(&ToEncoder::Unit(unit)) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert_eq!(error, SendError::Full);
                return taken;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_stopped_fills_its_queue_and_nobody_waits() {
    let (bench, clip) = (Bench::real(), clip("plain"));
    let mut child = bench.start(&clip);
    child.send(&ToEncoder::Unit(clip.units[0].clone())).expect("there is room");
    until_it_works(&mut child).await;
    signal(&child, Signal::STOP);
    let taken = fill(&mut child, &clip);
    // What Linux holds in a pipe comes on top.
    assert!((QUEUE_MESSAGES_MAX..QUEUE_MESSAGES_MAX + 200).contains(&taken), "{taken}");
    let id = id(&child);
    drop(child);
    gone(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_bounded_in_bytes_too() {
    let (bench, clip) = (Bench::script("exec sleep 1000"), clip("plain"));
    let mut child = bench.start(&clip);
    let mut clip =
        Clip { codec: clip.codec.clone(), timescale: clip.timescale, units: clip.units[..1].to_vec() };
    clip.units[0].data = vec![0; 1024 * 1024].into();
    let taken = fill(&mut child, &clip);
    assert!((28..=32).contains(&taken), "{taken}");
    assert!(child.queued() <= QUEUE_BYTES_MAX);
    // And what no child would take is not sent.
    clip.units[0].data = vec![0; pipe::UNIT_BYTES_MAX + 1].into();
    let refused = child.send(&ToEncoder::Unit(clip.units[0].clone()));
    assert!(matches!(refused, Err(SendError::TooLong(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_end_is_killed() {
    // The first closes its output and stays; the second does nothing.
    for script in ["exec sleep 1000 >&-", "exec sleep 1000"] {
        let (bench, clip) = (Bench::script(script), clip("plain"));
        let mut child = bench.start(&clip);
        fill(&mut child, &clip);
        let started = Instant::now();
        child.end(DRAIN);
        assert_eq!(until_ended(&mut child).await, Ended::Overdue, "{script}");
        assert!(started.elapsed() < Duration::from_secs(10), "{script}: {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_fails_or_talks_nonsense_is_told_apart() {
    let end_of = async |script: &str| until_ended(&mut Bench::script(script).start(&clip("plain"))).await;
    assert_eq!(end_of("exit 3").await, Ended::Failed { code: 3 });
    assert_eq!(end_of("exit 0").await, Ended::Finished);
    assert_eq!(end_of("kill -SEGV $$").await, Ended::Signal { number: 11 });
    let nonsense = end_of("echo 'this is no message, and longer than a header'; exec sleep 1000").await;
    assert!(matches!(nonsense, Ended::Nonsense(_)), "{nonsense:?}");
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A library that prints for each picture, and one without line breaks.
#[test]
fn a_flood_of_words_is_bounded() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).expect("no other test has one");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let flood = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2
            for i in $(seq 20000); do echo \"cmInitParaError $i\"; done >&2";
        let (bench, clip) = (Bench::script(flood), clip("plain"));
        let mut child = bench.start(&clip);
        assert_eq!(until_ended(&mut child).await, Ended::Finished);
        // The script may be done before its words are read.
        let (id, patience) = (id(&child), Instant::now() + Duration::from_secs(60));
        let told = loop {
            let told = String::from_utf8(log.0.lock().expect("nobody panics").clone()).expect("text");
            let of_child = format!("encoder.id={id}");
            let is_of_child = |line: &&str| line.split_whitespace().any(|word| word == of_child);
            let told: Vec<_> = told.lines().filter(is_of_child).map(str::to_owned).collect();
            if told.iter().any(|line| line.contains("the encoder said more")) {
                break told;
            }
            assert!(Instant::now() < patience, "{told:?}");
            tokio::task::yield_now().await;
        };
        assert_eq!(told.len(), 11, "{told:?}");
        assert!(told.iter().all(|line| line.len() < 1_200));
        assert!(told[10].contains("left_out=19991"), "{}", told[10]);
    });
}
