//! Where a library with the standard ABI is.

use std::env;
use std::path::{Path, PathBuf};

use backend_api::Result;

use super::ffi::Functions;
use super::unavailable;
use crate::library;

/// Names the library, if it is not where the system looks for libraries.
const VARIABLE: &str = "RECURRENT_MPI";

/// Its name: that of the first version of the ABI, and that of development packages.
const NAMES: [&str; 2] = ["libmpi_abi.so.1", "libmpi_abi.so"];

/// Opens the library.
pub(super) fn open() -> Result<Functions> {
    let paths = candidates(env::var_os(VARIABLE).map(PathBuf::from));
    library::open(paths, Functions::open).map_err(|tried| {
        unavailable(format!(
            "no library with the standard ABI of MPI 5 could be opened ({tried}). MPICH has it \
             from version 5.0 (`pip install mpich`), Open MPI from 6.0. {VARIABLE} names the \
             library if it is not where the system looks for libraries, nor beside the `mpirun` \
             of the search path"
        ))
    })
}

/// Where the library may be: what the variable names, or else where the system looks, and in the
/// folder of libraries beside each `mpirun`, where wheels of Python have it.
fn candidates(named: Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![named];
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let beside = env::split_paths(&path)
        .filter(|folder| folder.join("mpirun").is_file())
        .filter_map(|folder| Some(folder.parent()?.join("lib").join(NAMES[0])))
        .filter(|library| library.is_file());
    let by_name = NAMES.iter().map(|name| Path::new(name).to_owned());
    by_name.chain(beside).collect()
}
