//! Bits per second that one viewer's path carries.
//!
//! With transport-cc it is the delay-based half of Google Congestion Control, of whose parts in `rtc-interceptor` it is made.
//! They want to know when packets left and arrived; packets that left together they take as one, so they are told of
//! batches. What that is blind to is watched beside it (`queue.rs`). Without feedback of that kind it is what the loss in receiver
//! reports says.

use std::time::{Duration, Instant};

use rtc_interceptor::{LossController, OveruseDetector, PacketReport, RateController, SlopeEstimator};

use super::bursts::Bursts;
use super::departures::Departures;
use super::queue::{OVERRUN_WINDOW, Rates, StandingQueue};
use super::received::Received;
use super::remb::Remb;
use super::sent::Sent;
use crate::outbound::{Batch, Reception};
use crate::rtcp::{Status, TransportCc};

/// How long what transport-cc feedback said is good for.
const FEEDBACK_AGE_MAX: Duration = Duration::from_secs(3);
/// A round trip from a report is preferred for this long: feedback is held back by the receiver for a while that it
/// does not tell.
const REPORTED_RTT_AGE_MAX: Duration = Duration::from_secs(10);

/// For how long losses are counted before they are judged.
const LOSS_WINDOW: Duration = Duration::from_millis(500);
/// More than this share lost, so many times in succession, is no chance: a queue too short to be felt overflows. Nor is it one cut of the
/// line, of which is told at once.
const OVERFLOW: f64 = 1.0 / 3.0;
const OVERFLOWS: u32 = 2;

/// Bounds of an estimate, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Where it starts.
    pub initial: f64,
    pub min: f64,
    /// Twice the highest rung, say: what is sent is no evidence of more.
    pub max: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub bits_per_second: f64,
    /// What may be sent for a moment, of a keyframe.
    pub burst_bits_per_second: f64,
    /// A queue stands at the bottleneck; what comes out of it is all that may be sent meanwhile.
    pub is_queued: bool,
    /// `None` until the viewer has told something.
    pub rtt: Option<Duration>,
}

/// Packets that feedback told of.
struct Told {
    since: Instant,
    lost: usize,
    packets: usize,
}

/// What one feedback tells of packets that left together.
#[derive(Debug, Clone, Copy)]
struct Group {
    departure: Instant,
    bytes: usize,
    /// By the receiver's clock.
    earliest: Duration,
    latest: Duration,
}

/// One viewer's.
pub struct Estimator {
    departures: Departures,
    slope: SlopeEstimator,
    overuse: OveruseDetector,
    by_delay: RateController,
    sent: Sent,
    received: Received,
    queue: StandingQueue,
    bursts: Bursts,
    told: Option<Told>,
    /// How often more than [`OVERFLOW`] was lost, last.
    overflows: u32,
    /// By feedback of single packets; the other by reports, for who gives no such feedback.
    feedback_loss: LossController,
    loss: LossController,
    min: f64,
    max: f64,
    feedback_at: Option<Instant>,
    remb: Remb,
    reported_rtt: Option<(Instant, Duration)>,
    feedback_rtt: Option<Duration>,
}

impl Estimator {
    pub fn new(limits: Limits, now: Instant) -> Self {
        let Limits { initial, min, max } = limits;
        Self {
            departures: Departures::default(),
            slope: SlopeEstimator::new(),
            overuse: OveruseDetector::new(),
            by_delay: RateController::new(initial, min, max),
            sent: Sent::new(now),
            received: Received::default(),
            queue: StandingQueue::new(now),
            bursts: Bursts::new(now),
            told: None,
            overflows: 0,
            feedback_loss: LossController::new(initial, min, max),
            loss: LossController::new(initial, min, max),
            min,
            max,
            feedback_at: None,
            remb: Remb::default(),
            reported_rtt: None,
            feedback_rtt: None,
        }
    }

    /// `batch` left now. For feedback it counts only if transport-cc numbers its packets.
    pub fn sent(&mut self, batch: &Batch<'_>, now: Instant) {
        self.sent.add(batch.bytes.len(), now);
        if let Some(first) = batch.transport_sequence {
            self.departures.push(first, batch.packets, batch.segment, batch.bytes.len(), now);
        }
    }

    /// The viewer tells when packets arrived. Returns how much later than at best the latest of them did.
    pub fn feedback(&mut self, feedback: &TransportCc<'_>, now: Instant) -> Duration {
        let Some(base) = self.departures.number(feedback.base()) else { return Duration::ZERO };
        let (mut lost, mut packets, mut bytes, mut latest) = (0, 0, 0, None);
        let (mut open, mut delays): (Option<Group>, Option<[f64; 2]>) = (None, None);
        for (number, status) in (base..).zip(feedback.statuses()) {
            // What was told of before has been counted, as lost if it came late.
            let Some(batch) = self.departures.tell(number) else { continue };
            packets += 1;
            let Status::Arrived(arrival) = status else {
                lost += 1;
                continue;
            };
            self.feedback_rtt = Some(now.saturating_duration_since(batch.at));
            bytes += batch.bytes(number);
            let Some(arrival) = arrival else { continue };
            latest = latest.max(Some(arrival));
            match &mut open {
                Some(group) if group.departure == batch.at => {
                    group.bytes += batch.bytes(number);
                    group.earliest = group.earliest.min(arrival);
                    group.latest = group.latest.max(arrival);
                }
                _ => {
                    let bytes = batch.bytes(number);
                    let next = Group { departure: batch.at, bytes, earliest: arrival, latest: arrival };
                    if let Some(group) = open.replace(next) {
                        self.group(group, &mut delays);
                    }
                }
            }
        }
        if packets == 0 {
            return Duration::ZERO;
        }
        if let Some(group) = open {
            self.group(group, &mut delays);
        }
        self.feedback_at = Some(now);
        if let Some(latest) = latest {
            self.received.add(latest, bytes);
        }
        let rates = Rates {
            received: self.received.bits_per_second(),
            received_last: self.received.bits_per_second_in(OVERRUN_WINDOW),
            sent: self.sent.bits_per_second(now),
        };
        self.by_delay.update(now, self.overuse.usage(), rates.received);
        self.count_losses(lost, packets, now);
        let late = delays.map(|delays| self.queue.on_feedback(now, delays, rates));
        self.bursts.arrived(late.unwrap_or_default(), now);
        late.unwrap_or_default()
    }

    /// `delays` are the least and the most of the feedback.
    fn group(&mut self, group: Group, delays: &mut Option<[f64; 2]>) {
        let trend = self.slope.accumulate(&PacketReport {
            ssrc: 0,
            id: 0,
            rtp_sequence_number: 0,
            is_twcc: true,
            twcc_sequence_number: 0,
            size: group.bytes,
            arrived: true,
            departure: group.departure,
            arrival: Some(group.latest),
            ecn: Default::default(),
        });
        if let Some(trend) = trend {
            self.overuse.update(trend.at, trend.estimate_ms);
        }
        let [earliest, latest] =
            [group.earliest, group.latest].map(|arrival| self.queue.delay(group.departure, arrival));
        let [least, most] = delays.get_or_insert([earliest, latest]);
        (*least, *most) = (least.min(earliest), most.max(latest));
    }

    /// Of some packets one lost is many, and the controller goes back up only where next to none is.
    fn count_losses(&mut self, lost: usize, packets: usize, now: Instant) {
        let since = self.told.get_or_insert(Told { since: now, lost: 0, packets: 0 });
        since.lost += lost;
        since.packets += packets;
        if now.saturating_duration_since(since.since) >= LOSS_WINDOW {
            self.feedback_loss.update(now, since.lost, since.packets);
            let overflows = since.lost as f64 > since.packets as f64 * OVERFLOW;
            self.told = None;
            self.overflows = if overflows { self.overflows + 1 } else { 0 };
            if self.overflows >= OVERFLOWS
                && let Some(received) = self.received.bits_per_second()
            {
                self.queue.on_losses(received, now);
            }
        }
    }

    /// The viewer's own estimate: no more than it says, where that is more than an echo.
    pub fn remb(&mut self, bits_per_second: f64, now: Instant) {
        if bits_per_second.is_finite() && bits_per_second >= 0.0 {
            self.remb.told(bits_per_second, self.sent.bits_per_second(now), now);
        }
    }

    /// A receiver report about the video line.
    pub fn reception(&mut self, reception: Reception, now: Instant) {
        if let Some(rtt) = reception.rtt {
            self.reported_rtt = Some((now, rtt));
        }
        // In 256ths, as reports have it.
        let lost = (reception.fraction_lost * 256.0) as usize;
        self.loss.update(now, lost, 256);
    }

    pub fn estimate(&self, now: Instant) -> Estimate {
        let is_fresh = |at: Instant, age_max| now.saturating_duration_since(at) <= age_max;
        // The controller takes the time that a large keyframe needs for a path that is overrun, and goes down to a part of what
        // was received, which is no more than what was sent. A path that carried it and has no queue carries it.
        let by_delay = self.by_delay.target().max(self.queue.carried().min(self.max));
        let by_feedback = by_delay.min(self.feedback_loss.target()).min(self.queue.limit());
        let own = match self.feedback_at {
            None => self.loss.target(),
            Some(at) if is_fresh(at, FEEDBACK_AGE_MAX) => by_feedback,
            // A viewer that told and now does not: nothing arrives, or nothing comes back. No reason to send more.
            Some(_) => by_feedback.min(self.loss.target()),
        };
        let reported = self.reported_rtt.filter(|(at, _)| is_fresh(*at, REPORTED_RTT_AGE_MAX));
        // A path that carried nothing would not have told.
        let bits_per_second = self.remb.limit(now).map_or(own, |limit| own.min(limit)).max(self.min);
        let is_queued = self.queue.is_full();
        let carried = self.received.bits_per_second_in(OVERRUN_WINDOW).filter(|_| is_queued);
        Estimate {
            bits_per_second,
            burst_bits_per_second: carried
                .map_or(bits_per_second * self.bursts.factor(), |carried| carried.min(bits_per_second)),
            is_queued,
            rtt: reported.map(|(_, rtt)| rtt).or(self.feedback_rtt),
        }
    }
}

#[cfg(test)]
mod tests;
