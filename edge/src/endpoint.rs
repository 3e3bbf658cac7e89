//! What of the viewers' listener takes requests with bodies: who publishes or watches by WebRTC speaks HTTP first.

use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};

/// Answers the requests of WHIP, which `server` plugs in, or WHEP.
pub trait Endpoint: Send + Sync {
    /// What the paths of its requests begin with.
    fn prefix(&self) -> &'static str;

    /// How long a request's body may be.
    fn body_bytes_max(&self) -> usize;

    /// Answers a request of `peer`, which is whole.
    fn respond<'a>(
        &'a self,
        peer: IpAddr,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>>;
}
