//! A recurrence as data: one step is traced into a graph, which a device compiles.
//!
//! * [`Recorder`] and [`Symbol`]: tracing. A step runs once on tensors without elements, and its
//!   operations are recorded.
//! * [`StepGraph`]: the recorded step.
//! * [`Regions`]: what of the step can be computed for all steps at once, and what remains.
//! * [`ScanPlan`]: what remains, over all steps, as one operation.
//! * [`program`]: one step as instructions, for devices that compile it.

mod cache;
mod evaluate;
mod graph;
mod plan;
pub mod program;
mod recorder;
mod regions;
mod rows;
mod simplify;
mod symbolic;

pub use cache::StepCache;
pub(crate) use evaluate::scan;
pub use evaluate::{row_sums, run_step};
pub use graph::{GraphKey, Node, Operand, StepGraph, Value, Work};
pub use plan::{CompiledStep, RowSource, RowSum, ScanPlan, SharedProgram, StepProgram};
pub(crate) use recorder::not_available;
pub use recorder::{Key, Recorder, Symbol};
pub use regions::Regions;
pub use regions::run::{ScanOperands, ScanResults};
pub use rows::row_nodes;
pub use symbolic::Symbolic;
