//! TensorFlow's `HighwayWrapper`.

use backend_api::{Activation, Backend, DType, Error, Fused, Result, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::sample_output;
use crate::{
    AnyCell, Cell, CellConfig, Initializer, Module, Param, StepContext, Unroll, Visitor,
    cell_from_config,
};

/// A cell with highway gates, which pass the input around the cell (Srivastava et al. 2015;
/// TensorFlow's `HighwayWrapper`):
///
/// `y, state' = cell(x, state)`, `carry = σ(x · carry_w + carry_b)`; the output is
/// `x * carry + y * (1 - carry)`. With uncoupled gates the output is
/// `x * carry + y * σ(x · transform_w + transform_b)`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `carry_w` | `[size, size]` | Glorot uniform |
/// | `carry_b` | `[size]` | `carry_bias_init` |
/// | `transform_w`, `transform_b` | the same, if uncoupled | Glorot uniform, `-carry_bias_init` |
///
/// The cell's parameters are in its own scope, beside these; the wrapper has no scope. Input and
/// output are `[batch, size]`, so the cell's output must be as wide as its input. The state is the
/// cell's.
///
/// ```
/// use recurrent::wrappers::HighwayWrapper;
/// use recurrent::{Device, GruCell, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = HighwayWrapper::new(GruCell::new(&Device::cpu(), 5, 5)?)?;
/// let params = cell.named_params();
/// assert_eq!((params[0].0.as_str(), params[2].0.as_str()), ("carry_w", "gru_cell/gates/kernel"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct HighwayWrapper<C: Cell> {
    cell: C,
    carry: Gate<C::Backend>,
    transform: Option<Gate<C::Backend>>,
}

/// `σ(x · w + b)`
#[derive(Clone, Debug)]
struct Gate<B: Backend> {
    w: Param<B>,
    b: Param<B>,
}

impl<B: Backend> Gate<B> {
    /// Creates a gate for outputs with the shape of `like`.
    fn new(like: &Tensor<B>, bias: f64) -> Result<Self> {
        let (device, size, dtype) = (like.device(), like.shape().last(), like.dtype());
        Ok(Self {
            w: Param::new(device, Initializer::GlorotUniform, &[size, size], dtype)?,
            b: Param::new(device, Initializer::Constant(bias), &[size], dtype)?,
        })
    }

    fn open(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        let activation = Activation::Sigmoid;
        x.matmul(&self.w)?
            .fused(Fused::BiasActivation { activation }, &[&self.b])
    }
}

impl<C: Cell<Output = Tensor<<C as Module>::Backend>>> HighwayWrapper<C> {
    /// Wraps a cell, with coupled gates and a carry bias of 1, so that the wrapper initially passes
    /// its input on.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(cell: C) -> Result<Self> {
        Self::with(cell, true, 1.0)
    }

    /// Wraps a cell, with options.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(cell: C, couple_carry_transform_gates: bool, carry_bias_init: f64) -> Result<Self> {
        let y = sample_output(&cell)?;
        let carry = Gate::new(&y, carry_bias_init)?;
        let transform = (!couple_carry_transform_gates)
            .then(|| Gate::new(&y, -carry_bias_init))
            .transpose()?;
        Ok(Self {
            cell,
            carry,
            transform,
        })
    }

    /// Mixes input and output, of one step or of all steps.
    fn mix(&self, x: &Tensor<C::Backend>, y: &Tensor<C::Backend>) -> Result<Tensor<C::Backend>> {
        if x.shape() != y.shape() {
            let expected = format!("the output is {}", y.shape());
            return Err(Error::shape("highway_wrapper", "x", x.shape(), expected));
        }
        // A matmul over all steps needs contiguous rows.
        let x = x.contiguous()?;
        let carry = self.carry.open(&x)?;
        match &self.transform {
            Some(transform) => x.mul(&carry)?.add(&y.mul(&transform.open(&x)?)?),
            None => y.add(&carry.mul(&x.sub(y)?)?),
        }
    }
}

impl<C: Cell> Module for HighwayWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        v.param("carry_w", &mut self.carry.w);
        v.param("carry_b", &mut self.carry.b);
        if let Some(transform) = &mut self.transform {
            v.param("transform_w", &mut transform.w);
            v.param("transform_b", &mut transform.b);
        }
        v.child(&self.cell.scope(), &mut self.cell);
    }
}

impl<C> Cell for HighwayWrapper<C>
where
    C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
{
    type Input = C::Input;
    type State = C::State;
    type Output = C::Output;

    fn zero_state(&self, batch: usize) -> Result<C::State> {
        self.cell.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        self.cell.zero_output(batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        x: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let (y, state) = self.cell.step(cx, x, state)?;
        Ok((self.mix(x, &y)?, state))
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        xs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let wrapper = self.clone();
        u.segments(xs, state, move |u, xs, state| {
            let (ys, state) = wrapper.cell.unroll(u, xs, state)?;
            Ok((u.mask_padding(&wrapper.mix(xs, &ys)?)?, state))
        })
    }
}

/// Options of a [`HighwayWrapper`] around a cell from JSON.
///
/// ```
/// use recurrent::serde_json::json;
/// use recurrent::{Cell, DType, Device, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let gru = json!({ "type": "GRUCell", "num_units": 3 });
/// let options = json!({ "type": "HighwayWrapper", "cell": gru, "carry_bias_init": -2.0 });
/// let cell = cell_from_config(&Device::cpu(), &options, 3, DType::F32)?;
/// assert_eq!(cell.output_size()?.total(), 3);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HighwayWrapperConfig {
    cell: Value,
    #[serde(default = "coupled")]
    couple_carry_transform_gates: bool,
    #[serde(default = "one")]
    carry_bias_init: f64,
}

fn coupled() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

impl CellConfig for HighwayWrapperConfig {
    const CLASS: &'static str = "HighwayWrapper";
    type Cell<B: Backend> = HighwayWrapper<AnyCell<B>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let cell = cell_from_config(device, &self.cell, input_size, dtype)?;
        let coupled = self.couple_carry_transform_gates;
        HighwayWrapper::with(cell, coupled, self.carry_bias_init)
    }
}
