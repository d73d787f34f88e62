//! The innermost loops: instructions of the unit, written out.

use std::arch::asm;
use std::{array, ptr};

use super::{ROWS, SPLIT};

/// The sums of two tiles of rows or one: what they begin with and where they go, row after row.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) from: [*const f32; 2],
    pub(super) to: [*mut f32; 2],
    /// Bytes from one row to the next, in both tiles.
    pub(super) from_stride: usize,
    pub(super) to_stride: usize,
}

/// The operands of a kernel, in tiles.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) a: [*const u16; 2],
    /// One or two pairs of columns of tiles.
    pub(super) b: [*const u16; 2],
    pub(super) blocks: usize,
    pub(super) parts: usize,
}

/// What the unit's tiles are: sums and left sides have `height` rows.
///
/// # Safety
/// There is the unit.
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
        // 0 to 3 sums; 4 left; 5 left, or a part of `b`; 6 and 7 of `b`.
        rows: array::from_fn(|i| match i {
            0..=5 => height,
            6 | 7 => whole,
            _ => 0,
        }),
    };
    // SAFETY: 64 bytes that say something valid: up to 16 rows of 64 bytes.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) ptr::from_ref(&configuration), options(nostack, readonly, preserves_flags));
    }
}

/// Lets the tiles go, so that the system need not save them.
///
/// # Safety
/// There is the unit.
pub(super) unsafe fn release() {
    // SAFETY: what tiles hold is stored when a kernel ends.
    unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
}

/// Runs the kernel for these sums: `two` tiles of rows with two of columns, or one with two or four.
///
/// # Safety
/// There is the unit, configured for as many rows as `sums` has in each tile. `operands` has all tiles of its matrices.
pub(super) unsafe fn run(operands: &Operands, sums: &Sums, two: bool, width: usize) {
    // SAFETY: what the kernels need is what this function does.
    unsafe {
        match (two, width, operands.parts) {
            (true, _, SPLIT) => two_by_two_split(operands, sums),
            (true, ..) => two_by_two(operands, sums),
            (false, 4, SPLIT) => one_by_four_split(operands, sums),
            (false, 4, _) => one_by_four(operands, sums),
            (false, _, SPLIT) => one_by_two_split(operands, sums),
            (false, ..) => one_by_two(operands, sums),
        }
    }
}

/// Instructions of a kernel: a tile from so many bytes after a register; a product of two tiles, added to a third; the four of two tiles by
/// two; and what asks for 512 bytes ahead.
macro_rules! load {
    ($tile:literal, $from:literal, $at:literal) => {
        concat!(
            "tileloadd tmm",
            $tile,
            ", [{",
            $from,
            "} + {line}*1 + ",
            $at,
            "]"
        )
    };
}
macro_rules! dot {
    ($sum:literal, $a:literal, $b:literal) => {
        concat!("tdpbf16ps tmm", $sum, ", tmm", $a, ", tmm", $b)
    };
}
macro_rules! four {
    () => {
        concat!(
            dot!(0, 4, 6),
            "\n",
            dot!(1, 4, 7),
            "\n",
            dot!(2, 5, 6),
            "\n",
            dot!(3, 5, 7)
        )
    };
}
macro_rules! ask {
    ($from:literal, $at:literal) => {
        ask!($from, $at, 0, 64, 128, 192, 256, 320, 384, 448)
    };
    ($from:literal, $at:literal, $($line:literal),+) => {
        concat!($("prefetcht0 [{", $from, "} + ", $at, " + ", $line, "]\n"),+)
    };
}

/// A kernel: loads sums, runs a loop over the tiles of the inner index, and stores the sums.
///
/// The loop's lines use `a` and `a1` (tiles of rows) and `b` and `b1` (pairs of columns of tiles), each further by the tiles of one block
/// after each turn; `line` is the bytes of a row. They ask for the next block of `b` meanwhile.
macro_rules! kernel {
    (
        $(#[$doc:meta])* $name:ident, parts: $parts:literal, a: [$($a:ident = $ai:literal),+], b: [$($b:ident = $bi:literal),+],
        sums: [$($sum:literal in $tile:literal + $offset:literal),+], $($line:expr),+ $(,)?
    ) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As of [`run`].
        unsafe fn $name(operands: &Operands, sums: &Sums) {
            // SAFETY: the caller says that all tiles are there, and rows for all sums. The tiles that are overwritten hold nothing: a
            // product begins with loading sums and ends with storing them. Asking for memory ahead accesses none.
            unsafe {
                $(asm!(
                    concat!("tileloadd tmm", $sum, ", [{from} + {stride}*1 + ", $offset, "]"),
                    from = in(reg) sums.from[$tile],
                    stride = in(reg) sums.from_stride,
                    options(nostack, readonly, preserves_flags),
                );)+
                if operands.blocks > 0 {
                    asm!(
                        "2:",
                        $($line,)+
                        $(concat!("add {", stringify!($a), "}, ", $parts, "*1024"),)+
                        $(concat!("add {", stringify!($b), "}, ", $parts, "*2048"),)+
                        "dec {blocks}",
                        "jnz 2b",
                        $($a = inout(reg) operands.a[$ai] => _,)+
                        $($b = inout(reg) operands.b[$bi] => _,)+
                        blocks = inout(reg) operands.blocks => _,
                        line = in(reg) 64usize,
                        options(nostack, readonly),
                    );
                }
                $(asm!(
                    concat!("tilestored [{to} + {stride}*1 + ", $offset, "], tmm", $sum),
                    to = in(reg) sums.to[$tile],
                    stride = in(reg) sums.to_stride,
                    options(nostack, preserves_flags),
                );)+
            }
        }
    };
}

#[rustfmt::skip]
kernel! {
    /// Two tiles of rows with two of columns, in three parts: in an order for which few tiles are loaded twice.
    two_by_two_split, parts: 3, a: [a = 0, a1 = 1], b: [b = 0],
    sums: [0 in 0 + 0, 1 in 0 + 64, 2 in 1 + 0, 3 in 1 + 64],
    load!(4, "a", 0), load!(5, "a1", 0), load!(6, "b", 2048), load!(7, "b", 5120), ask!("b", 6144), four!(),
    ask!("b", 6656), load!(6, "b", 1024), load!(7, "b", 4096), ask!("b", 7168), four!(), ask!("b", 7680),
    load!(4, "a", 1024), load!(5, "a1", 1024), ask!("b", 8192), four!(), ask!("b", 8704), load!(6, "b", 0),
    load!(7, "b", 3072), ask!("b", 9216), four!(), ask!("b", 9728), load!(4, "a", 0), load!(5, "a1", 0),
    ask!("b", 10240), four!(), ask!("b", 10752), load!(4, "a", 2048), load!(5, "a1", 2048), ask!("b", 11264),
    four!(), ask!("b", 11776)
}

#[rustfmt::skip]
kernel! {
    /// Two tiles of rows with two of columns.
    two_by_two, parts: 1, a: [a = 0, a1 = 1], b: [b = 0],
    sums: [0 in 0 + 0, 1 in 0 + 64, 2 in 1 + 0, 3 in 1 + 64],
    load!(4, "a", 0), load!(5, "a1", 0), load!(6, "b", 0), load!(7, "b", 1024), ask!("b", 2048), ask!("b", 2560),
    four!(), ask!("b", 3072), ask!("b", 3584)
}

#[rustfmt::skip]
kernel! {
    /// A tile of rows with four of columns, in three parts, in the same order for each sum.
    one_by_four_split, parts: 3, a: [a = 0], b: [b = 0, b1 = 1],
    sums: [0 in 0 + 0, 1 in 0 + 64, 2 in 0 + 128, 3 in 0 + 192],
    load!(4, "a", 0), load!(5, "a", 1024), ask!("b", 6144), load!(6, "b", 2048), dot!(0, 4, 6), ask!("b1", 6144),
    load!(7, "b", 5120), dot!(1, 4, 7), ask!("b", 6656), ask!("b1", 6656), load!(6, "b1", 2048), dot!(2, 4, 6),
    ask!("b", 7168), load!(7, "b1", 5120), dot!(3, 4, 7), ask!("b1", 7168), load!(6, "b", 1024), dot!(0, 4, 6),
    dot!(0, 5, 6), ask!("b", 7680), ask!("b1", 7680), load!(7, "b", 4096), dot!(1, 4, 7), dot!(1, 5, 7),
    ask!("b", 8192), load!(6, "b1", 1024), dot!(2, 4, 6), dot!(2, 5, 6), ask!("b1", 8192), load!(7, "b1", 4096),
    dot!(3, 4, 7), dot!(3, 5, 7), ask!("b", 8704), ask!("b1", 8704), load!(6, "b", 0), dot!(0, 5, 6),
    dot!(0, 4, 6), ask!("b", 9216), load!(7, "b", 3072), dot!(1, 5, 7), dot!(1, 4, 7), ask!("b1", 9216),
    load!(6, "b1", 0), dot!(2, 5, 6), dot!(2, 4, 6), ask!("b", 9728), ask!("b1", 9728), load!(7, "b1", 3072),
    dot!(3, 5, 7), dot!(3, 4, 7), ask!("b", 10240), load!(5, "a", 2048), ask!("b1", 10240), load!(6, "b", 0),
    dot!(0, 5, 6), ask!("b", 10752), ask!("b1", 10752), load!(7, "b", 3072), dot!(1, 5, 7), ask!("b", 11264),
    load!(6, "b1", 0), dot!(2, 5, 6), ask!("b1", 11264), load!(7, "b1", 3072), dot!(3, 5, 7), ask!("b", 11776),
    ask!("b1", 11776)
}

#[rustfmt::skip]
kernel! {
    /// A tile of rows with four of columns.
    one_by_four, parts: 1, a: [a = 0], b: [b = 0, b1 = 1],
    sums: [0 in 0 + 0, 1 in 0 + 64, 2 in 0 + 128, 3 in 0 + 192],
    load!(4, "a", 0), ask!("b", 2048), load!(6, "b", 0), dot!(0, 4, 6), ask!("b1", 2048), ask!("b", 2560),
    load!(7, "b", 1024), dot!(1, 4, 7), ask!("b1", 2560), load!(6, "b1", 0), dot!(2, 4, 6), ask!("b", 3072),
    ask!("b1", 3072), load!(7, "b1", 1024), dot!(3, 4, 7), ask!("b", 3584), ask!("b1", 3584)
}

#[rustfmt::skip]
kernel! {
    /// A tile of rows with two of columns, in three parts.
    one_by_two_split, parts: 3, a: [a = 0], b: [b = 0],
    sums: [0 in 0 + 0, 1 in 0 + 64],
    load!(4, "a", 0), load!(5, "a", 1024), ask!("b", 6144), load!(6, "b", 2048), dot!(0, 4, 6), ask!("b", 6656),
    load!(7, "b", 5120), dot!(1, 4, 7), ask!("b", 7168), load!(6, "b", 1024), dot!(0, 4, 6), dot!(0, 5, 6),
    ask!("b", 7680), load!(7, "b", 4096), dot!(1, 4, 7), dot!(1, 5, 7), ask!("b", 8192), ask!("b", 8704),
    load!(6, "b", 0), dot!(0, 5, 6), dot!(0, 4, 6), ask!("b", 9216), load!(7, "b", 3072), dot!(1, 5, 7),
    dot!(1, 4, 7), ask!("b", 9728), load!(5, "a", 2048), ask!("b", 10240), load!(6, "b", 0), dot!(0, 5, 6),
    ask!("b", 10752), load!(7, "b", 3072), dot!(1, 5, 7), ask!("b", 11264), ask!("b", 11776)
}

#[rustfmt::skip]
kernel! {
    /// A tile of rows with two of columns.
    one_by_two, parts: 1, a: [a = 0], b: [b = 0],
    sums: [0 in 0 + 0, 1 in 0 + 64],
    load!(4, "a", 0), ask!("b", 2048), load!(6, "b", 0), dot!(0, 4, 6), ask!("b", 2560), load!(7, "b", 1024),
    dot!(1, 4, 7), ask!("b", 3072), ask!("b", 3584)
}
