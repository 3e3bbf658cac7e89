//! Bits per second that one viewer's path carries.
//!
//! With transport-cc it is Google Congestion Control as `rtc-interceptor` has it, which wants each packet's departure
//! beside its arrival. Its own send history keeps three hash maps with an entry per packet; ours keeps an entry per
//! batch. What it is blind to is watched beside it (`queue.rs`). Without feedback of that kind it is what the loss in receiver reports says.

use std::time::{Duration, Instant};

use rtc_interceptor::{BandwidthEstimator, Gcc, LossController, PacketReport, convert_twcc};
use rtc_rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, TransportLayerCc};

use super::bursts::Bursts;
use super::departures::Departures;
use super::queue::StandingQueue;
use super::remb::Remb;
use crate::outbound::{Batch, Reception};

/// How long what transport-cc feedback said is good for.
const FEEDBACK_AGE_MAX: Duration = Duration::from_secs(3);
/// A round trip from a report is preferred for this long: feedback is held back by the receiver for a while that it
/// does not tell.
const REPORTED_RTT_AGE_MAX: Duration = Duration::from_secs(10);
/// Most packets one feedback may tell of. Two bytes can claim 8191, so one datagram could keep us busy with millions;
/// browsers send four feedbacks a second or more, and this is four times 100 Mbit/s.
const FEEDBACK_PACKETS_MAX: usize = 2 * 1024;

/// For how long losses are counted before they are judged.
const LOSS_WINDOW: Duration = Duration::from_millis(500);

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
    /// `None` until the viewer has told something.
    pub rtt: Option<Duration>,
}

/// Packets that feedback told of.
struct Told {
    since: Instant,
    lost: usize,
    packets: usize,
}

/// One viewer's.
pub struct Estimator {
    departures: Departures,
    gcc: Gcc,
    queue: StandingQueue,
    bursts: Bursts,
    told: Option<Told>,
    /// By feedback of single packets; the other by reports, for who gives no such feedback.
    feedback_loss: LossController,
    loss: LossController,
    min: f64,
    max: f64,
    /// Number behind the newest packet that the receiver has told of.
    next_number: u64,
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
            gcc: Gcc::new(initial, min, max),
            queue: StandingQueue::new(now),
            bursts: Bursts::new(now),
            told: None,
            feedback_loss: LossController::new(initial, min, max),
            loss: LossController::new(initial, min, max),
            min,
            max,
            next_number: 0,
            feedback_at: None,
            remb: Remb::new(now),
            reported_rtt: None,
            feedback_rtt: None,
        }
    }

    /// `batch` left now. For feedback it counts only if transport-cc numbers its packets.
    pub fn sent(&mut self, batch: &Batch<'_>, now: Instant) {
        self.remb.sent(batch.bytes.len(), now);
        if let Some(first) = batch.transport_sequence {
            self.departures.push(first, batch.packets, batch.segment, batch.bytes.len(), now);
        }
    }

    /// The viewer tells when packets arrived. Returns how much later than at best the latest of them did.
    pub fn feedback(&mut self, feedback: &TransportLayerCc, now: Instant) -> Duration {
        let reports = self.reports(feedback, now);
        if reports.is_empty() {
            return Duration::ZERO;
        }
        self.feedback_at = Some(now);
        self.gcc.on_reports(now, &reports);
        self.count_losses(&reports, now);
        let late = self.queue.on_reports(now, &reports);
        self.bursts.arrived(late, now);
        late
    }

    /// What is new in it.
    fn reports(&mut self, feedback: &TransportLayerCc, now: Instant) -> Vec<PacketReport> {
        if claimed_packets(feedback) > FEEDBACK_PACKETS_MAX {
            return Vec::new();
        }
        let acknowledgements = convert_twcc(feedback);
        // Behind the newest arrival nothing is known yet: it may be on its way, or the last chunk has room for more
        // packets than the feedback tells of.
        let known = acknowledgements.iter().rposition(|ack| ack.arrived).map_or(0, |newest| newest + 1);

        // Not kept: what the first feedback of a viewer who has just joined tells of is thirty times the usual.
        let mut reports = Vec::with_capacity(known);
        for ack in acknowledgements.iter().take(known) {
            // What was told of before has been counted, as lost if it came late.
            let number = self.departures.number(ack.sequence_number);
            let Some(number) = number.filter(|&number| number >= self.next_number) else { continue };
            let Some(departed) = self.departures.find(number) else { continue };
            self.next_number = number + 1;
            if ack.arrived {
                self.feedback_rtt = Some(now.saturating_duration_since(departed.at));
            }
            reports.push(PacketReport {
                ssrc: 0,
                id: number,
                rtp_sequence_number: 0,
                is_twcc: true,
                twcc_sequence_number: ack.sequence_number,
                size: departed.bytes,
                arrived: ack.arrived,
                departure: departed.at,
                arrival: ack.arrival,
                ecn: ack.ecn,
            });
        }
        reports
    }

    /// Of some packets one lost is many, and the controller goes back up only where next to none is.
    fn count_losses(&mut self, reports: &[PacketReport], now: Instant) {
        let since = self.told.get_or_insert(Told { since: now, lost: 0, packets: 0 });
        since.lost += reports.iter().filter(|report| !report.arrived).count();
        since.packets += reports.len();
        if now.saturating_duration_since(since.since) >= LOSS_WINDOW {
            self.feedback_loss.update(now, since.lost, since.packets);
            self.told = None;
        }
    }

    /// The viewer's own estimate: no more than it says, where that is more than an echo.
    pub fn remb(&mut self, bits_per_second: f64, now: Instant) {
        if bits_per_second.is_finite() && bits_per_second >= 0.0 {
            self.remb.told(bits_per_second, now);
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
        // `Gcc` takes the time that a large keyframe needs for a path that is overrun, and goes down to a part of what was
        // received, which is no more than what was sent. A path that carried it and has no queue carries it.
        let by_delay = self.gcc.delay_based_bitrate().max(self.queue.carried().min(self.max));
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
        Estimate {
            bits_per_second,
            burst_bits_per_second: bits_per_second * self.bursts.factor(),
            rtt: reported.map(|(_, rtt)| rtt).or(self.feedback_rtt),
        }
    }
}

/// How many packets the chunks have room for, which is what reading them costs.
fn claimed_packets(feedback: &TransportLayerCc) -> usize {
    let of_chunk = |chunk: &PacketStatusChunk| match chunk {
        PacketStatusChunk::RunLengthChunk(run) => usize::from(run.run_length),
        PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.len(),
    };
    feedback.packet_chunks.iter().map(of_chunk).sum()
}

#[cfg(test)]
mod tests;
