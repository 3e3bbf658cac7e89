//! TLS as every listener on the open internet speaks it: 1.2 and 1.3, with a certificate that can be changed while
//! connections come.
//!
//!   PEM texts ─▶ certificate.rs: do they fit, whom do they name, until when ─▶ served.rs: what newcomers get from now on
//!   accepted connection ─▶ accept.rs: the handshake, bounded in time and places ─▶ the role's driver
//!
//! Nodes speak to each other by rules of their own (`relay`'s `tls.rs`).

mod accept;
mod certificate;
mod served;

pub use accept::{HANDSHAKE_TIME_MAX, HandshakeError, Protocols, Tls};
pub use certificate::{Certificate, CertificateError};
pub use served::Served;
pub use tokio_rustls::server::TlsStream;
