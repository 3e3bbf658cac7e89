//! Playlists: text from a snapshot, and that text ready to be sent.

pub(crate) mod filter;
pub(crate) mod media;
pub(crate) mod multivariant;
pub(crate) mod version;

use std::cell::RefCell;
use std::sync::OnceLock;

use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use crate::headers;

/// A playlist as it goes over the wire, encoded once for all who ask.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) plain: Encoded,
    /// `None` if it is never sent compressed.
    gzip: Option<Compressed>,
}

/// Made for the first who asks: most renditions of most streams have no viewer on this node.
#[derive(Debug)]
struct Compressed {
    etag: HeaderValue,
    encoded: OnceLock<Encoded>,
}

#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) body: Bytes,
    pub(crate) etag: HeaderValue,
    /// As [`headers::of_playlist`] makes them.
    pub(crate) headers: HeaderMap,
}

impl Rendered {
    /// `etag` makes the ETag of an encoding from the encoding's name. Strong ETags differ with the encoding,
    /// RFC 9110 §8.8.3.
    pub(crate) fn new(text: String, etag: impl Fn(&str) -> HeaderValue) -> Self {
        let gzip = Compressed { etag: etag("gzip"), encoded: OnceLock::new() };
        Self { plain: Encoded::new(text.into(), etag("identity"), None, true), gzip: Some(gzip) }
    }

    /// `None` if it is never sent compressed.
    pub(crate) fn gzip(&self) -> Option<&Encoded> {
        let Compressed { etag, encoded } = self.gzip.as_ref()?;
        Some(encoded.get_or_init(|| Encoded::new(gzip(&self.plain.body), etag.clone(), Some("gzip"), true)))
    }

    pub(crate) fn is_compressible(&self) -> bool {
        self.gzip.is_some()
    }

    /// As [`Self::new`], for what is small and kept in caches by an ETag.
    ///
    /// Chromium's native player asks for `bytes=0-` of everything. What its cache holds compressed, left there by hls.js
    /// for one, and has just revalidated, it is given as a range of compressed bytes, and fails to decompress it.
    pub(crate) fn uncompressed(text: String, etag: impl Fn(&str) -> HeaderValue) -> Self {
        Self { plain: Encoded::new(text.into(), etag("identity"), None, false), gzip: None }
    }
}

impl Encoded {
    fn new(body: Bytes, etag: HeaderValue, encoding: Option<&'static str>, alternative: bool) -> Self {
        let headers = headers::of_playlist(etag.clone(), body.len(), encoding, alternative);
        Self { body, etag, headers }
    }
}

thread_local! {
    /// To make one anew for every playlist costs more than compressing it. It keeps nothing from one to the next.
    static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::default(), false));
}

/// RFC 1952: deflate, no flags, no time, system unknown. So every node writes the same.
const GZIP_HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];

fn gzip(text: &[u8]) -> Bytes {
    // Deflate adds five bytes to 16 kB that it cannot compress.
    let mut out = Vec::with_capacity(text.len() + text.len() / 1024 + 64);
    out.extend_from_slice(&GZIP_HEADER);
    let compressed = DEFLATE.with_borrow_mut(|deflate| {
        deflate.reset();
        deflate.compress_vec(text, &mut out, FlushCompress::Finish)
    });
    assert!(matches!(compressed, Ok(Status::StreamEnd)), "the capacity is what deflate needs at most");
    let mut crc = Crc::new();
    crc.update(text);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
    // An allocation of its size, not of the text's.
    Bytes::copy_from_slice(&out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Another node, or another thread here, must write the same bytes, whatever it compressed before.
    #[test]
    fn gzip_is_right_and_depends_on_nothing_but_the_text() {
        let noise: Vec<u8> = (0..60_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let playlist = "#EXT-X-PART:DURATION=0.500000,URI=\"7.1.m4s\"\n".repeat(40);
        let texts: [&[u8]; 4] = [b"", b"#EXTM3U\n", playlist.as_bytes(), &noise];
        for text in texts {
            let fresh = std::thread::scope(|scope| scope.spawn(|| gzip(text)).join().unwrap());
            for before in texts {
                gzip(before);
                assert_eq!(gzip(text), fresh);
            }
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&fresh[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, text);
        }
    }
}
