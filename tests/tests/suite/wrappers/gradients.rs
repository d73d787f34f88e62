//! Gradients against finite differences.
use super::*;
/// A cell with its inputs and its initial state as parameters, so that all of them are
/// differentiated.
#[derive(Clone, Debug)]
struct Problem {
    cell: AnyCell<TestDevice>,
    /// A plain tensor of ids if the inputs have no gradient.
    inputs: Result<Param<TestDevice>, Tensor<TestDevice>>,
    state: Vec<Param<TestDevice>>,
}

impl Problem {
    fn new(device: &TestDevice, options: &Value) -> Result<Self> {
        let mut cell = cell_from_config(device, options, UNITS, DType::F64)?;
        let mut seed = 7;
        cell.each_param(&mut |_, param| {
            seed += 1;
            param.set(NORMAL.tensor(device, seed, param.meta())?)
        })?;
        let mut normal = |dims: &[usize]| {
            let mut param = Param::new(device, NORMAL, dims, DType::F64)?;
            seed += 1;
            param.set(NORMAL.tensor(device, seed, param.meta())?)?;
            Ok(param)
        };
        let zero = cell.zero_state(BATCH)?;
        let state: Result<_> = zero.leaves().iter().map(|t| normal(&t.dims())).collect();
        let ids: Vec<i32> = (0..BATCH * STEPS).map(|i| (i * i % 3) as i32).collect();
        let inputs = match options["type"] == "EmbeddingWrapper" {
            true => Err(Tensor::from_slice(device, &ids, &[BATCH, STEPS])?),
            false => Ok(normal(&[BATCH, STEPS, UNITS])?),
        };
        Ok(Self {
            cell,
            inputs,
            state: state?,
        })
    }

    fn inputs(&self) -> &Tensor<TestDevice> {
        match &self.inputs {
            Ok(param) => param,
            Err(ids) => ids,
        }
    }

    fn initial(&self) -> Result<<AnyCell<TestDevice> as Cell>::State> {
        let leaves: Vec<_> = self.state.iter().map(|p| p.value().clone()).collect();
        self.cell.zero_state(BATCH)?.rebuild(&leaves)
    }

    fn driver_loss(
        &self,
        memory_policy: MemoryPolicy,
        segment: usize,
    ) -> Result<Tensor<TestDevice>> {
        let result = DynamicRnn::new(&self.cell)
            .training(SEED)
            .sequence_length(&LENGTHS)
            .initial_state(self.initial()?)
            .memory_policy(memory_policy)
            .segment_length(segment)
            .run(self.inputs())?;
        weighted(&result.outputs, 0.3)?.add(&weighted(&result.state, 1.1)?)
    }

    /// The same loss without the driver: the cell's own step, with explicit handling of the
    /// lengths.
    fn loop_loss(&self) -> Result<Tensor<TestDevice>> {
        let mut states = vec![self.initial()?];
        let mut outputs = Vec::new();
        for t in 0..STEPS {
            let cx = StepContext::training(SEED).at(t);
            let x = self.inputs().select(1, t)?;
            let (output, state) = self.cell.step(&cx, &x, &states[t])?;
            outputs.push(output);
            states.push(state);
        }
        let zero = self.cell.zero_output(1)?.unsqueeze(1)?;
        let mut rows = Vec::new();
        let mut finals: Vec<Vec<Tensor<TestDevice>>> = Vec::new();
        for (row, &length) in LENGTHS.iter().enumerate() {
            let row_of = |t: &Tensor<TestDevice>| t.slice(0, row..row + 1);
            let row_outputs: Vec<_> = (0..STEPS)
                .map(|t| match t < length as usize {
                    true => row_of(&outputs[t])?.unsqueeze(1),
                    false => Ok(zero.clone()),
                })
                .collect::<Result<_>>()?;
            rows.push(joined(&row_outputs, 1)?);
            let last = states[length as usize].leaves();
            finals.push(last.into_iter().map(row_of).collect::<Result<_>>()?);
        }
        let state: Vec<_> = (0..finals[0].len())
            .map(|i| {
                let rows: Vec<_> = finals.iter().map(|row| row[i].clone()).collect();
                joined(&rows, 0)
            })
            .collect::<Result<_>>()?;
        weighted(&joined(&rows, 0)?, 0.3)?.add(&weighted(&state, 1.1)?)
    }
}

impl Module for Problem {
    type Backend = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        v.child("cell", &mut self.cell);
        if let Ok(inputs) = &mut self.inputs {
            v.param("inputs", inputs);
        }
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

fn joined<B: Backend>(parts: &[Tensor<B>], axis: usize) -> Result<Tensor<B>> {
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)
}

/// A weighted sum of all results, with a different weight for each element.
fn weighted<B: Backend, N: Nest<B>>(nest: &N, phase: f64) -> Result<Tensor<B>> {
    let mut parts = Vec::new();
    for (i, leaf) in nest.leaves().into_iter().enumerate() {
        let weights: Vec<f64> = (0..leaf.shape().count())
            .map(|k| (phase + i as f64 + 0.7 * k as f64).sin())
            .collect();
        let weights = Tensor::from_slice(leaf.device(), &weights, &leaf.dims())?;
        parts.push(leaf.mul(&weights)?.sum_all()?.reshape(&[1])?);
    }
    joined(&parts, 0)?.sum_all()
}

type Numbers = Vec<(String, Vec<f64>)>;

/// Value and gradients of a loss, in training mode with a fixed seed.
fn numbers(
    problem: &Problem,
    loss: impl Fn(&Problem) -> Result<Tensor<TestDevice>>,
) -> Result<Numbers> {
    let (value, grads) = value_and_grad(problem, |p| loss(p))?;
    let mut all = vec![("loss".to_owned(), value.to_vec()?)];
    for (name, grad) in grads.iter() {
        all.push((name.to_owned(), grad.unwrap().to_dense()?.to_vec()?));
    }
    Ok(all)
}

fn assert_close(a: &Numbers, b: &Numbers) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        for (a, b) in a.iter().zip(b) {
            let error = (a - b).abs() / (1.0 + b.abs());
            assert!(error <= 1e-12, "{name}: {a} and {b}");
        }
    }
}

/// Compares gradients with finite differences, the driver with a loop, whole sequences with
/// segments, and memory policies with each other.
fn check_wrapper(options: &Value) {
    for name in NAMES {
        let device = device(name).unwrap();
        let problem = Problem::new(&device, options).unwrap();
        let whole = numbers(&problem, |p| p.driver_loss(MemoryPolicy::Store, STEPS)).unwrap();
        check(
            &problem,
            |p| p.driver_loss(MemoryPolicy::Store, STEPS),
            1e-8,
        )
        .unwrap();
        assert_close(&numbers(&problem, Problem::loop_loss).unwrap(), &whole);
        for segment in [1, 2] {
            let all = numbers(&problem, |p| p.driver_loss(MemoryPolicy::Store, segment)).unwrap();
            assert_close(&all, &whole);
            for memory_policy in [MemoryPolicy::Recompute, MemoryPolicy::Offload] {
                let less = numbers(&problem, |p| p.driver_loss(memory_policy, segment)).unwrap();
                assert_eq!(less, all, "{memory_policy:?}");
            }
        }
    }
}

#[test]
fn residual() {
    check_wrapper(&json!({ "type": "ResidualWrapper", "cell": gru() }));
    check_wrapper(&json!({ "type": "ResidualWrapper", "cell": gru(), "residual_fn": "mul_add" }));
}

#[test]
fn projections() {
    let class = "OutputProjectionWrapper";
    check_wrapper(&json!({ "type": class, "cell": gru(), "output_size": 2, "activation": "tanh" }));
    check_wrapper(&json!({ "type": "InputProjectionWrapper", "cell": lstm(), "num_proj": 3 }));
}

#[test]
fn highway() {
    check_wrapper(&json!({ "type": "HighwayWrapper", "cell": gru() }));
    let apart =
        json!({ "type": "HighwayWrapper", "cell": lstm(), "couple_carry_transform_gates": false });
    check_wrapper(&apart);
}

#[test]
fn attention() {
    let config = json!({
        "type": "AttentionCellWrapper", "cell": lstm(), "attn_length": 2, "attn_size": 3,
    });
    check_wrapper(&config);
}

#[test]
fn embedding() {
    let class = "EmbeddingWrapper";
    check_wrapper(
        &json!({ "type": class, "cell": gru(), "embedding_classes": 3, "embedding_size": 2 }),
    );
}

#[test]
fn dropout() {
    for variational in [false, true] {
        check_wrapper(&json!({
            "type": "DropoutWrapper", "cell": lstm(), "variational_recurrent": variational,
            "input_keep_prob": 0.75, "output_keep_prob": 0.8,
        }));
        check_wrapper(&json!({
            "type": "DropoutWrapper", "cell": lstm(), "variational_recurrent": variational,
            "input_keep_prob": 0.75, "output_keep_prob": 0.8, "state_keep_prob": 0.75,
        }));
    }
}

#[test]
fn wrappers_in_wrappers() {
    let dropout = json!({ "type": "DropoutWrapper", "cell": gru(), "output_keep_prob": 0.6 });
    let residual = json!({ "type": "ResidualWrapper", "cell": dropout });
    let highway = json!({ "type": "HighwayWrapper", "cell": residual });
    let stack = json!({ "type": "MultiRNNCell", "cells": [highway, lstm()] });
    check_wrapper(&json!({ "type": "DropoutWrapper", "cell": stack, "input_keep_prob": 0.8 }));
}
