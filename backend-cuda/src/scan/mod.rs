//! Step graphs over whole sequences.
//!
//! A [`program`] is a step's products, and between them generated kernels: [`kernel`] decides which
//! thread computes what, and [`print`](mod@print) writes the source. [`run`] queues all steps. A plain [`lstm`] runs in
//! one launch.

mod kernel;
mod lstm;
mod operands;
mod print;
mod program;
mod run;
mod split;
#[cfg(test)]
mod tests;

pub(crate) use self::lstm::Sequence;
pub(crate) use self::program::StepKernels;
