//! What a driver refuses on some machines or in some processes only.

use cudarc::cublas::CudaBlas;
use cudarc::driver::sys::{CUfunction_attribute, CUgraphInstantiate_flags, CUresult};
use cudarc::driver::sys::{CUstreamCaptureMode, cuDriverGetVersion};
use cudarc::driver::{CudaContext, DriverError};

use crate::common::{device, grid};

const RING: &str = include_str!("kernels/ring.cu");
const RELAXED: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;

fn code<T>(answer: Result<T, DriverError>) -> Option<CUresult> {
    answer.err().map(|error| error.0)
}

#[test]
fn a_limit_of_shared_memory_is_not_lowered() {
    let device = device();
    let fill = device.function(RING, &[], "fill");
    let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    fill.set_attribute(most, 64 << 10).unwrap();
    fill.set_attribute(most, 100 << 10).unwrap();
    assert!(fill.set_attribute(most, 64 << 10).is_err());
    assert!(device.sim.last_report().contains("is lowered"));
}

#[test]
fn cublas_breaks_captures_and_does_not_outlive_its_context() {
    let device = device();
    let stream = &device.stream;
    for create in [true, false] {
        let kept = CudaBlas::new(stream.clone()).unwrap();
        stream.begin_capture(RELAXED).unwrap();
        match create {
            true => drop(CudaBlas::new(device.context.new_stream().unwrap())),
            false => drop(kept),
        }
        let ended = stream.end_capture(CUgraphInstantiate_flags(0));
        let invalidated = CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        assert_eq!(code(ended), Some(invalidated), "create {create}");
    }
    let sim = device.sim;
    drop((device.stream, device.context));
    let context = CudaContext::new(0).unwrap();
    assert!(CudaBlas::new(context.new_stream().unwrap()).is_err());
    let report = sim.last_report();
    assert!(
        report.contains("the primary context was released"),
        "{report}"
    );
    drop(context);
    sim.reset();
    let context = CudaContext::new(0).unwrap();
    CudaBlas::new(context.new_stream().unwrap()).unwrap();
}

#[test]
fn modules_graphs_and_handles_need_memory() {
    let device = device();
    let stream = &device.stream;
    let fill = device.function(RING, &[], "fill");
    let mut x = stream.alloc_zeros::<f32>(16).unwrap();
    stream.synchronize().unwrap();
    let out_of_memory = Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    let none_left = || device.sim.set_memory_limit(device.sim.used_memory());
    none_left();
    let binary = crate::common::compile(RING, &[]).unwrap();
    let image = cudarc::nvrtc::Ptx::from_binary(binary);
    assert_eq!(code(device.context.load_module(image)), out_of_memory);
    assert!(CudaBlas::new(stream.clone()).is_err());
    stream.begin_capture(RELAXED).unwrap();
    launch!(stream, fill, grid(1, 16, 0), &mut x, &1_i32, &5_f32).unwrap();
    let ended = stream.end_capture(CUgraphInstantiate_flags(0));
    assert_eq!(code(ended), out_of_memory);
    device.sim.set_pinned_limit(1000);
    // SAFETY: the memory is not read.
    let pinned = |count| unsafe { device.context.alloc_pinned::<u8>(count) };
    assert_eq!(code(pinned(1001)), out_of_memory);
    assert!(pinned(1000).is_ok());
}

#[test]
fn cooperative_launches_of_two_streams_need_an_order() {
    let device = device();
    let fill = device.function(RING, &[], "fill");
    let side = device.context.new_stream().unwrap();
    let mut x = device.stream.alloc_zeros::<f32>(16).unwrap();
    let mut start = |ordered: bool| {
        let config = grid(1, 16, 0);
        launch_cooperative!(device.stream, fill, config, &mut x, &1_i32, &5_f32).unwrap();
        if ordered {
            side.join(&device.stream).unwrap();
        }
        launch_cooperative!(side, fill, config, &mut x, &1_i32, &5_f32).unwrap();
        code(side.synchronize())
    };
    assert_eq!(start(true), None);
    assert_eq!(start(false), Some(CUresult::CUDA_ERROR_LAUNCH_FAILED));
    let report = device.sim.last_report();
    assert!(report.contains("may run beside another one"), "{report}");
}

#[test]
fn cooperative_launches_are_refused_above_what_others_leave() {
    let device = device();
    let fill = device.function(RING, &[], "fill");
    let mut x = device.stream.alloc_zeros::<f32>(16).unwrap();
    let mut start = |blocks| {
        let config = grid(blocks, 16, 0);
        code(launch_cooperative!(
            device.stream,
            fill,
            config,
            &mut x,
            &1_i32,
            &5_f32
        ))
    };
    let occupancy = || {
        fill.occupancy_max_active_blocks_per_multiprocessor(16, 0, None)
            .unwrap()
    };
    let refused = Some(CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    assert_eq!((start(4), occupancy() > 0), (None, true));
    device.sim.set_resident_limit(3);
    assert_eq!((start(4), start(3), occupancy() > 0), (refused, None, true));
    device.sim.set_resident_limit(100);
    device.sim.set_taken_shared(228 << 10);
    assert_eq!((start(1), occupancy()), (refused, 0));
}

#[test]
fn a_kernel_fails_when_a_test_wants_it_to() {
    let device = device();
    let fill = device.function(RING, &[], "fill");
    let mut x = device.stream.alloc_zeros::<f32>(16).unwrap();
    let mut start = || {
        launch!(device.stream, fill, grid(1, 16, 0), &mut x, &1_i32, &5_f32).unwrap();
        code(device.stream.synchronize())
    };
    assert_eq!(start(), None);
    device.sim.set_failing_kernel("fill");
    assert_eq!(start(), Some(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
    device.sim.clear_error();
    assert_eq!(start(), None);
}

#[test]
fn libraries_have_versions() {
    let device = device();
    device.sim.set_driver_version(12_080);
    device.sim.set_compiler_version(12_060);
    device.sim.set_products_version(12_040);
    let (mut driver, mut major, mut minor, mut products) = (0, 0, 0, 0);
    // SAFETY: the calls write numbers.
    unsafe {
        cuDriverGetVersion(&raw mut driver).result().unwrap();
        let read = cudarc::nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor);
        read.result().unwrap();
        use cudarc::cublas::sys::{cublasGetProperty, libraryPropertyType_t::MAJOR_VERSION};
        let read = cublasGetProperty(MAJOR_VERSION, &raw mut products);
        read.result().unwrap();
    }
    assert_eq!((driver, major, minor, products), (12_080, 12, 6, 12));
}
