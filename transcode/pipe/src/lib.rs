//! What a transcode worker and its child process say to each other, through two pipes or, where the child is another node's,
//! over a connection to that.
//!
//!   worker ──Job, Unit, Config, End──▶ tidecast-encoder ──Ready, RungConfig, Unit, Progress, Fault──▶ worker
//!                                      └ another node, of the machine ──Machine──▶
//!
//! Two byte streams, one each way. A message is a header of [`HEADER_BYTES`] and a payload; numbers are little
//! endian. Media crosses compressed: a raw picture would be a hundred times as long.
//!
//! Pure: [`decode`] takes what arrived so far, [`Message::encode`] gives what to write; [`read_message`] and
//! [`write_message`] do the same on a blocking descriptor. What arrives is checked here as a stranger's would be,
//! because a child that reads strangers' media may one day be one.

mod decode;
mod encode;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod io;
mod job;
mod message;
#[cfg(test)]
mod tests;

pub use decode::{PipeError, decode};
pub use encode::TooLong;
pub use io::{ReadError, read_message, write_message};
pub use job::{AudioJob, AudioTarget, Codec, FrameRate, Job, JobError, Preset, Rung, VideoJob};
pub use message::{
    Fault, FaultClass, FromEncoder, Machine, Message, Progress, RungUnit, SourceUnit, ToEncoder,
};

/// Raised when anything here changes its shape: the executable on the disk may be newer than the server that runs.
pub const VERSION: u16 = 3;

/// Of every message: length u32 (with the header), kind u8, flags u8, rung u16, PTS i64, DTS i64, duration u32, zero
/// u32.
pub const HEADER_BYTES: usize = 32;

/// Longest access unit, either way. Ingest refuses longer ones.
pub const UNIT_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Longest payload of any other message.
pub const FIELDS_BYTES_MAX: usize = 64 * 1024;

/// Longest decoder configuration: what `media` keeps of one.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Rungs of one job. A ladder of more would cost more than it gives.
pub const RUNGS_MAX: usize = 8;

/// Of how many pictures a rung may have only one.
pub const EVERY_MAX: u8 = 60;

/// Names in an order of preference of encoders.
pub const ENCODERS_MAX: usize = 16;

/// Longest name of an encoder.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest sentence of a fault; what is longer is cut.
pub const TEXT_BYTES_MAX: usize = 1024;
