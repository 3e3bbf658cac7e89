//! The tasks of a child.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::buf::Chain;
use bytes::{Buf, Bytes, BytesMut};
use pipe::{Message, ToEncoder, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child as Process, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::words::Words;
use super::{Ended, Event};

/// For the process to go, once it closed its output.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// At once, from the pipe: what Linux holds in one.
const READ_BYTES: usize = 64 * 1024;
const WORDS_BYTES: usize = 4 * 1024;

/// A message on its way: its header, and a unit.
type Encoded = Chain<Bytes, Bytes>;

pub(super) fn spawn(
    mut process: Process,
    messages: mpsc::Receiver<Encoded>,
    queued: Arc<AtomicUsize>,
    events: mpsc::Sender<Event>,
    drain: oneshot::Receiver<Duration>,
) {
    let id = process.id().unwrap_or_default();
    if let Some(input) = process.stdin.take() {
        tokio::spawn(async move {
            // It hears of a broken pipe by the end of the process, as everybody.
            let _broken = write(input, messages, &queued).await;
        });
    }
    if let Some(words) = process.stderr.take() {
        tokio::spawn(tell(words, id));
    }
    tokio::spawn(attend(process, events, drain));
}

/// Until the process is gone.
async fn attend(mut process: Process, events: mpsc::Sender<Event>, drain: oneshot::Receiver<Duration>) {
    let output = process.stdout.take();
    let ended = tokio::select! {
        heard = hear(output, &events) => match heard {
            Ok(()) => match timeout(GONE_WITHIN, process.wait()).await {
                Ok(Ok(status)) => how(status),
                Ok(Err(error)) => Ended::Lost(error.kind()),
                Err(_) => Ended::Overdue,
            },
            Err(ended) => ended,
        },
        () = overdue(drain) => Ended::Overdue,
        // Nobody hears how.
        () = events.closed() => Ended::Overdue,
    };
    // It is waited for too, so that no zombie remains.
    let _gone_already = process.kill().await;
    let _nobody_hears = events.send(Event::Ended(ended)).await;
}

/// Returns when the time for the end is over; never, if nobody asked for an end.
async fn overdue(drain: oneshot::Receiver<Duration>) {
    match drain.await {
        Ok(drain) => sleep(drain).await,
        // Dropped with the child, which is noticed by its events.
        Err(_) => std::future::pending().await,
    }
}

fn how(status: ExitStatus) -> Ended {
    match (status.signal(), status.code()) {
        (Some(number), _) => Ended::Signal { number },
        (None, Some(0)) => Ended::Finished,
        (None, code) => Ended::Failed { code: code.unwrap_or_default() },
    }
}

/// What the child says, until it closes its output. Waits while nobody takes it.
async fn hear(output: Option<ChildStdout>, events: &mpsc::Sender<Event>) -> Result<(), Ended> {
    let Some(mut output) = output else { return Ok(()) };
    let mut received = BytesMut::new();
    loop {
        while let Some(message) = decode(&mut received).map_err(Ended::Nonsense)? {
            if events.send(Event::Message(message)).await.is_err() {
                return Ok(());
            }
        }
        // Grows with the message that comes, whose length was checked.
        received.reserve(READ_BYTES);
        match output.read_buf(&mut received).await {
            // A message that is cut off is the end of a crash, and the status says of which.
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Ended::Lost(error.kind())),
        }
    }
}

/// Writes what is in the queue, and the end when there will be no more.
async fn write(
    mut input: ChildStdin,
    mut messages: mpsc::Receiver<Encoded>,
    queued: &AtomicUsize,
) -> std::io::Result<()> {
    while let Some(mut message) = messages.recv().await {
        let bytes = message.remaining();
        let written = input.write_all_buf(&mut message).await;
        queued.fetch_sub(bytes, Ordering::Relaxed);
        written?;
    }
    if let Ok(mut end) = ToEncoder::End.encode() {
        input.write_all_buf(&mut end).await?;
    }
    Ok(())
}

async fn tell(mut output: ChildStderr, id: u32) {
    let tell = |line: &str, left_out: u64| match (line.is_empty(), left_out) {
        (false, 0) => warn!(encoder.id = id, "the encoder says: {line}"),
        (false, _) => warn!(encoder.id = id, left_out, "the encoder says: {line}"),
        (true, _) => warn!(encoder.id = id, left_out, "the encoder said more"),
    };
    let mut words = Words::new(Instant::now());
    let mut bytes = [0; WORDS_BYTES];
    while let Ok(count @ 1..) = output.read(&mut bytes).await {
        words.push(&bytes[..count], Instant::now(), tell);
    }
    words.end(Instant::now(), tell);
}
