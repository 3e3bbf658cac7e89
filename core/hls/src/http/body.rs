//! A response body of known length, in slices shared with everyone else who is sent the same.

use std::convert::Infallible;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Never copies and never waits: the connection takes slice after slice and writes several at once.
#[derive(Debug, Default)]
pub struct Body {
    slices: std::vec::IntoIter<Bytes>,
    remaining: u64,
}

impl Body {
    pub fn empty() -> Self {
        Self::default()
    }

    pub(super) fn new(slices: Vec<Bytes>) -> Self {
        let remaining = slices.iter().map(|slice| slice.len() as u64).sum();
        Self { slices: slices.into_iter(), remaining }
    }

    /// The bytes of `slices` within `range`.
    pub(super) fn slice(slices: Vec<Bytes>, range: Range<u64>) -> Self {
        let mut start = 0_u64;
        let within = slices.into_iter().filter_map(|slice| {
            let end = start + slice.len() as u64;
            let from = range.start.clamp(start, end) - start;
            let to = range.end.clamp(start, end) - start;
            start = end;
            (from < to).then(|| slice.slice(from as usize..to as usize))
        });
        Self::new(within.collect())
    }

    /// Bytes not yet taken.
    pub(super) fn bytes(&self) -> u64 {
        self.remaining
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let slice = this.slices.find(|slice| !slice.is_empty());
        this.remaining -= slice.as_ref().map_or(0, |slice| slice.len() as u64);
        Poll::Ready(slice.map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A range over many slices is the range over their concatenation, and never longer than it said.
        #[test]
        fn a_slice_of_slices_is_a_slice_of_the_whole(lengths in prop::collection::vec(0_usize..9, 0..8), start in 0_u64..40, length in 0_u64..40) {
            let mut next = 0_u8..;
            let slices: Vec<Bytes> = lengths.iter().map(|&length| next.by_ref().take(length).collect()).collect();
            let whole: Vec<u8> = slices.concat();
            let end = (start + length).min(whole.len() as u64);
            let start = start.min(end);

            let body = Body::slice(slices, start..end);
            prop_assert_eq!(body.bytes(), end - start);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let collected = runtime.block_on(body.collect()).unwrap().to_bytes();
            prop_assert_eq!(&collected[..], &whole[start as usize..end as usize]);
        }
    }
}
