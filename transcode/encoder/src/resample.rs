//! A plane of eight-bit samples in another size, by a cubic convolution in both directions.
//!
//!   rows of the source ─▶ strip: 32 rows of the target's ─▶ tile: its columns ─▶ narrow: the target's columns ─▶ rows
//!
//! A sum of rows is many samples in one instruction, a sum within a row is one at a time: so what was a row is made a
//! column before it is summed. A strip at a time, all of which stays in the processor's nearest memory.

use fearless_simd::prelude::*;
use fearless_simd::{Level, Simd, dispatch, i16x16, i32x8, u8x16, u8x32};

/// Rows of a strip; samples that are summed at once.
const LANES: usize = 32;

/// Side of the blocks that are turned at once.
const BLOCK: usize = 16;

/// What the weights of one sample add up to: as fine as they can be and still be multiplied in pairs of 16 bits.
const ONE: i32 = 1 << ONE_BITS;
const ONE_BITS: u32 = 14;

/// Of all values of a sample.
const MEAN: i32 = 128;

/// Weights of two samples in a row.
type Pair = [i16; 2];

/// One column of a strip.
type Column = [u8; LANES];

/// Samples to read: rows of `width`, which begin `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plane<'a> {
    pub(crate) samples: &'a [u8],
    pub(crate) stride: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Samples to write.
#[derive(Debug)]
pub(crate) struct PlaneMut<'a> {
    pub(crate) samples: &'a mut [u8],
    pub(crate) stride: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Resamples planes, and keeps what it worked out for their sizes, and its memory, from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Resampler {
    down: Filter,
    across: Filter,
    /// [`LANES`] rows, each of whole blocks.
    strip: Vec<u8>,
    tile: Vec<Column>,
    narrow: Vec<Column>,
}

impl Resampler {
    /// `None` if a plane has no samples, or fewer than it says.
    pub(crate) fn resample(&mut self, from: Plane<'_>, to: PlaneMut<'_>) -> Option<()> {
        // With the widest registers that this processor has.
        self.resample_with(Level::new(), from, to)
    }

    fn resample_with(&mut self, level: Level, from: Plane<'_>, to: PlaneMut<'_>) -> Option<()> {
        is_whole(from.samples, from.stride, from.width, from.height).then_some(())?;
        is_whole(to.samples, to.stride, to.width, to.height).then_some(())?;
        if (from.width, from.height) == (to.width, to.height) {
            let rows = from.samples.chunks(from.stride).zip(to.samples.chunks_mut(to.stride));
            for (from, to_row) in rows.take(to.height) {
                to_row[..to.width].copy_from_slice(&from[..to.width]);
            }
            return Some(());
        }
        self.down.fit(from.height, to.height);
        self.across.fit(from.width, to.width);
        let width = from.width.next_multiple_of(BLOCK);
        self.strip.resize(width * LANES, 0);
        self.tile.resize(width, [0; LANES]);
        self.narrow.resize(to.width.next_multiple_of(BLOCK), [0; LANES]);
        dispatch!(level, simd => self.strips(simd, from, to));
        Some(())
    }

    // What is called from here is compiled once for each kind of processor, which it is only if it is inlined.
    #[inline(always)]
    fn strips<S: Simd>(&mut self, simd: S, from: Plane<'_>, to: PlaneMut<'_>) {
        let Self { down, across, strip, tile, narrow } = self;
        let width = tile.len();
        for (top, target) in (0..to.height).step_by(LANES).zip(to.samples.chunks_mut(to.stride * LANES)) {
            let rows = LANES.min(to.height - top);
            for row in 0..rows {
                let (first, weights) = down.of(top + row);
                let sums = &mut strip[row * width..][..from.width];
                sum_rows(simd, &from.samples[first * from.stride..], from.stride, weights, sums);
            }
            columns_of(simd, strip, tile);
            for (column, sums) in narrow.iter_mut().take(to.width).enumerate() {
                let (first, weights) = across.of(column);
                sum(simd, tile[first..].as_flattened(), LANES, weights, sums);
            }
            rows_of(simd, narrow, rows, to.width, target, to.stride);
        }
    }
}

fn is_whole(samples: &[u8], stride: usize, width: usize, height: usize) -> bool {
    let needed = height.checked_sub(1).and_then(|rows| stride.checked_mul(rows)?.checked_add(width));
    width > 0 && width <= stride && needed.is_some_and(|needed| needed <= samples.len())
}

/// `to` becomes the weighted sum of rows.
#[inline(always)]
fn sum_rows<S: Simd>(simd: S, rows: &[u8], stride: usize, weights: &[Pair], to: &mut [u8]) {
    let width = to.len();
    if width < LANES {
        for (column, to) in to.iter_mut().enumerate() {
            let mut sum = ONE / 2;
            for (row, &weight) in
                weights.as_flattened().iter().enumerate().filter(|(_, weight)| **weight != 0)
            {
                sum += i32::from(rows[row * stride + column]) * i32::from(weight);
            }
            *to = (sum >> ONE_BITS).clamp(0, 255) as u8;
        }
        return;
    }
    let mut left = 0;
    while left < width {
        // The last overlaps with the one before it.
        left = left.min(width - LANES);
        if let Some(to) = to[left..].first_chunk_mut() {
            sum(simd, &rows[left..], stride, weights, to);
        }
        left += LANES;
    }
}

/// The same of the first samples of each row.
#[inline(always)]
fn sum<S: Simd>(simd: S, rows: &[u8], stride: usize, weights: &[Pair], to: &mut Column) {
    // Half a step is added, for rounding; the mean is taken off, since narrowing saturates signed.
    let none = i32x8::splat(simd, ONE / 2 - MEAN * ONE);
    let (mut a, mut b, mut c, mut d) = (none, none, none, none);
    for (pair, weights) in weights.iter().enumerate() {
        let first = 2 * pair * stride;
        // Behind the last row there may be none.
        let second = if weights[1] == 0 { first } else { first + stride };
        let second = u8x32::from_slice(simd, &rows[second..][..LANES]);
        let (low, high) = u8x32::from_slice(simd, &rows[first..][..LANES]).interleave(second);
        let ((low_a, low_b), (high_c, high_d)) = (low.widen(), high.widen());
        let weights = i32::from(weights[0]) & 0xFFFF | i32::from(weights[1]) << 16;
        let weights = i32x8::splat(simd, weights).bitcast::<i16x16<S>>();
        a += low_a.bitcast::<i16x16<S>>().pairwise_dot_product(weights);
        b += low_b.bitcast::<i16x16<S>>().pairwise_dot_product(weights);
        c += high_c.bitcast::<i16x16<S>>().pairwise_dot_product(weights);
        d += high_d.bitcast::<i16x16<S>>().pairwise_dot_product(weights);
    }
    let low = (a >> ONE_BITS).saturating_narrow(b >> ONE_BITS);
    let high = (c >> ONE_BITS).saturating_narrow(d >> ONE_BITS);
    let sums = low.saturating_narrow(high).bitcast::<u8x32<S>>() + u8x32::splat(simd, MEAN as u8);
    sums.store_slice(to);
}

/// The columns of a strip.
#[inline(always)]
fn columns_of<S: Simd>(simd: S, strip: &[u8], columns: &mut [Column]) {
    let stride = columns.len();
    for left in (0..stride).step_by(BLOCK) {
        for top in (0..LANES).step_by(BLOCK) {
            let mut block = [u8x16::splat(simd, 0); BLOCK];
            for row in 0..BLOCK {
                block[row] = u8x16::from_slice(simd, &strip[(top + row) * stride + left..][..BLOCK]);
            }
            let block = turned(block);
            for column in 0..BLOCK {
                block[column].store_slice(&mut columns[left + column][top..top + BLOCK]);
            }
        }
    }
}

/// The first `count` rows of a strip that is given by its columns, each of `width`, into `to`.
#[inline(always)]
fn rows_of<S: Simd>(simd: S, columns: &[Column], count: usize, width: usize, to: &mut [u8], stride: usize) {
    for left in (0..width).step_by(BLOCK) {
        for top in (0..count).step_by(BLOCK) {
            let mut block = [u8x16::splat(simd, 0); BLOCK];
            for column in 0..BLOCK {
                block[column] = u8x16::from_slice(simd, &columns[left + column][top..top + BLOCK]);
            }
            let block = turned(block);
            for row in 0..BLOCK.min(count - top) {
                let to = &mut to[(top + row) * stride + left..];
                if left + BLOCK <= width {
                    block[row].store_slice(&mut to[..BLOCK]);
                } else {
                    to[..width - left].copy_from_slice(&block[row].as_slice()[..width - left]);
                }
            }
        }
    }
}

/// Makes rows columns: each of the upper half is interleaved with the one that is half a block below it, four times.
#[inline(always)]
fn turned<S: Simd>(mut rows: [u8x16<S>; BLOCK]) -> [u8x16<S>; BLOCK] {
    const HALF: usize = BLOCK / 2;
    for _ in 0..BLOCK.ilog2() {
        let above = rows;
        for row in 0..HALF {
            (rows[2 * row], rows[2 * row + 1]) = above[row].interleave(above[row + HALF]);
        }
    }
    rows
}

/// Of which samples each sample of a row or column of another length is the sum, and with which weights.
#[derive(Debug, Default)]
struct Filter {
    from: usize,
    to: usize,
    /// How many pairs each has; behind an odd number of samples, the last weight is zero.
    pairs: usize,
    first: Vec<usize>,
    weights: Vec<Pair>,
}

impl Filter {
    /// From one length to another, neither of which is zero.
    fn fit(&mut self, from: usize, to: usize) {
        if (self.from, self.to) == (from, to) {
            return;
        }
        let scale = from as f64 / to as f64;
        // Of a smaller picture, every sample of the larger one has its part.
        let stretch = scale.max(1.0);
        let reach = CUBIC_REACH * stretch;
        let taps = from.min((2.0 * reach).ceil() as usize);
        self.first.clear();
        self.weights.clear();
        for number in 0..to {
            let centre = (number as f64 + 0.5) * scale;
            let first = ((centre - reach + 0.5).floor().max(0.0) as usize).min(from - taps);
            let weight = |tap| cubic(((first + tap) as f64 + 0.5 - centre) / stretch);
            let all: f64 = (0..taps).map(weight).sum();
            let mut rounded_by = 0.0;
            let mut rounded = |tap| {
                if tap >= taps {
                    return 0;
                }
                // Each carries on what the one before it was rounded by, so that they add up.
                let exact = weight(tap) / all * f64::from(ONE) + rounded_by;
                rounded_by = exact - exact.round();
                exact.round() as i16
            };
            self.weights.extend((0..taps).step_by(2).map(|tap| [rounded(tap), rounded(tap + 1)]));
            self.first.push(first);
        }
        (self.from, self.to, self.pairs) = (from, to, taps.div_ceil(2));
    }

    /// The first sample, and weights for it and those after it.
    #[inline(always)]
    fn of(&self, number: usize) -> (usize, &[Pair]) {
        (self.first[number], &self.weights[number * self.pairs..][..self.pairs])
    }
}

/// Where the kernel ends, on both sides.
const CUBIC_REACH: f64 = 2.0;

/// The cubic convolution kernel of Keys ("Cubic Convolution Interpolation for Digital Image Processing", 1981, with
/// a = -1/2), also known as Catmull-Rom. A triangle would blur a little at each step of the cascade, 2 dB at the third.
fn cubic(distance: f64) -> f64 {
    let distance = distance.abs();
    if distance < 1.0 {
        (1.5 * distance - 2.5) * distance * distance + 1.0
    } else if distance < CUBIC_REACH {
        ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Exact sums, which are cut to what a sample can be after each direction, and never rounded.
    fn expected(
        from: &[u8],
        (width, height): (usize, usize),
        (to_width, to_height): (usize, usize),
    ) -> Vec<f64> {
        let filter = |from: usize, to: usize| {
            let (scale, stretch) = (from as f64 / to as f64, (from as f64 / to as f64).max(1.0));
            let weights = move |number: usize| {
                let centre = (number as f64 + 0.5) * scale;
                let weights: Vec<f64> =
                    (0..from).map(|at| cubic((at as f64 + 0.5 - centre) / stretch)).collect();
                let all: f64 = weights.iter().sum();
                weights.into_iter().map(|weight| weight / all).collect::<Vec<_>>()
            };
            (0..to).map(weights).collect::<Vec<_>>()
        };
        let (across, down) = (filter(width, to_width), filter(height, to_height));
        let lower: Vec<f64> = (0..to_height * width)
            .map(|at| {
                let column = (0..height).map(|row| f64::from(from[row * width + at % width]));
                column
                    .zip(&down[at / width])
                    .map(|(sample, weight)| sample * weight)
                    .sum::<f64>()
                    .clamp(0.0, 255.0)
            })
            .collect();
        let sum = |at: usize| {
            let row = &lower[at / to_width * width..][..width];
            row.iter().zip(&across[at % to_width]).map(|(sample, weight)| sample * weight).sum::<f64>()
        };
        (0..to_width * to_height).map(|at| sum(at).clamp(0.0, 255.0)).collect()
    }

    fn size() -> impl Strategy<Value = (usize, usize)> {
        (1..150_usize, 1..60_usize)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the sizes: also where sides are no multiple of a block, where a picture is narrower than a register,
        /// where it grows, and where rows are padded. Pictures are smooth with an edge, as pictures are.
        #[test]
        fn it_is_the_convolution(
            from in size(), to in size(), padding in 0..5_usize, phase in 0..100_usize, edge in 0..150_usize,
        ) {
            let wave = |at: usize, length: usize| (((at + phase) as f64 / length as f64) * 6.0).sin() * 50.0;
            let plane: Vec<u8> = (0..from.0 * from.1)
                .map(|at| {
                    let (column, row) = (at % from.0, at / from.0);
                    (if column < edge { 70.0 } else { 180.0 } + wave(column, from.0) + wave(row, from.1)) as u8
                })
                .collect();
            let stride = to.0 + padding;
            let mut ours = vec![99; stride * to.1];
            Resampler::default()
                .resample(
                    Plane { samples: &plane, stride: from.0, width: from.0, height: from.1 },
                    PlaneMut { samples: &mut ours, stride, width: to.0, height: to.1 },
                )
                .expect("every sample is there");
            for (at, expected) in expected(&plane, from, to).into_iter().enumerate() {
                let ours = ours[at / to.0 * stride + at % to.0];
                prop_assert!(
                    (f64::from(ours) - expected).abs() <= 1.6,
                    "{from:?} to {to:?}, sample {at}: {ours}, not {expected}"
                );
            }
            let rows = ours.chunks(stride);
            prop_assert!(rows.flat_map(|row| &row[to.0..]).all(|&sample| sample == 99), "the padding was written");
        }

        #[test]
        fn weights_add_up_and_stay_inside(from in 1..9_000_usize, to in 1..2_000_usize) {
            let mut filter = Filter::default();
            filter.fit(from, to);
            for number in 0..to {
                let (first, weights) = filter.of(number);
                let weights = weights.as_flattened();
                prop_assert_eq!(weights.iter().map(|&weight| i32::from(weight)).sum::<i32>(), ONE);
                let last = weights.iter().rposition(|&weight| weight != 0);
                prop_assert!(last.is_some_and(|last| first + last < from), "{} to {}", from, to);
            }
        }
    }

    /// Sums are whole numbers: the widest registers and those that every processor has give the same picture.
    #[test]
    fn every_processor_makes_the_same() {
        let noise: Vec<u8> =
            (0..333 * 77_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (width, height) in [(150, 40), (400, 100), (31, 9)] {
            let picture = |level| {
                let mut picture = vec![0; width * height];
                Resampler::default()
                    .resample_with(
                        level,
                        Plane { samples: &noise, stride: 333, width: 333, height: 77 },
                        PlaneMut { samples: &mut picture, stride: width, width, height },
                    )
                    .expect("every sample is there");
                picture
            };
            assert!(picture(Level::new()) == picture(Level::baseline()), "{width}x{height}");
        }
    }

    /// Beyond black and white a cubic rings; it must not come out at the other end.
    #[test]
    fn what_rings_is_cut() {
        let edge: Vec<u8> = (0..64 * 64).map(|at| if at % 64 < 32 { 0 } else { 255 }).collect();
        for size in [20, 48, 100] {
            let mut ours = vec![0; size * size];
            Resampler::default()
                .resample(
                    Plane { samples: &edge, stride: 64, width: 64, height: 64 },
                    PlaneMut { samples: &mut ours, stride: size, width: size, height: size },
                )
                .expect("every sample is there");
            for row in ours.chunks(size) {
                assert!(row[..size / 2 - 2].iter().all(|&sample| sample < 30), "{row:?}");
                assert!(row[size / 2 + 2..].iter().all(|&sample| sample > 225), "{row:?}");
            }
        }
    }

    #[test]
    fn rows_become_columns() {
        let mut tile = vec![[0; LANES]; 2 * BLOCK];
        let strip: Vec<u8> = (0..LANES * tile.len()).map(|at| (at * 7 % 251) as u8).collect();
        dispatch!(Level::new(), simd => columns_of(simd, &strip, &mut tile));
        for (column, samples) in tile.iter().enumerate() {
            for (row, sample) in samples.iter().enumerate() {
                assert_eq!(*sample, strip[row * tile.len() + column], "column {column}, row {row}");
            }
        }
    }

    /// A plane that a stranger's decoder gave, shorter than its format says.
    #[test]
    fn a_short_plane_is_refused() {
        let mut target = [0; 64];
        for (samples, stride, width, height) in
            [(&[0; 63][..], 8, 8, 8), (&[0; 64], 7, 8, 8), (&[], 0, 0, 0), (&[0; 64], usize::MAX, 8, 8)]
        {
            let to = PlaneMut { samples: &mut target, stride: 4, width: 4, height: 4 };
            let from = Plane { samples, stride, width, height };
            assert!(Resampler::default().resample(from, to).is_none(), "{from:?}");
        }
    }
}
