//! The boxes of a fragmented MP4 that say when and how long (ISO/IEC 14496-12 §8.8). ffprobe shows the stamps, but
//! guesses durations; players go by what is written.

use anyhow::{Context, Result, ensure};

/// One track's run of samples, in ticks of its timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// `tfdt`: decoding time of the first sample.
    pub base: u64,
    pub durations: Vec<u32>,
}

impl Fragment {
    #[must_use]
    pub fn end(&self) -> u64 {
        self.base + self.durations.iter().map(|duration| u64::from(*duration)).sum::<u64>()
    }
}

/// Ticks per second, from the `mdhd` of an init segment's only track.
///
/// # Errors
/// If there is none.
pub fn timescale(init: &[u8]) -> Result<u32> {
    let mdhd = find(init, &["moov", "trak", "mdia", "mdhd"]).context("no mdhd")?;
    let version = *mdhd.first().context("an empty mdhd")?;
    // Version and flags, creation and modification time: of 32 bits each in version 0, else 64.
    u32_at(mdhd, if version == 0 { 12 } else { 20 })
}

/// Every fragment of a part or segment, which may hold several.
///
/// # Errors
/// If a box is cut short, or a sample has no duration of its own.
pub fn fragments(bytes: &[u8]) -> Result<Vec<Fragment>> {
    boxes(bytes)?.into_iter().filter(|(name, _)| name == "moof").map(|(_, moof)| fragment(moof)).collect()
}

/// The samples of a part or segment, as `trun` cuts each `mdat` (§8.8.8).
///
/// # Errors
/// As [`fragments`]; or if bytes are missing or left over.
pub fn samples(bytes: &[u8]) -> Result<Vec<&[u8]>> {
    const SIZE_PRESENT: u32 = 0x000200;
    let (mut samples, mut sizes) = (Vec::new(), None);
    for (name, body) in boxes(bytes)? {
        match name.as_str() {
            "moof" => {
                let trun = find(body, &["traf", "trun"]).context("no trun")?;
                let (flags, count) = (u32_at(trun, 0)? & 0xff_ffff, u32_at(trun, 4)? as usize);
                ensure!(flags & SIZE_PRESENT != 0, "samples without a size");
                let header = 8 + 4 * (flags & 0x05).count_ones() as usize;
                let per_sample = 4 * (flags & 0xf00).count_ones() as usize;
                let before = 4 * (flags & 0x100).count_ones() as usize;
                let size = |sample| u32_at(trun, header + sample * per_sample + before);
                sizes = Some((0..count).map(size).collect::<Result<Vec<_>>>()?);
            }
            "mdat" => {
                let mut rest = body;
                for size in sizes.take().context("an mdat without a moof")? {
                    let sample;
                    (sample, rest) = rest.split_at_checked(size as usize).context("a sample is cut short")?;
                    samples.push(sample);
                }
                ensure!(rest.is_empty(), "{} bytes belong to no sample", rest.len());
            }
            _ => {}
        }
    }
    ensure!(sizes.is_none(), "a moof without its mdat");
    Ok(samples)
}

fn fragment(moof: &[u8]) -> Result<Fragment> {
    const DURATION_PRESENT: u32 = 0x000100;
    let tfdt = find(moof, &["traf", "tfdt"]).context("no tfdt")?;
    ensure!(tfdt.first() == Some(&1), "a tfdt of 32 bits wraps after half a day of 90 kHz");
    let base = (u64::from(u32_at(tfdt, 4)?) << 32) | u64::from(u32_at(tfdt, 8)?);

    let trun = find(moof, &["traf", "trun"]).context("no trun")?;
    let (flags, samples) = (u32_at(trun, 0)? & 0xff_ffff, u32_at(trun, 4)?);
    // After flags and count: data offset and first sample's flags; then per sample duration, size, flags, offset.
    let header = 8 + 4 * (flags & 0x05).count_ones() as usize;
    let per_sample = 4 * (flags & 0xf00).count_ones() as usize;
    let durations = (0..samples as usize).map(|sample| match flags & DURATION_PRESENT {
        0 => default_duration(moof),
        _ => u32_at(trun, header + sample * per_sample),
    });
    Ok(Fragment { base, durations: durations.collect::<Result<_>>()? })
}

/// From `tfhd`, for all samples of a fragment.
fn default_duration(moof: &[u8]) -> Result<u32> {
    const DURATION_PRESENT: u32 = 0x000008;
    let tfhd = find(moof, &["traf", "tfhd"]).context("no tfhd")?;
    let flags = u32_at(tfhd, 0)? & 0xff_ffff;
    ensure!(flags & DURATION_PRESENT != 0, "neither trun nor tfhd has a duration");
    // After the track's id: an 8-byte data offset and a 4-byte description index, if they are there.
    u32_at(tfhd, 8 + 8 * (flags & 1) as usize + 4 * (flags >> 1 & 1) as usize)
}

fn find<'a>(bytes: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    let (name, deeper) = path.split_first()?;
    let (_, body) = boxes(bytes).ok()?.into_iter().find(|(found, _)| found == name)?;
    if deeper.is_empty() { Some(body) } else { find(body, deeper) }
}

fn boxes(mut bytes: &[u8]) -> Result<Vec<(String, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let size = u32_at(bytes, 0)? as usize;
        ensure!((8..=bytes.len()).contains(&size), "a box of {size} bytes in {}", bytes.len());
        let (this, rest) = bytes.split_at(size);
        found.push((String::from_utf8_lossy(&this[4..8]).into_owned(), &this[8..]));
        bytes = rest;
    }
    Ok(found)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let four = bytes.get(at..at + 4).context("a box is cut short")?;
    Ok(u32::from_be_bytes(four.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &str, body: &[u8]) -> Vec<u8> {
        let size = (8 + body.len()) as u32;
        [&size.to_be_bytes(), name.as_bytes(), body].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn part(tfhd: &[u32], trun: &[u32]) -> Vec<u8> {
        let tfdt = boxed("tfdt", &words(&[0x0100_0000, 1, 2]));
        let traf = [boxed("tfhd", &words(tfhd)), tfdt, boxed("trun", &words(trun))].concat();
        [boxed("moof", &boxed("traf", &traf)), boxed("mdat", b"media")].concat()
    }

    const BASE: u64 = (1 << 32) + 2;

    #[test]
    fn durations_are_read_from_each_sample() {
        // Flags: data offset, durations and sizes. Then the count, the offset, and two samples.
        let bytes = part(&[0, 1], &[0x301, 2, 99, 3_000, 10, 2_970, 20]);
        assert_eq!(fragments(&bytes).unwrap(), [Fragment { base: BASE, durations: vec![3_000, 2_970] }]);
        assert_eq!(fragments(&bytes).unwrap()[0].end(), BASE + 5_970);
    }

    #[test]
    fn one_duration_may_stand_for_all_samples() {
        let bytes = part(&[0x8, 1, 1_024], &[0x201, 3, 99, 10, 20, 30]);
        assert_eq!(fragments(&bytes).unwrap(), [Fragment { base: BASE, durations: vec![1_024; 3] }]);
    }

    #[test]
    fn what_is_missing_or_cut_short_is_an_error() {
        let no_duration = part(&[0, 1], &[0x201, 1, 99, 10]);
        let too_few_samples = part(&[0, 1], &[0x301, 2, 99, 3_000, 10]);
        for bytes in [&no_duration[..], &too_few_samples, &too_few_samples[..30]] {
            assert!(fragments(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn samples_are_cut_as_they_are_said_to_be() {
        // The mdat of `part` has five bytes.
        let cut = |sizes: [u32; 2]| part(&[0, 1], &[0x301, 2, 99, 3_000, sizes[0], 2_970, sizes[1]]);
        assert_eq!(samples(&cut([2, 3])).unwrap(), [b"me".as_slice(), b"dia"]);
        for sizes in [[2, 2], [3, 3]] {
            assert!(samples(&cut(sizes)).is_err(), "{sizes:?}");
        }
        let torn = cut([2, 3]);
        assert!(samples(&torn[..torn.len() - 13]).is_err(), "without its mdat");
    }

    #[test]
    fn the_timescale_is_found_in_the_init_segment() {
        let mdhd = boxed("mdhd", &words(&[0, 0, 0, 90_000, 0, 0]));
        let moov = boxed("moov", &boxed("trak", &boxed("mdia", &mdhd)));
        assert_eq!(timescale(&[boxed("ftyp", b"cmf2"), moov].concat()).unwrap(), 90_000);
    }
}
