//! Step graphs over whole sequences.
//!
//! A [`program`] is a step's products, and between them generated kernels: [`kernel`] decides which
//! thread computes what, and [`print`](mod@print) writes the source. [`run`] queues all steps.

mod kernel;
mod print;
mod program;
mod run;
mod split;

pub(crate) use self::program::StepKernels;
