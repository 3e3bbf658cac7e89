//! The task of one pulled stream: subscribes, applies, and subscribes again after a break, until nobody watches.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use relay::wire::Hops;
use relay::{Subscription, UpstreamError};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Instrument, info, info_span, warn};

use super::mirror::{Mirror, Step};
use super::{Phase, Pull, Shared};

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
    /// Subscribe again, with a resume or without.
    Broken { resumable: bool },
}

pub(super) async fn run(shared: Arc<Shared>, pull: Arc<Pull>, hops: Hops) {
    let span = info_span!("pull", stream.id = %pull.id);
    let mut mirror = Mirror::new(
        pull.id.clone(),
        shared.catalog.clone(),
        shared.upstream.clone(),
        shared.metrics.bodies.clone(),
    );
    let phase = follow(&shared, &pull, &mut mirror, hops).instrument(span).await;
    if phase != Phase::LetGo {
        shared.remember_absent(&pull.id);
    }
    mirror.let_go();
    shared.remove(&pull);
    // Whoever still waits was cold to the last.
    if pull.phase.send_replace(phase) == Phase::Cold {
        shared.cold.fetch_sub(1, Ordering::AcqRel);
    }
    shared.metrics.pulls.dec();
}

/// Returns how it ended.
async fn follow(shared: &Shared, pull: &Pull, mirror: &mut Mirror, hops: Hops) -> Phase {
    let (mut pause, mut resumable) = (PAUSE_MIN, true);
    loop {
        let resume = mirror.resume().filter(|_| resumable);
        shared.metrics.subscriptions.inc();
        let subscribed = tokio::select! {
            subscribed = shared.upstream.subscribe(&pull.id, resume.as_ref(), hops.clone()) => subscribed,
            () = shared.drain.cancelled() => return Phase::LetGo,
        };
        match subscribed {
            Ok(subscription) => {
                let since = Instant::now();
                match read(shared, pull, mirror, subscription).await {
                    Ended::Over => return Phase::Over,
                    Ended::LetGo => return Phase::LetGo,
                    Ended::Broken { resumable: yes } => resumable = yes,
                }
                shared.metrics.reconnects.inc();
                if since.elapsed() > PAUSE_MAX {
                    pause = PAUSE_MIN;
                }
            }
            Err(UpstreamError::NotFound) if !mirror.is_open() => return Phase::Absent,
            Err(error @ UpstreamError::Loop(_)) => {
                warn!("{error}");
                return Phase::Absent;
            }
            Err(error) => {
                if let Some(more) = shared.failures.pass(Instant::now()) {
                    warn!(more, "{error}");
                }
                if matches!(error, UpstreamError::Refused { .. }) && !mirror.is_open() {
                    return Phase::Absent;
                }
            }
        }
        pull.set_lost(Some(Instant::now()));
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

async fn read(shared: &Shared, pull: &Pull, mirror: &mut Mirror, mut subscription: Subscription) -> Ended {
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
                return Ended::Broken { resumable: true };
            }
        };
        if matches!(message, relay::wire::Message::Part { .. }) {
            shared.metrics.received.inc();
        }
        match mirror.apply(message) {
            Ok(Step::More) => {}
            Ok(Step::Ready) => {
                pull.set_lost(None);
                if pull.phase.send_replace(Phase::Ready) == Phase::Cold {
                    shared.cold.fetch_sub(1, Ordering::AcqRel);
                }
            }
            Ok(Step::Over) => return Ended::Over,
            Err(error) => {
                warn!("the upstream's stream cannot be followed, it is read anew: {error}");
                return Ended::Broken { resumable: false };
            }
        }
        if let Some(target_duration_s) = mirror.target_duration_s() {
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
