//! `torch.nn.RNN`, `LSTM`, `GRU`, `RNNCell`, `LSTMCell`, `GRUCell`, `Linear`, `Embedding` and
//! `LayerNorm`.
//!
//! A PyTorch layer becomes a [`Stack`] of cells. Use `stack.forward` as a
//! [`MultiRnnCell`](rnn_core::MultiRnnCell), or both directions in a
//! [`StackBidirectionalDynamicRnn`](rnn_core::StackBidirectionalDynamicRnn). The entries of the
//! state dict determine the number of layers, their sizes, `bidirectional`, `bias` and `proj_size`.
//! Row `2 l + d` of a PyTorch state belongs to layer `l` in direction `d`. PyTorch's dropout
//! between layers is not part of the weights; wrap the cells in a
//! [`DropoutWrapper`](rnn_core::DropoutWrapper).
//!
//! PyTorch has two biases. The cells store their sum, which is exported as `bias_ih` next to a zero
//! `bias_hh`. Only a GRU keeps the two apart for the candidate, because it resets one of them.

use std::collections::{BTreeMap, HashSet};

use backend_api::{Activation, Backend, Error, Result, Tensor};
use rnn_core::{BasicRnnCell, Dense, Embedding, GruCell, LayerNorm, LstmCell};

use super::parts::{self, Order, Parts, no_biases, reordered};
use super::{Entries, Weights};

/// Both frameworks order the gates `r, u` (PyTorch's `z`), candidate.
const GRU: Order = &[0, 1, 2];

/// The cells of all layers.
///
/// ```
/// use recurrent::convert::pytorch::{Stack, from_gru, gru};
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// // One layer in both directions.
/// let cell = || GruCell::builder(3, 5).reset_after(true).build(&device);
/// let stack = Stack { forward: vec![cell()?], backward: vec![cell()?] };
/// let weights = from_gru(&stack)?;
/// assert!(weights.names().any(|name| name == "weight_ih_l0_reverse"));
/// assert_eq!(gru(&weights)?.backward.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Stack<C> {
    /// Cells of the forward direction, first layer first.
    pub forward: Vec<C>,
    /// Cells of the backward direction: as many as `forward`, or none if the layers are
    /// unidirectional.
    pub backward: Vec<C>,
}

/// The cells of a `torch.nn.RNN` whose `nonlinearity` is `activation`.
///
/// ```
/// use recurrent::convert::pytorch::{Stack, from_rnn, rnn};
/// use recurrent::{Activation, BasicRnnCell, Device, DynamicRnn, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let forward = vec![BasicRnnCell::builder(3, 5).activation(Activation::Relu).build(&device)?];
/// let weights = from_rnn(&Stack { forward: forward.clone(), backward: vec![] })?;
/// // Or of `Weights::read(&device, "rnn.safetensors")?`. The weights do not name the activation.
/// let same = rnn(&weights, Activation::Relu)?.forward;
/// let x = Tensor::ones(&device, &[2, 4, 3])?;
/// let last = |cell: &BasicRnnCell| DynamicRnn::new(cell).run(&x)?.state.to_vec::<f32>();
/// assert_eq!(last(&same[0])?, last(&forward[0])?);
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry of the state dict is missing, unexpected or of the wrong shape, or the types differ.
pub fn rnn<B: Backend>(
    weights: &Weights<B>,
    activation: Activation,
) -> Result<Stack<BasicRnnCell<B>>> {
    let build = |parts: Parts<B>| parts.basic_rnn(activation);
    import("pytorch::rnn", weights, parts::PLAIN, build)
}

/// The cells of a `torch.nn.LSTM`. Their forget bias is 0, because PyTorch includes it in its
/// biases.
///
/// ```
/// use recurrent::convert::{Weights, pytorch};
/// use recurrent::{Device, DynamicRnn, MultiRnnCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// # let device = Device::cpu();
/// # let entry = |name: &str, shape: &[usize]| {
/// #     let numbers = vec![0.1f32; shape.iter().product()];
/// #     let weight = Tensor::from_slice(&device, &numbers, shape)?;
/// #     Ok::<_, recurrent::Error>((name.to_owned(), weight))
/// # };
/// # let weights = Weights::new([
/// #     entry("encoder.weight_ih_l0", &[20, 3])?, entry("encoder.weight_hh_l0", &[20, 5])?,
/// #     entry("encoder.bias_ih_l0", &[20])?, entry("encoder.bias_hh_l0", &[20])?,
/// # ]);
/// // let weights = Weights::read(&device, "model.safetensors")?;
/// let stack = pytorch::lstm(&weights.under("encoder.")?)?;
/// let cell = MultiRnnCell::new(stack.forward)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 4 * 3], &[2, 4, 3])?;
/// let rnn = DynamicRnn::new(&cell).run(&x)?;
/// assert_eq!(rnn.outputs.shape().dims(), [2, 4, 5]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry of the state dict is missing, unexpected or of the wrong shape, or the types differ.
pub fn lstm<B: Backend>(weights: &Weights<B>) -> Result<Stack<LstmCell<B>>> {
    let build = |parts: Parts<B>| parts.lstm(Activation::Tanh);
    import("pytorch::lstm", weights, parts::LSTM, build)
}

/// The cells of a `torch.nn.GRU`, which reset after the product.
///
/// ```
/// use recurrent::convert::pytorch;
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let forward = vec![GruCell::builder(3, 5).reset_after(true).build(&device)?];
/// let weights = pytorch::from_gru(&pytorch::Stack { forward, backward: vec![] })?;
/// assert_eq!(weights.get("weight_ih_l0")?.dims()[..], [3 * 5, 3]);
/// // Or of `Weights::read(&device, "gru.safetensors")?`:
/// let layers = pytorch::gru(&weights)?.forward;
/// assert_eq!(layers.len(), 1);
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry of the state dict is missing, unexpected or of the wrong shape, or the types differ.
pub fn gru<B: Backend>(weights: &Weights<B>) -> Result<Stack<GruCell<B>>> {
    let build = |parts: Parts<B>| parts.gru(Activation::Tanh, true);
    import("pytorch::gru", weights, GRU, build)
}

/// The cell of a `torch.nn.RNNCell` whose `nonlinearity` is `activation`.
///
/// ```
/// use recurrent::convert::{Weights, pytorch};
/// use recurrent::{Activation, Cell, Device, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let ones = |name: &str, shape: &[usize]| {
///     Ok::<_, recurrent::Error>((name.to_owned(), Tensor::ones(&device, shape)?))
/// };
/// // `RNNCell(3, 5, bias=False, nonlinearity="relu")`
/// let weights = Weights::new([ones("weight_ih", &[5, 3])?, ones("weight_hh", &[5, 5])?]);
/// let cell = pytorch::rnn_cell(&weights, Activation::Relu)?;
/// let (x, state) = (Tensor::ones(&device, &[1, 3])?, Tensor::ones(&device, &[1, 5])?);
/// let (output, _) = cell.step(&StepContext::default(), &x, &state)?;
/// assert_eq!(output.to_vec::<f32>()?, [8.0; 5]); // 3 inputs and 5 units
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry of the state dict is missing, unexpected or of the wrong shape, or the types differ.
pub fn rnn_cell<B: Backend>(
    weights: &Weights<B>,
    activation: Activation,
) -> Result<BasicRnnCell<B>> {
    import_cell("pytorch::rnn_cell", weights, parts::PLAIN)?.basic_rnn(activation)
}

/// The cell of a `torch.nn.LSTMCell`.
///
/// ```
/// use recurrent::convert::{Weights, pytorch};
/// use recurrent::{Cell, Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let zeros = |name: &str, shape: &[usize]| {
///     Ok::<_, recurrent::Error>((name.to_owned(), Tensor::zeros(&device, shape)?))
/// };
/// // `LSTMCell(3, 5, bias=False)`
/// let weights = Weights::new([zeros("weight_ih", &[20, 3])?, zeros("weight_hh", &[20, 5])?]);
/// let cell = pytorch::lstm_cell(&weights)?;
/// assert_eq!(cell.state_size()?.to_string(), "c: [5], h: [5]");
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry of the state dict is missing, unexpected or of the wrong shape, or the types differ.
pub fn lstm_cell<B: Backend>(weights: &Weights<B>) -> Result<LstmCell<B>> {
    import_cell("pytorch::lstm_cell", weights, parts::LSTM)?.lstm(Activation::Tanh)
}

/// The cell of a `torch.nn.GRUCell`.
///
/// ```
/// use recurrent::convert::{Weights, pytorch};
/// use recurrent::{Cell, Device, StepContext, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let zeros = |name: &str, shape: &[usize]| {
///     Ok::<_, recurrent::Error>((name.to_owned(), Tensor::zeros(&device, shape)?))
/// };
/// // `GRUCell(3, 5, bias=False)`
/// let weights = Weights::new([zeros("weight_ih", &[15, 3])?, zeros("weight_hh", &[15, 5])?]);
/// let cell = pytorch::gru_cell(&weights)?;
/// // With weights of 0, the update gate is one half and the candidate is 0.
/// let (x, state) = (Tensor::ones(&device, &[1, 3])?, Tensor::ones(&device, &[1, 5])?);
/// let (output, _) = cell.step(&StepContext::default(), &x, &state)?;
/// assert_eq!(output.to_vec::<f32>()?, [0.5; 5]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry of the state dict is missing, unexpected or of the wrong shape, or the types differ.
pub fn gru_cell<B: Backend>(weights: &Weights<B>) -> Result<GruCell<B>> {
    import_cell("pytorch::gru_cell", weights, GRU)?.gru(Activation::Tanh, true)
}

/// The layer of a `torch.nn.Linear`.
///
/// ```
/// use recurrent::convert::pytorch;
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = pytorch::from_linear(&Dense::new(&Device::cpu(), 3, 2)?)?;
/// assert_eq!(weights.get("weight")?.dims()[..], [2, 3]);
/// let dense = pytorch::linear(&weights)?;
/// # let _ = dense;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry of the state dict is missing, unexpected or of the wrong shape, or the types differ.
pub fn linear<B: Backend>(weights: &Weights<B>) -> Result<Dense<B>> {
    let mut entries = Entries::new("pytorch::linear", weights);
    let [units, depth] = entries.matrix("weight")?;
    let kernel = entries.take("weight", &[units, depth])?.transpose(0, 1)?;
    let bias = match entries.has("bias") {
        true => Some(entries.take("bias", &[units])?),
        false => None,
    };
    entries.finish()?;
    parts::dense(kernel, bias, Activation::Identity)
}

/// The state dict of a `torch.nn.Linear` equivalent to a layer, whose activation is not part of it.
///
/// ```
/// use recurrent::convert::pytorch;
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = pytorch::from_linear(&Dense::new(&Device::cpu(), 3, 2)?)?;
/// assert_eq!(weights.get("weight")?.shape().dims(), [2, 3]); // PyTorch's order
/// assert_eq!(weights.get("bias")?.shape().dims(), [2]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_linear<B: Backend>(dense: &Dense<B>) -> Result<Weights<B>> {
    let [kernel, bias] = parts::of_dense(dense)?;
    let weight = kernel.transpose(0, 1)?.contiguous()?;
    Ok(Weights::new([
        ("weight".to_owned(), weight),
        ("bias".to_owned(), bias),
    ]))
}

/// The table of a `torch.nn.Embedding`.
///
/// ```
/// use recurrent::convert::pytorch;
/// use recurrent::{Device, Embedding};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = pytorch::from_embedding(&Embedding::new(&Device::cpu(), 10, 4)?)?;
/// let embedding = pytorch::embedding(&weights)?;
/// # let _ = embedding;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape.
pub fn embedding<B: Backend>(weights: &Weights<B>) -> Result<Embedding<B>> {
    parts::embedding(Entries::new("pytorch::embedding", weights), "weight")
}

/// The weights of a `torch.nn.Embedding` equal to a table.
///
/// ```
/// use recurrent::convert::pytorch;
/// use recurrent::{Device, Embedding};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = pytorch::from_embedding(&Embedding::new(&Device::cpu(), 10, 4)?)?;
/// assert_eq!(weights.get("weight")?.shape().dims(), [10, 4]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_embedding<B: Backend>(embedding: &Embedding<B>) -> Result<Weights<B>> {
    parts::of_embedding(embedding, "weight")
}

/// The layer of a `torch.nn.LayerNorm` over the last axis. PyTorch's `eps` is 1e-5 by default.
///
/// ```
/// use recurrent::convert::pytorch;
/// use recurrent::{Device, LayerNorm};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = pytorch::from_layer_norm(&LayerNorm::new(&Device::cpu(), 4)?)?;
/// let norm = pytorch::layer_norm(&weights, 1e-5)?;
/// # let _ = norm;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape, the types differ, or `epsilon` is
/// negative or not finite.
pub fn layer_norm<B: Backend>(weights: &Weights<B>, epsilon: f64) -> Result<LayerNorm<B>> {
    let entries = Entries::new("pytorch::layer_norm", weights);
    parts::layer_norm(entries, ["weight", "bias"], epsilon)
}

/// The weights of a `torch.nn.LayerNorm` equal to a layer, whose `epsilon` is not part of them.
///
/// ```
/// use recurrent::convert::pytorch;
/// use recurrent::{Device, LayerNorm};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = pytorch::from_layer_norm(&LayerNorm::new(&Device::cpu(), 4)?)?;
/// assert_eq!(weights.get("weight")?.to_vec::<f32>()?, [1.0; 4]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_layer_norm<B: Backend>(norm: &LayerNorm<B>) -> Result<Weights<B>> {
    parts::of_layer_norm(norm, ["weight", "bias"])
}

/// The state dict of a `torch.nn.RNN` equivalent to the cells. Its `nonlinearity` must be set to
/// their activation.
///
/// ```
/// use recurrent::convert::pytorch::{Stack, from_rnn};
/// use recurrent::{BasicRnnCell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let forward = vec![BasicRnnCell::new(&device, 3, 5)?, BasicRnnCell::new(&device, 5, 5)?];
/// let weights = from_rnn(&Stack { forward, backward: vec![] })?;
/// assert_eq!(weights.get("weight_ih_l0")?.dims()[..], [5, 3]);
/// assert_eq!(weights.get("weight_hh_l1")?.dims()[..], [5, 5]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The cells do not form the layers of one `torch.nn.RNN`.
pub fn from_rnn<B: Backend>(cells: &Stack<BasicRnnCell<B>>) -> Result<Weights<B>> {
    let parts = |cell: &BasicRnnCell<B>| Parts::of_basic_rnn(cell);
    export("pytorch::from_rnn", cells, parts::PLAIN, parts)
}

/// The state dict of a `torch.nn.LSTM` equivalent to the cells; the biases include their forget
/// bias.
///
/// ```
/// use recurrent::convert::pytorch::{Stack, from_lstm};
/// use recurrent::{Device, LstmCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let forward = vec![LstmCell::new(&device, 3, 5)?];
/// let weights = from_lstm(&Stack { forward, backward: vec![] })?;
/// assert_eq!(weights.get("weight_ih_l0")?.dims()[..], [4 * 5, 3]);
/// // PyTorch's gates are i, f, g, o; the forget bias of 1 becomes part of the bias of f.
/// assert_eq!(weights.get("bias_ih_l0")?.at(5..10)?.to_vec::<f32>()?, [1.0; 5]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The cells do not form the layers of one `torch.nn.LSTM`, clip, have peepholes, or activations
/// other than tanh and, for the gates, the sigmoid.
pub fn from_lstm<B: Backend>(cells: &Stack<LstmCell<B>>) -> Result<Weights<B>> {
    let op = "pytorch::from_lstm";
    let parts = |cell: &LstmCell<B>| {
        check_activations(op, cell.activation(), cell.recurrent_activation())?;
        Parts::of_lstm(op, cell)
    };
    export(op, cells, parts::LSTM, parts)
}

/// The state dict of a `torch.nn.GRU` equivalent to the cells.
///
/// ```
/// use recurrent::convert::pytorch::{Stack, from_gru};
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let forward = vec![GruCell::builder(3, 5).reset_after(true).build(&device)?];
/// let weights = from_gru(&Stack { forward, backward: vec![] })?;
/// assert_eq!(weights.get("weight_hh_l0")?.dims()[..], [3 * 5, 5]);
/// // TensorFlow's GRU resets before the product, which PyTorch's cannot.
/// let forward = vec![GruCell::new(&device, 3, 5)?];
/// assert!(from_gru(&Stack { forward, backward: vec![] }).is_err());
/// # Ok(()) }
/// ```
///
/// # Errors
/// The cells do not form the layers of one `torch.nn.GRU`, reset before the product, or have
/// activations other than tanh and, for the gates, the sigmoid.
pub fn from_gru<B: Backend>(cells: &Stack<GruCell<B>>) -> Result<Weights<B>> {
    let op = "pytorch::from_gru";
    let parts = |cell: &GruCell<B>| {
        check_activations(op, cell.activation(), cell.recurrent_activation())?;
        match Parts::of_gru(cell)? {
            (parts, true) => Ok(parts),
            (_, false) => {
                let problem = "resets before the product, which torch.nn.GRU does not";
                Err(Error::argument(op, "cell", problem))
            }
        }
    };
    export(op, cells, GRU, parts)
}

/// Checks that PyTorch's layers, whose activations are fixed, have those of a cell.
fn check_activations(
    op: &'static str,
    activation: Activation,
    recurrent_activation: Activation,
) -> Result<()> {
    for (option, found, fixed) in [
        ("activation", activation, Activation::Tanh),
        (
            "recurrent_activation",
            recurrent_activation,
            Activation::Sigmoid,
        ),
    ] {
        if found != fixed {
            let (found, fixed) = (found.name(), fixed.name());
            let problem = format!("has the {option} {found}; that of PyTorch's layer is {fixed}");
            return Err(Error::argument(op, "cell", problem));
        }
    }
    Ok(())
}

/// Suffix of the names of a layer's entries.
fn suffix(layer: usize, backward: bool) -> String {
    let direction = if backward { "_reverse" } else { "" };
    format!("_l{layer}{direction}")
}

/// The layer in the name of an entry of the forward direction.
fn layer_of(name: &str) -> Option<usize> {
    let layer = name.rsplit_once("_l")?.1.parse().ok()?;
    // Refuses other spellings of the number.
    name.ends_with(&suffix(layer, false)).then_some(layer)
}

fn import<B: Backend, C>(
    op: &'static str,
    weights: &Weights<B>,
    order: Order,
    build: impl Fn(Parts<B>) -> Result<C>,
) -> Result<Stack<C>> {
    let mut entries = Entries::new(op, weights);
    // If one entry of a kind exists, all others of that kind are required.
    let any = |matches: &dyn Fn(&str) -> bool| weights.names().any(matches);
    let named: HashSet<usize> = weights.names().filter_map(layer_of).collect();
    let layers = (0..).take_while(|layer| named.contains(layer)).count();
    let layers = layers.max(1);
    let both = any(&|name| name.ends_with(&suffix(0, true)));
    let biased = any(&|name| name.starts_with("bias_"));
    let mut stack = Stack {
        forward: Vec::new(),
        backward: Vec::new(),
    };
    // `depth` is the width of the previous layer's output.
    let [wide, mut depth] = entries.matrix("weight_ih_l0")?;
    for layer in 0..layers {
        let mut output = 0;
        for backward in [false, true].into_iter().take(1 + usize::from(both)) {
            let parts = one(
                &mut entries,
                order,
                &suffix(layer, backward),
                [wide, depth],
                biased,
            )?;
            output += parts.state();
            let cells = match backward {
                false => &mut stack.forward,
                true => &mut stack.backward,
            };
            cells.push(build(parts)?);
        }
        depth = output;
    }
    entries.finish()?;
    Ok(stack)
}

/// The parts of a cell, whose entries have no suffix.
fn import_cell<B: Backend>(
    op: &'static str,
    weights: &Weights<B>,
    order: Order,
) -> Result<Parts<B>> {
    let mut entries = Entries::new(op, weights);
    let sizes = entries.matrix("weight_ih")?;
    let biased = entries.has("bias_ih");
    let parts = one(&mut entries, order, "", sizes, biased)?;
    entries.finish()?;
    Ok(parts)
}

/// One layer in one direction.
fn one<B: Backend>(
    entries: &mut Entries<'_, B>,
    order: Order,
    suffix: &str,
    [wide, depth]: [usize; 2],
    biased: bool,
) -> Result<Parts<B>> {
    let name = |what: &str| format!("{what}{suffix}");
    let gates = order.len();
    if !wide.is_multiple_of(gates) {
        let expected = format!("a multiple of {gates} rows is needed, one part for each gate");
        return Err(entries.misshaped(&name("weight_ih"), expected));
    }
    let units = wide / gates;
    // Only an LSTM has a projection; for other layers the entry stays untaken, which is an error.
    let projected = order.len() == parts::LSTM.len() && entries.has(&name("weight_hr"));
    let state = match projected {
        true => entries.matrix(&name("weight_hr"))?[0],
        false => units,
    };
    let mut matrix = |what: &str, dims: [usize; 2]| {
        let stored = entries.take(&name(what), &dims)?;
        stored.transpose(0, 1)
    };
    let input = reordered(&matrix("weight_ih", [wide, depth])?, order)?;
    let recurrent = reordered(&matrix("weight_hh", [wide, state])?, order)?;
    let projection = projected.then(|| matrix("weight_hr", [state, units]));
    let projection = projection.transpose()?;
    let mut bias = |what: &str| reordered(&entries.take(&name(what), &[wide])?, order);
    let biases = if biased {
        [bias("bias_ih")?, bias("bias_hh")?]
    } else {
        no_biases(&input)?
    };
    Ok(Parts {
        input,
        recurrent,
        biases,
        projection,
    })
}

fn export<B: Backend, C>(
    op: &'static str,
    cells: &Stack<C>,
    order: Order,
    parts: impl Fn(&C) -> Result<Parts<B>>,
) -> Result<Weights<B>> {
    let (layers, backward) = (cells.forward.len(), cells.backward.len());
    if layers == 0 || (backward != 0 && backward != layers) {
        let problem = format!("have {layers} forward and {backward} backward layers");
        return Err(Error::argument(op, "cells", problem));
    }
    let mut tensors = BTreeMap::new();
    for (backward, cells) in [(false, &cells.forward), (true, &cells.backward)] {
        for (layer, cell) in cells.iter().enumerate() {
            let parts = parts(cell)?;
            let suffix = suffix(layer, backward);
            let mut put = |what: &str, value: Tensor<B>| {
                tensors.insert(format!("{what}{suffix}"), value);
            };
            let rows = |t: &Tensor<B>| reordered(t, order)?.transpose(0, 1)?.contiguous();
            put("weight_ih", rows(&parts.input)?);
            put("weight_hh", rows(&parts.recurrent)?);
            put("bias_ih", reordered(&parts.biases[0], order)?);
            put("bias_hh", reordered(&parts.biases[1], order)?);
            if let Some(projection) = parts.projection {
                put("weight_hr", projection.transpose(0, 1)?.contiguous()?);
            }
        }
    }
    let weights = Weights { tensors };
    // Importing the result rejects what PyTorch would reject: cells of different sizes, or cells
    // whose sizes do not fit on top of each other.
    import(op, &weights, order, Ok)?;
    Ok(weights)
}
