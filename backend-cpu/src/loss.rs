//! Softmax cross-entropy and its gradient, row by row.

use backend_api::{Buffers, Dests, Result};
use pulp::{Simd, WithSimd};

use crate::device::Cpu;
use crate::element::{Float, Number};
use crate::storage::{CpuBuffer, Input, Output, dests, operands};

/// Partial sums of a row.
const LANES: usize = 16;
/// Cost of one logit, in element operations.
const WORK: usize = 8;

impl Cpu {
    pub(crate) fn softmax_cross_entropy<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [logits, labels] = operands(ins)?;
        let classes = logits.layout.shape().last();
        let labels = self.indices("softmax_cross_entropy", "labels", &labels, classes, false)?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let logits = self.dense::<T>(&logits)?;
        let out = output.elements::<T>();
        self.split(out.len(), [(out, 1)], classes * WORK, &|range, [out]| {
            self.arch().dispatch(Losses {
                logits: &logits[range.start * classes..],
                labels: &labels[range],
                classes,
                out,
            });
        });
        Ok([output.finish()].into_iter().collect())
    }

    pub(crate) fn softmax_cross_entropy_grad<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [logits, labels, dloss] = operands(ins)?;
        let classes = logits.layout.shape().last();
        let labels = self.indices(
            "softmax_cross_entropy_grad",
            "labels",
            &labels,
            classes,
            false,
        )?;
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let logits = self.dense::<T>(&logits)?;
        let dloss = self.dense::<T>(&dloss)?;
        let out = output.elements::<T>();
        if !out.is_empty() {
            let work = classes * WORK;
            self.split(labels.len(), [(out, classes)], work, &|range, [out]| {
                self.arch().dispatch(LossGrads {
                    logits: &logits[range.start * classes..],
                    labels: &labels[range.clone()],
                    dloss: &dloss[range],
                    classes,
                    out,
                });
            });
        }
        Ok([output.finish()].into_iter().collect())
    }
}

struct Losses<'a, T> {
    logits: &'a [T],
    labels: &'a [usize],
    classes: usize,
    out: &'a mut [T],
}

impl<T: Float> WithSimd for Losses<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.logits.chunks_exact(self.classes.max(1));
        for ((out, row), &label) in self.out.iter_mut().zip(rows).zip(self.labels) {
            let top = largest(row);
            let sum = sum_of_exponentials(row, top);
            *out = sum.ln().add(top.sub(row[label]));
        }
    }
}

struct LossGrads<'a, T> {
    logits: &'a [T],
    labels: &'a [usize],
    dloss: &'a [T],
    classes: usize,
    out: &'a mut [T],
}

impl<T: Float> WithSimd for LossGrads<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.logits.chunks_exact(self.classes);
        let outs = self.out.chunks_exact_mut(self.classes);
        for (((out, row), &label), &dloss) in outs.zip(rows).zip(self.labels).zip(self.dloss) {
            let top = largest(row);
            let scale = dloss.div(sum_of_exponentials(row, top));
            for (out, x) in out.iter_mut().zip(row) {
                *out = x.sub(top).exp().mul(scale);
            }
            out[label] = out[label].sub(dloss);
        }
    }
}

#[inline(always)]
fn largest<T: Float>(row: &[T]) -> T {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [T::INFINITY.neg(); LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = Number::max(*lane, x);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(T::INFINITY.neg(), |top, &x| Number::max(top, x))
}

/// `sum(exp(x - top))`, in an order that depends only on the length.
#[inline(always)]
fn sum_of_exponentials<T: Float>(row: &[T], top: T) -> T {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [T::ZERO; LANES];
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.add(x.sub(top).exp());
        }
    }
    let mut sum = T::ZERO;
    for lane in lanes {
        sum = sum.add(lane);
    }
    for x in rest {
        sum = sum.add(x.sub(top).exp());
    }
    sum
}
