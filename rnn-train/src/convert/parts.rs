//! The weights of a layer in a form that all frameworks share.

use std::collections::BTreeMap;

use backend_api::{Activation, Backend, DType, Error, Meta, Result, Tensor};
use rnn_core::{BasicRnnCell, Dense, Embedding, GruCell, Initializer, LayerNorm, LstmCell, Module};

use super::{Entries, Weights};

/// The number of gates and their permutation: gate `i` of this crate is gate `ORDER[i]` of the
/// other framework. Each permutation is its own inverse, so it converts both ways.
pub(super) type Order = &'static [usize];

/// A recurrence without gates.
pub(super) const PLAIN: Order = &[0];
/// Converts the LSTM gates `i, f, g, o` of other frameworks to this crate's `i, j, f, o`.
pub(super) const LSTM: Order = &[0, 2, 1, 3];

const KERNEL_X: &str = "candidate/input_projection/kernel";
const BIAS_X: &str = "candidate/input_projection/bias";
const KERNEL_H: &str = "candidate/hidden_projection/kernel";
const BIAS_H: &str = "candidate/hidden_projection/bias";

/// The weights of one layer in one direction. Inputs are multiplied by the matrices on the right;
/// gates are in this crate's order.
#[derive(Debug)]
pub(super) struct Parts<B: Backend> {
    /// `[depth, gates * units]`
    pub(super) input: Tensor<B>,
    /// `[state, gates * units]`
    pub(super) recurrent: Tensor<B>,
    /// `[gates * units]`: the biases added to the input's product and to the state's product.
    pub(super) biases: [Tensor<B>; 2],
    /// `[units, state]`
    pub(super) projection: Option<Tensor<B>>,
}

/// Permutes the gates along the last axis.
pub(super) fn reordered<B: Backend>(t: &Tensor<B>, order: Order) -> Result<Tensor<B>> {
    let last = t.shape().rank() - 1;
    let width = t.shape().last() / order.len();
    let gates: Vec<_> = order
        .iter()
        .map(|i| t.slice(last, i * width..(i + 1) * width))
        .collect::<Result<_>>()?;
    Tensor::concat(&gates.iter().collect::<Vec<_>>(), last)
}

pub(super) fn zeros_like<B: Backend>(t: &Tensor<B>) -> Result<Tensor<B>> {
    Tensor::zeros(t.device(), t.meta())
}

/// Zero biases for a layer without biases, given the kernel `[depth, gates * units]`.
pub(super) fn no_biases<B: Backend>(kernel: &Tensor<B>) -> Result<[Tensor<B>; 2]> {
    let meta = Meta::new(kernel.shape().without(0)?, kernel.dtype());
    let zeros = Tensor::zeros(kernel.device(), meta)?;
    Ok([zeros.clone(), zeros])
}

/// The bias `[4 units]` of an LSTM with the cell's forget bias added.
pub(super) fn with_forget_bias<B: Backend>(
    bias: &Tensor<B>,
    forget_bias: f64,
) -> Result<Tensor<B>> {
    let units = bias.shape()[0] / LSTM.len();
    let mut forget = vec![0.0; 4 * units];
    forget[2 * units..3 * units].fill(forget_bias);
    let forget = Tensor::from_slice(bias.device(), &forget, &[4 * units])?;
    bias.add(&forget.cast(bias.dtype())?)
}

impl<B: Backend> Parts<B> {
    fn dtype(&self) -> DType {
        self.input.dtype()
    }

    fn depth(&self) -> usize {
        self.input.shape()[0]
    }

    /// Width of the layer's output state.
    pub(super) fn state(&self) -> usize {
        self.recurrent.shape()[0]
    }

    /// The kernel `[depth + state, gates * units]`, and the sum of both biases.
    fn joined(&self) -> Result<[Tensor<B>; 2]> {
        Ok([
            Tensor::concat(&[&self.input, &self.recurrent], 0)?,
            self.biases[0].add(&self.biases[1])?,
        ])
    }

    pub(super) fn basic_rnn(&self, activation: Activation) -> Result<BasicRnnCell<B>> {
        let options = BasicRnnCell::<B>::builder(self.depth(), self.state())
            .activation(activation)
            .dtype(self.dtype());
        let [kernel, bias] = self.joined()?;
        let params = [("kernel", kernel), ("bias", bias)];
        filled(options.build(self.input.device())?, params)
    }

    pub(super) fn of_basic_rnn(cell: &BasicRnnCell<B>) -> Result<Self> {
        let mut params = Params::of(cell);
        let (kernel, bias) = (params.take("kernel")?, params.take("bias")?);
        let units = bias.shape()[0];
        Self::split(&kernel, units, bias, None)
    }

    /// The forget bias is 0, because other frameworks include it in the bias.
    pub(super) fn lstm(&self, activation: Activation) -> Result<LstmCell<B>> {
        let units = self.input.shape()[1] / LSTM.len();
        let mut options = LstmCell::<B>::builder(self.depth(), units)
            .forget_bias(0.0)
            .activation(activation)
            .dtype(self.dtype());
        if self.projection.is_some() {
            options = options.num_proj(self.state());
        }
        let [kernel, bias] = self.joined()?;
        let projection = self.projection.iter();
        let projection = projection.map(|p| ("projection/kernel", p.clone()));
        let params = [("kernel", kernel), ("bias", bias)];
        let cell = options.build(self.input.device())?;
        filled(cell, params.into_iter().chain(projection))
    }

    pub(super) fn of_lstm(op: &'static str, cell: &LstmCell<B>) -> Result<Self> {
        for (option, clip) in [
            ("cell_clip", cell.cell_clip()),
            ("proj_clip", cell.proj_clip()),
        ] {
            if let Some(clip) = clip {
                let problem = format!("has {option} {clip}, which the layer does not support");
                return Err(Error::argument(op, "cell", problem));
            }
        }
        let mut params = Params::of(cell);
        let (kernel, bias) = (params.take("kernel")?, params.take("bias")?);
        let projection = params.0.remove("projection/kernel");
        if let Some(name) = params.0.keys().next() {
            let problem = format!("has `{name}`, which the layer does not support");
            return Err(Error::argument(op, "cell", problem));
        }
        let bias = with_forget_bias(&bias, cell.forget_bias())?;
        let units = bias.shape()[0] / LSTM.len();
        let state = projection.as_ref().map_or(units, |p| p.shape()[1]);
        Self::split(&kernel, state, bias, projection)
    }

    pub(super) fn gru(&self, activation: Activation, reset_after: bool) -> Result<GruCell<B>> {
        let units = self.state();
        let options = GruCell::<B>::builder(self.depth(), units)
            .activation(activation)
            .reset_after(reset_after)
            .dtype(self.dtype());
        let cell = options.build(self.input.device())?;
        let (gates, candidate) = (0..2 * units, 2 * units..3 * units);
        let [kernel, bias] = self.joined()?;
        let mut params = vec![
            ("gates/kernel", kernel.slice(1, gates.clone())?),
            ("gates/bias", bias.slice(0, gates)?),
        ];
        if reset_after {
            let of = |t: &Tensor<B>| t.slice(t.shape().rank() - 1, candidate.clone());
            params.extend([
                (KERNEL_X, of(&self.input)?),
                (BIAS_X, of(&self.biases[0])?),
                (KERNEL_H, of(&self.recurrent)?),
                (BIAS_H, of(&self.biases[1])?),
            ]);
        } else {
            params.extend([
                ("candidate/kernel", kernel.slice(1, candidate.clone())?),
                ("candidate/bias", bias.slice(0, candidate)?),
            ]);
        }
        filled(cell, params)
    }

    /// The weights, and whether the cell resets after the product.
    pub(super) fn of_gru(cell: &GruCell<B>) -> Result<(Self, bool)> {
        let mut params = Params::of(cell);
        let (kernel, bias) = (params.take("gates/kernel")?, params.take("gates/bias")?);
        if params.0.contains_key("candidate/kernel") {
            let candidate = params.take("candidate/kernel")?;
            let kernel = Tensor::concat(&[&kernel, &candidate], 1)?;
            let bias = Tensor::concat(&[&bias, &params.take("candidate/bias")?], 0)?;
            let units = candidate.shape()[1];
            return Ok((Self::split(&kernel, units, bias, None)?, false));
        }
        let (kernel_x, bias_x) = (params.take(KERNEL_X)?, params.take(BIAS_X)?);
        let (kernel_h, bias_h) = (params.take(KERNEL_H)?, params.take(BIAS_H)?);
        let [depth, units] = [kernel_x.shape()[0], kernel_x.shape()[1]];
        let gates_x = kernel.slice(0, 0..depth)?;
        let gates_h = kernel.slice(0, depth..depth + units)?;
        let parts = Self {
            input: Tensor::concat(&[&gates_x, &kernel_x], 1)?,
            recurrent: Tensor::concat(&[&gates_h, &kernel_h], 1)?,
            biases: [
                Tensor::concat(&[&bias, &bias_x], 0)?,
                Tensor::concat(&[&zeros_like(&bias)?, &bias_h], 0)?,
            ],
            projection: None,
        };
        Ok((parts, true))
    }

    /// Splits a kernel `[depth + state, gates * units]`. `bias` becomes the input's bias; the
    /// state's is 0.
    fn split(
        kernel: &Tensor<B>,
        state: usize,
        bias: Tensor<B>,
        projection: Option<Tensor<B>>,
    ) -> Result<Self> {
        let rows = kernel.shape()[0];
        Ok(Self {
            input: kernel.slice(0, 0..rows - state)?,
            recurrent: kernel.slice(0, rows - state..rows)?,
            biases: [bias.clone(), zeros_like(&bias)?],
            projection,
        })
    }
}

/// The layer with a kernel `[depth, units]`; without a bias it is 0.
pub(super) fn dense<B: Backend>(
    kernel: Tensor<B>,
    bias: Option<Tensor<B>>,
    activation: Activation,
) -> Result<Dense<B>> {
    let [depth, units] = [kernel.shape()[0], kernel.shape()[1]];
    let layer = Dense::with(kernel.device(), depth, units, activation, kernel.dtype())?;
    let bias = match bias {
        Some(bias) => bias,
        None => no_biases(&kernel)?[0].clone(),
    };
    filled(layer, [("kernel", kernel), ("bias", bias)])
}

/// The kernel and the bias of a layer.
pub(super) fn of_dense<B: Backend>(dense: &Dense<B>) -> Result<[Tensor<B>; 2]> {
    let mut params = Params::of(dense);
    Ok([params.take("kernel")?, params.take("bias")?])
}

/// The table `[ids, size]` in the entry `name`.
pub(super) fn embedding<B: Backend>(
    mut entries: Entries<'_, B>,
    name: &str,
) -> Result<Embedding<B>> {
    let [ids, size] = entries.matrix(name)?;
    let table = entries.take(name, &[ids, size])?;
    entries.finish()?;
    let layer = Embedding::with(table.device(), ids, size, Initializer::ZEROS, table.dtype())?;
    filled(layer, [("embedding", table)])
}

/// The table of a layer as the entry `name`.
pub(super) fn of_embedding<B: Backend>(layer: &Embedding<B>, name: &str) -> Result<Weights<B>> {
    let table = Params::of(layer).take("embedding")?;
    Ok(Weights::new([(name.to_owned(), table)]))
}

/// The layer with its scale and offset, `[size]`, in the given entries; without an offset it is 0.
pub(super) fn layer_norm<B: Backend>(
    mut entries: Entries<'_, B>,
    [gamma, beta]: [&str; 2],
    epsilon: f64,
) -> Result<LayerNorm<B>> {
    let size = entries.vector(gamma)?;
    let scale = entries.take(gamma, &[size])?;
    let offset = match entries.has(beta) {
        true => entries.take(beta, &[size])?,
        false => zeros_like(&scale)?,
    };
    entries.finish()?;
    let layer = LayerNorm::with(scale.device(), size, epsilon, scale.dtype())?;
    filled(layer, [("gamma", scale), ("beta", offset)])
}

/// The scale and the offset of a layer as the given entries.
pub(super) fn of_layer_norm<B: Backend>(
    layer: &LayerNorm<B>,
    names: [&str; 2],
) -> Result<Weights<B>> {
    let mut params = Params::of(layer);
    let values = [params.take("gamma")?, params.take("beta")?];
    Ok(Weights::new(
        names.map(str::to_owned).into_iter().zip(values),
    ))
}

/// The cell with its parameters replaced.
pub(super) fn filled<B: Backend, M: Module<Backend = B>>(
    mut cell: M,
    params: impl IntoIterator<Item = (&'static str, Tensor<B>)>,
) -> Result<M> {
    let mut params: BTreeMap<&str, Tensor<B>> = params.into_iter().collect();
    cell.each_param(&mut |name, param| match params.remove(name) {
        // Copy, so that the parameter does not keep the larger tensor alive that it is a view of.
        Some(value) => param.set(value.copy()?),
        None => Err(Error::argument("convert", name, "has no value")),
    })?;
    Ok(cell)
}

/// The parameters of a cell by name.
pub(super) struct Params<B: Backend>(BTreeMap<String, Tensor<B>>);

impl<B: Backend> Params<B> {
    pub(super) fn of<M: Module<Backend = B>>(cell: &M) -> Self {
        let params = cell.named_params().into_iter();
        Self(params.map(|(name, p)| (name, p.value().clone())).collect())
    }

    pub(super) fn take(&mut self, name: &str) -> Result<Tensor<B>> {
        let missing = || Error::argument("convert", name, "is not a parameter of the cell");
        self.0.remove(name).ok_or_else(missing)
    }
}
