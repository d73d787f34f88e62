//! Loops that compile to vector instructions. Their bodies are compiled for each supported
//! instruction set, and the best one that the CPU has is chosen at run time.
//!
//! Functions that a loop calls must be inlined to be compiled for that instruction set. They are
//! marked `#[inline(always)]`; closures cannot be, so only tiny ones are passed.

use pulp::{Arch, Scalar, Simd, WithSimd};

use crate::element::{Float, Number};

/// Runs a kernel for elements of `T`. Kernels for integers, which are rarely used, are compiled
/// once, for the instructions that all CPUs have.
#[inline(always)]
pub(crate) fn dispatch<T: Number, K: WithSimd>(arch: Arch, kernel: K) -> K::Output {
    if T::IS_FLOAT {
        arch.dispatch(kernel)
    } else {
        kernel.with_simd(Scalar)
    }
}

/// `out[i] = f(a[i])`.
pub(crate) struct Map1<'a, A, O, F> {
    pub(crate) a: &'a [A],
    pub(crate) out: &'a mut [O],
    pub(crate) f: F,
}

impl<A: Copy, O, F: Fn(A) -> O> WithSimd for Map1<'_, A, O, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (out, &a) in self.out.iter_mut().zip(self.a) {
            *out = (self.f)(a);
        }
    }
}

/// `out[i] = f(a[i], b[i])`.
pub(crate) struct Map2<'a, A, B, O, F> {
    pub(crate) a: &'a [A],
    pub(crate) b: &'a [B],
    pub(crate) out: &'a mut [O],
    pub(crate) f: F,
}

impl<A: Copy, B: Copy, O, F: Fn(A, B) -> O> WithSimd for Map2<'_, A, B, O, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((out, &a), &b) in self.out.iter_mut().zip(self.a).zip(self.b) {
            *out = (self.f)(a, b);
        }
    }
}

/// A function of `I` numbers with `O` results, applied element by element.
pub(crate) trait Pointwise<T, const I: usize, const O: usize>: Copy + Send + Sync {
    fn at(self, x: [T; I]) -> [T; O];
}

/// A function that is called through a pointer, for CPUs without vector instructions: loops are
/// compiled once for all functions.
#[derive(Clone, Copy)]
pub(crate) struct Called<'f, T, const I: usize, const O: usize>(
    pub(crate) &'f (dyn Fn([T; I]) -> [T; O] + Sync),
);

impl<T: Float, const I: usize, const O: usize> Pointwise<T, I, O> for Called<'_, T, I, O> {
    #[inline(always)]
    fn at(self, x: [T; I]) -> [T; O] {
        (self.0)(x)
    }
}

/// Runs a kernel without vector instructions.
#[inline(never)]
pub(crate) fn without_vectors<K: WithSimd>(kernel: K) -> K::Output {
    kernel.with_simd(Scalar)
}

/// Elements per block. Results are collected in blocks on the stack and then copied, as compilers
/// do not vectorize loops over many slices that might overlap.
const BLOCK: usize = 128;
/// Blocks are padded to a multiple of this, so that no loop has a scalar remainder.
const FULL: usize = 16;

#[inline(always)]
fn block<T: Float, P: Pointwise<T, I, O>, const I: usize, const O: usize>(
    f: P,
    x: [&[T; BLOCK]; I],
    len: usize,
    results: &mut [[T; BLOCK]; O],
) {
    for k in 0..len.min(BLOCK) {
        let mut at = [T::ZERO; I];
        for (at, x) in at.iter_mut().zip(x) {
            *at = x[k];
        }
        let y = f.at(at);
        for (result, y) in results.iter_mut().zip(y) {
            result[k] = y;
        }
    }
}

/// Applies `f` along slices of equal length. `padded` is for the elements of the last block.
#[inline(always)]
fn along<T: Float, P: Pointwise<T, I, O>, const I: usize, const O: usize>(
    f: P,
    ins: [&[T]; I],
    outs: &mut [&mut [T]; O],
    padded: &mut [[T; BLOCK]; I],
) {
    // Arrays are filled by loops: `array::map` is many lines of code for each of the hundreds of
    // functions that this one is compiled for.
    let mut results = [[T::ZERO; BLOCK]; O];
    let mut wholes: [&[[T; BLOCK]]; I] = [&[]; I];
    let (mut whole, mut rest) = (usize::MAX, usize::MAX);
    for (i, x) in ins.into_iter().enumerate() {
        let (blocks, others) = x.as_chunks::<BLOCK>();
        (wholes[i], whole, rest) = (blocks, whole.min(blocks.len()), rest.min(others.len()));
        padded[i][..others.len()].copy_from_slice(others);
    }
    for i in 0..whole + usize::from(rest > 0) {
        let mut x = padded.each_ref();
        let len = if i < whole { BLOCK } else { rest };
        if i < whole {
            for (x, all) in x.iter_mut().zip(wholes) {
                *x = &all[i];
            }
        }
        block(f, x, len.next_multiple_of(FULL), &mut results);
        for (out, result) in outs.iter_mut().zip(&results) {
            copy(&mut out[i * BLOCK..][..len], &result[..len]);
        }
    }
}

/// Replaces slices of equal length by the results of `f`, which takes them first and the rest of
/// `ins` (from `O` on) after them.
pub(crate) struct InPlace<'a, T, P, const I: usize, const O: usize> {
    pub(crate) f: P,
    pub(crate) ins: [&'a [T]; I],
    pub(crate) state: [&'a mut [T]; O],
}

impl<T: Float, P: Pointwise<T, I, O>, const I: usize, const O: usize> WithSimd
    for InPlace<'_, T, P, I, O>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let mut x = [[T::ZERO; BLOCK]; I];
        let mut results = [[T::ZERO; BLOCK]; O];
        let count = self.state[0].len();
        for start in (0..count).step_by(BLOCK) {
            let len = BLOCK.min(count - start);
            for (i, x) in x.iter_mut().enumerate() {
                let from = if i < O { &*self.state[i] } else { self.ins[i] };
                copy(&mut x[..len], &from[start..start + len]);
            }
            block(
                self.f,
                x.each_ref(),
                len.next_multiple_of(FULL),
                &mut results,
            );
            for (to, result) in self.state.iter_mut().zip(&results) {
                copy(&mut to[start..start + len], &result[..len]);
            }
        }
    }
}

/// Copies at most a block.
#[inline(always)]
fn copy<T: Copy>(to: &mut [T], from: &[T]) {
    match (to.as_mut_array::<BLOCK>(), from.as_array::<BLOCK>()) {
        // Of known length, this is a few instructions instead of a call.
        (Some(to), Some(from)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// A matrix to read: row `r` is at `r * stride + at`. With a stride of 0 all rows are the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    pub(crate) at: usize,
}

impl<'a, T> Source<'a, T> {
    #[inline(always)]
    pub(crate) fn row(&self, r: usize, n: usize) -> &'a [T] {
        &self.data[r * self.stride + self.at..][..n]
    }
}

/// A matrix to write, with `parts` results side by side in each row.
#[derive(Debug)]
pub(crate) struct Target<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) stride: usize,
    pub(crate) at: usize,
    pub(crate) parts: usize,
}

/// Applies a function to rows of `n` elements. The results are written to the parts of the targets,
/// in order.
pub(crate) struct RowKernel<'a, T, P, R, const I: usize, const O: usize, const M: usize> {
    pub(crate) f: P,
    pub(crate) rows: R,
    pub(crate) n: usize,
    pub(crate) ins: [Source<'a, T>; I],
    pub(crate) outs: [Target<'a, T>; M],
}

impl<T, P, R, const I: usize, const O: usize, const M: usize> RowKernel<'_, T, P, R, I, O, M>
where
    T: Float,
    P: Pointwise<T, I, O>,
    R: Iterator<Item = usize>,
{
    pub(crate) fn run(self, arch: Arch) {
        if let Arch::Scalar = arch {
            without_vectors(RowKernel {
                f: Called(&|x| self.f.at(x)),
                rows: self.rows,
                n: self.n,
                ins: self.ins,
                outs: self.outs,
            });
        } else {
            arch.dispatch(self);
        }
    }
}

impl<T, P, R, const I: usize, const O: usize, const M: usize> WithSimd
    for RowKernel<'_, T, P, R, I, O, M>
where
    T: Float,
    P: Pointwise<T, I, O>,
    R: Iterator<Item = usize>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let n = self.n;
        if n == 0 {
            return;
        }
        let mut padded = [[T::ZERO; BLOCK]; I];
        for r in self.rows {
            let mut ins: [&[T]; I] = [&[]; I];
            for (row, source) in ins.iter_mut().zip(&self.ins) {
                *row = source.row(r, n);
            }
            let mut results: [&mut [T]; O] = std::array::from_fn(|_| <&mut [T]>::default());
            let mut next = results.iter_mut();
            for target in &mut self.outs {
                let start = r * target.stride + target.at;
                let row = &mut target.data[start..start + target.parts * n];
                // `next` comes second, as `zip` advances its first iterator before it sees that the
                // second has ended.
                for (part, result) in row.chunks_exact_mut(n).zip(next.by_ref()) {
                    *result = part;
                }
            }
            along(self.f, ins, &mut results, &mut padded);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use pulp::Arch;

    use super::*;
    use crate::activations::value;
    use crate::pointwise::Lstm;
    use backend_api::activation::functions::Tanh;

    /// All instruction sets that this CPU supports, and scalar code.
    pub(crate) fn archs() -> Vec<Arch> {
        let archs = [Arch::new(), Arch::Scalar].into_iter();
        #[cfg(target_arch = "x86_64")]
        let archs = archs.chain(pulp::x86::V3::try_new().map(Arch::V3));
        archs.collect()
    }

    #[test]
    fn vector_units_agree_bit_for_bit() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 0.02).collect();
        let (n, rows) = (20, 10);
        let lstm = Lstm { forget_bias: 1.0 };
        let results = archs().into_iter().map(|arch| {
            let mut y = vec![0.0f32; x.len()];
            arch.dispatch(Map1 {
                a: &x,
                out: &mut y,
                f: value::<Tanh, f32>,
            });
            let [mut c, mut h, mut gates] = [1, 1, 4].map(|parts| vec![0.0; parts * n * rows]);
            let part = |i| Source {
                data: &x,
                stride: 5 * n,
                at: i * n,
            };
            let targets = [(&mut c, 1), (&mut h, 1), (&mut gates, 4)];
            let outs = targets.map(|(data, parts)| Target {
                data,
                stride: parts * n,
                at: 0,
                parts,
            });
            let kernel = RowKernel::<f32, _, _, 5, 6, 3> {
                f: lstm,
                rows: 0..rows,
                n,
                ins: [part(0), part(1), part(2), part(3), part(4)],
                outs,
            };
            kernel.run(arch);
            (y, c, h, gates)
        });
        let results: Vec<_> = results.collect();
        for other in &results[1..] {
            assert_eq!(*other, results[0]);
        }
    }
}
