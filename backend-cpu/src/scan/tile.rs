//! The interpreter of tile programs. The functions are those of the device's operations, applied in
//! the same order, and give the same bits.
//!
//! Each instruction calls a function of its own, which is compiled for the CPU's vectors. If all
//! were one function, the compiler would move constants and address computations of every loop to
//! its start, where each instruction pays for them.
//!
//! This module contains unsafe code: instructions name their places by number. Results may be
//! computed in place and tiles share buffers, so that operands and results cannot be slices, and
//! lengths to check would take as long as the shortest instructions, of a few nanoseconds.
#![allow(unsafe_code)]

use std::hint::black_box;

use backend_api::{Reduce, Unary, with_activation};
use pulp::{Arch, Simd, WithSimd};

use crate::activations::value;
use crate::element::Float;
use crate::functions::{
    One, Three, Truth, Two, affine, clamp, with_binary, with_compare, with_unary,
};
use crate::pointwise::ActivationGrad;
use crate::reduce::{Elements, Fold, Largest, Sum, fold_neighbours};
use crate::scan::program::{Code, Instruction, Place};
use crate::simd::{Called, Pointwise, without_vectors};

/// Elements that a loop computes at a time.
const LANES: usize = 16;

#[cfg(test)]
thread_local! {
    /// The number of tiles that this thread has run.
    pub(super) static RUNS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Rows of a buffer: the first, and the elements from one to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<T> {
    pub(super) at: *mut T,
    pub(super) stride: usize,
}

/// Runs `code` over `rows` rows of the buffers. Buffer 0 has the registers, which are laid out for
/// the rows of a tile.
///
/// # Safety
/// Every place of every instruction lies within its buffer for all rows, blocks and columns. The
/// elements of operands are initialized. No other thread writes to operands or uses results. A
/// result overlaps an operand only if the instruction is element-wise and both are the same place.
pub(super) unsafe fn run<T: Float>(
    arch: Arch,
    code: &[Instruction],
    buffers: &[Rows<T>],
    rows: usize,
) {
    #[cfg(test)]
    RUNS.set(RUNS.get() + 1);
    for instruction in code {
        let at = |place: Place| {
            // SAFETY: the place lies within its buffer.
            unsafe { buffers[place.buffer].at.add(place.offset) }
        };
        let [a, b, c] = instruction.ins;
        let at = [at(instruction.out), at(a), at(b), at(c)];
        // SAFETY: the caller promises it.
        unsafe {
            if rows == 1 && instruction.blocks == 1 {
                execute(
                    arch,
                    Tile {
                        instruction,
                        rows,
                        at,
                    },
                );
            } else {
                let (instruction, rows) = &merged(instruction, buffers, rows);
                execute(
                    arch,
                    Tile {
                        instruction,
                        rows: *rows,
                        at,
                    },
                );
            }
        };
    }
}

/// The same instruction with the strides of these buffers, and its rows, with as many elements in
/// each row and block as the strides allow.
fn merged<T>(
    instruction: &Instruction,
    buffers: &[Rows<T>],
    mut rows: usize,
) -> (Instruction, usize) {
    let mut merged = *instruction;
    for place in merged.ins.iter_mut().chain([&mut merged.out]) {
        if place.buffer > 0 {
            place.row = buffers[place.buffer].stride;
        }
    }
    let reduces = merged.code.reduces();
    if !reduces && widen(&mut merged, instruction.blocks, |place| place.block) {
        merged.blocks = 1;
        if widen(&mut merged, rows, |place| place.row) {
            rows = 1;
        }
    }
    (merged, rows)
}

/// Makes the columns and the `n` iterations of the loop around them one loop, if the strides allow
/// it.
fn widen(instruction: &mut Instruction, n: usize, stride: fn(&Place) -> usize) -> bool {
    let Instruction {
        width, out, ins, ..
    } = instruction;
    let [a, b, c] = ins;
    let mut places = [out, a, b, c];
    if n > 1 {
        if *width == 1 {
            for place in &mut places {
                place.column = stride(place);
            }
        } else if places
            .iter()
            .any(|place| stride(place) != place.column * *width)
        {
            return false;
        }
    }
    *width *= n;
    true
}

/// An instruction, its rows, and where its result and its operands start.
#[derive(Clone, Copy)]
struct Tile<'a, T> {
    instruction: &'a Instruction,
    rows: usize,
    at: [*mut T; 4],
}

/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn execute<T: Float>(arch: Arch, tile: Tile<'_, T>) {
    macro_rules! map {
        ($f:expr) => {
            map(arch, $f, &tile)
        };
    }
    // SAFETY: the caller promises it.
    unsafe {
        match tile.instruction.code {
            Code::Copy => map!(One(std::convert::identity)),
            Code::Affine { mul, add } => map!(One(affine(mul, add))),
            Code::Clamp { min, max } => map!(One(clamp(min, max))),
            Code::Unary(f) => with_unary!(f, T, function => map!(One(function)),
                Unary::Activation(f) => with_activation!(f, F => map!(One(value::<F, T>)))),
            Code::Binary(f) => with_binary!(f, T, function => map!(Two(function))),
            Code::Compare(f) => with_compare!(f, T, holds => map!(Truth(holds))),
            Code::Select => map!(Three(|a, b, c| if a != T::ZERO { b } else { c })),
            Code::ActivationGrad(f) => with_activation!(f, F => {
                map::<T, _, 2>(arch, ActivationGrad(F::default()), &tile);
            }),
            Code::MulAdd => map!(Three(|a: T, b, c| a.mul(b).add(c))),
            Code::SubMul => map!(Three(|a: T, b, c: T| c.sub(a.mul(b)))),
            Code::MulSub => map!(Three(|a: T, b, c| a.mul(b).sub(c))),
            Code::Reduce(Reduce::Sum) => reduce::<T, _, 1>(arch, Sum, &tile),
            Code::Reduce(Reduce::Max) => reduce::<T, _, 1>(arch, Largest, &tile),
            Code::Dot => reduce::<T, _, 2>(arch, Sum, &tile),
        }
    }
}

/// Computes an element-wise instruction with `I` operands.
///
/// # Safety
/// As [`run`].
#[inline(never)]
unsafe fn map<T: Float, P: Pointwise<T, I, 1>, const I: usize>(
    arch: Arch,
    f: P,
    tile: &Tile<'_, T>,
) {
    if let Arch::Scalar = arch {
        let f = Called(&|x| f.at(x));
        without_vectors(Map { f, tile });
    } else {
        arch.dispatch(Map { f, tile });
    }
}

/// Reduces columns.
///
/// # Safety
/// As [`run`].
#[inline(never)]
unsafe fn reduce<T: Float, F: Fold<T>, const OPERANDS: usize>(
    arch: Arch,
    fold: F,
    tile: &Tile<'_, T>,
) {
    arch.dispatch(Reduction::<_, _, OPERANDS> { fold, tile });
}

/// An element-wise instruction with `I` operands.
struct Map<'a, T, P, const I: usize> {
    f: P,
    tile: &'a Tile<'a, T>,
}

impl<T: Float, P: Pointwise<T, I, 1>, const I: usize> WithSimd for Map<'_, T, P, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Tile {
            instruction:
                Instruction {
                    blocks,
                    width,
                    out,
                    ins,
                    ..
                },
            rows,
            at: [to, from @ ..],
        } = self.tile;
        let mut vectors = *width >= LANES && out.column == 1;
        for place in &ins[..I] {
            vectors &= place.column < 2;
        }
        for row in 0..*rows {
            for block in 0..*blocks {
                // SAFETY: the caller of `run` promises that these elements are in the buffers, and
                // which of them overlap.
                unsafe {
                    let to = to.add(row * out.row + block * out.block);
                    let mut operands = [std::ptr::null::<T>(); I];
                    let mut steps = [0; I];
                    for k in 0..I {
                        operands[k] = from[k].add(row * ins[k].row + block * ins[k].block);
                        steps[k] = ins[k].column;
                    }
                    if vectors {
                        map_vectors(self.f, *width, to, operands, steps);
                    } else {
                        map_elements(self.f, *width, (to, out.column), operands, steps);
                    }
                }
            }
        }
    }
}

/// Computes `n` contiguous elements, [`LANES`] or more. Operands are contiguous (`steps` is 1) or
/// one element (0).
///
/// # Safety
/// `n` elements are at `to`, and `n` or one at each operand. An operand is at `to` or does not
/// overlap the result.
#[inline(always)]
unsafe fn map_vectors<T: Float, P: Pointwise<T, I, 1>, const I: usize>(
    f: P,
    n: usize,
    mut to: *mut T,
    mut operands: [*const T; I],
    mut steps: [usize; I],
) {
    let (mut vectors, mut rest) = (n / LANES, n % LANES);
    // The last elements of each operand. They are read first, as the result may be in their place.
    let mut last = [[T::ZERO; LANES]; I];
    for k in 0..I {
        // SAFETY: there is one element, or there are `n`.
        unsafe {
            if steps[k] == 0 {
                last[k] = [*operands[k]; LANES];
                operands[k] = last[k].as_ptr();
            } else if rest > 0 {
                last[k] = *operands[k].add(n - LANES).cast();
            }
        }
    }
    loop {
        for i in 0..vectors {
            // The loop over lanes is what becomes vector instructions, not this one, which would
            // gather the elements of several iterations.
            black_box(());
            let mut x = [[T::ZERO; LANES]; I];
            for k in 0..I {
                // SAFETY: `i` is one of the operand's vectors.
                x[k] = unsafe { *operands[k].add(i * LANES * steps[k]).cast() };
            }
            let mut y = [T::ZERO; LANES];
            for lane in 0..LANES {
                let mut at = [T::ZERO; I];
                for k in 0..I {
                    at[k] = x[k][lane];
                }
                [y[lane]] = f.at(at);
            }
            // SAFETY: `i` is one of the result's vectors.
            unsafe { *to.add(i * LANES).cast() = y };
        }
        if rest == 0 {
            return;
        }
        // Once more for the last elements, some of which are computed a second time.
        // SAFETY: the last vector starts there.
        to = unsafe { to.add(n - LANES) };
        (vectors, rest) = (1, 0);
        for k in 0..I {
            operands[k] = last[k].as_ptr();
        }
        steps = [0; I];
    }
}

/// Computes `n` elements one by one. Few are computed as fast so, as a vector that is loaded soon
/// after its elements were stored has to wait for them.
///
/// # Safety
/// The result and each operand have `n` elements, these steps apart.
#[inline(always)]
unsafe fn map_elements<T: Float, P: Pointwise<T, I, 1>, const I: usize>(
    f: P,
    n: usize,
    (to, step): (*mut T, usize),
    operands: [*const T; I],
    steps: [usize; I],
) {
    for i in 0..n {
        // Keeps the compiler from making a vector loop of this one.
        black_box(());
        let mut at = [T::ZERO; I];
        for k in 0..I {
            // SAFETY: the caller promises it.
            at[k] = unsafe { *operands[k].add(i * steps[k]) };
        }
        let [y] = f.at(at);
        // SAFETY: the caller promises it.
        unsafe { *to.add(i * step) = y };
    }
}

/// Reduces the columns of one operand, or the products of two, to one result per row and block.
struct Reduction<'a, T, F, const OPERANDS: usize> {
    fold: F,
    tile: &'a Tile<'a, T>,
}

impl<T: Float, F: Fold<T>, const OPERANDS: usize> WithSimd for Reduction<'_, T, F, OPERANDS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { fold, tile } = self;
        let vectors = !S::IS_SCALAR;
        let Instruction {
            blocks, width, out, ..
        } = tile.instruction;
        for row in 0..tile.rows {
            for block in 0..*blocks {
                // SAFETY: the tile has this row and block.
                let (a, b) = unsafe {
                    (
                        Columns::new(tile, 0, row, block),
                        Columns::new(tile, 1, row, block),
                    )
                };
                let result = if *width == 0 {
                    T::ZERO
                } else if OPERANDS == 1 {
                    match a.slice() {
                        Some(a) if vectors => fold_neighbours(fold, a),
                        _ => fold_neighbours(fold, a),
                    }
                } else {
                    match (a.slice(), b.slice()) {
                        (Some(a), Some(b)) if vectors => fold_neighbours(fold, Products(a, b)),
                        _ => fold_neighbours(fold, Products(a, b)),
                    }
                };
                // SAFETY: the result has this row and block.
                unsafe { *tile.at[0].add(row * out.row + block * out.block) = result };
            }
        }
    }
}

/// The elements of an operand along the columns.
#[derive(Clone, Copy)]
struct Columns<T> {
    at: *const T,
    n: usize,
    stride: usize,
}

impl<T: Float> Columns<T> {
    /// Operand `k` of one row and block.
    ///
    /// # Safety
    /// The tile has this row and block.
    #[inline(always)]
    unsafe fn new(tile: &Tile<'_, T>, k: usize, row: usize, block: usize) -> Self {
        let place = tile.instruction.ins[k];
        Self {
            // SAFETY: the caller promises it.
            at: unsafe { tile.at[k + 1].add(row * place.row + block * place.block) },
            n: tile.instruction.width,
            stride: place.column,
        }
    }

    /// The elements as a slice, if they are contiguous.
    #[inline(always)]
    fn slice(&self) -> Option<&[T]> {
        // SAFETY: the tile has these elements, and nothing changes them.
        (self.stride == 1).then(|| unsafe { std::slice::from_raw_parts(self.at, self.n) })
    }
}

impl<T: Float> Elements<T> for Columns<T> {
    #[inline(always)]
    fn len(self) -> usize {
        self.n
    }
    #[inline(always)]
    fn at(self, i: usize) -> T {
        let [x] = self.chunk(i);
        x
    }
    #[inline(always)]
    fn chunk<const N: usize>(self, start: usize) -> [T; N] {
        assert!(
            start + N <= self.n,
            "columns from {start} on are some of {}",
            self.n
        );
        let mut chunk = [T::ZERO; N];
        for (i, x) in chunk.iter_mut().enumerate() {
            // SAFETY: `start + i` is less than the number of columns, as asserted.
            *x = unsafe { *self.at.add((start + i) * self.stride) };
        }
        chunk
    }
}

/// The products of two operands.
#[derive(Clone, Copy)]
struct Products<A, B>(A, B);

impl<T: Float, A: Elements<T>, B: Elements<T>> Elements<T> for Products<A, B> {
    #[inline(always)]
    fn len(self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn at(self, i: usize) -> T {
        self.0.at(i).mul(self.1.at(i))
    }
    #[inline(always)]
    fn chunk<const N: usize>(self, start: usize) -> [T; N] {
        let (mut chunk, b) = (self.0.chunk::<N>(start), self.1.chunk::<N>(start));
        for (a, b) in chunk.iter_mut().zip(b) {
            *a = a.mul(b);
        }
        chunk
    }
}

#[cfg(test)]
mod tests;
