//! Messages into bytes.

use bytes::buf::Chain;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::message::{
    FLAG_FORCE, FLAG_KEY, JOB_AUDIO, JOB_VIDEO, KIND_CONFIG, KIND_END, KIND_FAULT, KIND_JOB, KIND_MACHINE,
    KIND_PROGRESS, KIND_READY, KIND_RUNG_CONFIG, KIND_RUNG_UNIT, KIND_SOURCE_UNIT,
};
use crate::{
    AudioJob, AudioTarget, Codec, FIELDS_BYTES_MAX, Fault, FaultClass, FromEncoder, HEADER_BYTES, Job,
    Machine, Message, NAME_BYTES_MAX, Preset, Progress, RECORD_BYTES_MAX, Rung, RungUnit, SourceUnit,
    TEXT_BYTES_MAX, ToEncoder, UNIT_BYTES_MAX, VERSION, VideoJob,
};

/// A message the other end would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message with {bytes} bytes of payload, above the limit of {max}")]
pub struct TooLong {
    pub bytes: usize,
    pub max: usize,
}

/// The header's fields but the length.
#[derive(Default)]
struct Head {
    kind: u8,
    flags: u8,
    rung: u16,
    pts: i64,
    dts: i64,
    duration: u32,
}

impl Head {
    fn of(kind: u8) -> Self {
        Self { kind, ..Self::default() }
    }

    fn with_fields(self, fields: &[u8]) -> Result<Chain<Bytes, Bytes>, TooLong> {
        self.write(fields, Bytes::new(), FIELDS_BYTES_MAX)
    }

    fn with_unit(self, unit: &Bytes) -> Result<Chain<Bytes, Bytes>, TooLong> {
        self.write(&[], unit.clone(), UNIT_BYTES_MAX)
    }

    fn write(self, fields: &[u8], body: Bytes, max: usize) -> Result<Chain<Bytes, Bytes>, TooLong> {
        let payload_bytes = fields.len() + body.len();
        if payload_bytes > max {
            return Err(TooLong { bytes: payload_bytes, max });
        }
        let mut head = BytesMut::with_capacity(HEADER_BYTES + fields.len());
        head.put_u32_le((HEADER_BYTES + payload_bytes) as u32);
        head.put_u8(self.kind);
        head.put_u8(self.flags);
        head.put_u16_le(self.rung);
        head.put_i64_le(self.pts);
        head.put_i64_le(self.dts);
        head.put_u32_le(self.duration);
        head.put_u32_le(0);
        head.put_slice(fields);
        Ok(head.freeze().chain(body))
    }
}

impl Message for ToEncoder {
    fn encode(&self) -> Result<Chain<Bytes, Bytes>, TooLong> {
        match self {
            Self::Job(job) => Head::of(KIND_JOB).with_fields(&fields_of_job(job)?),
            Self::Unit(SourceUnit { pts, dts, duration, key, force, data }) => {
                let flags = flag(FLAG_KEY, *key) | flag(FLAG_FORCE, *force);
                let head = Head {
                    kind: KIND_SOURCE_UNIT,
                    flags,
                    rung: 0,
                    pts: *pts,
                    dts: *dts,
                    duration: *duration,
                };
                head.with_unit(data)
            }
            Self::Config(codec) => {
                let mut fields = Vec::new();
                put_codec(&mut fields, codec)?;
                Head::of(KIND_CONFIG).with_fields(&fields)
            }
            Self::End => Head::of(KIND_END).with_fields(&[]),
        }
    }
}

impl Message for FromEncoder {
    fn encode(&self) -> Result<Chain<Bytes, Bytes>, TooLong> {
        match self {
            Self::Ready { encoder } => {
                let mut fields = Vec::new();
                put_name(&mut fields, encoder)?;
                Head::of(KIND_READY).with_fields(&fields)
            }
            Self::RungConfig { rung, codec } => {
                let mut fields = Vec::new();
                put_codec(&mut fields, codec)?;
                Head { kind: KIND_RUNG_CONFIG, rung: *rung, ..Head::default() }.with_fields(&fields)
            }
            Self::Unit(RungUnit { rung, pts, duration, key, data }) => {
                let flags = flag(FLAG_KEY, *key);
                let head = Head {
                    kind: KIND_RUNG_UNIT,
                    flags,
                    rung: *rung,
                    pts: *pts,
                    dts: *pts,
                    duration: *duration,
                };
                head.with_unit(data)
            }
            Self::Progress(Progress { units_in, units_out, lag, cpu }) => {
                let mut fields = Vec::new();
                fields.put_u64_le(*units_in);
                fields.put_u64_le(*units_out);
                fields.put_u64_le(*lag);
                fields.put_u64_le(u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX));
                Head::of(KIND_PROGRESS).with_fields(&fields)
            }
            Self::Fault(Fault { class, text }) => {
                let mut fields = vec![class_code(*class)];
                let end = text.floor_char_boundary(TEXT_BYTES_MAX);
                fields.put_slice(&text.as_bytes()[..end]);
                Head::of(KIND_FAULT).with_fields(&fields)
            }
            Self::Machine(machine) => Head::of(KIND_MACHINE).with_fields(&[position(&Machine::ALL, machine)]),
        }
    }
}

fn fields_of_job(job: &Job) -> Result<Vec<u8>, TooLong> {
    let mut fields = Vec::new();
    fields.put_u16_le(VERSION);
    match job {
        Job::Video(VideoJob { source, timescale, frame_rate, encoders, rungs }) => {
            fields.put_u8(JOB_VIDEO);
            put_codec(&mut fields, source)?;
            fields.put_u32_le(*timescale);
            fields.put_u32_le(frame_rate.numerator);
            fields.put_u32_le(frame_rate.denominator);
            put_count(&mut fields, encoders.len())?;
            encoders.iter().try_for_each(|name| put_name(&mut fields, name))?;
            put_count(&mut fields, rungs.len())?;
            for Rung { number, width, height, kbit_s, preset, every } in rungs {
                fields.put_u16_le(*number);
                fields.put_u16_le(*width);
                fields.put_u16_le(*height);
                fields.put_u32_le(*kbit_s);
                fields.put_u8(preset_code(*preset));
                fields.put_u8(*every);
            }
        }
        Job::Audio(AudioJob { source, timescale, target, rate, channels, kbit_s }) => {
            fields.put_u8(JOB_AUDIO);
            put_codec(&mut fields, source)?;
            fields.put_u32_le(*timescale);
            fields.put_u8(match target {
                AudioTarget::Aac => 1,
                AudioTarget::Opus => 2,
            });
            fields.put_u32_le(*rate);
            fields.put_u8(*channels);
            fields.put_u32_le(*kbit_s);
        }
    }
    Ok(fields)
}

fn put_codec(fields: &mut Vec<u8>, codec: &Codec) -> Result<(), TooLong> {
    let bytes = codec.record.len();
    if bytes > RECORD_BYTES_MAX {
        return Err(TooLong { bytes, max: RECORD_BYTES_MAX });
    }
    fields.put_slice(&codec.sample_entry);
    fields.put_u32_le(bytes as u32);
    fields.put_slice(&codec.record);
    Ok(())
}

fn put_name(fields: &mut Vec<u8>, name: &str) -> Result<(), TooLong> {
    let bytes = name.len();
    if bytes > NAME_BYTES_MAX {
        return Err(TooLong { bytes, max: NAME_BYTES_MAX });
    }
    put_count(fields, bytes)?;
    fields.put_slice(name.as_bytes());
    Ok(())
}

/// In one byte: of rungs, of names, of a name's bytes.
fn put_count(fields: &mut Vec<u8>, count: usize) -> Result<(), TooLong> {
    let max = usize::from(u8::MAX);
    fields.put_u8(u8::try_from(count).map_err(|_| TooLong { bytes: count, max })?);
    Ok(())
}

fn flag(flag: u8, is_set: bool) -> u8 {
    if is_set { flag } else { 0 }
}

fn class_code(class: FaultClass) -> u8 {
    position(&FaultClass::ALL, &class)
}

fn preset_code(preset: Preset) -> u8 {
    position(&Preset::ALL, &preset)
}

/// Of `value` in the list of all; the decoder reads it back from the same list.
fn position<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|other| other == value).expect("the list has them all") as u8
}
