//! Opening libraries at run time.

use std::path::{Path, PathBuf};

/// Opens the first library that can be opened; else returns what was tried, and why it failed.
pub(crate) fn open<F>(
    paths: impl IntoIterator<Item = PathBuf>,
    open: impl Fn(&Path) -> Result<F, libloading::Error>,
) -> Result<F, String> {
    let mut tried = Vec::new();
    for path in paths {
        match open(&path) {
            Ok(functions) => return Ok(functions),
            Err(error) => tried.push(format!("{}: {error}", path.display())),
        }
    }
    Err(tried.join("; "))
}

/// Declares the functions of a library: `Functions` holds their addresses, and `Functions::open`
/// finds them. The types must be those of the library's header.
macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of an opened library.
        #[derive(Debug)]
        pub(super) struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            /// Keeps the library open.
            _library: ::libloading::Library,
        }

        impl Functions {
            /// Opens a library by its path, or by its name where the system looks for libraries.
            pub(super) fn open(path: &::std::path::Path) -> Result<Self, ::libloading::Error> {
                // SAFETY: what runs when a library of MPI or NCCL is opened makes no demands.
                let library = unsafe { ::libloading::Library::new(path)? };
                // SAFETY: the types are those that the header declares for these names.
                unsafe {
                    Ok(Self {
                        $($name: *library.get($symbol)?,)*
                        _library: library,
                    })
                }
            }
        }
    };
}
pub(crate) use functions;
