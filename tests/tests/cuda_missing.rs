//! The CUDA backend on the machine itself, without the simulated device. A missing GPU or library
//! is an error that names it.
//!
//! A binary of its own, because the simulated device replaces the real one for a whole process.

use backend_api::{Error, Tensor};
use backend_cuda::Cuda;

#[test]
fn the_error_names_the_missing_library_or_device() {
    match Cuda::new(0) {
        Ok(device) => {
            let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[2]).unwrap();
            assert_eq!(x.sum_all().unwrap().item().unwrap(), 3.0);
        }
        Err(Error::Unavailable { device, reason }) => {
            assert_eq!(device, "cuda:0");
            assert!(reason.len() > 20, "{reason}");
        }
        Err(other) => panic!("unexpected error: {other}"),
    }
}

#[test]
fn a_device_with_a_huge_index_is_unavailable() {
    let error = Cuda::new(usize::MAX).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}
