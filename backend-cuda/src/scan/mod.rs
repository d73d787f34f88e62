//! Step graphs over whole sequences.
//!
//! A [`program`] is a step's products, and between them generated kernels: [`kernel`] decides which
//! thread computes what, after [`split`] cut instructions in parts, and [`print`](mod@print) writes
//! the source. Products that can be one product are ([`join`]). [`run`] queues all steps; those of
//! a plain [`lstm`] may be one launch ([`whole`]).

mod join;
mod kernel;
mod lstm;
mod operands;
mod print;
mod program;
mod run;
mod slots;
mod split;
#[cfg(test)]
mod tests;
mod whole;

pub(crate) use self::program::StepKernels;
pub use self::program::step_source;
