//! The device itself: threads, memory, writing in place, conversions.

use crate::common::{Plain, Rng, call, check, random, scattered, tensor};
use backend_api::{
    Activation, Backend, DType, Dest, Dests, Fused, Layout, LstmGates, Op, Precision, Shape, Tensor,
};
use backend_cpu::{Cpu, CpuBuffer};

fn cpu(threads: usize) -> Cpu {
    Cpu::builder().threads(threads).build().unwrap()
}

#[test]
fn threads_name_and_identity_of_a_device() {
    assert!(Cpu::builder().threads(0).build().is_err());
    let (a, b) = (cpu(1), cpu(2));
    assert!(a.same_device(&a.clone()) && !a.same_device(&b));
    assert_eq!((a.threads(), b.threads()), (1, 2));
    assert_eq!(a.name(), "cpu");
    assert!(Cpu::new().threads() >= 1);
    assert!(format!("{a:?}").contains("threads: 1"));
}

/// The results of operations that are split over threads, at sizes that are large enough for that.
fn large_results(cpu: &Cpu) -> Vec<Vec<u8>> {
    let rng = &mut Rng::new(42);
    let mut new = |dims: &[usize]| random(cpu, rng, dims, DType::F32).0;
    let x = new(&[300, 700]);
    let y = new(&[300, 700]);
    let bias = new(&[700]);
    let weights = new(&[700, 400]);
    let row = new(&[1, 700]);
    let batch = new(&[40, 60, 70]);
    let batch_b = new(&[40, 70, 50]);
    let z = new(&[300, 2800]);
    let ids: Vec<i32> = (0..5000).map(|i| i * 7919 % 300).collect();
    let ids = Tensor::from_slice(cpu, &ids, &[5000]).unwrap();
    let product = Op::MatMul {
        alpha: 1.0,
        precision: Precision::Exact,
    };
    let lstm = Fused::LstmStep(LstmGates {
        recurrent_activation: Activation::Sigmoid,
        forget_bias: 1.0,
        activation: Default::default(),
    });
    let mut results = vec![
        x.tanh().unwrap(),
        x.add(&bias).unwrap(),
        x.transpose(0, 1)
            .unwrap()
            .add(y.transpose(0, 1).unwrap())
            .unwrap(),
        x.sum(0).unwrap(),
        x.sum(1).unwrap(),
        x.sum_all().unwrap(),
        x.argmax(1).unwrap(),
        x.matmul(&weights).unwrap(),
        row.matmul(&weights).unwrap(),
        row.matmul(
            &weights
                .transpose(0, 1)
                .unwrap()
                .copy()
                .unwrap()
                .transpose(0, 1)
                .unwrap(),
        )
        .unwrap(),
        batch.matmul(&batch_b).unwrap(),
        x.gather(&ids).unwrap(),
        Tensor::concat(&[&x, &y], 1).unwrap(),
        x.fused(Fused::SquaredNorm, &[&y]).unwrap(),
        x.fused(Fused::Sgd { lr: 0.1 }, &[&y]).unwrap(),
    ];
    results.extend(call(cpu, &product, &[&batch, &batch_b]).unwrap());
    results.extend(call(cpu, &Op::Fused(lstm), &[&z, &x]).unwrap());
    let rows = x.gather(&ids).unwrap();
    results.extend(call(cpu, &Op::ScatterAdd { rows: 300 }, &[&ids, &rows]).unwrap());
    results.push(
        x.scatter_update(&ids, &rows.affine(2.0, 0.0).unwrap())
            .unwrap(),
    );
    results.iter().map(|t| t.to_bytes().unwrap()).collect()
}

#[test]
fn thread_count_does_not_change_bits() {
    let alone = large_results(&cpu(1));
    for threads in [2, 3, 5] {
        let together = large_results(&cpu(threads));
        for (i, (a, b)) in alone.iter().zip(&together).enumerate() {
            assert!(a == b, "result {i} with {threads} threads");
        }
    }
}

#[test]
fn accumulation_adds_into_a_layout() {
    for threads in [1, 3] {
        let cpu = cpu(threads);
        for seed in 0..60 {
            let rng = &mut Rng::new(seed + 1);
            let rank = rng.below(5);
            let dims = rng.dims(rank);
            for dtype in [DType::F32, DType::F64] {
                let (at, count) = scattered(rng, &dims);
                let start = Plain::build(&[count], |_| f64::from(rng.number() as f32));
                let (src, plain) = random(&cpu, rng, &dims, dtype);
                let mut expected = start.clone();
                crate::common::each_index(&dims, |index| {
                    let element: usize = index.iter().zip(at.strides()).map(|(i, s)| i * s).sum();
                    expected.data[at.offset() + element] += plain.at(index);
                });
                let dst = tensor(&cpu, &start, dtype);
                let kept = dst.clone();
                let layout = *dst.layout();
                // A shared buffer is copied; an unshared one is modified in place.
                let sum = cpu
                    .accumulate(dst.into_buffer().unwrap(), &at, src.view().unwrap())
                    .unwrap();
                check("kept", &kept, &start, 0.0);
                let sum = Tensor::from_parts(&cpu, sum, layout, dtype).unwrap();
                check(
                    "accumulate",
                    &sum,
                    &expected,
                    crate::common::tolerance(dtype),
                );
                let before = cpu.memory();
                let twice = cpu
                    .accumulate(sum.into_buffer().unwrap(), &at, src.view().unwrap())
                    .unwrap();
                let twice = Tensor::from_parts(&cpu, twice, layout, dtype).unwrap();
                for (e, s) in expected.data.iter_mut().zip(&start.data) {
                    *e += *e - s;
                }
                check(
                    "twice",
                    &twice,
                    &expected,
                    2.0 * crate::common::tolerance(dtype),
                );
                drop(twice);
                drop((kept, src));
                assert!(cpu.memory().in_use <= before.in_use);
            }
        }
    }
}

#[test]
fn results_are_written_in_place() {
    let cpu = cpu(1);
    let sequence = Tensor::from_slice(&cpu, &[0.0f32; 12], &[4, 3]).unwrap();
    let row = Tensor::from_slice(&cpu, &[1.0f32, 2.0, 3.0], &[3]).unwrap();
    let layout = *sequence.layout();
    let into = |buffer: CpuBuffer, t: usize| -> Dests<CpuBuffer> {
        let at = layout.select(0, t).unwrap();
        [Dest::Into(Box::new((buffer, at)))].into_iter().collect()
    };
    let taken = cpu.memory();
    let mut buffer = sequence.into_buffer().unwrap();
    for t in 0..4 {
        let mut outs = cpu
            .run(&Op::Copy, &[row.view().unwrap()], into(buffer, t))
            .unwrap();
        buffer = outs.swap_remove(0);
    }
    assert_eq!(cpu.memory().peak, taken.peak, "no copy was made");
    let written = Tensor::from_parts(&cpu, buffer, layout, DType::F32).unwrap();
    assert_eq!(written.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0].repeat(4));

    // The destination is also an operand: it is read unchanged and written to a copy.
    let first = written.select(0, 0).unwrap();
    let double = Op::Affine { mul: 2.0, add: 0.0 };
    let buffer = written.into_buffer().unwrap();
    let outs = cpu
        .run(&double, &[first.view().unwrap()], into(buffer, 0))
        .unwrap();
    assert_eq!(first.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
    let doubled = Tensor::from_parts(&cpu, outs[0].clone(), layout, DType::F32).unwrap();
    let expected = [2.0, 4.0, 6.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0];
    assert_eq!(doubled.to_vec::<f32>().unwrap(), expected);
}

#[test]
fn steady_state_makes_no_system_allocations() {
    for threads in [1, 2] {
        let cpu = cpu(threads);
        large_results(&cpu);
        let after_one = cpu.memory();
        assert_eq!(after_one.in_use, 0, "everything was dropped");
        for _ in 0..3 {
            large_results(&cpu);
        }
        let memory = cpu.memory();
        assert_eq!(memory.system_allocations, after_one.system_allocations);
        assert_eq!((memory.in_use, memory.peak), (0, after_one.peak));
    }
}

#[test]
fn memory_counts_live_buffers() {
    let cpu = cpu(1);
    let meta = backend_api::Meta::new(Shape::new(&[1000]).unwrap(), DType::F64);
    let x = Tensor::zeros(&cpu, meta).unwrap();
    let held = cpu.memory().in_use;
    assert!((8000..=10_000).contains(&held));
    let view = x.slice(0, 0..10).unwrap();
    drop(x);
    assert_eq!(cpu.memory().in_use, held, "a view holds its buffer");
    drop(view);
    let memory = cpu.memory();
    assert_eq!((memory.in_use, memory.pooled, memory.peak), (0, held, held));
    let too_much = backend_api::Meta::new(Shape::new(&[1 << 59]).unwrap(), DType::U8);
    assert!(matches!(
        Tensor::zeros(&cpu, too_much),
        Err(backend_api::Error::OutOfMemory { .. })
    ));
    assert_eq!(cpu.memory().in_use, 0);
}

#[test]
fn threads_can_share_a_device() {
    let cpu = cpu(2);
    let expected = large_results(&cpu);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert!(large_results(&cpu) == expected);
                }
            });
        }
    });
    assert_eq!(cpu.memory().in_use, 0);
}

#[test]
fn swapping_copies_nothing() {
    let cpu = cpu(1);
    let x = Tensor::from_slice(&cpu, &[1i64, 2], &[2]).unwrap();
    let layout = *x.layout();
    let before = cpu.memory();
    let swapped = cpu.swap_out(x.into_buffer().unwrap()).unwrap();
    let back = cpu.swap_in(swapped).unwrap();
    cpu.synchronize().unwrap();
    assert_eq!(cpu.memory(), before);
    let back = Tensor::from_parts(&cpu, back, layout, DType::I64).unwrap();
    assert_eq!(back.to_vec::<i64>().unwrap(), [1, 2]);
}

#[test]
fn an_empty_view_can_be_read() {
    let cpu = cpu(1);
    let x = Tensor::from_slice(&cpu, &[1.0f32; 6], &[2, 3]).unwrap();
    let nothing = x.slice(0, 2..2).unwrap().slice(1, 3..3).unwrap();
    assert_eq!(nothing.copy().unwrap().to_vec::<f32>().unwrap(), []);
    assert_eq!(nothing.tanh().unwrap().to_vec::<f32>().unwrap(), []);
    let buffer = x.clone().into_buffer().unwrap();
    let layout = Layout::contiguous(x.shape()).slice(0, 2..2).unwrap();
    let sum = cpu
        .accumulate(buffer, &layout, x.slice(0, 2..2).unwrap().view().unwrap())
        .unwrap();
    drop(sum);
}
