//! The shared objects and the simulator's functions in them. Contains all unsafe code of the crate.

use std::ffi::{CStr, c_char, c_int, c_ulonglong};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::Error;

/// Both names of each library: the one that cudarc tries first, and the one with a version.
const NAMES: [&str; 9] = [
    "libcuda.so",
    "libcuda.so.1",
    "libnvrtc.so",
    "libnvrtc.so.13",
    "libcublas.so",
    "libcublas.so.13",
    "libnvtx3interop.so",
    "libnvtx3interop.so.1",
    "libnccl.so.2",
];

macro_rules! symbols {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions that the simulator exports in addition to CUDA's.
        #[derive(Debug)]
        pub(crate) struct Symbols {
            $($field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Symbols {
            fn find(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of the definitions in sim/control.cpp, and the
                // library is never closed.
                unsafe { Ok(Self { $($field: *library.get($symbol)?,)* }) }
            }
        }
    };
}

symbols! {
    check_compiler = b"cudasim_check_compiler": fn(*mut c_char, usize) -> c_int;
    set_cache = b"cudasim_set_cache": fn(*const c_char);
    set_seed = b"cudasim_set_seed": fn(c_ulonglong);
    set_memory_limit = b"cudasim_set_memory_limit": fn(usize);
    set_pinned_limit = b"cudasim_set_pinned_limit": fn(usize);
    set_devices = b"cudasim_set_devices": fn(c_int);
    set_compute_capability = b"cudasim_set_compute_capability": fn(c_int);
    set_multiprocessors = b"cudasim_set_multiprocessors": fn(c_int);
    set_driver_version = b"cudasim_set_driver_version": fn(c_int);
    set_compiler_version = b"cudasim_set_compiler_version": fn(c_int);
    set_products_version = b"cudasim_set_products_version": fn(c_int);
    set_taken_shared = b"cudasim_set_taken_shared": fn(c_int);
    set_resident_limit = b"cudasim_set_resident_limit": fn(c_int);
    set_capture_pause = b"cudasim_set_capture_pause": fn(c_int);
    set_failing_kernel = b"cudasim_set_failing_kernel": fn(*const c_char);
    clear_error = b"cudasim_clear_error": fn();
    reset = b"cudasim_reset": fn();
    launches = b"cudasim_launches": fn(*const c_char) -> c_ulonglong;
    used_memory = b"cudasim_used_memory": fn() -> usize;
    pinned_memory = b"cudasim_pinned_memory": fn() -> usize;
    queued = b"cudasim_queued": fn() -> usize;
    allocations = b"cudasim_allocations": fn() -> usize;
    ranges = b"cudasim_ranges": fn(*const c_char) -> c_ulonglong;
    range_depth = b"cudasim_range_depth": fn() -> c_int;
    last_report = b"cudasim_last_report": fn(*mut u8, usize) -> usize;
}

impl Symbols {
    /// Opens the libraries by full path. From then on the dynamic linker knows each by its SONAME,
    /// so that a later lookup by bare name finds it, whatever the search path. They are never
    /// closed.
    pub(crate) fn load(folder: &Path) -> Result<Self, Error> {
        let core = open(&folder.join("libcudasim.so"))?;
        let symbols = Self::find(&core).map_err(|error| Error::Load(error.to_string()))?;
        std::mem::forget(core);
        for name in NAMES {
            std::mem::forget(open(&folder.join(name))?);
        }
        for name in NAMES {
            let found = open(Path::new(name))?;
            // SAFETY: the symbol is only looked up, not called.
            let ours = unsafe { found.get::<unsafe extern "C" fn()>(b"cudasim_reset") }.is_ok();
            std::mem::forget(found);
            if !ours {
                return Err(Error::TooLate(name.to_owned()));
            }
        }
        Ok(symbols)
    }

    pub(crate) fn check_compiler(&self) -> Result<(), String> {
        let mut reason = [0; 1024];
        // SAFETY: the function writes at most `reason.len()` characters, including a NUL if it
        // returns an error.
        unsafe {
            if (self.check_compiler)(reason.as_mut_ptr(), reason.len()) == 0 {
                return Ok(());
            }
            Err(CStr::from_ptr(reason.as_ptr())
                .to_string_lossy()
                .into_owned())
        }
    }

    pub(crate) fn last_report(&self) -> String {
        // SAFETY: with a size of 0 the function writes nothing; otherwise it writes at most
        // `text.len()` bytes.
        unsafe {
            let mut text = vec![0; (self.last_report)(std::ptr::null_mut(), 0)];
            let length = (self.last_report)(text.as_mut_ptr(), text.len());
            text.truncate(length);
            String::from_utf8_lossy(&text).into_owned()
        }
    }

    pub(crate) fn set_cache(&self, folder: &CStr) {
        // SAFETY: the function copies the string.
        unsafe { (self.set_cache)(folder.as_ptr()) }
    }

    pub(crate) fn ranges(&self, name: &CStr) -> u64 {
        // SAFETY: the function reads the string during the call.
        unsafe { (self.ranges)(name.as_ptr()) }
    }

    pub(crate) fn set_failing_kernel(&self, kernel: &CStr) {
        // SAFETY: the function copies the string.
        unsafe { (self.set_failing_kernel)(kernel.as_ptr()) }
    }

    pub(crate) fn launches(&self, kernel: &CStr) -> u64 {
        // SAFETY: the function reads the string during the call.
        unsafe { (self.launches)(kernel.as_ptr()) }
    }
}

/// Wraps functions that take and return plain numbers.
macro_rules! numbers {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        impl Symbols {$(
            pub(crate) fn $name(&self $(, $argument: $type)*) $(-> $result)? {
                // SAFETY: the function takes the simulator's lock, and no pointer is involved.
                unsafe { (self.$name)($($argument),*) }
            }
        )*}
    };
}

numbers! {
    set_seed(seed: u64);
    set_memory_limit(value: usize);
    set_pinned_limit(value: usize);
    set_devices(value: c_int);
    set_compute_capability(value: c_int);
    set_multiprocessors(value: c_int);
    set_driver_version(value: c_int);
    set_compiler_version(value: c_int);
    set_products_version(value: c_int);
    set_taken_shared(value: c_int);
    set_resident_limit(value: c_int);
    set_capture_pause(value: c_int);
    clear_error();
    reset();
    used_memory() -> usize;
    pinned_memory() -> usize;
    queued() -> usize;
    allocations() -> usize;
    range_depth() -> c_int;
}

fn open(path: &Path) -> Result<Library, Error> {
    // SAFETY: the libraries' constructors only affect the simulator itself.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| Error::Load(error.to_string()))
}
