//! One viewer: its transport, what it is sent, and where in the stream it is. Sends through the port, and waits for nothing.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rtc::estimate::Estimator;
use rtc::outbound::{Batch, ClockAnchor, Line, LineSettings, Transport};
use rtc::peer::{Closed, Event, Input, Output, Peer};
use rtc::port::{Lease, Path, Port};
use rtc::rtcp::{Report, Reports};
use rtc::srtp::{ExhaustedError, Keys, Sealers};
use rtc_rtcp::Packet;
use tracing::{debug, warn};

use super::course::{Course, Turn};
use super::metrics::{Change, Metrics};
use super::place::Next;
use super::programme::Programme;
use super::rendition::Formats;
use super::ring::Found;

/// Datagrams of one viewer that are read in a second; browsers send some twenty, and more only under loss.
const HEARD_MAX: u32 = 400;

/// Packets of one datagram that are listened to; browsers put some five into one.
const REPORTS_MAX: usize = 8;

/// A rendition without a frame for so long is given up for a larger one, if the publisher still sends.
const SILENT_MAX: Duration = Duration::from_millis(1_500);

/// Of a source with keyframes further apart than this a rung has more of them, so a viewer begins with one. A publisher that can be
/// asked for keyframes has one each four seconds, and one more for whoever joins.
const KEYFRAMES_APART_MAX_S: f64 = 5.0;

/// What a viewer joins with.
pub(super) struct Join {
    pub(super) viewer: u64,
    pub(super) peer: Peer,
    pub(super) lease: Lease,
    /// Of pictures, that it takes.
    pub(super) formats: Formats,
    pub(super) video: Option<LineSettings>,
    pub(super) audio: Option<LineSettings>,
}

pub(super) struct Viewer {
    metrics: Arc<Metrics>,
    peer: Peer,
    lease: Lease,
    video: Media,
    audio: Media,
    course: Course,
    /// Number of the next frame of sound; `None` before the first.
    next_sound: Option<u64>,
    transport: Transport,
    /// The rendition that its path does not carry, until it is sent another.
    flees_from: Option<usize>,
    /// Since it stood still.
    silent_since: Option<Instant>,
    /// Datagrams of the second that began then.
    heard: (Instant, u32),
    /// What it said is to be followed at once; most only adds to what is known of its path.
    is_pressing: bool,
    /// By then it must be looked at, whatever comes.
    deadline: Option<Instant>,
}

/// One media line.
enum Media {
    /// Not negotiated, or not there.
    None,
    /// Until there are keys.
    Waiting(Box<LineSettings>),
    Line(Box<Line>),
}

impl Media {
    fn of(settings: Option<LineSettings>) -> Self {
        settings.map_or(Self::None, |settings| Self::Waiting(Box::new(settings)))
    }

    fn line(&mut self) -> Option<&mut Line> {
        match self {
            Self::Line(line) => Some(line),
            Self::None | Self::Waiting(_) => None,
        }
    }
}

impl Viewer {
    pub(super) fn new(join: Join, programme: &Programme, metrics: Arc<Metrics>, now: Instant) -> Self {
        let is_seldom = programme.keyframes_apart_s() > KEYFRAMES_APART_MAX_S;
        let begin = |chosen| if is_seldom { programme.rung_for(chosen) } else { chosen };
        Self {
            metrics,
            peer: join.peer,
            lease: join.lease,
            video: Media::of(join.video),
            audio: Media::of(join.audio),
            course: Course::new(programme.ladder(), begin, now),
            next_sound: None,
            transport: Transport::new(now),
            flees_from: None,
            silent_since: None,
            heard: (now, 0),
            is_pressing: false,
            deadline: None,
        }
    }

    /// When it is to be looked at again, if nothing comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The rendition that it is to be sent, and the one that it is sent.
    pub(super) fn renditions(&self) -> [Option<usize>; 2] {
        [Some(self.course.place.wanted()), self.course.place.rendition()]
    }

    pub(super) fn peer(&mut self) -> &mut Peer {
        &mut self.peer
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What it was sent is gone, and the same begins again under other numbers.
    pub(super) fn begin_anew(&mut self) {
        self.course.place.begin_anew();
        self.next_sound = None;
    }

    /// By its number; `None` leaves it to us again.
    pub(super) fn pin(&mut self, rendition: Option<usize>, programme: &Programme) {
        if rendition.is_some() {
            self.metrics.changed(Change::Pinned);
        }
        programme.want_keyframe();
        self.course.pin(rendition);
    }

    /// Does all that is due, after anything that may have changed something for it.
    ///
    /// # Errors
    /// [`Closed`]: it is to be forgotten.
    pub(super) fn drive(
        &mut self,
        input: Option<Input<'_>>,
        programme: &Programme,
        port: &Port,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), Closed> {
        self.is_pressing = input.is_none();
        if let Some(input) = self.admitted(input, now) {
            self.peer.handle_input(input, now);
        }
        let mut until = self.outputs(programme, port, now)?;
        if !self.is_pressing
            && let Some(deadline) = self.deadline.filter(|deadline| now < *deadline)
        {
            self.deadline = Some(until.min(deadline));
            return Ok(());
        }
        let Some(path) = self.peer.path() else {
            self.deadline = Some(until);
            return Ok(());
        };
        let sent = self.send(programme, port, path, scratch, now);
        let sent = sent.and_then(|wake| self.report(programme, now).map(|report| [wake, report]));
        match sent {
            Ok(wakes) => until = wakes.into_iter().flatten().fold(until, Instant::min),
            Err(ExhaustedError) => self.peer.close(now),
        }
        // Reports, and what was said to it on the way out.
        let after = self.outputs(programme, port, now)?;
        self.deadline = Some(until.min(after));
        Ok(())
    }

    /// Neither reports nor requests for lost packets may keep the thread from its other viewers.
    fn admitted<'a>(&mut self, input: Option<Input<'a>>, now: Instant) -> Option<Input<'a>> {
        if let Some(Input::Datagram { .. }) = input {
            if now.saturating_duration_since(self.heard.0) >= Duration::from_secs(1) {
                self.heard = (now, 0);
            }
            self.heard.1 += 1;
            return input.filter(|_| self.heard.1 <= HEARD_MAX);
        }
        Some(input.unwrap_or(Input::Deadline))
    }

    fn outputs(&mut self, programme: &Programme, port: &Port, now: Instant) -> Result<Instant, Closed> {
        loop {
            match self.peer.poll_output() {
                Output::Send { path, bytes } => port.send(path, &bytes, None),
                Output::Wait { until } => return Ok(until),
                Output::Event(Event::Valid(path)) => self.lease.bind_address(path.remote),
                Output::Event(Event::Retired { ufrag }) => self.lease.remove_ufrag(&ufrag),
                Output::Event(Event::Path(path)) => {
                    debug!(peer.addr = %path.remote, "path");
                    self.is_pressing = true;
                }
                // It may try again, and what ends the session says why.
                Output::Event(Event::HandshakeFailed(error)) => {
                    debug!(%error, "a handshake failed");
                    self.metrics.handshakes_failed.inc();
                }
                Output::Event(Event::Connected(keys)) => self.connected(keys),
                Output::Event(Event::Rtcp(datagram)) => {
                    Reports::new(&datagram)
                        .take(REPORTS_MAX)
                        .for_each(|report| self.heard(report, programme, now));
                }
                Output::Event(Event::Closed(closed)) => return Err(closed),
            }
        }
    }

    fn connected(&mut self, keys: Keys) {
        self.is_pressing = true;
        self.metrics.connected.inc();
        let mut sealers = Sealers::new(keys);
        for media in [&mut self.video, &mut self.audio] {
            if let Media::Waiting(settings) = media {
                match Line::new((**settings).clone(), &mut sealers) {
                    Ok(line) => *media = Media::Line(Box::new(line)),
                    Err(error) => {
                        warn!(%error, "a media line is left out");
                        *media = Media::None;
                    }
                }
            }
        }
    }

    fn heard(&mut self, report: Report<'_>, programme: &Programme, now: Instant) {
        match report {
            Report::TransportCc(feedback) => {
                let late = self.course.estimator.feedback(&feedback, now);
                if let Some(line) = self.video.line() {
                    line.arrived(late, now);
                }
                self.choose(programme, now);
            }
            Report::Receptions(receptions) => {
                let told = self
                    .video
                    .line()
                    .and_then(|line| receptions.iter().find_map(|reception| line.reception(&reception, now)));
                if let Some(told) = told {
                    self.metrics.loss.observe(told.fraction_lost);
                    self.course.estimator.reception(told, now);
                    self.course.relearn(programme.ladder());
                    let estimate = self.course.estimator.estimate(now);
                    self.metrics.estimate.observe(estimate.bits_per_second);
                    if let Some(rtt) = estimate.rtt {
                        self.metrics.round_trip.observe(rtt.as_secs_f64());
                    }
                    self.choose(programme, now);
                }
            }
            Report::Nack(nack) => {
                self.is_pressing = true;
                let rtt = self.course.estimator.estimate(now).rtt;
                // What it flees from is not to stand before what it flees to.
                let video = Some(&mut self.video).filter(|_| !self.course.place.is_awaiting());
                for line in video.into_iter().chain([&mut self.audio]).filter_map(Media::line) {
                    if line.ssrc() == nack.media_ssrc {
                        let lost = nack.packets().inspect(|_| {
                            self.metrics.nacked.inc();
                        });
                        line.nack(lost, rtt, now, |source| programme.history(source));
                    }
                }
            }
            Report::Remb(bits_per_second) => {
                self.course.estimator.remb(bits_per_second, now);
                self.choose(programme, now);
            }
            Report::KeyframeRequest => {
                self.metrics.keyframe_requests.inc();
                programme.want_keyframe_of(self.course.place.rendition().unwrap_or_default());
            }
            Report::Other => {}
        }
    }

    fn choose(&mut self, programme: &Programme, now: Instant) {
        let Some(Turn { rendition, is_flight, estimate }) = self.course.choose(now) else { return };
        debug!(rendition, estimate = estimate as u64, "another rendition");
        self.is_pressing = true;
        self.metrics.changed(Change::Estimate);
        self.flees_from = self.course.place.rendition().filter(|_| is_flight);
        if is_flight {
            programme.want_keyframe_of(rendition);
            // It begins with a keyframe, which what is sent again of the larger one would stand before.
            if let Some(line) = self.video.line() {
                line.forget_resends();
            }
        }
    }

    /// Sends what there is. When to go on, if there is more.
    fn send(
        &mut self,
        programme: &Programme,
        port: &Port,
        path: Path,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Option<Instant>, ExhaustedError> {
        if let Some(line) = self.audio.line() {
            let (next, transport) = (&mut self.next_sound, &mut self.transport);
            send_sound(
                line,
                next,
                transport,
                &mut self.course.estimator,
                programme,
                port,
                path,
                scratch,
                now,
            )?;
        }
        let Some(line) = self.video.line() else { return Ok(None) };
        loop {
            let repairs = line.has_resends();
            if (repairs || !line.is_idle())
                && let Some(due) = self.course.pace.due(now)
            {
                return Ok(Some(due));
            }
            let (packets, transport) = (self.course.pace.packets(), &mut self.transport);
            let batch = if repairs {
                line.poll_resend(packets, now, transport, scratch)?
            } else {
                line.poll_some(packets, now, transport, scratch)?
            };
            if let Some(batch) = batch {
                if repairs {
                    self.metrics.resent.inc_by(batch.packets as u64);
                }
                self.course.pace.sent(batch.bytes.len(), now);
                send(port, path, &batch);
                self.course.estimator.sent(&batch, now);
                continue;
            }
            match self.course.place.next(programme.rings(), now) {
                Next::Send(entry) => {
                    if self.flees_from.is_some() && self.flees_from != self.course.place.rendition() {
                        self.flees_from = None;
                        line.forget_sent();
                    }
                    // It is idle: all before was sent. Whether this one may be is seen above.
                    let _busy = line.begin(entry.packets.clone());
                    self.silent_since = None;
                    self.course.began();
                }
                // There would be something.
                Next::Wait(Some(until)) => {
                    self.course.pace.rest();
                    self.silent_since = None;
                    return Ok(Some(until));
                }
                Next::Wait(None) => {
                    self.course.pace.rest();
                    return Ok(Some(self.wait(programme, now)));
                }
                Next::WaitForKey => {
                    self.course.pace.rest();
                    programme.want_keyframe();
                    return Ok(Some(self.wait(programme, now)));
                }
                Next::Lost => {
                    self.metrics.skipped.inc();
                    programme.want_keyframe_of(self.course.place.wanted());
                    debug!("too far behind: it goes on with a newer keyframe");
                }
            }
        }
    }

    /// There is nothing to send. A rung that has died is left for a larger one; when to see to that.
    fn wait(&mut self, programme: &Programme, now: Instant) -> Instant {
        let since = *self.silent_since.get_or_insert(now);
        let until = since + SILENT_MAX;
        if now < until {
            return until;
        }
        self.silent_since = Some(now);
        let wanted = self.course.place.wanted();
        if wanted > 0 && !programme.is_interrupted() {
            debug!(rendition = wanted, "it stands still: a larger one instead");
            self.metrics.changed(Change::Silence);
            self.course.place.give_up(now);
        }
        now + SILENT_MAX
    }

    fn report(&mut self, programme: &Programme, now: Instant) -> Result<Option<Instant>, ExhaustedError> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut due = None;
        let anchors = programme.anchors(self.course.place.wanted());
        for (media, anchor) in [&mut self.video, &mut self.audio].into_iter().zip(anchors) {
            let Some(line) = media.line() else { continue };
            if let Some(report) = report_of(line, anchor, now, wall)
                && let Err(error) = self.peer.send_rtcp(&report)
            {
                warn!(%error, "a report is left out");
            }
            due = [due, line.report_due()].into_iter().flatten().min();
        }
        Ok(due)
    }
}

fn report_of(
    line: &mut Line,
    anchor: Option<ClockAnchor>,
    now: Instant,
    wall: Duration,
) -> Option<[Box<dyn Packet>; 2]> {
    // A rendition that is only being turned to has none yet. All of them tell the same time, so the last one serves.
    if let Some(anchor) = anchor {
        line.set_anchor(anchor);
    }
    line.poll_report(now, wall)
}

#[expect(clippy::too_many_arguments, reason = "the borrowed halves of a viewer, and where its packets go")]
fn send_sound(
    line: &mut Line,
    next: &mut Option<u64>,
    transport: &mut Transport,
    estimator: &mut Estimator,
    programme: &Programme,
    port: &Port,
    path: Path,
    scratch: &mut Vec<u8>,
    now: Instant,
) -> Result<(), ExhaustedError> {
    let ring = programme.sound();
    // Sound of before it came is of no use, and only delays what it is to hear now.
    let mut number = *next.get_or_insert(ring.end());
    loop {
        match ring.get(number) {
            Found::Entry(entry) => {
                let _busy = line.begin(entry.packets.clone());
                while let Some(batch) = line.poll(now, transport, scratch)? {
                    send(port, path, &batch);
                    estimator.sent(&batch, now);
                }
                number += 1;
            }
            Found::NotYet => break,
            Found::Gone => number = ring.end(),
        }
    }
    *next = Some(number);
    Ok(())
}

fn send(port: &Port, path: Path, batch: &Batch<'_>) {
    port.send(path, batch.bytes, Some(batch.segment));
}

#[cfg(test)]
mod tests {
    use media::Timescale;
    use rtc::outbound::{HeaderExtensions, PayloadTypes, PlayoutDelay};
    use rtc::packetize::Format;
    use rtc::srtp::{Profile, Role};

    use super::*;

    /// A report that stays due would be looked at for ever.
    #[test]
    fn reports_go_on_while_a_rendition_is_turned_to_that_has_no_time_yet() {
        let keys = Keys::from_exported(Profile::Aes128Gcm, Role::Server, &[7; 56]).unwrap();
        let settings = LineSettings {
            ssrc: 1,
            payload_types: vec![(Format::H264, PayloadTypes { media: 96, rtx: None })],
            rtx_ssrc: None,
            extensions: HeaderExtensions::default(),
            playout_delay: PlayoutDelay::default(),
            clock_rate: Timescale::VIDEO,
            timestamp_offset: 0,
            cname: "viewer".to_owned(),
            random: [0; 2],
        };
        let mut line = Line::new(settings, &mut Sealers::new(keys)).unwrap();
        let (start, wall) = (Instant::now(), Duration::from_secs(1_000));
        assert!(report_of(&mut line, None, start, wall).is_none(), "of what time?");
        let anchor = ClockAnchor { pts: 0, wall };
        assert!(report_of(&mut line, Some(anchor), start, wall).is_some());
        let later = start + Duration::from_secs(2);
        assert!(report_of(&mut line, None, later, wall + Duration::from_secs(2)).is_some());
        assert!(line.report_due().is_some_and(|due| due > later));
    }
}
