//! TensorFlow's `ResidualWrapper`.

use std::fmt;
use std::sync::Arc;

use backend_api::{Backend, DType, Error, Result, Shape};
use serde::Deserialize;
use serde_json::Value;

use crate::nest::check_structure;
use crate::{
    AnyCell, Cell, CellConfig, Module, Nest, StepContext, Unroll, Visitor, cell_from_config,
};

/// Combines the input and the output of a step.
type Combine<C> = Arc<
    dyn Fn(&<C as Cell>::Input, &<C as Cell>::Output) -> Result<<C as Cell>::Output> + Send + Sync,
>;

/// A cell with a residual connection (He et al. 2015; TensorFlow's `ResidualWrapper`):
///
/// `y, state' = cell(x, state)`; the output is `x + y`, leaf by leaf. Input and output must have
/// the same structure and shapes.
///
/// [`residual_fn`](Self::residual_fn) replaces the addition. The state and the parameters, with
/// their names, are the cell's.
///
/// ```
/// use recurrent::wrappers::ResidualWrapper;
/// use recurrent::{Cell, Device, DynamicRnn, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = ResidualWrapper::new(GruCell::new(&device, 4, 4)?);
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 3 * 4], &[2, 3, 4])?;
/// let rnn = DynamicRnn::new(&cell).run(&x)?;
/// assert_eq!(rnn.outputs.shape().dims(), [2, 3, 4]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ResidualWrapper<C: Cell> {
    cell: C,
    combine: Option<Combine<C>>,
}

impl<C: Cell> ResidualWrapper<C> {
    /// Wraps a cell; adds input and output.
    pub fn new(cell: C) -> Self {
        Self {
            cell,
            combine: None,
        }
    }

    /// Replaces the addition by a function of the input and the output of a step. It must return
    /// the structure and shapes of the cell's output.
    pub fn residual_fn(
        mut self,
        combine: impl Fn(&C::Input, &C::Output) -> Result<C::Output> + Send + Sync + 'static,
    ) -> Self {
        self.combine = Some(Arc::new(combine));
        self
    }
}

impl<C: Cell> fmt::Debug for ResidualWrapper<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResidualWrapper")
            .field("cell", &self.cell)
            .finish_non_exhaustive()
    }
}

/// Returns an error if input and output differ in structure or shapes. The input has `lead`
/// additional leading axes.
fn check<B: Backend>(input: &impl Nest<B>, lead: usize, output: &impl Nest<B>) -> Result<()> {
    let op = "residual_wrapper";
    check_structure(op, "input", input, output)?;
    for ((path, x), y) in input.named_leaves().into_iter().zip(output.leaves()) {
        let x = Shape::new(x.shape().dims().get(lead..).unwrap_or_default())?;
        if x != y.shape() {
            let arg = format!("input {path}");
            let expected = format!("the output is {}", y.shape());
            return Err(Error::shape(op, arg.trim_end(), x, expected));
        }
    }
    Ok(())
}

/// `input + output`, leaf by leaf.
fn add<B: Backend, O: Nest<B>>(input: &impl Nest<B>, output: &O) -> Result<O> {
    check(input, 0, output)?;
    let pairs = input.leaves().into_iter().zip(output.leaves());
    let sums: Vec<_> = pairs.map(|(x, y)| x.add(y)).collect::<Result<_>>()?;
    output.rebuild(&sums)
}

impl<C: Cell> Module for ResidualWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        self.cell.params(v);
    }
}

impl<C: Cell> Cell for ResidualWrapper<C> {
    type Input = C::Input;
    type State = C::State;
    type Output = C::Output;

    fn scope(&self) -> String {
        self.cell.scope()
    }

    fn zero_state(&self, batch: usize) -> Result<C::State> {
        self.cell.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        self.cell.zero_output(batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        input: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let (output, state) = self.cell.step(cx, input, state)?;
        let output = match &self.combine {
            Some(combine) => combine(input, &output)?,
            None => add(input, &output)?,
        };
        Ok((output, state))
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        if self.combine.is_none() {
            // Checked before any computation, and for one step, so that messages show shapes that
            // the caller knows.
            check(inputs, 1, &self.cell.zero_output(u.batch())?)?;
        }
        let wrapper = self.clone();
        u.segments(inputs, state, move |u, inputs, state| {
            let (outputs, state) = wrapper.cell.unroll(u, inputs, state)?;
            let outputs = match &wrapper.combine {
                // The function takes one step, so it is called step by step.
                Some(combine) => {
                    let zero = wrapper.cell.zero_output(u.batch())?;
                    let pairs = (inputs.clone(), outputs);
                    u.scan(&pairs, &(), &zero, |_, (x, y), ()| Ok((combine(x, y)?, ())))?
                        .0
                }
                None => u.mask_padding(&add(inputs, &outputs)?)?,
            };
            Ok((outputs, state))
        })
    }
}

/// Options of a [`ResidualWrapper`] around a cell from JSON.
///
/// ```
/// use recurrent::serde_json::json;
/// use recurrent::{Cell, DType, Device, StepContext, Tensor, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let gru = json!({ "type": "GRUCell", "num_units": 3, "kernel_initializer": "zeros" });
/// let options = json!({ "type": "ResidualWrapper", "cell": gru });
/// let cell = cell_from_config(&device, &options, 3, DType::F32)?;
/// let x = Tensor::ones(&device, &[1, 3])?;
/// // A GRU whose candidate is 0 keeps its state of 0; the input is added.
/// let (output, _) = cell.step(&StepContext::default(), &x, &cell.zero_state(1)?)?;
/// assert_eq!(output.to_vec::<f32>()?, [1.0; 3]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResidualWrapperConfig {
    cell: Value,
    #[serde(default)]
    residual_fn: Option<NamedFn>,
}

/// The functions that have a name in JSON.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NamedFn {
    /// `x * y + y`
    MulAdd,
}

impl CellConfig for ResidualWrapperConfig {
    const CLASS: &'static str = "ResidualWrapper";
    type Cell<B: Backend> = ResidualWrapper<AnyCell<B>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let cell = cell_from_config(device, &self.cell, input_size, dtype)?;
        let wrapper = ResidualWrapper::new(cell);
        Ok(match self.residual_fn {
            Some(NamedFn::MulAdd) => wrapper.residual_fn(|x, y| x.mul(y)?.add(y)),
            None => wrapper,
        })
    }
}
