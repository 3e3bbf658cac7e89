//! Bytes into messages.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::message::{
    FLAG_FORCE, FLAG_KEY, JOB_AUDIO, JOB_VIDEO, KIND_CONFIG, KIND_END, KIND_FAULT, KIND_JOB, KIND_MACHINE,
    KIND_PROGRESS, KIND_READY, KIND_RUNG_CONFIG, KIND_RUNG_UNIT, KIND_SOURCE_UNIT, parse::Parse,
};
use crate::{
    AudioJob, AudioTarget, Codec, ENCODERS_MAX, FIELDS_BYTES_MAX, Fault, FaultClass, FrameRate, FromEncoder,
    HEADER_BYTES, Job, JobError, Machine, Message, NAME_BYTES_MAX, Preset, Progress, RECORD_BYTES_MAX,
    RUNGS_MAX, Rung, RungUnit, SourceUnit, TEXT_BYTES_MAX, ToEncoder, UNIT_BYTES_MAX, VERSION, VideoJob,
};

/// Why the bytes are no messages. The other end is broken, or of another version; nothing after it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    #[error("a message says it is {bytes} bytes long, less than its own header")]
    TooShort { bytes: usize },
    #[error("a message of kind {kind} with {bytes} bytes of payload, above the limit of {max}")]
    TooLong { kind: u8, bytes: usize, max: usize },
    #[error("a message of the unknown kind {kind}")]
    UnknownKind { kind: u8 },
    #[error("a message of kind {kind} is malformed")]
    Malformed { kind: u8 },
    /// The executable was replaced while the server ran: restart the server.
    #[error("a job of version {version}; this executable speaks version {VERSION}")]
    Version { version: u16 },
    #[error("a job with {0}")]
    Job(#[from] JobError),
}

#[derive(Debug)]
pub struct Header {
    pub(crate) payload_bytes: usize,
    kind: u8,
    flags: u8,
    rung: u16,
    pts: i64,
    dts: i64,
    duration: u32,
}

impl Header {
    /// # Errors
    /// [`PipeError`]: no header of an `M`, or of one that is longer than allowed.
    pub(crate) fn parse<M: Parse>(bytes: &[u8; HEADER_BYTES]) -> Result<Self, PipeError> {
        let mut bytes = bytes.as_slice();
        let length = bytes.get_u32_le() as usize;
        let (kind, flags, rung) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u16_le());
        let (pts, dts, duration) = (bytes.get_i64_le(), bytes.get_i64_le(), bytes.get_u32_le());
        let payload_bytes = length.checked_sub(HEADER_BYTES).ok_or(PipeError::TooShort { bytes: length })?;
        let max = M::payload_bytes_max(kind).ok_or(PipeError::UnknownKind { kind })?;
        if payload_bytes > max {
            return Err(PipeError::TooLong { kind, bytes: payload_bytes, max });
        }
        Ok(Self { payload_bytes, kind, flags, rung, pts, dts, duration })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Takes the next message off the front of `received`, once it is all there. A unit's bytes are not copied.
///
/// # Errors
/// [`PipeError`]: end the conversation.
pub fn decode<M: Message>(received: &mut BytesMut) -> Result<Option<M>, PipeError> {
    let Some(header) = received.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::parse::<M>(header)?;
    let length = HEADER_BYTES + header.payload_bytes;
    if received.len() < length {
        return Ok(None);
    }
    let mut message = received.split_to(length).freeze();
    message.advance(HEADER_BYTES);
    M::parse(&header, message).map(Some)
}

impl Parse for ToEncoder {
    fn payload_bytes_max(kind: u8) -> Option<usize> {
        match kind {
            KIND_SOURCE_UNIT => Some(UNIT_BYTES_MAX),
            KIND_JOB | KIND_CONFIG => Some(FIELDS_BYTES_MAX),
            KIND_END => Some(0),
            _ => None,
        }
    }

    fn parse(header: &Header, payload: Bytes) -> Result<Self, PipeError> {
        let &Header { kind, pts, dts, duration, .. } = header;
        Ok(match kind {
            KIND_SOURCE_UNIT => {
                let (key, force) = (header.has(FLAG_KEY), header.has(FLAG_FORCE));
                Self::Unit(SourceUnit { pts, dts, duration, key, force, data: payload })
            }
            KIND_JOB => Self::Job(job(payload)?),
            KIND_CONFIG => Self::Config(whole(kind, payload, codec)?),
            KIND_END => Self::End,
            _ => return Err(PipeError::UnknownKind { kind }),
        })
    }
}

impl Parse for FromEncoder {
    fn payload_bytes_max(kind: u8) -> Option<usize> {
        match kind {
            KIND_RUNG_UNIT => Some(UNIT_BYTES_MAX),
            KIND_READY | KIND_RUNG_CONFIG | KIND_PROGRESS | KIND_FAULT => Some(FIELDS_BYTES_MAX),
            KIND_MACHINE => Some(1),
            _ => None,
        }
    }

    fn parse(header: &Header, payload: Bytes) -> Result<Self, PipeError> {
        let &Header { kind, rung, pts, duration, .. } = header;
        Ok(match kind {
            KIND_RUNG_UNIT => {
                Self::Unit(RungUnit { rung, pts, duration, key: header.has(FLAG_KEY), data: payload })
            }
            KIND_READY => Self::Ready { encoder: whole(kind, payload, name)? },
            KIND_RUNG_CONFIG => Self::RungConfig { rung, codec: whole(kind, payload, codec)? },
            KIND_PROGRESS => Self::Progress(whole(kind, payload, progress)?),
            KIND_FAULT => Self::Fault(whole(kind, payload, fault)?),
            KIND_MACHINE => Self::Machine(whole(kind, payload, machine)?),
            _ => return Err(PipeError::UnknownKind { kind }),
        })
    }
}

/// What `read` makes of all of `payload`.
fn whole<T>(kind: u8, mut payload: Bytes, read: fn(&mut Bytes) -> Option<T>) -> Result<T, PipeError> {
    let fields = read(&mut payload).filter(|_| payload.is_empty());
    fields.ok_or(PipeError::Malformed { kind })
}

fn job(mut payload: Bytes) -> Result<Job, PipeError> {
    let malformed = PipeError::Malformed { kind: KIND_JOB };
    // Before anything else: what follows may have another shape there.
    let version = payload.try_get_u16_le().map_err(|_| malformed)?;
    if version != VERSION {
        return Err(PipeError::Version { version });
    }
    let job = match payload.try_get_u8() {
        Ok(JOB_VIDEO) => Job::Video(whole(KIND_JOB, payload, video_job)?),
        Ok(JOB_AUDIO) => Job::Audio(whole(KIND_JOB, payload, audio_job)?),
        _ => return Err(malformed),
    };
    job.check()?;
    Ok(job)
}

fn video_job(fields: &mut Bytes) -> Option<VideoJob> {
    let source = codec(fields)?;
    let timescale = u32(fields)?;
    let frame_rate = FrameRate { numerator: u32(fields)?, denominator: u32(fields)? };
    let encoders = list(fields, ENCODERS_MAX, name)?;
    let rungs = list(fields, RUNGS_MAX, rung)?;
    Some(VideoJob { source, timescale, frame_rate, encoders, rungs })
}

fn rung(fields: &mut Bytes) -> Option<Rung> {
    let (number, width, height) = (u16(fields)?, u16(fields)?, u16(fields)?);
    let (kbit_s, preset, every) = (u32(fields)?, u8(fields)?, u8(fields)?);
    Some(Rung { number, width, height, kbit_s, preset: *Preset::ALL.get(usize::from(preset))?, every })
}

fn audio_job(fields: &mut Bytes) -> Option<AudioJob> {
    Some(AudioJob {
        source: codec(fields)?,
        timescale: u32(fields)?,
        target: match u8(fields)? {
            1 => AudioTarget::Aac,
            2 => AudioTarget::Opus,
            _ => return None,
        },
        rate: u32(fields)?,
        channels: u8(fields)?,
        kbit_s: u32(fields)?,
    })
}

fn codec(fields: &mut Bytes) -> Option<Codec> {
    let sample_entry = *fields.first_chunk()?;
    fields.advance(sample_entry.len());
    let bytes = u32(fields)? as usize;
    Some(Codec { sample_entry, record: take(fields, bytes, RECORD_BYTES_MAX)? })
}

fn name(fields: &mut Bytes) -> Option<String> {
    let bytes = usize::from(u8(fields)?);
    String::from_utf8(take(fields, bytes, NAME_BYTES_MAX)?.to_vec()).ok()
}

fn progress(fields: &mut Bytes) -> Option<Progress> {
    let (units_in, units_out, lag) = (u64(fields)?, u64(fields)?, u64(fields)?);
    Some(Progress { units_in, units_out, lag, cpu: Duration::from_micros(u64(fields)?) })
}

fn fault(fields: &mut Bytes) -> Option<Fault> {
    let class = *FaultClass::ALL.get(usize::from(u8(fields)?))?;
    let bytes = fields.len();
    Some(Fault { class, text: String::from_utf8(take(fields, bytes, TEXT_BYTES_MAX)?.to_vec()).ok()? })
}

fn machine(fields: &mut Bytes) -> Option<Machine> {
    Machine::ALL.get(usize::from(u8(fields)?)).copied()
}

fn list<T>(fields: &mut Bytes, max: usize, read: fn(&mut Bytes) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::from(u8(fields)?);
    if count > max {
        return None;
    }
    (0..count).map(|_| read(fields)).collect()
}

fn take(fields: &mut Bytes, bytes: usize, max: usize) -> Option<Bytes> {
    (bytes <= max && bytes <= fields.len()).then(|| fields.split_to(bytes))
}

fn u8(fields: &mut Bytes) -> Option<u8> {
    fields.try_get_u8().ok()
}

fn u16(fields: &mut Bytes) -> Option<u16> {
    fields.try_get_u16_le().ok()
}

fn u32(fields: &mut Bytes) -> Option<u32> {
    fields.try_get_u32_le().ok()
}

fn u64(fields: &mut Bytes) -> Option<u64> {
    fields.try_get_u64_le().ok()
}
