//! The weights of one direction, in ONNX's layout and in that of cells.

use backend_api::{Backend, Result, Tensor};
use rnn_core::{AnyCell, BasicRnnCell, GruCell, LstmCell};

use super::options::{Equations, Kind};
use super::{Function, composed};

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

    fn inputs(&self) -> usize {
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
    fn blocks(&self, of: &Tensor<B>, order: &[usize]) -> Result<Tensor<B>> {
        let n = self.units();
        let parts: Vec<Tensor<B>> = order
            .iter()
            .map(|&i| of.slice(0, i * n..(i + 1) * n))
            .collect::<Result<_>>()?;
        Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)
    }

    /// The kernel `[input + n, blocks n]` and the bias of a cell, of these blocks.
    fn affine(&self, order: &[usize]) -> Result<[Tensor<B>; 2]> {
        let [input, recurrent] =
            [&self.input, &self.recurrent].map(|w| self.blocks(w, order)?.transpose(0, 1));
        let [of_input, of_state] = self.biases()?;
        let bias = of_input.add(&of_state)?;
        Ok([
            Tensor::concat(&[&input?, &recurrent?], 0)?,
            self.blocks(&bias, order)?,
        ])
    }

    /// The cell with these weights: one of the crate's if it has the options.
    pub(super) fn cell(
        &self,
        kind: Kind,
        equations: Equations,
        functions: &[Function],
    ) -> Result<AnyCell<B>> {
        let plain: Option<Vec<_>> = functions.iter().map(|f| f.plain()).collect();
        let sigmoid = backend_api::Activation::Sigmoid;
        let (inputs, units) = (self.inputs(), self.units());
        let (device, dtype) = (self.input.device(), self.input.dtype());
        let own = equations.clip.is_none() && !equations.coupled;
        match (kind, plain.as_deref()) {
            (Kind::Rnn, Some([activation])) if own => {
                let cell = BasicRnnCell::<B>::builder(inputs, units).activation(*activation);
                let [kernel, bias] = self.affine(&[0])?;
                let values = [("kernel", kernel), ("bias", bias)];
                filled(cell.dtype(dtype).build(device)?, values)
            }
            (Kind::Gru, Some([gate, activation])) if own && *gate == sigmoid => {
                let cell = GruCell::<B>::builder(inputs, units)
                    .activation(*activation)
                    .reset_after(equations.reset_after);
                filled(
                    cell.dtype(dtype).build(device)?,
                    self.gru(equations.reset_after)?,
                )
            }
            (Kind::Lstm, Some([gate, candidate, output]))
                if own && *gate == sigmoid && candidate == output =>
            {
                let cell = LstmCell::<B>::builder(inputs, units)
                    .activation(*candidate)
                    .forget_bias(0.0)
                    .use_peepholes(self.peepholes.is_some());
                let [kernel, bias] = self.affine(&[0, 3, 2, 1])?;
                let mut values = vec![("kernel", kernel), ("bias", bias)];
                if let Some(p) = &self.peepholes {
                    for (i, name) in ["w_i_diag", "w_o_diag", "w_f_diag"].into_iter().enumerate() {
                        values.push((name, self.blocks(p, &[i])?));
                    }
                }
                filled(cell.dtype(dtype).build(device)?, values)
            }
            _ => composed::cell(self, kind, equations, functions),
        }
    }

    fn gru(&self, reset_after: bool) -> Result<Vec<(&'static str, Tensor<B>)>> {
        let [gates, bias] = self.affine(&[1, 0])?;
        let mut values = vec![("gates/kernel", gates), ("gates/bias", bias)];
        if reset_after {
            let [of_input, of_state] = self.biases()?;
            let turned = |w: &Tensor<B>| self.blocks(w, &[2])?.transpose(0, 1)?.contiguous();
            values.extend([
                ("candidate/input_projection/kernel", turned(&self.input)?),
                (
                    "candidate/hidden_projection/kernel",
                    turned(&self.recurrent)?,
                ),
                (
                    "candidate/input_projection/bias",
                    self.blocks(&of_input, &[2])?,
                ),
                (
                    "candidate/hidden_projection/bias",
                    self.blocks(&of_state, &[2])?,
                ),
            ]);
        } else {
            let [kernel, bias] = self.affine(&[2])?;
            values.extend([("candidate/kernel", kernel), ("candidate/bias", bias)]);
        }
        Ok(values)
    }
}

/// A cell with these values as its parameters.
fn filled<B, C>(
    mut cell: C,
    values: impl IntoIterator<Item = (&'static str, Tensor<B>)>,
) -> Result<AnyCell<B>>
where
    B: Backend,
    C: rnn_core::Cell<Backend = B, Input = Tensor<B>, Output = Tensor<B>>,
{
    let values: Vec<_> = values.into_iter().collect();
    cell.each_param(
        &mut |name, param| match values.iter().find(|(other, _)| *other == name) {
            Some((_, value)) => param.set(value.clone()),
            None => Err(backend_api::Error::argument("onnx", name, "has no value")),
        },
    )?;
    Ok(AnyCell::new(cell))
}
