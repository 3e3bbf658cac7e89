//! Pictures into the sizes of the rungs, each from the next larger one.
//!
//! Not GStreamer's scaler: that of 1.22 takes four times the processor time of FFmpeg's. Its cheap method looks at two
//! pixels however many there are between, and with borders it shifts the picture to keep a shape that is a pixel off:
//! both together cost a small rung 11 dB.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoBufferPool, VideoFrameRef, VideoInfo};
use pipe::{FrameRate, Rung};

use crate::pipeline::running_time;
use crate::resample::{Plane, PlaneMut, Resampler};

/// How much two shapes may differ and still be filled from edge to edge: 854x480 is not quite 16:9.
const SHAPE_TOLERANCE: f64 = 0.02;

/// Y, U and V without light, in limited range.
const BLACK: [u8; 3] = [16, 128, 128];

/// The way from the decoder to the encoders.
pub(crate) struct Cascade {
    frame_rate: FrameRate,
    /// From the largest on.
    steps: Vec<Step>,
}

struct Step {
    rung: Rung,
    encoder: AppSrc,
    scaler: Scaler,
    /// What the encoder gets, from the first picture on. It never changes: parameter sets depend on it.
    format: Option<Format>,
}

struct Format {
    info: VideoInfo,
    pool: gst::BufferPool,
}

/// Why a picture could not be scaled. The pipeline ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    #[error("a picture without a format")]
    Format,
    #[error("no memory for a picture: {0}")]
    Memory(String),
    #[error("a picture smaller than its format says")]
    Planes,
    /// Nobody takes pictures any more.
    #[error("the encoder stopped")]
    Stopped,
}

impl Cascade {
    pub(crate) fn new(frame_rate: FrameRate) -> Self {
        Self { frame_rate, steps: Vec::new() }
    }

    /// Pictures of `rung` go to `encoder`. From the largest rung on.
    pub(crate) fn add(&mut self, rung: Rung, encoder: AppSrc) {
        self.steps.push(Step { rung, encoder, scaler: Scaler::default(), format: None });
    }

    /// Scales a picture of the decoder for every rung, by its place in the cascade, that `wants` it. Waits for an
    /// encoder that is behind.
    ///
    /// # Errors
    /// [`ScaleError`].
    pub(crate) fn picture(
        &mut self,
        sample: &gst::Sample,
        mut wants: impl FnMut(usize, gst::ClockTime) -> bool,
    ) -> Result<(), ScaleError> {
        let info =
            sample.caps().and_then(|caps| VideoInfo::from_caps(caps).ok()).ok_or(ScaleError::Format)?;
        let Some(time) = running_time(sample) else { return Ok(()) };
        let duration = sample.buffer().and_then(gst::BufferRef::duration);
        let mut above = (sample.buffer_owned().ok_or(ScaleError::Format)?, info);
        for (index, Step { rung, encoder, scaler, format }) in self.steps.iter_mut().enumerate() {
            if !wants(index, time) {
                continue;
            }
            let format = match format {
                Some(format) => format,
                None => {
                    let caps = rung_caps(rung, self.frame_rate, Some(&above.1));
                    encoder.set_caps(Some(&caps));
                    format.insert(Format::new(&caps)?)
                }
            };
            let mut scaled =
                format.pool.acquire_buffer(None).map_err(|error| ScaleError::Memory(error.to_string()))?;
            let fields = scaled.get_mut().ok_or(ScaleError::Planes)?;
            fields.set_pts(time);
            fields.set_duration(duration);
            let source = VideoFrameRef::from_buffer_ref_readable(&above.0, &above.1);
            let target = VideoFrameRef::from_buffer_ref_writable(fields, &format.info);
            let (Ok(source), Ok(mut target)) = (source, target) else { return Err(ScaleError::Planes) };
            scaler.scale(&source, &mut target).ok_or(ScaleError::Planes)?;
            drop((source, target));
            encoder.push_buffer(scaled.clone()).map_err(|_| ScaleError::Stopped)?;
            above = (scaled, format.info.clone());
        }
        Ok(())
    }

    /// There are no more pictures.
    pub(crate) fn end(&self) {
        for step in &self.steps {
            let _stopped = step.encoder.end_of_stream();
        }
    }
}

impl Format {
    fn new(caps: &gst::Caps) -> Result<Self, ScaleError> {
        let failed = |error: gst::glib::BoolError| ScaleError::Memory(error.to_string());
        let info = VideoInfo::from_caps(caps).map_err(failed)?;
        let pool = VideoBufferPool::new();
        let mut config = pool.config();
        // As many as the encoder's queue and references take, which are few; the pool uses them again.
        config.set_params(Some(caps), info.size() as u32, 0, 0);
        pool.set_config(config).map_err(failed)?;
        pool.set_active(true).map_err(failed)?;
        Ok(Self { info, pool: pool.upcast() })
    }
}

impl Drop for Format {
    fn drop(&mut self) {
        let _process_ends_anyway = self.pool.set_active(false);
    }
}

/// What the encoder of `rung` gets, whatever the source is and becomes; the colours of `source` if there is one.
pub(crate) fn rung_caps(rung: &Rung, frame_rate: FrameRate, source: Option<&VideoInfo>) -> gst::Caps {
    let frame_rate = frame_rate.divided(rung.every);
    // The rate was checked to fit; see `pipe::FrameRate`.
    let frame_rate = gst::Fraction::new(frame_rate.numerator as i32, frame_rate.denominator as i32);
    let mut caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", i32::from(rung.width))
        .field("height", i32::from(rung.height))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .field("interlace-mode", "progressive")
        .field("framerate", frame_rate);
    if let Some(source) = source {
        caps = caps.field("colorimetry", source.colorimetry().to_string());
    }
    caps.build()
}

/// Of one step of the cascade.
#[derive(Default)]
struct Scaler {
    luma: Resampler,
    chroma: Resampler,
}

impl Scaler {
    /// `None` if a plane is shorter than it says.
    fn scale(
        &mut self,
        source: &VideoFrameRef<&gst::BufferRef>,
        target: &mut VideoFrameRef<&mut gst::BufferRef>,
    ) -> Option<()> {
        let inner = Inner::of(source.info(), target.info());
        for component in 0..3 {
            let stride = |strides: &[i32]| usize::try_from(*strides.get(component as usize)?).ok();
            let from = Plane {
                stride: stride(source.plane_stride())?,
                width: source.comp_width(component) as usize,
                height: source.comp_height(component) as usize,
                samples: source.plane_data(component).ok()?,
            };
            let stride = stride(target.plane_stride())?;
            let samples = target.plane_data_mut(component).ok()?;
            if inner.has_borders {
                samples.fill(BLACK[component as usize]);
            }
            // Chroma has half of everything.
            let (resampler, inner) =
                if component == 0 { (&mut self.luma, inner) } else { (&mut self.chroma, inner.halved()) };
            let Inner { left, top, width, height, .. } = inner;
            let samples = samples.get_mut(top as usize * stride + left as usize..)?;
            let to = PlaneMut { samples, stride, width: width as usize, height: height as usize };
            resampler.resample(from, to)?;
        }
        Some(())
    }
}

/// Where in the target the picture is; all even.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inner {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    has_borders: bool,
}

impl Inner {
    fn of(source: &VideoInfo, target: &VideoInfo) -> Self {
        let pixel = source.par();
        let pixel = if pixel.numer() > 0 && pixel.denom() > 0 {
            f64::from(pixel.numer()) / f64::from(pixel.denom())
        } else {
            1.0
        };
        let shape = f64::from(source.width()) * pixel / f64::from(source.height());
        Self::fit(shape, target.width(), target.height())
    }

    /// `shape` is width through height, as it is shown.
    fn fit(shape: f64, width: u32, height: u32) -> Self {
        let wider = shape / (f64::from(width) / f64::from(height));
        let even = |side: f64, whole: u32| ((side / 2.0).round() as u32 * 2).clamp(2, whole);
        let inner = |inner_width: u32, inner_height: u32, has_borders| Self {
            left: (width - inner_width) / 4 * 2,
            top: (height - inner_height) / 4 * 2,
            width: inner_width,
            height: inner_height,
            has_borders,
        };
        if !wider.is_finite() || (wider - 1.0).abs() <= SHAPE_TOLERANCE {
            inner(width, height, false)
        } else if wider > 1.0 {
            inner(width, even(f64::from(height) / wider, height), true)
        } else {
            inner(even(f64::from(width) * wider, width), height, true)
        }
    }

    fn halved(self) -> Self {
        let Self { left, top, width, height, has_borders } = self;
        Self { left: left / 2, top: top / 2, width: width / 2, height: height / 2, has_borders }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(width: u32, height: u32) -> VideoInfo {
        gst::init().expect("GStreamer starts");
        VideoInfo::builder(gstreamer_video::VideoFormat::I420, width, height).build().expect("a format")
    }

    /// Fills each plane with what `pixel` says of it, from 0 to 1 in both directions.
    fn frame(info: &VideoInfo, pixel: fn(usize, f64, f64) -> u8) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(info.size()).expect("memory");
        let mut frame =
            VideoFrameRef::from_buffer_ref_writable(buffer.get_mut().expect("ours"), info).expect("it fits");
        for plane in 0..3 {
            let (width, height) = (info.comp_width(plane) as usize, info.comp_height(plane) as usize);
            let stride = info.stride()[plane as usize] as usize;
            let data = frame.plane_data_mut(plane.into()).expect("it is there");
            for (row, line) in data.chunks_mut(stride).take(height).enumerate() {
                for (column, sample) in line.iter_mut().take(width).enumerate() {
                    let at = |index: usize, size: usize| (index as f64 + 0.5) / size as f64;
                    *sample = pixel(plane as usize, at(column, width), at(row, height));
                }
            }
        }
        drop(frame);
        buffer
    }

    fn gradient(plane: usize, x: f64, y: f64) -> u8 {
        [x * 200.0 + 20.0, y * 200.0 + 20.0, (x + y) * 100.0 + 20.0][plane] as u8
    }

    /// At the middle, and two pixels from each edge.
    fn worst_difference(ours: &gst::Buffer, expected: &gst::Buffer, info: &VideoInfo) -> u8 {
        let ours = VideoFrameRef::from_buffer_ref_readable(ours, info).expect("it fits");
        let expected = VideoFrameRef::from_buffer_ref_readable(expected, info).expect("it fits");
        let mut worst = 0;
        for plane in 0..3 {
            let (width, height) = (info.comp_width(plane) as usize, info.comp_height(plane) as usize);
            let stride = info.stride()[plane as usize] as usize;
            let (ours, expected) = (
                ours.plane_data(plane.into()).expect("there"),
                expected.plane_data(plane.into()).expect("there"),
            );
            for row in 2..height - 2 {
                for column in 2..width - 2 {
                    let at = row * stride + column;
                    worst = worst.max(ours[at].abs_diff(expected[at]));
                }
            }
        }
        worst
    }

    fn scaled(source: &gst::Buffer, from: &VideoInfo, to: &VideoInfo) -> gst::Buffer {
        let mut target = gst::Buffer::with_size(to.size()).expect("memory");
        let source = VideoFrameRef::from_buffer_ref_readable(source, from).expect("it fits");
        let mut frame =
            VideoFrameRef::from_buffer_ref_writable(target.get_mut().expect("ours"), to).expect("it fits");
        Scaler::default().scale(&source, &mut frame).expect("every plane is there");
        drop(frame);
        target
    }

    /// Nothing moves, in any plane, also where rows are padded: 854 is no multiple of four.
    #[test]
    fn a_gradient_stays_where_it_is() {
        for (from, to) in [((1280, 720), (854, 480)), ((854, 480), (640, 360)), ((16, 16), (160, 160))] {
            let (from, to) = (info(from.0, from.1), info(to.0, to.1));
            let ours = scaled(&frame(&from, gradient), &from, &to);
            // A sixteenth of the range in the smallest picture is twelve steps.
            let allowed = if from.width() == 16 { 13 } else { 2 };
            let worst = worst_difference(&ours, &frame(&to, gradient), &to);
            assert!(worst <= allowed, "{}x{}: off by {worst}", to.width(), to.height());
        }
    }

    /// Fine stripes become grey, not coarse stripes.
    #[test]
    fn what_is_too_fine_becomes_its_mean() {
        let (from, to) = (info(1280, 720), info(160, 90));
        let stripes = frame(&from, |_, x, _| if ((x * 1280.0) as u32).is_multiple_of(2) { 0 } else { 200 });
        let ours = scaled(&stripes, &from, &to);
        let ours = VideoFrameRef::from_buffer_ref_readable(&ours, &to).expect("it fits");
        // At the edges half a kernel is missing.
        let inside = ours.plane_data(0).expect("luma").iter().take(158).skip(2);
        assert!(inside.clone().all(|luma| luma.abs_diff(100) <= 3), "{inside:?}");
    }

    #[test]
    fn another_shape_gets_black_borders() {
        let (from, to) = (info(480, 360), info(640, 360));
        let white = frame(&from, |plane, _, _| if plane == 0 { 235 } else { 90 });
        let ours = scaled(&white, &from, &to);
        let ours = VideoFrameRef::from_buffer_ref_readable(&ours, &to).expect("it fits");
        let (luma, chroma) = (ours.plane_data(0).expect("luma"), ours.plane_data(1).expect("chroma"));
        assert_eq!((luma[79], luma[80], luma[559], luma[560]), (16, 235, 235, 16));
        assert_eq!((chroma[39], chroma[40], chroma[279], chroma[280]), (128, 90, 90, 128));
    }

    #[test]
    fn shapes_fit_with_even_sides() {
        let inner = |left, top, width, height, has_borders| Inner { left, top, width, height, has_borders };
        assert_eq!(Inner::fit(16.0 / 9.0, 854, 480), inner(0, 0, 854, 480, false));
        assert_eq!(Inner::fit(4.0 / 3.0, 640, 360), inner(80, 0, 480, 360, true));
        assert_eq!(Inner::fit(21.0 / 9.0, 640, 360), inner(0, 42, 640, 274, true));
        assert_eq!(Inner::fit(f64::NAN, 640, 360), inner(0, 0, 640, 360, false));
        assert_eq!(Inner::fit(1e9, 640, 360).height, 2);
        assert_eq!(Inner::fit(1e-9, 640, 360).width, 2);
    }
}
