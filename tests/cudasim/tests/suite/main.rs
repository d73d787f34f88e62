//! The simulated CUDA device: correct programs run, and planted mistakes are found.

#[macro_use]
mod common;

mod basics;
mod bugs;
mod exports;
mod graphs;
mod primitives;
mod products;
mod refusals;
mod sanitizers;
mod streams;
