//! Log entries in, CMAF parts out. Pure, and deterministic: the same entries make the same bytes on any node.

use std::sync::Arc;

use bytes::Bytes;
use hls::{Part, SegmentStart};
use media::AccessUnit;
use media::CodecConfig;
use media::cmaf::{self, Init, Sample};
use relay::{Boundary, Frame, FrameError, Kind};

/// Packages one track.
pub struct Packager {
    init: Arc<Init>,
    /// In force from the next boundary on.
    init_next: Option<Arc<Init>>,
    open: Option<Open>,
}

/// The part whose units are still coming.
struct Open {
    boundary: Boundary,
    init: Arc<Init>,
    units: Vec<AccessUnit>,
}

impl Packager {
    pub fn new(codec: &CodecConfig) -> Self {
        Self { init: Arc::new(cmaf::init_segment(codec)), init_next: None, open: None }
    }

    /// Takes the next entry of the log. Returns the part that it completes.
    ///
    /// # Errors
    /// [`FrameError`] for an entry that is not what its kind says; the log is broken.
    pub fn push(&mut self, frame: &Frame) -> Result<Option<Part>, FrameError> {
        match frame.kind() {
            Kind::Unit => {
                if let Some(open) = &mut self.open {
                    open.units.push(frame.to_unit()?);
                }
                Ok(None)
            }
            Kind::Config => {
                self.init_next = Some(Arc::new(cmaf::init_segment(&frame.to_config()?)));
                Ok(None)
            }
            Kind::Boundary => {
                let boundary = frame.to_boundary()?;
                if let Some(init) = self.init_next.take() {
                    self.init = init;
                }
                let units = Vec::with_capacity(self.open.as_ref().map_or(0, |open| open.units.len()));
                let next = Open { boundary, init: self.init.clone(), units };
                Ok(self.open.replace(next).map(|open| open.close(Some(&boundary), boundary.start)))
            }
            Kind::End => Ok(self.open.take().map(|open| open.close(None, frame.dts()))),
        }
    }
}

impl Open {
    /// `next` begins where this part ends, at `end`, unless the timeline breaks between them.
    fn close(self, next: Option<&Boundary>, end: i64) -> Part {
        let Self { boundary, init, units } = self;
        let broken = next.is_some_and(|next| next.discontinuity_sequence != boundary.discontinuity_sequence);
        let gap = units.is_empty();
        let end = match units.last() {
            Some(last) if broken => last.dts + i64::from(last.duration),
            None if broken => end.min(boundary.start + i64::from(boundary.gap.unwrap_or(0))),
            _ => end,
        };
        Part {
            msn: boundary.msn,
            part: boundary.part,
            duration: span(boundary.start, end),
            independent: boundary.independent && !gap,
            gap,
            last: next.is_none_or(|next| next.msn != boundary.msn),
            body: if gap { Vec::new() } else { body(&boundary, units, end) },
            segment: SegmentStart {
                program_date_time_ms: boundary.program_date_time_ms,
                discontinuity_sequence: boundary.discontinuity_sequence,
                init,
            },
        }
    }
}

/// `moof`, `mdat` header, and the units' own bytes, untouched.
fn body(boundary: &Boundary, units: Vec<AccessUnit>, end: i64) -> Vec<Bytes> {
    let ends = units.iter().skip(1).map(|unit| unit.dts).chain([end]);
    let samples: Vec<_> = units
        .iter()
        .zip(ends)
        .map(|(unit, end)| Sample {
            bytes: unit.data.len() as u32,
            duration: span(unit.dts, end),
            composition_offset: (unit.pts - unit.dts) as i32,
            key: unit.key,
        })
        .collect();
    let start = units.first().map_or(boundary.start, |unit| unit.dts);
    let header = cmaf::fragment_header(sequence(boundary), start.unsigned_abs(), &samples);
    let mut body = Vec::with_capacity(1 + units.len());
    body.push(header);
    body.extend(units.into_iter().map(|unit| unit.data));
    body
}

/// `mfhd` numbers must rise; these do, and every node computes the same.
fn sequence(boundary: &Boundary) -> u32 {
    (boundary.msn as u32).wrapping_shl(8) | boundary.part.min(0xFF)
}

fn span(start: i64, end: i64) -> u32 {
    u32::try_from(end - start).unwrap_or(0)
}
