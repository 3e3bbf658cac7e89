//! What both pipelines share: the way in, and the bus.
//!
//!   reader ──Feed──▶ appsrc ─▶ … ─▶ appsink ──Output──▶ writer

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use pipe::{Codec, Fault, FaultClass, SourceUnit};

use crate::clock::StreamClock;
use crate::element::broken;
use crate::ledger::{Companion, Ledger};
use crate::output::{Event, Output};
use crate::source::Source;

/// Units that wait for the decoder; then the reader waits.
const WAITING_MAX: u64 = 8;

/// The way into a running pipeline.
pub(crate) struct Feed {
    pipeline: gst::Pipeline,
    appsrc: AppSrc,
    source: Source,
    timescale: u32,
    ledger: Option<Arc<Mutex<Ledger>>>,
    output: Output,
}

/// The element that takes units, for `source`.
pub(crate) fn appsrc(source: &Source) -> AppSrc {
    AppSrc::builder()
        .caps(&source.caps())
        .format(gst::Format::Time)
        .block(true)
        .max_buffers(WAITING_MAX)
        .max_bytes(0)
        .max_time(gst::ClockTime::ZERO)
        .build()
}

impl Feed {
    /// Starts `pipeline`, which ends in `output`.
    ///
    /// # Errors
    /// [`FaultClass::Pipeline`]: an element does not start.
    pub(crate) fn start(
        pipeline: gst::Pipeline,
        appsrc: AppSrc,
        source: Source,
        timescale: u32,
        ledger: Option<Arc<Mutex<Ledger>>>,
        output: Output,
    ) -> Result<Self, Fault> {
        report(&pipeline, &output)?;
        Ok(Self { pipeline, appsrc, source, timescale, ledger, output })
    }

    /// Waits while the decoder is behind.
    ///
    /// # Errors
    /// [`FaultClass::Protocol`] for a stamp that lies far before the first. A pipeline that stopped says so itself.
    pub(crate) fn push(&mut self, unit: SourceUnit) -> Result<(), Fault> {
        let SourceUnit { pts, dts, duration, key, force, data } = unit;
        let clock = self.output.clock(|| StreamClock::starting_at(dts, self.timescale));
        let place = |ticks| {
            clock.nanos(ticks, self.timescale).ok_or_else(|| Fault {
                class: FaultClass::Protocol,
                text: format!("a unit at {ticks}, which is not on the clock that the first unit began"),
            })
        };
        let (presented, decoded) = (place(pts)?, place(dts)?);
        if let Some(ledger) = &self.ledger {
            let companion =
                Companion { duration, captions: self.source.captions(&data).into_iter().collect() };
            lock(ledger).accept(pts, force, companion);
        }
        let nanos = u64::from(duration) * 1_000_000_000 / u64::from(self.timescale);
        let mut buffer = gst::Buffer::from_slice(self.source.unit(data, key));
        if let Some(fields) = buffer.get_mut() {
            fields.set_pts(presented);
            fields.set_dts(decoded);
            fields.set_duration(gst::ClockTime::from_nseconds(nanos));
            if !key {
                fields.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        self.output.went_in(presented);
        let _stopped = self.appsrc.push_buffer(buffer);
        Ok(())
    }

    /// The next units are coded as `codec` says.
    ///
    /// # Errors
    /// [`FaultClass::Protocol`]: no configuration, or one of another codec, which needs another job.
    pub(crate) fn reconfigure(&mut self, codec: &Codec) -> Result<(), Fault> {
        let source = Source::new(codec)?;
        if !source.is_same_codec(&self.source) {
            let text = format!("{} cannot become {} within a job", self.source.name(), source.name());
            return Err(Fault { class: FaultClass::Protocol, text });
        }
        // Takes its place behind the units that wait.
        self.appsrc.set_caps(Some(&source.caps()));
        self.source = source;
        Ok(())
    }

    /// Lets what is in the pipeline come out; the output hears of the end.
    pub(crate) fn end(&self) {
        let _stopped = self.appsrc.end_of_stream();
    }
}

/// Starts `pipeline`. Its errors and its end go to `output`.
///
/// # Errors
/// [`FaultClass::Pipeline`]: an element does not start.
pub(crate) fn report(pipeline: &gst::Pipeline, output: &Output) -> Result<(), Fault> {
    let bus = pipeline.bus().ok_or_else(|| broken("the pipeline has no bus"))?;
    let told = output.clone();
    // Every message ends here: nobody takes them from the bus, so it must not keep them.
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Error(error) => {
                let element = error.src().map_or_else(String::new, |source| format!("{}: ", source.name()));
                told.fault(broken(format!("{element}{}", error.error())));
            }
            gst::MessageView::Eos(_) => _ = told.event(Event::Ended),
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
    // No clock: everything goes as fast as it comes.
    pipeline.use_clock(None::<&gst::Clock>);
    pipeline.set_state(gst::State::Playing).map_err(|_| broken("the pipeline does not start"))?;
    Ok(())
}

impl Drop for Feed {
    fn drop(&mut self) {
        let _process_ends_anyway = self.pipeline.set_state(gst::State::Null);
    }
}

pub(crate) fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    // Whole after every call, whoever panicked.
    ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Bytes of a configuration in caps.
pub(crate) fn codec_data(caps: &gst::CapsRef) -> Option<Bytes> {
    let buffer = caps.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
    let bytes = buffer.map_readable().ok()?;
    Some(Bytes::copy_from_slice(&bytes))
}

/// When the buffer of `sample` is presented, in the pipeline's time. Its PTS alone says nothing: x264enc shifts it and
/// its segment by 1,000 hours.
pub(crate) fn running_time(sample: &gst::Sample) -> Option<gst::ClockTime> {
    let pts = sample.buffer()?.pts()?;
    sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(pts)
}
