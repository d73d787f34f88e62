//! Integration tests of the crate that users depend on.

mod facade;
mod initializers;
mod messages;
mod sequences;
mod tutorials;
