//! Stream capture, graph replay, and calls that are illegal during a capture.

use std::sync::Arc;

use crate::common::{Device, device, grid, schedules};
use cudarc::cublas::{CudaBlas, Gemm, GemmConfig, sys as blas};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaSlice, CudaStream, DevicePtrMut, DriverError};

const RING: &str = include_str!("kernels/ring.cu");

const MODE: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;

fn end(stream: &Arc<CudaStream>) -> Result<Option<CudaGraph>, DriverError> {
    stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)
}

fn ones(device: &Device) -> (CudaSlice<f32>, CudaSlice<f32>) {
    let x = device.stream.clone_htod(&[1_f32; 16]).unwrap();
    let sum = device.stream.alloc_zeros::<f32>(16).unwrap();
    device.stream.synchronize().unwrap();
    (x, sum)
}

#[test]
fn a_graph_replays_the_captured_work() {
    let device = device();
    let add_to = device.function(RING, &[], "add_to");
    let (x, mut sum) = ones(&device);
    device.stream.begin_capture(MODE).unwrap();
    launch!(device.stream, add_to, grid(1, 16, 0), &x, &mut sum, &16_i32).unwrap();
    launch!(device.stream, add_to, grid(1, 16, 0), &x, &mut sum, &8_i32).unwrap();
    let graph = end(&device.stream).unwrap().unwrap();
    // Capturing does not run anything.
    assert_eq!(device.stream.clone_dtoh(&sum).unwrap(), [0.0; 16]);
    for _ in 0..3 {
        graph.launch().unwrap();
    }
    let sum = device.stream.clone_dtoh(&sum).unwrap();
    assert_eq!((sum[0], sum[15]), (6.0, 3.0));
}

/// Captures two streams. The second waits for the first's event (if `waits`), and the first waits
/// for the second at the end (if `joins`).
fn fork(device: &Device, waits: bool, joins: bool) -> Result<Vec<f32>, CUresult> {
    let module = device.module(RING, &[]);
    let (fill, add_to) = (
        module.load_function("fill").unwrap(),
        module.load_function("add_to").unwrap(),
    );
    let side = device.context.new_stream().unwrap();
    let (mut x, mut sum) = ones(device);
    device.stream.begin_capture(MODE).unwrap();
    let begin = device.stream.record_event(None).unwrap();
    launch!(device.stream, fill, grid(1, 16, 0), &mut x, &1_i32, &5_f32).unwrap();
    let filled = device.stream.record_event(None).unwrap();
    side.wait(if waits { &filled } else { &begin }).unwrap();
    launch!(side, add_to, grid(1, 16, 0), &x, &mut sum, &16_i32).unwrap();
    if joins {
        device.stream.join(&side).unwrap();
    }
    let graph = end(&device.stream).map_err(|error| error.0)?.unwrap();
    graph.launch().unwrap();
    Ok(device.stream.clone_dtoh(&sum).unwrap())
}

#[test]
fn a_capture_over_two_streams_keeps_their_order() {
    let device = device();
    let wrong = |waits: bool| {
        let run = |&seed: &u64| {
            device.sim.set_seed(seed);
            fork(&device, waits, true).unwrap()[0] != 5.0
        };
        schedules().filter(run).count()
    };
    assert_eq!(wrong(true), 0);
    let found = wrong(false);
    assert!(found > 4, "found by {found} of 32 schedules");
}

#[test]
fn a_stream_that_joined_a_capture_must_be_joined_back() {
    let device = device();
    assert_eq!(
        fork(&device, true, false),
        Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED)
    );
    // The streams are usable again.
    assert_eq!(fork(&device, true, true).unwrap()[0], 5.0);
}

#[test]
fn forbidden_calls_during_a_capture() {
    let device = device();
    let (x, _) = ones(&device);
    let outside = device.context.new_stream().unwrap();
    let earlier = outside.record_event(None).unwrap();
    let refused = |name: &str, call: &dyn Fn() -> Result<(), DriverError>, code: CUresult| {
        device.sim.clear_error();
        device.stream.begin_capture(MODE).unwrap();
        assert_eq!(call().unwrap_err().0, code, "{name}");
        // One illegal call invalidates the capture.
        let lost = end(&device.stream).err().map(|error| error.0);
        assert_eq!(
            lost,
            Some(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
            "{name}"
        );
    };
    let unsupported = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    refused("synchronize", &|| device.stream.synchronize(), unsupported);
    refused(
        "synchronize the context",
        &|| device.context.synchronize(),
        unsupported,
    );
    refused(
        "allocate",
        &|| device.stream.alloc_zeros::<f32>(1).map(drop),
        unsupported,
    );
    refused(
        "read",
        &|| device.stream.clone_dtoh(&x).map(drop),
        unsupported,
    );
    let isolation = CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    refused(
        "wait for an earlier event",
        &|| device.stream.wait(&earlier),
        isolation,
    );
}

#[test]
fn the_default_stream_cannot_be_captured() {
    let device = device();
    let error = device
        .context
        .default_stream()
        .begin_capture(MODE)
        .unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

#[test]
fn cublas_needs_a_workspace_in_a_capture() {
    let device = device();
    let cublas = CudaBlas::new(device.stream.clone()).unwrap();
    let (a, b) = (
        device.stream.clone_htod(&[2_f32]).unwrap(),
        device.stream.clone_htod(&[3_f32]).unwrap(),
    );
    let mut c = device.stream.alloc_zeros::<f32>(1).unwrap();
    let mut workspace = device.stream.alloc_zeros::<u8>(1 << 16).unwrap();
    device.stream.synchronize().unwrap();
    let none = blas::cublasOperation_t::CUBLAS_OP_N;
    let product = GemmConfig {
        transa: none,
        transb: none,
        m: 1,
        n: 1,
        k: 1,
        alpha: 1_f32,
        lda: 1,
        ldb: 1,
        beta: 1_f32,
        ldc: 1,
    };
    device.stream.begin_capture(MODE).unwrap();
    // SAFETY: the matrices have one element each.
    assert!(unsafe { cublas.gemm(product, &a, &b, &mut c) }.is_err());
    assert!(end(&device.stream).is_err());

    let address = workspace.device_ptr_mut(&device.stream).0;
    // SAFETY: the workspace outlives the use of the handle.
    unsafe { blas::cublasSetWorkspace_v2(*cublas.handle(), address as *mut _, 1 << 16) }
        .result()
        .unwrap();
    device.stream.begin_capture(MODE).unwrap();
    // SAFETY: the matrices have one element each.
    unsafe { cublas.gemm(product, &a, &b, &mut c) }.unwrap();
    let graph = end(&device.stream).unwrap().unwrap();
    graph.launch().unwrap();
    graph.launch().unwrap();
    assert_eq!(device.stream.clone_dtoh(&c).unwrap(), [12.0]);
}
