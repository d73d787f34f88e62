//! The weights of one direction, in ONNX's layout and in that of cells.

use backend_api::{Backend, Result, Tensor};

/// The weights of one direction, as the node has them.
#[derive(Clone, Debug)]
pub(super) struct Weights<B: Backend> {
    /// `[gates n, input]`
    pub(super) input: Tensor<B>,
    /// `[gates n, n]`
    pub(super) recurrent: Tensor<B>,
    /// The biases of both products, `[2 gates n]`.
    pub(super) bias: Tensor<B>,
    /// Of the gates i, o and f: `[3 n]`.
    pub(super) peepholes: Option<Tensor<B>>,
}

impl<B: Backend> Weights<B> {
    pub(super) fn units(&self) -> usize {
        self.recurrent.dims()[1]
    }

    pub(super) fn inputs(&self) -> usize {
        self.input.dims()[1]
    }

    /// The biases of the two products.
    pub(super) fn biases(&self) -> Result<[Tensor<B>; 2]> {
        let width = self.recurrent.dims()[0];
        Ok([
            self.bias.slice(0, 0..width)?,
            self.bias.slice(0, width..2 * width)?,
        ])
    }

    /// The blocks of `n` rows of a matrix or vector in another order.
    pub(super) fn blocks(&self, of: &Tensor<B>, order: &[usize]) -> Result<Tensor<B>> {
        let n = self.units();
        let parts: Vec<Tensor<B>> = order
            .iter()
            .map(|&i| of.slice(0, i * n..(i + 1) * n))
            .collect::<Result<_>>()?;
        Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)
    }

    /// The kernel `[input + n, blocks n]` and the bias of a cell, of these blocks.
    pub(super) fn affine(&self, order: &[usize]) -> Result<[Tensor<B>; 2]> {
        let [input, recurrent] =
            [&self.input, &self.recurrent].map(|w| self.blocks(w, order)?.transpose(0, 1));
        let [of_input, of_state] = self.biases()?;
        let bias = of_input.add(&of_state)?;
        Ok([
            Tensor::concat(&[&input?, &recurrent?], 0)?,
            self.blocks(&bias, order)?,
        ])
    }
}
