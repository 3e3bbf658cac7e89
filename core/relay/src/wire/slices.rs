//! A frame in the slices it is made of, written as one chunk without joining them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// A run of bytes in pieces that others share. One HTTP chunk and few system calls, however many pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slices {
    slices: VecDeque<Bytes>,
    bytes: usize,
}

impl Slices {
    pub fn push(&mut self, slice: Bytes) {
        if !slice.is_empty() {
            self.bytes += slice.len();
            self.slices.push_back(slice);
        }
    }

    /// Puts all of `other` behind these.
    pub fn append(&mut self, mut other: Self) {
        self.bytes += other.bytes;
        self.slices.append(&mut other.slices);
    }
}

impl From<Bytes> for Slices {
    fn from(slice: Bytes) -> Self {
        Self::from_iter([slice])
    }
}

impl FromIterator<Bytes> for Slices {
    fn from_iter<I: IntoIterator<Item = Bytes>>(slices: I) -> Self {
        let mut all = Self::default();
        slices.into_iter().for_each(|slice| all.push(slice));
        all
    }
}

impl IntoIterator for Slices {
    type Item = Bytes;
    type IntoIter = std::collections::vec_deque::IntoIter<Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.slices.into_iter()
    }
}

impl Buf for Slices {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.slices.front().map_or(&[], |slice| slice)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let filled = out.iter_mut().zip(&self.slices);
        filled.map(|(out, slice)| *out = IoSlice::new(slice)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "advanced by {count} of {} bytes", self.bytes);
        self.bytes -= count;
        while let Some(front) = self.slices.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a connection takes at a time, it gets the concatenation.
        #[test]
        fn is_read_as_one_run_of_bytes(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..8),
            steps in prop::collection::vec(1_usize..7, 0..80),
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut slices: Slices = pieces.into_iter().map(Bytes::from).collect();
            let mut read = Vec::new();
            for step in steps {
                let mut out = [IoSlice::new(&[]); 3];
                let filled = slices.chunks_vectored(&mut out);
                let seen: Vec<u8> = out[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = step.min(seen.len());
                read.extend_from_slice(&seen[..taken]);
                slices.advance(taken);
            }
            prop_assert_eq!(slices.remaining(), whole.len() - read.len());
            let rest = slices.copy_to_bytes(slices.remaining());
            read.extend_from_slice(&rest);
            prop_assert_eq!(read, whole);
        }
    }
}
