//! `keras.layers.SimpleRNN`, `LSTM` and `GRU`, of Keras 2 and 3.
//!
//! A layer is one cell; its weights are the entries `kernel`, `recurrent_kernel` and `bias`, the last not with `use_bias=False`. The
//! layer's `recurrent_activation` must be the sigmoid, which is the default but in TensorFlow 1. Of a `Bidirectional` layer, each
//! direction is a layer of its own.

use backend_api::{Activation, Backend, Error, Result, Tensor};
use rnn_core::{BasicRnnCell, GruCell, LstmCell};

use super::parts::{self, Order, Parts, no_biases, reordered, zeros_like};
use super::{Entries, Weights};

/// Keras has the update gate first: `z, r` and the candidate.
const GRU: Order = &[1, 0, 2];

/// The cell of a `SimpleRNN`, whose `activation` is given.
///
/// # Errors
/// An entry is missing, left over or of another shape, or the types differ.
pub fn simple_rnn<B: Backend>(
    weights: &Weights<B>,
    activation: Activation,
) -> Result<BasicRnnCell<B>> {
    import("keras::simple_rnn", weights, parts::PLAIN, false)?.basic_rnn(activation)
}

/// The cell of an `LSTM`, whose `activation` is given (tanh by Keras's default). Its forget bias is 0: Keras's is in its bias.
///
/// ```
/// use backend_api::{Activation, Tensor};
/// use backend_cpu::Cpu;
/// use rnn_core::DynamicRnn;
/// use rnn_train::convert::{Weights, keras};
///
/// # fn main() -> backend_api::Result<()> {
/// # let device = Cpu::new();
/// # let entry = |name: &str, shape: &[usize]| {
/// #     let numbers = vec![0.1f32; shape.iter().product()];
/// #     Ok::<_, backend_api::Error>((name.to_owned(), Tensor::from_slice(&device, &numbers, shape)?))
/// # };
/// # let weights = Weights::new([
/// #     entry("kernel", &[3, 20])?, entry("recurrent_kernel", &[5, 20])?, entry("bias", &[20])?,
/// # ]);
/// // let weights = Weights::read(&device, "layer.safetensors")?;
/// let cell = keras::lstm(&weights, Activation::Tanh)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 4 * 3], &[2, 4, 3])?;
/// assert_eq!(DynamicRnn::new(&cell).run(&x)?.outputs.shape().dims(), [2, 4, 5]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, left over or of another shape, or the types differ.
pub fn lstm<B: Backend>(weights: &Weights<B>, activation: Activation) -> Result<LstmCell<B>> {
    import("keras::lstm", weights, parts::LSTM, false)?.lstm(activation)
}

/// The cell of a `GRU`, whose `activation` (tanh by Keras's default) and `reset_after` (true by Keras's default) are given.
///
/// # Errors
/// An entry is missing, left over or of another shape (that of the bias depends on `reset_after`), or the types differ.
pub fn gru<B: Backend>(
    weights: &Weights<B>,
    activation: Activation,
    reset_after: bool,
) -> Result<GruCell<B>> {
    import("keras::gru", weights, GRU, reset_after)?.gru(activation, reset_after)
}

/// The weights of a `SimpleRNN` for a cell; its `activation` must be the cell's.
///
/// # Errors
/// The device failed.
pub fn from_simple_rnn<B: Backend>(cell: &BasicRnnCell<B>) -> Result<Weights<B>> {
    export(&Parts::of_basic_rnn(cell)?, parts::PLAIN, false)
}

/// The weights of an `LSTM` for a cell, its forget bias included. Its `activation` must be the cell's, which must not clip.
///
/// # Errors
/// The cell has peepholes or a projection, which Keras's has not.
pub fn from_lstm<B: Backend>(cell: &LstmCell<B>) -> Result<Weights<B>> {
    let op = "keras::from_lstm";
    let parts = Parts::of_lstm(op, cell)?;
    if parts.projection.is_some() {
        let problem = "has a projection, for which the layer has no place";
        return Err(Error::argument(op, "cell", problem));
    }
    export(&parts, parts::LSTM, false)
}

/// The weights of a `GRU` for a cell; its `activation` and `reset_after` must be the cell's.
///
/// # Errors
/// The device failed.
pub fn from_gru<B: Backend>(cell: &GruCell<B>) -> Result<Weights<B>> {
    let (parts, reset_after) = Parts::of_gru(cell)?;
    export(&parts, GRU, reset_after)
}

/// `two_biases`: as the rows of one entry.
fn import<B: Backend>(
    op: &'static str,
    weights: &Weights<B>,
    order: Order,
    two_biases: bool,
) -> Result<Parts<B>> {
    let mut entries = Entries::new(op, weights);
    let [depth, wide] = entries.matrix("kernel")?;
    let gates = order.len();
    if !wide.is_multiple_of(gates) {
        let expected = format!("a multiple of {gates} columns is needed, one part for each gate");
        return Err(entries.misshaped("kernel", expected));
    }
    let input = reordered(&entries.take("kernel", &[depth, wide])?, order)?;
    let recurrent = entries.take("recurrent_kernel", &[wide / gates, wide])?;
    let biases = if !entries.has("bias") {
        no_biases(&input)?
    } else if two_biases {
        let bias = reordered(&entries.take("bias", &[2, wide])?, order)?;
        [bias.select(0, 0)?, bias.select(0, 1)?]
    } else {
        let bias = reordered(&entries.take("bias", &[wide])?, order)?;
        [bias.clone(), zeros_like(&bias)?]
    };
    entries.finish()?;
    Ok(Parts {
        input,
        recurrent: reordered(&recurrent, order)?,
        biases,
        projection: None,
    })
}

fn export<B: Backend>(parts: &Parts<B>, order: Order, two_biases: bool) -> Result<Weights<B>> {
    let [input, state] = &parts.biases;
    let bias = match two_biases {
        true => Tensor::concat(&[&input.unsqueeze(0)?, &state.unsqueeze(0)?], 0)?,
        false => input.add(state)?,
    };
    let tensors = [
        ("kernel", &parts.input),
        ("recurrent_kernel", &parts.recurrent),
        ("bias", &bias),
    ];
    let tensors = tensors.map(|(name, t)| Ok((name.to_owned(), reordered(t, order)?)));
    let tensors: Vec<_> = tensors.into_iter().collect::<Result<_>>()?;
    Ok(Weights::new(tensors))
}
