//! Generated kernels of random steps, and of one that failed: the numbers and the gradients of the
//! steps' operations.

use backend_api::trace::CompiledStep;
use backend_api::{Activation, Backend, DType, Error, Result, Tensor, Unary};
use backend_cpu::Cpu;
use backend_cuda::Cuda;
use graphs::random::{Kind, Recipe, recipes};
use graphs::{Builder, Data, close, fused, operands, scan, stepwise};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use recurrent_tests::devices::simulator;
use rnn_train::{Autodiff, Differentiable};

/// Checks the same graphs in each run, so that the simulator finds most kernels compiled.
fn check(cases: u32, kind: Kind, test: impl Fn(&Recipe) -> Result<(), String>) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let test = |recipe: Recipe| -> TestCaseResult { test(&recipe).map_err(TestCaseError::fail) };
    runner.run(&recipes(kind), test).unwrap();
}

fn forward(recipe: &Recipe, dtype: DType, limit: f64) -> Result<(), String> {
    let graph = recipe.graph(dtype, recipe.batch);
    let data = recipe.data(&graph, 0.5);
    let wanted = stepwise(&Cpu::new(), &graph, &data, recipe.reverse);
    let data = recipe.data(&graph, f64::NAN);
    fused(&Cuda::new(0).unwrap(), &graph, &data, recipe.reverse)
        .and_then(|found| close(&found, &wanted, limit))
        .map_err(|problem| format!("{problem}\n{graph}"))
}

/// The gradients of those operands of a step's scan that are `tracked`; `None` for the others, and
/// if the results do not depend on an operand.
fn gradients<B: Backend>(
    device: &Autodiff<B>,
    step: CompiledStep,
    data: &Data,
    reverse: bool,
    tracked: impl Fn(usize) -> bool,
) -> Result<Vec<Option<Vec<f64>>>> {
    let mut ins = operands(device, step.graph(), data);
    let floats = ins.iter().filter(|x| x.dtype().is_float()).count();
    for (i, x) in ins[..floats].iter_mut().enumerate() {
        if tracked(i) {
            *x = device.leaf(x)?;
        }
    }
    let ins: Vec<_> = ins.iter().collect();
    let results = Tensor::call_all(device, &scan(step, data, reverse), &ins)?;
    let mut loss = None;
    for (i, result) in results.iter().enumerate() {
        let weights = (0..result.shape().count()).map(|k| (0.3 + i as f64 + 0.7 * k as f64).sin());
        let weights = Tensor::from_slice(device, &weights.collect::<Vec<_>>(), &result.dims())?;
        let part = result.mul(&weights.cast(result.dtype())?)?.sum_all()?;
        loss = Some(match loss {
            Some(loss) => part.add(&loss)?,
            None => part,
        });
    }
    let wanted: Vec<_> = (0..floats).filter(|&i| tracked(i)).collect();
    let loss = loss.expect("a step has results");
    let leaves: Vec<_> = wanted.iter().map(|&i| ins[i]).collect();
    let mut grads = vec![None; floats];
    for (i, grad) in wanted.into_iter().zip(device.backward(&loss, &leaves)?) {
        grads[i] = grad.map(|grad| grad.to_f64_vec()).transpose()?;
    }
    Ok(grads)
}

fn backward(recipe: &Recipe, dtype: DType, limit: f64) -> Result<(), String> {
    let graph = recipe.graph(dtype, recipe.batch);
    let step = |program| CompiledStep::new(graph.clone(), program);
    let failed = |error: Error| format!("{error}\n{graph}");
    let cpu = Autodiff::new(Cpu::new());
    let (none, data) = (Err("none".to_owned()), recipe.data(&graph, 0.5));
    let wanted = gradients(&cpu, step(none), &data, recipe.reverse, |_| true).map_err(failed)?;
    let cuda = Autodiff::new(Cuda::new(0).unwrap());
    // Finite: drivers take NaN out of the padding before they compute a gradient.
    let data = recipe.data(&graph, -3.0);
    // Only a step whose operands all have gradients has a program for them.
    let (program, tracked) = (cuda.compile_step(&graph), |i: usize| wanted[i].is_some());
    let found = gradients(&cuda, step(program), &data, recipe.reverse, tracked).map_err(failed)?;
    let known = |all: Vec<Option<Vec<f64>>>| all.into_iter().flatten().collect::<Vec<_>>();
    let (found, wanted) = (known(found), known(wanted));
    close(&found, &wanted, limit).map_err(|problem| format!("{problem}\n{graph}"))
}

/// The second product runs for all steps at once, behind them.
#[test]
fn a_product_is_read_by_another_behind_the_steps() {
    let _sim = simulator();
    let mut b = Builder::new(DType::F64, 3);
    let h = b.state(4);
    let (first, second) = (b.captured(&[4, 4]), b.captured(&[4, 2]));
    let p = b.matmul(h, first);
    let q = b.matmul(p, second);
    b.graph.outputs = vec![q];
    b.graph.new_states = vec![b.unary(Unary::Activation(Activation::Tanh), p)];
    let data = Data::new(&b.graph, 5, Some(vec![5, 2, 0]));
    let wanted = stepwise(&Cpu::new(), &b.graph, &data, false);
    let cuda = Cuda::new(0).unwrap();
    close(
        &fused(&cuda, &b.graph, &data, false).unwrap(),
        &wanted,
        1e-12,
    )
    .unwrap();
    let program = cuda.compile_step(&b.graph).unwrap().to_string();
    assert!(
        program.contains("* w1 [4, 2] for several steps"),
        "{program}"
    );
}

#[test]
fn random_steps_are_those_of_their_operations() {
    let _sim = simulator();
    check(24, Kind::Continuous, |recipe| {
        forward(recipe, DType::F64, 1e-9)?;
        forward(recipe, DType::F32, 1e-3)
    });
}

#[test]
fn gradients_of_random_steps_are_those_of_their_operations() {
    let _sim = simulator();
    check(24, Kind::Smooth, |recipe| {
        backward(recipe, DType::F64, 1e-8)?;
        backward(recipe, DType::F32, 1e-2)
    });
}
