//! The innermost loops, with AMX instructions in inline assembly.

use std::arch::asm;
use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_loadu_si512, _mm512_or_si512, _mm512_set1_epi32, _mm512_srli_epi32, _mm512_store_si512,
    _mm512_sub_ps,
};
use std::{array, ptr};

use super::{BLOCK, COLUMNS, DEPTH, PAIR, ROW, ROWS, SPLIT, WORDS};

/// The sums of two tiles of rows with two tiles of columns: the memory they are loaded from and
/// stored to, row after row.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) from: [*const f32; 2],
    pub(super) to: [*mut f32; 2],
    /// Strides between rows, in bytes, for both tiles.
    pub(super) from_stride: usize,
    pub(super) to_stride: usize,
}

/// Two tile columns of the right-hand side.
#[derive(Clone, Copy)]
pub(super) enum Tiles {
    /// Rows of [`PAIR`] numbers that still have to be split. `from` is the first row and `stride`
    /// the distance between rows; `tail` holds the last block if it lies elsewhere. The parts are
    /// written to `to`; those of each further block go `advance` words further. If `advance` is 0,
    /// blocks alternate between two buffers.
    Numbers {
        from: *const f32,
        stride: usize,
        tail: Option<*const f32>,
        to: *mut u16,
        advance: usize,
    },
    /// Numbers that are already split, or the parts that `Numbers` has written.
    Parts(*const u16),
    /// One part, rounded.
    Rounded(*const u16),
}

/// Configures the AMX tiles: sums and left-hand tiles have `height` rows.
///
/// # Safety
/// AMX is available.
pub(super) unsafe fn configure(height: usize) {
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }
    let whole = ROWS as u8;
    let height = height as u8;
    let configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: array::from_fn(|i| if i < 8 { 64 } else { 0 }),
        // 0 to 3 sums; 4 and 5 left; 6 and 7 right.
        rows: array::from_fn(|i| match i {
            0..=5 => height,
            6 | 7 => whole,
            _ => 0,
        }),
    };
    // SAFETY: the operand is 64 bytes with a valid configuration: tiles of up to 16 rows of 64
    // bytes.
    unsafe {
        asm!(
            "ldtilecfg [{}]",
            in(reg) ptr::from_ref(&configuration),
            options(nostack, readonly, preserves_flags),
        );
    }
}

/// Releases the tiles, so that the operating system need not save them.
///
/// # Safety
/// AMX is available.
pub(super) unsafe fn release() {
    // SAFETY: `run` stores the sums before it returns, so the tiles hold nothing that is still
    // needed.
    unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
}

/// Adds the products of `blocks` blocks of the inner index to the sums: two tiles of left-hand rows
/// times two tile columns of the right-hand side.
///
/// # Safety
/// AMX is available and configured for the number of rows that `sums` has in each tile. The
/// left-hand side has tiles for all blocks. The right-hand side has tiles for all blocks, or
/// numbers for all blocks and room for their parts; for the parts of two blocks if these alternate.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn run(mut a: [*const u16; 2], b: Tiles, blocks: usize, sums: &Sums) {
    // SAFETY: the caller guarantees that all tiles exist, and rows for all sums. The AMX tiles that
    // are overwritten hold nothing: a product begins by loading the sums and ends by storing them,
    // and no other code uses tiles. Pointers are moved past the end but not read there; prefetching
    // accesses no memory.
    unsafe {
        load_sums(sums);
        match b {
            Tiles::Numbers {
                from,
                stride,
                tail,
                to,
                advance,
            } => {
                let numbers = |block: usize| match tail {
                    Some(tail) if block + 1 == blocks => (tail, PAIR),
                    _ => (from.wrapping_add(block * DEPTH * stride), stride),
                };
                let place = |block: usize| match advance {
                    0 => to.add(block % 2 * BLOCK),
                    advance => to.add(block * advance),
                };
                if blocks > 0 {
                    let (from, stride) = numbers(0);
                    (0..PHASES).for_each(|phase| split_rows(from, stride, place(0), phase));
                }
                for block in 0..blocks {
                    let parts = place(block);
                    if block + 1 < blocks {
                        let (next, stride) = numbers(block + 1);
                        let to = place(block + 1);
                        multiply_parts(a, parts, |phase| split_rows(next, stride, to, phase));
                    } else {
                        multiply_parts(a, parts, |_| ());
                    }
                    a = a.map(|a| a.wrapping_add(SPLIT * WORDS));
                }
            }
            Tiles::Parts(mut parts) => {
                for _ in 0..blocks {
                    let ahead = parts.wrapping_add(BLOCK);
                    multiply_parts(a, parts, |phase| {
                        ask::<{ BLOCK / PHASES }>(ahead.wrapping_add(phase * BLOCK / PHASES));
                    });
                    a = a.map(|a| a.wrapping_add(SPLIT * WORDS));
                    parts = ahead;
                }
            }
            Tiles::Rounded(mut tiles) => {
                for _ in 0..blocks {
                    let ahead = tiles.wrapping_add(2 * WORDS);
                    ask::<{ 2 * WORDS }>(ahead);
                    multiply_rounded(a, tiles);
                    a = a.map(|a| a.wrapping_add(WORDS));
                    tiles = ahead;
                }
            }
        }
        store_sums(sums);
    }
}

/// Prefetches `COUNT` words.
#[inline]
fn ask<const COUNT: usize>(from: *const u16) {
    for at in (0..COUNT).step_by(ROW) {
        // SAFETY: a prefetch is a hint that accesses no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast()) };
    }
}

#[inline]
unsafe fn load_sums(sums: &Sums) {
    // SAFETY: as for `run`.
    unsafe {
        asm!(
            "tileloadd tmm0, [{first} + {stride}*1]",
            "tileloadd tmm1, [{first} + {stride}*1 + 64]",
            "tileloadd tmm2, [{second} + {stride}*1]",
            "tileloadd tmm3, [{second} + {stride}*1 + 64]",
            first = in(reg) sums.from[0],
            second = in(reg) sums.from[1],
            stride = in(reg) sums.from_stride,
            options(nostack, readonly, preserves_flags),
        );
    }
}

#[inline]
unsafe fn store_sums(sums: &Sums) {
    // SAFETY: as for `run`.
    unsafe {
        asm!(
            "tilestored [{first} + {stride}*1], tmm0",
            "tilestored [{first} + {stride}*1 + 64], tmm1",
            "tilestored [{second} + {stride}*1], tmm2",
            "tilestored [{second} + {stride}*1 + 64], tmm3",
            first = in(reg) sums.to[0],
            second = in(reg) sums.to[1],
            stride = in(reg) sums.to_stride,
            options(nostack, preserves_flags),
        );
    }
}

/// Loads tiles of both sides, then multiplies them two by two and accumulates.
macro_rules! products {
    ($a:expr, $b:expr, $(($tile:literal, $from:literal, $at:literal)),+) => {
        asm!(
            $(concat!("tileloadd tmm", $tile, ", [{", $from, "} + {line}*1 + ", $at, "]"),)+
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "/* {a} {a1} {b} */",
            a = in(reg) $a[0],
            a1 = in(reg) $a[1],
            b = in(reg) $b,
            line = in(reg) 64usize,
            options(nostack, readonly, preserves_flags),
        )
    };
}

/// The phases of a block: one per product of parts.
const PHASES: usize = 6;

/// The six products of a block, in increasing order of magnitude except where another order saves
/// loading tiles twice. `meanwhile` runs after each product; the CPU overlaps its work with the AMX
/// instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply_parts(a: [*const u16; 2], b: *const u16, meanwhile: impl Fn(usize)) {
    // SAFETY: as for `run`: there are three tiles for each row of tiles and for each column.
    unsafe {
        products!(
            a,
            b,
            (4, "a", 0),
            (5, "a1", 0),
            (6, "b", 2048),
            (7, "b", 5120)
        );
        meanwhile(0);
        products!(a, b, (6, "b", 1024), (7, "b", 4096));
        meanwhile(1);
        products!(a, b, (4, "a", 1024), (5, "a1", 1024));
        meanwhile(2);
        products!(a, b, (6, "b", 0), (7, "b", 3072));
        meanwhile(3);
        products!(a, b, (4, "a", 0), (5, "a1", 0));
        meanwhile(4);
        products!(a, b, (4, "a", 2048), (5, "a1", 2048));
        meanwhile(5);
    }
}

#[inline]
unsafe fn multiply_rounded(a: [*const u16; 2], b: *const u16) {
    // SAFETY: as for `run`: there is one tile for each row of tiles and for each column.
    unsafe { products!(a, b, (4, "a", 0), (5, "a1", 0), (6, "b", 0), (7, "b", 1024)) };
}

/// Splits a block into tiles: first the parts of the first 16 columns, then those of the other 16.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn split_block(numbers: &[[f32; PAIR]; DEPTH], tiles: &mut [u16]) {
    assert!(tiles.len() >= BLOCK && tiles.as_ptr().cast::<__m512i>().is_aligned());
    for phase in 0..PHASES {
        // SAFETY: there are 32 rows of numbers. The assertion checks that there is room for their
        // tiles and that it begins at a cache line.
        unsafe { split_rows(numbers.as_ptr().cast(), PAIR, tiles.as_mut_ptr(), phase) };
    }
}

/// One phase's share of splitting a block: pairs of rows, each number truncated into three parts.
/// Prefetches the same rows of the next block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn split_rows(from: *const f32, stride: usize, to: *mut u16, phase: usize) {
    const ROW_PAIRS: usize = DEPTH / 2;
    for pair in phase * ROW_PAIRS / PHASES..(phase + 1) * ROW_PAIRS / PHASES {
        // SAFETY: as for `run`: 32 rows of numbers, and six tiles that begin at a cache line.
        // Prefetching accesses no memory.
        unsafe {
            let low = from.add(2 * pair * stride);
            let high = low.add(stride);
            for half in 0..2 {
                let tiles = to.add(half * SPLIT * WORDS + pair * ROW);
                let numbers = [low, high].map(|row| row.add(half * COLUMNS));
                for (part, words) in split(numbers).into_iter().enumerate() {
                    _mm512_store_si512(tiles.add(part * WORDS).cast(), words);
                }
            }
            for row in [low, high] {
                let ahead = row.wrapping_add(DEPTH * stride);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(PAIR - 1).cast());
            }
        }
    }
}

/// The parts of two rows of 16 numbers, with the words of the two rows interleaved. Each part is
/// the upper half of the remainder. Three upper halves hold all digits of a number.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn split([low, high]: [*const f32; 2]) -> [__m512i; SPLIT] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    // SAFETY: the caller guarantees 16 numbers in each row.
    let mut rest = [low, high].map(|row| unsafe { _mm512_loadu_si512(row.cast()) });
    array::from_fn(|_| {
        let [low, high] = rest;
        let [low_part, high_part] = [_mm512_and_si512(low, upper), _mm512_and_si512(high, upper)];
        rest = [(low, low_part), (high, high_part)].map(|(x, part)| {
            _mm512_castps_si512(_mm512_sub_ps(
                _mm512_castsi512_ps(x),
                _mm512_castsi512_ps(part),
            ))
        });
        _mm512_or_si512(_mm512_srli_epi32::<16>(low), high_part)
    })
}
