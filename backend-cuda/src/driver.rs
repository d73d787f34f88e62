//! Opening the CUDA driver, and the texts of its errors.

use std::ffi::CStr;
use std::sync::Arc;

use backend_api::{Error, Result};
use cudarc::cublas::sys as cublas;
use cudarc::driver::{CudaContext, DriverError, sys};
use cudarc::nvrtc::sys as nvrtc;

/// The oldest driver version that loads our cubins, in the driver's notation: CUDA 13.0.
const OLDEST: i32 = 13_000;
/// The oldest compute capability that NVRTC 13 supports.
const OLDEST_DEVICE: (i32, i32) = (7, 5);

/// Opens a device, or returns an error that names the missing component.
pub(crate) fn open(index: usize) -> Result<Arc<CudaContext>> {
    let unavailable = |reason: String| Error::Unavailable {
        device: name(index),
        reason,
    };
    let check = |problem: Option<String>| problem.map_or(Ok(()), |reason| Err(unavailable(reason)));
    let failed = |what: &str, e: DriverError| unavailable(format!("{what}: {}", words(e)));
    check(Libraries::look().missing())?;
    let mut version = 0;
    // SAFETY: the driver library is loaded, and the call writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(|e| failed("cannot read the driver version", e))?;
    check(too_old(version))?;
    cudarc::driver::result::init().map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => unavailable(none_of(0)),
        _ => failed("cannot initialize the driver", e),
    })?;
    let count = CudaContext::device_count().map_err(|e| failed("cannot count the devices", e))?;
    check(out_of_range(index, count))?;
    let context = CudaContext::new(index).map_err(|e| failed("cannot open the device", e))?;
    let capability = context.compute_capability();
    check(too_old_a_device(capability.map_err(|e| {
        failed("cannot read the compute capability", e)
    })?))?;
    // SAFETY: this backend orders all work with its own streams and events (`pool`, `swap`).
    unsafe { context.disable_event_tracking() };
    Ok(context)
}

/// Which of the required libraries can be loaded.
#[derive(Clone, Copy)]
struct Libraries {
    driver: bool,
    compiler: bool,
    products: bool,
}

impl Libraries {
    fn look() -> Self {
        // SAFETY: these calls only try to open a library by name.
        unsafe {
            Self {
                driver: sys::is_culib_present(),
                compiler: nvrtc::is_culib_present(),
                products: cublas::is_culib_present(),
            }
        }
    }

    /// The message for the first missing library.
    fn missing(self) -> Option<String> {
        if !self.driver {
            return Some(
                "no CUDA driver (libcuda.so) was found; install NVIDIA's driver, version 580 or \
                 newer, or use the CPU"
                    .to_owned(),
            );
        }
        let toolkit = [
            (self.compiler, "libnvrtc.so.13", "nvidia-cuda-nvrtc"),
            (self.products, "libcublas.so.13", "nvidia-cublas"),
        ];
        let (_, library, package) = toolkit.into_iter().find(|(found, ..)| !found)?;
        Some(format!(
            "{library} was not found; install the CUDA toolkit 13 or the Python package {package}, \
             and name its folder in LD_LIBRARY_PATH"
        ))
    }
}

/// The error message if the driver version is too old.
fn too_old(version: i32) -> Option<String> {
    (version < OLDEST).then(|| {
        format!(
            "the driver supports CUDA {}, but {} is needed; install driver 580 or newer",
            dotted(version),
            dotted(OLDEST)
        )
    })
}

/// The error message if the compute capability is too old.
fn too_old_a_device(capability: (i32, i32)) -> Option<String> {
    (capability < OLDEST_DEVICE).then(|| {
        format!(
            "the device has compute capability {}.{}, but {}.{} is needed",
            capability.0, capability.1, OLDEST_DEVICE.0, OLDEST_DEVICE.1
        )
    })
}

/// The error message if `index` is not below the device count.
fn out_of_range(index: usize, count: i32) -> Option<String> {
    let count = count.max(0);
    (index >= count as usize).then(|| none_of(count))
}

/// The architecture that kernels are compiled for. Hopper-specific instructions need `sm_90a`.
pub(crate) fn architecture(capability: (i32, i32)) -> String {
    match capability {
        (9, 0) => "sm_90a".to_owned(),
        (major, minor) => format!("sm_{major}{minor}"),
    }
}

/// The error message for an index that is out of range of `count` devices.
fn none_of(count: i32) -> String {
    match count {
        0 => "the driver finds no NVIDIA GPU".to_owned(),
        1 => format!("the only device is {}", name(0)),
        n => format!(
            "there are {n} devices, {} to {}",
            name(0),
            name(n as usize - 1)
        ),
    }
}

/// A device's name in messages.
pub(crate) fn name(index: usize) -> String {
    format!("cuda:{index}")
}

fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver's description and name of an error.
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

/// The error for a failed driver call.
pub(crate) fn failure(index: usize, action: &'static str, error: DriverError) -> Error {
    Error::Failed {
        device: name(index),
        action,
        problem: words(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let found = |driver, compiler, products| Libraries {
            driver,
            compiler,
            products,
        };
        assert_eq!(found(true, true, true).missing(), None);
        // The driver is reported first: nothing works without it.
        for (compiler, products) in [(true, true), (true, false), (false, true), (false, false)] {
            assert_eq!(
                found(false, compiler, products).missing().unwrap(),
                "no CUDA driver (libcuda.so) was found; install NVIDIA's driver, version 580 or \
                 newer, or use the CPU"
            );
        }
        let library = |library: &str, package: &str| {
            format!(
                "{library} was not found; install the CUDA toolkit 13 or the Python package \
                 {package}, and name its folder in LD_LIBRARY_PATH"
            )
        };
        let compiler = library("libnvrtc.so.13", "nvidia-cuda-nvrtc");
        assert_eq!(found(true, false, true).missing().unwrap(), compiler);
        assert_eq!(found(true, false, false).missing().unwrap(), compiler);
        assert_eq!(
            found(true, true, false).missing().unwrap(),
            library("libcublas.so.13", "nvidia-cublas")
        );
    }

    #[test]
    fn old_drivers_are_refused_with_the_version_needed() {
        assert_eq!(too_old(13_000), None);
        assert_eq!(too_old(13_020), None);
        assert_eq!(
            too_old(12_080).unwrap(),
            "the driver supports CUDA 12.8, but 13.0 is needed; install driver 580 or newer"
        );
    }

    #[test]
    fn old_devices_are_refused_with_the_capability_needed() {
        assert_eq!(too_old_a_device((7, 5)), None);
        assert_eq!(too_old_a_device((12, 0)), None);
        assert_eq!(
            too_old_a_device((7, 0)).unwrap(),
            "the device has compute capability 7.0, but 7.5 is needed"
        );
        assert_eq!(architecture((9, 0)), "sm_90a");
        assert_eq!(architecture((12, 0)), "sm_120");
    }

    #[test]
    fn indices_out_of_range_are_refused_with_the_available_devices() {
        assert_eq!(out_of_range(0, 1), None);
        assert_eq!(out_of_range(3, 4), None);
        let none = "the driver finds no NVIDIA GPU";
        assert_eq!(out_of_range(0, 0).unwrap(), none);
        assert_eq!(out_of_range(0, -1).unwrap(), none);
        assert_eq!(out_of_range(1, 1).unwrap(), "the only device is cuda:0");
        assert_eq!(
            out_of_range(usize::MAX, 3).unwrap(),
            "there are 3 devices, cuda:0 to cuda:2"
        );
    }
}
