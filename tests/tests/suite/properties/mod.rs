//! Properties that hold for every cell, shape and length, tested on random ones. The seeds are
//! fixed, so every run tests the same cases.
mod cases;
mod under_test;
use std::cell::RefCell;

use self::cases::*;
use self::under_test::*;
use backend_api::{DType, MemoryPolicy, Meta, Result, Shape, Tensor, Unfused, philox};
use backend_cpu::Cpu;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use recurrent_tests::devices::{NAMES, TestBackend, TestDevice, device};
use rnn_core::cells::{
    BasicLstmCellBuilder, BasicRnnCellBuilder, GruCellBuilder, LstmCellBuilder, UgrnnCellBuilder,
};
use rnn_core::wrappers::{DropoutWrapperBuilder, MultiRnnCellConfig, ResidualWrapperConfig};
use rnn_core::{
    AnyCell, BidirectionalDynamicRnn, Cell, CellConfig, DynamicRnn, Initializer, Mode, Module,
    Nest, Param, StaticRnn, StepContext, Visitor, cell_from_config,
};
use rnn_train::checkpoint::{load_params, save_params};
use rnn_train::{Autodiff, value_and_grad};
use serde_json::{Value, json};
type T = Tensor<TestDevice>;
type Any = AnyCell<TestDevice>;
type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// Number of cases of a property; each runs on every device.
const CASES: u32 = 48;
/// Tolerance for another order of summation, relative to the largest number of a tensor.
const ROUNDING: f64 = 1e-12;
/// The seed of dropout.
const SEED: u64 = 5;

/// Runs `test` on `cases` values, which are the same in every run.
fn property<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Outcome) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let result = TestRunner::new_with_rng(config, rng).run(strategy, |value| {
        test(value).map_err(|e| TestCaseError::fail(e.to_string()))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Runs the property on every device.
fn on_devices<S>(strategy: &S, test: impl Fn(&TestDevice, &S::Value) -> Outcome)
where
    S: Strategy,
{
    let devices = NAMES.map(|name| (name, device(name).unwrap()));
    property(CASES, strategy, |value| {
        for (name, device) in &devices {
            test(device, &value).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    });
}

#[test]
fn ragged_rows_equal_separate_rows() {
    on_devices(&case(), |device, case| {
        let case = case.evaluation();
        let subject = case.build(device)?;
        let batch = measure(&subject, |s| s.driver(&case))?;
        close(&batch, &measure(&subject, |s| s.rows(&case))?, ROUNDING)
    });
}

#[test]
fn chunks_with_carried_state_equal_the_whole() {
    on_devices(&(case(), 1..=4usize), |device, (case, chunk)| {
        let subject = case.build(device)?;
        // The driver's own segments, with any memory policy.
        let whole = measure(&subject, |s| s.driver(case))?;
        for memory_policy in [
            MemoryPolicy::Store,
            MemoryPolicy::Recompute,
            MemoryPolicy::Offload,
        ] {
            let parts = measure(&subject, |s| {
                let rnn = s
                    .rnn(case)?
                    .memory_policy(memory_policy)
                    .segment_length(*chunk);
                let result = rnn.run(s.inputs.value())?;
                Ok((vec![result.outputs], owned(&result.state)))
            })?;
            close(&parts, &whole, ROUNDING).map_err(|e| format!("{memory_policy:?}: {e}"))?;
        }
        // Several runs. Each run starts its random numbers anew, so this needs evaluation mode.
        let case = case.evaluation();
        let whole = measure(&subject, |s| s.driver(&case))?;
        close(
            &measure(&subject, |s| s.chunked(&case, *chunk))?,
            &whole,
            ROUNDING,
        )
    });
}

#[test]
fn steps_equal_the_sequence() {
    on_devices(&case(), |device, case| {
        let subject = case.build(device)?;
        let sequence = measure(&subject, |s| s.driver(case))?;
        close(
            &measure(&subject, |s| s.stepped(case))?,
            &sequence,
            ROUNDING,
        )
    });
}

#[test]
fn static_equals_dynamic() {
    let case = case_of(1..=5usize, 1..=9usize, 1..=5usize, 6, 2);
    on_devices(&case, |device, case| {
        let subject = case.build(device)?;
        let dynamic = measure(&subject, |s| s.driver(case))?;
        let list = measure(&subject, |s| {
            let steps: Result<Vec<T>> = (0..case.steps).map(|t| s.inputs.select(1, t)).collect();
            let result = StaticRnn::new(&s.cell)
                .sequence_length(&case.lengths)
                .initial_state(s.initial(case.batch)?)
                .mode(case.mode)
                .run(&steps?)?;
            let outputs: Result<Vec<T>> = result.outputs.iter().map(|o| o.unsqueeze(1)).collect();
            Ok((vec![joined(&outputs?, 1)?], owned(&result.state)))
        })?;
        close(&list, &dynamic, ROUNDING)
    });
}

#[test]
fn time_major_equals_batch_major() {
    on_devices(&case(), |device, case| {
        let subject = case.build(device)?;
        let batch_major = measure(&subject, |s| s.driver(case))?;
        let time_major = measure(&subject, |s| {
            let inputs = s.inputs.transpose(0, 1)?;
            let result = s.rnn(case)?.time_major(true).run(&inputs)?;
            Ok((vec![result.outputs.transpose(0, 1)?], owned(&result.state)))
        })?;
        same_bits(&time_major, &batch_major)
    });
}

#[test]
fn dropout_does_nothing_in_evaluation() {
    let case = case().prop_flat_map(|case| {
        let wrapped = dropout(Just(case.cell.clone()));
        (Just(case), wrapped)
    });
    on_devices(&case, |device, (case, wrapped)| {
        let bare = case.evaluation();
        let around = Case {
            cell: wrapped.clone(),
            ..bare.clone()
        };
        let numbers = |case: &Case| measure(&case.build(device)?, |s| s.driver(case));
        let stepped = |case: &Case| measure(&case.build(device)?, |s| s.stepped(case));
        same_bits(&numbers(&around)?, &numbers(&bare)?)?;
        same_bits(&stepped(&around)?, &stepped(&bare)?)
    });
}

#[test]
fn any_cell_equals_the_typed_cell() {
    on_devices(&case(), |device, case| match case.cell["type"].as_str() {
        Some("BasicRNNCell") => any_is_typed::<BasicRnnCellBuilder>(device, case),
        Some("BasicLSTMCell") => any_is_typed::<BasicLstmCellBuilder>(device, case),
        Some("LSTMCell") => any_is_typed::<LstmCellBuilder>(device, case),
        Some("GRUCell") => any_is_typed::<GruCellBuilder>(device, case),
        Some("UGRNNCell") => any_is_typed::<UgrnnCellBuilder>(device, case),
        Some("MultiRNNCell") => any_is_typed::<MultiRnnCellConfig>(device, case),
        Some("DropoutWrapper") => any_is_typed::<DropoutWrapperBuilder<Value>>(device, case),
        Some("ResidualWrapper") => any_is_typed::<ResidualWrapperConfig>(device, case),
        other => Err(format!("{other:?} is not known").into()),
    });
}

fn any_is_typed<Config>(device: &TestDevice, case: &Case) -> Outcome
where
    Config: CellConfig,
    Config::Cell<TestDevice>: Cell<Backend = TestDevice, Input = T, Output = T>,
{
    let mut options = case.cell.clone();
    options.as_object_mut().unwrap().remove("type");
    let config: Config = serde_json::from_value(options)?;
    let typed = config.build_for(device, case.depth, DType::F64)?;
    let any = CellUnderTest::new(device, AnyCell::new(typed.clone()), case)?;
    let typed = CellUnderTest::new(device, typed, case)?;
    let numbers = measure(&typed, |s| s.driver(case))?;
    same_bits(&measure(&any, |s| s.driver(case))?, &numbers)?;
    same_bits(
        &measure(&case.build(device)?, |s| s.driver(case))?,
        &numbers,
    )?;
    let numbers = measure(&typed, |s| s.stepped(case))?;
    same_bits(&measure(&any, |s| s.stepped(case))?, &numbers)
}

#[test]
fn padding_does_not_leak() {
    on_devices(&case(), |device, case| {
        let subject = case.build(device)?;
        let clean = measure(&subject, |s| s.driver(case))?;
        let spoiled = measure(&subject.spoiled(case)?, |s| s.driver(case))?;
        close(&spoiled, &clean, 0.0)
    });
}

#[test]
fn padding_does_not_leak_in_both_directions() {
    let case = case_of(1..=5usize, 0..=9usize, 1..=5usize, 6, 0)
        .prop_flat_map(|case| (Just(case.clone()), cell(case.depth, 6)));
    on_devices(&case, |device, (case, backward)| {
        let other = Case {
            cell: backward.clone(),
            seed: !case.seed,
            ..case.clone()
        };
        let (forward, backward) = (case.build(device)?, other.build(device)?);
        let run = |both: &(CellUnderTest<Any>, CellUnderTest<Any>)| {
            let result = BidirectionalDynamicRnn::new(&both.0.cell, &both.1.cell)
                .sequence_length(&case.lengths)
                .initial_state_fw(both.0.initial(case.batch)?)
                .initial_state_bw(both.1.initial(case.batch)?)
                .mode(case.mode)
                .run(both.0.inputs.value())?;
            let (outputs, state) = (result.outputs, result.state);
            Ok((vec![outputs.0, outputs.1], owned(&state)))
        };
        let spoiled = measure(&(forward.spoiled(case)?, backward.clone()), run)?;
        close(&spoiled, &measure(&(forward, backward), run)?, 0.0)
    });
}

#[test]
fn reversing_twice_is_the_identity() {
    let axes = (0..4usize, 0..4usize).prop_filter("two axes", |(time, batch)| time != batch);
    let strategy = (vec(0..=5usize, 4), axes, any::<u64>()).prop_flat_map(|(dims, axes, seed)| {
        let lengths = vec(0..=dims[axes.0], dims[axes.1]);
        (Just(dims), Just(axes), lengths, Just(seed))
    });
    on_devices(&strategy, |device, (dims, (time, batch), lengths, seed)| {
        let meta = Meta::new(Shape::new(dims)?, DType::F64);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        let x = normal.tensor(device, *seed, meta)?;
        let on_device: Vec<i64> = lengths.iter().map(|&l| l as i64).collect();
        let on_device = Tensor::from_slice(device, &on_device, &[lengths.len()])?;
        let once = x.reverse(&on_device, *time, *batch)?;
        let twice = once.reverse(&on_device, *time, *batch)?;
        let (x, once, twice) = (
            x.to_vec::<f64>()?,
            once.to_vec::<f64>()?,
            twice.to_vec::<f64>()?,
        );
        if twice != x {
            return Err(format!("{x:?} and {twice:?}").into());
        }
        // The test above would also pass if `reverse` did nothing.
        let strides: Vec<usize> = (0..4).map(|i| dims[i + 1..].iter().product()).collect();
        let moved = |i: usize| {
            let at = |axis: usize| i / strides[axis] % dims[axis];
            let (t, length) = (at(*time), lengths[at(*batch)]);
            match t < length {
                true => i - t * strides[*time] + (length - 1 - t) * strides[*time],
                false => i,
            }
        };
        match (0..x.len()).find(|&i| once[i] != x[moved(i)]) {
            None => Ok(()),
            Some(i) => Err(format!("element {i} is {}, not {}", once[i], x[moved(i)]).into()),
        }
    });
}

#[test]
fn saved_parameters_are_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cell.safetensors");
    let strategy = (case(), select(vec![DType::F32, DType::F64]));
    on_devices(&strategy, |device, (case, dtype)| {
        let build = || cell_from_config(device, &case.cell, case.depth, *dtype);
        let (mut saved, mut loaded) = (build()?, build()?);
        // Arbitrary bits, which include subnormal numbers, signed zeros, infinities and NaN
        // payloads.
        let mut number = 0;
        saved.each_param(&mut |_, param| {
            let bits: Vec<u64> = (0..param.shape().count())
                .map(|_| {
                    number += 1;
                    let bits = philox::derive(case.seed, number);
                    match bits % 4 {
                        0 => bits | 0x7ff0_0000_7f80_0000,
                        1 => bits & 0x800f_ffff_807f_ffff,
                        2 => bits & 0x8000_0000_8000_0000,
                        _ => bits,
                    }
                })
                .collect();
            let (device, dims) = (param.device().clone(), param.dims());
            param.set(match dtype {
                DType::F32 => {
                    let values: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b as u32)).collect();
                    Tensor::from_slice(&device, &values, &dims)?
                }
                _ => {
                    let values: Vec<f64> = bits.iter().map(|&b| f64::from_bits(b)).collect();
                    Tensor::from_slice(&device, &values, &dims)?
                }
            })
        })?;
        save_params(&path, &saved)?;
        load_params(&path, &mut loaded)?;
        let bits = |t: &T| -> Result<Vec<u64>> {
            Ok(match dtype {
                DType::F32 => {
                    let values = t.to_vec::<f32>()?;
                    values.iter().map(|v| v.to_bits().into()).collect()
                }
                _ => t.to_vec::<f64>()?.iter().map(|v| v.to_bits()).collect(),
            })
        };
        let (saved, loaded) = (saved.named_params(), loaded.named_params());
        if saved.len() != loaded.len() {
            return Err("parameters are missing".into());
        }
        for ((name, a), (other, b)) in saved.iter().zip(&loaded) {
            if name != other || a.dims() != b.dims() || bits(a)? != bits(b)? {
                return Err(format!("{name} differs after loading").into());
            }
        }
        Ok(())
    });
}

#[test]
fn thread_count_changes_no_bit() {
    let devices: Vec<TestDevice> = [1, 2, 3]
        .into_iter()
        .flat_map(|threads| {
            let cpu = || Cpu::builder().threads(threads).build().unwrap();
            let fused = TestBackend::Cpu(cpu());
            [fused, TestBackend::UnfusedCpu(Unfused(cpu()))].map(Autodiff::new)
        })
        .collect();
    // Small sizes run on one thread.
    let wide = case_of(20..=90usize, 1..=6usize, 1..=60usize, 90, 2);
    let strategy = prop_oneof![1 => case(), 3 => wide];
    property(24, &strategy, |case| {
        let numbers = |device| measure(&case.build(device)?, |s| s.driver(&case));
        let (fused, unfused) = (numbers(&devices[0])?, numbers(&devices[1])?);
        for (device, threads) in [(2, 2), (4, 3)] {
            let more = numbers(&devices[device])?;
            same_bits(&more, &fused).map_err(|e| format!("{threads} threads: {e}"))?;
            let more = numbers(&devices[device + 1])?;
            same_bits(&more, &unfused).map_err(|e| format!("{threads} threads, unfused: {e}"))?;
        }
        Ok(())
    });
}
