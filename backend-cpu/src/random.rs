//! Random numbers as defined by [`backend_api::philox`], computed in vectors.

use backend_api::{Buffers, Dests, Distribution, Result, philox, rounding};
use pulp::{Simd, WithSimd};

use crate::device::Cpu;
use crate::element::Float;
use crate::storage::{CpuBuffer, Output, dests};

/// Cost of one number, for deciding how many threads to use.
const WORK: usize = 4;
/// Blocks of four words that are computed at a time, in vectors.
const BLOCKS: usize = 16;
/// Numbers computed from these blocks.
const NUMBERS: usize = 4 * BLOCKS;

impl Cpu {
    pub(crate) fn random<T: Float>(
        &self,
        key: u64,
        distribution: Distribution,
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let top = match distribution {
            // Rounding may reach the upper end, which is excluded.
            Distribution::Uniform { low, high } if low < high => {
                rounding::below(output.dtype(), high)
            }
            Distribution::Uniform { high, .. } => high,
            Distribution::Normal { .. } => f64::INFINITY,
        };
        let top = T::from_f64(top);
        let out = output.elements::<T>();
        self.split(out.len(), [(out, 1)], WORK, &|range, [out]| {
            self.arch().dispatch(Numbers {
                key,
                distribution,
                top,
                first: range.start,
                out,
            });
        });
        Ok([output.finish()].into_iter().collect())
    }
}

/// The elements of a random tensor from `first` on.
struct Numbers<'a, T> {
    key: u64,
    distribution: Distribution,
    /// The largest number of a uniform distribution.
    top: T,
    first: usize,
    out: &'a mut [T],
}

impl<T: Float> WithSimd for Numbers<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (mut first, mut out) = (self.first, self.out);
        while !out.is_empty() {
            let words = words(self.key, first as u64 / 4);
            let numbers = match self.distribution {
                Distribution::Uniform { low, high } => uniform(&words, low, high, self.top),
                Distribution::Normal { mean, std } => normal::<T>(&words, mean, std),
            };
            // Elements may start within a block.
            let from = &numbers[first % 4..];
            let len = from.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(&from[..len]);
            first += len;
            out = later;
        }
    }
}

/// [`philox::block`] of [`BLOCKS`] blocks from `first` on: word `w` of block `i` at `[w][i]`.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "the four rows of words are indexed together"
)]
fn words(key: u64, first: u64) -> [[u32; BLOCKS]; 4] {
    let mut c = [[0u32; BLOCKS]; 4];
    for i in 0..BLOCKS {
        let block = first.wrapping_add(i as u64);
        c[0][i] = block as u32;
        c[1][i] = (block >> 32) as u32;
    }
    let mut k = [key as u32, (key >> 32) as u32];
    for _ in 0..10 {
        for i in 0..BLOCKS {
            let a = 0xD251_1F53 * u64::from(c[0][i]);
            let b = 0xCD9E_8D57 * u64::from(c[2][i]);
            c[0][i] = (b >> 32) as u32 ^ c[1][i] ^ k[0];
            c[1][i] = b as u32;
            c[2][i] = (a >> 32) as u32 ^ c[3][i] ^ k[1];
            c[3][i] = a as u32;
        }
        k = [
            k[0].wrapping_add(0x9E37_79B9),
            k[1].wrapping_add(0xBB67_AE85),
        ];
    }
    c
}

#[inline(always)]
fn uniform<T: Float>(words: &[[u32; BLOCKS]; 4], low: f64, high: f64, top: T) -> [T; NUMBERS] {
    let mut numbers = [T::ZERO; NUMBERS];
    for (w, words) in words.iter().enumerate() {
        for i in 0..BLOCKS {
            let x = T::from_f64(low + (high - low) * f64::from(philox::unit(words[i])));
            numbers[4 * i + w] = if x.to_f64() < high { x } else { top };
        }
    }
    numbers
}

#[inline(always)]
fn normal<T: Float>(words: &[[u32; BLOCKS]; 4], mean: f64, std: f64) -> [T; NUMBERS] {
    let mut numbers = [T::ZERO; NUMBERS];
    for (i, four) in numbers.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let [a, b] = philox::normal_pair(words[0][i], words[1][i]);
        let [c, d] = philox::normal_pair(words[2][i], words[3][i]);
        *four = [a, b, c, d].map(|x| T::from_f64(mean + std * x));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use backend_api::DType;

    use super::*;

    #[test]
    fn words_are_those_of_philox() {
        for first in [0, 5, u64::from(u32::MAX) - 3, u64::MAX - 2] {
            let words = words(0x1234_5678_9ABC_DEF0, first);
            for (i, block) in (0..BLOCKS).zip(0..) {
                let block = philox::block(0x1234_5678_9ABC_DEF0, first.wrapping_add(block));
                assert_eq!([0, 1, 2, 3].map(|w| words[w][i]), block);
            }
        }
    }

    #[test]
    fn the_upper_end_is_never_reached() {
        let words = [[u32::MAX; BLOCKS]; 4];
        for high in [1.0, 1e-3, 1.0 + 1e-12, -2.0, 16_777_216.5] {
            let top = rounding::below(DType::F32, high) as f32;
            let x = uniform(&words, high - 1e-3, high, top)[0];
            assert!(f64::from(x) < high, "{x} is not below {high}");
        }
        assert_eq!(uniform(&words, 3.0, 3.0, 3.0f32)[0], 3.0);
    }
}
