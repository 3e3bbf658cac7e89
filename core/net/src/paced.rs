//! A byte stream that fails with [`TooSlow`] when its peer takes too long.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::pace::{HEAD_TIME_MAX, Patience, TooSlow};

/// Which request a connection is at: tells the stream below the HTTP server when a head is being waited for. One
/// request at a time, as HTTP/1.1 has it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Requests {
    /// A request's head is complete; the time until [`Requests::end`] is ours, not the peer's.
    pub fn begin(&self) {
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is decided. What is read from now on belongs to the next request.
    pub fn end(&self) {
        self.counts.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// No request has come on this connection.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.counts.begun.load(Ordering::Relaxed) == 0
    }

    /// The number of the request whose head is waited for.
    fn awaited(&self) -> Option<u64> {
        let ended = self.counts.ended.load(Ordering::Relaxed);
        (self.counts.begun.load(Ordering::Relaxed) == ended).then_some(ended)
    }
}

/// An answer's head and a playlist.
const JOINED_BYTES_MAX: usize = 4_096;

thread_local! {
    /// Of one write; kept, so that it is not cleared or allocated for each.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// `io` with patience: [`TooSlow`] for whoever takes too long, and the end of the stream for whoever is idle.
#[derive(Debug)]
pub struct Paced<IO> {
    io: IO,
    requests: Requests,
    idle_time_max: Duration,
    head: Option<Head>,
    /// When the peer last took something, or came.
    active: Instant,
    patience: Patience,
    /// Made when first needed: most connections never wait for their peer.
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

/// A head of which something has come.
#[derive(Debug, Clone, Copy)]
struct Head {
    request: u64,
    deadline: Instant,
}

impl<IO> Paced<IO> {
    /// `idle_time_max`: between the last byte of an answer and the first of the next request.
    pub fn new(io: IO, requests: Requests, idle_time_max: Duration) -> Self {
        Self {
            io,
            requests,
            idle_time_max,
            head: None,
            active: Instant::now(),
            patience: Patience::new(),
            read_timer: None,
            write_timer: None,
        }
    }

    /// Until when to wait for more of a request, and what it means if nothing comes. `None` while the peer waits for us.
    /// `read_at`: when something was read just now.
    fn read_deadline(&mut self, read_at: Option<Instant>) -> Option<(Instant, Result<(), TooSlow>)> {
        let Some(request) = self.requests.awaited() else {
            self.head = None;
            return None;
        };
        self.head = self.head.filter(|head| head.request == request);
        if self.head.is_none()
            && let Some(read_at) = read_at
        {
            self.head = Some(Head { request, deadline: read_at + HEAD_TIME_MAX });
        }
        match self.head {
            Some(head) => Some((head.deadline, Err(TooSlow::Head))),
            // It still takes the last answer.
            None if self.patience.is_blocked() => None,
            None => Some((self.active + self.idle_time_max, Ok(()))),
        }
    }

    fn wrote(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.active = Instant::now();
                self.patience.took(bytes, self.active.into_std()).map_err(error)?;
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let deadline = self.patience.blocked(Instant::now().into_std());
                ready!(poll_until(&mut self.write_timer, deadline.into(), context));
                return Poll::Ready(Err(error(TooSlow::Body)));
            }
        }
        written
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        let now = read.is_ready().then(Instant::now);
        let read_at = now.filter(|_| buffer.filled().len() > before);
        match (this.read_deadline(read_at), now) {
            // Also when something was read, or dripping bytes would win time.
            (Some((deadline, meaning)), Some(now)) if now >= deadline => Poll::Ready(meaning.map_err(error)),
            (Some((deadline, meaning)), None) => {
                ready!(poll_until(&mut this.read_timer, deadline, context));
                Poll::Ready(meaning.map_err(error))
            }
            (None, None) => {
                // hyper reads before it answers, and not when it has answered: the timer makes it look again.
                let idle_time_max = this.idle_time_max;
                let timer = this.read_timer.get_or_insert_with(|| Box::pin(sleep(idle_time_max)));
                while timer.as_mut().poll(context).is_ready() {
                    timer.as_mut().reset(Instant::now() + idle_time_max);
                }
                Poll::Pending
            }
            (_, Some(_)) => read,
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Paced<IO> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.wrote(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let in_one_piece = JOINED.with_borrow_mut(|joined| {
            join(slices, joined).then(|| Pin::new(&mut this.io).poll_write(context, joined))
        });
        let written =
            in_one_piece.unwrap_or_else(|| Pin::new(&mut this.io).poll_write_vectored(context, slices));
        this.wrote(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

/// What is small in one piece: copying it costs less than writev(2) costs more than send(2). False if it is not small.
fn join(slices: &[io::IoSlice<'_>], joined: &mut Vec<u8>) -> bool {
    joined.clear();
    slices.iter().all(|slice| {
        let fits = joined.len() + slice.len() <= JOINED_BYTES_MAX;
        if fits {
            joined.extend_from_slice(slice);
        }
        fits
    })
}

/// A deadline that has moved on is looked at when the timer fires: setting it anew with each request costs more.
fn poll_until(timer: &mut Option<Pin<Box<Sleep>>>, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
    if timer.deadline() > deadline {
        timer.as_mut().reset(deadline);
    }
    loop {
        ready!(timer.as_mut().poll(context));
        if timer.deadline() >= deadline {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline);
    }
}

fn error(slow: TooSlow) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, slow)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const IDLE: Duration = Duration::from_secs(15);

    fn pair() -> (Paced<DuplexStream>, Requests, DuplexStream) {
        let (ours, theirs) = duplex(1_024);
        let requests = Requests::default();
        (Paced::new(ours, requests.clone(), IDLE), requests, theirs)
    }

    fn reason(error: &io::Error) -> Option<TooSlow> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Threat 13: a head that never ends, a byte at a time.
    #[tokio::test(start_paused = true)]
    async fn a_head_has_five_seconds_from_its_first_byte() {
        let (mut ours, requests, mut theirs) = pair();
        let mut byte = [0];
        // Idle is not slow.
        assert!(timeout(14 * SECOND, ours.read(&mut byte)).await.is_err());
        for drip in 0..5 {
            theirs.write_all(b"G").await.unwrap();
            assert_eq!(ours.read(&mut byte).await.unwrap(), 1, "{drip}");
            advance(SECOND).await;
        }
        theirs.write_all(b"G").await.unwrap();
        assert_eq!(reason(&ours.read(&mut byte).await.unwrap_err()), Some(TooSlow::Head));

        let (mut ours, _, mut theirs) = pair();
        theirs.write_all(b"G").await.unwrap();
        ours.read_exact(&mut byte).await.unwrap();
        let start = Instant::now();
        assert_eq!(reason(&ours.read(&mut byte).await.unwrap_err()), Some(TooSlow::Head));
        assert_eq!(start.elapsed(), HEAD_TIME_MAX);
        drop(requests);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_we_hold_is_not_slow_and_the_next_has_its_own_time() {
        let (mut ours, requests, mut theirs) = pair();
        let mut byte = [0];
        theirs.write_all(b"G").await.unwrap();
        ours.read_exact(&mut byte).await.unwrap();
        requests.begin();
        assert!(timeout(100 * SECOND, ours.read(&mut byte)).await.is_err());
        ours.write_all(b"answer").await.unwrap();
        requests.end();
        assert!(timeout(14 * SECOND, ours.read(&mut byte)).await.is_err());
        // Answered between two reads.
        theirs.write_all(b"G").await.unwrap();
        ours.read_exact(&mut byte).await.unwrap();
        requests.begin();
        requests.end();
        advance(4 * SECOND).await;
        theirs.write_all(b"G").await.unwrap();
        ours.read_exact(&mut byte).await.unwrap();
        advance(4 * SECOND).await;
        theirs.write_all(b"G").await.unwrap();
        assert_eq!(ours.read(&mut byte).await.unwrap(), 1);
    }

    #[test]
    fn what_is_small_goes_out_in_one_piece() {
        let (head, body) = ([b'h'; 100], [b'b'; JOINED_BYTES_MAX]);
        let mut joined = Vec::new();
        let fits = [io::IoSlice::new(&head), io::IoSlice::new(&body[..JOINED_BYTES_MAX - 100])];
        assert!(join(&fits, &mut joined));
        assert!(joined.len() == JOINED_BYTES_MAX && joined.starts_with(&head) && joined.ends_with(b"bb"));
        let one_more = [io::IoSlice::new(&head), io::IoSlice::new(&body[..JOINED_BYTES_MAX - 99])];
        assert!(!join(&one_more, &mut joined));
        // Nothing is left of what was written before.
        assert!(join(&[], &mut joined) && joined.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_peer_is_at_its_end() {
        let (mut ours, _, _theirs) = pair();
        let start = Instant::now();
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(start.elapsed(), IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_an_error() {
        let (mut ours, _, _theirs) = pair();
        let start = Instant::now();
        let error = ours.write_all(&[0; 4_096]).await.unwrap_err();
        assert_eq!(reason(&error), Some(TooSlow::Body));
        assert!(start.elapsed() >= 15 * SECOND);
    }
}
