//! RNN, GRU and LSTM: nodes as cells under drivers.

mod cells;
mod composed;
mod function;
mod options;
mod weights;

use backend_api::{Backend, Result, Tensor};
use rnn_core::{
    AnyCell, AnyState, BidirectionalDynamicRnn, FusedRnnCell, FusedRnnCellAdaptor, Lengths,
    LstmState, Nest, TimeReversedFusedRnn,
};

pub(super) use function::Function;
use options::{Kind, Options};
use weights::Weights;

use super::call::Call;
use super::node::Node;
use super::value::Value;

/// A recurrent node with its weights.
#[derive(Clone, Debug)]
pub(super) struct Recurrent<B: Backend> {
    options: Options,
    units: usize,
    /// One cell for each direction.
    cells: Vec<AnyCell<B>>,
}

/// The weights are among the inputs that change from run to run.
pub(super) fn run<B: Backend>(call: &Call<'_, B>) -> Result<Vec<Value<B>>> {
    Recurrent::new(call)?.run(call)
}

impl<B: Backend> Recurrent<B> {
    /// The inputs that cells are made of: W, R, B and P.
    pub(super) const WEIGHTS: [usize; 4] = [1, 2, 3, 7];

    /// Whether a node is one.
    pub(super) fn is(node: &Node) -> bool {
        Kind::of(node).is_some()
    }

    /// The cells of a node, if all of its weights are known.
    pub(super) fn of_constants(call: &Call<'_, B>) -> Result<Option<Self>> {
        let known = |i: usize| match call.node.inputs.get(i) {
            Some(name) if !name.is_empty() => call.optional(i).is_some(),
            _ => true,
        };
        if Self::WEIGHTS.into_iter().all(known) {
            Self::new(call).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(super) fn cells(&self) -> &[AnyCell<B>] {
        &self.cells
    }

    fn new(call: &Call<'_, B>) -> Result<Self> {
        let node = call.node;
        let kind = Kind::of(node).ok_or_else(|| node.wrong("is no recurrent node"))?;
        let options = Options::of(node, kind)?;
        let (input, recurrent) = (call.tensor(1)?, call.tensor(2)?);
        let (bias, peepholes) = (call.optional_tensor(3)?, call.optional_tensor(7)?);
        let peepholes = peepholes.filter(|_| kind == Kind::Lstm);
        let (directions, gates) = (options.directions.len(), kind.gates());
        let units = recurrent.dims().last().copied().unwrap_or(0);
        let width = gates.checked_mul(units).unwrap_or(0);
        let check = |name: &str, tensor: &Tensor<B>, needed: &[usize]| {
            if tensor.dims()[..] == *needed {
                return Ok(());
            }
            let found = tensor.shape();
            Err(node.wrong(format!("has {name} of shape {found}, but needs {needed:?}")))
        };
        let inputs = input.dims().last().copied().unwrap_or(0);
        check("W", &input, &[directions, width, inputs])?;
        check("R", &recurrent, &[directions, width, units])?;
        if let Some(bias) = &bias {
            check("B", bias, &[directions, 2 * width])?;
        }
        if let Some(peepholes) = &peepholes {
            check("P", peepholes, &[directions, 3 * units])?;
        }
        if options.hidden.is_some_and(|hidden| hidden != units) {
            return Err(node.wrong(format!(
                "has hidden_size {:?}, but R has {units}",
                options.hidden
            )));
        }
        let bias = match bias {
            Some(bias) => bias,
            None => Tensor::zeros(call.device, (&[directions, 2 * width], input.dtype()))?,
        };
        let cell = |(d, (_, functions)): (usize, &(bool, Vec<Function>))| {
            let weights = Weights {
                input: input.select(0, d)?,
                recurrent: recurrent.select(0, d)?,
                bias: bias.select(0, d)?,
                peepholes: peepholes.as_ref().map(|p| p.select(0, d)).transpose()?,
            };
            cells::cell(&weights, kind, options.equations, functions)
        };
        let cells = options
            .directions
            .iter()
            .enumerate()
            .map(cell)
            .collect::<Result<_>>()?;
        Ok(Self {
            options,
            units,
            cells,
        })
    }

    /// The initial state of each direction.
    fn states(&self, call: &Call<'_, B>, batch: usize) -> Result<Vec<AnyState<B>>> {
        let first = self.options.batch_first;
        let directions = self.cells.len();
        let given = |i: usize, name: &str| {
            let Some(state) = call.optional_tensor(i)? else {
                return Ok(None);
            };
            let needed = match first {
                true => [batch, directions, self.units],
                false => [directions, batch, self.units],
            };
            if state.dims()[..] != needed {
                let found = state.shape();
                let problem = format!("has {name} of shape {found}, but needs {needed:?}");
                return Err(call.node.wrong(problem));
            }
            if first {
                state.transpose(0, 1).map(Some)
            } else {
                Ok(Some(state))
            }
        };
        let h = given(5, "initial_h")?;
        let lstm = self.options.kind == Kind::Lstm;
        let c = if lstm { given(6, "initial_c")? } else { None };
        let dtype = call.tensor(0)?.dtype();
        let state = |of: &Option<Tensor<B>>, d: usize| match of {
            Some(state) => state.select(0, d),
            None => Tensor::zeros(call.device, (&[batch, self.units], dtype)),
        };
        let of_direction = |d| {
            let h = state(&h, d)?;
            Ok(match lstm {
                true => AnyState::new(LstmState {
                    c: state(&c, d)?,
                    h,
                }),
                false => AnyState::new(h),
            })
        };
        (0..directions).map(of_direction).collect()
    }

    /// The length of each row, checked against the number of steps.
    fn lengths(&self, call: &Call<'_, B>, batch: usize, steps: usize) -> Result<Option<Vec<i64>>> {
        let Some(value) = call.optional(4) else {
            return Ok(None);
        };
        let lengths = value.ints("sequence_lens")?.values;
        let fits = |&n: &i64| (0..=steps as i64).contains(&n);
        if lengths.len() != batch || !lengths.iter().all(fits) {
            let problem = format!(
                "has sequence_lens {lengths:?}, but needs {batch} numbers of at most {steps}"
            );
            return Err(call.node.wrong(problem));
        }
        Ok(Some(lengths))
    }

    pub(super) fn run(&self, call: &Call<'_, B>) -> Result<Vec<Value<B>>> {
        let x = call.tensor(0)?;
        if x.shape().rank() != 3 {
            return Err(call
                .node
                .wrong(format!("has X of shape {}, but needs 3 axes", x.shape())));
        }
        let first = self.options.batch_first;
        let x = if first { x.transpose(0, 1)? } else { x };
        let (steps, batch) = (x.dims()[0], x.dims()[1]);
        call.check_count(&[steps, self.cells.len(), batch, self.units])?;
        let lengths = self.lengths(call, batch, steps)?;
        let states = self.states(call, batch)?;
        let states = match &lengths {
            Some(lengths) => states
                .iter()
                .map(|s| without_empty(s, lengths))
                .collect::<Result<_>>()?,
            None => states,
        };
        let (outputs, states) = self.sequence(&x, states, lengths.map(Lengths::from).as_ref())?;
        // `[time, directions, batch, n]`, or `[batch, time, directions, n]`.
        let axis = if first { 2 } else { 1 };
        let outputs = outputs.iter().map(|y| {
            if first {
                y.transpose(0, 1)
            } else {
                Ok(y.clone())
            }
        });
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let mut results = vec![stacked(&outputs, axis)?];
        let mut hs = Vec::new();
        let mut cs = Vec::new();
        for state in &states {
            if self.options.kind == Kind::Lstm {
                let state: &LstmState<B> = state.downcast()?;
                hs.push(state.h.clone());
                cs.push(state.c.clone());
            } else {
                hs.push(state.downcast::<Tensor<B>>()?.clone());
            }
        }
        for part in [hs, cs].iter().filter(|part| !part.is_empty()) {
            results.push(stacked(part, usize::from(first))?);
        }
        Ok(results)
    }

    /// Outputs, time-major, and final states of each direction.
    fn sequence(
        &self,
        x: &Tensor<B>,
        states: Vec<AnyState<B>>,
        lengths: Option<&Lengths<B>>,
    ) -> Result<(Vec<Tensor<B>>, Vec<AnyState<B>>)> {
        match (&self.cells[..], &states[..]) {
            ([forward, backward], [of_forward, of_backward]) => {
                let mut rnn = BidirectionalDynamicRnn::new(forward, backward)
                    .time_major(true)
                    .initial_state_fw(of_forward.clone())
                    .initial_state_bw(of_backward.clone());
                if let Some(lengths) = lengths {
                    rnn = rnn.sequence_length(lengths.clone());
                }
                let result = rnn.run(x)?;
                let (outputs, state) = (result.outputs, result.state);
                Ok((vec![outputs.0, outputs.1], vec![state.0, state.1]))
            }
            ([cell], [state]) => {
                let backward = self
                    .options
                    .directions
                    .iter()
                    .any(|(backward, _)| *backward);
                let rnn = FusedRnnCellAdaptor(cell.clone());
                let result = match backward {
                    true => TimeReversedFusedRnn(rnn).run(x, Some(state), lengths)?,
                    false => rnn.run(x, Some(state), lengths)?,
                };
                Ok((vec![result.outputs], vec![result.state]))
            }
            _ => Ok((vec![], vec![])),
        }
    }
}

fn stacked<B: Backend>(parts: &[Tensor<B>], axis: usize) -> Result<Value<B>> {
    Tensor::stack(&parts.iter().collect::<Vec<_>>(), axis).map(Value::Tensor)
}

/// The initial state with zeros in rows of length 0, which ONNX Runtime returns as their final
/// state; a driver returns the initial one.
fn without_empty<B: Backend>(state: &AnyState<B>, lengths: &[i64]) -> Result<AnyState<B>> {
    if !lengths.contains(&0) {
        return Ok(state.clone());
    }
    let full: Vec<bool> = lengths.iter().map(|&n| n > 0).collect();
    state.map(&mut |part| {
        Tensor::from_bools(part.device(), &full, &[full.len(), 1])?.select_from(part, 0.0)
    })
}
