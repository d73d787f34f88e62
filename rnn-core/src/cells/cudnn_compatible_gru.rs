//! The GRU that cuDNN computes.

use backend_api::{Activation, Backend, DType, Error, Fused, Op, Result, Tensor};
use serde::Deserialize;

use super::affine::project;
use super::{Affine, Sizes};
use crate::{Cell, CellConfig, Initializer, Module, Param, Step, Unroll, Visitor};

/// The GRU that cuDNN computes, which resets after the product (TensorFlow's
/// `tf.contrib.cudnn_rnn.CudnnCompatibleGRUCell`; the first version of Cho et al. 2014,
/// <https://arxiv.org/abs/1406.1078v1>):
///
/// `r, u = σ([x, h] · gates/kernel + gates/bias)`,
/// `q = tanh(x · Wx + bx + r * (h · Wh + bh))`, `h' = (1 - u) * q + u * h`; output and state are `h'`.
///
/// | parameter | shape | first value |
/// |---|---|---|
/// | `gates/kernel` | `[input + units, 2 units]`, rows of the input first, columns `r, u` | Glorot uniform |
/// | `gates/bias` | `[2 units]` | 1 |
/// | `candidate/input_projection/kernel` (`Wx`) | `[input, units]` | Glorot uniform |
/// | `candidate/hidden_projection/kernel` (`Wh`) | `[units, units]` | Glorot uniform |
/// | `candidate/input_projection/bias` (`bx`) | `[units]` | 0 |
/// | `candidate/hidden_projection/bias` (`bh`) | `[units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use backend_api::Tensor;
/// use backend_cpu::Cpu;
/// use rnn_core::cells::CudnnCompatibleGruCell;
/// use rnn_core::{Cell, Step};
///
/// # fn main() -> backend_api::Result<()> {
/// let device = Cpu::new();
/// let cell = CudnnCompatibleGruCell::new(&device, 3, 5)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?;
/// let (output, state) = cell.step(&Step::default(), &x, &cell.zero_state(2)?)?;
/// assert_eq!(output.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CudnnCompatibleGruCell<B: Backend> {
    sizes: Sizes,
    gates: Affine<B>,
    input: Linear<B>,
    hidden: Linear<B>,
}

/// One of the two projections that the candidate is made of.
#[derive(Clone, Debug)]
struct Linear<B: Backend> {
    kernel: Param<B>,
    bias: Param<B>,
}

impl<B: Backend> Linear<B> {
    fn new(device: &B, sizes: Sizes, rows: usize) -> Result<Self> {
        let param = |first, dims: &[usize]| Param::new(device, first, dims, sizes.dtype);
        Ok(Self {
            kernel: param(Initializer::GlorotUniform, &[rows, sizes.units])?,
            bias: param(Initializer::ZEROS, &[sizes.units])?,
        })
    }
}

impl<B: Backend> CudnnCompatibleGruCell<B> {
    /// A cell with TensorFlow's defaults: `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device has no room.
    pub fn new(device: &B, input_size: usize, num_units: usize) -> Result<Self> {
        CudnnCompatibleGruCellBuilder::new(input_size, num_units).build(device)
    }

    /// A cell with options.
    pub fn builder(input_size: usize, num_units: usize) -> CudnnCompatibleGruCellBuilder {
        CudnnCompatibleGruCellBuilder::new(input_size, num_units)
    }

    /// What meets the state: `[units, 3 units]`, columns `r`, `u` and the candidate.
    fn recurrent(&self) -> Result<Tensor<B>> {
        Tensor::concat(&[&self.gates.recurrent_kernel()?, &*self.hidden.kernel], 1)
    }

    /// `[.., input] -> [.., 3 units]`: the input's share of `r`, `u` and the candidate, biases added.
    fn project(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        // Joined, so that the inputs are read once and the result is one block.
        let kernel = Tensor::concat(&[&self.gates.input_kernel()?, &*self.input.kernel], 1)?;
        let bias = Tensor::concat(&[self.gates.bias(), &*self.input.bias], 0)?;
        project(x, &kernel, &bias)
    }

    /// A step from the projected input.
    fn gated(
        &self,
        z: &Tensor<B>,
        recurrent: &Tensor<B>,
        h: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        let units = self.sizes.units;
        let device = z.device();
        let zh = h.matmul(recurrent)?;
        let share = |i: usize| {
            let columns = i * units..(i + 1) * units;
            Ok::<_, Error>((z.slice(1, columns.clone())?, zh.slice(1, columns)?))
        };
        let [(zr, hr), (zu, hu), (zq, hq)] = [share(0)?, share(1)?, share(2)?];
        let r = zr.add(&hr)?.sigmoid()?;
        let u = zu.add(&hu)?.sigmoid()?;
        let zq = zq.add(&r.mul(&hq.add(&self.hidden.bias)?)?)?;
        let op = Op::Fused(Fused::GruOutput {
            activation: Activation::Tanh,
        });
        let h = Tensor::call_all(device, &op, &[&zq, &u, h])?.swap_remove(0);
        Ok((h.clone(), h))
    }
}

/// Options of a [`CudnnCompatibleGruCell`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudnnCompatibleGruCellBuilder {
    #[serde(skip)]
    input_size: usize,
    #[serde(skip)]
    dtype: DType,
    num_units: usize,
}

impl CudnnCompatibleGruCellBuilder {
    /// TensorFlow's defaults.
    pub fn new(input_size: usize, num_units: usize) -> Self {
        Self {
            input_size,
            dtype: DType::F32,
            num_units,
        }
    }

    /// The element type; `f32` if not given.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// The cell.
    ///
    /// # Errors
    /// A size is 0, the type is no float, or the device has no room.
    pub fn build<B: Backend>(self, device: &B) -> Result<CudnnCompatibleGruCell<B>> {
        let sizes = Sizes {
            cell: "cudnn_compatible_gru_cell",
            input: self.input_size,
            units: self.num_units,
            dtype: self.dtype,
        }
        .check()?;
        let units = sizes.units;
        Ok(CudnnCompatibleGruCell {
            sizes,
            gates: Affine::new(device, sizes, 2 * units, Initializer::ONES)?,
            input: Linear::new(device, sizes, sizes.input)?,
            hidden: Linear::new(device, sizes, units)?,
        })
    }
}

impl CellConfig for CudnnCompatibleGruCellBuilder {
    const CLASS: &'static str = "CudnnCompatibleGRUCell";
    type Cell<B: Backend> = CudnnCompatibleGruCell<B>;

    fn build_for<B: Backend>(
        mut self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<CudnnCompatibleGruCell<B>> {
        self.input_size = input_size;
        self.dtype(dtype).build(device)
    }
}

impl<B: Backend> Module for CudnnCompatibleGruCell<B> {
    type B = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.child("gates", &mut self.gates);
        v.param("candidate/input_projection/kernel", &mut self.input.kernel);
        v.param(
            "candidate/hidden_projection/kernel",
            &mut self.hidden.kernel,
        );
        v.param("candidate/input_projection/bias", &mut self.input.bias);
        v.param("candidate/hidden_projection/bias", &mut self.hidden.bias);
    }
}

impl<B: Backend> Cell for CudnnCompatibleGruCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "cudnn_compatible_gru_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<Tensor<B>> {
        self.sizes.zeros(self.gates.device(), batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        self.zero_state(batch)
    }

    fn step(&self, _: &Step, x: &Tensor<B>, h: &Tensor<B>) -> Result<(Tensor<B>, Tensor<B>)> {
        let batch = self.sizes.input(x)?;
        self.sizes.state("state", h, batch)?;
        self.gated(&self.project(x)?, &self.recurrent()?, h)
    }

    fn unroll(
        &self,
        u: &Unroll<B>,
        xs: &Tensor<B>,
        h: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        let batch = self.sizes.sequence(xs)?;
        self.sizes.state("state", h, batch)?;
        let cell = self.clone();
        u.segments(xs, h, move |u, xs, h| {
            let recurrent = cell.recurrent()?;
            let z = cell.project(xs)?;
            let zero = cell.zero_output(u.batch())?;
            u.scan(&z, h, &zero, |_, z, h| cell.gated(z, &recurrent, h))
        })
    }
}
