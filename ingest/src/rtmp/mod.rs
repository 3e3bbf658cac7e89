//! RTMP publishers.
//!
//!   server.rs accepts ─▶ conn.rs reads and writes ─▶ session.rs decides ─▶ `Publication`
//!
//! Below the session, from bytes to meaning: `handshake.rs` with `digest.rs`, `chunk.rs`, `message.rs`,
//! `amf.rs` with `amf3.rs`, `address.rs`, all pure (RTMP 1.0 and Enhanced RTMP v2).

mod address;
mod amf;
mod amf3;
mod chunk;
mod conn;
mod digest;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handshake;
mod message;
mod metrics;
mod server;
mod session;
#[cfg(test)]
mod testing;

pub use metrics::Metrics;
pub use server::{CONNECTIONS, SOCKET, Server};
