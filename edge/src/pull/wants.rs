//! What viewers here want, told to the upstream: keyframes, of the publisher's or of rungs, and the tracks that are made on demand
//! only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use media::TrackId;
use relay::wire::{Hops, WEBRTC, Wants};
use relay::{LINGER, Stream, Wanted};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::debug;

use super::Shared;
use super::upstreams::Source;

/// However many viewers want a keyframe, the upstream hears of it once in a second: no publisher is asked for more.
const KEYFRAME_EVERY: Duration = Duration::from_secs(1);

/// What is on demand is wanted again so often. An upstream that restarted knows of it after that, and one that is silent after some
/// seconds more.
const REPEAT_EVERY: Duration = Duration::from_secs(2);

/// Viewers who come and go make no more requests than that.
const PAUSE: Duration = Duration::from_millis(250);

/// Of whatever is copied of `source`. Never returns; dropped with the pull.
pub(super) async fn forward(shared: Arc<Shared>, source: Source, hops: Hops) {
    let (mut streams, id) = (shared.streams.watch(), source.id());
    loop {
        let found = streams.wait_for(|streams| streams.contains_key(id)).await;
        let Some(stream) = found.ok().and_then(|streams| streams.get(id).cloned()) else {
            return std::future::pending().await;
        };
        let mut record = stream.record();
        let ended = async { while record.changed().await.is_ok() {} };
        let tell = Tell { shared: &shared, source: &source, stream: &stream, hops: &hops };
        tokio::select! {
            () = ended => {}
            () = tell.keyframes() => {}
            () = tell.rung_keyframes() => {}
            () = tell.tracks() => {}
        }
    }
}

struct Tell<'a> {
    shared: &'a Shared,
    source: &'a Source,
    stream: &'a Stream,
    hops: &'a Hops,
}

impl Tell<'_> {
    async fn keyframes(&self) {
        loop {
            self.stream.keyframe_wanted().await;
            self.tell(Wants { keyframe: true, ..Wants::default() }).await;
            sleep(KEYFRAME_EVERY).await;
        }
    }

    async fn rung_keyframes(&self) {
        loop {
            self.stream.rung_keyframe_wanted().await;
            self.tell(Wants { rung_keyframe: true, ..Wants::default() }).await;
            sleep(KEYFRAME_EVERY).await;
        }
    }

    async fn tracks(&self) {
        let tracks = self.stream.tracks().iter();
        let on_demand =
            tracks.filter(|track| track.record().derived.is_some_and(|derived| derived.on_demand));
        let on_demand: Vec<_> = on_demand.collect();
        // All tracks of a stream are woken together.
        let Some(any) = on_demand.first() else { return std::future::pending().await };
        loop {
            let woken = any.demand().woken();
            let now = Instant::now();
            let wanted = on_demand.iter().filter(|track| is_wanted(track.demand().look(now), now));
            let wanted: Vec<TrackId> = wanted.map(|track| track.record().id).collect();
            if !wanted.is_empty() {
                self.tell(Wants { tracks: wanted, ..Wants::default() }).await;
                sleep(PAUSE).await;
            }
            tokio::select! {
                () = woken => {}
                () = sleep(REPEAT_EVERY) => {}
            }
        }
    }

    /// In vain while the upstream is lost: it is told again.
    async fn tell(&self, wants: Wants) {
        tell(self.shared, self.source, &wants, self.hops).await;
    }
}

/// That somebody watches in parts what this node subscribed to without wanting anything itself. Never returns; dropped with the
/// pull.
pub(super) async fn forward_parts(shared: Arc<Shared>, source: Source, hops: Hops) {
    let mut look = interval(PAUSE);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if shared.catalog.get(source.id()).is_some_and(|index| index.is_watched()) {
            tell(&shared, &source, &Wants { parts: true, ..Wants::default() }, &hops).await;
            sleep(REPEAT_EVERY).await;
        }
    }
}

async fn tell(shared: &Shared, source: &Source, wants: &Wants, hops: &Hops) {
    shared.metrics.wants.inc();
    if let Err(error) = source.tell(&format!("{WEBRTC}/{}?{wants}", source.id()), hops).await {
        debug!("the upstream was not told what is wanted: {error}");
    }
}

/// Who touched a track lately may be a node below that tells us again and again. What lingers here after the last sign of
/// anybody lingers at the upstream as well, and not one after the other.
fn is_wanted(wanted: Wanted, now: Instant) -> bool {
    match wanted {
        Wanted::No => false,
        Wanted::Held => true,
        Wanted::Until(until) => until + REPEAT_EVERY * 2 > now + LINGER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_is_wanted_of_the_upstream_while_somebody_says_so_and_not_while_it_lingers() {
        let touched = Instant::now();
        let wanted = |after: Duration| is_wanted(Wanted::Until(touched + LINGER), touched + after);
        assert!(is_wanted(Wanted::Held, touched) && !is_wanted(Wanted::No, touched));
        assert!(wanted(Duration::ZERO) && wanted(REPEAT_EVERY));
        assert!(!wanted(REPEAT_EVERY * 2));
    }
}
