//! The committed data, and fetching of data sets.

mod committed;
mod fetch;
