//! Sender reports, and what receivers report back (RFC 3550, §6.4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use media::Timescale;
use rtc_rtcp::sender_report::SenderReport;

use crate::rtcp::ReceptionReport;

/// Browsers need two reports of each line before sound and picture are in step.
const INTERVAL: Duration = Duration::from_secs(1);
/// Reports whose echo may still come back.
const REMEMBERED_REPORTS_MAX: usize = 8;
/// Seconds between NTP's epoch, 1900, and Unix's (RFC 868).
const NTP_UNIX_SECONDS: u64 = 2_208_988_800;

/// A point of the stream's clock and the wall-clock time that ingest fixed for it. Equal for all tracks of a stream,
/// which is what keeps them in step at the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockAnchor {
    /// In ticks of the media line's clock rate.
    pub pts: i64,
    /// Since the Unix epoch.
    pub wall: Duration,
}

/// What a receiver says of us.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reception {
    /// Of the packets since its last report, 0 to 1.
    pub fraction_lost: f64,
    /// `None` until it has heard a sender report of ours.
    pub rtt: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Reports {
    rate: Timescale,
    anchor: Option<ClockAnchor>,
    due: Option<Instant>,
    /// Middle 32 bits of the NTP time, and when it was sent.
    sent: VecDeque<(u32, Instant)>,
}

impl Reports {
    pub(super) fn new(rate: Timescale) -> Self {
        Self { rate, anchor: None, due: None, sent: VecDeque::new() }
    }

    pub(super) fn set_anchor(&mut self, anchor: ClockAnchor) {
        self.anchor = Some(anchor);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// NTP and RTP time of the same moment, `wall`, which is now; RTP's without the session's offset. `None` if no
    /// report is due or the clock is not known.
    pub(super) fn poll(&mut self, now: Instant, wall: Duration) -> Option<(u64, u32)> {
        let anchor = self.anchor?;
        if self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.due = Some(now + INTERVAL);
        let ntp = ntp(wall);
        if self.sent.len() == REMEMBERED_REPORTS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(((ntp >> 16) as u32, now));
        Some((ntp, ticks(anchor, wall, self.rate) as u32))
    }

    pub(super) fn reception(&self, report: &ReceptionReport, now: Instant) -> Reception {
        let echoed = self.sent.iter().find(|(middle, _)| *middle == report.last_sender_report);
        let held = Duration::from_secs_f64(f64::from(report.delay) / 65_536.0);
        Reception {
            fraction_lost: f64::from(report.fraction_lost) / 256.0,
            rtt: echoed.map(|(_, sent)| now.saturating_duration_since(*sent).saturating_sub(held)),
        }
    }
}

/// A report without reception blocks: we receive nothing.
pub(super) fn sender_report(
    ssrc: u32,
    ntp_time: u64,
    rtp_time: u32,
    packets: u64,
    bytes: u64,
) -> SenderReport {
    // Both counters wrap (RFC 3550, §6.4.1).
    let (packet_count, octet_count) = (packets as u32, bytes as u32);
    SenderReport { ssrc, ntp_time, rtp_time, packet_count, octet_count, ..SenderReport::default() }
}

/// 32.32 bits of seconds since 1900; the seconds wrap in 2036, as everybody's do.
fn ntp(wall: Duration) -> u64 {
    let fraction = (u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000;
    wall.as_secs().wrapping_add(NTP_UNIX_SECONDS) << 32 | fraction
}

/// The stream's clock at `wall`.
fn ticks(anchor: ClockAnchor, wall: Duration, rate: Timescale) -> i64 {
    let after = rate.ticks(wall.saturating_sub(anchor.wall));
    let before = rate.ticks(anchor.wall.saturating_sub(wall));
    anchor.pts.wrapping_add(after).wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_millis(1_800_000_000_500);

    fn reports() -> Reports {
        let mut reports = Reports::new(Timescale::VIDEO);
        reports.set_anchor(ClockAnchor { pts: 1_000, wall: WALL });
        reports
    }

    #[test]
    fn wall_clock_and_media_clock_name_the_same_moment() {
        let (now, mut reports) = (Instant::now(), reports());
        let (ntp, rtp) = reports.poll(now, WALL + Duration::from_millis(2_250)).unwrap();
        assert_eq!(ntp, (1_800_000_002 + NTP_UNIX_SECONDS) << 32 | 3 << 30);
        assert_eq!(rtp, 1_000 + 90 * 2_250);
        // A wall clock that was set back.
        let (_, rtp) = reports.poll(now + INTERVAL, WALL - Duration::from_secs(1)).unwrap();
        assert_eq!(rtp, 1_000_u32.wrapping_sub(90_000));
    }

    #[test]
    fn a_report_is_due_once_a_second_and_not_without_a_clock() {
        let now = Instant::now();
        assert_eq!(Reports::new(Timescale::VIDEO).poll(now, WALL), None);
        let mut reports = reports();
        assert!(reports.poll(now, WALL).is_some());
        assert!(reports.poll(now + Duration::from_millis(999), WALL).is_none());
        assert!(reports.poll(now + INTERVAL, WALL).is_some());
    }

    #[test]
    fn the_round_trip_is_what_the_receiver_did_not_hold() {
        let (now, mut reports) = (Instant::now(), reports());
        let (ntp, _) = reports.poll(now, WALL).unwrap();
        let echo = ReceptionReport {
            fraction_lost: 64,
            last_sender_report: (ntp >> 16) as u32,
            delay: 65_536 / 2,
            ..ReceptionReport::default()
        };
        let reception = reports.reception(&echo, now + Duration::from_millis(540));
        assert_eq!(reception, Reception { fraction_lost: 0.25, rtt: Some(Duration::from_millis(40)) });
        // Nothing heard yet, an echo of what we never sent, and a receiver that claims to have held it too long.
        assert_eq!(reports.reception(&ReceptionReport::default(), now).rtt, None);
        let hostile = ReceptionReport { delay: u32::MAX, ..echo };
        assert_eq!(reports.reception(&hostile, now).rtt, Some(Duration::ZERO));
    }
}
