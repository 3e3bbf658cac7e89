//! The NAL units of one access unit of H.264 or HEVC.

use bytes::{BufMut, Bytes, BytesMut};

use super::UNIT_BYTES_MAX;

/// Most NAL units in one: slices of 8 macroblock rows of the largest picture are 64, and there is SEI beside them.
pub(super) const UNIT_NALS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Nals {
    nals: Vec<Bytes>,
    bytes: usize,
    fragment: Option<BytesMut>,
}

impl Nals {
    /// `None` if the unit would become too large.
    pub(super) fn push(&mut self, nal: Bytes) -> Option<()> {
        self.bytes = self.bytes.saturating_add(nal.len() + 4);
        if self.bytes > UNIT_BYTES_MAX || self.nals.len() >= UNIT_NALS_MAX {
            return None;
        }
        self.nals.push(nal);
        Some(())
    }

    /// Those of an aggregate (RFC 6184, §5.7.1; RFC 7798, §4.4.2), each behind its length, from `at` on.
    pub(super) fn aggregate(&mut self, payload: &Bytes, mut at: usize) -> Option<()> {
        while at < payload.len() {
            let length = payload.get(at..at + 2)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let end = at + 2 + length;
            if length == 0 || end > payload.len() {
                return None;
            }
            self.push(payload.slice(at + 2..end))?;
            at = end;
        }
        Some(())
    }

    /// A piece of one that is too long for a packet (RFC 6184, §5.8; RFC 7798, §4.4.3). `header`: of the whole, where it
    /// begins.
    pub(super) fn fragment(&mut self, header: Option<&[u8]>, bytes: &[u8], is_last: bool) -> Option<()> {
        let mut is_whole = true;
        if let Some(header) = header {
            let mut begun = BytesMut::with_capacity(8 * bytes.len());
            begun.put_slice(header);
            // A fragment before it that has no end is one that has lost it.
            is_whole = self.fragment.replace(begun).is_none();
        }
        let fragment = self.fragment.as_mut()?;
        if self.bytes + fragment.len() + bytes.len() > UNIT_BYTES_MAX {
            self.fragment = None;
            return None;
        }
        fragment.extend_from_slice(bytes);
        if is_last {
            let nal = self.fragment.take()?.freeze();
            self.push(nal)?;
        }
        is_whole.then_some(())
    }

    /// All of them, and whether the last fragment has no end.
    pub(super) fn take(&mut self) -> (Vec<Bytes>, bool) {
        let Self { nals, fragment, .. } = std::mem::take(self);
        (nals, fragment.is_some())
    }
}

/// Those of `nals` that `is_kept`, behind lengths of four bytes (ISO/IEC 14496-15, §5.3.2, §8.3.2).
pub(super) fn sample(nals: &[Bytes], is_kept: impl Fn(&Bytes) -> bool) -> Bytes {
    let kept = || nals.iter().filter(|nal| is_kept(nal));
    let mut sample = BytesMut::with_capacity(kept().map(|nal| nal.len() + 4).sum());
    for nal in kept() {
        // Bounded by UNIT_BYTES_MAX.
        sample.put_u32(nal.len() as u32);
        sample.extend_from_slice(nal);
    }
    sample.freeze()
}
