//! Step graphs over whole sequences.
//!
//! [`lower`] finds what a step computes for one row of the batch, a [`row_graph`], and [`compile`]
//! makes a [`program`] of it: products, and tile instructions between them. [`run`] runs these for
//! all steps of a [`job`], each thread a [`part`]. [`tile`] interprets the instructions. The
//! [`sums`] are computed after the steps.

mod barrier;
mod compile;
mod describe;
mod instruction;
mod job;
mod lower;
mod part;
mod program;
mod row_graph;
mod run;
mod sums;
#[cfg(test)]
mod tests;
mod tile;
mod verify;

pub(crate) use self::compile::compile;
