//! Elementwise operations with several operands and results.

use backend_api::{Buffers, Dest, Dests, Result};

use crate::device::Cpu;
use crate::element::Float;
use crate::simd::{Pointwise, RowKernel, Source, Target};
use crate::storage::{CpuBuffer, Dense, Input, Output, dests, operands};

/// Operands and results of an elementwise operation: `I` operands, `O` results.
pub(crate) struct Streams<'a, T, const I: usize, const O: usize> {
    ins: [Dense<'a, T>; I],
    outs: [Output; O],
}

impl<'a, T: Float, const I: usize, const O: usize> Streams<'a, T, I, O> {
    pub(crate) fn new(cpu: &Cpu, ins: &[Input<'a>], outs: Dests<CpuBuffer>) -> Result<Self> {
        Ok(Self {
            ins: each(operands::<I>(ins)?, |x| cpu.dense(&x))?,
            outs: outputs(cpu, dests(outs)?)?,
        })
    }

    pub(crate) fn run(
        mut self,
        cpu: &Cpu,
        f: impl Pointwise<T, I, O>,
    ) -> Result<Buffers<CpuBuffer>> {
        let ins: [&[T]; I] = self.ins.each_ref().map(|x| &**x);
        let count = ins[0].len();
        let outs = self.outs.each_mut().map(|out| (out.elements::<T>(), 1));
        let arch = cpu.arch();
        cpu.split(count, outs, I, &|range, outs| {
            let kernel = RowKernel {
                f,
                rows: 0..1,
                n: range.len(),
                ins: ins.map(|data| Source {
                    data: &data[range.clone()],
                    stride: 0,
                    at: 0,
                }),
                outs: outs.map(|data| Target {
                    data,
                    stride: 0,
                    at: 0,
                    parts: 1,
                }),
            };
            kernel.run(arch);
        });
        Ok(self.outs.into_iter().map(Output::finish).collect())
    }
}

/// Applies `f` to each element; returns the first error.
pub(crate) fn each<A, B, const N: usize>(
    all: [A; N],
    f: impl FnMut(A) -> Result<B>,
) -> Result<[B; N]> {
    let mapped: Result<Vec<B>> = all.into_iter().map(f).collect();
    let missing = |_| backend_api::Error::argument("run", "operands", "are missing");
    mapped?.try_into().map_err(missing)
}

pub(crate) fn outputs<const N: usize>(
    cpu: &Cpu,
    dests: [Dest<CpuBuffer>; N],
) -> Result<[Output; N]> {
    each(dests, |dest| Output::new(cpu.pool(), dest))
}
