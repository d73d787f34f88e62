//! A program over all steps of a sequence.

use backend_api::trace::program::{Memory, Phase, Product, Row, Start};
use backend_api::trace::{RowSource, ScanPlan, row_sums};
use backend_api::{
    Buffers, DType, Dest, Dests, Error, Fused, Layout, Meta, Precision, Result, Shape, Tensor,
    compose,
};
use cudarc::driver::{DeviceRepr, sys::CUdeviceptr};
use smallvec::smallvec;

use super::join::{Joined, Launch};
use super::operands::{Held, in_one_piece, result};
use super::program::StepKernels;
use crate::arguments::{Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Input};
use crate::device::Cuda;
use crate::elementwise::is_wide;
use crate::graphs::{Key, Workspace};
use crate::kernels::Module;
use crate::matmul::{self, Matrix};
use crate::steps::{CHUNK, Queue, Steps};

/// The words of a description before the addresses of its buffers. Mirrors `Steps` in `steps.cuh`.
const HEAD: usize = 6;

/// Words of a description that one launch writes. Mirrors `Words` in `steps.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Words([u64; 128]);

// SAFETY: plain numbers in C layout, as on the device.
unsafe impl DeviceRepr for Words {}

fn missing() -> Error {
    Error::argument("scan", "operands", "are missing")
}

/// The operands and results of a run.
pub(super) struct Run<'a> {
    cuda: &'a Cuda,
    pub(super) step: &'a StepKernels,
    steps: usize,
    /// The description, with 0 for the addresses in the workspace.
    pub(super) described: Vec<u64>,
    /// The captured tensors without gaps, and the offset of the first element.
    pub(super) captured: Vec<(CudaBuffer, usize)>,
    pub(super) initial: Vec<CUdeviceptr>,
    pub(super) finals: Vec<CUdeviceptr>,
}

impl Cuda {
    /// Runs the steps of a plan; see [`ScanPlan`] for operands and results.
    pub(crate) fn scan(
        &self,
        plan: &ScanPlan,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let step = plan.program::<StepKernels>().ok_or_else(|| {
            Error::argument("scan", "step", "is not compiled for the CUDA backend")
        })?;
        // The kernels rest on the program's sizes, and a plan can pair any program and graph.
        if !step.program.is_of(plan.graph()) {
            let problem = "has the program of another step";
            return Err(Error::argument("scan", "step", problem));
        }
        if step.program.batch == 0 || plan.steps == 0 {
            return compose(self, &Fused::Scan(plan.clone()), ins, outs);
        }
        if in_one_piece(&outs) {
            return self.scan_in_one_piece(plan, step, ins, outs);
        }
        let dense = |dest: &Dest<CudaBuffer>| match dest {
            Dest::New(meta) => Dest::New(*meta),
            Dest::Into(into) => Dest::New(Meta::new(into.1.shape(), into.0.dtype())),
        };
        let computed = self.scan_in_one_piece(plan, step, ins, outs.iter().map(dense).collect())?;
        let all = computed.into_iter().zip(outs);
        all.map(|(result, dest)| self.moved_to(result, dest))
            .collect()
    }

    /// A new result at its destination.
    pub(crate) fn moved_to(
        &self,
        result: CudaBuffer,
        dest: Dest<CudaBuffer>,
    ) -> Result<CudaBuffer> {
        let Dest::Into(into) = dest else {
            return Ok(result);
        };
        let dense = Layout::contiguous(into.1.shape());
        let mut moved = self.copy(&[result.view(&dense)], smallvec![Dest::Into(into)])?;
        Ok(moved.swap_remove(0))
    }

    fn scan_in_one_piece(
        &self,
        plan: &ScanPlan,
        step: &StepKernels,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let graph = plan.graph();
        let program = &step.program;
        let dtype = program.dtype;
        let (inputs, rest) = ins
            .split_at_checked(graph.inputs.len())
            .ok_or_else(missing)?;
        let parts = rest.split_at_checked(graph.captured.len());
        let (captured, rest) = parts.ok_or_else(missing)?;
        let parts = rest.split_at_checked(graph.states.len());
        let (initial, lengths) = parts.ok_or_else(missing)?;
        let mut held = Held {
            cuda: self,
            buffers: Vec::new(),
        };
        let mut outs = outs.into_iter();
        let mut results = |count: usize| {
            let results = (0..count).map(|_| result(self, outs.next()));
            results.collect::<Result<Vec<_>>>()
        };
        let mut outputs = results(plan.shown())?;
        let finals = results(graph.states.len())?;
        outputs.extend(results(plan.saved)?);
        let stacked = |width: usize| {
            let shape = Shape::new(&[plan.steps, program.batch, width])?;
            result(self, Some(Dest::New(Meta::new(shape, dtype))))
        };
        for width in &program.outputs[outputs.len()..] {
            outputs.push(stacked(*width)?);
        }
        let chunks = program.chunks.iter().map(|width| stacked(*width));
        let chunks = chunks.collect::<Result<Vec<_>>>()?;
        let captured = captured.iter().map(|x| self.numbers(x, dtype));
        let captured = captured.collect::<Result<Vec<_>>>()?;
        let lengths = lengths.first();
        let mut described = head(plan, program.batch).to_vec();
        if let Some(lengths) = lengths {
            described.extend([held.dense(lengths)?, is_wide(lengths.dtype) as u64]);
        }
        described.resize(HEAD, 0);
        for x in inputs {
            described.push(held.dense(x)?);
        }
        for (buffer, offset) in &captured {
            described.push(buffer.address()? + (offset * buffer.dtype().size()) as u64);
        }
        described.extend(outputs.iter().chain(&chunks).map(|(_, address)| *address));
        described.resize(HEAD + step.slots.count, 0);
        let initial = initial.iter().map(|x| held.dense(x));
        let run = Run {
            cuda: self,
            step,
            steps: plan.steps,
            described,
            captured,
            initial: initial.collect::<Result<_>>()?,
            finals: finals.iter().map(|(_, address)| *address).collect(),
        };
        self.loaded().add_step(step.code, &step.source);
        if !matches!(inputs, [x] if self.run_whole(plan, &run, x)?) {
            self.run_steps(&run)?;
        }
        let all: Vec<CudaBuffer> = outputs.into_iter().map(|(y, _)| y.finish()).collect();
        let rows = |source| match source {
            // Kernels leave zeros where a row does not run.
            RowSource::Output(i) => {
                let shape = Shape::new(&[plan.steps, program.batch, program.outputs[i]])?;
                Tensor::from_parts(self, all[i].clone(), Layout::contiguous(shape), dtype)
            }
            RowSource::Input(i) => self.running(&inputs[i], lengths),
        };
        let sums = row_sums(plan.step.sums(), rows)?;
        let mut all = all.into_iter();
        let mut results: Buffers<CudaBuffer> = all.by_ref().take(plan.shown()).collect();
        results.extend(finals.into_iter().map(|(state, _)| state.finish()));
        results.extend(all.take(plan.saved));
        for (sum, dest) in sums.into_iter().zip(outs) {
            results.push(self.moved_to(sum.into_buffer()?, dest)?);
        }
        Ok(results)
    }

    /// A captured tensor without gaps as numbers, and the offset of its first element.
    fn numbers(&self, x: &Input<'_>, dtype: DType) -> Result<(CudaBuffer, usize)> {
        match x.dtype {
            DType::Bool => Ok((Tensor::of_view(self, x)?.cast(dtype)?.into_buffer()?, 0)),
            _ => self.dense(x),
        }
    }

    /// The rows of all steps, with zeros where a row does not run.
    fn running(&self, x: &Input<'_>, lengths: Option<&Input<'_>>) -> Result<Tensor<Self>> {
        let x = Tensor::of_view(self, x)?;
        match lengths {
            Some(lengths) => x.mask_padding(&Tensor::of_view(self, lengths)?, 0),
            None => x.contiguous(),
        }
    }
}

/// The first words of a description.
fn head(plan: &ScanPlan, batch: usize) -> [u64; 4] {
    let (first, by) = match plan.reverse {
        true => (plan.steps as u64 - 1, u64::MAX),
        false => (0, 1),
    };
    [first, by, plan.steps as u64, batch as u64]
}

/// The index of the description among the blocks of a workspace. The scratch buffers, two of each
/// state and the steps' matrices follow.
const DESCRIPTION: usize = 0;

impl Run<'_> {
    /// The address of an output of all steps.
    pub(super) fn output(&self, i: usize) -> CUdeviceptr {
        let slot = self.step.slots.of(Memory::Output(i));
        slot.map_or(0, |slot| self.described[HEAD + slot])
    }

    fn scratch(&self, i: usize) -> usize {
        DESCRIPTION + 1 + i
    }

    /// The block of a state before the step of this parity.
    fn state(&self, i: usize, parity: usize) -> usize {
        self.scratch(self.step.program.scratch.len()) + 2 * i + parity
    }

    fn matrix(&self, i: usize) -> usize {
        self.state(self.step.program.states.len(), 0) + i
    }

    fn row_bytes(&self, width: usize) -> usize {
        self.step.program.batch * width * self.step.program.dtype.size()
    }

    /// The elements of a captured tensor that are the right side of a product.
    fn view(&self, matrix: usize) -> Result<(&CudaBuffer, Layout)> {
        let matrix = &self.step.program.matrices[matrix];
        let (buffer, offset) = &self.captured[matrix.captured];
        Ok((buffer, matrix.layout.moved(*offset)?))
    }

    /// Whether the columns of a matrix are contiguous, rather than its rows.
    fn is_transposed(&self, matrix: &Joined) -> bool {
        let strides = self.step.program.matrices[matrix.parts[0].0]
            .layout
            .strides();
        strides[0] < strides[1]
    }

    /// The grid of a kernel over rows.
    fn grid(&self, phase: usize, rows: usize) -> Option<Grid> {
        let grid = self.step.grids[phase]?;
        // All blocks of a row, or none.
        let most = self.cuda.most_blocks() / grid.split;
        let blocks = rows.min(most.max(1)) * grid.split;
        Some(Grid::Blocks(blocks as i64, grid.threads as u32))
    }

    fn product(
        &self,
        product: &Product,
        rows: usize,
        b: Matrix,
        at: impl Fn(Row) -> Result<CUdeviceptr>,
    ) -> Result<matmul::Product> {
        let dtype = self.step.program.dtype;
        Ok(matmul::Product {
            dtype,
            precision: Precision::Exact,
            sizes: [rows, product.k, product.n],
            count: 1,
            alpha: 1.0,
            beta: if product.start == Start::Existing {
                1.0
            } else {
                0.0
            },
            a: Matrix::rows(at(product.a)?, product.a.buffer.row),
            b,
            c: Matrix::rows(at(product.out)?, product.out.buffer.row),
        })
    }

    /// Queues phases for the rows of all steps.
    fn all_steps(&self, phases: std::ops::Range<usize>, workspace: &Workspace) -> Result<()> {
        let rows = self.steps * self.step.program.batch;
        let size = self.step.program.dtype.size();
        for number in phases {
            let Phase::Product(product) = &self.step.program.phases[number] else {
                let grid = self.grid(number, rows).ok_or_else(missing)?;
                let args = args![workspace.address(DESCRIPTION), 0i32];
                self.cuda
                    .launch(Kernel::of_step(self.step.code, number), grid, args)?;
                continue;
            };
            let (buffer, layout) = self.view(product.matrix)?;
            let (matrix, _held) = self.cuda.matrix(&buffer.view(&layout), false)?;
            let at = |row: Row| {
                let slot = self.step.slots.of(row.buffer.memory).ok_or_else(missing)?;
                Ok(self.described[HEAD + slot] + (row.offset * size) as u64)
            };
            self.cuda
                .product(&self.product(product, rows, matrix, at)?)?;
        }
        Ok(())
    }

    /// Writes the description to the workspace.
    fn describe(&self, workspace: &Workspace) -> Result<()> {
        let mut words = self.described.clone();
        let program = &self.step.program;
        let slots = &self.step.slots;
        let mut set = |memory, k: usize, address| {
            if let Some(slot) = slots.of(memory) {
                words[HEAD + slot + k] = address;
            }
        };
        for i in 0..program.scratch.len() {
            set(Memory::Scratch(i), 0, workspace.address(self.scratch(i)));
        }
        for i in 0..program.states.len() {
            for parity in [0, 1] {
                set(
                    Memory::State(i),
                    parity,
                    workspace.address(self.state(i, parity)),
                );
            }
        }
        for (k, part) in words.chunks(128).enumerate() {
            let mut all = [0; 128];
            all[..part.len()].copy_from_slice(part);
            let to = workspace.address(DESCRIPTION) + (k * size_of::<Words>()) as u64;
            let args = args![to, Words(all), part.len() as i64];
            let kernel = Kernel::new(Module::Steps, "steps_describe", "all");
            self.cuda.launch(kernel, Grid::Blocks(1, 1), args)?;
        }
        Ok(())
    }
}

impl Steps for Run<'_> {
    fn key(&self) -> Key {
        Key(self.step.id)
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn blocks(&self) -> Vec<usize> {
        let program = &self.step.program;
        let mut bytes = vec![self.described.len() * size_of::<u64>()];
        bytes.extend(program.scratch.iter().map(|width| self.row_bytes(*width)));
        let states = program.states.iter().flat_map(|width| [*width; 2]);
        bytes.extend(states.map(|width| self.row_bytes(width)));
        let matrices = self.step.matrices.iter();
        bytes.extend(matrices.map(|Joined { shape: [k, n], .. }| k * n * program.dtype.size()));
        bytes
    }

    fn prepare(&self, workspace: &Workspace) -> Result<()> {
        let program = &self.step.program;
        for (i, (from, width)) in self.initial.iter().zip(&program.states).enumerate() {
            let to = workspace.address(self.state(i, 0));
            self.cuda.copy_bytes(*from, to, self.row_bytes(*width))?;
        }
        for (i, matrix) in self.step.matrices.iter().enumerate() {
            let [k, n] = matrix.shape;
            let order = match self.is_transposed(matrix) {
                true => [1, 0],
                false => [0, 1],
            };
            let whole = Layout::contiguous(Shape::new(&order.map(|axis| [k, n][axis]))?);
            for (part, at) in &matrix.parts {
                let (buffer, layout) = self.view(*part)?;
                let layout = layout.permute(&order)?;
                let mut to = whole;
                for (axis, len) in layout.shape().dims().iter().enumerate() {
                    let first = at[order[axis]];
                    to = to.slice(axis, first..first + len)?;
                }
                let at = workspace.address(self.matrix(i));
                self.cuda.copy_view(&buffer.view(&layout), at, to)?;
            }
        }
        self.describe(workspace)?;
        self.all_steps(0..program.ahead, workspace)
    }

    fn step(&self, queue: Queue<'_>, workspace: &Workspace, offset: usize) -> Result<()> {
        let program = &self.step.program;
        let (rows, size) = (program.batch, program.dtype.size());
        for launch in &self.step.launches {
            let (product, index) = match launch {
                Launch::Product(product, index) => (product, *index),
                Launch::Kernel(number) => {
                    let grid = self.grid(*number, rows).ok_or_else(missing)?;
                    let args = args![workspace.address(DESCRIPTION), offset as i32];
                    queue.launch(Kernel::of_step(self.step.code, *number), grid, args)?;
                    continue;
                }
            };
            let joined = &self.step.matrices[index];
            let address = workspace.address(self.matrix(index));
            let matrix = match self.is_transposed(joined) {
                true => Matrix::rows(address, joined.shape[0]).transpose(),
                false => Matrix::rows(address, joined.shape[1]),
            };
            let at = |row: Row| {
                let block = match row.buffer.memory {
                    Memory::Scratch(i) => self.scratch(i),
                    Memory::State(i) => self.state(i, offset % 2),
                    Memory::Next(i) => self.state(i, 1 - offset % 2),
                    _ => return Err(missing()),
                };
                Ok(workspace.address(block) + (row.offset * size) as u64)
            };
            queue.product(&self.product(product, rows, matrix, at)?)?;
        }
        Ok(())
    }

    fn advance(&self, queue: Queue<'_>, workspace: &Workspace) -> Result<()> {
        let args = args![workspace.address(DESCRIPTION), CHUNK as i64];
        let kernel = Kernel::new(Module::Steps, "steps_advance", "all");
        queue.launch(kernel, Grid::Blocks(1, 1), args)
    }

    fn finish(&self, workspace: &Workspace) -> Result<()> {
        let program = &self.step.program;
        for (i, (to, width)) in self.finals.iter().zip(&program.states).enumerate() {
            let from = workspace.address(self.state(i, self.steps % 2));
            self.cuda.copy_bytes(from, *to, self.row_bytes(*width))?;
        }
        self.all_steps(program.behind..program.phases.len(), workspace)
    }
}
