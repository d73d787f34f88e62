//! The CUDA backend on the machine itself, without the simulated device. A missing GPU or library
//! is an error that names it.

use backend_api::{Error, Tensor};
use backend_cuda::Cuda;

#[test]
fn a_machine_without_cuda_says_what_is_missing() {
    match Cuda::new(0) {
        Ok(device) => {
            let x = Tensor::from_slice(&device, &[1.0f32, 2.0], &[2]).unwrap();
            assert_eq!(x.sum_all().unwrap().item().unwrap(), 3.0);
        }
        Err(Error::Unavailable { device, reason }) => {
            assert_eq!(device, "cuda:0");
            assert!(reason.len() > 20, "{reason}");
        }
        Err(other) => panic!("an error of another kind: {other}"),
    }
}

#[test]
fn a_device_that_nobody_has_is_unavailable() {
    let told = Cuda::new(usize::MAX).unwrap_err();
    assert!(matches!(told, Error::Unavailable { .. }), "{told}");
}
