//! Fused steps of cells and their gradients, in one pass over memory: operands, results and threads
//! of the functions in [`crate::pointwise`].

use backend_api::{Activation, Buffers, Dests, Result, with_common_activation};

use crate::activations::{gradient, uncommon};
use crate::device::Cpu;
use crate::element::Float;
use crate::functions::Two;
use crate::pointwise::{
    Activate, ActivationGrad, GruGates, GruGatesGrad, GruOutput, GruOutputGrad, Lstm, LstmGrad,
};
use crate::simd::{Pointwise, RowKernel, Source, Target};
use crate::storage::{CpuBuffer, Dense, Input, Output, dests, operands};
use crate::streams::{Streams, each, outputs};

/// Cost of one unit with activations, in element operations, for deciding how many threads to use.
const WORK: usize = 16;

/// A matrix operand: borrowed if its rows are contiguous, otherwise copied.
struct Rows<'a, T> {
    data: Dense<'a, T>,
    stride: usize,
    at: usize,
}

impl<'a, T: Float> Rows<'a, T> {
    fn new(cpu: &Cpu, x: &Input<'a>) -> Result<Self> {
        let (shape, strides) = (x.layout.shape(), x.layout.strides());
        if shape.rank() == 2 && (strides[1] == 1 || shape[1] == 1) && shape.count() > 0 {
            return Ok(Self {
                data: Dense::Borrowed(x.buffer.elements()),
                stride: strides[0],
                at: x.layout.offset(),
            });
        }
        Ok(Self {
            data: cpu.dense(x)?,
            stride: shape.last(),
            at: 0,
        })
    }

    /// The `i`-th part of each row, for parts of `n` elements.
    fn part(&self, i: usize, n: usize) -> Source<'_, T> {
        Source {
            data: &self.data,
            stride: self.stride,
            at: self.at + i * n,
        }
    }

    fn parts<const N: usize>(&self, n: usize) -> [Source<'_, T>; N] {
        std::array::from_fn(|i| self.part(i, n))
    }
}

/// Runs `f` on all rows of `n` units. Each entry of `outs` is a result and its number of parts per
/// row.
fn run_rows<T: Float, const I: usize, const O: usize, const M: usize>(
    cpu: &Cpu,
    (rows, n): (usize, usize),
    ins: [Source<'_, T>; I],
    outs: [(&mut Output, usize); M],
    f: impl Pointwise<T, I, O>,
) {
    if n == 0 {
        return;
    }
    let parts = outs.each_ref().map(|(_, parts)| *parts);
    let outs = outs.map(|(out, parts)| (out.elements::<T>(), parts * n));
    let arch = cpu.arch();
    cpu.split(rows, outs, n * WORK, &|range, outs| {
        let mut parts = parts.iter();
        let kernel = RowKernel {
            f,
            rows: 0..range.len(),
            n,
            ins: ins.map(|source| Source {
                at: source.at + range.start * source.stride,
                ..source
            }),
            outs: outs.map(|data| {
                let parts = parts.next().copied().unwrap_or(1);
                Target {
                    data,
                    stride: parts * n,
                    at: 0,
                    parts,
                }
            }),
        };
        kernel.run(arch);
    });
}

/// Rows and units of a state.
fn sizes(state: &Input<'_>) -> (usize, usize) {
    let shape = state.layout.shape();
    (shape[0], shape[1])
}

fn finish<const N: usize>(outs: [Output; N]) -> Result<Buffers<CpuBuffer>> {
    Ok(outs.into_iter().map(Output::finish).collect())
}

impl Cpu {
    pub(crate) fn bias_activation<T: Float>(
        &self,
        activation: Activation,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [x, bias] = operands(ins)?;
        let n = x.layout.shape().last();
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let x = self.dense::<T>(&x)?;
        let bias = self.dense::<T>(&bias)?;
        let sources = [(&*x, n), (&*bias, 0)].map(|(data, stride)| Source {
            data,
            stride,
            at: 0,
        });
        let rows = x.len().checked_div(n).unwrap_or(0);
        with_common_activation!(activation, C => {
            let gates = Activate(C::default());
            run_rows::<_, 2, 1, 1>(self, (rows, n), sources, [(&mut output, 1)], gates);
        }, else return Err(uncommon(activation)));
        finish([output])
    }

    pub(crate) fn activation_grad<T: Float>(
        &self,
        activation: Activation,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let streams = Streams::<T, 2, 1>::new(self, ins, outs)?;
        // Only the common activations are compiled to vector loops.
        with_common_activation!(activation, C => streams.run(self, ActivationGrad(C::default())),
        else {
            let gradient: fn(T, T) -> T =
                backend_api::with_activation!(activation, C => gradient::<C, T>);
            streams.run(self, Two(gradient))
        })
    }

    pub(crate) fn lstm_step<T: Float>(
        &self,
        forget_bias: f64,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [z, c] = operands(ins)?;
        let (rows, n) = sizes(&c);
        let mut outs = outputs::<3>(self, dests(outs)?)?;
        let (z, c) = (Rows::<T>::new(self, &z)?, Rows::new(self, &c)?);
        let [i, j, f, o] = z.parts(n);
        let [c_new, h, saved] = &mut outs;
        run_rows(
            self,
            (rows, n),
            [i, j, f, o, c.part(0, n)],
            [(c_new, 1), (h, 1), (saved, 4)],
            Lstm {
                forget_bias: T::from_f64(forget_bias),
            },
        );
        finish(outs)
    }

    pub(crate) fn lstm_step_grad<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let ins = operands::<5>(ins)?;
        let (rows, n) = sizes(&ins[1]);
        let mut outs = outputs::<2>(self, dests(outs)?)?;
        let [saved, state @ ..] = each(ins, |x| Rows::<T>::new(self, &x))?;
        let [i, j, f, o] = saved.parts(n);
        let [c, c_new, dc, dh] = state.each_ref().map(|x| x.part(0, n));
        let [dz, dc_old] = &mut outs;
        let ins = [i, j, f, o, c, c_new, dc, dh];
        run_rows(self, (rows, n), ins, [(dz, 4), (dc_old, 1)], LstmGrad);
        finish(outs)
    }

    pub(crate) fn gru_gates<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [z, h] = operands(ins)?;
        let (rows, n) = sizes(&h);
        let mut outs = outputs::<3>(self, dests(outs)?)?;
        let (z, h) = (Rows::<T>::new(self, &z)?, Rows::new(self, &h)?);
        let [zr, zu] = z.parts(n);
        let [u, rh, r] = &mut outs;
        let ins = [zr, zu, h.part(0, n)];
        run_rows(self, (rows, n), ins, [(r, 1), (u, 1), (rh, 1)], GruGates);
        finish(outs)
    }

    pub(crate) fn gru_gates_grad<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let ins = operands::<5>(ins)?;
        let (rows, n) = sizes(&ins[0]);
        let mut outs = outputs::<2>(self, dests(outs)?)?;
        let ins = each(ins, |x| Rows::<T>::new(self, &x))?;
        let ins = ins.each_ref().map(|x| x.part(0, n));
        let [dz, dh] = &mut outs;
        run_rows(self, (rows, n), ins, [(dz, 2), (dh, 1)], GruGatesGrad);
        finish(outs)
    }

    pub(crate) fn gru_output<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let ins = operands::<3>(ins)?;
        let (rows, n) = sizes(&ins[0]);
        let mut outs = outputs::<2>(self, dests(outs)?)?;
        let ins = each(ins, |x| Rows::<T>::new(self, &x))?;
        let ins = ins.each_ref().map(|x| x.part(0, n));
        let [h, q] = &mut outs;
        run_rows(self, (rows, n), ins, [(h, 1), (q, 1)], GruOutput);
        finish(outs)
    }

    pub(crate) fn gru_output_grad<T: Float>(
        &self,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let ins = operands::<4>(ins)?;
        let (rows, n) = sizes(&ins[0]);
        let mut outs = outputs::<3>(self, dests(outs)?)?;
        let ins = each(ins, |x| Rows::<T>::new(self, &x))?;
        let ins = ins.each_ref().map(|x| x.part(0, n));
        let [dz, du, dh] = &mut outs;
        let targets = [(dz, 1), (du, 1), (dh, 1)];
        run_rows(self, (rows, n), ins, targets, GruOutputGrad);
        finish(outs)
    }
}
