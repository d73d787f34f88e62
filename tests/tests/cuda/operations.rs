//! Operations that the CUDA backend splits in its own ways: every split gives the CPU's result,
//! with the same bits each time.

use backend_api::{DType, Element, Error, Op, Result, Tensor};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use cudasim::Exclusive;
use recurrent_tests::devices::{TestBackend, simulator};

fn cuda() -> (Option<Exclusive<'static>>, Cuda) {
    let sim = simulator();
    (sim, Cuda::new(0).unwrap())
}

/// The results of an operation on the CPU and on the device.
fn both<T: Element>(
    device: &Cuda,
    data: &[f64],
    dims: &[usize],
    to: DType,
    f: impl Fn(Tensor<TestBackend>) -> Result<Tensor<TestBackend>>,
) -> (Vec<T>, Vec<T>) {
    let on = |device: TestBackend| {
        let x = Tensor::from_slice(&device, data, dims)?.cast(to)?;
        f(x)?.to_vec::<T>()
    };
    (
        on(TestBackend::Cpu(Cpu::new())).unwrap(),
        on(TestBackend::Cuda(device.clone())).unwrap(),
    )
}

#[test]
fn reductions_of_all_shapes_are_correct_and_deterministic() {
    let (sim, device) = cuda();
    // One thread per result, one block, several blocks; along rows and along columns; no elements.
    for (dims, axis) in [
        (vec![3, 5], 1),
        (vec![3, 300], 1),
        (vec![2, 9001], 1),
        (vec![9001], 0),
        (vec![9001, 3], 0),
        (vec![700, 40], 0),
        (vec![2, 130, 33], 1),
        (vec![1500, 16], 0),
        (vec![0, 40], 0),
        (vec![70, 0], 0),
    ] {
        let count = dims.iter().product();
        let data: Vec<f64> = (0..count)
            .map(|i: usize| ((i * 7919) % 1013) as f64 - 506.0)
            .collect();
        let sum = |x: Tensor<TestBackend>| x.sum(axis);
        let max = |x: Tensor<TestBackend>| x.max(axis);
        let mut last = None;
        for seed in 0..if sim.is_some() { 4 } else { 2 } {
            if let Some(sim) = &sim {
                sim.set_seed(seed);
            }
            // Sums of whole numbers are exact; fractions reveal the order of summation.
            let (expected, got) = both::<f32>(&device, &data, &dims, DType::F32, sum);
            assert_eq!(got, expected, "sum of {dims:?} along {axis}");
            let (expected, got) = both::<i64>(&device, &data, &dims, DType::I64, sum);
            assert_eq!(got, expected, "sum of {dims:?} along {axis}");
            let thirds: Vec<f64> = data.iter().map(|x| x / 3.0).collect();
            let (_, got) = both::<f64>(&device, &thirds, &dims, DType::F64, sum);
            assert_eq!(last.replace(got.clone()).unwrap_or(got.clone()), got);
            if dims[axis] > 0 {
                let (expected, got) = both::<f32>(&device, &data, &dims, DType::F32, max);
                assert_eq!(got, expected, "max of {dims:?} along {axis}");
                let (expected, got) = both::<u8>(&device, &data, &dims, DType::U8, max);
                assert_eq!(got, expected, "max of {dims:?} along {axis}");
                let argmax = |x: Tensor<TestBackend>| x.argmax(axis);
                let (expected, got) = both::<i64>(&device, &data, &dims, DType::F32, argmax);
                assert_eq!(got, expected, "argmax of {dims:?} along {axis}");
            }
        }
    }
}

#[test]
fn max_propagates_nan_and_argmax_ignores_it() {
    let (_sim, device) = cuda();
    for n in [7, 600] {
        let mut data = vec![-1.0; 2 * n];
        data[3] = f64::NAN;
        data[n + 2] = f64::NAN;
        data[n + 4] = 5.0;
        data[2 * n - 1] = 5.0;
        let max = |x: Tensor<TestBackend>| x.max(1);
        let (_, got) = both::<f32>(&device, &data, &[2, n], DType::F32, max);
        assert!(got.iter().all(|x| x.is_nan()), "{got:?}");
        let argmax = |x: Tensor<TestBackend>| x.argmax(1);
        let (expected, got) = both::<i64>(&device, &data, &[2, n], DType::F32, argmax);
        assert_eq!((&got, got[1]), (&expected, 4));
        let nothing = vec![f64::NAN; n];
        let (expected, got) = both::<i64>(&device, &nothing, &[1, n], DType::F32, argmax);
        assert_eq!((&got, got[0]), (&expected, 0));
    }
}

#[test]
fn rows_of_equal_ids_are_added_in_order() {
    let (sim, device) = cuda();
    // Several sections of ids; some ids are very frequent, some never occur.
    let ids: Vec<i64> = (0..700).map(|i: i64| (i * i) % 37 % 23).collect();
    let values: Vec<f64> = (0..1400).map(|i| 1.0 / f64::from(i + 1)).collect();
    let run = |device: TestBackend| {
        let ids = Tensor::from_slice(&device, &ids, &[700])?;
        let rows = Tensor::from_slice(&device, &values, &[700, 2])?;
        let table = Tensor::from_slice(&device, &[7.0; 60], &[30, 2])?;
        let mut numbers =
            Tensor::call(&device, &Op::ScatterAdd { rows: 30 }, &[&ids, &rows])?.to_vec::<f64>()?;
        numbers.extend(table.scatter_update(&ids, &rows)?.to_vec::<f64>()?);
        Ok::<_, Error>(numbers)
    };
    let expected = run(TestBackend::Cpu(Cpu::new())).unwrap();
    for seed in 0..if sim.is_some() { 8 } else { 2 } {
        if let Some(sim) = &sim {
            sim.set_seed(seed);
        }
        // Bit for bit, because the ids determine the order of summation.
        assert_eq!(
            run(TestBackend::Cuda(device.clone())).unwrap(),
            expected,
            "seed {seed}"
        );
    }
}

#[test]
fn the_position_of_an_invalid_index_is_that_in_the_view() {
    let (_sim, device) = cuda();
    let table = Tensor::from_slice(&device, &[1.0f32; 6], &[3, 2]).unwrap();
    let ids = Tensor::from_slice(&device, &[9i64, 0, 1, 9, 2, 5], &[3, 2]).unwrap();
    let column = ids.slice(1, 0..1).unwrap().slice(0, 1..3).unwrap();
    assert_eq!(
        table.gather(&column).unwrap().to_vec::<f32>().unwrap(),
        [1.0; 4]
    );
    let column = ids.slice(1, 1..2).unwrap();
    let error = table.gather(&column).and_then(|t| t.to_vec::<f32>());
    assert_eq!(
        error.unwrap_err().to_string(),
        "gather: ids has 9 at index 1, but must be in 0..=2"
    );
    let x = Tensor::from_slice(&device, &[1.0f32; 6], &[3, 2]).unwrap();
    let lengths = Tensor::from_slice(&device, &[9i64, 0, 4], &[3]).unwrap();
    let error = x
        .reverse(&lengths.slice(0, 1..3).unwrap(), 0, 1)
        .and_then(|t| t.to_vec::<f32>());
    assert_eq!(
        error.unwrap_err().to_string(),
        "reverse: lengths has 4 at index 1, but must be in 0..=3"
    );
}

#[test]
fn uploads_of_any_size_arrive() {
    let (_sim, device) = cuda();
    // Small enough to be staged in pinned memory, and too large for it.
    for count in [1, 1000, (17 << 20) / 4] {
        let data: Vec<i32> = (0..count).collect();
        let x = Tensor::from_slice(&device, &data, &[count as usize]).unwrap();
        drop(data);
        let back = x.to_vec::<i32>().unwrap();
        assert!(back.iter().zip(0..).all(|(a, b)| *a == b));
    }
}

#[test]
fn matmuls_accept_every_layout() {
    let (_sim, device) = cuda();
    let cpu = Cpu::new();
    let build = |dims: &[usize], order: &[usize]| {
        let count: usize = dims.iter().product();
        let data: Vec<f64> = (0..count)
            .map(|i| ((i * 31 + 7) % 23) as f64 - 11.0)
            .collect();
        let on = |b: &Cpu| {
            Tensor::from_slice(b, &data, dims)
                .unwrap()
                .permute(order)
                .unwrap()
        };
        let on_gpu = Tensor::from_slice(&device, &data, dims)
            .unwrap()
            .permute(order)
            .unwrap();
        (on(&cpu), on_gpu)
    };
    // `[2, 3, 4]` and `[2, 4, 5]` in several axis orders, and one right operand for all batches.
    for a in [
        ([2, 3, 4], [0, 1, 2]),
        ([2, 4, 3], [0, 2, 1]),
        ([3, 2, 4], [1, 0, 2]),
        ([4, 3, 2], [2, 1, 0]),
    ] {
        for b in [([2, 4, 5], [0, 1, 2]), ([5, 4, 2], [2, 1, 0])] {
            let ((a, a2), (b, b2)) = (build(&a.0, &a.1), build(&b.0, &b.1));
            let expected = a.matmul(&b).unwrap().to_vec::<f64>().unwrap();
            assert_eq!(a2.matmul(&b2).unwrap().to_vec::<f64>().unwrap(), expected);
            let expected = a
                .matmul(&b.select(0, 1).unwrap())
                .unwrap()
                .to_vec::<f64>()
                .unwrap();
            let got = a2.matmul(&b2.select(0, 1).unwrap()).unwrap();
            assert_eq!(got.to_vec::<f64>().unwrap(), expected);
        }
    }
}
