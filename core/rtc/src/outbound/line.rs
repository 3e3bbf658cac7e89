//! One media line of one viewer: from shared frames to sealed batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use media::Timescale;
use rtc_rtcp::Packet;
use rtc_rtcp::source_description::{
    SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem,
};

use super::cushion::Cushion;
use super::header::{HeaderExtensions, PlayoutDelay, Template, Transport};
use super::history::History;
use super::report::{self, ClockAnchor, Reception, Reports};
use super::resend::{OSN_BYTES, Resend, Resends};
use super::splices::Splices;
use crate::packetize::{Format, Frame, SEGMENTS_MAX, Source};
use crate::rtcp::ReceptionReport;
use crate::srtp::{ExhaustedError, Sealer, Sealers, SsrcTakenError};

/// Most packets that are looked up for one request. Browsers ask for hundreds at most; a datagram could name thousands,
/// all of them in vain.
const NACKED_PACKETS_MAX: usize = 512;

/// What was negotiated for a media line, and what is random in it.
#[derive(Debug, Clone)]
pub struct LineSettings {
    pub ssrc: u32,
    /// Of each format that the line may be switched to; not empty.
    pub payload_types: Vec<(Format, PayloadTypes)>,
    /// Of retransmissions (RFC 4588). Without it nothing is sent again: the same packet sealed twice would have to be the
    /// same bytes.
    pub rtx_ssrc: Option<u32>,
    pub extensions: HeaderExtensions,
    pub playout_delay: PlayoutDelay,
    pub clock_rate: Timescale,
    /// RTP time is stream clock plus this: random per session, equal for all renditions that the line is switched to.
    pub timestamp_offset: u32,
    /// Canonical name, equal for all lines of the viewer (RFC 3550, §6.5.1).
    pub cname: String,
    /// Where sequence numbers start; random.
    pub random: [u16; 2],
}

/// Of one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadTypes {
    pub media: u8,
    /// Of retransmissions (RFC 4588): of this format nothing is sent again without it.
    pub rtx: Option<u8>,
}

impl LineSettings {
    /// `None` of a format that was not negotiated, which is not sent.
    fn payload_types(&self, format: Format) -> Option<PayloadTypes> {
        let own = self.payload_types.iter().find(|(other, _)| *other == format);
        own.map(|(_, payload_types)| *payload_types)
    }
}

/// Datagrams for one call of the sender.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    pub bytes: &'a [u8],
    /// Length of every datagram; the last may be shorter.
    pub segment: usize,
    pub packets: usize,
    /// Number of the first packet on this viewer's transport, if transport-cc numbers them; the others follow.
    pub transport_sequence: Option<u64>,
}

/// The frame before is not yet sent: poll the line first, or let the frame be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line has a frame that is not yet sent")]
pub struct BusyError;

/// Sends frames of one rendition after the other, as one RTP stream without a gap.
pub struct Line {
    settings: LineSettings,
    template: Template,
    sealer: Sealer,
    rtx: Option<(Template, Sealer)>,
    /// The frame being sent, and how many of its packets are.
    current: Option<(Arc<Frame>, usize)>,
    splices: Splices,
    resends: Resends,
    /// No packet before is sent again.
    repairs_from: u64,
    cushion: Cushion,
    reports: Reports,
    /// For sender reports; RTX is not counted (RFC 4588, §5).
    packets_sent: u64,
    payload_bytes_sent: u64,
}

impl Line {
    /// # Errors
    /// [`SsrcTakenError`] if another line of the session has one of the SSRCs.
    pub fn new(settings: LineSettings, sealers: &mut Sealers) -> Result<Self, SsrcTakenError> {
        // The payload type is written for each frame.
        let template = || Template::new(0, settings.extensions, settings.playout_delay);
        let [random, rtx_random] = settings.random;
        let rtx = settings.rtx_ssrc.map(|ssrc| Ok((template(), sealers.sealer(ssrc, rtx_random)?)));
        Ok(Self {
            template: template(),
            sealer: sealers.sealer(settings.ssrc, random)?,
            rtx: rtx.transpose()?,
            current: None,
            splices: Splices::default(),
            resends: Resends::new(),
            repairs_from: 0,
            cushion: Cushion::new(),
            reports: Reports::new(settings.clock_rate),
            packets_sent: 0,
            payload_bytes_sent: 0,
            settings,
        })
    }

    pub fn ssrc(&self) -> u32 {
        self.settings.ssrc
    }

    /// Whether [`Line::begin`] would take a frame.
    pub fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// Sends `frame` next, by [`Line::poll`]. It may be of another rendition than the one before, or leave some out:
    /// the viewer's numbers go on without a gap.
    ///
    /// # Errors
    /// [`BusyError`], and nothing changed.
    pub fn begin(&mut self, frame: Arc<Frame>) -> Result<(), BusyError> {
        if !self.is_idle() {
            return Err(BusyError);
        }
        self.splices.record(self.sealer.next_index(), &frame);
        self.current = Some((frame, 0));
        Ok(())
    }

    /// Seals the next burst of the frame into `scratch`, which is overwritten; `None` when the frame is sent. A frame
    /// of several bursts is a large one: leave some milliseconds between them.
    ///
    /// # Errors
    /// [`ExhaustedError`]: the session must end.
    pub fn poll<'a>(
        &mut self,
        now: Instant,
        transport: &mut Transport,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<Batch<'a>>, ExhaustedError> {
        self.poll_some(SEGMENTS_MAX, now, transport, scratch)
    }

    /// The same for a path that would lose a whole burst: no more than so many packets of it.
    ///
    /// # Errors
    /// [`ExhaustedError`]: the session must end.
    pub fn poll_some<'a>(
        &mut self,
        packets_max: usize,
        now: Instant,
        transport: &mut Transport,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<Batch<'a>>, ExhaustedError> {
        let Some((frame, next)) = &mut self.current else { return Ok(None) };
        let Some(burst) = frame.bursts().iter().find(|burst| burst.contains(next)) else { return Ok(None) };
        let burst = *next..burst.end.min(*next + packets_max.max(1));
        *next = burst.end;
        let last_burst = *next == frame.packets();
        let last_packet = frame.packets() - 1;

        let mut writer = Writer::new(scratch, transport);
        if let Some(payload_types) = self.settings.payload_types(frame.format()) {
            self.template.set_payload_type(payload_types.media);
        }
        self.template.set_time(timestamp(&self.settings, frame), transport, now);
        self.template.set_playout_delay(self.cushion.playout_delay(self.settings.playout_delay, now));
        self.cushion.sent(self.sealer.next_index(), now);
        let mut payload_bytes = 0;
        for at in burst {
            let payload = frame.payload(at).unwrap_or_default();
            self.template.set_packet(frame.marker() && at == last_packet, transport);
            writer.push(&self.template, &mut self.sealer, &[payload])?;
            payload_bytes += payload.len();
        }
        if last_burst {
            self.current = None;
        }
        let batch = writer.finish(transport);
        self.packets_sent += batch.packets as u64;
        self.payload_bytes_sent += payload_bytes as u64;
        self.resends.sent(payload_bytes);
        Ok(Some(batch))
    }

    /// The viewer misses `packets` of this line (RFC 4585, §6.2.1). They are looked up in what `history` gives for
    /// their source, and left for [`Line::poll_resend`]. Returns how many were taken: not taken is what is unknown, too
    /// old or [not needed](Line::forget_sent), waits to be sent again or was less than `rtt` ago, or goes beyond the share of the
    /// bandwidth that losses may have.
    pub fn nack<'h>(
        &mut self,
        packets: impl IntoIterator<Item = u16>,
        rtt: Option<Duration>,
        now: Instant,
        history: impl Fn(Source) -> Option<&'h History>,
    ) -> usize {
        if self.rtx.is_none() {
            return 0;
        }
        let mut taken = 0;
        for original in packets.into_iter().take(NACKED_PACKETS_MAX) {
            if !self.resends.has_room() {
                break;
            }
            let Some(index) = sent_as(original, self.sealer.next_index()) else { continue };
            self.cushion.asked_for(index, now);
            if index < self.repairs_from || !self.resends.is_due(index, rtt, now) {
                continue;
            }
            let Some((source, packet)) = self.splices.find(index) else { continue };
            let Some((frame, at)) = history(source).and_then(|history| history.find(packet)) else {
                continue;
            };
            if self.settings.payload_types(frame.format()).is_none_or(|types| types.rtx.is_none()) {
                continue;
            }
            let resend = Resend { index, frame: Arc::clone(frame), at, original };
            taken += usize::from(self.resends.push(resend));
        }
        taken
    }

    /// What waits to be sent again is not needed for now.
    pub fn forget_resends(&mut self) {
        self.resends.clear();
    }

    /// Nothing that was sent until now is needed any more: what comes next begins anew.
    pub fn forget_sent(&mut self) {
        self.resends.clear();
        self.repairs_from = self.sealer.next_index();
    }

    /// Whether anything is to be sent again.
    pub fn has_resends(&self) -> bool {
        self.resends.front().is_some()
    }

    /// Seals the next retransmissions that have one size, at most `packets_max`, into `scratch`, which is overwritten; `None` when
    /// there are none left.
    ///
    /// # Errors
    /// [`ExhaustedError`]: the session must end.
    pub fn poll_resend<'a>(
        &mut self,
        packets_max: usize,
        now: Instant,
        transport: &mut Transport,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<Batch<'a>>, ExhaustedError> {
        let Some((template, sealer)) = &mut self.rtx else { return Ok(None) };
        let Some(size) = self.resends.front().map(Resend::bytes) else { return Ok(None) };
        let mut writer = Writer::new(scratch, transport);
        while writer.packets < packets_max.clamp(1, SEGMENTS_MAX)
            && self.resends.front().is_some_and(|resend| resend.bytes() == size)
            && let Some(resend) = self.resends.pop(now)
        {
            let Resend { frame, at, original, .. } = &resend;
            if let Some(rtx) = self.settings.payload_types(frame.format()).and_then(|types| types.rtx) {
                template.set_payload_type(rtx);
            }
            template.set_time(timestamp(&self.settings, frame), transport, now);
            template.set_playout_delay(self.cushion.playout_delay(self.settings.playout_delay, now));
            template.set_packet(frame.marker() && at + 1 == frame.packets(), transport);
            let osn: [u8; OSN_BYTES] = original.to_be_bytes();
            writer.push(template, sealer, &[&osn, resend.payload()])?;
        }
        Ok(Some(writer.finish(transport)))
    }

    /// The viewer tells that a packet of the transport arrived so much later than at best.
    pub fn arrived(&mut self, late: Duration, now: Instant) {
        self.cushion.arrived(late, now);
    }

    /// From now on sender reports say what this anchor says; there are none before the first.
    pub fn set_anchor(&mut self, anchor: ClockAnchor) {
        self.reports.set_anchor(anchor);
    }

    /// When the next sender report is due; `None` before the first.
    pub fn report_due(&self) -> Option<Instant> {
        self.reports.due()
    }

    /// The parts of a compound packet (RFC 3550, §6.1), once a second. `wall` is the time since the Unix epoch.
    pub fn poll_report(&mut self, now: Instant, wall: Duration) -> Option<[Box<dyn Packet>; 2]> {
        let (ntp, rtp) = self.reports.poll(now, wall)?;
        let ssrc = self.settings.ssrc;
        let rtp = rtp.wrapping_add(self.settings.timestamp_offset);
        let report = report::sender_report(ssrc, ntp, rtp, self.packets_sent, self.payload_bytes_sent);
        let text = self.settings.cname.clone().into();
        let items = vec![SourceDescriptionItem { sdes_type: SdesType::SdesCname, text }];
        let description = SourceDescription { chunks: vec![SourceDescriptionChunk { source: ssrc, items }] };
        Some([Box::new(report), Box::new(description)])
    }

    /// What the viewer's report says of this line; `None` if it is about another.
    pub fn reception(&self, report: &ReceptionReport, now: Instant) -> Option<Reception> {
        (report.ssrc == self.settings.ssrc).then(|| self.reports.reception(report, now))
    }
}

fn timestamp(settings: &LineSettings, frame: &Frame) -> u32 {
    // RTP's clock is the low 32 bits of the stream's (RFC 3550, §5.1).
    (frame.pts() as u32).wrapping_add(settings.timestamp_offset)
}

/// The newest index before `next` that has `sequence` as its low 16 bits.
fn sent_as(sequence: u16, next: u64) -> Option<u64> {
    let newest = next.checked_sub(1)?;
    newest.checked_sub(u64::from((newest as u16).wrapping_sub(sequence)))
}

/// Packets one behind the other in the lent buffer.
struct Writer<'a> {
    scratch: &'a mut Vec<u8>,
    segment: usize,
    packets: usize,
    /// Transport-wide number of the first.
    first: u64,
}

impl<'a> Writer<'a> {
    fn new(scratch: &'a mut Vec<u8>, transport: &Transport) -> Self {
        scratch.clear();
        Self { scratch, segment: 0, packets: 0, first: transport.next() }
    }

    fn push(
        &mut self,
        template: &Template,
        sealer: &mut Sealer,
        payload: &[&[u8]],
    ) -> Result<(), ExhaustedError> {
        let start = self.scratch.len();
        let header = template.bytes();
        self.scratch.extend_from_slice(header);
        for part in payload {
            self.scratch.extend_from_slice(part);
        }
        self.scratch.resize(self.scratch.len() + sealer.profile().tag_bytes(), 0);
        sealer.seal(&mut self.scratch[start..], header.len())?;
        self.segment = self.segment.max(self.scratch.len() - start);
        self.packets += 1;
        Ok(())
    }

    fn finish(self, transport: &Transport) -> Batch<'a> {
        let numbered = transport.next() != self.first;
        Batch {
            bytes: self.scratch,
            segment: self.segment,
            packets: self.packets,
            transport_sequence: numbered.then_some(self.first),
        }
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
