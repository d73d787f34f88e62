//! The driver: whether it is there, and its errors in words.

use std::ffi::CStr;
use std::sync::Arc;

use backend_api::{Error, Result};
use cudarc::cublas::sys as cublas;
use cudarc::driver::{CudaContext, DriverError, sys};
use cudarc::nvrtc::sys as nvrtc;

/// The oldest CUDA version of a driver that takes what we compile, as the driver counts: 13.0.
const OLDEST: i32 = 13_000;

/// Opens a device, or says what is missing.
pub(crate) fn open(index: usize) -> Result<Arc<CudaContext>> {
    let unavailable = |reason: String| Error::Unavailable {
        device: name(index),
        reason,
    };
    // SAFETY: these only try to open a library by name.
    let (driver, compiler, products) = unsafe {
        (
            sys::is_culib_present(),
            nvrtc::is_culib_present(),
            cublas::is_culib_present(),
        )
    };
    if !driver {
        return Err(unavailable(
            "there is no CUDA driver (libcuda.so); install NVIDIA's driver, version 580 or newer, \
             or use the processor"
                .into(),
        ));
    }
    for (found, library, package) in [
        (compiler, "libnvrtc.so.13", "nvidia-cuda-nvrtc"),
        (products, "libcublas.so.13", "nvidia-cublas"),
    ] {
        if !found {
            return Err(unavailable(format!(
                "{library} was not found; install the CUDA toolkit 13 or the Python package {package}, and name \
                 its folder in LD_LIBRARY_PATH"
            )));
        }
    }
    let failed = |what: &str, e: DriverError| unavailable(format!("{what}: {}", words(e)));
    cudarc::driver::result::init().map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => unavailable(no_device(0)),
        _ => failed("the driver did not start", e),
    })?;
    let mut version = 0;
    // SAFETY: the driver is there, and writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(|e| failed("the driver's version", e))?;
    if version < OLDEST {
        return Err(unavailable(format!(
            "the driver speaks CUDA {}, but {} is needed; install driver 580 or newer",
            dotted(version),
            dotted(OLDEST)
        )));
    }
    let count = CudaContext::device_count().map_err(|e| failed("counting devices", e))?;
    if usize::try_from(count).is_ok_and(|count| index >= count) {
        return Err(unavailable(no_device(count)));
    }
    let context = CudaContext::new(index).map_err(|e| failed("the device did not open", e))?;
    // SAFETY: the streams and events of this backend order all work themselves (`pool`, `swap`).
    unsafe { context.disable_event_tracking() };
    Ok(context)
}

/// The reason why a device is not among so many.
fn no_device(count: i32) -> String {
    match count {
        0 => "there is no NVIDIA GPU that the driver sees".to_owned(),
        1 => format!("there is one device, {}", name(0)),
        n => format!(
            "there are {n} devices, {} to {}",
            name(0),
            name(n as usize - 1)
        ),
    }
}

/// A device's name for messages.
pub(crate) fn name(index: usize) -> String {
    format!("cuda:{index}")
}

fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver's error in its own words.
pub(crate) fn words(error: DriverError) -> String {
    fn text(words: Result<&CStr, DriverError>) -> String {
        words.map_or_else(|_| "unknown".into(), |s| s.to_string_lossy().into_owned())
    }
    format!(
        "{} ({})",
        text(error.error_string()),
        text(error.error_name())
    )
}

/// A call of the driver that failed.
pub(crate) fn failure(index: usize, action: &'static str, error: DriverError) -> Error {
    Error::Failed {
        device: name(index),
        action,
        problem: words(error),
    }
}
