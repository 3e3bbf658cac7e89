//! Playlists: text from a snapshot, and that text ready to be sent.

pub(crate) mod media;
pub(crate) mod multivariant;

use std::io::Write;

use ::http::HeaderValue;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A playlist as it goes over the wire, encoded once for all who ask.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) plain: Encoded,
    pub(crate) gzip: Encoded,
}

#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) body: Bytes,
    pub(crate) etag: HeaderValue,
}

impl Rendered {
    /// `etag` makes the ETag of an encoding from the encoding's name. Strong ETags differ with the encoding,
    /// RFC 9110 §8.8.3.
    pub(crate) fn new(text: String, etag: impl Fn(&str) -> HeaderValue) -> Self {
        let gzip = Encoded { body: gzip(text.as_bytes()), etag: etag("gzip") };
        Self { plain: Encoded { body: text.into(), etag: etag("identity") }, gzip }
    }
}

/// The same bytes on every node: flate2 writes neither a time nor a host into the header.
fn gzip(text: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 3), Compression::default());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("writing to memory cannot fail").into()
}
