//! Pictures: decode once, scale each rung from the next larger one, encode each in a thread of its own.
//!
//!   appsrc ─▶ parser ─▶ decoder ─▶ videoconvert ─▶ appsink ─▶ Cascade ─┬▶ appsrc ─▶ encoder ─▶ parser ─▶ appsink
//!                                                                      └▶ appsrc ─▶ …

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::buffer::BufferMetaForeachAction;
use gstreamer::prelude::*;
use gstreamer::{PadProbeData, PadProbeReturn, PadProbeType};
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc};
use gstreamer_video::{DownstreamForceKeyUnitEvent, VideoCaptionMeta, VideoMeta};
use pipe::{Codec, Fault, FaultClass, FromEncoder, Rung, RungUnit, VideoJob};

use crate::element::{add_linked, broken, make, set};
use crate::encoders::{self, Profile, Settings};
use crate::ledger::Ledger;
use crate::nal;
use crate::output::Output;
use crate::pipeline::{self, Feed, codec_data, lock, running_time};
use crate::scale::{Cascade, ScaleError};
use crate::source::Source;

/// Raw pictures before each encoder: enough to smooth one that takes long, few enough to see that it is behind.
const QUEUED_PICTURES: u64 = 3;

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
    let mut rungs = job.rungs.clone();
    rungs.sort_by_key(|rung| Reverse(u32::from(rung.width) * u32::from(rung.height)));
    let every: Vec<_> = rungs.iter().map(|rung| rung.every).collect();
    let ledger = Arc::new(Mutex::new(Ledger::new(&every)));

    let pipeline = gst::Pipeline::new();
    let mut cascade = Cascade::new(job.frame_rate);
    for (index, &rung) in rungs.iter().enumerate() {
        let (timescale, ledger, output) = (job.timescale, ledger.clone(), output.clone());
        let encoder = RungOutput { index, rung, timescale, ledger, output }.add(&pipeline, profile)?;
        cascade.add(rung, encoder);
    }

    let appsrc = pipeline::appsrc(&source);
    let mut chain: Vec<gst::Element> = vec![appsrc.clone().upcast()];
    if let Some(parser) = source.parser() {
        chain.push(make(parser)?);
    }
    // Does nothing to what is 8 bit and 4:2:0 already.
    let converter = make("videoconvert")?;
    set(&converter, "qos", "false");
    chain.extend([
        decoder,
        converter,
        decoded(cascade, ledger.clone(), job.timescale, output.clone())?.upcast(),
    ]);
    add_linked(&pipeline, &chain)?;
    let feed = Feed::start(pipeline, appsrc, source, job.timescale, Some(ledger), output.clone())?;
    Ok((feed, profile.name))
}

/// Where decoded pictures go.
fn decoded(
    cascade: Cascade,
    ledger: Arc<Mutex<Ledger>>,
    timescale: u32,
    output: Output,
) -> Result<AppSink, Fault> {
    let i420 = gst::Caps::builder("video/x-raw").field("format", "I420").build();
    let sink = AppSink::builder().sync(false).async_(false).caps(&i420).build();
    // Padded pictures are welcome; else the decoder would copy each.
    let pad = sink.static_pad("sink").ok_or_else(|| broken("an appsink without an input"))?;
    pad.add_probe(PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        match info.query_mut().map(gst::QueryRef::view_mut) {
            Some(gst::QueryViewMut::Allocation(allocation)) => {
                allocation.add_allocation_meta::<VideoMeta>(None);
                PadProbeReturn::Handled
            }
            _ => PadProbeReturn::Ok,
        }
    });
    let cascade = Arc::new(Mutex::new(cascade));
    let ending = cascade.clone();
    sink.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let wants = |rung, time| {
                    let pts = output.ticks(time, timescale);
                    let wanted = pts.filter(|pts| lock(&ledger).wants(rung, *pts));
                    wanted.inspect(|pts| output.begun(*pts)).is_some()
                };
                let scaled = cascade.lock().map_err(|_| gst::FlowError::Error)?.picture(&sample, wants);
                match scaled {
                    Ok(()) => Ok(gst::FlowSuccess::Ok),
                    Err(ScaleError::Stopped) => Err(gst::FlowError::Eos),
                    Err(error) => {
                        output.fault(broken(error.to_string()));
                        Err(gst::FlowError::Error)
                    }
                }
            })
            .eos(move |_| {
                if let Ok(cascade) = ending.lock() {
                    cascade.end();
                }
            })
            .build(),
    );
    Ok(sink)
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
    /// Adds the encoder and all that is behind it to `pipeline`; what takes its pictures, in a thread of its own.
    pub(crate) fn add(self, pipeline: &gst::Pipeline, profile: &Profile) -> Result<AppSrc, Fault> {
        let pictures = AppSrc::builder()
            .format(gst::Format::Time)
            .block(true)
            .max_buffers(QUEUED_PICTURES)
            .max_bytes(0)
            .max_time(gst::ClockTime::ZERO)
            .build();
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
        let mut elements = vec![pictures.clone().upcast()];
        if !profile.takes_i420() {
            elements.push(make("videoconvert")?);
        }
        elements.extend([encoder, parser, sink.upcast()]);
        add_linked(pipeline, &elements)?;
        Ok(pictures)
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
        let captions = companion.as_ref().map_or(&[][..], |companion| &companion.captions);
        let duration =
            companion.as_ref().map_or_else(|| self.duration(buffer), |companion| companion.duration);
        let data = nal::outgoing(&bytes, captions);
        self.output.came_out(self.index, time, self.rung.every);
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
