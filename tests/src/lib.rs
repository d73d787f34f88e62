//! The conformance suite of recurrent: results that every backend must share with TensorFlow and
//! with the other backends.
//!
//! * [`cells`]: every cell with its options.
//! * [`conformance`]: cases from single operations to whole networks.
//! * [`devices`]: the backends under test, as values of one type.
//! * [`finite_differences`]: gradients compared with finite differences.
//! * [`problem`]: a cell under a driver, as a function to differentiate.
//! * [`halves`]: helpers for tests of 16-bit floats.
//! * [`golden`]: files of numbers that TensorFlow computed.
//! * [`interop`]: record files exchanged with TensorFlow.

#![forbid(unsafe_code)]

pub mod cells;
pub mod conformance;
pub mod devices;
pub mod finite_differences;
pub mod golden;
pub mod halves;
pub mod interop;
pub mod problem;
