//! What a child is to the system.

use std::collections::BTreeSet;
use std::fs;

use pipe::FromEncoder;
use transcode::child::Event;

use crate::clip::clip;
use crate::support::{Bench, id, next, send_all, until_it_works};

fn proc(id: u32, file: &str) -> String {
    let path = format!("/proc/{id}/{file}");
    String::from_utf8_lossy(&fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))).into_owned()
}

/// Keys, passwords and tokens are often in the environment of a server.
#[tokio::test(flavor = "multi_thread")]
async fn it_knows_nothing_of_our_environment() {
    assert!(std::env::vars_os().count() > 3, "there must be something to hide");
    let (bench, clip) = (Bench::real(), clip("plain"));
    let mut child = bench.start(&clip);
    assert!(matches!(next(&mut child).await, Event::Message(FromEncoder::Ready { .. })));
    let environment = proc(id(&child), "environ");
    let names: BTreeSet<_> =
        environment.split_terminator('\0').filter_map(|line| Some(line.split_once('=')?.0)).collect();
    assert_eq!(names, BTreeSet::from(["GST_REGISTRY", "LANG", "PATH"]));
    let arguments = proc(id(&child), "cmdline");
    assert!(arguments.split('\0').nth(1) == Some("run"), "{arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_limits_and_gives_way_to_the_server() {
    let (bench, clip) = (Bench::real(), clip("plain"));
    let mut child = bench.start(&clip);
    send_all(&mut child, &clip);
    until_it_works(&mut child).await;
    let limits = proc(id(&child), "limits");
    let limit = |name: &str| -> Vec<String> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("Linux has it");
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max data size"), ["2147483648", "2147483648"]);
    assert_eq!(limit("Max open files"), ["256", "256"]);

    // Every thread: the encoders are threads.
    let nice = |stat: &str| -> i32 {
        let fields = stat.rsplit_once(')').expect("its name is in parentheses").1;
        fields.split_whitespace().nth(16).expect("proc(5): the 19th").parse().expect("a number")
    };
    let own = nice(&proc(std::process::id(), "stat"));
    let threads = fs::read_dir(format!("/proc/{}/task", id(&child))).expect("it runs");
    let nices: Vec<_> = threads
        .map(|thread| thread.expect("it can be listed").file_name().into_string().expect("a number"))
        .map(|thread| nice(&proc(id(&child), &format!("task/{thread}/stat"))))
        .collect();
    assert!(nices.len() > 3, "{nices:?}");
    assert!(nices.iter().all(|nice| *nice == (own + 5).min(19)), "{nices:?}");

    // What is typed at the server's terminal is not for it.
    let group: u32 = proc(id(&child), "stat")
        .rsplit_once(')')
        .expect("a name")
        .1
        .split_whitespace()
        .nth(2)
        .expect("proc(5): the 5th")
        .parse()
        .expect("a number");
    assert_eq!(group, id(&child));
}
