//! A step's program: its products and kernels.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_api::trace::StepGraph;
use backend_api::trace::program::{self, Phase, RowProgram, Target};
use sha2::{Digest, Sha256};

use super::join::{Joined, Launch, launches};
use super::kernel::Kernel;
use super::lstm::{PlainLstm, Saved};
use super::print::Printer;
use super::slots::Slots;
use crate::device::{Closable, Cuda};
use crate::graphs::Key;
use crate::persistent::Spread;

/// A compiled step.
#[derive(Debug)]
pub(crate) struct StepKernels {
    pub(super) program: RowProgram,
    /// Different for each compiled step.
    pub(super) id: u64,
    pub(super) slots: Slots,
    /// Of each phase, if it is a kernel.
    pub(super) grids: Vec<Option<RowGrid>>,
    /// The LSTM that the step is of, for one launch.
    pub(super) lstm: Option<PlainLstm>,
    /// The device, which knows how the steps run.
    device: Closable,
    /// What a step queues.
    pub(super) launches: Vec<Launch>,
    /// The matrices of the steps' products.
    pub(super) matrices: Vec<Joined>,
    pub(super) source: Arc<str>,
    /// A hash of the source: programs for other batches have the same.
    pub(super) code: u64,
}

/// How the threads of a kernel share a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowGrid {
    pub(super) threads: usize,
    /// Blocks of a row.
    pub(super) split: usize,
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
        let (launches, matrices) = launches(&program);
        let phases = 0..program.phases.len();
        let grids = phases.map(|number| print(&program, &slots, number, &mut source));
        Ok(Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            lstm: PlainLstm::of(graph),
            device: Closable::default(),
            grids: grids.collect::<Result<_, _>>()?,
            launches,
            matrices,
            program,
            slots,
            code: hash(&source),
            source: source.into(),
        })
    }

    /// Compiles a step for a device.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub(crate) fn on(cuda: &Cuda, graph: &StepGraph) -> Result<Self, String> {
        Ok(Self {
            device: cuda.closable(),
            ..Self::new(graph)?
        })
    }

    /// How the blocks of one launch share all steps, or why they are not one launch. `None` if the
    /// step is not that of a plain LSTM whose first `shown` outputs are results.
    pub(super) fn spread(
        &self,
        cuda: &Cuda,
        steps: usize,
        shown: usize,
    ) -> Option<Result<Spread, String>> {
        let lstm = self.lstm.as_ref()?;
        let mut shown = lstm.outputs[..shown].iter();
        let sizes = [steps, self.program.batch, self.program.states[0]];
        shown
            .all(|output| *output == Saved::Output)
            .then(|| cuda.spread(sizes, lstm.gates.activation))
    }
}

/// The source that is generated for a step: a kernel for each run of instructions between products.
///
/// # Errors
/// The step has no program; the text says why.
pub fn step_source(step: &StepGraph) -> Result<String, String> {
    StepKernels::new(step).map(|step| step.source.to_string())
}

/// Appends the kernel of a phase to the source; `None` for a product.
fn print(
    program: &RowProgram,
    slots: &Slots,
    number: usize,
    source: &mut String,
) -> Result<Option<RowGrid>, String> {
    let code = match &program.phases[number] {
        Phase::Product(product) if product.k == 0 => {
            return Err("a product has no elements".to_owned());
        }
        Phase::Product(_) => return Ok(None),
        Phase::Tile(code) => code,
    };
    let kernel = &Kernel::new(code, program.dtype.size())?;
    let printer = Printer {
        program,
        slots,
        kernel,
        all_steps: number < program.ahead || number >= program.behind,
    };
    *source += &printer.print(&format!("step_{number}"))?;
    Ok(Some(RowGrid {
        threads: kernel.threads,
        split: kernel.split,
    }))
}

fn hash(source: &str) -> u64 {
    let mut first = [0; size_of::<u64>()];
    first.copy_from_slice(&Sha256::digest(source)[..size_of::<u64>()]);
    u64::from_le_bytes(first)
}

impl fmt::Display for StepKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_product = |launch: &&Launch| matches!(launch, Launch::Product(..));
        let products = self.launches.iter().filter(is_product).count();
        if let Some(cuda) = self.device.open() {
            match self.spread(&cuda, 1, self.program.outputs.len()) {
                Some(Ok(_)) => writeln!(f, "all steps in one launch, instead of")?,
                Some(Err(reason)) => writeln!(f, "not all steps in one launch: {reason}")?,
                None => {}
            }
            if let Some(reason) = cuda.graphs().failure(Key(self.id)) {
                writeln!(f, "steps are not replayed from a recording: {reason}")?;
            }
        }
        let launches = self.launches.len();
        writeln!(f, "{launches} launches a step, {products} of them products")?;
        self.program.fmt(f)
    }
}
