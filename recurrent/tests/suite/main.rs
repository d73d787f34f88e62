//! Integration tests of the crate that users depend on.

mod facade;
mod initializers;
mod sequences;
