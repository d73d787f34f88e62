//! The cell of a direction: one of `rnn_core` if it has the options.

use backend_api::{Activation, Backend, Result, Tensor};
use rnn_core::{AnyCell, BasicRnnCell, GruCell, LstmCell};

use super::options::{Equations, Kind};
use super::weights::Weights;
use super::{Function, composed};

/// The cell with these weights.
pub(super) fn cell<B: Backend>(
    weights: &Weights<B>,
    kind: Kind,
    equations: Equations,
    functions: &[Function],
) -> Result<AnyCell<B>> {
    let plain: Option<Vec<_>> = functions.iter().map(|f| f.plain()).collect();
    let (inputs, units) = (weights.inputs(), weights.units());
    let (device, dtype) = (weights.input.device(), weights.input.dtype());
    let own = equations.clip.is_none() && !equations.coupled;
    match (kind, plain.as_deref()) {
        (Kind::Rnn, Some([activation])) if own => {
            let cell = BasicRnnCell::<B>::builder(inputs, units).activation(*activation);
            let [kernel, bias] = weights.affine(&[0])?;
            let values = [("kernel", kernel), ("bias", bias)];
            filled(cell.dtype(dtype).build(device)?, values)
        }
        (Kind::Gru, Some([gate, activation])) if own && *gate == Activation::Sigmoid => {
            let cell = GruCell::<B>::builder(inputs, units)
                .activation(*activation)
                .reset_after(equations.reset_after);
            filled(
                cell.dtype(dtype).build(device)?,
                gru(weights, equations.reset_after)?,
            )
        }
        (Kind::Lstm, Some([gate, candidate, output]))
            if own && *gate == Activation::Sigmoid && candidate == output =>
        {
            let cell = LstmCell::<B>::builder(inputs, units)
                .activation(*candidate)
                .forget_bias(0.0)
                .use_peepholes(weights.peepholes.is_some());
            let [kernel, bias] = weights.affine(&[0, 3, 2, 1])?;
            let mut values = vec![("kernel", kernel), ("bias", bias)];
            if let Some(p) = &weights.peepholes {
                for (i, name) in ["w_i_diag", "w_o_diag", "w_f_diag"].into_iter().enumerate() {
                    values.push((name, weights.blocks(p, &[i])?));
                }
            }
            filled(cell.dtype(dtype).build(device)?, values)
        }
        _ => composed::cell(weights, kind, equations, functions),
    }
}

fn gru<B: Backend>(
    weights: &Weights<B>,
    reset_after: bool,
) -> Result<Vec<(&'static str, Tensor<B>)>> {
    let [gates, bias] = weights.affine(&[1, 0])?;
    let mut values = vec![("gates/kernel", gates), ("gates/bias", bias)];
    if reset_after {
        let [of_input, of_state] = weights.biases()?;
        let turned = |w: &Tensor<B>| weights.blocks(w, &[2])?.transpose(0, 1)?.contiguous();
        values.extend([
            ("candidate/input_projection/kernel", turned(&weights.input)?),
            (
                "candidate/hidden_projection/kernel",
                turned(&weights.recurrent)?,
            ),
            (
                "candidate/input_projection/bias",
                weights.blocks(&of_input, &[2])?,
            ),
            (
                "candidate/hidden_projection/bias",
                weights.blocks(&of_state, &[2])?,
            ),
        ]);
    } else {
        let [kernel, bias] = weights.affine(&[2])?;
        values.extend([("candidate/kernel", kernel), ("candidate/bias", bias)]);
    }
    Ok(values)
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
