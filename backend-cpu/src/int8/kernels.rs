//! The innermost loops of products of 8-bit integers.
//!
//! This module contains unsafe code: instructions that not every CPU has, and loads by pointer.
#![allow(unsafe_code)]

use pulp::Arch;

use super::{LANES, QUAD, VECTORS};

/// The largest number of rows of a tile.
pub(super) const MOST_ROWS: usize = 4;
/// The largest number of sums of a tile.
pub(super) const MOST_SUMS: usize = MOST_ROWS * VECTORS * LANES;

/// The operands of a tile.
pub(super) struct Tile<'a> {
    /// Rows of words, of four integers each, one row after the other.
    pub(super) a: &'a [u32],
    /// Words of a row, and rows of the panel.
    pub(super) quads: usize,
    /// A panel of `width` columns.
    pub(super) b: &'a [[i8; QUAD]],
    pub(super) width: usize,
    /// The tile's first column in the panel.
    pub(super) first: usize,
    /// -128 times the sum of each column of the tile.
    pub(super) corrections: &'a [i32],
}

/// The instructions of a tile. All give the same sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// AVX-512-VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Kernel {
    pub(super) fn of(arch: Arch) -> Self {
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) if has_vnni() => Self::Vnni,
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) | Arch::V3(_) => Self::Avx2,
            _ => Self::Portable,
        }
    }

    /// The vectors of columns that a tile of some rows has, when some are left: as many as
    /// registers hold the sums of, and a power of two.
    pub(super) fn vectors(self, rows: usize, left: usize) -> usize {
        let most = match (self, rows) {
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, 1) => 4,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, 2) => 2,
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, _) => 1,
            (_, 4) => 4,
            _ => VECTORS,
        };
        1 << most.min(left).ilog2()
    }

    /// The sums of some rows and vectors, one row after the other.
    pub(super) fn run(self, tile: &Tile<'_>, [rows, vectors]: [usize; 2], sums: &mut [i32]) {
        assert_eq!(tile.a.len(), rows * tile.quads, "the tile has all rows");
        assert_eq!(
            tile.b.len(),
            tile.width * tile.quads,
            "the panel has all columns"
        );
        assert!(
            tile.first + vectors * LANES <= tile.width,
            "the tile is within the panel"
        );
        assert_eq!(tile.corrections.len(), vectors * LANES, "one per column");
        let sums = &mut sums[..rows * vectors * LANES];
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => unrolled::<x86::Vnni>(tile, [rows, vectors], sums),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unrolled::<x86::Avx2>(tile, [rows, vectors], sums),
            Self::Portable => portable(tile, sums),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512vnni")
}

/// Sums by plain instructions.
fn portable(tile: &Tile<'_>, sums: &mut [i32]) {
    let columns = tile.corrections.len();
    sums.fill(0);
    for (a, sums) in tile
        .a
        .chunks_exact(tile.quads.max(1))
        .zip(sums.chunks_exact_mut(columns))
    {
        for (a, b) in a.iter().zip(tile.b.chunks_exact(tile.width)) {
            let a: [i8; QUAD] = bytemuck::cast(*a);
            for (sum, b) in sums.iter_mut().zip(&b[tile.first..]) {
                for (a, b) in a.iter().zip(b) {
                    *sum += i32::from(*a) * i32::from(*b);
                }
            }
        }
    }
}

/// A kernel that is compiled for each number of rows and vectors.
#[cfg(target_arch = "x86_64")]
trait Unrolled {
    /// # Safety
    /// The CPU has the instructions. The sizes are those of the tile, whose fields agree as
    /// [`Kernel::run`] asserts; `sums` has `M * Q` vectors.
    unsafe fn run<const M: usize, const Q: usize>(tile: &Tile<'_>, sums: &mut [i32]);
}

#[cfg(target_arch = "x86_64")]
fn unrolled<K: Unrolled>(tile: &Tile<'_>, sizes: [usize; 2], sums: &mut [i32]) {
    // SAFETY: `Kernel::of` found the instructions, and `Kernel::run` asserts the sizes.
    unsafe {
        match sizes {
            [1, 8] => K::run::<1, 8>(tile, sums),
            [1, 4] => K::run::<1, 4>(tile, sums),
            [1, 2] => K::run::<1, 2>(tile, sums),
            [1, 1] => K::run::<1, 1>(tile, sums),
            [2, 8] => K::run::<2, 8>(tile, sums),
            [2, 4] => K::run::<2, 4>(tile, sums),
            [2, 2] => K::run::<2, 2>(tile, sums),
            [2, 1] => K::run::<2, 1>(tile, sums),
            [3, 8] => K::run::<3, 8>(tile, sums),
            [3, 4] => K::run::<3, 4>(tile, sums),
            [3, 2] => K::run::<3, 2>(tile, sums),
            [3, 1] => K::run::<3, 1>(tile, sums),
            [4, 4] => K::run::<4, 4>(tile, sums),
            [4, 2] => K::run::<4, 2>(tile, sums),
            [4, 1] => K::run::<4, 1>(tile, sums),
            _ => unreachable!("`Kernel::vectors` returns no other sizes"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm256_abs_epi8, _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
        _mm256_sign_epi8, _mm256_storeu_si256, _mm512_dpbusd_epi32, _mm512_loadu_si512,
        _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    };

    use super::{LANES, Tile, Unrolled};

    /// Flips the sign of each integer: adds 128 to it, as an unsigned number.
    const FLIP: u32 = 0x8080_8080;

    pub(super) struct Vnni;

    impl Unrolled for Vnni {
        /// The instruction multiplies unsigned integers with signed ones, so 128 is added to those
        /// of the left-hand side. Sums wrap, and the correction takes them back.
        #[target_feature(enable = "avx512f,avx512vnni")]
        unsafe fn run<const M: usize, const Q: usize>(tile: &Tile<'_>, sums: &mut [i32]) {
            let mut all = [[_mm512_setzero_si512(); Q]; M];
            for q in 0..Q {
                // SAFETY: the tile has a correction for each column.
                let correction =
                    unsafe { _mm512_loadu_si512(tile.corrections.as_ptr().add(q * LANES).cast()) };
                for sums in &mut all {
                    sums[q] = correction;
                }
            }
            let (a, mut b) = (tile.a.as_ptr(), tile.b.as_ptr().wrapping_add(tile.first));
            for p in 0..tile.quads {
                let mut x = [_mm512_setzero_si512(); M];
                for (m, x) in x.iter_mut().enumerate() {
                    // SAFETY: row `m` has a word for each row of the panel.
                    *x = _mm512_set1_epi32((unsafe { *a.add(m * tile.quads + p) } ^ FLIP) as i32);
                }
                for q in 0..Q {
                    // SAFETY: row `p` of the panel has these columns.
                    let b = unsafe { _mm512_loadu_si512(b.add(q * LANES).cast()) };
                    for (sums, x) in all.iter_mut().zip(x) {
                        sums[q] = _mm512_dpbusd_epi32(sums[q], x, b);
                    }
                }
                b = b.wrapping_add(tile.width);
            }
            for (to, sum) in sums.chunks_exact_mut(LANES).zip(all.as_flattened()) {
                // SAFETY: `to` has room for a vector.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), *sum) };
            }
        }
    }

    pub(super) struct Avx2;

    impl Unrolled for Avx2 {
        /// The instruction for pairs, too, multiplies unsigned integers with signed ones, and
        /// limits sums to 16 bits. The sign of the left-hand side therefore moves to the right:
        /// then no sum of two exceeds 2 * 127^2, which fits.
        #[target_feature(enable = "avx2")]
        unsafe fn run<const M: usize, const Q: usize>(tile: &Tile<'_>, sums: &mut [i32]) {
            let ones = _mm256_set1_epi16(1);
            let mut all = [[[_mm256_setzero_si256(); 2]; Q]; M];
            let (a, mut b) = (tile.a.as_ptr(), tile.b.as_ptr().wrapping_add(tile.first));
            for p in 0..tile.quads {
                let mut x = [_mm256_setzero_si256(); M];
                for (m, x) in x.iter_mut().enumerate() {
                    // SAFETY: row `m` has a word for each row of the panel.
                    *x = _mm256_set1_epi32(unsafe { *a.add(m * tile.quads + p) } as i32);
                }
                for q in 0..Q {
                    for half in 0..2 {
                        // SAFETY: row `p` of the panel has these columns.
                        let b = unsafe {
                            _mm256_loadu_si256(b.add(q * LANES + half * LANES / 2).cast())
                        };
                        for (sums, x) in all.iter_mut().zip(x) {
                            let signed = _mm256_sign_epi8(b, x);
                            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), signed);
                            let quads = _mm256_madd_epi16(pairs, ones);
                            sums[q][half] = _mm256_add_epi32(sums[q][half], quads);
                        }
                    }
                }
                b = b.wrapping_add(tile.width);
            }
            let all = all.as_flattened().as_flattened();
            for (to, sum) in sums.chunks_exact_mut(LANES / 2).zip(all) {
                // SAFETY: `to` has room for a vector.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), *sum) };
            }
        }
    }
}
