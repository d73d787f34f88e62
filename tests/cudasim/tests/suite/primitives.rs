//! The functions of `prim.cuh`, collectives and atomics, compared with plain implementations.

use crate::common::programs::{PRIMITIVES, pipeline_is_wrong};
use crate::common::{compile, device, grid, numbers, schedules};
use half::{bf16, f16};

#[test]
fn types_of_16_bits_widen_exactly() {
    let device = device();
    let widen = device.function(PRIMITIVES, &[], "widen");
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    let (n, count) = (bits.len(), bits.len() as i32);
    let dx = device.stream.clone_htod(&bits).unwrap();
    let (mut dh, mut db) = (
        device.stream.alloc_zeros::<f32>(n).unwrap(),
        device.stream.alloc_zeros::<f32>(n).unwrap(),
    );
    launch!(
        device.stream,
        widen,
        grid(256, 256, 0),
        &dx,
        &mut dh,
        &mut db,
        &count
    )
    .unwrap();
    let (h, b) = (
        device.stream.clone_dtoh(&dh).unwrap(),
        device.stream.clone_dtoh(&db).unwrap(),
    );
    let same =
        |got: f32, want: f32| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
    for (i, &x) in bits.iter().enumerate() {
        assert!(same(h[i], f16::from_bits(x).to_f32()), "half {x:#x}");
        assert!(same(b[i], bf16::from_bits(x).to_f32()), "bf16 {x:#x}");
    }
}

#[test]
fn floats_narrow_to_nearest_even() {
    let device = device();
    let narrow = device.function(PRIMITIVES, &[], "narrow");
    // All exponents, and mantissas around the ties of all three types.
    let mantissas = [
        0, 1, 0xfff, 0x1000, 0x1001, 0x1fff, 0x2000, 0x3000, 0x7fff, 0x8000, 0x8001, 0x1_8000,
        0x7f_ffff,
    ];
    let mut x: Vec<f32> = Vec::new();
    for sign in [0, 0x8000_0000] {
        for exponent in 0..256 {
            x.extend(mantissas.map(|m| f32::from_bits(sign | exponent << 23 | m)));
        }
    }
    let (n, count) = (x.len(), x.len() as i32);
    let dx = device.stream.clone_htod(&x).unwrap();
    let [mut dh, mut db] = [(); 2].map(|()| device.stream.alloc_zeros::<u16>(n).unwrap());
    let mut dt = device.stream.alloc_zeros::<u32>(n).unwrap();
    let config = grid(n.div_ceil(128) as u32, 128, 0);
    launch!(
        device.stream,
        narrow,
        config,
        &dx,
        &mut dh,
        &mut db,
        &mut dt,
        &count
    )
    .unwrap();
    let (h, b) = (
        device.stream.clone_dtoh(&dh).unwrap(),
        device.stream.clone_dtoh(&db).unwrap(),
    );
    let t = device.stream.clone_dtoh(&dt).unwrap();
    for (i, &v) in x.iter().enumerate() {
        let (got_h, got_b, got_t) = (
            f16::from_bits(h[i]),
            bf16::from_bits(b[i]),
            f32::from_bits(t[i]),
        );
        if v.is_nan() {
            assert!(
                got_h.is_nan() && got_b.is_nan() && got_t.is_nan(),
                "{:#x}",
                v.to_bits()
            );
            continue;
        }
        assert_eq!(
            got_h.to_bits(),
            f16::from_f32(v).to_bits(),
            "half of {:#x}",
            v.to_bits()
        );
        assert_eq!(
            got_b.to_bits(),
            bf16::from_f32(v).to_bits(),
            "bf16 of {:#x}",
            v.to_bits()
        );
        // The error is at most half a unit of the last of 10 bits.
        assert_eq!(t[i] & 0x1fff, 0);
        let step = f64::from(f32::from_bits((v.to_bits() & 0x7f80_0000).max(0x80_0000))) / 1024.0;
        let near = (f64::from(got_t) - f64::from(v)).abs() <= step / 2.0;
        assert!(
            v.is_infinite() && got_t == v || near || got_t.is_infinite(),
            "tf32 of {:#x}",
            v.to_bits()
        );
    }
}

#[test]
fn tensor_core_tiles_multiply() {
    let device = device();
    let tile = device.function(PRIMITIVES, &[], "tile");
    let (k, depth) = (64, 64_i32);
    let (a, b) = (numbers(16 * k, 1, 1.0), numbers(k * 8, 2, 1.0));
    let (da, db) = (
        device.stream.clone_htod(&a).unwrap(),
        device.stream.clone_htod(&b).unwrap(),
    );
    for (kind, limits) in [(0, 1e-5..1e-2), (1, 1e-3..1e-1), (2, 1e-5..1e-2)] {
        for seed in [0, 1, 2] {
            device.sim.set_seed(seed);
            let mut dc = device.stream.alloc_zeros::<f32>(128).unwrap();
            launch!(
                device.stream,
                tile,
                grid(1, 32, 0),
                &da,
                &db,
                &mut dc,
                &depth,
                &kind
            )
            .unwrap();
            let c = device.stream.clone_dtoh(&dc).unwrap();
            let want =
                |i: usize, j: usize| (0..k).map(|p| a[i * k + p] * b[p * 8 + j]).sum::<f32>();
            let error = (0..128)
                .map(|at| (c[at] - want(at / 8, at % 8)).abs())
                .fold(0.0, f32::max);
            assert!(limits.contains(&error), "kind {kind}: {error}");
        }
    }
}

#[test]
fn groups_of_asynchronous_copies_complete_in_order() {
    let device = device();
    let wrong = |defines: &[&str]| {
        let pipeline = device.function(PRIMITIVES, defines, "pipeline");
        let run = |&seed: &u64| {
            device.sim.set_seed(seed);
            pipeline_is_wrong(&device, &pipeline)
        };
        schedules().filter(run).count()
    };
    assert_eq!(wrong(&[]), 0);
    assert_eq!(wrong(&["BUG_WAITS_FOR_TOO_LITTLE"]), 32);
}

#[test]
fn shuffles_and_votes_in_all_forms() {
    let device = device();
    let collectives = device.function(PRIMITIVES, &[], "collectives");
    let lane = |form: usize, i: usize| match form {
        0 => 5,
        1 => i / 8 * 8 + (i + 1) % 8,
        2 => i.checked_sub(3).unwrap_or(i),
        3 => Some(i + 3).filter(|j| j / 16 == i / 16).unwrap_or(i),
        _ => i ^ 6,
    };
    for seed in schedules() {
        device.sim.set_seed(seed);
        let mut ints = device.stream.alloc_zeros::<i32>(160).unwrap();
        let mut doubles = device.stream.alloc_zeros::<f64>(160).unwrap();
        let mut longs = device.stream.alloc_zeros::<u64>(160).unwrap();
        let mut votes = device.stream.alloc_zeros::<u32>(256).unwrap();
        launch!(
            device.stream,
            collectives,
            grid(1, 32, 0),
            &mut ints,
            &mut doubles,
            &mut longs,
            &mut votes
        )
        .unwrap();
        let (ints, doubles) = (
            device.stream.clone_dtoh(&ints).unwrap(),
            device.stream.clone_dtoh(&doubles).unwrap(),
        );
        let (longs, votes) = (
            device.stream.clone_dtoh(&longs).unwrap(),
            device.stream.clone_dtoh(&votes).unwrap(),
        );
        for form in 0..5 {
            for i in 0..32 {
                let (at, from) = (form * 32 + i, lane(form, i));
                assert_eq!(ints[at], from as i32 * 3);
                assert_eq!(doubles[at], from as f64 * 0.5);
                assert_eq!(longs[at], (from as u64) << 40);
            }
        }
        let thirds = (0..32).filter(|i| i % 3 == 0).map(|i| 1 << i).sum::<u32>();
        for (row, want) in [thirds, 1, 1, 10, 1, 1].into_iter().enumerate() {
            assert!(
                votes[row * 32..][..32].iter().all(|&v| v == want),
                "row {row} of votes"
            );
        }
        assert!(votes[192..208].iter().all(|&v| v == 0xaaaa));
        assert!(votes[208..224].iter().all(|&v| v == 0xcccc_0000));
        assert!(
            votes[224..248].iter().all(|&v| v == 0x00ff_ffff)
                && votes[248..].iter().all(|&v| v == 0)
        );
    }
}

#[test]
fn atomics_add_up() {
    let device = device();
    let atomics = device.function(PRIMITIVES, &[], "atomics");
    let n = 4 * 50;
    for seed in [0, 1, 2, 3] {
        device.sim.set_seed(seed);
        let mut i = device.stream.alloc_zeros::<i32>(5).unwrap();
        let mut u = device.stream.alloc_zeros::<u32>(3).unwrap();
        let mut l = device.stream.alloc_zeros::<u64>(2).unwrap();
        let mut f = device.stream.alloc_zeros::<f32>(1).unwrap();
        let mut d = device.stream.alloc_zeros::<f64>(1).unwrap();
        launch!(
            device.stream,
            atomics,
            grid(4, 50, 0),
            &mut i,
            &mut u,
            &mut l,
            &mut f,
            &mut d
        )
        .unwrap();
        let sum = n * (n - 1) / 2;
        assert_eq!(
            device.stream.clone_dtoh(&i).unwrap(),
            [sum, n - 1, 1 - n, -2 * n, 77]
        );
        assert_eq!(
            device.stream.clone_dtoh(&u).unwrap(),
            [n as u32, u32::MAX, 0]
        );
        assert_eq!(
            device.stream.clone_dtoh(&l).unwrap(),
            [(n as u64) << 33, 3 * n as u64]
        );
        assert_eq!(device.stream.clone_dtoh(&f).unwrap(), [100.0]);
        assert_eq!(device.stream.clone_dtoh(&d).unwrap(), [50.0]);
    }
}

/// Functions that CUDA does not have must not compile here either.
#[test]
fn functions_that_cuda_lacks_do_not_compile() {
    cudasim::install().unwrap();
    let kernel = |body: &str| {
        compile(
            &format!("extern \"C\" __global__ void f(float* x, long long* l) {{ {body} }}"),
            &[],
        )
    };
    assert!(kernel("atomicAdd(x, 1.f);").is_ok());
    assert!(kernel("atomicMax(x, 1.f);").is_err());
    assert!(kernel("atomicAdd(l, 1ll);").is_err());
    assert!(kernel("uint32_t n = 0;").is_err());
    assert!(kernel("std::exp(x[0]);").is_err());
    assert!(compile("#include <cmath>\nextern \"C\" __global__ void f() {}", &[]).is_err());
}
