//! The conformance suite of recurrent: what every backend must agree on, with TensorFlow and with the others.
//!
//! * [`cells`]: every cell with its options.
//! * [`conformance`]: every operation and everything made of them, case by case.
//! * [`devices`]: the backends under test, as values of one type.
//! * [`finite_differences`]: gradients against differences.
//! * [`problem`]: a cell under the driver, as something to differentiate.
//! * [`halves`]: what tests of 16-bit floats have in common.
//! * [`golden`]: files of numbers that TensorFlow computed.
//! * [`interop`]: record files to and from TensorFlow.

#![forbid(unsafe_code)]

pub mod cells;
pub mod conformance;
pub mod devices;
pub mod finite_differences;
pub mod golden;
pub mod halves;
pub mod interop;
pub mod problem;
