//! The driver's names, limits and errors in words.

use std::ffi::CStr;

use backend_api::Result;
use cudarc::driver::{DriverError, sys};

/// The oldest compute capability that NVRTC 13 supports.
const OLDEST_DEVICE: (i32, i32) = (7, 5);

/// Refuses a compute capability that is too old.
pub(crate) fn check_capability(capability: (i32, i32)) -> Result<(), String> {
    if capability >= OLDEST_DEVICE {
        return Ok(());
    }
    Err(format!(
        "the device has compute capability {}.{}, but {}.{} is needed",
        capability.0, capability.1, OLDEST_DEVICE.0, OLDEST_DEVICE.1
    ))
}

/// Refuses an index that is not below the device count.
pub(crate) fn check_index(index: usize, count: i32) -> Result<(), String> {
    let count = count.max(0);
    match index < count as usize {
        true => Ok(()),
        false => Err(none_of(count)),
    }
}

/// Whether the error leaves a context in which every later call fails, too.
pub(crate) fn is_final(error: DriverError) -> bool {
    use sys::CUresult as Code;
    matches!(
        error.0,
        Code::CUDA_ERROR_DEVICE_UNAVAILABLE
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_LAUNCH_FAILED
    )
}

/// The architecture that kernels are compiled for. Hopper-specific instructions need `sm_90a`.
pub(crate) fn architecture(capability: (i32, i32)) -> String {
    match capability {
        (9, 0) => "sm_90a".to_owned(),
        (major, minor) => format!("sm_{major}{minor}"),
    }
}

/// The error message for an index that is out of range of `count` devices.
pub(crate) fn none_of(count: i32) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_devices_are_refused_with_the_capability_needed() {
        assert_eq!(check_capability((7, 5)), Ok(()));
        assert_eq!(check_capability((12, 0)), Ok(()));
        assert_eq!(
            check_capability((7, 0)).unwrap_err(),
            "the device has compute capability 7.0, but 7.5 is needed"
        );
        assert_eq!(architecture((9, 0)), "sm_90a");
        assert_eq!(architecture((12, 0)), "sm_120");
    }

    #[test]
    fn indices_out_of_range_are_refused_with_the_available_devices() {
        assert_eq!(check_index(0, 1), Ok(()));
        assert_eq!(check_index(3, 4), Ok(()));
        let none = "the driver finds no NVIDIA GPU";
        assert_eq!(check_index(0, 0).unwrap_err(), none);
        assert_eq!(check_index(0, -1).unwrap_err(), none);
        assert_eq!(check_index(1, 1).unwrap_err(), "the only device is cuda:0");
        assert_eq!(
            check_index(usize::MAX, 3).unwrap_err(),
            "there are 3 devices, cuda:0 to cuda:2"
        );
    }
}
