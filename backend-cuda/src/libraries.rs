//! The libraries of CUDA: each is opened once, its version is checked, and it stays open.

use std::mem;
use std::path::Path;
use std::sync::OnceLock;

use cudarc::cublas::sys as cublas;
use cudarc::driver::sys as cuda;
use cudarc::nvrtc::sys as nvrtc;
use libloading::Library as Opened;

/// The oldest driver that loads our machine code, in the driver's notation: CUDA 13.0.
const OLDEST_DRIVER: i32 = 13_000;
/// The major version of NVRTC and cuBLAS whose functions and machine code this backend uses.
const MAJOR: i32 = 13;

/// A library that the backend needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Driver,
    /// NVRTC.
    Compiler,
    /// cuBLAS.
    Products,
}

impl Library {
    /// Opens the library, unless it is open, and checks its version. Returns what is wrong and what
    /// to do about it.
    pub(crate) fn open(self) -> Result<(), String> {
        static OPEN: [OnceLock<()>; 3] = [const { OnceLock::new() }; 3];
        let open = &OPEN[self as usize];
        if open.get().is_none() {
            // The driver is small; cuBLAS takes half a second to open.
            let names = self.names().iter();
            let candidates = names.flat_map(|name| cudarc::get_lib_name_candidates(name));
            if !candidates
                .into_iter()
                .any(|name| open_for_good(Path::new(&name)).is_ok())
            {
                return Err(System::HERE.missing(self));
            }
            let _ = open.set(());
        }
        System::HERE.check(self, self.version()?)
    }

    /// The names in cudarc's order, so that cudarc finds the same file.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["cuda", "nvcuda"],
            Self::Compiler => &["nvrtc"],
            Self::Products => &["cublas"],
        }
    }

    /// The version of the open library, in the driver's notation: 13000 for 13.0.
    pub(crate) fn version(self) -> Result<i32, String> {
        let (mut version, mut minor) = (0, 0);
        let to = &raw mut version;
        // SAFETY: the library is open, and the calls write numbers.
        unsafe {
            match self {
                Self::Driver => {
                    let read = cuda::cuDriverGetVersion(to).result();
                    read.map_err(|e| match e.0 {
                        cuda::CUresult::CUDA_ERROR_STUB_LIBRARY => {
                            "the CUDA driver that was found \
                             is a stub for linking; remove its folder from LD_LIBRARY_PATH"
                                .to_owned()
                        }
                        code => format!("the driver does not tell its version: {code:?}"),
                    })?;
                    return Ok(version);
                }
                Self::Compiler => nvrtc::nvrtcVersion(to, &raw mut minor)
                    .result()
                    .map_err(|e| format!("NVRTC does not tell its version: {e:?}"))?,
                Self::Products => {
                    use cublas::libraryPropertyType_t::{MAJOR_VERSION, MINOR_VERSION};
                    for (part, to) in [(MAJOR_VERSION, to), (MINOR_VERSION, &raw mut minor)] {
                        let read = cublas::cublasGetProperty(part, to).result();
                        read.map_err(|e| format!("cuBLAS does not tell its version: {e:?}"))?;
                    }
                }
            }
        }
        Ok(version * 1000 + minor * 10)
    }
}

/// Opens a library that is never closed. Later loads by its name find it open.
pub(crate) fn open_for_good(library: &Path) -> Result<(), libloading::Error> {
    // SAFETY: an NVIDIA library, whose initialisers only set up its own state.
    mem::forget(unsafe { Opened::new(library) }?);
    Ok(())
}

/// What libraries are called, and where to get them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    Linux,
    /// Servers and Jetsons with ARM processors.
    Arm,
    Windows,
}

impl System {
    const HERE: Self = match (cfg!(windows), cfg!(target_arch = "aarch64")) {
        (true, _) => Self::Windows,
        (false, true) => Self::Arm,
        (false, false) => Self::Linux,
    };

    /// The file of a library, and the Python package that has it.
    fn file(self, library: Library) -> (&'static str, &'static str) {
        match (self, library) {
            (Self::Windows, Library::Driver) => ("nvcuda.dll", ""),
            (Self::Windows, Library::Compiler) => ("nvrtc64_130_0.dll", "nvidia-cuda-nvrtc"),
            (Self::Windows, Library::Products) => ("cublas64_13.dll", "nvidia-cublas"),
            (_, Library::Driver) => ("libcuda.so.1", ""),
            (_, Library::Compiler) => ("libnvrtc.so.13", "nvidia-cuda-nvrtc"),
            (_, Library::Products) => ("libcublas.so.13", "nvidia-cublas"),
        }
    }

    /// The variable with the folders in which libraries are looked for.
    fn path(self) -> &'static str {
        match self {
            Self::Windows => "PATH",
            _ => "LD_LIBRARY_PATH",
        }
    }

    fn driver(self) -> &'static str {
        match self {
            Self::Arm => "driver 580 or newer (on a Jetson, JetPack 7)",
            _ => "driver 580 or newer",
        }
    }

    fn missing(self, library: Library) -> String {
        let (file, package) = self.file(library);
        let path = self.path();
        match library {
            Library::Driver => format!(
                "no CUDA driver ({file}) was found; install NVIDIA's {}, or use the CPU",
                self.driver()
            ),
            _ => format!(
                "{file} was not found; install the CUDA toolkit {MAJOR} or the Python package \
                 {package}, and name its folder in {path}"
            ),
        }
    }

    /// Refuses a version that does not fit.
    fn check(self, library: Library, version: i32) -> Result<(), String> {
        let (file, _) = self.file(library);
        let dotted = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        match library {
            Library::Driver if version < OLDEST_DRIVER => Err(format!(
                "the driver supports CUDA {}, but {} is needed; install {}",
                dotted(version),
                dotted(OLDEST_DRIVER),
                self.driver()
            )),
            Library::Compiler | Library::Products if version / 1000 != MAJOR => Err(format!(
                "the {library} that was found is version {}, but {MAJOR} is needed; name the \
                 folder of {file} in {}, before any other with this library",
                dotted(version),
                self.path(),
                library = match library {
                    Library::Compiler => "NVRTC",
                    _ => "cuBLAS",
                },
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        assert_eq!(
            System::Linux.missing(Library::Driver),
            "no CUDA driver (libcuda.so.1) was found; install NVIDIA's driver 580 or newer, or use \
             the CPU"
        );
        assert!(System::Arm.missing(Library::Driver).contains("JetPack 7"));
        assert_eq!(
            System::Linux.missing(Library::Compiler),
            "libnvrtc.so.13 was not found; install the CUDA toolkit 13 or the Python package \
             nvidia-cuda-nvrtc, and name its folder in LD_LIBRARY_PATH"
        );
        assert_eq!(
            System::Windows.missing(Library::Products),
            "cublas64_13.dll was not found; install the CUDA toolkit 13 or the Python package \
             nvidia-cublas, and name its folder in PATH"
        );
    }

    #[test]
    fn versions_that_do_not_fit_are_refused_with_the_version_needed() {
        let check = |library, version| System::Linux.check(library, version);
        for version in [13_000, 13_020, 14_010] {
            assert_eq!(check(Library::Driver, version), Ok(()));
        }
        assert_eq!(
            check(Library::Driver, 12_080).unwrap_err(),
            "the driver supports CUDA 12.8, but 13.0 is needed; install driver 580 or newer"
        );
        for library in [Library::Compiler, Library::Products] {
            assert_eq!(check(library, 13_050), Ok(()));
            assert!(check(library, 12_090).is_err() && check(library, 14_000).is_err());
        }
        assert_eq!(
            check(Library::Products, 12_090).unwrap_err(),
            "the cuBLAS that was found is version 12.9, but 13 is needed; name the folder of \
             libcublas.so.13 in LD_LIBRARY_PATH, before any other with this library"
        );
    }
}
