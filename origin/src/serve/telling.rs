//! One subscription of a child: entries of its feed, as frames, and a tick of the clock when there are none.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream;
use hls::{Announcement, Entry, FORMAT_VERSION, FedPart, Feed, StreamHeader};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use relay::server::Body;
use relay::wire::{Derived, Init, Live, Message, Part, Record, Rendition, Slices};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::{debug, info};

use super::Keep;
use super::children::Child;

/// How long a child hears nothing before it hears the clock. A child takes five missed ticks for a lost node.
const CLOCK_EVERY: Duration = Duration::from_millis(100);

/// Entries that are ready are joined into one write up to about this size.
const WRITE_BYTES: usize = 256 * 1024;

pub(super) struct Telling {
    feed: Feed,
    clock: Interval,
    child: Child,
    keep: Keep,
}

impl Telling {
    pub(super) fn new(feed: Feed, mut child: Child, keep: Keep) -> Self {
        child.reads(feed.progress());
        debug!("subscribed");
        Self { feed, clock: clock(), child, keep }
    }

    pub(super) fn into_body(self) -> Body {
        let frames = stream::unfold(self, |mut telling| async move {
            let told = telling.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(told)), telling))
        });
        UnsyncBoxBody::new(StreamBody::new(frames))
    }

    /// What is written next; `None` at the end. Only called when the connection has room, which is what makes a slow
    /// child lag in its feed and nowhere else.
    async fn next(&mut self) -> Option<Slices> {
        let mut told = tokio::select! {
            biased;
            entry = self.feed.next() => self.frame(entry?)?,
            () = &mut self.keep => return None,
            _ = self.clock.tick() => Message::Clock { sent_ms: now_ms() }.encode(),
        };
        while bytes(&told) < WRITE_BYTES
            && let Some(entry) = self.feed.ready()
        {
            match self.frame(entry) {
                Some(frame) => told.append(frame),
                // Polled again, the feed is over.
                None => break,
            }
        }
        self.clock.reset();
        self.child.sent(bytes(&told));
        Some(told)
    }

    fn frame(&mut self, entry: Entry) -> Option<Slices> {
        if let Entry::Lost = entry {
            info!("cut off: the child is so slow that what it needs next is gone");
            self.child.lost();
            return None;
        }
        if let Entry::Index { resumed: true, .. } = entry {
            self.child.resumed();
        }
        message(entry).map(Message::encode)
    }
}

/// Ticks when nothing else was told for so long.
pub(super) fn clock() -> Interval {
    let mut clock = interval_at(Instant::now() + CLOCK_EVERY, CLOCK_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    clock
}

pub(super) fn bytes(slices: &Slices) -> usize {
    bytes::Buf::remaining(slices)
}

pub(super) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

fn message(entry: Entry) -> Option<Message> {
    Some(match entry {
        Entry::Header { header, announcement } => Message::Record(record(&header, announcement.as_ref())),
        Entry::Index { resumed, epoch } => Message::Index { resumed, epoch },
        Entry::Init { rendition, init } => {
            let init = Init { hash: hash(&init.hash), bytes: init.bytes.clone() };
            Message::Init { track: track(rendition), init }
        }
        Entry::Part { rendition, part } => Message::Part { track: track(rendition), part: wire_part(part) },
        Entry::IndexComplete => Message::IndexComplete,
        Entry::RenditionEnd { rendition } => Message::TrackEnd { track: track(rendition) },
        Entry::End => Message::End,
        Entry::Lost => return None,
    })
}

fn record(header: &StreamHeader, announcement: Option<&Announcement>) -> Record {
    let renditions = header.renditions.iter().map(|rendition| {
        let bandwidths = announcement.iter().flat_map(|announcement| &announcement.bandwidths);
        let bandwidth = bandwidths.into_iter().find(|(name, _)| *name == rendition.name);
        let bandwidth = bandwidth.map(|(_, bandwidth)| *bandwidth).unwrap_or_default();
        Rendition {
            name: rendition.name.to_string(),
            part_target_ms: rendition.part_target_ms,
            peak: bandwidth.peak,
            average: bandwidth.average,
            derived: rendition
                .derived
                .as_ref()
                .map(|derived| Derived { every: derived.every, on_demand: derived.on_demand.is_some() }),
            codec: rendition.codec.clone(),
        }
    });
    Record {
        session: header.session,
        format: FORMAT_VERSION,
        part_hold_back_ms: header.part_hold_back_ms,
        renditions: renditions.collect(),
        live: announcement.map(|announcement| Live {
            target_duration_s: announcement.target_duration_s,
            window_ms: announcement.window_ms,
            frame_rate: announcement.frame_rate,
            captions: announcement.captions,
        }),
    }
}

fn wire_part(fed: FedPart) -> Part {
    let FedPart { part, carried, bytes, oldest_msn, ends } = fed;
    Part {
        msn: part.msn,
        part: part.part,
        oldest_msn,
        duration: part.duration,
        independent: part.independent,
        gap: part.gap,
        last_in_segment: part.last,
        last_of_track: ends,
        program_date_time_ms: part.segment.program_date_time_ms,
        discontinuity_sequence: part.segment.discontinuity_sequence,
        init: hash(&part.segment.init.hash),
        bytes: u32::try_from(bytes).expect("ingest bounds a part far below 4 GiB"),
        body: carried.then_some(part.body),
    }
}

/// Init segments are named by 16 hexadecimal digits.
fn hash(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or(0)
}

fn track(rendition: usize) -> u16 {
    u16::try_from(rendition).unwrap_or(u16::MAX)
}
