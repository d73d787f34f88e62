//! The right-hand sides of products.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::{Error, Result};

use super::kernels::split_block;
use super::pack::{gather, has_special, pack_pairs};
use super::{BLOCK, COLUMNS, DEPTH, PAIR, ROW, SPLIT, WORDS};
use crate::device::Cpu;
use crate::features::has_amx;
use crate::half::bf16_to_f32;
use crate::packed::MatrixView;
use crate::pool::Scratch;

/// A matrix `[k, n]` packed for many products, in blocks of 32 rows and 32 columns. All blocks of
/// the first 32 columns come first, then those of the next, so that a kernel reads memory
/// sequentially. Padded with zeros.
#[derive(Debug)]
pub(crate) struct PackedAmx {
    data: Form,
    k: usize,
    n: usize,
    special: bool,
}

#[derive(Debug)]
enum Form {
    /// Blocks of numbers.
    Whole(Scratch<f32>),
    /// Blocks of tiles of numbers that are already split.
    Parts(Scratch<u16>),
    /// Blocks of two tiles of numbers rounded to bfloat16.
    Rounded(Scratch<u16>),
}

/// Maximum bytes of a matrix that is stored as parts instead of numbers. Parts take 1.5 times the
/// memory of the numbers. While they stay in L2 they are read fast enough, and splitting takes
/// longer than multiplying few rows.
const PARTS_BYTES: usize = 1 << 20;

impl PackedAmx {
    /// Packs a matrix exactly, or rounded to bfloat16.
    pub(crate) fn new(cpu: &Cpu, source: &MatrixView<'_, f32>, rounded: bool) -> Result<Self> {
        assert!(has_amx(), "AMX is available");
        let (k, n) = (source.k, source.columns.len());
        let (blocks, pairs) = (k.div_ceil(DEPTH), n.div_ceil(PAIR));
        let special = AtomicBool::new(false);
        let numbers = |pair: usize, block: usize, to: &mut [[f32; PAIR]; DEPTH]| {
            let columns = &source.columns[pair * PAIR..n.min((pair + 1) * PAIR)];
            gather(source, block * DEPTH, columns, to);
        };
        let note_special = |numbers: &[[f32; PAIR]; DEPTH]| {
            // SAFETY: `has_amx` has been asserted, so the CPU has these instructions.
            if unsafe { has_special(numbers.as_flattened()) } {
                special.store(true, Ordering::Relaxed);
            }
        };
        // Fills blocks of words from the numbers.
        let words =
            |block_words: usize, fill: &(dyn Fn(&[[f32; PAIR]; DEPTH], &mut [u16]) + Sync)| {
                let size = block_words * blocks;
                let mut data = cpu.pool().packed::<u16>(pairs * size)?;
                cpu.split(pairs, [(&mut data, size)], size, &|range, [data]| {
                    let mut room = [[0.0; PAIR]; DEPTH];
                    let places = range.flat_map(|pair| (0..blocks).map(move |block| (pair, block)));
                    for ((pair, block), tiles) in places.zip(data.chunks_exact_mut(block_words)) {
                        numbers(pair, block, &mut room);
                        fill(&room, tiles);
                    }
                });
                Ok::<_, Error>(data)
            };
        let data = if rounded {
            // SAFETY: `has_amx` has been asserted, so the CPU has these instructions.
            let fill = |numbers: &_, tiles: &mut _| unsafe { pack_pairs(numbers, tiles) };
            Form::Rounded(words(2 * WORDS, &fill)?)
        } else if pairs * blocks * BLOCK * size_of::<u16>() <= PARTS_BYTES {
            let fill = |numbers: &_, tiles: &mut _| {
                note_special(numbers);
                // SAFETY: `has_amx` has been asserted, so the CPU has these instructions.
                unsafe { split_block(numbers, tiles) };
            };
            Form::Parts(words(BLOCK, &fill)?)
        } else {
            let size = DEPTH * PAIR * blocks;
            let mut data = cpu.pool().packed::<f32>(pairs * size)?;
            cpu.split(pairs, [(&mut data, size)], size, &|range, [data]| {
                let places = range.flat_map(|pair| (0..blocks).map(move |block| (pair, block)));
                let (rows, _) = data.as_chunks_mut::<PAIR>();
                let (whole, _) = rows.as_chunks_mut::<DEPTH>();
                for ((pair, block), to) in places.zip(whole) {
                    numbers(pair, block, to);
                    note_special(to);
                }
            });
            Form::Whole(data)
        };
        Ok(Self {
            data,
            k,
            n,
            special: special.into_inner(),
        })
    }

    /// Whether all numbers can be split into parts. Otherwise the packed matrix must not be used.
    pub(crate) fn is_regular(&self) -> bool {
        !self.special
    }

    pub(super) fn is_rounded(&self) -> bool {
        matches!(self.data, Form::Rounded(_))
    }

    /// Element `(p, j)`.
    pub(super) fn at(&self, p: usize, j: usize) -> f32 {
        let block = j / PAIR * self.k.div_ceil(DEPTH) + p / DEPTH;
        let (p, j) = (p % DEPTH, j % PAIR);
        // The sum of an element's word in each part's tile.
        let sum = |data: &[u16], parts: usize| {
            let tiles = (2 * block + j / COLUMNS) * parts * WORDS;
            let word = p / 2 * ROW + j % COLUMNS * 2 + p % 2;
            let tiles = data[tiles..].chunks(WORDS).take(parts);
            // The smallest part first, so that the sum is exact.
            tiles.rev().map(|tile| bf16_to_f32(tile[word])).sum()
        };
        match &self.data {
            Form::Whole(data) => data[(block * DEPTH + p) * PAIR + j],
            Form::Parts(data) => sum(data, SPLIT),
            Form::Rounded(data) => sum(data, 1),
        }
    }
}

/// A matrix `[k, n]` with contiguous rows in memory, for one product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) stride: usize,
}

/// The right-hand side of a product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    PackedAmx(&'a PackedAmx),
    Rows(Rows<'a>),
}

/// Some rows of 32 columns, in whole blocks.
pub(super) enum Pair<'a> {
    /// Rows of numbers, `stride` apart. The last block is in `tail` if it lies elsewhere.
    Numbers {
        rows: &'a [f32],
        stride: usize,
        tail: Option<&'a [[f32; PAIR]; DEPTH]>,
    },
    Parts(&'a [u16]),
    Rounded(&'a [u16]),
}

impl<'a> Right<'a> {
    /// Rows and columns.
    pub(super) fn sizes(&self) -> (usize, usize) {
        match self {
            Self::PackedAmx(packed) => (packed.k, packed.n),
            Self::Rows(rows) => (rows.k, rows.n),
        }
    }

    pub(super) fn is_rounded(&self) -> bool {
        matches!(self, Self::PackedAmx(packed) if packed.is_rounded())
    }

    /// Whether its numbers still have to be split.
    pub(super) fn is_split(&self) -> bool {
        match self {
            Self::PackedAmx(packed) => matches!(packed.data, Form::Whole(_)),
            Self::Rows(_) => true,
        }
    }

    /// The ranges of rows to multiply at a time: about equally many blocks each, at most `most`.
    pub(super) fn depths(&self, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (k, _) = self.sizes();
        let blocks = k.div_ceil(DEPTH);
        let pieces = blocks.div_ceil(most.max(1)).max(1);
        let step = blocks.div_ceil(pieces).max(1) * DEPTH;
        let pieces = (0..k).step_by(step);
        pieces.map(move |start| start..k.min(start.saturating_add(step)))
    }

    /// Some rows, beginning at a block, of the `pair`-th 32 columns. Incomplete blocks are copied
    /// to `room` and padded.
    pub(super) fn pair<'b>(
        &'b self,
        pair: usize,
        rows: &Range<usize>,
        room: &'b mut Vec<[f32; PAIR]>,
    ) -> Pair<'b> {
        let blocks = rows.start / DEPTH..rows.end.div_ceil(DEPTH);
        match *self {
            Self::PackedAmx(packed) => {
                let at = pair * packed.k.div_ceil(DEPTH);
                let part = |size: usize| (at + blocks.start) * size..(at + blocks.end) * size;
                match &packed.data {
                    Form::Whole(data) => Pair::Numbers {
                        rows: &data[part(DEPTH * PAIR)],
                        stride: PAIR,
                        tail: None,
                    },
                    Form::Parts(data) => Pair::Parts(&data[part(BLOCK)]),
                    Form::Rounded(data) => Pair::Rounded(&data[part(2 * WORDS)]),
                }
            }
            Self::Rows(Rows {
                data, n, stride, ..
            }) => {
                let column = pair * PAIR;
                let width = PAIR.min(n - column);
                let data = &data[rows.start * stride + column..];
                // Complete blocks of full width are read in place.
                let whole = match width {
                    PAIR => rows.len() / DEPTH,
                    _ => 0,
                };
                room.clear();
                room.resize((blocks.len() - whole) * DEPTH, [0.0; PAIR]);
                for (p, to) in (whole * DEPTH..rows.len()).zip(room.iter_mut()) {
                    to[..width].copy_from_slice(&data[p * stride..][..width]);
                }
                match whole {
                    0 => Pair::Numbers {
                        rows: room.as_flattened(),
                        stride: PAIR,
                        tail: None,
                    },
                    _ => Pair::Numbers {
                        rows: data,
                        stride,
                        tail: room.first_chunk(),
                    },
                }
            }
        }
    }
}
