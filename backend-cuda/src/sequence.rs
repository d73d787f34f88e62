//! Whole sequences: step by step, with one matmul and one fused kernel per step (two of each for
//! the GRU), or in one launch ([`crate::persistent`]). Gradients always run step by step.

use backend_api::{
    Buffers, DType, Dest, Dests, Error, Fused, Layout, Precision, Recurrence, Result, SequencePath,
    SequencePlan, SequenceRequest, Tensor, compose,
};
use cudarc::driver::{DeviceRepr, sys::CUdeviceptr};

use crate::arguments::{Args, Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Input, Output};
use crate::device::Cuda;
use crate::elementwise::{activation, is_wide};
use crate::graphs::{Key, Workspace};
use crate::kernels::Module;
use crate::matmul::{Matrix, Product};
use crate::steps::{CHUNK, Queue, Steps};

/// Mirrors `Sequence` in `sequence.cu`.
#[derive(Clone, Copy, Debug)]
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

// SAFETY: plain numbers in C layout, as on the device.
unsafe impl DeviceRepr for Sequence {}

/// The sizes of a sequence.
#[derive(Clone, Copy)]
pub(crate) struct SequenceDims {
    pub(crate) dtype: DType,
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) units: usize,
    pub(crate) gates: usize,
}

impl SequenceDims {
    /// Bytes of a state `[B, n]`.
    pub(crate) fn state_bytes(&self) -> usize {
        self.batch * self.units * self.dtype.size()
    }

    /// Bytes of `numbers` elements.
    pub(crate) fn bytes(&self, numbers: usize) -> u64 {
        (numbers * self.dtype.size()) as u64
    }

    pub(crate) fn grid(&self) -> Grid {
        Grid::Elements((self.batch * self.units) as i64)
    }

    /// Whether the results have no elements.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch == 0 || self.units == 0
    }
}

/// The operands of a sequence by name, in the order of [`SequencePlan`].
pub(crate) struct Operands<'a, 'b> {
    pub(crate) x: &'b Input<'a>,
    pub(crate) kernel: &'b Input<'a>,
    pub(crate) bias: &'b Input<'a>,
    /// The recurrent kernels.
    pub(crate) kernels: &'b [Input<'a>],
    pub(crate) initial: &'b [Input<'a>],
    pub(crate) lengths: Option<&'b Input<'a>>,
    pub(crate) rest: &'b [Input<'a>],
}

impl<'a, 'b> Operands<'a, 'b> {
    pub(crate) fn new(plan: &SequencePlan, ins: &'b [Input<'a>]) -> Self {
        let (first, ins) = ins.split_at(3);
        let (kernels, ins) = ins.split_at(plan.recurrence.parameter_count());
        let (initial, ins) = ins.split_at(plan.recurrence.states());
        let (lengths, rest) = ins.split_at(usize::from(plan.ragged));
        Self {
            x: &first[0],
            kernel: &first[1],
            bias: &first[2],
            kernels,
            initial,
            lengths: lengths.first(),
            rest,
        }
    }
}

/// Dense operands: holds the buffers that must live until all work is queued.
pub(crate) struct Held<'a> {
    pub(crate) cuda: &'a Cuda,
    pub(crate) buffers: Vec<CudaBuffer>,
}

impl Held<'_> {
    pub(crate) fn dense(&mut self, x: &Input<'_>) -> Result<CUdeviceptr> {
        let (address, buffer) = self.cuda.dense_address(x)?;
        self.buffers.push(buffer);
        Ok(address)
    }
}

/// Whether this backend has step kernels for a recurrence.
pub(crate) fn is_known(recurrence: Recurrence) -> bool {
    let known = matches!(
        recurrence,
        Recurrence::Basic { .. } | Recurrence::Lstm(_) | Recurrence::Gru { .. }
    );
    known && recurrence.activation().is_common()
}

pub(crate) fn kernel(name: &'static str, dtype: DType) -> Kernel {
    Kernel::new(Module::Sequence, name, dtype.name())
}

/// Whether every result is contiguous.
pub(crate) fn in_one_piece(outs: &Dests<CudaBuffer>) -> bool {
    outs.iter().all(|dest| match dest {
        Dest::New(_) => true,
        Dest::Into(into) => into.1.is_contiguous(),
    })
}

/// A contiguous result and its address.
pub(crate) fn result(cuda: &Cuda, dest: Option<Dest<CudaBuffer>>) -> Result<(Output, CUdeviceptr)> {
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
        if plan.path == SequencePath::Composed || !in_one_piece(&outs) || !is_known(plan.recurrence)
        {
            return compose(self, &Fused::Sequence(*plan), ins, outs);
        }
        let ops = Operands::new(plan, ins);
        // `z` past a row's end may be anything; kernels do not use it.
        let z = Tensor::of_view(self, ops.x)?
            .contiguous()?
            .matmul(&Tensor::of_view(self, ops.kernel)?)?
            .add(&Tensor::of_view(self, ops.bias)?)?;
        let shape = z.shape();
        let sizes = SequenceDims {
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
            z: held.dense(&z.view()?)?,
            work: 0,
            c,
            h,
            rh: 0,
            y: y_at,
            gates: saved_at[0],
            cs: saved_at[1],
        };
        let request = SequenceRequest {
            recurrence: plan.recurrence,
            inputs: ops.x.layout.shape()[2],
            steps: sizes.steps,
            batch: sizes.batch,
            units: sizes.units,
            ragged: plan.ragged,
            reuse: plan.reuse,
            dtype,
        };
        let whole = match (plan.path, plan.recurrence, self.spread(&request)) {
            (SequencePath::Whole, Recurrence::Lstm(gates), Some(spread)) => {
                let kernel = held.dense(&ops.kernels[0])?;
                self.lstm_persistent(spread, &gates, sizes.steps, &described, initial_at, kernel)?
            }
            _ => false,
        };
        if !whole {
            self.run_steps(&Forward {
                cuda: self,
                key: Key::new(false, plan.recurrence, dtype, sizes.batch, sizes.units)
                    .ok_or_else(|| unknown(plan.recurrence))?,
                recurrence: plan.recurrence,
                sizes,
                described,
                initial_at,
                kernels: ops.kernels,
            })?;
        }
        let outputs = [y].into_iter().chain(states).chain(saved);
        Ok(outputs.map(Output::finish).collect())
    }

    /// Copies the recurrent kernels to workspace blocks from `first` on, in row-major order.
    pub(crate) fn copy_kernels(
        &self,
        kernels: &[Input<'_>],
        workspace: &Workspace,
        first: usize,
    ) -> Result<()> {
        for (k, kernel) in kernels.iter().enumerate() {
            let to = Layout::contiguous(kernel.layout.shape());
            self.copy_view(kernel, workspace.address(first + k), to)?;
        }
        Ok(())
    }
}

/// Indices of the workspace blocks; the recurrent kernels follow.
const DESCRIPTION: usize = 0;
const WORK: usize = 1;
const C: usize = 2;
const H: usize = 3;
const RH: usize = 4;
const KERNELS: usize = 5;

/// The forward pass of a sequence, step by step.
struct Forward<'a, 'b> {
    cuda: &'a Cuda,
    key: Key,
    recurrence: Recurrence,
    sizes: SequenceDims,
    /// `c` and `h` are the result addresses: the final states.
    described: Sequence,
    initial_at: [CUdeviceptr; 2],
    kernels: &'b [Input<'a>],
}

impl Forward<'_, '_> {
    /// The workspace blocks of the states, in the order of the operands.
    fn states(&self) -> &'static [usize] {
        match self.recurrence.states() {
            2 => &[C, H],
            _ => &[H],
        }
    }
}

impl Steps for Forward<'_, '_> {
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
        let mut bytes = vec![
            size_of::<Sequence>(),
            self.sizes.gates * state,
            state,
            state,
            state,
        ];
        let kernels = self.kernels.iter();
        bytes.extend(kernels.map(|k| k.meta().bytes()));
        bytes
    }

    fn prepare(&self, workspace: &Workspace) -> Result<()> {
        for (&from, &to) in self.initial_at.iter().zip(self.states()) {
            self.cuda
                .copy_bytes(from, workspace.address(to), self.sizes.state_bytes())?;
        }
        self.cuda.copy_kernels(self.kernels, workspace, KERNELS)?;
        let described = Sequence {
            work: workspace.address(WORK),
            c: workspace.address(C),
            h: workspace.address(H),
            rh: workspace.address(RH),
            ..self.described
        };
        let args = args![workspace.address(DESCRIPTION), described];
        let kernel = kernel("sequence_describe", self.sizes.dtype);
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
        // `[B, n] [n, width]`, into columns of the step's recurrent products.
        let product = |a: usize, kernel: usize, width: usize, column: usize| {
            let to = workspace.address(WORK) + self.sizes.bytes(column);
            queue.product(&Product {
                dtype,
                precision: Precision::Exact,
                sizes: [batch, n, width],
                count: 1,
                alpha: 1.0,
                beta: 0.0,
                a: Matrix::rows(workspace.address(a), n),
                b: Matrix::rows(workspace.address(KERNELS + kernel), width),
                c: Matrix::rows(to, gates * n),
            })
        };
        let run = |name, constants: Args| {
            let mut args = args![workspace.address(DESCRIPTION), offset as i32];
            args.append(constants);
            queue.launch(kernel(name, dtype), self.sizes.grid(), args)
        };
        match self.recurrence {
            Recurrence::Basic { activation: f } => {
                product(H, 0, n, 0)?;
                run("basic_sequence_step", args![activation(dtype, f)?])
            }
            Recurrence::Lstm(g) => {
                product(H, 0, 4 * n, 0)?;
                let mut constants = args![activation(dtype, g.activation)?];
                constants.push_float(dtype, g.forget_bias);
                run("lstm_sequence_step", constants)
            }
            Recurrence::Gru { activation: f } => {
                product(H, 0, 2 * n, 0)?;
                run("gru_sequence_gates", Args::default())?;
                product(RH, 1, n, 2 * n)?;
                run("gru_sequence_output", args![activation(dtype, f)?])
            }
            other => Err(unknown(other)),
        }
    }

    fn advance(&self, queue: Queue<'_>, workspace: &Workspace) -> Result<()> {
        let args = args![workspace.address(DESCRIPTION), CHUNK as i64];
        let kernel = kernel("sequence_advance", self.sizes.dtype);
        queue.launch(kernel, Grid::Blocks(1, 1), args)
    }

    fn finish(&self, workspace: &Workspace) -> Result<()> {
        let results = match self.recurrence.states() {
            2 => [self.described.c, self.described.h],
            _ => [self.described.h, 0],
        };
        for (&from, to) in self.states().iter().zip(results) {
            self.cuda
                .copy_bytes(workspace.address(from), to, self.sizes.state_bytes())?;
        }
        Ok(())
    }
}

pub(crate) fn unknown(recurrence: Recurrence) -> Error {
    Error::argument(
        "sequence",
        "recurrence",
        format!("{recurrence:?} has no CUDA kernel"),
    )
}
