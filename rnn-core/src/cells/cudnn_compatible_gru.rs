//! The GRU that cuDNN computes.

use backend_api::{Backend, Result, Tensor};

use super::builder::cell_builder;
use super::same_as::same_as_inner;
use super::{GruCell, GruCellBuilder};
use crate::{Initializer, Module, Visitor};

backend_api::shared_doc! { cudnn_compatible_gru_cell_doc:
/// The GRU that cuDNN computes, with the reset gate applied after the matmul (TensorFlow's
/// `tf.contrib.cudnn_rnn.CudnnCompatibleGRUCell`; the first version of Cho et al. 2014,
/// <https://arxiv.org/abs/1406.1078v1>): a [`GruCell`] with tanh and
/// [`reset_after`](crate::cells::GruCellBuilder::reset_after).
///
/// `r, u = σ([x, h] · gates/kernel + gates/bias)`, `q = tanh(x · Wx + bx + r * (h · Wh + bh))`,
/// `h' = (1 - u) * q + u * h`; output and state are `h'`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `gates/kernel` | `[input + units, 2 units]`, rows `x, h`, columns `r, u` | Glorot uniform |
/// | `gates/bias` | `[2 units]` | 1 |
/// | `candidate/input_projection/kernel` (`Wx`) | `[input, units]` | Glorot uniform |
/// | `candidate/hidden_projection/kernel` (`Wh`) | `[units, units]` | Glorot uniform |
/// | `candidate/input_projection/bias` (`bx`) | `[units]` | 0 |
/// | `candidate/hidden_projection/bias` (`bh`) | `[units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use recurrent::cells::CudnnCompatibleGruCell;
/// use recurrent::{Cell, Device, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = CudnnCompatibleGruCell::new(&device, 3, 5)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?;
/// let (output, state) = cell.step(&StepContext::default(), &x, &cell.zero_state(2)?)?;
/// assert_eq!(output.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
}

#[doc = cudnn_compatible_gru_cell_doc!()]
#[derive(Clone, Debug)]
pub struct CudnnCompatibleGruCell<B: Backend> {
    cell: GruCell<B>,
}

cell_builder! {
    CudnnCompatibleGruCellBuilder builds CudnnCompatibleGruCell,
    TensorFlow "CudnnCompatibleGRUCell", scope "cudnn_compatible_gru_cell";
    num_units;
    ;
    /// Initializer of the kernels. Default: Glorot uniform.
    kernel_initializer: Initializer,
}

impl CudnnCompatibleGruCellBuilder {
    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<CudnnCompatibleGruCell<B>> {
        let sizes = self.sizes()?;
        let mut cell = GruCellBuilder::new(sizes.input, sizes.units).reset_after(true);
        if let Some(initializer) = self.kernel_initializer {
            cell = cell.kernel_initializer(initializer);
        }
        Ok(CudnnCompatibleGruCell {
            cell: cell.build_sized(device, sizes)?,
        })
    }
}

impl<B: Backend> Module for CudnnCompatibleGruCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.cell.params(v);
    }
}

same_as_inner!(
    CudnnCompatibleGruCell,
    Tensor<B>,
    "cudnn_compatible_gru_cell"
);
