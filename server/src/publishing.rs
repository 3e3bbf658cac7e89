//! Joins edge's listener to ingest's WHIP; roles do not know each other.

use std::net::IpAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use ingest::whip;

pub(crate) struct Publishing(pub(crate) whip::Whip);

impl edge::Endpoint for Publishing {
    fn prefix(&self) -> &'static str {
        whip::PREFIX
    }

    fn body_bytes_max(&self) -> usize {
        whip::BODY_BYTES_MAX
    }

    fn respond<'a>(
        &'a self,
        peer: IpAddr,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(self.0.respond(peer, request))
    }
}
