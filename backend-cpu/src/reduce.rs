//! Sums, maxima and argmax.

use backend_api::{Buffers, DType, Dests, Reduce, Result, Shape};
use pulp::{Simd, WithSimd};

use crate::device::Cpu;
use crate::element::{Float, Number};
use crate::elementwise::unsupported;
use crate::simd::dispatch;
use crate::storage::{CpuBuffer, Input, Output, dests, operands};

/// Partial results of a reduction over neighbours: this number determines the order of a sum.
const LANES: usize = 32;
/// The same for fewer elements than [`LANES`].
const FEW_LANES: usize = 8;
/// Columns that are reduced at a time.
const COLUMNS: usize = 256;
/// Elements of a partial sum of squares.
const SECTION: usize = 1 << 14;

/// A reduction.
pub(crate) trait Fold<T: Number>: Copy + Send + Sync {
    /// The accumulator: the element type or a wider one.
    type Sum: Number;
    /// An element that changes no accumulator.
    fn neutral() -> T;
    fn start(first: T) -> Self::Sum;
    fn fold(sum: Self::Sum, x: T) -> Self::Sum;
    fn join(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    fn finish(sum: Self::Sum) -> T;
}

#[derive(Clone, Copy)]
pub(crate) struct Sum;
#[derive(Clone, Copy)]
pub(crate) struct Largest;

impl<T: Number> Fold<T> for Sum {
    type Sum = T::Wide;
    #[inline(always)]
    fn neutral() -> T {
        T::from_f64(-0.0)
    }
    #[inline(always)]
    fn start(first: T) -> T::Wide {
        first.widen()
    }
    #[inline(always)]
    fn fold(sum: T::Wide, x: T) -> T::Wide {
        sum.add(x.widen())
    }
    #[inline(always)]
    fn join(a: T::Wide, b: T::Wide) -> T::Wide {
        a.add(b)
    }
    #[inline(always)]
    fn finish(sum: T::Wide) -> T {
        T::narrow(sum)
    }
}

impl<T: Number> Fold<T> for Largest {
    type Sum = T;
    #[inline(always)]
    fn neutral() -> T {
        T::from_f64(f64::NEG_INFINITY)
    }
    #[inline(always)]
    fn start(first: T) -> T {
        first
    }
    #[inline(always)]
    fn fold(sum: T, x: T) -> T {
        Number::max(sum, x)
    }
    #[inline(always)]
    fn join(a: T, b: T) -> T {
        Number::max(a, b)
    }
    #[inline(always)]
    fn finish(sum: T) -> T {
        sum
    }
}

/// The input's shape around the reduced axis is `[outer, n, inner]`.
#[derive(Clone, Copy)]
struct ReduceDims {
    n: usize,
    inner: usize,
}

impl ReduceDims {
    fn new(shape: Shape, axis: usize) -> Self {
        Self {
            n: shape[axis],
            inner: shape.dims()[axis + 1..].iter().product(),
        }
    }
}

impl Cpu {
    pub(crate) fn reduce(
        &self,
        kind: Reduce,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x] = &operands(ins)?;
        match x.dtype {
            DType::F32 => self.reduce_of::<f32>(kind, axis, x, outs),
            DType::F64 => self.reduce_of::<f64>(kind, axis, x, outs),
            DType::I32 => self.reduce_of::<i32>(kind, axis, x, outs),
            DType::I64 => self.reduce_of::<i64>(kind, axis, x, outs),
            DType::U8 => self.reduce_of::<u8>(kind, axis, x, outs),
            other => Err(unsupported("reduce", other)),
        }
    }

    fn reduce_of<T: Number>(
        &self,
        kind: Reduce,
        axis: usize,
        x: &Input<'_>,
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<T>();
        let sizes = ReduceDims::new(x.layout.shape(), axis);
        let data = self.dense::<T>(x)?;
        if sizes.n == 0 {
            out.fill(T::ZERO);
        } else {
            match kind {
                Reduce::Sum => self.fold(Sum, &data, sizes, out),
                Reduce::Max => self.fold(Largest, &data, sizes, out),
            }
        }
        Ok([output.finish()].into_iter().collect())
    }

    fn fold<T: Number, F: Fold<T>>(&self, fold: F, data: &[T], sizes: ReduceDims, out: &mut [T]) {
        self.split(out.len(), [(out, 1)], sizes.n, &|range, [out]| {
            let (arch, start) = (self.arch(), range.start);
            dispatch::<T, _>(
                arch,
                FoldPart {
                    fold,
                    data,
                    sizes,
                    start,
                    out,
                },
            );
        });
    }

    pub(crate) fn argmax(
        &self,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x] = &operands(ins)?;
        match x.dtype {
            DType::F32 => self.argmax_of::<f32>(axis, x, outs),
            DType::F64 => self.argmax_of::<f64>(axis, x, outs),
            DType::I32 => self.argmax_of::<i32>(axis, x, outs),
            DType::I64 => self.argmax_of::<i64>(axis, x, outs),
            DType::U8 => self.argmax_of::<u8>(axis, x, outs),
            other => Err(unsupported("argmax", other)),
        }
    }

    fn argmax_of<T: Number>(
        &self,
        axis: usize,
        x: &Input<'_>,
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<i64>();
        let ReduceDims { n, inner } = ReduceDims::new(x.layout.shape(), axis);
        let data = self.dense::<T>(x)?;
        self.split(out.len(), [(out, 1)], n, &|range, [out]| {
            for (i, out) in range.zip(out) {
                let along = data[i / inner * n * inner + i % inner..]
                    .iter()
                    .step_by(inner);
                *out = first_largest(along.take(n)) as i64;
            }
        });
        Ok([output.finish()].into_iter().collect())
    }

    /// The sum of the squares of all elements of all operands. Each operand is summed in sections
    /// of a fixed size, which are added in order.
    pub(crate) fn squared_norm<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let mut total = 0.0;
        for x in ins {
            let data = self.dense::<T>(x)?;
            let sections = data.len().div_ceil(SECTION);
            let mut partial = self.pool().scratch::<f64>(sections)?;
            self.split(
                sections,
                [(&mut *partial, 1)],
                SECTION,
                &|range, [partial]| {
                    for (i, partial) in range.zip(partial) {
                        let end = data.len().min((i + 1) * SECTION);
                        *partial = self.arch().dispatch(Squares(&data[i * SECTION..end]));
                    }
                },
            );
            total += partial.iter().sum::<f64>();
        }
        output.elements::<T>().fill(T::from_f64(total));
        Ok([output.finish()].into_iter().collect())
    }
}

/// The index of the first of the largest elements; NaN is smaller than any number.
fn first_largest<'a, T: Number>(along: impl Iterator<Item = &'a T>) -> usize {
    let mut best: Option<(usize, T)> = None;
    for (i, &x) in along.enumerate() {
        let larger = best.is_none_or(|(_, b)| x > b || (b.is_nan() && !x.is_nan()));
        if larger {
            best = Some((i, x));
        }
    }
    best.map_or(0, |(i, _)| i)
}

/// The results from `start` on, as many as `out` has elements.
struct FoldPart<'a, T, F> {
    fold: F,
    data: &'a [T],
    sizes: ReduceDims,
    start: usize,
    out: &'a mut [T],
}

impl<T: Number, F: Fold<T>> WithSimd for FoldPart<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self {
            fold,
            data,
            sizes: ReduceDims { n, inner },
            start,
            out,
        } = self;
        if inner == 1 {
            for (i, out) in out.iter_mut().enumerate() {
                *out = fold_neighbours(fold, &data[(start + i) * n..][..n]);
            }
            return;
        }
        let (mut at, mut out) = (start, out);
        while !out.is_empty() {
            let (o, column) = (at / inner, at % inner);
            let width = out.len().min(inner - column).min(COLUMNS);
            let (now, later) = out.split_at_mut(width);
            fold_columns(fold, &data[o * n * inner + column..], inner, n, now);
            at += width;
            out = later;
        }
    }
}

/// The elements of a reduction.
pub(crate) trait Elements<T>: Copy {
    fn len(self) -> usize;
    fn at(self, i: usize) -> T;
    /// The `N` elements from `start` on.
    fn chunk<const N: usize>(self, start: usize) -> [T; N];
}

impl<T: Number> Elements<T> for &[T] {
    #[inline(always)]
    fn len(self) -> usize {
        self.len()
    }
    #[inline(always)]
    fn at(self, i: usize) -> T {
        self[i]
    }
    #[inline(always)]
    fn chunk<const N: usize>(self, start: usize) -> [T; N] {
        let mut chunk = [T::ZERO; N];
        chunk.copy_from_slice(&self[start..start + N]);
        chunk
    }
}

/// Reduces one or more elements. The order depends on their number alone.
#[inline(always)]
pub(crate) fn fold_neighbours<T: Number, F: Fold<T>>(fold: F, x: impl Elements<T>) -> T {
    let n = x.len();
    F::finish(if n >= LANES {
        fold_lanes::<T, F, LANES>(fold, x)
    } else if n >= FEW_LANES {
        fold_lanes::<T, F, FEW_LANES>(fold, x)
    } else {
        let mut sum = F::start(x.at(0));
        for i in 1..n {
            sum = F::fold(sum, x.at(i));
        }
        sum
    })
}

/// Reduces `N` or more elements in `N` partial results, whose halves are joined until one is left.
#[inline(always)]
fn fold_lanes<T: Number, F: Fold<T>, const N: usize>(_: F, x: impl Elements<T>) -> F::Sum {
    let (n, rest) = (x.len(), x.len() % N);
    // Filled by a loop: `array::map` may not be inlined.
    let mut sums = [<F::Sum as Number>::ZERO; N];
    for (sum, x) in sums.iter_mut().zip(x.chunk::<N>(0)) {
        *sum = F::start(x);
    }
    for i in 1..n / N {
        for (sum, x) in sums.iter_mut().zip(x.chunk::<N>(i * N)) {
            *sum = F::fold(*sum, x);
        }
    }
    if rest > 0 {
        // The last `N` elements, without those that are in the sums.
        let last = x.chunk::<N>(n - N);
        for (lane, (sum, x)) in sums.iter_mut().zip(last).enumerate() {
            *sum = F::fold(*sum, if lane < N - rest { F::neutral() } else { x });
        }
    }
    join_half::<T, F, N, 16>(&mut sums);
    join_half::<T, F, N, 8>(&mut sums);
    join_half::<T, F, N, 4>(&mut sums);
    join_half::<T, F, N, 2>(&mut sums);
    join_half::<T, F, N, 1>(&mut sums);
    sums[0]
}

/// Joins the second `HALF` of the first `2 * HALF` partial results to the first.
#[inline(always)]
fn join_half<T: Number, F: Fold<T>, const N: usize, const HALF: usize>(sums: &mut [F::Sum; N]) {
    if 2 * HALF <= N {
        for i in 0..HALF {
            sums[i] = F::join(sums[i], sums[i + HALF]);
        }
    }
}

/// Reduces `n` rows, `stride` apart, column by column.
#[inline(always)]
fn fold_columns<T: Number, F: Fold<T>>(_: F, data: &[T], stride: usize, n: usize, out: &mut [T]) {
    let mut sums = [<F::Sum as Number>::ZERO; COLUMNS];
    let sums = &mut sums[..out.len()];
    for (sum, &x) in sums.iter_mut().zip(data) {
        *sum = F::start(x);
    }
    for row in 1..n {
        for (sum, &x) in sums.iter_mut().zip(&data[row * stride..]) {
            *sum = F::fold(*sum, x);
        }
    }
    for (out, &sum) in out.iter_mut().zip(&*sums) {
        *out = F::finish(sum);
    }
}

/// The sum of squares of a section.
struct Squares<'a, T>(&'a [T]);

impl<T: Float> WithSimd for Squares<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut sums = [0.0; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                let x = x.to_f64();
                *sum += x * x;
            }
        }
        let mut total: f64 = 0.0;
        for sum in sums {
            total += sum;
        }
        for x in rest {
            let x = x.to_f64();
            total += x * x;
        }
        total
    }
}
