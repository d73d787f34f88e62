//! Gradients of whole sequences, step by step from the last to the first.

use backend_api::{
    Backend, Buffers, DType, Dest, Dests, Error, Fused, Layout, Meta, Op, Precision, Recurrence,
    Reduce, Result, SequencePlan, Shape, Tensor, compose,
};
use cudarc::driver::{DeviceRepr, sys::CUdeviceptr};

use crate::arguments::{Args, Grid, args};
use crate::buffer::{CudaBuffer, Input, Output};
use crate::device::Cuda;
use crate::elementwise::{activation, is_wide};
use crate::graphs::{Key, Workspace};
use crate::matmul::{Matrix, Product};
use crate::sequence::{
    Held, Operands, SequenceDims, in_one_piece, is_known, kernel, result, unknown,
};
use crate::steps::{CHUNK, Queue, Steps};
use smallvec::smallvec;

/// Mirrors `SequenceGrad` in `sequence.cu`.
#[derive(Clone, Copy, Debug)]
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

// SAFETY: plain numbers in C layout, as on the device.
unsafe impl DeviceRepr for SequenceGrad {}

impl Cuda {
    pub(crate) fn sequence_grad(
        &self,
        dtype: DType,
        plan: &SequencePlan,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        if !in_one_piece(&outs) || !is_known(plan.recurrence) {
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
        let sizes = SequenceDims {
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
        let dx = if plan.input_grad { outs.next() } else { None };
        let (dkernel, dbias) = (outs.next(), outs.next());
        let wide = Shape::new(&[sizes.steps, sizes.batch, sizes.gates * sizes.units])?;
        let wide = Meta::new(wide, dtype);
        let (dz, dz_at) = result(self, Some(Dest::New(wide)))?;
        let mut dkernels = Vec::with_capacity(2);
        for _ in ops.kernels {
            dkernels.push(result(self, outs.next())?);
        }
        let mut dstates = Vec::with_capacity(2);
        let (mut dstate_at, mut dfinal_at) = ([0; 2], [0; 2]);
        for (k, from) in dfinal.iter().enumerate() {
            let (output, address) = result(self, outs.next())?;
            (dstate_at[k], dfinal_at[k]) = (address, held.dense(from)?);
            dstates.push(output);
        }
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
            work: 0,
            dc,
            dh,
            drh: 0,
            du: 0,
        };
        self.run_steps(&Backward {
            cuda: self,
            key: Key::new(true, plan.recurrence, dtype, sizes.batch, sizes.units)
                .ok_or_else(|| unknown(plan.recurrence))?,
            recurrence: plan.recurrence,
            sizes,
            described,
            dfinal_at,
            kernels: ops.kernels,
        })?;
        self.kernel_grads(plan.recurrence, sizes, &described, &dkernels)?;
        let layout = Layout::contiguous(wide.shape);
        let dz = Tensor::from_parts(self, dz.finish(), layout, dtype)?;
        let mut all = self.input_grads(&ops, &dz, dx, [dkernel, dbias])?;
        let outputs = dkernels.into_iter().map(|(output, _)| output);
        all.extend(outputs.chain(dstates).map(Output::finish));
        Ok(all)
    }

    /// The gradients of the inputs (if `dx` is given), of their kernel and of the bias, from `dz`
    /// of all steps.
    fn input_grads(
        &self,
        ops: &Operands<'_, '_>,
        dz: &Tensor<Self>,
        dx: Option<Dest<CudaBuffer>>,
        parameters: [Option<Dest<CudaBuffer>>; 2],
    ) -> Result<Buffers<CudaBuffer>> {
        let mut all = Buffers::new();
        let mut run = |op: &Op, ins: &[&Tensor<Self>], dest: Dest<CudaBuffer>| {
            let ins: Vec<_> = ins.iter().map(|t| t.view()).collect::<Result<_>>()?;
            all.extend(self.run(op, &ins, smallvec![dest])?);
            Ok::<_, Error>(())
        };
        let product = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        if let Some(dest) = dx {
            let kernel = Tensor::of_view(self, ops.kernel)?.transpose(0, 1)?;
            run(&product, &[dz, &kernel], dest)?;
        }
        let [Some(dkernel), Some(dbias)] = parameters else {
            return Err(Error::argument("run", "outs", "are too few"));
        };
        let x = Tensor::of_view(self, ops.x)?;
        let x = match ops.lengths {
            // `dz` is 0 past a row's end, but 0 times NaN is NaN: the padding of `x` must be 0 too.
            Some(lengths) => x.mask_padding(&Tensor::of_view(self, lengths)?, 0)?,
            None => x.contiguous()?,
        };
        let rows = |x: &Tensor<Self>| {
            let shape = x.shape();
            x.reshape(&[shape[0] * shape[1], shape[2]])
        };
        let dz = rows(dz)?;
        run(&product, &[&rows(&x)?.transpose(0, 1)?, &dz], dkernel)?;
        let sum = Op::Reduce {
            kind: Reduce::Sum,
            axis: 0,
        };
        run(&sum, &[&dz], dbias)?;
        Ok(all)
    }

    /// The gradients of the recurrent kernels, as matmuls over all steps: `Σ_t h_tᵀ dz_t`.
    fn kernel_grads(
        &self,
        recurrence: Recurrence,
        sizes: SequenceDims,
        at: &SequenceGrad,
        dkernels: &[(Output, CUdeviceptr)],
    ) -> Result<()> {
        let SequenceDims {
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
        // `[n, rows] [rows, width]`, accumulated into `to` if `beta` is 1.
        let product = |h, dz, rows: usize, width: usize, beta: f64, to: CUdeviceptr| {
            self.product(&Product {
                dtype,
                precision: Precision::Exact,
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
            // Past a row's end `y` is 0 although the state keeps its value; `dz` is 0 there, so the
            // product is right.
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
}

/// Indices of the workspace blocks; the recurrent kernels follow.
const DESCRIPTION: usize = 0;
const WORK: usize = 1;
const DC: usize = 2;
const DH: usize = 3;
const DRH: usize = 4;
const DU: usize = 5;
const KERNELS: usize = 6;

/// The gradient of a sequence, step by step.
struct Backward<'a, 'b> {
    cuda: &'a Cuda,
    key: Key,
    recurrence: Recurrence,
    sizes: SequenceDims,
    /// `dc` and `dh` are the result addresses: the gradients of the initial state.
    described: SequenceGrad,
    dfinal_at: [CUdeviceptr; 2],
    kernels: &'b [Input<'a>],
}

impl Backward<'_, '_> {
    /// The workspace blocks of the states' gradients, in the order of the operands.
    fn states(&self) -> &'static [usize] {
        match self.recurrence.states() {
            2 => &[DC, DH],
            _ => &[DH],
        }
    }
}

impl Steps for Backward<'_, '_> {
    fn key(&self) -> Key {
        self.key
    }

    fn steps(&self) -> usize {
        match self.sizes.is_empty() {
            true => 0,
            false => self.sizes.steps,
        }
    }

    fn blocks(&self) -> Vec<usize> {
        let state = self.sizes.state_bytes();
        let description = size_of::<SequenceGrad>();
        let mut bytes = vec![
            description,
            self.sizes.gates * state,
            state,
            state,
            state,
            state,
        ];
        bytes.extend(self.kernels.iter().map(|k| k.meta().bytes()));
        bytes
    }

    fn prepare(&self, workspace: &Workspace) -> Result<()> {
        for (&from, &to) in self.dfinal_at.iter().zip(self.states()) {
            self.cuda
                .copy_bytes(from, workspace.address(to), self.sizes.state_bytes())?;
        }
        self.cuda.copy_kernels(self.kernels, workspace, KERNELS)?;
        let described = SequenceGrad {
            work: workspace.address(WORK),
            dc: workspace.address(DC),
            dh: workspace.address(DH),
            drh: workspace.address(DRH),
            du: workspace.address(DU),
            ..self.described
        };
        let args = args![workspace.address(DESCRIPTION), described];
        let kernel = kernel("sequence_grad_describe", self.sizes.dtype);
        self.cuda.launch(kernel, Grid::Blocks(1, 1), args)
    }

    fn step(&self, queue: Queue<'_>, workspace: &Workspace, offset: usize) -> Result<()> {
        let SequenceDims {
            dtype,
            batch,
            units: n,
            gates,
            ..
        } = self.sizes;
        // `[B, width] [width, n]`: columns of the step's `dz`, into a gradient of the state.
        let product = |column: usize, width: usize, kernel: usize, beta: f64, to: usize| {
            let from = workspace.address(WORK) + self.sizes.bytes(column);
            queue.product(&Product {
                dtype,
                precision: Precision::Exact,
                sizes: [batch, width, n],
                count: 1,
                alpha: 1.0,
                beta,
                a: Matrix::rows(from, gates * n),
                b: Matrix::rows(workspace.address(KERNELS + kernel), width).transpose(),
                c: Matrix::rows(workspace.address(to), n),
            })
        };
        let run = |name, constants: Args| {
            let mut args = args![workspace.address(DESCRIPTION), offset as i32];
            args.append(constants);
            queue.launch(kernel(name, dtype), self.sizes.grid(), args)
        };
        match self.recurrence {
            Recurrence::Basic { activation: f } => {
                run("basic_sequence_step_grad", args![activation(dtype, f)?])?;
                product(0, n, 0, 1.0, DH)
            }
            Recurrence::Lstm(g) => {
                let f = activation(dtype, g.activation)?;
                run("lstm_sequence_step_grad", args![f])?;
                product(0, 4 * n, 0, 1.0, DH)
            }
            Recurrence::Gru { activation: f } => {
                run("gru_sequence_output_grad", args![activation(dtype, f)?])?;
                product(2 * n, n, 1, 0.0, DRH)?;
                run("gru_sequence_gates_grad", Args::default())?;
                product(0, 2 * n, 0, 1.0, DH)
            }
            other => Err(unknown(other)),
        }
    }

    fn advance(&self, queue: Queue<'_>, workspace: &Workspace) -> Result<()> {
        let args = args![workspace.address(DESCRIPTION), CHUNK as i64];
        let kernel = kernel("sequence_grad_advance", self.sizes.dtype);
        queue.launch(kernel, Grid::Blocks(1, 1), args)
    }

    fn finish(&self, workspace: &Workspace) -> Result<()> {
        let results = match self.recurrence.states() {
            2 => [self.described.dc, self.described.dh],
            _ => [self.described.dh, 0],
        };
        for (&from, to) in self.states().iter().zip(results) {
            self.cuda
                .copy_bytes(workspace.address(from), to, self.sizes.state_bytes())?;
        }
        Ok(())
    }
}
