//! Children of another node: what a job sees of them is what it sees of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use media::StreamId;
use pipe::{FromEncoder, Job, Machine, SourceUnit, ToEncoder, VideoJob};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;
use transcode::budget::{Budget, Share};
use transcode::child::{Child, Encoders, Ended, Event};
use transcode::workers::{Connection, Refusal, Taking, Workers};
use transcode::{Lender, Metrics};

use crate::clip::clip;
use crate::support::{Bench, PATIENCE, gone, job, next, send_all, until_it_works};

/// More than a job of the tests needs.
const COST: f64 = 0.5;

fn stream() -> StreamId {
    StreamId::new("live", "cam").expect("a name")
}

/// Another node with its encoders, and the network between.
#[derive(Debug, Clone)]
struct Network(Arc<Mutex<Option<Lender>>>);

impl Workers for Network {
    fn free(&self) -> f64 {
        self.0.lock().expect("no panic").as_ref().map_or(0.0, Lender::free)
    }

    fn take(&self, _: &StreamId, cost: f64) -> Taking {
        let lender = self.0.lock().expect("no panic").clone();
        Box::pin(async move {
            let lender = lender.ok_or(Refusal::Nobody { reasons: Vec::new() })?;
            let refused = |why| Refusal::Full { reasons: vec![format!("other: {why}")] };
            let room = lender.admit(cost).map_err(refused)?;
            // Less than a picture.
            let (ours, theirs) = duplex(1_000);
            tokio::spawn(async move { lender.lend("origin".parse().expect("a name"), theirs, room).await });
            let connection: Box<dyn Connection> = Box::new(ours);
            Ok(connection)
        })
    }
}

/// A node without an encoder of its own, beside one of four cores that has one.
struct Two {
    network: Network,
    encoders: Encoders,
    share: Share,
    other: Bench,
    budget: Budget,
    lender: Lender,
}

impl Two {
    fn of(other: Bench) -> Self {
        let budget = Budget::new(4);
        let lender = Lender::new(other.encoders.clone(), budget.clone(), &Metrics::default());
        let network = Network(Arc::new(Mutex::new(Some(lender.clone()))));
        let encoders = Encoders::lent_by(Arc::new(network.clone()));
        Self { network, encoders, share: Budget::new(0).take(0.0), other, budget, lender }
    }

    fn place(&self, job: VideoJob) -> Child {
        self.encoders.place(&stream(), Job::Video(job), COST, &self.share).expect("it is asked for")
    }
}

async fn ended(child: &mut Child) -> Ended {
    loop {
        if let Event::Ended(ended) = next(child).await {
            return ended;
        }
    }
}

/// Waits until the other node has let go of everything it lent.
async fn all_is_free(budget: &Budget) {
    let free = async {
        while budget.free() < 3.2 - 1e-9 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, free).await.expect("what was lent comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_goes_through_a_rung_of_another_node() {
    let (two, clip) = (Two::of(Bench::real()), clip("plain"));
    let mut child = two.place(job(&clip));
    assert_eq!(child.id(), None);
    send_all(&mut child, &clip);
    let (mut stamps, mut encoder) = (Vec::new(), None);
    while stamps.len() < clip.units.len() {
        match next(&mut child).await {
            Event::Message(FromEncoder::Ready { encoder: name }) => encoder = Some(name),
            Event::Message(FromEncoder::Unit(unit)) => stamps.push(unit.pts),
            Event::Message(_) => {}
            Event::Ended(ended) => panic!("{ended}"),
        }
    }
    assert_eq!((encoder.as_deref(), stamps), (Some("x264enc"), clip.stamps()));
    assert!(two.budget.free() < 3.2, "it has room there");
    assert!(two.share.cost() == 0.0, "and none here");
    child.end(PATIENCE);
    assert_eq!(ended(&mut child).await, Ended::Finished);
    all_is_free(&two.budget).await;
}

/// What this machine has room for stays on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_to_another_node_when_there_is_no_room_for_it_here() {
    let (two, own, clip) = (Two::of(Bench::real()), Bench::real(), clip("plain"));
    let encoders = own.encoders.clone().with_workers(Arc::new(two.network.clone()));
    let (budget, job) = (Budget::new(1), || Job::Video(job(&clip)));
    let (first, second) = (budget.take(0.0), budget.take(0.0));
    let mut here = encoders.place(&stream(), job(), COST, &first).expect("it starts");
    let mut there = encoders.place(&stream(), job(), COST, &second).expect("it is asked for");
    assert!(here.id().is_some() && there.id().is_none());
    // Together: what is for a child waits until it is listened to, and a lender waits for a job for seconds only.
    send_all(&mut here, &clip);
    send_all(&mut there, &clip);
    tokio::join!(until_it_works(&mut here), until_it_works(&mut there));
    assert!((first.cost() - COST).abs() < 1e-9 && second.cost() == 0.0);
    drop(here);
    drop(first);
    let again = encoders.place(&stream(), job(), COST, &second).expect("it starts");
    assert!(again.id().is_some(), "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_killed_there_is_gone_here() {
    let (two, clip) = (Two::of(Bench::real()), clip("plain"));
    let of_the_other = two.other.spare().await;
    let mut child = two.place(job(&clip));
    send_all(&mut child, &clip);
    until_it_works(&mut child).await;
    kill_process(Pid::from_raw(of_the_other as i32).expect("a process"), Signal::KILL).expect("it is ours");
    assert_eq!(ended(&mut child).await, Ended::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_here_is_killed_there() {
    let (two, clip) = (Two::of(Bench::real()), clip("plain"));
    let of_the_other = two.other.spare().await;
    let mut child = two.place(job(&clip));
    send_all(&mut child, &clip);
    until_it_works(&mut child).await;
    drop(child);
    gone(of_the_other).await;
    all_is_free(&two.budget).await;
}

/// It says nothing and is told to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_end_there_is_overdue_here() {
    let (two, clip) = (Two::of(Bench::script("exec sleep 1000")), clip("plain"));
    let mut child = two.place(job(&clip));
    child.end(Duration::from_millis(300));
    assert_eq!(ended(&mut child).await, Ended::Overdue);
    all_is_free(&two.budget).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_room_or_leaves_takes_no_job() {
    let (two, clip) = (Two::of(Bench::real()), clip("plain"));
    let room = two.lender.admit(3.0).expect("room");
    let refused = async |two: &Two| match ended(&mut two.place(job(&clip))).await {
        Ended::Refused(refusal) => refusal.to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(refused(&two).await, "no other node has room (other: too busy for it)");
    drop(room);
    two.lender.leave().await;
    assert_eq!(refused(&two).await, "no other node has room (other: about to leave)");
    *two.network.0.lock().expect("no panic") = None;
    assert_eq!(refused(&two).await, "no other node encodes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_says_so_and_waits_until_its_children_are_let_go_of() {
    let (two, clip) = (Two::of(Bench::real()), clip("plain"));
    let mut child = two.place(job(&clip));
    send_all(&mut child, &clip);
    until_it_works(&mut child).await;
    let lender = two.lender.clone();
    let left = tokio::spawn(async move { lender.leave().await });
    while next(&mut child).await != Event::Message(FromEncoder::Machine(Machine::Leaving)) {}
    assert!(!left.is_finished());
    child.end(PATIENCE);
    assert_eq!(ended(&mut child).await, Ended::Finished);
    timeout(PATIENCE, left).await.expect("nothing is lent any more").expect("no panic");
}

/// It hangs there with more before it than any pipe holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_hangs_there_is_gone_when_its_job_lets_go_of_it() {
    let (two, clip) = (Two::of(Bench::script("exec sleep 1000")), clip("plain"));
    let mut child = two.place(job(&clip));
    let unit = SourceUnit { data: vec![0; 1 << 20].into(), ..clip.units[0].clone() };
    for _ in 0..12 {
        child.send(&ToEncoder::Unit(unit.clone())).expect("there is room");
    }
    let carried = async {
        while child.queued() > 0 {
            // It says nothing: this moves what waits.
            let _silence = timeout(Duration::from_millis(10), child.next()).await;
        }
    };
    timeout(PATIENCE, carried).await.expect("the other node takes it");
    drop(child);
    all_is_free(&two.budget).await;
}

/// It has asked for an encoder, and says nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_sends_no_job_holds_nobody_up() {
    let two = Two::of(Bench::real());
    let room = two.lender.admit(COST).expect("room");
    let (_ours, theirs) = duplex(1_000);
    let lender = two.lender.clone();
    tokio::spawn(async move { lender.lend("other".parse().expect("a name"), theirs, room).await });
    timeout(PATIENCE, two.lender.leave()).await.expect("it is not waited for");
}

/// Where nobody else has room a job stays where it was, whatever it costs.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_here_stays_here() {
    let (two, own, clip) = (Two::of(Bench::real()), Bench::real(), clip("plain"));
    let encoders = own.encoders.clone().with_workers(Arc::new(two.network.clone()));
    let share = Budget::new(1).take(0.9);
    let child = encoders.place(&stream(), Job::Video(job(&clip)), 1.2, &share).expect("it starts");
    assert!(child.id().is_some());
    assert!((share.cost() - 1.2).abs() < 1e-9);
}

/// From a node that is broken, or was taken over.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_job_ends_the_connection_and_nothing_else() {
    let (two, clip) = (Two::of(Bench::real()), clip("plain"));
    let mut child = two.place(job(&clip));
    send_all(&mut child, &clip);
    for bytes in [&[0xFF; 64][..], b"GET / HTTP/1.1\r\n\r\n0123456789012345", &[]] {
        let room = two.lender.admit(COST).expect("room");
        let (mut ours, theirs) = duplex(1_000);
        let lending = {
            let lender = two.lender.clone();
            tokio::spawn(async move { lender.lend("other".parse().expect("a name"), theirs, room).await })
        };
        ours.write_all(bytes).await.expect("it is taken");
        ours.shutdown().await.expect("it is open");
        let mut said = Vec::new();
        // Whether it is closed or broken off.
        let _ = timeout(PATIENCE, ours.read_to_end(&mut said)).await.expect("it ends");
        assert_eq!(said, b"");
        lending.await.expect("no panic");
    }
    child.end(PATIENCE);
    assert_eq!(ended(&mut child).await, Ended::Finished);
}
