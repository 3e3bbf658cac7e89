//! RTMP publishers.
//!
//!   server.rs accepts ─▶ conn.rs reads and writes ─▶ session.rs decides ─▶ `Publication`
//!
//! Below the session, from bytes to meaning: `handshake.rs`, `chunk.rs`, `message.rs`, `amf.rs`, `address.rs`,
//! all pure. Plain handshake and AMF0, as OBS, ffmpeg and GStreamer speak them (RTMP 1.0).

mod address;
mod amf;
mod chunk;
mod conn;
mod handshake;
mod message;
mod metrics;
mod server;
mod session;
#[cfg(test)]
mod testing;

pub use metrics::Metrics;
pub use server::{CONNECTIONS, SOCKET, Server};
