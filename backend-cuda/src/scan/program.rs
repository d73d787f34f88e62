//! A step's program: its products and kernels.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_api::trace::StepGraph;
use backend_api::trace::program::{self, Memory, Phase, RowProgram, Start, Target};

use super::kernel::Kernel;
use super::print::Printer;

/// A compiled step.
#[derive(Debug)]
pub(crate) struct StepKernels {
    pub(super) program: RowProgram,
    /// Different for each compiled step.
    pub(super) id: u64,
    pub(super) slots: Slots,
    /// Of each phase, if it is a kernel.
    pub(super) grids: Vec<Option<RowGrid>>,
    /// The matrices of the steps' products, in order.
    pub(super) matrices: Vec<usize>,
    pub(crate) source: Arc<str>,
}

/// How the threads of a kernel share a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowGrid {
    pub(super) threads: usize,
    /// Blocks of a row.
    pub(super) split: usize,
}

/// Where a description has the addresses of a program's buffers. A state has two, which alternate.
#[derive(Debug)]
pub(super) struct Slots {
    /// The first of the inputs, captured tensors, outputs, chunks, scratch buffers and states.
    pub(super) first: [usize; 6],
    pub(super) count: usize,
}

impl Slots {
    fn new(program: &RowProgram) -> Self {
        let (mut first, mut count) = ([0; 6], 0);
        let counts = [
            program.inputs.len(),
            program.captured.len(),
            program.outputs.len(),
            program.chunks.len(),
            program.scratch.len(),
            2 * program.states.len(),
        ];
        for (first, n) in first.iter_mut().zip(counts) {
            *first = count;
            count += n;
        }
        Self { first, count }
    }

    /// The slot of a buffer; of a state, the first of two.
    pub(super) fn of(&self, memory: Memory) -> Option<usize> {
        let [inputs, captured, outputs, chunks, scratch, states] = self.first;
        Some(match memory {
            Memory::Register(_) | Memory::Constants => return None,
            Memory::Input(i) => inputs + i,
            Memory::Captured(i) => captured + i,
            Memory::Output(i) => outputs + i,
            Memory::Chunk(i) => chunks + i,
            Memory::Scratch(i) => scratch + i,
            Memory::State(i) | Memory::Next(i) => states + 2 * i,
        })
    }
}

impl StepKernels {
    /// Compiles a step.
    ///
    /// # Errors
    /// The node that cannot be part of a program, and why.
    pub(crate) fn new(graph: &StepGraph) -> Result<Self, String> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let program = program::compile(graph, Target::Fixed)?;
        let slots = Slots::new(&program);
        let mut source = "#include \"steps.cuh\"\n".to_owned();
        let mut grids = Vec::with_capacity(program.phases.len());
        for (number, phase) in program.phases.iter().enumerate() {
            grids.push(match phase {
                Phase::Product(product) => {
                    if product.k == 0 || matches!(product.start, Start::Bias(..)) {
                        return Err("a product has no elements".to_owned());
                    }
                    None
                }
                Phase::Tile(code) => {
                    let kernel = &Kernel::new(code, program.dtype.size())?;
                    let printer = Printer {
                        program: &program,
                        slots: &slots,
                        kernel,
                        all_steps: number < program.ahead || number >= program.behind,
                    };
                    source += &printer.print(&format!("step_{number}"))?;
                    Some(RowGrid {
                        threads: kernel.threads,
                        split: kernel.split,
                    })
                }
            });
        }
        let in_steps = program.phases[program.ahead..program.behind].iter();
        let mut matrices: Vec<usize> = in_steps
            .filter_map(|phase| match phase {
                Phase::Product(product) => Some(product.matrix),
                Phase::Tile(_) => None,
            })
            .collect();
        matrices.sort_unstable();
        matrices.dedup();
        Ok(Self {
            matrices,
            program,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            slots,
            grids,
            source: source.into(),
        })
    }

    /// The numbers of the phases of the steps.
    pub(super) fn steps(&self) -> std::ops::Range<usize> {
        self.program.ahead..self.program.behind
    }
}

impl fmt::Display for StepKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels = self.grids[self.steps()].iter().flatten().count();
        let products = self.steps().len() - kernels;
        writeln!(f, "{products} products and {kernels} kernels a step")?;
        self.program.fmt(f)
    }
}
