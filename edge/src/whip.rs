//! What of the viewers' listener is for publishers: pages and encoders that publish by WHIP speak HTTP first.

use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};

/// Answers WHIP's requests (RFC 9725). `server` plugs in the real one.
pub trait Whip: Send + Sync {
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
