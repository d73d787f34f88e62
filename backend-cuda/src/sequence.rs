//! Whole sequences: step by step, a product and one fused kernel a step (two of each for the GRU), or in one launch
//! ([`crate::persistent`]). Gradients go step by step.

use backend_api::{
    Buffers, DType, Dest, Dests, Error, Fused, Recurrence, Result, SequencePath, SequencePlan, SequenceRequest, compose,
};
use cudarc::driver::sys::CUdeviceptr;

use crate::buffer::{CudaBuffer, Input, Output};
use crate::device::Cuda;
use crate::elementwise::{activation, is_wide};
use crate::kernels::Module;
use crate::launch::{Args, Grid, Kernel, args};
use crate::matmul::{Matrix, Product};
use crate::pool::Block;

/// Mirrors `Sequence` in `sequence.cu`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Sequence {
    pub(crate) first: i64,
    pub(crate) batch: i64,
    pub(crate) units: i64,
    pub(crate) lengths: CUdeviceptr,
    pub(crate) wide: i64,
    pub(crate) z: CUdeviceptr,
    pub(crate) work: CUdeviceptr,
    pub(crate) c: CUdeviceptr,
    pub(crate) h: CUdeviceptr,
    pub(crate) rh: CUdeviceptr,
    pub(crate) y: CUdeviceptr,
    pub(crate) gates: CUdeviceptr,
    pub(crate) cs: CUdeviceptr,
}

/// Mirrors `SequenceGrad` in `sequence.cu`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SequenceGrad {
    first: i64,
    batch: i64,
    units: i64,
    lengths: CUdeviceptr,
    wide: i64,
    c0: CUdeviceptr,
    h0: CUdeviceptr,
    y: CUdeviceptr,
    gates: CUdeviceptr,
    cs: CUdeviceptr,
    dy: CUdeviceptr,
    dz: CUdeviceptr,
    work: CUdeviceptr,
    dc: CUdeviceptr,
    dh: CUdeviceptr,
    drh: CUdeviceptr,
    du: CUdeviceptr,
}

/// Sizes of a sequence.
#[derive(Clone, Copy)]
struct Sizes {
    dtype: DType,
    steps: usize,
    batch: usize,
    units: usize,
    gates: usize,
}

impl Sizes {
    /// Bytes of `[B, n]`.
    fn state_bytes(&self) -> usize {
        self.batch * self.units * self.dtype.size()
    }

    /// Bytes of so many numbers.
    fn bytes(&self, numbers: usize) -> u64 {
        (numbers * self.dtype.size()) as u64
    }

    fn grid(&self) -> Grid {
        Grid::Elements((self.batch * self.units) as i64)
    }

    /// Whether there is nothing to compute.
    fn is_empty(&self) -> bool {
        self.batch == 0 || self.units == 0
    }
}

/// The operands of a sequence by name, in the order that [`SequencePlan`] states.
struct Operands<'a, 'b> {
    kernels: &'b [Input<'a>],
    initial: &'b [Input<'a>],
    lengths: Option<&'b Input<'a>>,
    rest: &'b [Input<'a>],
}

impl<'a, 'b> Operands<'a, 'b> {
    fn new(plan: &SequencePlan, ins: &'b [Input<'a>]) -> Self {
        let (kernels, ins) = ins.split_at(plan.recurrence.kernels());
        let (initial, ins) = ins.split_at(plan.recurrence.states());
        let (lengths, rest) = ins.split_at(usize::from(plan.ragged));
        Self {
            kernels,
            initial,
            lengths: lengths.first(),
            rest,
        }
    }
}

/// Dense operands, and the buffers that have to live until all work is queued.
struct Held<'a> {
    cuda: &'a Cuda,
    buffers: Vec<CudaBuffer>,
}

impl Held<'_> {
    fn dense(&mut self, x: &Input<'_>) -> Result<CUdeviceptr> {
        let (address, buffer) = self.cuda.dense_address(x)?;
        self.buffers.push(buffer);
        Ok(address)
    }
}

fn kernel(name: &'static str, dtype: DType) -> Kernel {
    Kernel::new(Module::Sequence, name, dtype.name())
}

/// Whether every result can be written in one piece.
fn in_one_piece(outs: &Dests<CudaBuffer>) -> bool {
    outs.iter().all(|dest| match dest {
        Dest::New(_) => true,
        Dest::Into(into) => into.1.is_contiguous(),
    })
}

/// A result that lies in one piece, and its address.
fn result(cuda: &Cuda, dest: Option<Dest<CudaBuffer>>) -> Result<(Output, CUdeviceptr)> {
    let dest = dest.ok_or_else(|| Error::argument("run", "outs", "are too few"))?;
    let output = Output::new(cuda, dest)?;
    let address = output.address() + (output.layout().offset() * output.dtype().size()) as u64;
    Ok((output, address))
}

impl Cuda {
    pub(crate) fn sequence(
        &self,
        dtype: DType,
        plan: &SequencePlan,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        if !in_one_piece(&outs) {
            return compose(self, &Fused::Sequence(*plan), ins, outs);
        }
        let z = &ins[0];
        let ops = Operands::new(plan, &ins[1..]);
        let shape = z.layout.shape();
        let sizes = Sizes {
            dtype,
            steps: shape[0],
            batch: shape[1],
            units: ops.initial[0].layout.shape()[1],
            gates: plan.recurrence.gates(),
        };
        let mut outs = outs.into_iter();
        let mut held = Held {
            cuda: self,
            buffers: Vec::new(),
        };
        let (y, y_at) = result(self, outs.next())?;
        let mut states = Vec::with_capacity(2);
        let (mut state_at, mut initial_at) = ([0; 2], [0; 2]);
        for (k, initial) in ops.initial.iter().enumerate() {
            let (state, address) = result(self, outs.next())?;
            (state_at[k], initial_at[k]) = (address, held.dense(initial)?);
            states.push(state);
        }
        let mut saved = Vec::with_capacity(2);
        let mut saved_at = [0; 2];
        for at in saved_at.iter_mut().take(plan.saved()) {
            let (output, address) = result(self, outs.next())?;
            *at = address;
            saved.push(output);
        }
        let work = self.pool().take(sizes.gates * sizes.state_bytes())?;
        let rh = self.pool().take(sizes.state_bytes())?;
        let [c, h] = match plan.recurrence.states() {
            2 => state_at,
            _ => [0, state_at[0]],
        };
        let described = Sequence {
            first: 0,
            batch: sizes.batch as i64,
            units: sizes.units as i64,
            lengths: ops.lengths.map_or(Ok(0), |x| held.dense(x))?,
            wide: i64::from(ops.lengths.map_or(0, |x| is_wide(x.dtype))),
            z: held.dense(z)?,
            work: work.address(),
            c,
            h,
            rh: rh.address(),
            y: y_at,
            gates: saved_at[0],
            cs: saved_at[1],
        };
        let request = SequenceRequest {
            recurrence: plan.recurrence,
            steps: sizes.steps,
            batch: sizes.batch,
            units: sizes.units,
            ragged: plan.ragged,
            dtype,
        };
        match (plan.path, plan.recurrence, self.spread(&request)) {
            (SequencePath::Whole, Recurrence::Lstm(gates), Some(spread)) => {
                let kernel = held.dense(&ops.kernels[0])?;
                self.lstm_persistent(spread, &gates, sizes.steps, &described, initial_at, kernel)?;
            }
            (SequencePath::Whole, ..) => return Err(unknown(plan.recurrence)),
            _ => {
                for (&from, &to) in initial_at.iter().zip(&state_at).take(ops.initial.len()) {
                    self.copy_bytes(from, to, sizes.state_bytes())?;
                }
                let s = self.describe(&described)?;
                let kernels = self.recurrent(&ops, &mut held)?;
                let steps = if sizes.is_empty() { 0 } else { sizes.steps };
                for t in 0..steps {
                    self.step(plan.recurrence, sizes, &described, s.address(), &kernels, t)?;
                }
            }
        }
        let outputs = [y].into_iter().chain(states).chain(saved);
        Ok(outputs.map(Output::finish).collect())
    }

    /// Queues step `t`.
    fn step(
        &self,
        recurrence: Recurrence,
        sizes: Sizes,
        at: &Sequence,
        s: CUdeviceptr,
        kernels: &[Matrix],
        t: usize,
    ) -> Result<()> {
        let Sizes {
            dtype,
            batch,
            units: n,
            gates,
            ..
        } = sizes;
        // `[B, n] [n, width]` into columns of the step's products.
        let product = |a: CUdeviceptr, b: &Matrix, width: usize, column: usize| {
            self.product(&Product {
                dtype,
                sizes: [batch, n, width],
                count: 1,
                alpha: 1.0,
                beta: 0.0,
                a: Matrix::rows(a, n),
                b: *b,
                c: Matrix::rows(at.work + sizes.bytes(column), gates * n),
            })
        };
        let run = |name, constants: Args| {
            let mut args = args![s, t as i32];
            args.append(constants);
            self.launch(kernel(name, dtype), sizes.grid(), args)
        };
        match recurrence {
            Recurrence::Basic { activation: f } => {
                product(at.h, &kernels[0], n, 0)?;
                run("basic_sequence_step", args![activation(dtype, f)?])
            }
            Recurrence::Lstm(g) => {
                product(at.h, &kernels[0], 4 * n, 0)?;
                let mut constants = args![activation(dtype, g.activation)?];
                constants.push_float(dtype, g.forget_bias);
                run("lstm_sequence_step", constants)
            }
            Recurrence::Gru { activation: f } => {
                product(at.h, &kernels[0], 2 * n, 0)?;
                run("gru_sequence_gates", Args::default())?;
                product(at.rh, &kernels[1], n, 2 * n)?;
                run("gru_sequence_output", args![activation(dtype, f)?])
            }
            other => Err(unknown(other)),
        }
    }

    pub(crate) fn sequence_grad(
        &self,
        dtype: DType,
        plan: &SequencePlan,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        if !in_one_piece(&outs) {
            return compose(self, &Fused::SequenceGrad(*plan), ins, outs);
        }
        let plan = &SequencePlan {
            save: true,
            ..*plan
        };
        let ops = Operands::new(plan, ins);
        let (y, rest) = (&ops.rest[0], &ops.rest[1..]);
        let (saved, rest) = rest.split_at(plan.saved());
        let (dy, dfinal) = (&rest[0], &rest[1..]);
        let shape = y.layout.shape();
        let sizes = Sizes {
            dtype,
            steps: shape[0],
            batch: shape[1],
            units: shape[2],
            gates: plan.recurrence.gates(),
        };
        let mut outs = outs.into_iter();
        let mut held = Held {
            cuda: self,
            buffers: Vec::new(),
        };
        let (dz, dz_at) = result(self, outs.next())?;
        let mut dkernels = Vec::with_capacity(2);
        for _ in ops.kernels {
            dkernels.push(result(self, outs.next())?);
        }
        let mut dstates = Vec::with_capacity(2);
        let mut dstate_at = [0; 2];
        for (from, at) in dfinal.iter().zip(&mut dstate_at) {
            let (output, address) = result(self, outs.next())?;
            let from = held.dense(from)?;
            self.copy_bytes(from, address, sizes.state_bytes())?;
            *at = address;
            dstates.push(output);
        }
        let work = self.pool().take(sizes.gates * sizes.state_bytes())?;
        let drh = self.pool().take(sizes.state_bytes())?;
        let du = self.pool().take(sizes.state_bytes())?;
        let mut initial = [0; 2];
        for (x, at) in ops.initial.iter().zip(&mut initial) {
            *at = held.dense(x)?;
        }
        let [c0, h0] = match plan.recurrence.states() {
            2 => initial,
            _ => [0, initial[0]],
        };
        let [dc, dh] = match plan.recurrence.states() {
            2 => dstate_at,
            _ => [0, dstate_at[0]],
        };
        let mut saved_at = [0; 2];
        for (x, at) in saved.iter().zip(&mut saved_at) {
            *at = held.dense(x)?;
        }
        let described = SequenceGrad {
            first: sizes.steps as i64 - 1,
            batch: sizes.batch as i64,
            units: sizes.units as i64,
            lengths: ops.lengths.map_or(Ok(0), |x| held.dense(x))?,
            wide: i64::from(ops.lengths.map_or(0, |x| is_wide(x.dtype))),
            c0,
            h0,
            y: held.dense(y)?,
            gates: saved_at[0],
            cs: saved_at[1],
            dy: held.dense(dy)?,
            dz: dz_at,
            work: work.address(),
            dc,
            dh,
            drh: drh.address(),
            du: du.address(),
        };
        let s = self.describe(&described)?;
        if !sizes.is_empty() {
            let kernels = self.recurrent(&ops, &mut held)?;
            for offset in 0..sizes.steps {
                self.step_grad(
                    plan.recurrence,
                    sizes,
                    &described,
                    s.address(),
                    &kernels,
                    offset,
                )?;
            }
        }
        self.kernel_grads(plan.recurrence, sizes, &described, &dkernels)?;
        let outputs = [dz]
            .into_iter()
            .chain(dkernels.into_iter().map(|(output, _)| output))
            .chain(dstates);
        Ok(outputs.map(Output::finish).collect())
    }

    /// Queues the gradient of the step `offset` places before the last.
    fn step_grad(
        &self,
        recurrence: Recurrence,
        sizes: Sizes,
        at: &SequenceGrad,
        s: CUdeviceptr,
        kernels: &[Matrix],
        offset: usize,
    ) -> Result<()> {
        let Sizes {
            dtype,
            batch,
            units: n,
            gates,
            ..
        } = sizes;
        // Columns of the step's `dz`, `[B, width] [width, n]`, into a gradient of the state.
        let product = |column: usize, width: usize, b: &Matrix, beta: f64, c: CUdeviceptr| {
            self.product(&Product {
                dtype,
                sizes: [batch, width, n],
                count: 1,
                alpha: 1.0,
                beta,
                a: Matrix::rows(at.work + sizes.bytes(column), gates * n),
                b: b.transpose(),
                c: Matrix::rows(c, n),
            })
        };
        let run = |name, constants: Args| {
            let mut args = args![s, offset as i32];
            args.append(constants);
            self.launch(kernel(name, dtype), sizes.grid(), args)
        };
        match recurrence {
            Recurrence::Basic { activation: f } => {
                run("basic_sequence_step_grad", args![activation(dtype, f)?])?;
                product(0, n, &kernels[0], 1.0, at.dh)
            }
            Recurrence::Lstm(g) => {
                let f = activation(dtype, g.activation)?;
                run("lstm_sequence_step_grad", args![f])?;
                product(0, 4 * n, &kernels[0], 1.0, at.dh)
            }
            Recurrence::Gru { activation: f } => {
                run("gru_sequence_output_grad", args![activation(dtype, f)?])?;
                product(2 * n, n, &kernels[1], 0.0, at.drh)?;
                run("gru_sequence_gates_grad", Args::default())?;
                product(0, 2 * n, &kernels[0], 1.0, at.dh)
            }
            other => Err(unknown(other)),
        }
    }

    /// The gradients of the recurrent kernels, as products over all steps: `Σ_t h_tᵀ dz_t`.
    fn kernel_grads(
        &self,
        recurrence: Recurrence,
        sizes: Sizes,
        at: &SequenceGrad,
        dkernels: &[(Output, CUdeviceptr)],
    ) -> Result<()> {
        let Sizes {
            dtype,
            steps,
            batch,
            units: n,
            gates,
        } = sizes;
        if sizes.is_empty() || steps == 0 {
            for (output, address) in dkernels {
                self.clear(*address, output.layout().shape().count() * dtype.size())?;
            }
            return Ok(());
        }
        // `[n, rows] [rows, width]`, added to what is there if `beta` is 1.
        let product = |h, dz, rows: usize, width: usize, beta: f64, to: CUdeviceptr| {
            self.product(&Product {
                dtype,
                sizes: [n, rows, width],
                count: 1,
                alpha: 1.0,
                beta,
                a: Matrix::rows(h, n).transpose(),
                b: Matrix::rows(dz, gates * n),
                c: Matrix::rows(to, width),
            })
        };
        let width = match recurrence {
            Recurrence::Gru { .. } => 2 * n,
            _ => gates * n,
        };
        let to = dkernels[0].1;
        product(at.h0, at.dz, batch, width, 0.0, to)?;
        if steps > 1 {
            // Past a row's end the output is 0 where the state was held; `dz` is 0 there too.
            let later = at.dz + sizes.bytes(batch * gates * n);
            product(at.y, later, (steps - 1) * batch, width, 1.0, to)?;
        }
        if let Recurrence::Gru { .. } = recurrence {
            let rh = self.pool().take(steps * sizes.state_bytes())?;
            let size = (batch * n) as i64;
            let args = args![
                steps as i64,
                size,
                n as i64,
                at.gates,
                at.h0,
                at.y,
                rh.address()
            ];
            let all = Grid::Elements(steps as i64 * size);
            self.launch(kernel("gru_sequence_reset", dtype), all, args)?;
            let dz = at.dz + sizes.bytes(2 * n);
            product(rh.address(), dz, steps * batch, n, 0.0, dkernels[1].1)?;
        }
        Ok(())
    }

    /// A description in device memory, where kernels read it.
    fn describe<T: bytemuck::Pod>(&self, description: &T) -> Result<Block> {
        let block = self.pool().take(size_of::<T>())?;
        self.copy_to_device(bytemuck::bytes_of(description), block.address())?;
        Ok(block)
    }

    /// The recurrent kernels as cuBLAS reads them.
    fn recurrent(&self, ops: &Operands<'_, '_>, held: &mut Held<'_>) -> Result<Vec<Matrix>> {
        ops.kernels
            .iter()
            .map(|kernel| {
                let (matrix, buffer) = self.matrix(kernel, false)?;
                held.buffers.push(buffer);
                Ok(matrix)
            })
            .collect()
    }
}

fn unknown(recurrence: Recurrence) -> Error {
    Error::argument(
        "sequence",
        "recurrence",
        format!("{recurrence:?} has no CUDA kernel"),
    )
}
