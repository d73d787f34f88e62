//! The cell found by neural architecture search.

use backend_api::{Activation, Backend, Result, Tensor};

use super::builder::cell_builder;
use super::lstm_core::LstmSizes;
use super::{CellSize, LstmState};
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { nas_cell_doc:
/// The cell found by neural architecture search (Zoph & Le 2016; TensorFlow's
/// `tf.contrib.rnn.NASCell`). With `i0..i7` the eight parts of `x · kernel` and `m0..m7` those of
/// `h · recurrent_kernel [+ bias]`:
///
/// `p0 = tanh(tanh(σ(i0 + m0) * relu(i1 + m1)) + c)`, `p1 = tanh(σ(i2 + m2) + relu(i3 * m3))`,
/// `p2 = tanh(tanh(i4 + m4) * σ(i5 + m5))`, `p3 = σ(tanh(i6 + m6) + σ(i7 + m7))`,
/// `c' = p0 * p1`, `h' = tanh(c' * tanh(p2 + p3)) [· projection_weights]`; the output is `h'`.
///
/// `i3` and `m3` are multiplied; the other pairs are added.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `recurrent_kernel` | `[p, 8 units]` | Glorot uniform |
/// | `kernel` | `[input, 8 units]` | Glorot uniform |
/// | `bias` | `[8 units]`, with `use_bias` | 0 |
/// | `projection_weights` | `[units, p]`, with a projection | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. Input `[batch, input]`; state `c`
/// `[batch, units]`, `h` `[batch, p]`; output `[batch, p]`.
///
/// ```
/// use recurrent::cells::NasCellBuilder;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = NasCellBuilder::new(3, 8).use_bias(true).num_proj(5).build(&Device::cpu())?;
/// let state = cell.zero_state(2)?;
/// assert_eq!((state.c.shape().dims(), state.h.shape().dims()), (&[2, 8][..], &[2, 5][..]));
/// # Ok(()) }
/// ```
}

#[doc = nas_cell_doc!()]
#[derive(Clone, Debug)]
pub struct NasCell<B: Backend> {
    sizes: LstmSizes,
    recurrent_kernel: Param<B>,
    kernel: Param<B>,
    bias: Option<Param<B>>,
    projection: Option<Param<B>>,
}

cell_builder! {
    NasCellBuilder builds NasCell, TensorFlow "NASCell", scope "nas_cell";
    num_units;
    /// Whether the cell has a bias. Default: false.
    use_bias: bool = false,
    ;
    /// Width of the output projection. Default: no projection.
    num_proj: usize,
    /// Initializer of both kernels and of the projection. Default: Glorot uniform.
    kernel_initializer: Initializer,
}

impl NasCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<NasCell<B>> {
        let cell = self.sizes()?;
        let sizes = LstmSizes::new(cell, self.num_proj)?;
        let CellSize {
            input,
            units,
            dtype,
            ..
        } = cell;
        let first = self.kernel_initializer.unwrap_or_default();
        let matrix = |dims: &[usize]| Param::new(device, first, dims, dtype);
        let bias = || Param::new(device, Initializer::ZEROS, &[8 * units], dtype);
        Ok(NasCell {
            sizes,
            recurrent_kernel: matrix(&[sizes.output(), 8 * units])?,
            kernel: matrix(&[input, 8 * units])?,
            bias: self.use_bias.then(bias).transpose()?,
            projection: self.num_proj.map(|p| matrix(&[units, p])).transpose()?,
        })
    }
}

impl<B: Backend> Module for NasCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.sizes.params(v);
        v.param("recurrent_kernel", &mut self.recurrent_kernel);
        v.param("kernel", &mut self.kernel);
        if let Some(bias) = &mut self.bias {
            v.param("bias", bias);
        }
        if let Some(projection) = &mut self.projection {
            v.param("projection_weights", projection);
        }
    }
}

impl<B: Backend> Cell for NasCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "nas_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        self.sizes.zero_state(self.kernel.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zero_output(self.kernel.device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        use Activation::{Relu, Sigmoid, Tanh};
        self.sizes.step(x, state)?;
        let z = x.matmul(&self.kernel)?;
        let mut m = state.h.matmul(&self.recurrent_kernel)?;
        if let Some(bias) = &self.bias {
            m = m.add(bias)?;
        }
        let sums = z.add(&m)?.split_last(8)?;
        let of = |k: usize, f| sums[k].activate(f);
        let multiplied = z.split_last(8)?[3].mul(&m.split_last(8)?[3])?.relu()?;
        let p0 = of(0, Sigmoid)?.mul(&of(1, Relu)?)?.tanh()?;
        let p0 = p0.add(&state.c)?.tanh()?;
        let p1 = of(2, Sigmoid)?.add(&multiplied)?.tanh()?;
        let p2 = of(4, Tanh)?.mul(&of(5, Sigmoid)?)?.tanh()?;
        let p3 = of(6, Tanh)?.add(&of(7, Sigmoid)?)?.sigmoid()?;
        let c = p0.mul(&p1)?;
        let mut h = c.mul(&p2.add(&p3)?.tanh()?)?.tanh()?;
        if let Some(projection) = &self.projection {
            h = h.matmul(projection)?;
        }
        Ok((h.clone(), LstmState { c, h }))
    }
}
