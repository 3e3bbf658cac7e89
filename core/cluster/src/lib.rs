//! What the nodes of a cluster know of each other: who is there, who has which stream, and what has happened. Never media.
//!
//! ```text
//!   Presence ─▶ nodes ───┐                        ┌─▶ Fleet: the view that everybody asks
//!   Directory ─▶ streams ├─▶ Store (memory, NATS) ─┤
//!   Sessions ─▶ sessions ┤                        └─▶ Journal::follow
//!   Orders ─▶ orders ────┤
//!   Journal ─▶ events ───┤
//!   Readers ─▶ readers ──┘
//! ```
//!
//! The store is two dozen lines of promise ([`Store`]) kept by two back ends, [`Memory`] and [`Nats`], which one conformance
//! suite holds to it. What is built on it is written once.
//!
//! Nobody waits for the store on the way of media: a node plays on without it, and [`Fleet`] answers from what it last heard.

mod directory;
mod event;
mod fleet;
mod memory;
mod nats;
mod node;
mod order;
pub mod place;
mod presence;
mod reader;
mod room;
mod session;
mod store;
mod stream;

pub use directory::{Claim, ClaimError, Directory, Lost};
pub use event::{Event, Journal, Kind, Logged};
pub use fleet::{Candidate, Expected, Fleet, Located, Seen, State};
pub use memory::Memory;
pub use nats::{Nats, NatsLogin, NatsSettings, NatsUrl, NatsUrlError};
pub use node::{Boot, Load, Node, Phase, Role};
pub use order::{Order, Orders};
pub use presence::{HEARTBEAT, Presence, SILENCE_DEAD, SILENCE_SUSPECT};
pub use reader::{AcknowledgeError, Acknowledgement, READERS_MAX, ReaderName, ReaderNameError, Readers};
pub use room::{RELIEF, Room, SHARE_LITTLE, SHARE_SCARCE};
pub use session::Sessions;
pub use store::{
    Bucket, Change, EVENTS_AGE_MAX, Entry, Key, Revision, Sequence, Store, StoreError, Told, WriteError,
};
pub use stream::{Epoch, Holder, Named, StreamEntry, StreamPhase};

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
