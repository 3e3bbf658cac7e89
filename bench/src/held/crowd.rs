//! Viewers who hold a blocking reload each, and ask for the next part the moment they have one. All share a thread.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::client::{Client, address_of};
use crate::playlist;

/// MSN and number.
pub(crate) type Part = (u64, u64);

/// They leave when this is dropped.
pub(crate) struct Crowd {
    runtime: Runtime,
    viewers: JoinSet<Result<()>>,
    answers: Arc<Answers>,
}

/// How many were told of a part so far, and when the last of them was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) viewers: usize,
    pub(crate) last: Instant,
}

#[derive(Default)]
struct Answers(Mutex<HashMap<Part, Answered>>);

impl Crowd {
    /// Opens their connections one after the other; each then follows `playlist`.
    pub(crate) fn gather(server: SocketAddr, playlist: &str, viewers: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut this = Self { runtime, viewers: JoinSet::new(), answers: Arc::default() };
        let playlist: Arc<str> = playlist.into();
        for number in 0..viewers {
            let client = this.runtime.block_on(Client::open(server, address_of(number), None))?;
            let (playlist, answers) = (Arc::clone(&playlist), Arc::clone(&this.answers));
            this.viewers.spawn_on(follow(client, playlist, answers), this.runtime.handle());
        }
        Ok(this)
    }

    pub(crate) fn answered(&self, part: Part) -> Option<Answered> {
        self.answers.lock().get(&part).copied()
    }

    /// Fails if anybody left.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.viewers.try_join_next() {
            None => Ok(()),
            Some(ended) => {
                ended.context("a viewer panicked")??;
                bail!("a viewer was told that the stream is over");
            }
        }
    }
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Part, Answered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, part: Part) {
        let last = Instant::now();
        self.lock()
            .entry(part)
            .and_modify(|answered| *answered = Answered { viewers: answered.viewers + 1, last })
            .or_insert(Answered { viewers: 1, last });
    }
}

async fn follow(mut client: Client, playlist: Arc<str>, answers: Arc<Answers>) -> Result<()> {
    let mut text = client.get(&playlist).await?.text()?;
    while let Some((msn, part)) = playlist::hinted(&text) {
        let answer = client.get(&format!("{playlist}?_HLS_msn={msn}&_HLS_part={part}")).await?;
        ensure!(answer.status == 200, "part {msn}.{part}: status {}", answer.status);
        answers.note((msn, part));
        text = answer.text()?;
    }
    Ok(())
}
