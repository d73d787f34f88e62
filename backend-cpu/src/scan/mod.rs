//! Step graphs over whole sequences.
//!
//! [`lower`] finds what a step computes for one row of the batch, [`program`] makes products and
//! tile instructions of it, and [`run`] runs these for all steps. [`tile`] interprets the
//! instructions.

mod instruction;
mod lower;
mod program;
mod run;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use self::run::compile;
