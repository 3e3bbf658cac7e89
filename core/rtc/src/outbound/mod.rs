//! What one viewer is sent: shared frames in, sealed datagrams out.
//!
//! ```text
//! Arc<Frame> ─▶ Line::begin ─▶ Line::poll ──────────▶ Batch, one send each
//!     │                            │ index ─▶ Splices
//!     └──▶ History                 ▼
//!            └─── Line::nack ─▶ Line::poll_resend ──▶ Batch, on RTX's own SSRC
//! ```
//!
//! A [`Line`] is one media line (video or audio) of one viewer. Nothing here owns a socket or reads a clock, and the
//! bytes of a batch lie in a buffer that the caller lends, so a thread needs one for all its viewers.

mod cushion;
mod header;
mod history;
mod line;
mod report;
mod resend;
mod splices;

use crate::packetize::PAYLOAD_BYTES_MAX;

pub use header::{HeaderExtensions, PlayoutDelay, Transport};
pub use history::{HISTORY_AGE, HISTORY_BYTES_MAX, History};
pub use line::{Batch, BusyError, Line, LineSettings, PayloadTypes};
pub use report::{ClockAnchor, Reception};

/// What is put around a payload at most: header, RTX's original sequence number, tag.
pub const OVERHEAD_BYTES_MAX: usize = header::HEADER_BYTES_MAX + resend::OSN_BYTES + 16;

/// The smallest MTU of IPv6 (RFC 8200, §5), less its header and UDP's.
const DATAGRAM_BYTES_MAX: usize = 1280 - 40 - 8;
const _: () = assert!(PAYLOAD_BYTES_MAX + OVERHEAD_BYTES_MAX <= DATAGRAM_BYTES_MAX);
