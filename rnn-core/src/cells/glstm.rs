//! The group LSTM cell.

use backend_api::{Activation, Backend, Error, Result, Tensor};

use super::builder::cell_builder;
use super::lstm_core::LstmSizes;
use super::{CellSize, LstmState};
use crate::{Cell, Initializer, Module, Param, StepContext, Visitor};

backend_api::shared_doc! { glstm_cell_doc:
/// The group LSTM cell (Kuchaiev & Ginsburg 2017; TensorFlow's `tf.contrib.rnn.GLSTMCell`). Input,
/// state and units are split into groups, and each group of units depends only on its own group of
/// input and state. All kernels together are smaller than a single one by the number of groups.
/// With `i, j, f, o` the gates, each the concatenation of its groups:
///
/// `i_g, j_g, f_g, o_g = [x_g, h_g] · group{g}/kernel`,
/// `c' = σ(f + bias_f + forget_bias) * c + σ(i + bias_i) * tanh(j + bias_j)`,
/// `h' = σ(o + bias_o) * act(c') [· projection]`; the output is `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `group{g}/kernel` | `[(input + p) / groups, 4 units / groups]`, rows `x, h` | Glorot uniform |
/// | `bias_i`, `bias_j`, `bias_f`, `bias_o` | `[units]` | 0 |
/// | `projection/kernel` | `[units, p]`, with a projection | Glorot uniform |
///
/// `p` is `num_proj`, or `units` without a projection. Input `[batch, input]`; state `c`
/// `[batch, units]`, `h` `[batch, p]`; output `[batch, p]`. The number of groups divides `input`,
/// `units` and `p`.
///
/// ```
/// use recurrent::cells::GlstmCellBuilder;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = GlstmCellBuilder::new(4, 6).number_of_groups(2).build(&Device::cpu())?;
/// assert_eq!(cell.param_count(), 2 * 5 * 12 + 4 * 6);
/// # Ok(()) }
/// ```
}

#[doc = glstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct GlstmCell<B: Backend> {
    input: usize,
    sizes: LstmSizes,
    forget_bias: f64,
    activation: Activation,
    groups: Vec<Param<B>>,
    /// The biases of `i, j, f, o`.
    biases: [Param<B>; 4],
    projection: Option<Param<B>>,
}

cell_builder! {
    GlstmCellBuilder builds GlstmCell, TensorFlow "GLSTMCell", scope "glstm_cell";
    num_units;
    /// The number of groups. Default: 1.
    number_of_groups: usize = 1,
    /// Value added to the forget gate before its sigmoid. Default: 1.
    forget_bias: f64 = 1.0,
    /// Activation of the new cell state. Default: tanh. The candidate's is always tanh, as in
    /// TensorFlow.
    activation: Activation = Activation::Tanh,
    ;
    /// Width of the output projection. Default: no projection.
    num_proj: usize,
    /// Initializer of the kernels and the projection. Default: Glorot uniform.
    initializer: Initializer,
}

impl GlstmCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the number of groups does not divide the input, the units or the projection,
    /// the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<GlstmCell<B>> {
        let cell = self.sizes()?;
        let sizes = LstmSizes::new(cell, self.num_proj)?;
        let CellSize {
            input,
            units,
            dtype,
            ..
        } = cell;
        let (groups, output) = (self.number_of_groups, sizes.output());
        for (what, size) in [
            ("num_units", units),
            ("num_proj", output),
            ("the input depth", input),
        ] {
            if groups == 0 || !size.is_multiple_of(groups) {
                let problem = format!("is {groups}, which does not divide {what} = {size}");
                return Err(Error::argument(cell.cell, "number_of_groups", problem));
            }
        }
        let first = self.initializer.unwrap_or_default();
        let kernels = |dims: &[usize]| Param::new(device, first, dims, dtype);
        let kernel = [(input + output) / groups, 4 * units / groups];
        let bias = || Param::new(device, Initializer::ZEROS, &[units], dtype);
        Ok(GlstmCell {
            input,
            sizes,
            forget_bias: self.forget_bias,
            activation: self.activation,
            groups: (0..groups)
                .map(|_| kernels(&kernel))
                .collect::<Result<_>>()?,
            biases: [bias()?, bias()?, bias()?, bias()?],
            projection: self.num_proj.map(|p| kernels(&[units, p])).transpose()?,
        })
    }
}

/// `[batch, groups * rows] -> [batch, 4 units]`: multiplies each group by its kernel in one batched
/// matmul. The result is ordered by gate first and group second. The kernels are
/// `[groups, rows, 4 units / groups]`.
fn grouped_product<B: Backend>(v: &Tensor<B>, kernels: &Tensor<B>) -> Result<Tensor<B>> {
    let [groups, rows, columns] = [kernels.shape()[0], kernels.shape()[1], kernels.shape()[2]];
    let batch = v.shape()[0];
    let v = v.reshape(&[batch, groups, rows])?.permute(&[1, 0, 2])?;
    let z = v.contiguous()?.matmul(kernels)?;
    let z = z.reshape(&[groups, batch, 4, columns / 4])?;
    z.permute(&[1, 2, 0, 3])?
        .reshape(&[batch, groups * columns])
}

impl<B: Backend> Module for GlstmCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.sizes.params(v);
        for (g, kernel) in self.groups.iter_mut().enumerate() {
            v.param(&format!("group{g}/kernel"), kernel);
        }
        let names = ["bias_i", "bias_j", "bias_f", "bias_o"];
        for (name, bias) in names.into_iter().zip(&mut self.biases) {
            v.param(name, bias);
        }
        if let Some(projection) = &mut self.projection {
            v.param("projection/kernel", projection);
        }
    }
}

impl<B: Backend> Cell for GlstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "glstm_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        self.sizes.zero_state(self.biases[0].device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zero_output(self.biases[0].device(), batch)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        self.sizes.step(x, state)?;
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|g| g.unsqueeze(0))
            .collect::<Result<_>>()?;
        let kernels = Tensor::concat(&groups.iter().collect::<Vec<_>>(), 0)?;
        let rows = self.input / self.groups.len();
        let of_x = kernels.slice(1, 0..rows)?;
        let of_h = kernels.slice(1, rows..kernels.shape()[1])?;
        let bias = Tensor::concat(&self.biases.each_ref().map(Param::value), 0)?;
        let z = grouped_product(x, &of_x)?.add(&bias)?;
        let z = z.add(&grouped_product(&state.h, &of_h)?)?.split_last(4)?;
        let [i, j, f, o] = [&z[0], &z[1], &z[2], &z[3]];
        let kept = f.affine(1.0, self.forget_bias)?.sigmoid()?.mul(&state.c)?;
        let c = kept.add(&i.sigmoid()?.mul(&j.tanh()?)?)?;
        let mut h = o.sigmoid()?.mul(&c.activate(self.activation)?)?;
        if let Some(projection) = &self.projection {
            h = h.matmul(projection)?;
        }
        Ok((h.clone(), LstmState { c, h }))
    }
}
