//! Tests of the whole system: the conformance suite and the golden files, gradients, properties,
//! errors, and everything else that runs on several crates together.
//!
//! `cargo test -p recurrent-tests --test suite gradients::` runs the tests of one module.
//!
//! Several tests share the simulated CUDA device here, with its default settings. Tests that change
//! the settings are in the binary `cuda`.

mod conformance;
mod convert;
mod devices;
mod errors;
mod golden;
mod gradients;
mod half_precision;
mod initializers;
mod mnist_sample;
mod padding;
mod properties;
mod refusals;
mod steady_state;
mod streaming;
mod summaries;
mod tasks;
mod tensors;
mod traced;
mod wrappers;
