//! Sound: decode, mix and resample, encode.
//!
//!   appsrc ─▶ decoder ─▶ audioconvert ─▶ audioresample ─▶ encoder ─▶ appsink
//!
//! Stamps are those of the buffers. Counting samples instead would drift off the stream clock with the first loss.

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSinkCallbacks};
use pipe::{AudioJob, AudioTarget, Codec, Fault, FaultClass, FromEncoder, RungUnit};

use crate::element::{self, add_linked, make, set};
use crate::output::Output;
use crate::pipeline::{self, Feed, codec_data, running_time};
use crate::source::Source;

/// An encoder of sound.
struct Encoder {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    /// Samples that its decoder gives before those of the buffer, and that GStreamer does not know of. Without taking
    /// them off, the sound would come that much after its stamp.
    delay: i64,
}

/// libopus, in the middle of its range: twice as cheap as the highest complexity, and nobody hears it (RFC 6716).
const OPUS: &[Encoder] = &[Encoder {
    name: "opusenc",
    settings: &[("complexity", "5"), ("frame-size", "20")],
    // It takes off what it delays, but for packets that begin; see `cut_off`.
    delay: 0,
}];

const AAC: &[Encoder] = &[
    Encoder { name: "avenc_aac", settings: &[], delay: 1_024 },
    Encoder { name: "voaacenc", settings: &[], delay: 1_600 },
];

/// Samples of every AAC-LC frame (ISO/IEC 14496-3, §4.5.2.1.1).
const AAC_FRAME: u32 = 1_024;

/// Builds the pipeline of `job` and starts it. The name of the encoder too.
///
/// # Errors
/// A [`Fault`] that ends the child.
pub(crate) fn start(job: &AudioJob, output: &Output) -> Result<(Feed, &'static str), Fault> {
    let source = Source::new(&job.source)?;
    if source.is_video() {
        let text = format!("{} is no audio", source.name());
        return Err(Fault { class: FaultClass::Protocol, text });
    }
    let known = match job.target {
        AudioTarget::Opus => OPUS,
        AudioTarget::Aac => AAC,
    };
    let Some(encoder) = known.iter().find(|encoder| element::exists(encoder.name)) else {
        let names: Vec<_> = known.iter().map(|encoder| encoder.name).collect();
        let package = known.first().map_or("", |encoder| element::package_of(encoder.name));
        let text = format!("no encoder of sound: there is no {}{package}", names.join(" or "));
        return Err(Fault { class: FaultClass::MissingEncoder, text });
    };

    let encode = make(encoder.name)?;
    for (property, value) in encoder.settings {
        set(&encode, property, value);
    }
    set(&encode, "bitrate", &(job.kbit_s * 1_000).to_string());
    let raw = gst::Caps::builder("audio/x-raw")
        .field("rate", job.rate as i32)
        .field("channels", i32::from(job.channels))
        .build();
    let filter = make("capsfilter")?;
    filter.set_property("caps", raw);
    let appsrc = pipeline::appsrc(&source);
    let sink = sink(job, encoder.delay, output.clone());
    let chain = [
        appsrc.clone().upcast(),
        source.decoder()?,
        make("audioconvert")?,
        make("audioresample")?,
        filter,
        encode,
        sink.upcast(),
    ];
    let pipeline = gst::Pipeline::new();
    add_linked(&pipeline, &chain)?;
    let feed = Feed::start(pipeline, appsrc, source, job.timescale, None, output.clone())?;
    Ok((feed, encoder.name))
}

fn sink(job: &AudioJob, delay: i64, output: Output) -> AppSink {
    let AudioJob { target, rate, .. } = *job;
    let caps = match target {
        AudioTarget::Opus => gst::Caps::new_empty_simple("audio/x-opus"),
        AudioTarget::Aac => {
            gst::Caps::builder("audio/mpeg").field("mpegversion", 4).field("stream-format", "raw").build()
        }
    };
    let sink = AppSink::builder().sync(false).async_(false).caps(&caps).build();
    let mut config = None;
    sink.set_callbacks(
        AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                for message in messages(&sample, target, rate, delay, &mut config, &output) {
                    if !output.send(message) {
                        return Err(gst::FlowError::Eos);
                    }
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    sink
}

/// The configuration if it is new, and the frame.
fn messages(
    sample: &gst::Sample,
    target: AudioTarget,
    rate: u32,
    delay: i64,
    config: &mut Option<Bytes>,
    output: &Output,
) -> Vec<FromEncoder> {
    let mut messages = Vec::new();
    let (sample_entry, record) = match target {
        AudioTarget::Aac => (*b"mp4a", sample.caps().and_then(codec_data)),
        AudioTarget::Opus => (*b"Opus", sample.caps().and_then(opus_head)),
    };
    if let Some(record) = record
        && config.as_ref() != Some(&record)
    {
        *config = Some(record.clone());
        messages.push(FromEncoder::RungConfig { rung: 0, codec: Codec { sample_entry, record } });
    }
    let frame = (|| {
        let buffer = sample.buffer().filter(|buffer| !buffer.flags().contains(gst::BufferFlags::HEADER))?;
        let time = running_time(sample)?;
        let data = Bytes::copy_from_slice(&buffer.map_readable().ok()?);
        let duration = match target {
            AudioTarget::Aac => AAC_FRAME,
            AudioTarget::Opus => media::codec::opus::samples(&data)?,
        };
        let pts = output.ticks(time, rate)? - delay - cut_off(buffer, duration, rate);
        output.came_out(0, time, 1);
        Some(FromEncoder::Unit(RungUnit { rung: 0, pts, duration, key: true, data }))
    })();
    messages.extend(frame);
    messages
}

/// Samples that a player is told to cut off the front of a packet with which sound begins, at the start or after a hole.
/// Its stamp is that of the first sample after them; ours are of the first sample.
fn cut_off(buffer: &gst::BufferRef, duration: u32, rate: u32) -> i64 {
    let Some(left) = buffer.duration().filter(|_| buffer.flags().contains(gst::BufferFlags::DISCONT)) else {
        return 0;
    };
    let left = (u128::from(left.nseconds()) * u128::from(rate) + 500_000_000) / 1_000_000_000;
    i64::try_from(left).map_or(0, |left| (i64::from(duration) - left).max(0))
}

/// The first stream header (RFC 7845, §5.1).
fn opus_head(caps: &gst::CapsRef) -> Option<Bytes> {
    let headers = caps.structure(0)?.get::<gst::ArrayRef<'_>>("streamheader").ok()?;
    let head = headers.first()?.get::<gst::Buffer>().ok()?;
    let bytes = head.map_readable().ok()?;
    Some(Bytes::copy_from_slice(&bytes))
}
