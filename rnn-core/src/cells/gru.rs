//! The gated recurrent unit.

use backend_api::{Activation, Backend, Fused, Op, Recurrence, Result, Tensor};

use super::affine::project;
use super::builder::cell_builder;
use super::{Affine, Sizes};
use crate::{Cell, Initializer, Module, Step, Unroll, Visitor};

/// The gated recurrent unit (Cho et al. 2014; TensorFlow's `GRUCell`, which resets before the product):
///
/// `r, u = σ([x, h] · gates/kernel + gates/bias)`,
/// `q = act([x, r * h] · candidate/kernel + candidate/bias)`, `h' = u * h + (1 - u) * q`; output and
/// state are `h'`.
///
/// | parameter | shape | first value |
/// |---|---|---|
/// | `gates/kernel` | `[input + units, 2 units]`, rows of the input first, columns `r, u` | Glorot uniform |
/// | `gates/bias` | `[2 units]` | 1, so that the cell begins by keeping its state |
/// | `candidate/kernel` | `[input + units, units]` | Glorot uniform |
/// | `candidate/bias` | `[units]` | 0 |
///
/// Input `[batch, input]`, state and output `[batch, units]`.
///
/// ```
/// use backend_api::Tensor;
/// use backend_cpu::Cpu;
/// use rnn_core::{Cell, GruCell, Step};
///
/// # fn main() -> backend_api::Result<()> {
/// let device = Cpu::new();
/// let cell = GruCell::new(&device, 3, 5)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?;
/// let (output, state) = cell.step(&Step::default(), &x, &cell.zero_state(2)?)?;
/// assert_eq!(output.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct GruCell<B: Backend> {
    sizes: Sizes,
    activation: Activation,
    gates: Affine<B>,
    candidate: Affine<B>,
}

impl<B: Backend> GruCell<B> {
    /// The recurrent rows of the two kernels: gates, candidate.
    fn recurrent(&self) -> Result<[Tensor<B>; 2]> {
        Ok([
            self.gates.recurrent_kernel()?,
            self.candidate.recurrent_kernel()?,
        ])
    }

    /// `[.., input] -> [.., 3 units]`: the input's share of `r`, `u` and the candidate, biases added.
    fn project(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        let (gates, candidate) = (self.gates.input_kernel()?, self.candidate.input_kernel()?);
        // Joined, so that the inputs are read once and the result is one block.
        let kernel = Tensor::concat(&[&gates, &candidate], 1)?;
        let bias = Tensor::concat(&[self.gates.bias(), self.candidate.bias()], 0)?;
        project(x, &kernel, &bias)
    }

    /// A step from the projected input.
    fn gated(
        &self,
        z: &Tensor<B>,
        recurrent: &[Tensor<B>; 2],
        h: &Tensor<B>,
    ) -> Result<(Tensor<B>, Tensor<B>)> {
        let units = self.sizes.units;
        let device = z.device();
        let zg = h.matmul_add(&recurrent[0], &z.slice(1, 0..2 * units)?)?;
        let gates = Tensor::call_all(device, &Op::Fused(Fused::GruGates), &[&zg, h])?;
        let [u, rh] = [&gates[0], &gates[1]];
        let zq = rh.matmul_add(&recurrent[1], &z.slice(1, 2 * units..3 * units)?)?;
        let op = Op::Fused(Fused::GruOutput {
            activation: self.activation,
        });
        let h = Tensor::call_all(device, &op, &[&zq, u, h])?.swap_remove(0);
        Ok((h.clone(), h))
    }
}

cell_builder! {
    GruCellBuilder builds GruCell, TensorFlow "GRUCell", scope "gru_cell";
    num_units;
    /// The candidate's activation; tanh if not given.
    activation: Activation = Activation::Tanh,
}

impl GruCellBuilder {
    /// The cell.
    ///
    /// # Errors
    /// A size is 0, the type is no float, or the device has no room.
    pub fn build<B: Backend>(self, device: &B) -> Result<GruCell<B>> {
        let sizes = self.sizes()?;
        let units = sizes.units;
        Ok(GruCell {
            sizes,
            activation: self.activation,
            gates: Affine::new(device, sizes, 2 * units, Initializer::ONES)?,
            candidate: Affine::new(device, sizes, units, Initializer::ZEROS)?,
        })
    }
}

impl<B: Backend> Module for GruCell<B> {
    type B = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.child("gates", &mut self.gates);
        v.child("candidate", &mut self.candidate);
    }
}

impl<B: Backend> Cell for GruCell<B> {
    type Input = Tensor<B>;
    type State = Tensor<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        "gru_cell".into()
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
            let recurrence = Recurrence::Gru {
                activation: cell.activation,
            };
            let kernels = [&recurrent[0], &recurrent[1]];
            if let Some((outputs, mut state)) = u.sequence(recurrence, &z, &kernels, &[h])? {
                return Ok((outputs, state.swap_remove(0)));
            }
            let zero = cell.zero_output(u.batch())?;
            u.scan(&z, h, &zero, |_, z, h| cell.gated(z, &recurrent, h))
        })
    }
}
