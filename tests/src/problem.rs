//! A cell under a driver as a function to differentiate, with several rows and steps, ragged
//! lengths and a nonzero initial state.

use backend_api::{Backend, DType, Error, MemoryPolicy, Result, Tensor, philox};
use rnn_core::{Cell, DynamicRnn, Initializer, Mode, Module, Nest, Param, StepContext, Visitor};
use rnn_train::{Differentiable, Gradient, Gradients, value_and_grad};

use crate::finite_differences::check_all_but;

/// The initializer of every parameter.
pub const NORMAL: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.8,
};
const BATCH: usize = 3;
const STEPS: usize = 5;
const LENGTHS: [i32; BATCH] = [3, 0, 5];

/// A cell with its inputs and its initial state as parameters, so that all of them are
/// differentiated.
#[derive(Clone, Debug)]
pub struct Problem<C: Cell> {
    cell: C,
    inputs: Param<C::Backend>,
    state: Vec<Param<C::Backend>>,
    mode: Mode,
    unused: Vec<String>,
}

impl<C: Cell> Module for Problem<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        v.child("cell", &mut self.cell);
        v.param("inputs", &mut self.inputs);
        for (i, state) in self.state.iter_mut().enumerate() {
            v.param(&format!("state_{i}"), state);
        }
    }
}

impl<C> Problem<C>
where
    C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
    C::Backend: Differentiable,
{
    /// A problem in `f64`; `depth` is the shape of an input without the batch and time axes.
    ///
    /// # Errors
    /// The device failed.
    pub fn new(device: &C::Backend, cell: C, depth: &[usize]) -> Result<Self> {
        let param = |dims: &[usize]| Param::new(device, NORMAL, dims, DType::F64);
        let zero = cell.zero_state(BATCH)?;
        let state = zero.leaves().into_iter().map(|t| param(&t.dims()));
        let mut problem = Self {
            state: state.collect::<Result<_>>()?,
            inputs: param(&[&[BATCH, STEPS], depth].concat())?,
            cell,
            mode: Mode::Evaluation,
            unused: Vec::new(),
        };
        // Random biases and kernels, so that no two gates are equal.
        let mut seed = 7;
        problem.each_param(&mut |_, param| {
            seed += 1;
            let key = philox::derive(seed, 1);
            param.set(NORMAL.tensor(device, key, param.meta())?)
        })?;
        Ok(problem)
    }

    /// The same problem in training mode, with dropout. It is not compared with a loop over rows,
    /// since the masks of a batch differ from those of its rows.
    #[must_use]
    pub fn training(mut self) -> Self {
        self.mode = Mode::Training { seed: 5 };
        self
    }

    /// Marks a parameter of the cell as having no effect, and therefore no gradient.
    #[must_use]
    pub fn unused(mut self, name: &str) -> Self {
        self.unused.push(format!("cell/{name}"));
        self
    }

    /// Compares the gradients with finite differences, the driver with a loop over the cell's
    /// steps, and the memory policies with each other.
    ///
    /// # Errors
    /// Two results differ.
    pub fn check(&self) -> Result<()> {
        let whole = |p: &Self| p.driver_loss(MemoryPolicy::Store, None);
        let unused: Vec<&str> = self.unused.iter().map(String::as_str).collect();
        check_all_but(&unused, self, whole, 1e-8)?;
        let (value, grads) = value_and_grad(self, whole)?;
        if self.mode == Mode::Evaluation {
            let (by_loop, loop_grads) = value_and_grad(self, Self::loop_loss)?;
            close("loss", Some(&value), Some(&by_loop), 1e-12)?;
            close_all(&grads, &loop_grads, 1e-12)?;
        }
        let segmented =
            |memory_policy| value_and_grad(self, |p| p.driver_loss(memory_policy, Some(2)));
        let all = segmented(MemoryPolicy::Store)?.1;
        for memory_policy in [MemoryPolicy::Recompute, MemoryPolicy::Offload] {
            // For one segment length, memory policies must not change a bit.
            close_all(&all, &segmented(memory_policy)?.1, 0.0)?;
        }
        close_all(&all, &grads, 1e-12)
    }

    fn initial(&self) -> Result<C::State> {
        let leaves: Vec<_> = self.state.iter().map(|p| p.value().clone()).collect();
        self.cell.zero_state(BATCH)?.rebuild(&leaves)
    }

    fn driver_loss(
        &self,
        memory_policy: MemoryPolicy,
        segment: Option<usize>,
    ) -> Result<Tensor<C::Backend>> {
        let mut rnn = DynamicRnn::new(&self.cell)
            .sequence_length(&LENGTHS)
            .initial_state(self.initial()?)
            .mode(self.mode)
            .memory_policy(memory_policy);
        if let Some(steps) = segment {
            rnn = rnn.segment_length(steps);
        }
        let result = rnn.run(self.inputs.value())?;
        weighted(&result.outputs, 0.3)?.add(&weighted(&result.state, 1.1)?)
    }

    /// The same loss without the driver: the cell's own step, with explicit handling of the
    /// lengths.
    fn loop_loss(&self) -> Result<Tensor<C::Backend>> {
        let cx = StepContext::new(self.mode);
        let mut outputs = Vec::new();
        let mut finals: Vec<Vec<Tensor<C::Backend>>> = Vec::new();
        for (row, &length) in LENGTHS.iter().enumerate() {
            let of_row = |t: &Tensor<C::Backend>| t.slice(0, row..row + 1);
            let mut state = self.initial()?.map(&mut |t| of_row(t))?;
            let mut row_outputs = Vec::new();
            for t in 0..STEPS {
                if t < length as usize {
                    let x = of_row(&self.inputs.select(1, t)?)?;
                    let (output, new) = self.cell.step(&cx, &x, &state)?;
                    row_outputs.push(output.unsqueeze(1)?);
                    state = new;
                } else {
                    row_outputs.push(self.cell.zero_output(1)?.unsqueeze(1)?);
                }
            }
            let row_outputs: Vec<_> = row_outputs.iter().collect();
            outputs.push(Tensor::concat(&row_outputs, 1)?);
            finals.push(state.leaves().into_iter().cloned().collect());
        }
        let outputs: Vec<_> = outputs.iter().collect();
        let outputs = Tensor::concat(&outputs, 0)?;
        let leaves = finals[0].len();
        let state: Vec<Tensor<C::Backend>> = (0..leaves)
            .map(|i| {
                let rows: Vec<_> = finals.iter().map(|row| &row[i]).collect();
                Tensor::concat(&rows, 0)
            })
            .collect::<Result<_>>()?;
        weighted(&outputs, 0.3)?.add(&weighted(&state, 1.1)?)
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

fn close_all<B: Backend>(a: &Gradients<B>, b: &Gradients<B>, tolerance: f64) -> Result<()> {
    let dense = |g: Option<&Gradient<B>>| g.map(Gradient::to_dense).transpose();
    for ((name, a), (_, b)) in a.iter().zip(b.iter()) {
        close(name, dense(a)?.as_ref(), dense(b)?.as_ref(), tolerance)?;
    }
    Ok(())
}

fn close<B: Backend>(
    name: &str,
    a: Option<&Tensor<B>>,
    b: Option<&Tensor<B>>,
    tolerance: f64,
) -> Result<()> {
    let values = |t: Option<&Tensor<B>>| t.map(Tensor::to_vec::<f64>).transpose();
    let (a, b) = (
        values(a)?.unwrap_or_default(),
        values(b)?.unwrap_or_default(),
    );
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= tolerance * (1.0 + b.abs());
    if a.len() == b.len() && a.iter().zip(&b).all(near) {
        return Ok(());
    }
    Err(Error::argument(
        "problem",
        name,
        format!("differs: {a:?} and {b:?}"),
    ))
}
