//! The header of one fragment: `moof`, and the header of the `mdat` that its samples fill.

use bytes::Bytes;

use super::TRACK_ID;
use super::boxes::Writer;

/// What a fragment says of one access unit. Times are in ticks of the track's timescale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub bytes: u32,
    pub duration: u32,
    /// PTS − DTS.
    pub composition_offset: i32,
    pub key: bool,
}

/// `sample_flags` (ISO/IEC 14496-12, §8.8.3.1): depends on nothing; or depends on others and is no sync sample.
const SYNC: u32 = 0x0200_0000;
const NON_SYNC: u32 = 0x0101_0000;

const TFHD_DEFAULT_DURATION: u32 = 0x8;
const TFHD_DEFAULT_FLAGS: u32 = 0x20;
const TFHD_DEFAULT_BASE_IS_MOOF: u32 = 0x2_0000;

const TRUN_DATA_OFFSET: u32 = 0x1;
const TRUN_DURATION: u32 = 0x100;
const TRUN_SIZE: u32 = 0x200;
const TRUN_FLAGS: u32 = 0x400;
const TRUN_COMPOSITION_OFFSET: u32 = 0x800;

const MFHD_BYTES: usize = 16;
const TFHD_BYTES: usize = 16;
const TFDT_BYTES: usize = 20;
const TRUN_BYTES: usize = 20;
const BOX_HEADER_BYTES: usize = 8;
/// With the 64-bit size that follows a size of 1.
const LARGE_BOX_HEADER_BYTES: usize = 16;

/// `moof` and `mdat` header of the fragment that holds `samples`, the first of which decodes at
/// `base_decode_time`. The caller appends the access units in order, unchanged.
///
/// # Panics
/// With 2^26 samples or more. A part has tens.
pub fn fragment_header(sequence: u32, base_decode_time: u64, samples: &[Sample]) -> Bytes {
    assert!(samples.len() < 1 << 26, "a fragment of {} samples", samples.len());
    let layout = Layout::of(samples);
    let traf_bytes =
        BOX_HEADER_BYTES + layout.tfhd_bytes() + TFDT_BYTES + TRUN_BYTES + layout.row_bytes() * samples.len();
    let moof_bytes = BOX_HEADER_BYTES + MFHD_BYTES + traf_bytes;

    let payload: u64 = samples.iter().map(|sample| u64::from(sample.bytes)).sum();
    let mdat_size = u32::try_from(payload + BOX_HEADER_BYTES as u64).ok();
    let mdat_header_bytes = if mdat_size.is_some() { BOX_HEADER_BYTES } else { LARGE_BOX_HEADER_BYTES };
    let data_offset = moof_bytes + mdat_header_bytes;

    let mut w = Writer::with_capacity(data_offset);
    w.boxed(b"moof", |w| {
        w.full(b"mfhd", 0, 0, |w| w.u32(sequence));
        w.boxed(b"traf", |w| {
            layout.track_header(w);
            w.full(b"tfdt", 1, 0, |w| w.u64(base_decode_time));
            w.full(b"trun", 1, layout.trun_flags(), |w| {
                w.u32(samples.len() as u32);
                w.u32(data_offset as u32);
                layout.rows(w, samples);
            });
        });
    });
    match mdat_size {
        Some(size) => {
            w.u32(size);
            w.bytes(b"mdat");
        }
        None => {
            w.u32(1);
            w.bytes(b"mdat");
            w.u64(payload + LARGE_BOX_HEADER_BYTES as u64);
        }
    }
    debug_assert_eq!(w.len(), data_offset);
    Bytes::from(w.finish())
}

/// How a fragment tells its samples.
enum Layout {
    /// Each with its own duration, size, flags and offset: video.
    Full,
    /// All keys of one duration, shown as decoded: audio. Said once, which saves 12 bytes a frame, 3 % of a
    /// 128 kbit/s stream.
    Uniform { duration: u32 },
}

impl Layout {
    fn of(samples: &[Sample]) -> Self {
        let Some(first) = samples.first() else { return Self::Full };
        let duration = first.duration;
        let alike =
            |sample: &Sample| sample.key && sample.composition_offset == 0 && sample.duration == duration;
        if samples.iter().all(alike) { Self::Uniform { duration } } else { Self::Full }
    }

    fn tfhd_bytes(&self) -> usize {
        match self {
            Self::Full => TFHD_BYTES,
            Self::Uniform { .. } => TFHD_BYTES + 8,
        }
    }

    fn row_bytes(&self) -> usize {
        match self {
            Self::Full => 16,
            Self::Uniform { .. } => 4,
        }
    }

    fn track_header(&self, w: &mut Writer) {
        match *self {
            Self::Full => w.full(b"tfhd", 0, TFHD_DEFAULT_BASE_IS_MOOF, |w| w.u32(TRACK_ID)),
            Self::Uniform { duration } => {
                let flags = TFHD_DEFAULT_BASE_IS_MOOF | TFHD_DEFAULT_DURATION | TFHD_DEFAULT_FLAGS;
                w.full(b"tfhd", 0, flags, |w| {
                    w.u32(TRACK_ID);
                    w.u32(duration);
                    w.u32(SYNC);
                });
            }
        }
    }

    fn trun_flags(&self) -> u32 {
        match self {
            Self::Full => TRUN_DATA_OFFSET | TRUN_DURATION | TRUN_SIZE | TRUN_FLAGS | TRUN_COMPOSITION_OFFSET,
            Self::Uniform { .. } => TRUN_DATA_OFFSET | TRUN_SIZE,
        }
    }

    fn rows(&self, w: &mut Writer, samples: &[Sample]) {
        match self {
            Self::Full => {
                for sample in samples {
                    w.u32(sample.duration);
                    w.u32(sample.bytes);
                    w.u32(if sample.key { SYNC } else { NON_SYNC });
                    w.u32(sample.composition_offset.cast_unsigned());
                }
            }
            Self::Uniform { .. } => samples.iter().for_each(|sample| w.u32(sample.bytes)),
        }
    }
}
