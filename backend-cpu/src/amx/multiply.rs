//! The loops around the kernels.

use std::cell::RefCell;
use std::ops::Range;

use super::kernels::{self, Sums, Tiles};
use super::right::{Pair, Right};
use super::{BLOCK, DEPTH, PAIR, ROWS, SPLIT, WORDS};
use crate::pages::Line;
use crate::product::Accumulate;

/// Maximum number of rows multiplied at a time.
const GROUP: usize = 256;
/// Maximum words of the left-hand side in use at a time, so that they stay in L2.
const LEFT_WORDS: usize = 1 << 19;
/// Maximum number of blocks whose parts are kept for further rows, for the same reason.
const KEPT_BLOCKS: usize = 32;

/// The distribution of rows over tiles: about equally many rows per tile, and an even number of
/// tiles, as they are multiplied two by two.
#[derive(Clone, Copy)]
struct Heights {
    rows: usize,
    tiles: usize,
    /// Rows of a tile; the last tiles may have fewer, or none.
    height: usize,
}

impl Heights {
    fn of(rows: usize) -> Self {
        let tiles = 2 * rows.div_ceil(2 * ROWS);
        Self {
            rows,
            tiles,
            height: rows.div_ceil(tiles.max(1)),
        }
    }

    fn rows_of(&self, tile: usize) -> Range<usize> {
        let at = |tile: usize| self.rows.min(tile * self.height);
        at(tile)..at(tile + 1)
    }

    /// The offsets of the first rows of two tiles and the stride between rows, if both tiles are
    /// full and their rows have one stride.
    fn even_rows(&self, tile: usize, out_at: &[usize]) -> Option<Place> {
        let rows = [tile, tile + 1].map(|tile| &out_at[self.rows_of(tile)]);
        let all = rows.iter().all(|rows| rows.len() == self.height);
        let [[first, others @ ..], [second, ..]] = rows else {
            return None;
        };
        let stride = match others.first() {
            Some(next) => next.checked_sub(*first)?,
            None => 0,
        };
        let even = |rows: &[usize]| rows.windows(2).all(|two| two[0] + stride == two[1]);
        (all && rows.into_iter().all(even)).then_some(([*first, *second], stride))
    }
}

/// The offsets of the first rows of two tiles in a result, and the stride between rows.
type Place = ([usize; 2], usize);

/// Working memory of a product, one per thread.
#[derive(Default)]
struct Room {
    /// The left-hand side in tiles.
    left: Vec<Line>,
    /// The parts of two tile columns of the right-hand side.
    parts: Vec<Line>,
    /// Rows of the right-hand side, padded.
    rows: Vec<[f32; PAIR]>,
    /// For each two tiles, their location if their rows have one stride.
    places: Vec<Option<Place>>,
    /// Whether the last product read its columns from the last to the first.
    backward: bool,
    /// Sums that include rows or columns outside the result; those have no effect.
    spare: Spare,
}

#[derive(Default)]
#[repr(C, align(64))]
struct Spare([[[f32; PAIR]; ROWS]; 2]);

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

/// `count` words of a buffer, aligned to a cache line.
fn words(room: &mut Vec<Line>, count: usize) -> &mut [u16] {
    let lines = count.div_ceil(size_of::<Line>() / size_of::<u16>());
    if room.len() < lines {
        room.resize(lines, bytemuck::Zeroable::zeroed());
    }
    &mut bytemuck::cast_slice_mut(room)[..count]
}

/// Left-hand rows to pack into a tile for each part and block: the rows, and the range of the inner
/// index.
pub(super) struct LeftTiles<'a> {
    pub(super) rows: Range<usize>,
    pub(super) depth: Range<usize>,
    pub(super) parts: usize,
    /// Block after block.
    pub(super) tiles: &'a mut [u16],
}

/// `out = start + a b`; `pack` packs rows of `a` into tiles.
pub(super) fn multiply(
    mut pack: impl FnMut(LeftTiles<'_>),
    b: Right<'_>,
    start: Accumulate<'_, f32>,
    (out, out_at): (&mut [f32], &[usize]),
) {
    let (k, n) = b.sizes();
    assert!(
        out_at
            .iter()
            .all(|at| at.checked_add(n).is_some_and(|end| end <= out.len())),
        "the rows are within the result"
    );
    if let Accumulate::Bias(row) = start {
        assert_eq!(row.len(), n, "the bias has an element for each column");
    }
    if k == 0 {
        for &at in out_at {
            begin(&mut out[at..at + n], start, 0);
        }
        return;
    }
    let parts = if b.is_rounded() { 1 } else { SPLIT };
    let groups = out_at.len().div_ceil(GROUP).max(1);
    let size = out_at.len().div_ceil(groups).max(1);
    ROOM.with_borrow_mut(|room| {
        for (group, out_at) in out_at.chunks(size).enumerate() {
            let heights = Heights::of(out_at.len());
            let mut most = LEFT_WORDS / (heights.tiles * parts * WORDS);
            if heights.tiles > 2 {
                most = most.min(KEPT_BLOCKS);
            }
            let two = (0..heights.tiles).step_by(2);
            room.places.clear();
            room.places
                .extend(two.map(|tile| heights.even_rows(tile, out_at)));
            // A piece has few blocks, whatever `k` is: products of `blocks` do not overflow.
            for depth in b.depths(most) {
                let blocks = depth.len().div_ceil(DEPTH);
                let tile_words = blocks * parts * WORDS;
                let left = words(&mut room.left, heights.tiles * tile_words);
                for (tile, tiles) in left.chunks_exact_mut(tile_words).enumerate() {
                    let rows = heights.rows_of(tile);
                    pack(LeftTiles {
                        rows: group * size + rows.start..group * size + rows.end,
                        depth: depth.clone(),
                        parts,
                        tiles,
                    });
                }
                let product = Product {
                    left,
                    heights,
                    blocks,
                    parts,
                    n,
                    start: if depth.start == 0 {
                        start
                    } else {
                        Accumulate::Existing
                    },
                };
                // SAFETY: AMX is available: `PackedAmx::new` asserts it for packed right-hand
                // sides, `single_product` for the others.
                unsafe { kernels::configure(heights.height) };
                // A right-hand side that is split here is read in alternating directions, as the
                // columns that were read last are still in the cache when the next step reads the
                // same weights. Packed tiles are prefetched in memory order and so are read
                // forwards; packed parts are small enough to stay in the cache (`PARTS_BYTES`).
                let pairs = n.div_ceil(PAIR);
                room.backward = b.is_split() && !room.backward;
                let backward = room.backward;
                for pair in 0..pairs {
                    let pair = if backward { pairs - 1 - pair } else { pair };
                    let right = b.pair(pair, &depth, &mut room.rows);
                    let room = (&room.places[..], &mut room.parts, &mut room.spare);
                    product.columns(right, pair * PAIR, room, (out, out_at));
                }
                // SAFETY: AMX is available, as above, and the tiles are no longer used.
                unsafe { kernels::release() };
            }
        }
    });
}

/// Copies columns. Mostly these are [`PAIR`] columns; the length is then a constant and needs no
/// call.
fn copy(to: &mut [f32], from: &[f32]) {
    match (to.as_chunks_mut::<PAIR>(), from.as_chunks::<PAIR>()) {
        (([to], []), ([from], [])) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// Sets some columns of a row to their initial value.
fn begin(out: &mut [f32], start: Accumulate<'_, f32>, column: usize) {
    match start {
        Accumulate::Zero => out.fill(0.0),
        Accumulate::Bias(row) => copy(out, &row[column..column + out.len()]),
        Accumulate::Existing => {}
    }
}

/// A product of some rows and some blocks of the inner index.
struct Product<'a> {
    left: &'a [u16],
    heights: Heights,
    blocks: usize,
    parts: usize,
    /// Columns of the result.
    n: usize,
    start: Accumulate<'a, f32>,
}

impl Product<'_> {
    /// Two tile columns of the result, from `column` on.
    fn columns(
        &self,
        right: Pair<'_>,
        column: usize,
        (places, parts, spare): (&[Option<Place>], &mut Vec<Line>, &mut Spare),
        (out, out_at): (&mut [f32], &[usize]),
    ) {
        let Self {
            heights, blocks, ..
        } = *self;
        let (mut tiles, after) = match right {
            Pair::Rounded(tiles) => {
                assert!(tiles.len() >= blocks * 2 * WORDS, "tiles for all blocks");
                let tiles = Tiles::Rounded(tiles.as_ptr());
                (tiles, tiles)
            }
            Pair::Parts(tiles) => {
                assert!(tiles.len() >= blocks * BLOCK, "tiles for all blocks");
                let tiles = Tiles::Parts(tiles.as_ptr());
                (tiles, tiles)
            }
            Pair::Numbers { rows, stride, tail } => {
                let whole = (blocks - usize::from(tail.is_some())) * DEPTH;
                let last = whole
                    .checked_sub(1)
                    .and_then(|last| last.checked_mul(stride));
                let end = last.and_then(|last| last.checked_add(PAIR));
                assert!(
                    end.is_some_and(|end| end <= rows.len()),
                    "rows for all blocks"
                );
                // The parts are kept if further rows are multiplied with them.
                let (room, advance) = match heights.tiles {
                    0..=2 => (2, 0),
                    _ => (blocks, BLOCK),
                };
                let to = words(parts, room * BLOCK).as_mut_ptr();
                let numbers = Tiles::Numbers {
                    from: rows.as_ptr(),
                    stride,
                    tail: tail.map(|tail| tail.as_ptr().cast()),
                    to,
                    advance,
                };
                (numbers, Tiles::Parts(to))
            }
        };
        for (tile, place) in (0..heights.tiles).step_by(2).zip(places) {
            self.two_by_two((tile, *place), (tiles, column), spare, (&mut *out, out_at));
            tiles = after;
        }
    }

    /// Two tiles of rows times two tile columns.
    fn two_by_two(
        &self,
        (tile, place): (usize, Option<Place>),
        (right, column): (Tiles, usize),
        spare: &mut Spare,
        (out, out_at): (&mut [f32], &[usize]),
    ) {
        let size = self.blocks * self.parts * WORDS;
        let left = [tile, tile + 1].map(|tile| self.left[tile * size..][..size].as_ptr());
        let rows = [tile, tile + 1].map(|tile| &out_at[self.heights.rows_of(tile)]);
        let columns = column..self.n.min(column + PAIR);
        if columns.len() == PAIR
            && let Some((at, stride)) = place
        {
            let all = out.as_mut_ptr();
            // Both tiles lie in `out`.
            let to = at.map(|at| all.wrapping_add(at + column));
            let bytes = stride * size_of::<f32>();
            let (from, from_stride) = match self.start {
                Accumulate::Zero => ([ZEROS.0.as_ptr(); 2], 0),
                Accumulate::Bias(row) => ([row[column..].as_ptr(); 2], 0),
                Accumulate::Existing => (to.map(<*mut f32>::cast_const), bytes),
            };
            let sums = Sums {
                from,
                to,
                from_stride,
                to_stride: bytes,
            };
            // SAFETY: tiles have `height` rows. `even_rows` and the assertion in `multiply` ensure
            // that `out` has as many rows of 32 columns from `to` on; `start` has them too. Both
            // sides have tiles or numbers for all blocks, as asserted in `columns`.
            unsafe { kernels::run(left, right, self.blocks, &sums) };
            return;
        }
        for (spare, rows) in spare.0.iter_mut().zip(rows) {
            for (to, &at) in spare.iter_mut().zip(rows) {
                let to = &mut to[..columns.len()];
                match self.start {
                    Accumulate::Existing => copy(to, &out[at + columns.start..at + columns.end]),
                    start => begin(to, start, column),
                }
            }
        }
        let to = spare
            .0
            .each_mut()
            .map(|tile| tile.as_mut_ptr().cast::<f32>());
        let sums = Sums {
            from: to.map(<*mut f32>::cast_const),
            to,
            from_stride: size_of::<[f32; PAIR]>(),
            to_stride: size_of::<[f32; PAIR]>(),
        };
        // SAFETY: `spare` has room for 16 rows of two tiles each. Both sides have tiles or numbers
        // for all blocks, as asserted in `columns`.
        unsafe { kernels::run(left, right, self.blocks, &sums) };
        for (spare, rows) in spare.0.iter().zip(rows) {
            for (from, &at) in spare.iter().zip(rows) {
                let to = &mut out[at + columns.start..at + columns.end];
                copy(to, &from[..columns.len()]);
            }
        }
    }
}

#[repr(C, align(64))]
struct Zeros([f32; PAIR]);
static ZEROS: Zeros = Zeros([0.0; PAIR]);
