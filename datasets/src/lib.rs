//! Named data sets: where to download them, and how to verify them.
//!
//! A [`Dataset`] lists files, each with its sha256, and the origins that offer them: a package
//! registry through its own client, or plain URLs through `curl`. Every origin produces the same
//! bytes under `data/NAME/`: a file is verified before it receives its name, and a wrong one is
//! rejected.
//!
//! `cargo xtask data NAME` is [`cli`]. An example that needs a data set calls [`Dataset::require`],
//! which never downloads; its error names the command to run:
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
//! Small data sets are committed under `data/` and need no download.

#![forbid(unsafe_code)]

mod archive;
mod catalog;
mod checksum;
mod cli;
mod client;
mod error;
mod fetch;

use std::path::{Path, PathBuf};

pub use archive::read_tar;
pub use catalog::{DataFile, Dataset, Origin, Source, all, dataset};
pub use checksum::Checksum;
pub use cli::cli;
pub use error::{Attempt, Error, Result};
pub use fetch::FetchOptions;

/// The project's folder `data/` with the small committed files.
pub fn committed_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("data")
}

/// The folder of all data sets: `RECURRENT_DATA` if it is set, otherwise `data/` of the workspace
/// in which this crate was built.
pub fn default_root() -> PathBuf {
    match std::env::var_os("RECURRENT_DATA") {
        Some(root) if !root.is_empty() => root.into(),
        _ => committed_root(),
    }
}
