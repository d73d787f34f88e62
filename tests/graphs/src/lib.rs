//! Step graphs, for tests of devices that compile them: a [`Builder`] of graphs, [`random`] graphs,
//! and their runs over all steps as one operation ([`fused`]) and operation by operation
//! ([`stepwise`]).

#![forbid(unsafe_code)]

mod builder;
pub mod random;
mod run;

pub use self::builder::{Builder, reshape, slice};
pub use self::run::{Data, close, fused, operands, same, scan, scanned, stepwise};
