//! Step graphs over whole sequences.
//!
//! [`lower`] finds what a step computes for one row of the batch, [`program`] makes products and
//! tile instructions of it, and [`run`] runs these for all steps: each thread a [`part`].
//! [`tile`] interprets the instructions. [`sums`] are computed after the steps.

mod barrier;
mod instruction;
mod lower;
mod part;
mod program;
mod run;
mod sums;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use self::run::compile;
