//! The GRU of TensorFlow's block kernel.

use backend_api::{Backend, DType, Result, Tensor};
use serde::Deserialize;

use super::same_as::same_as_inner;
use super::{GruCell, GruCellBuilder};
use crate::{CellConfig, Initializer, Module, Visitor};

backend_api::shared_doc! { gru_block_cell_doc:
/// The GRU that TensorFlow computes in one kernel (Cho et al. 2014,
/// <https://arxiv.org/abs/1406.1078>; `tf.contrib.rnn.GRUBlockCell`, or `GRUBlockCellV2` with
/// [`v2`](crate::cells::GruBlockCellBuilder::v2)): a [`GruCell`] with tanh.
///
/// `r, u = σ([x, h] · w_ru + b_ru)`, `q = tanh([x, r * h] · w_c + b_c)`,
/// `h' = u * h + (1 - u) * q`; output and state are `h'`.
///
/// | parameter | with `v2` | shape | initial value |
/// |---|---|---|---|
/// | `w_ru` | `gates/kernel` | `[input + units, 2 units]`, columns `r, u` | Glorot uniform |
/// | `b_ru` | `gates/bias` | `[2 units]` | 1 |
/// | `w_c` | `candidate/kernel` | `[input + units, units]` | Glorot uniform |
/// | `b_c` | `candidate/bias` | `[units]` | 0 |
///
/// The first rows of a kernel are multiplied by `x`, the others by `h`. Input `[batch, input]`,
/// state and output `[batch, units]`. The scope is `gru_cell`.
///
/// ```
/// use recurrent::cells::GruBlockCell;
/// use recurrent::{Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = GruBlockCell::new(&Device::cpu(), 3, 5)?;
/// let names: Vec<String> = cell.named_params().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["w_ru", "b_ru", "w_c", "b_c"]);
/// # Ok(()) }
/// ```
}

#[doc = gru_block_cell_doc!()]
#[derive(Clone, Debug)]
pub struct GruBlockCell<B: Backend> {
    v2: bool,
    cell: GruCell<B>,
}

impl<B: Backend> GruBlockCell<B> {
    /// Creates a cell with TensorFlow's defaults: the parameter names of the first version, `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(device: &B, input_size: usize, num_units: usize) -> Result<Self> {
        GruBlockCellBuilder::new(input_size, num_units).build(device)
    }

    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(input_size: usize, num_units: usize) -> GruBlockCellBuilder {
        GruBlockCellBuilder::new(input_size, num_units)
    }
}

/// Options of a [`GruBlockCell`]: each method sets one.
///
/// `GruBlockCell::builder(input_size, num_units)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::GruBlockCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = GruBlockCell::builder(3, 8).v2(true);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GruBlockCellBuilder {
    #[serde(skip)]
    input_size: usize,
    #[serde(skip)]
    dtype: DType,
    num_units: usize,
    #[serde(default)]
    v2: bool,
    #[serde(default)]
    kernel_initializer: Option<Initializer>,
}

impl GruBlockCellBuilder {
    /// Creates a builder with TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
            v2: false,
            kernel_initializer: None,
        }
    }

    /// Whether to name the parameters as in [`GruCell`], as `GRUBlockCellV2` does. Default: false.
    pub fn v2(mut self, v2: bool) -> Self {
        self.v2 = v2;
        self
    }

    /// Initializer of both kernels. Default: Glorot uniform.
    pub fn kernel_initializer(mut self, initializer: Initializer) -> Self {
        self.kernel_initializer = Some(initializer);
        self
    }

    /// Sets the element type. Default: `f32`. TensorFlow's kernel has no `f64`.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<GruBlockCell<B>> {
        let inner = GruCellBuilder::new(self.input_size, self.num_units)
            .kernel_initializer(self.kernel_initializer.unwrap_or_default())
            .dtype(self.dtype);
        Ok(GruBlockCell {
            v2: self.v2,
            cell: inner.build(device)?,
        })
    }
}

impl CellConfig for GruBlockCellBuilder {
    const CLASS: &'static str = "GRUBlockCell";
    type Cell<B: Backend> = GruBlockCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<GruBlockCell<B>> {
        self.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}

impl<B: Backend> Module for GruBlockCell<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        if self.v2 {
            return self.cell.params(v);
        }
        v.dtype(&mut self.cell.sizes.dtype);
        let renamed = self.cell.each_param(&mut |name, param| {
            let name = match name {
                "gates/kernel" => "w_ru",
                "gates/bias" => "b_ru",
                "candidate/kernel" => "w_c",
                _ => "b_c",
            };
            v.param(name, param);
            Ok(())
        });
        debug_assert!(renamed.is_ok(), "the closure above never fails");
    }
}

same_as_inner!(GruBlockCell, Tensor<B>, "gru_cell");
