//! Gradients of the phased LSTM, whose input is a pair, compared with finite differences: every
//! parameter, the inputs and the initial state, with several rows and steps, ragged lengths and a
//! nonzero initial state. Memory policies must not change the results. Also tests results and
//! errors of contributed cells.

use backend_api::{Backend, DType, Error, MemoryPolicy, Result, Tensor, Unfused, philox};
use backend_cpu::Cpu;
use recurrent_tests::finite_differences::check;
use rnn_core::cells::PhasedLstmCellBuilder;
use rnn_core::{
    Cell, DynamicRnn, Initializer, Module, Nest, Param, StepContext, Visitor, cell_from_config,
};
use rnn_train::{Autodiff, Differentiable, Gradient, value_and_grad};
use serde_json::{Value, json};

const NORMAL: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.8,
};
const BATCH: usize = 3;
const STEPS: usize = 4;
const LENGTHS: [i32; BATCH] = [3, 0, 4];

/// A cell with its inputs and its initial state as parameters, so that all of them are
/// differentiated.
#[derive(Clone, Debug)]
struct Problem<C: Cell> {
    cell: C,
    inputs: Vec<Param<C::Backend>>,
    state: Vec<Param<C::Backend>>,
}

impl<C: Cell> Problem<C> {
    /// `inputs` are the shapes of one step's inputs.
    fn new(device: &C::Backend, cell: C, inputs: &[&[usize]]) -> Result<Self> {
        let param = |dims: &[usize]| Param::new(device, NORMAL, dims, DType::F64);
        let state = cell.zero_state(BATCH)?;
        let state = state.leaves().into_iter().map(|t| param(&t.dims()));
        let sequence = |dims: &&[usize]| param(&[&[BATCH, STEPS], *dims].concat());
        let mut problem = Self {
            cell,
            inputs: inputs.iter().map(sequence).collect::<Result<_>>()?,
            state: state.collect::<Result<_>>()?,
        };
        // The same numbers regardless of the tests that run in parallel.
        let mut seed = 7;
        problem.each_param(&mut |_, param| {
            seed += 1;
            let key = philox::derive(seed, 1);
            param.set(NORMAL.tensor(device, key, param.meta())?)
        })?;
        Ok(problem)
    }

    fn loss(
        &self,
        inputs: &impl Fn(&[Tensor<C::Backend>]) -> C::Input,
        memory_policy: MemoryPolicy,
        segment: usize,
    ) -> Result<Tensor<C::Backend>> {
        let values = |params: &[Param<C::Backend>]| -> Vec<Tensor<C::Backend>> {
            params.iter().map(|p| p.value().clone()).collect()
        };
        let result = DynamicRnn::new(&self.cell)
            .sequence_length(&LENGTHS)
            .initial_state(self.cell.zero_state(BATCH)?.rebuild(&values(&self.state))?)
            .memory_policy(memory_policy)
            .segment_length(segment)
            .run(&inputs(&values(&self.inputs)))?;
        weighted(&result.outputs, 0.3)?.add(&weighted(&result.state, 1.1)?)
    }
}

impl<C: Cell> Module for Problem<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        v.child("cell", &mut self.cell);
        for (i, input) in self.inputs.iter_mut().enumerate() {
            v.param(&format!("input_{i}"), input);
        }
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

/// A weighted sum of all results, with a different weight for each element.
fn weighted<B: Backend, N: Nest<B>>(nest: &N, phase: f64) -> Result<Tensor<B>> {
    let mut total: Option<Tensor<B>> = None;
    for (i, leaf) in nest.leaves().into_iter().enumerate() {
        let weights: Vec<f64> = (0..leaf.shape().count())
            .map(|k| (phase + i as f64 + 0.7 * k as f64).sin())
            .collect();
        let weights = Tensor::from_slice(leaf.device(), &weights, &leaf.dims())?;
        let part = leaf.mul(&weights)?.sum_all()?;
        total = Some(match total {
            Some(total) => total.add(&part)?,
            None => part,
        });
    }
    total.ok_or_else(|| Error::argument("weighted", "nest", "is empty"))
}

/// Compares with finite differences, with the cell's own steps, and between memory policies.
fn check_problem<C>(
    problem: &Problem<C>,
    inputs: impl Fn(&[Tensor<C::Backend>]) -> C::Input,
) -> Result<()>
where
    C: Cell,
    C::Backend: Differentiable,
{
    let whole = |p: &Problem<C>| p.loss(&inputs, MemoryPolicy::Store, STEPS);
    check(problem, whole, 1e-7)?;
    let all = value_and_grad(problem, |p| p.loss(&inputs, MemoryPolicy::Store, 3))?.1;
    for memory_policy in [MemoryPolicy::Recompute, MemoryPolicy::Offload] {
        let less = value_and_grad(problem, |p| p.loss(&inputs, memory_policy, 3))?.1;
        for ((name, a), (_, b)) in all.iter().zip(less.iter()) {
            let numbers = |g: Option<&Gradient<C::Backend>>| {
                g.map(|g| g.to_dense()?.to_vec::<f64>()).transpose()
            };
            assert_eq!(numbers(a)?, numbers(b)?, "{name} with {memory_policy:?}");
        }
    }
    unroll_gives_what_steps_give(problem, &inputs)
}

fn unroll_gives_what_steps_give<C: Cell>(
    problem: &Problem<C>,
    inputs: &impl Fn(&[Tensor<C::Backend>]) -> C::Input,
) -> Result<()> {
    let all: Vec<_> = problem.inputs.iter().map(|p| p.value().clone()).collect();
    let run = DynamicRnn::new(&problem.cell).run(&inputs(&all))?;
    let mut state = problem.cell.zero_state(BATCH)?;
    for t in 0..STEPS {
        let x: Vec<_> = all.iter().map(|x| x.select(1, t)).collect::<Result<_>>()?;
        let (output, new) = problem
            .cell
            .step(&StepContext::default(), &inputs(&x), &state)?;
        state = new;
        for (a, b) in run.outputs.leaves().iter().zip(output.leaves()) {
            close(&a.select(1, t)?, b)?;
        }
    }
    let ends = run.state.leaves().into_iter().zip(state.leaves());
    for (a, b) in ends {
        close(a, b)?;
    }
    Ok(())
}

fn close<B: Backend>(a: &Tensor<B>, b: &Tensor<B>) -> Result<()> {
    assert_eq!(a.shape(), b.shape());
    for (a, b) in a.to_vec::<f64>()?.iter().zip(b.to_vec::<f64>()?) {
        assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{a} and {b}");
    }
    Ok(())
}

fn phased_cells<B: Differentiable>(device: &B) {
    for peepholes in [false, true] {
        phased(device, peepholes).unwrap();
    }
}

/// Times in the first period, where TensorFlow's gradient of `mod` equals the derivative.
fn phased<B: Differentiable>(device: &B, peepholes: bool) -> Result<()> {
    let cell = PhasedLstmCellBuilder::new(3, 4)
        .use_peepholes(peepholes)
        .leak(0.05)
        .dtype(DType::F64)
        .build(device)?;
    let mut problem = Problem::new(device, cell, &[&[1], &[3]])?;
    problem.each_param(&mut |name, param| {
        let count = param.shape().count();
        let numbers = |start: f64, step: f64| -> Vec<f64> {
            (0..count).map(|i| start + step * i as f64).collect()
        };
        let values = match name {
            "cell/period" => numbers(11.0, 1.7),
            "cell/phase" => numbers(-0.3, 0.1),
            "cell/ratio_on" => numbers(0.4, 0.05),
            "input_0" => numbers(0.37, 0.61),
            _ => return Ok(()),
        };
        param.set(Tensor::from_slice(device, &values, &param.dims())?)
    })?;
    check_problem(&problem, |inputs| (inputs[0].clone(), inputs[1].clone()))
}

#[test]
fn cpu_kernels() {
    phased_cells(&Autodiff::new(Cpu::new()));
}

#[test]
fn default_bodies() {
    phased_cells(&Autodiff::new(Unfused(Cpu::new())));
}

/// Cells without golden files: one step of one hidden unit, computed by hand.
#[test]
fn cudnn_compatible_cells_follow_the_equations_of_cudnn() {
    let device = Cpu::new();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let step = |class: &str, values: &[f64], state: &[f64]| -> Result<Vec<f64>> {
        let config = json!({ "type": class, "num_units": 1 });
        let mut cell = cell_from_config(&device, &config, 1, DType::F64)?;
        let mut left = values;
        cell.each_param(&mut |_, param| {
            let (own, rest) = left.split_at(param.shape().count());
            left = rest;
            param.set(Tensor::from_slice(&device, own, &param.dims())?)
        })?;
        assert!(left.is_empty());
        let one = |value: f64| Tensor::from_slice(&device, &[value], &[1, 1]);
        let state: Vec<_> = state.iter().map(|&s| one(s)).collect::<Result<_>>()?;
        let state = cell.zero_state(1)?.rebuild(&state)?;
        let (_, state) = cell.step(&StepContext::default(), &one(0.7)?, &state)?;
        state.leaves().into_iter().map(Tensor::item).collect()
    };
    let (x, h, c) = (0.7, -0.4, 0.9);

    // gates/kernel (r, u of the input, then of the state), gates/bias; then kernel and bias of each
    // of the candidate's two projections.
    let w = [0.3, -0.5, 0.8, 0.6, 0.1, -0.2, 0.9, -1.1, 0.25, 0.35];
    let r = sigmoid(x * w[0] + h * w[2] + w[4]);
    let u = sigmoid(x * w[1] + h * w[3] + w[5]);
    let q = (x * w[6] + w[7] + r * (h * w[8] + w[9])).tanh();
    let found = step("CudnnCompatibleGRUCell", &w, &[h]).unwrap();
    assert!((found[0] - ((1.0 - u) * q + u * h)).abs() < 1e-15);

    let w = [
        0.3, -0.5, 0.8, 0.6, 0.1, -0.2, 0.9, -1.1, 0.25, 0.35, -0.15, 0.05,
    ];
    let z = |i: usize| x * w[i] + h * w[4 + i] + w[8 + i];
    let new = sigmoid(z(2)) * c + sigmoid(z(0)) * z(1).tanh();
    let found = step("CudnnCompatibleLSTMCell", &w, &[c, h]).unwrap();
    assert!((found[0] - new).abs() < 1e-15);
    assert!((found[1] - sigmoid(z(3)) * new.tanh()).abs() < 1e-15);
}

/// Clipping in a block cell limits the value but not the gradient.
#[test]
fn a_block_cell_ignores_clipping_in_the_gradient() {
    let device = Autodiff::new(Cpu::new());
    let gradient = |clip: Option<f64>| -> Result<(f64, Vec<f64>)> {
        let config = json!({ "type": "LSTMBlockCell", "num_units": 2, "cell_clip": clip });
        let cell = cell_from_config(&device, &config, 2, DType::F64)?;
        let c = device.leaf(&Tensor::from_slice(&device, &[2.0f64, -0.1], &[1, 2])?)?;
        let zeros = cell.zero_output(1)?;
        let state = cell.zero_state(1)?.rebuild(&[c.clone(), zeros.clone()])?;
        let (_, state) = cell.step(&StepContext::default(), &zeros, &state)?;
        let new = state.leaves()[0].clone();
        let loss = new.sum_all()?;
        let grad = device.backward(&loss, &[&c])?.swap_remove(0);
        let grad = grad.ok_or_else(|| Error::Gradient("is missing".into()))?;
        Ok((new.to_vec::<f64>()?[0], grad.to_vec()?))
    };
    let (free, expected) = gradient(None).unwrap();
    let (cut, found) = gradient(Some(0.3)).unwrap();
    assert!(free > 1.0 && (cut - 0.3).abs() < 1e-15);
    assert_eq!(found, expected);
    // Limits of 0 and below disable clipping.
    assert_eq!(gradient(Some(-1.0)).unwrap().0, free);
}

/// Phases lie below their periods, whichever initializer draws them.
#[test]
fn phases_are_within_their_periods() {
    let device = Cpu::new();
    let mut cell = PhasedLstmCellBuilder::new(3, 50).build(&device).unwrap();
    for seed in [None, Some(3)] {
        if let Some(seed) = seed {
            cell.initialize(seed).unwrap();
        }
        let named = cell.named_params();
        let values = |name: &str| -> Vec<f32> {
            let param = named.iter().find(|(n, _)| n == name);
            param.unwrap().1.to_vec().unwrap()
        };
        let (period, phase) = (values("period"), values("phase"));
        assert!(period.iter().all(|p| (1.0..=1000.0).contains(p)));
        assert!(period.iter().any(|&p| p < 20.0) && period.iter().any(|&p| p > 100.0));
        let within = period.iter().zip(&phase);
        assert!(within.clone().all(|(p, s)| (0.0..*p).contains(s)));
        assert!(within.clone().any(|(p, s)| *s > 0.7 * p));
    }
}

#[test]
fn invalid_options_and_inputs_are_named() {
    let device = Cpu::new();
    let refused = |config: Value, size: usize, says: &str| {
        let error = cell_from_config(&device, &config, size, DType::F32).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    };
    let grid = |windows: Value| {
        json!({
            "type": "GridLSTMCell", "num_units": 2, "feature_size": 3, "frequency_skip": 2,
            "num_frequency_blocks": windows,
        })
    };
    refused(
        grid(json!([2])),
        7,
        "num_frequency_blocks of block 0 is 2, but 3 windows fit",
    );
    refused(grid(json!([1, 2])), 7, "num_frequency_blocks has 2 entries");
    refused(
        grid(json!([1])),
        2,
        "feature_size is 3, but only 2 features are available",
    );
    let mut offset = grid(json!([3]));
    offset["backward_slice_offset"] = json!(1);
    refused(offset, 7, "backward_slice_offset");
    refused(
        json!({ "type": "TimeFreqLSTMCell", "num_units": 2, "feature_size": 3, "blocks": 4 }),
        7,
        "blocks is 4, but 5 windows fit",
    );
    refused(
        json!({ "type": "LSTMBlockCell", "num_units": 0 }),
        3,
        "lstm_block_cell: num_units must not be 0",
    );
    let conv = |kernel: Value| {
        json!({
            "type": "Conv2DLSTMCell", "input_shape": [3, 4, 2], "output_channels": 2,
            "kernel_shape": kernel,
        })
    };
    refused(conv(json!([3])), 2, "input_shape is [3, 4, 2]");
    refused(conv(json!([3, 0])), 2, "kernel_shape must not be 0");
    let cell = cell_from_config(&device, &conv(json!([3, 3])), 2, DType::F32).unwrap();
    let x = Tensor::from_slice(&device, &[0.0f32; 12], &[1, 4, 3, 1]).unwrap();
    let error = cell.step(&StepContext::default(), &x, &cell.zero_state(1).unwrap());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("x is [1, 4, 3, 1]") && error.contains("[batch, 3, 4, 2]"),
        "{error}"
    );
}
