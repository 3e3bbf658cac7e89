//! Between the pipes of a child that another node lends, and the connection to that node.

use std::io;

use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::{Ended, lost};
use crate::workers::Taking;

/// Until either side closes.
pub(super) async fn carry(taking: Taking, mut input: Receiver, mut output: Sender) -> Ended {
    let connection = match taking.await {
        Ok(connection) => connection,
        Err(refusal) => return refusal.into(),
    };
    let (mut from, mut to) = split(connection);
    let there = async {
        copy(&mut input, &mut to).await?;
        to.flush().await
    };
    let back = async { copy(&mut from, &mut output).await.map(drop) };
    tokio::pin!(there, back);
    let carried: io::Result<Ended> = tokio::select! {
        biased;
        closed = &mut back => closed.map(|()| Ended::Closed),
        // All was said: what comes of it comes yet.
        done = &mut there => match done {
            Ok(()) => back.await.map(|()| Ended::Finished),
            Err(error) => Err(error),
        },
    };
    carried.unwrap_or_else(lost)
}
