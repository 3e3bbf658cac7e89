//! The task of one pulled stream: subscribes, applies, and subscribes again after a break, until nobody watches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::StatusCode;
use relay::wire::{Hops, Message};
use relay::{Lost, Subscription, UpstreamError};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Instrument, info, info_span, warn};

use super::Shared;
use super::pulls::{Phase, Pull, Pulls};
use super::upstreams::Failure;

/// The first pause after a break; doubled from time to time, and each drawn between half and one and a half of it, so
/// that the children of a node that fell do not come back all at once.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often the audience is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How one subscription ended.
enum Ended {
    /// The stream is over.
    Over,
    /// Nobody watches, or the node drains.
    LetGo,
    /// Subscribe again where it broke off.
    Lost(Failure),
    /// Subscribe again, from the beginning.
    Unusable,
    /// Another node is to be read.
    Elsewhere,
}

/// What is made of the messages of an upstream.
pub(super) trait Follow: Send + 'static {
    type Error: fmt::Display + Send;

    /// Where it is subscribed to, below the wire's prefix.
    fn path(&self) -> String;

    /// Where to go on, if there is anything here.
    fn resume(&self) -> Option<impl fmt::Display + Send + Sync>;

    /// There is something here to be served.
    fn is_open(&self) -> bool;

    /// # Errors
    /// If the other node is broken; the subscription ends.
    fn apply(&mut self, message: Message) -> Result<Step, Self::Error>;

    /// The upstream is gone, and may come back.
    fn lost(&mut self);

    /// Whether it ends, after the upstream was lost for so long, or if that does not have it any more.
    fn is_given_up(&self, lost_for: Duration, is_absent: bool) -> bool;

    /// Leaves what is here, so that nobody finds it any more.
    fn let_go(&mut self);

    /// EXT-X-TARGETDURATION, once it is announced.
    fn target_duration_s(&self) -> Option<u32> {
        None
    }
}

/// What a message was for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    More,
    /// The stream can be served.
    Ready,
    /// The session has ended.
    Over,
    /// The node has yet to hear that its publisher is another's by now: another one is better asked.
    Behind,
}

/// `pulls`: which of the lists of `shared` it is in.
pub(super) async fn run<F: Follow>(
    shared: Arc<Shared>,
    pulls: fn(&Shared) -> &Pulls,
    pull: Arc<Pull>,
    mut copy: F,
    hops: Hops,
) {
    let span = info_span!("pull", stream.id = %pull.id());
    let phase = follow(&shared, &pull, &mut copy, hops).instrument(span).await;
    if phase != Phase::LetGo {
        pulls(&shared).remember_absent(pull.id());
    }
    copy.let_go();
    pulls(&shared).remove(&pull);
    // Whoever still waits was cold to the last.
    if pull.phase.send_replace(phase) == Phase::Cold {
        shared.cold.fetch_sub(1, Ordering::AcqRel);
    }
    shared.metrics.pulls.dec();
}

/// Returns how it ended.
async fn follow<F: Follow>(shared: &Shared, pull: &Pull, copy: &mut F, hops: Hops) -> Phase {
    let path = copy.path();
    let (mut pause, mut resumable) = (PAUSE_MIN, true);
    // Once, before a subscription has lasted.
    let mut may_hurry = true;
    loop {
        let resume = copy.resume().filter(|_| resumable).map(|resume| resume.to_string());
        shared.metrics.subscriptions.inc();
        let subscribe = pull.source.subscribe(&path, resume.as_deref(), &hops);
        let subscribed = tokio::select! {
            subscribed = subscribe => subscribed,
            () = shared.drain.cancelled() => return Phase::LetGo,
        };
        let mut is_absent = false;
        match subscribed {
            Ok((upstream, subscription)) => {
                let since = Instant::now();
                let reading = read(shared, pull, copy, subscription);
                let ended = tokio::select! {
                    ended = reading => ended,
                    () = pull.source.left(&upstream) => {
                        info!("it is to be read from another node than {} now", upstream.url());
                        Ended::Elsewhere
                    }
                };
                pull.source.unsubscribed();
                // Told before it is asked for again, for all that is read from there.
                let is_elsewhere = match ended {
                    Ended::Over => return Phase::Over,
                    Ended::LetGo => return Phase::LetGo,
                    Ended::Elsewhere => true,
                    Ended::Lost(failure) => pull.source.failed(&upstream, failure),
                    Ended::Unusable => false,
                };
                resumable = !matches!(ended, Ended::Unusable);
                shared.metrics.reconnects.inc();
                if since.elapsed() > PAUSE_MAX {
                    (pause, may_hurry) = (PAUSE_MIN, true);
                }
                // For viewers nothing has happened.
                if is_elsewhere && std::mem::replace(&mut may_hurry, false) {
                    continue;
                }
            }
            Err(UpstreamError::NotFound) if !copy.is_open() => return Phase::Absent,
            Err(error @ UpstreamError::Loop(_)) => {
                warn!("{error}");
                return Phase::Absent;
            }
            Err(error) => {
                if let Some(more) = shared.failures.pass(Instant::now()) {
                    warn!(more, "{error}");
                }
                // An origin that has lost who publishes it itself may have it again in a moment.
                let is_settled = matches!(error, UpstreamError::Refused { status, .. } if status != StatusCode::SERVICE_UNAVAILABLE);
                if is_settled && !copy.is_open() {
                    return Phase::Absent;
                }
                is_absent = matches!(error, UpstreamError::NotFound);
            }
        }
        let lost = pull.set_lost();
        copy.lost();
        if copy.is_given_up(lost.elapsed(), is_absent) {
            return Phase::Over;
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = shared.drain.cancelled() => return Phase::LetGo,
        }
        pause = (pause * 2).min(PAUSE_MAX);
        if pull.close_if_unwatched() {
            return Phase::LetGo;
        }
    }
}

async fn read<F: Follow>(
    shared: &Shared,
    pull: &Pull,
    copy: &mut F,
    mut subscription: Subscription,
) -> Ended {
    // What an index lists can be found only when it is complete.
    let mut is_indexed = false;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = subscription.next() => message,
            _ = look.tick() => match pull.close_if_unwatched() {
                true => return Ended::LetGo,
                false => continue,
            },
            () = shared.drain.cancelled() => return Ended::LetGo,
        };
        let message = match message {
            Ok(message) => message,
            Err(lost) => {
                info!("the upstream is lost: {lost}");
                let is_told = matches!(lost, Lost::Closed);
                return Ended::Lost(if is_told { Failure::OfStream } else { Failure::OfNode });
            }
        };
        let mut is_bodiless = false;
        if let Message::Part { part, .. } = &message {
            shared.metrics.received.inc();
            is_bodiless = part.body.is_none();
        }
        match copy.apply(message) {
            Ok(Step::More) if is_indexed && is_bodiless => pull.set_listed(),
            Ok(Step::More) => {}
            Ok(Step::Ready) => {
                is_indexed = true;
                pull.set_listed();
                pull.set_found();
                if pull.phase.send_replace(Phase::Ready) == Phase::Cold {
                    shared.cold.fetch_sub(1, Ordering::AcqRel);
                }
            }
            Ok(Step::Over) => return Ended::Over,
            Ok(Step::Behind) => {
                info!("the upstream has the stream of a publisher before the one that is known here");
                return Ended::Lost(Failure::OfStream);
            }
            Err(error) => {
                warn!("the upstream's stream cannot be followed, it is read anew: {error}");
                return Ended::Unusable;
            }
        }
        if let Some(target_duration_s) = copy.target_duration_s() {
            pull.target_duration_s.store(target_duration_s, Ordering::Relaxed);
        }
    }
}

/// Between half and one and a half of `pause`.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random numbers from the system all wait alike, which is no worse than no jitter.
    let _ = getrandom::fill(&mut random);
    pause / 2 + pause * u32::from(random[0]) / 255
}
