//! Memory, modules and launches: behaviour of correct programs.

use crate::common::{compile, device, device_with, grid, numbers};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DevicePtr, LaunchConfig, result, sys};
use cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};

const KERNELS: &str = include_str!("kernels/basics.cu");

#[test]
fn kernels_without_barriers_run() {
    let device = device();
    let add = device.function(KERNELS, &[], "add");
    let (a, b) = (numbers(10_000, 1, 1.0), numbers(10_000, 2, 1.0));
    for seed in [0, 1, 2] {
        device.sim.set_seed(seed);
        let (da, db) = (
            device.stream.clone_htod(&a).unwrap(),
            device.stream.clone_htod(&b).unwrap(),
        );
        let mut dc = device.stream.alloc_zeros::<f32>(a.len()).unwrap();
        launch!(
            device.stream,
            add,
            LaunchConfig::for_num_elems(10_000),
            &da,
            &db,
            &mut dc,
            &10_000_i32
        )
        .unwrap();
        let c = device.stream.clone_dtoh(&dc).unwrap();
        assert!((0..a.len()).all(|i| c[i] == a[i] + b[i]));
    }
    assert_eq!(device.sim.launches(), 3);
    assert_eq!(device.sim.launches_of("add"), 3);
    assert_eq!(device.sim.launches_of("transpose"), 0);
}

#[test]
fn barriers_shuffles_and_shared_memory_work_under_32_schedules() {
    let device = device();
    let module = device.module(KERNELS, &[]);
    let (sums, transpose) = (
        module.load_function("partial_sums").unwrap(),
        module.load_function("transpose").unwrap(),
    );
    let x = numbers(3500, 1, 1.0);
    let want: f64 = x.iter().map(|&v| f64::from(v)).sum();
    for seed in crate::common::schedules() {
        device.sim.set_seed(seed);
        let dx = device.stream.clone_htod(&x).unwrap();
        // SAFETY: the kernel writes every element.
        let mut parts = unsafe { device.stream.alloc::<f32>(8) }.unwrap();
        launch!(
            device.stream,
            sums,
            grid(8, 256, 0),
            &dx,
            &mut parts,
            &3500_i32
        )
        .unwrap();
        let sum: f32 = device.stream.clone_dtoh(&parts).unwrap().iter().sum();
        assert!(
            (f64::from(sum) - want).abs() < 1e-3,
            "seed {seed}: {sum} instead of {want}"
        );

        // SAFETY: the kernel writes every element.
        let mut dy = unsafe { device.stream.alloc::<f32>(3500) }.unwrap();
        let tiles = LaunchConfig {
            grid_dim: (5, 4, 1),
            block_dim: (16, 16, 1),
            shared_mem_bytes: 16 * 17 * 4,
        };
        launch!(
            device.stream,
            transpose,
            tiles,
            &dx,
            &mut dy,
            &50_i32,
            &70_i32
        )
        .unwrap();
        let y = device.stream.clone_dtoh(&dy).unwrap();
        assert!(
            (0..50).all(|r| (0..70).all(|c| y[c * 50 + r] == x[r * 70 + c])),
            "seed {seed}"
        );
    }
}

#[test]
fn arguments_arrive_with_their_types() {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Pair(i64, i16);
    // SAFETY: the kernel's `Pair` has this layout.
    unsafe impl cudarc::driver::DeviceRepr for Pair {}

    let device = device();
    let scalars = device.function(KERNELS, &[], "scalars");
    let mut out = device.stream.alloc_zeros::<f64>(7).unwrap();
    let (a, b, c, d, e, p) = (
        -5_i8,
        65_535_u16,
        1.5_f32,
        -0.1_f64,
        1_i64 << 40,
        Pair(-7, -8),
    );
    launch!(
        device.stream,
        scalars,
        grid(1, 1, 0),
        &mut out,
        &a,
        &b,
        &c,
        &d,
        &e,
        &p
    )
    .unwrap();
    let want = [-5.0, 65_535.0, 1.5, -0.1, (1_i64 << 40) as f64, -7.0, -8.0];
    assert_eq!(device.stream.clone_dtoh(&out).unwrap(), want);
}

#[test]
fn globals_of_a_module_can_be_read_and_written() {
    let device = device();
    let module = device.module(KERNELS, &[]);
    let scale = module.load_function("scale").unwrap();
    let mut factors = module.get_global("factors", &device.stream).unwrap();
    assert_eq!(factors.len(), 16);
    let bytes: Vec<u8> = [1_f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|v| v.to_ne_bytes())
        .collect();
    device.stream.memcpy_htod(&bytes, &mut factors).unwrap();
    let mut x = device.stream.clone_htod(&[1_f32; 10]).unwrap();
    launch!(device.stream, scale, grid(2, 8, 0), &mut x, &10_i32).unwrap();
    assert_eq!(
        device.stream.clone_dtoh(&x).unwrap(),
        [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0, 1.0, 2.0]
    );
    let counter = module.get_global("counter", &device.stream).unwrap();
    assert_eq!(
        device.stream.clone_dtoh(&counter).unwrap(),
        10_i32.to_ne_bytes()
    );
    assert!(module.get_global("nothing", &device.stream).is_err());
}

#[test]
fn new_memory_is_poisoned_and_freed_memory_is_returned() {
    let device = device();
    let before = device.sim.used_memory();
    // SAFETY: reading memory that was never written is the purpose of this test.
    let fresh = unsafe { device.stream.alloc::<f32>(1000) }.unwrap();
    assert!(
        device
            .stream
            .clone_dtoh(&fresh)
            .unwrap()
            .iter()
            .all(|v| v.is_nan())
    );
    assert_eq!(device.sim.used_memory() - before, 4000);
    drop(fresh);
    device.stream.synchronize().unwrap();
    assert_eq!(device.sim.used_memory(), before);
}

#[test]
fn out_of_memory_is_a_recoverable_error() {
    let device = device_with(|sim| sim.set_memory_limit(1 << 20));
    let (free, total) = result::mem_get_info().unwrap();
    assert_eq!((free, total), (1 << 20, 1 << 20));
    let half = device.stream.alloc_zeros::<u8>(600 << 10).unwrap();
    let error = device.stream.alloc_zeros::<u8>(600 << 10).unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    // A queued free counts: an allocation waits for it.
    drop(half);
    let other = device.stream.alloc_zeros::<u8>(600 << 10).unwrap();
    assert!(
        device
            .stream
            .clone_dtoh(&other)
            .unwrap()
            .iter()
            .all(|&v| v == 0)
    );
}

#[test]
fn devices_beyond_the_count_do_not_exist() {
    let device = device();
    let code = |ordinal| CudaContext::new(ordinal).err().map(|error| error.0);
    assert_eq!(code(1), Some(CUresult::CUDA_ERROR_INVALID_DEVICE));
    device.sim.set_device_count(2);
    assert_eq!(code(1), None);
    assert_eq!(CudaContext::device_count().unwrap(), 2);
    device.sim.set_device_count(0);
    assert_eq!(code(0), Some(CUresult::CUDA_ERROR_NO_DEVICE));
}

#[test]
fn a_thread_without_a_context_is_rejected() {
    let device = device();
    let pointer = device.stream.alloc_zeros::<u8>(1).unwrap();
    let address = pointer.device_ptr(&device.stream).0;
    let code = std::thread::spawn(move || {
        // SAFETY: the address points to device memory of this size.
        unsafe { result::memset_d8_sync(address, 1, 1) }
            .err()
            .map(|error| error.0)
    });
    assert_eq!(
        code.join().unwrap(),
        Some(CUresult::CUDA_ERROR_INVALID_CONTEXT)
    );
}

#[test]
fn binaries_run_only_on_their_compute_capability() {
    let device = device_with(|sim| sim.set_compute_capability(80));
    assert_eq!(device.context.compute_capability().unwrap(), (8, 0));
    let load = |ptx| device.context.load_module(ptx).err().map(|error| error.0);
    let newer = Ptx::from_binary(compile(KERNELS, &[]).unwrap());
    assert_eq!(load(newer), Some(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU));
    let options = |arch| CompileOptions {
        arch: Some(arch),
        include_paths: vec![kernels_folder()],
        ..Default::default()
    };
    let old = compile_ptx_with_opts("extern \"C\" __global__ void f() {}", options("compute_75"))
        .unwrap();
    assert_eq!(load(old), None);
}

#[test]
fn modules_of_another_build_are_rejected() {
    let device = device();
    let image = compile(KERNELS, &[]).unwrap();
    let text = String::from_utf8(image).unwrap();
    let name = device.context.name().unwrap();
    let build = name.rsplit(' ').next().unwrap();
    let other = text.replace(build, "0000000000000000");
    assert_ne!(text, other);
    let error = device
        .context
        .load_module(Ptx::from_binary(other.into_bytes()))
        .unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_IMAGE);
    assert!(device.sim.last_report().contains(build));
    let error = device
        .context
        .load_module(Ptx::from_src(".version 9.0"))
        .unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_INVALID_IMAGE);
}

/// Several processes share one folder of compiled kernels; each process runs this test again.
#[test]
fn several_processes_can_compile_the_same_kernel() {
    const TAG: &str = "CUDASIM_TEST_TAG";
    if let Ok(tag) = std::env::var(TAG) {
        let device = device();
        let add = device.function(KERNELS, &[&format!("TAG={tag}")], "add");
        let mut x = device.stream.clone_htod(&[1_f32; 8]).unwrap();
        let y = device.stream.clone_htod(&[2_f32; 8]).unwrap();
        let n = 8_i32;
        launch!(device.stream, add, grid(1, 8, 0), &y, &y, &mut x, &n).unwrap();
        assert_eq!(device.stream.clone_dtoh(&x).unwrap(), [4.0; 8]);
        return;
    }
    // A tag that has never been compiled before.
    let tag = std::process::id().to_string();
    let name = "basics::several_processes_can_compile_the_same_kernel";
    let start = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command
            .args([name, "--exact"])
            .env(TAG, &tag)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

fn kernels_folder() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../backend-cuda/kernels").to_owned()
}

#[test]
fn invalid_launches_are_rejected() {
    let device = device();
    let module = device.module(KERNELS, &[]);
    let sums = module.load_function("partial_sums").unwrap();
    let x = device.stream.alloc_zeros::<f32>(1).unwrap();
    let code = |config| {
        launch!(device.stream, sums, config, &x, &x, &0_i32)
            .err()
            .map(|error| error.0)
    };
    assert_eq!(
        code(grid(0, 1, 0)),
        Some(CUresult::CUDA_ERROR_INVALID_VALUE)
    );
    assert_eq!(
        code(grid(1, 2048, 0)),
        Some(CUresult::CUDA_ERROR_INVALID_VALUE)
    );
    // More threads than `__launch_bounds__` allows.
    assert_eq!(
        code(grid(1, 512, 0)),
        Some(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES)
    );
    assert_eq!(
        code(grid(1, 32, 100 << 10)),
        Some(CUresult::CUDA_ERROR_INVALID_VALUE)
    );
    let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    sums.set_attribute(attribute, 100 << 10).unwrap();
    assert_eq!(code(grid(1, 32, 100 << 10)), None);
    assert!(sums.set_attribute(attribute, 300 << 10).is_err());
    assert!(module.load_function("warp_sum").is_err());
    // None of these errors poisons the context.
    device.stream.synchronize().unwrap();
}

#[test]
fn compile_errors_have_a_log() {
    cudasim::install().unwrap();
    let log = compile(
        "extern \"C\" __global__ void f(float* x) {\n  x[0] = nonsense;\n}",
        &[],
    )
    .unwrap_err();
    assert!(
        log.contains("kernel.cu:2") && log.contains("nonsense"),
        "{log}"
    );
    let log = compile(
        "extern \"C\" __global__ void f() {\n\n  __shared__ int a, b;\n}",
        &[],
    )
    .unwrap_err();
    assert!(log.contains("kernel.cu(3)"), "{log}");
    let log = compile("", &["--no-such-option".to_owned()]).unwrap_err();
    assert!(log.contains("--no-such-option"), "{log}");
    let log = compile("#include \"other.cuh\"", &[]).unwrap_err();
    assert!(log.contains("other.cuh"), "{log}");
}
