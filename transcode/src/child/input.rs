//! A child's standard input: a message goes into the pipe at once, and waits here only while the pipe is full.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use pipe::{Message, ToEncoder};
use tokio::net::unix::pipe::Sender;

use super::{QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, SendError};

#[derive(Debug)]
pub(super) struct Input {
    /// `None` once it is closed, by either side.
    pipe: Option<Sender>,
    /// A header and its unit; the first may be written in part.
    waiting: VecDeque<Chain<Bytes, Bytes>>,
    /// Those that wait, in bytes.
    bytes: usize,
    /// Nothing follows those that wait.
    is_last: bool,
}

impl Input {
    pub(super) fn new(pipe: Sender) -> Self {
        Self { pipe: Some(pipe), waiting: VecDeque::new(), bytes: 0, is_last: false }
    }

    pub(super) fn waiting(&self) -> usize {
        self.bytes
    }

    /// Never waits, and copies no unit.
    pub(super) fn send(&mut self, message: &ToEncoder) -> Result<(), SendError> {
        if self.pipe.is_none() || self.is_last {
            return Err(SendError::Ended);
        }
        let message = message.encode()?;
        let bytes = self.bytes + message.remaining();
        if self.waiting.len() == QUEUE_MESSAGES_MAX || bytes > QUEUE_BYTES_MAX {
            return Err(SendError::Full);
        }
        self.push(message);
        match self.pipe {
            Some(_) => Ok(()),
            None => Err(SendError::Ended),
        }
    }

    /// Tells the child that this was all.
    pub(super) fn end(&mut self) {
        if !std::mem::replace(&mut self.is_last, true)
            && let Ok(end) = ToEncoder::End.encode()
        {
            self.push(end);
        }
    }

    /// Returns when there is something to [`flush`](Self::flush), and the pipe takes it.
    pub(super) async fn writable(&self) {
        match &self.pipe {
            Some(pipe) if !self.waiting.is_empty() => {
                // A pipe that is broken takes what it is given, and says so then.
                let _broken = pipe.writable().await;
            }
            _ => std::future::pending().await,
        }
    }

    pub(super) fn flush(&mut self) {
        while let (Some(pipe), Some(first)) = (&self.pipe, self.waiting.front_mut()) {
            let mut slices = [IoSlice::new(&[]); 2];
            let count = first.chunks_vectored(&mut slices);
            match pipe.try_write_vectored(&slices[..count]) {
                Ok(written) => {
                    first.advance(written);
                    self.bytes -= written;
                    if !first.has_remaining() {
                        self.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The child closed it, or is gone, which its output says.
                Err(_) => return self.close(),
            }
        }
        if self.is_last {
            self.close();
        }
    }

    fn push(&mut self, message: Chain<Bytes, Bytes>) {
        self.bytes += message.remaining();
        self.waiting.push_back(message);
        if self.waiting.len() == 1 {
            self.flush();
        }
    }

    /// Nothing goes to the child any more, not even what waits.
    pub(super) fn close(&mut self) {
        self.pipe = None;
        self.waiting.clear();
        self.bytes = 0;
    }
}
