//! Pictures: decode once, scale each rung from the next larger one, encode each in a thread of its own.
//!
//!   appsrc ─▶ parser ─▶ decoder ─▶ scaler ─▶ tee ─▶ queue ─▶ encoder ─▶ parser ─▶ appsink     the largest rung
//!                                             └─▶ scaler ─▶ tee ─▶ queue ─▶ …                 the next

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::buffer::BufferMetaForeachAction;
use gstreamer::prelude::*;
use gstreamer::{PadProbeData, PadProbeReturn, PadProbeType};
use gstreamer_app::{AppSink, AppSinkCallbacks};
use gstreamer_video::{DownstreamForceKeyUnitEvent, VideoCaptionMeta};
use pipe::{Codec, Fault, FaultClass, FrameRate, FromEncoder, Rung, RungUnit, VideoJob};

use crate::element::{broken, make, set};
use crate::encoders::{self, Profile, Settings};
use crate::ledger::Ledger;
use crate::nal;
use crate::output::Output;
use crate::pipeline::{self, Feed, codec_data, lock, running_time};
use crate::source::Source;

/// Raw pictures before each encoder: enough to smooth one that takes long, few enough to see that it is behind.
const QUEUED_PICTURES: u32 = 3;

/// Builds the pipeline of `job` and starts it. The name of the encoder too.
///
/// # Errors
/// A [`Fault`] that ends the child.
pub(crate) fn start(job: &VideoJob, output: &Output) -> Result<(Feed, &'static str), Fault> {
    let source = Source::new(&job.source)?;
    if !source.is_video() {
        let text = format!("{} is no video", source.name());
        return Err(Fault { class: FaultClass::Protocol, text });
    }
    let profile = encoders::choose(&job.encoders)?;
    let decoder = source.decoder()?;
    let ledger = Arc::new(Mutex::new(Ledger::new(job.rungs.len())));

    let pipeline = gst::Pipeline::new();
    let appsrc = pipeline::appsrc(&source);
    let mut chain: Vec<gst::Element> = vec![appsrc.clone().upcast()];
    if let Some(parser) = source.parser() {
        chain.push(make(parser)?);
    }
    chain.push(decoder.clone());
    add_linked(&pipeline, &chain)?;

    let mut rungs = job.rungs.clone();
    rungs.sort_by_key(|rung| Reverse(u32::from(rung.width) * u32::from(rung.height)));
    let (mut above, mut filters) = (decoder.clone(), Vec::new());
    for (index, rung) in rungs.iter().enumerate() {
        let filter = make("capsfilter")?;
        filter.set_property("caps", rung_caps(rung, job.frame_rate, None));
        filters.push((filter.clone(), *rung));
        let scaler = make("videoconvertscale")?;
        set(&scaler, "add-borders", "true");
        set(&scaler, "qos", "false");
        let tee = make("tee")?;
        add_linked(&pipeline, &[scaler.clone(), filter, tee.clone()])?;
        above.link(&scaler).map_err(|error| broken(error.to_string()))?;
        let rung = RungOutput {
            index,
            rung: *rung,
            timescale: job.timescale,
            ledger: ledger.clone(),
            output: output.clone(),
        };
        let first = rung.add(&pipeline, profile)?;
        tee.link(&first).map_err(|error| broken(error.to_string()))?;
        above = tee;
    }
    pin_format(&decoder, job.frame_rate, filters)?;
    let feed = Feed::start(pipeline, appsrc, source, job.timescale, Some(ledger), output.clone())?;
    Ok((feed, profile.name))
}

/// What the encoder of `rung` gets, whatever the source becomes: its parameter sets must not change.
fn rung_caps(rung: &Rung, frame_rate: FrameRate, colours: Option<&gst::StructureRef>) -> gst::Caps {
    let mut caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", i32::from(rung.width))
        .field("height", i32::from(rung.height))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .field("framerate", fraction(frame_rate));
    for field in ["colorimetry", "chroma-site"] {
        if let Some(value) = colours.and_then(|colours| colours.get::<&str>(field).ok()) {
            caps = caps.field(field, value);
        }
    }
    caps.build()
}

fn fraction(rate: FrameRate) -> gst::Fraction {
    // Both were checked to fit; see `pipe::FrameRate`.
    gst::Fraction::new(rate.numerator as i32, rate.denominator as i32)
}

/// What a stream announces of itself is often wrong and may change; encoders plan with the measured rate, take every
/// picture for a whole one, and keep the colours of the first.
fn pin_format(
    decoder: &gst::Element,
    frame_rate: FrameRate,
    filters: Vec<(gst::Element, Rung)>,
) -> Result<(), Fault> {
    let pad = decoder.static_pad("src").ok_or_else(|| broken("the decoder has no output"))?;
    let mut unpinned = Some(filters);
    let unpinned = Mutex::new(move |caps: &gst::StructureRef| {
        for (filter, rung) in unpinned.take().into_iter().flatten() {
            filter.set_property("caps", rung_caps(&rung, frame_rate, Some(caps)));
        }
    });
    pad.add_probe(PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(PadProbeData::Event(event)) = &mut info.data
            && let gst::EventView::Caps(caps) = event.view()
        {
            let mut caps = caps.caps_owned();
            for structure in caps.make_mut().iter_mut() {
                structure.set("framerate", fraction(frame_rate));
                structure.set("interlace-mode", "progressive");
                structure.remove_field("field-order");
            }
            if let Some(structure) = caps.structure(0)
                && let Ok(mut pin) = unpinned.lock()
            {
                pin(structure);
            }
            *event = gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build();
        }
        PadProbeReturn::Ok
    });
    Ok(())
}

fn add_linked(pipeline: &gst::Pipeline, elements: &[gst::Element]) -> Result<(), Fault> {
    let failed = |error: gst::glib::BoolError| broken(error.to_string());
    pipeline.add_many(elements).map_err(failed)?;
    gst::Element::link_many(elements).map_err(failed)
}

/// One encoder, and where its units go.
#[derive(Clone)]
pub(crate) struct RungOutput {
    /// In order of size; the ledger's and the tally's.
    pub(crate) index: usize,
    pub(crate) rung: Rung,
    pub(crate) timescale: u32,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) output: Output,
}

impl RungOutput {
    /// Adds queue, encoder and all that is behind to `pipeline`; the queue.
    pub(crate) fn add(self, pipeline: &gst::Pipeline, profile: &Profile) -> Result<gst::Element, Fault> {
        let queue = make("queue")?;
        queue.set_property("max-size-buffers", QUEUED_PICTURES);
        queue.set_property("max-size-bytes", 0_u32);
        queue.set_property("max-size-time", 0_u64);
        let encoder = profile.element(Settings { kbit_s: self.rung.kbit_s, preset: self.rung.preset })?;
        self.ask_for_keys(&encoder)?;
        let parser = make("h264parse")?;
        let avc =
            gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build();
        let sink = AppSink::builder().sync(false).async_(false).caps(&avc).build();
        let mut config = None;
        sink.set_callbacks(
            AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    self.emit(&sample, &mut config).map_err(|Gone| gst::FlowError::Eos)?;
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        let mut elements = vec![queue.clone()];
        if !profile.takes_i420() {
            elements.push(make("videoconvert")?);
        }
        elements.extend([encoder, parser, sink.upcast()]);
        add_linked(pipeline, &elements)?;
        Ok(queue)
    }

    /// Before each picture, the encoder is asked for a key if one is due.
    fn ask_for_keys(&self, encoder: &gst::Element) -> Result<(), Fault> {
        let pad = encoder.static_pad("sink").ok_or_else(|| broken("the encoder has no input"))?;
        let rung = self.clone();
        pad.add_probe(PadProbeType::BUFFER, move |pad, info| {
            let Some(PadProbeData::Buffer(buffer)) = &mut info.data else { return PadProbeReturn::Ok };
            // Captions go round the encoder (nal.rs); some encoders would write them too.
            if buffer.iter_meta::<VideoCaptionMeta>().next().is_some() {
                drop_captions(buffer.make_mut());
            }
            // The pipeline's segment begins at zero, so that PTS is running time here.
            let Some((pts, ticks)) =
                buffer.pts().and_then(|pts| Some((pts, rung.output.ticks(pts, rung.timescale)?)))
            else {
                return PadProbeReturn::Ok;
            };
            if lock(&rung.ledger).before_encoder(rung.index, ticks) {
                let event = DownstreamForceKeyUnitEvent::builder()
                    .timestamp(pts)
                    .running_time(pts)
                    .all_headers(true)
                    .build();
                let _judged_by_what_comes_out = pad.send_event(event);
            }
            PadProbeReturn::Ok
        });
        Ok(())
    }

    /// Hands on what the encoder made.
    fn emit(&self, sample: &gst::Sample, config: &mut Option<Bytes>) -> Result<(), Gone> {
        let Rung { number, .. } = self.rung;
        let record = sample.caps().and_then(codec_data);
        if let Some(record) = record
            && config.as_ref() != Some(&record)
        {
            let codec = Codec { sample_entry: *b"avc1", record: record.clone() };
            *config = Some(record);
            self.send(FromEncoder::RungConfig { rung: number, codec })?;
        }
        let (Some(buffer), Some(time)) = (sample.buffer(), running_time(sample)) else { return Ok(()) };
        let Some(pts) = self.output.ticks(time, self.timescale) else { return Ok(()) };
        let Ok(bytes) = buffer.map_readable() else { return Ok(()) };
        let Some(key) = nal::is_key(&bytes) else { return Ok(()) };
        let (companion, faults) = lock(&self.ledger).encoded(self.index, pts, key);
        for fault in faults {
            let what =
                if fault.class == FaultClass::MissedKey { "has no key at" } else { "has an unasked key at" };
            let text = format!("rung {number} {what} {}", fault.pts);
            self.send(FromEncoder::Fault(Fault { class: fault.class, text }))?;
        }
        let captions = companion.as_ref().and_then(|companion| companion.captions.as_ref());
        let duration =
            companion.as_ref().map_or_else(|| self.duration(buffer), |companion| companion.duration);
        let data = nal::outgoing(&bytes, captions);
        self.output.came_out(self.index, time);
        self.send(FromEncoder::Unit(RungUnit { rung: number, pts, duration, key, data }))
    }

    /// Of a picture that the decoder made up.
    fn duration(&self, buffer: &gst::BufferRef) -> u32 {
        let nanos = u128::from(buffer.duration().map_or(0, gst::ClockTime::nseconds));
        u32::try_from(nanos * u128::from(self.timescale) / 1_000_000_000).unwrap_or(u32::MAX)
    }

    fn send(&self, message: FromEncoder) -> Result<(), Gone> {
        if self.output.send(message) { Ok(()) } else { Err(Gone) }
    }
}

/// Nobody writes to the pipe any more.
struct Gone;

fn drop_captions(buffer: &mut gst::BufferRef) {
    buffer.foreach_meta_mut(|mut meta| {
        let captions = meta.downcast_ref::<VideoCaptionMeta>().is_some();
        let action = if captions { BufferMetaForeachAction::Remove } else { BufferMetaForeachAction::Keep };
        ControlFlow::Continue(action)
    });
}
