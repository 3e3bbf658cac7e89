//! The messages.

use std::time::Duration;

use bytes::Bytes;
use bytes::buf::Chain;

use crate::decode::{Header, PipeError};
use crate::encode::TooLong;
use crate::{Codec, Job};

/// From the worker to its child. The first is a job; nothing follows the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToEncoder {
    Job(Job),
    Unit(SourceUnit),
    /// Units from the next on are coded this way. The rungs stay as they are.
    Config(Codec),
    /// Encode what is there, and end.
    End,
}

/// An access unit of the source. Times are in ticks of the job's timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUnit {
    pub pts: i64,
    pub dts: i64,
    pub duration: u32,
    /// Decoding can start here.
    pub key: bool,
    /// The cutter draws a boundary here: every rung gets an IDR at this PTS or, if the picture is lost, at the next. What
    /// comes before the first is decoded and not encoded.
    pub force: bool,
    /// As an MP4 sample holds it: NAL units behind their lengths, OBUs without delimiters, one frame of audio.
    pub data: Bytes,
}

/// From the child to its worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromEncoder {
    /// The job is understood and the pipeline stands.
    Ready {
        /// Name of the element that encodes.
        encoder: String,
    },
    /// Before the first unit of the rung, and again should the encoder ever change it.
    RungConfig {
        rung: u16,
        codec: Codec,
    },
    Unit(RungUnit),
    /// About once a second while units come in, and at the end.
    Progress(Progress),
    Fault(Fault),
    Machine(Machine),
}

/// How the machine does on which the child runs: said by the node that lends the child to another, never by a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Its jobs need more processor time than it has: this one is to need less.
    Short,
    /// It takes no more jobs and will be gone: another machine is to go on with this one.
    Leaving,
}

/// An access unit of a rung; its DTS is its PTS. Sound has rung 0. Times are in ticks of the job's timescale, those of
/// sound in samples of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RungUnit {
    pub rung: u16,
    pub pts: i64,
    pub duration: u32,
    /// An IDR, found in the bitstream; any frame of audio.
    pub key: bool,
    /// As [`SourceUnit::data`]; lengths have four bytes.
    pub data: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Units of the source that were taken.
    pub units_in: u64,
    /// Units that the slowest rung has given.
    pub units_out: u64,
    /// How far the slowest rung is behind the source, in ticks of the job's timescale.
    pub lag: u64,
    /// Of all threads of the child, since it began.
    pub cpu: Duration,
}

/// Something the worker must know. After one that [ends the child](FaultClass::ends) nothing follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub class: FaultClass,
    /// A sentence for the log.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// The worker sent what is no job or no message.
    Protocol,
    /// No element on this machine decodes the source.
    MissingDecoder,
    /// None encodes.
    MissingEncoder,
    /// An element stopped with an error, or the pipeline could not be built.
    Pipeline,
    /// A rung has no IDR where one was forced. Counted; the child goes on.
    MissedKey,
    /// A rung has an IDR that nobody asked for. Counted; the child goes on.
    UnexpectedKey,
}

impl Machine {
    pub const ALL: [Self; 2] = [Self::Short, Self::Leaving];
}

impl FaultClass {
    pub const ALL: [Self; 6] = [
        Self::Protocol,
        Self::MissingDecoder,
        Self::MissingEncoder,
        Self::Pipeline,
        Self::MissedKey,
        Self::UnexpectedKey,
    ];

    /// Whether the child is gone after it.
    pub fn ends(self) -> bool {
        !matches!(self, Self::MissedKey | Self::UnexpectedKey)
    }
}

/// A message of one direction: [`ToEncoder`] or [`FromEncoder`].
pub trait Message: Sized + parse::Parse {
    /// What to write: the header with all fields, and the bytes of a unit, which are not copied.
    ///
    /// # Errors
    /// [`TooLong`], if the other end would refuse it.
    fn encode(&self) -> Result<Chain<Bytes, Bytes>, TooLong>;
}

pub(crate) mod parse {
    use super::{Bytes, Header, PipeError};

    pub trait Parse {
        /// Longest payload of `kind`; `None` if there is no such kind in this direction.
        fn payload_bytes_max(kind: u8) -> Option<usize>;

        fn parse(header: &Header, payload: Bytes) -> Result<Self, PipeError>
        where
            Self: Sized;
    }
}

pub(crate) const KIND_JOB: u8 = 1;
pub(crate) const KIND_SOURCE_UNIT: u8 = 2;
pub(crate) const KIND_CONFIG: u8 = 3;
pub(crate) const KIND_END: u8 = 4;
pub(crate) const KIND_READY: u8 = 16;
pub(crate) const KIND_RUNG_CONFIG: u8 = 17;
pub(crate) const KIND_RUNG_UNIT: u8 = 18;
pub(crate) const KIND_PROGRESS: u8 = 19;
pub(crate) const KIND_FAULT: u8 = 20;
pub(crate) const KIND_MACHINE: u8 = 21;

pub(crate) const FLAG_KEY: u8 = 1;
pub(crate) const FLAG_FORCE: u8 = 2;

pub(crate) const JOB_VIDEO: u8 = 1;
pub(crate) const JOB_AUDIO: u8 = 2;
