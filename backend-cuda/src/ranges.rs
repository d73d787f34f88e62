//! Named ranges in a profiler's timeline (NVTX): an operation, the recorded steps of a sequence.
//! Without NVIDIA's library they do nothing.

use std::ffi::{c_char, c_int};
use std::sync::LazyLock;

use libloading::Library;

/// The functions of NVTX; the library is never closed.
struct Functions {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
}

static FUNCTIONS: LazyLock<Option<Functions>> = LazyLock::new(|| {
    // The library of CUDA 13, and its predecessor with the same functions.
    let names = ["nvtx3interop", "nvToolsExt"].map(cudarc::get_lib_name_candidates);
    names.iter().flatten().find_map(|name| {
        // SAFETY: an NVIDIA library, whose initialisers only set up its own state. The types are
        // those of nvToolsExt.h.
        unsafe {
            let library = Library::new(name).ok()?;
            let functions = Functions {
                push: *library.get(b"nvtxRangePushA").ok()?,
                pop: *library.get(b"nvtxRangePop").ok()?,
            };
            std::mem::forget(library);
            Some(functions)
        }
    })
});

/// A range of this thread, which ends on drop.
#[must_use]
pub(crate) struct Range(Option<&'static Functions>);

/// Longest name in bytes; longer ones are cut off.
const LONGEST: usize = 63;

/// Begins a range.
pub(crate) fn range(name: &str) -> Range {
    let functions = FUNCTIONS.as_ref();
    if let Some(functions) = functions {
        let mut text = [0u8; LONGEST + 1];
        let name = &name.as_bytes()[..name.len().min(LONGEST)];
        text[..name.len()].copy_from_slice(name);
        // SAFETY: the text ends with a NUL, and the function copies it.
        unsafe { (functions.push)(text.as_ptr().cast()) };
    }
    Range(functions)
}

impl Drop for Range {
    fn drop(&mut self) {
        if let Some(functions) = self.0 {
            // SAFETY: the range was begun on this thread: `Range` is made and dropped within one
            // function.
            unsafe { (functions.pop)() };
        }
    }
}
