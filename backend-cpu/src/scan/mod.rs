//! Step graphs over whole sequences.
//!
//! A [`program`] is a step's [`RowProgram`](backend_api::trace::program::RowProgram): products, and
//! tile instructions between them, whose values are in [`registers`]. [`run`] runs these for all
//! steps of a [`job`], each thread a [`part`]: some of the rows, or in a [`team`] some of the
//! columns. [`tile`] interprets the instructions. The [`sums`] are computed after the steps.

mod barrier;
mod job;
mod part;
mod program;
mod registers;
mod run;
mod sums;
mod team;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use self::program::compile;
