//! The intersection recurrent cell.

use backend_api::{Activation, Backend, Error, Result, Tensor};

use super::builder::cell_builder;
use super::math::mix;
use super::{Affine, CellSize, First};
use crate::{Cell, Dense, Initializer, Module, StepContext, Visitor};

backend_api::shared_doc! { intersection_rnn_cell_doc:
/// The intersection RNN, or +RNN (Collins et al. 2017; TensorFlow's
/// `tf.contrib.rnn.IntersectionRNNCell`). It has gates in time and in depth, so its output differs
/// from its state. With `gh, j, gy, y` the four parts of `[x, s] · kernel + bias`:
///
/// `s' = σ(gh + forget_bias) * s + (1 - σ(gh + forget_bias)) * tanh(j)`,
/// `output = σ(gy + forget_bias) * x + (1 - σ(gy + forget_bias)) * y_act(y)`.
///
/// If the depth of the input differs from `units`, the input is projected first:
/// `x = input · in_projection/kernel + in_projection/bias`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `in_projection/kernel` | `[input, units]`, if `input` is not `units` | Glorot uniform |
/// | `in_projection/bias` | `[units]`, if `input` is not `units` | 0 |
/// | `kernel` | `[2 units, 4 units]`, rows of `x` first, columns `gh, j, gy, y` | Glorot uniform |
/// | `bias` | `[4 units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::{IntersectionRnnCell, IntersectionRnnCellBuilder};
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = IntersectionRnnCellBuilder::new(3, 5).num_in_proj(5).build(&device)?;
/// assert_eq!(cell.zero_output(2)?.shape().dims(), [2, 5]);
/// // Without the projection the depths must be equal.
/// assert!(IntersectionRnnCell::new(&device, 3, 5).is_err());
/// # Ok(()) }
/// ```
}

#[doc = intersection_rnn_cell_doc!()]
#[derive(Clone, Debug)]
pub struct IntersectionRnnCell<B: Backend> {
    sizes: CellSize,
    forget_bias: f64,
    y_activation: Activation,
    in_projection: Option<Dense<B>>,
    affine: Affine<B>,
}

cell_builder! {
    IntersectionRnnCellBuilder builds IntersectionRnnCell,
    TensorFlow "IntersectionRNNCell", scope "intersection_rnn_cell";
    num_units;
    /// Value added to both gates before their sigmoids. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the output's candidate. Default: relu.
    y_activation: Activation = Activation::Relu,
    ;
    /// Width of the projection of inputs whose depth differs from `units`; must equal `units`.
    num_in_proj: usize,
    /// Initializer of the kernels. Default: Glorot uniform.
    initializer: Initializer,
}

impl IntersectionRnnCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the depth of the input differs from `units` and `num_in_proj` is not `units`,
    /// the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<IntersectionRnnCell<B>> {
        let sizes = self.sizes()?;
        let (input, units) = (sizes.input, sizes.units);
        let in_projection = if input == units {
            None
        } else if self.num_in_proj == Some(units) {
            let identity = Activation::Identity;
            let dense = Dense::with(device, input, units, identity, sizes.dtype)?;
            Some(dense.kernel_initializer(self.initializer.unwrap_or_default())?)
        } else {
            let is = match self.num_in_proj {
                Some(width) => format!("is {width}"),
                None => "is missing".into(),
            };
            let problem = format!(
                "{is}, but must be num_units = {units} to project an input depth of {input}"
            );
            return Err(Error::argument(sizes.cell, "num_in_proj", problem));
        };
        let projected = CellSize {
            input: units,
            ..sizes
        };
        Ok(IntersectionRnnCell {
            sizes,
            forget_bias: self.forget_bias,
            y_activation: self.y_activation,
            in_projection,
            affine: Affine::new(
                device,
                projected,
                4 * units,
                First::kernel(self.initializer),
            )?,
        })
    }
}

impl<B: Backend> Module for IntersectionRnnCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.dtype(&mut self.sizes.dtype);
        if let Some(projection) = &mut self.in_projection {
            v.child("in_projection", projection);
        }
        self.affine.params(v);
    }
}

impl<B: Backend> Cell for IntersectionRnnCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        self.sizes.cell.into()
    }

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.affine.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.zero_state(batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        s: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        self.sizes.state("state", s, self.sizes.input(x)?)?;
        let x = match &self.in_projection {
            Some(projection) => projection.forward(x)?,
            None => x.clone(),
        };
        let z = self.affine.apply(&x, s)?.split_last(4)?;
        let [gh, j, gy, y] = [&z[0], &z[1], &z[2], &z[3]];
        let gate = |g: &Tensor<B>| g.affine(1.0, self.forget_bias)?.sigmoid();
        let state = mix(&gate(gh)?, s, &j.tanh()?)?;
        let output = mix(&gate(gy)?, &x, &y.activate(self.y_activation)?)?;
        Ok((output, state))
    }
}
