//! Inference with weights of bfloat16 numbers or 8-bit integers: the results are near the exact
//! ones, and only change on request.

use backend_api::{DType, Meta, Precision, Result, Shape, Tensor};
use backend_cpu::Cpu;
use recurrent_tests::cells::{plain, wrapped};
use rnn_core::{
    AnyCell, DynamicRnn, GruCell, Initializer, LstmCell, Mode, Module, StreamingRnn,
    cell_from_config,
};
use rnn_train::{Autodiff, value_and_grad};

const ROUNDED: [Precision; 2] = [Precision::Bf16, Precision::Int8];

/// The exact device and the one with rounded matmuls.
fn devices(threads: usize, precision: Precision) -> [Cpu; 2] {
    let builder = Cpu::builder().threads(threads);
    [builder, builder.precision(precision)].map(|builder| builder.build().unwrap())
}

fn inputs(device: &Cpu, dtype: DType) -> Result<Tensor<Cpu>> {
    let meta = Meta::new(Shape::new(&[30, 5, 20])?, dtype);
    Initializer::Normal {
        mean: 0.0,
        std: 1.0,
    }
    .tensor(device, 5, meta)
}

fn outputs(device: &Cpu, dtype: DType, mode: Mode) -> Result<Vec<f64>> {
    let mut cell = LstmCell::<Cpu>::builder(20, 70)
        .num_proj(33)
        .dtype(dtype)
        .build(device)?;
    cell.initialize(1)?;
    let mut gru = GruCell::<Cpu>::builder(33, 50).dtype(dtype).build(device)?;
    gru.initialize(2)?;
    let run = DynamicRnn::new(&cell)
        .time_major(true)
        .sequence_length(&[30, 1, 17, 0, 30]);
    let first = run.mode(mode).run(&inputs(device, dtype)?)?.outputs;
    DynamicRnn::new(&gru)
        .time_major(true)
        .mode(mode)
        .run(&first)?
        .outputs
        .to_f64_vec()
}

#[test]
fn outputs_are_close_for_every_thread_count() {
    for (precision, tolerance) in ROUNDED.into_iter().zip([0.02, 0.04]) {
        let mut seen: Option<Vec<f64>> = None;
        for threads in [1, 2, 3] {
            let [exact, rounded] = devices(threads, precision);
            let expected = outputs(&exact, DType::F32, Mode::Evaluation).unwrap();
            let found = outputs(&rounded, DType::F32, Mode::Evaluation).unwrap();
            let error = expected
                .iter()
                .zip(&found)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(error < tolerance, "{precision}: {error}");
            // Without a rounding error the option would have no effect.
            assert!(error > 1e-5, "{precision}: {error}");
            assert_eq!(
                *seen.get_or_insert(found.clone()),
                found,
                "{precision}, {threads} threads"
            );
            let doubles = |cpu| outputs(cpu, DType::F64, Mode::Evaluation).unwrap();
            assert_eq!(
                doubles(&exact),
                doubles(&rounded),
                "doubles are never rounded"
            );
        }
    }
}

/// Cells whose steps have no product with weights, or run as operations of their own.
const EXACT: [&str; 6] = [
    "GLSTMCell",
    "Conv1DLSTMCell",
    "Conv2DLSTMCell",
    "ConvLSTMCell",
    "Conv3DLSTMCell",
    "AttentionCellWrapper",
];

#[test]
fn the_weights_of_every_cell_are_rounded() {
    let cases = [plain(), wrapped()].concat();
    for (precision, tolerance) in ROUNDED.into_iter().zip([0.02, 0.04]) {
        let devices = devices(1, precision);
        // Few rows, and as many as have other instructions on some CPUs.
        for batch in [2, 5] {
            let mut same = Vec::new();
            for case in &cases {
                if case.ids.is_some() {
                    continue;
                }
                let [expected, found] = [0, 1].map(|i| {
                    let (device, depth) = (&devices[i], case.depth());
                    let cell = cell_from_config(device, &case.config, depth, DType::F32);
                    let mut cell: AnyCell<Cpu> = cell.unwrap();
                    cell.initialize(4).unwrap();
                    let shape = [&[batch, 3], &case.input[..]].concat();
                    let meta = Meta::new(Shape::new(&shape).unwrap(), DType::F32);
                    let x = Initializer::Normal {
                        mean: 0.0,
                        std: 1.0,
                    };
                    let x = x.tensor(device, 5, meta).unwrap();
                    let run = DynamicRnn::new(&cell).run(&x);
                    let run = run.unwrap_or_else(|e| panic!("{}: {e}", case.config));
                    run.outputs.to_f64_vec().unwrap()
                });
                let size = expected.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
                let pairs = expected.iter().zip(&found);
                let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(
                    error < tolerance * size,
                    "{precision} {}: {error}",
                    case.config
                );
                if error == 0.0 {
                    same.push(case.config["type"].as_str().unwrap());
                }
            }
            same.dedup();
            assert_eq!(same, EXACT, "{precision}, {batch} rows");
        }
    }
}

#[test]
fn training_stays_exact() {
    let [exact, bf16] = devices(2, Precision::Bf16);
    let [_, int8] = devices(2, Precision::Int8);
    let [exact, bf16, int8] = [exact, bf16, int8].map(|cpu| {
        let device = Autodiff::new(cpu);
        let mut cell = LstmCell::<Autodiff<Cpu>>::builder(20, 40)
            .build(&device)
            .unwrap();
        cell.initialize(1).unwrap();
        let numbers: Vec<f32> = (0..6 * 4 * 20).map(|i| (i as f32 * 0.7).sin()).collect();
        let x = Tensor::from_slice(&device, &numbers, &[6, 4, 20]).unwrap();
        let (loss, grads) = value_and_grad(&cell, |cell| {
            let rnn = DynamicRnn::new(cell).time_major(true).training(0);
            rnn.run(&x)?.outputs.square()?.sum_all()
        })
        .unwrap();
        let mut all = vec![loss.to_bytes().unwrap()];
        for (_, grad) in grads.iter() {
            all.push(grad.unwrap().to_dense().unwrap().to_bytes().unwrap());
        }
        all
    });
    assert_eq!(exact, bf16);
    assert_eq!(exact, int8);
}

/// Streams of few rows read the weights in another form than whole sequences.
#[test]
fn streaming_gives_the_same_bits() {
    for precision in ROUNDED {
        let [_, device] = devices(2, precision);
        let mut cell = LstmCell::<Cpu>::builder(20, 130).build(&device).unwrap();
        cell.initialize(1).unwrap();
        let all = inputs(&device, DType::F32).unwrap();
        for rows in [1, 2, 5] {
            let x = all.slice(1, 0..rows).unwrap();
            let whole = DynamicRnn::new(&cell).time_major(true).run(&x).unwrap();
            let mut stream = StreamingRnn::new(&cell, rows).unwrap();
            for t in 0..30 {
                let output = stream.step(&x.select(0, t).unwrap()).unwrap();
                let expected = whole.outputs.select(0, t).unwrap();
                assert_eq!(
                    output.to_bytes().unwrap(),
                    expected.to_bytes().unwrap(),
                    "{precision}, {rows} rows, step {t}"
                );
            }
        }
    }
}

#[test]
fn unsupported_precisions_are_rejected() {
    let error = Cpu::builder()
        .precision(Precision::Tf32)
        .build()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("tf32") && error.contains("support exact, bf16 and int8 matmuls"),
        "{error}"
    );
}
