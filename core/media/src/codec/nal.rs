//! NAL units behind their lengths, as configuration records and access units of H.264 and HEVC hold them
//! (ISO/IEC 14496-15).

/// Why an access unit cannot be decoded by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    #[error("a NAL unit is longer than the access unit that holds it")]
    Truncated,
}

/// The NAL units of an access unit, each behind a length of `length_bytes`. Ends after the first error.
pub(super) fn units(
    unit: &[u8],
    length_bytes: u8,
) -> impl Iterator<Item = Result<&[u8], UnitError>> + use<'_> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = split(rest, length_bytes);
        rest = next.map_or(&[], |(_, rest)| rest);
        Some(next.map(|(nal, _)| nal).ok_or(UnitError::Truncated))
    })
}

/// Takes the next NAL unit behind a 16-bit length, as in a configuration record, off `rest`; `None` if it is not all
/// there.
pub(super) fn prefixed<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (nal, after) = split(rest, 2)?;
    *rest = after;
    Some(nal)
}

fn split(bytes: &[u8], length_bytes: u8) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_at_checked(usize::from(length_bytes))?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    after.split_at_checked(length)
}
