//! `keras.layers.SimpleRNN`, `LSTM`, `GRU`, `ConvLSTM1D`, `ConvLSTM2D`, `ConvLSTM3D`, `Dense`,
//! `Embedding` and `LayerNormalization` of Keras 2 and 3.
//!
//! A layer becomes one cell. Its weights are the entries `kernel`, `recurrent_kernel` and `bias`,
//! or `0`, `1` and `2`, as Keras's files of weights number them; `bias` is absent with
//! `use_bias=False`. The weights of `CuDNNLSTM` and `CuDNNGRU`, whose `bias` is as long as two, are
//! taken, too. The gates of the cells have the sigmoid. For a layer with another
//! `recurrent_activation`, as TensorFlow 1's LSTM and GRU and Keras 2's ConvLSTM have by default,
//! call `with_recurrent_activation(Activation::HardSigmoid)` on the cell (the `hard_sigmoid` of
//! Keras 3 is another function). Each direction of a `Bidirectional` layer is converted as a layer
//! of its own.

use backend_api::{Activation, Backend, Error, Result, Tensor};
use rnn_core::cells::ConvLstmCell;
use rnn_core::{BasicRnnCell, Dense, Embedding, GruCell, LayerNorm, LstmCell};

use super::parts::{self, Order, Params, Parts, no_biases, reordered, zeros_like};
use super::{Entries, Weights};

/// Keras orders the gates `z, r`, candidate, with the update gate first.
const GRU: Order = &[1, 0, 2];

/// The cell of a `SimpleRNN` with the given `activation`.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Activation, BasicRnnCell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let weights = keras::from_simple_rnn(&BasicRnnCell::new(&device, 3, 5)?)?;
/// assert_eq!(weights.names().collect::<Vec<_>>(), ["bias", "kernel", "recurrent_kernel"]);
/// let cell = keras::simple_rnn(&weights, Activation::Tanh)?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape, or the types differ.
pub fn simple_rnn<B: Backend>(
    weights: &Weights<B>,
    activation: Activation,
) -> Result<BasicRnnCell<B>> {
    import("keras::simple_rnn", weights, parts::PLAIN, false)?.basic_rnn(activation)
}

/// The cell of an `LSTM` with the given `activation` (Keras's default is tanh). Its forget bias is
/// 0, because Keras stores the forget bias in `bias`.
///
/// ```
/// use recurrent::convert::{Weights, keras};
/// use recurrent::{Activation, Device, DynamicRnn, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// # let device = Device::cpu();
/// # let entry = |name: &str, shape: &[usize]| {
/// #     let numbers = vec![0.1f32; shape.iter().product()];
/// #     let weight = Tensor::from_slice(&device, &numbers, shape)?;
/// #     Ok::<_, recurrent::Error>((name.to_owned(), weight))
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
/// An entry is missing, unexpected or of the wrong shape, or the types differ.
pub fn lstm<B: Backend>(weights: &Weights<B>, activation: Activation) -> Result<LstmCell<B>> {
    import("keras::lstm", weights, parts::LSTM, false)?.lstm(activation)
}

/// The cell of a `GRU` with the given `activation` and `reset_after` (Keras's defaults are tanh and
/// true).
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Activation, Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let trained = GruCell::builder(3, 5).reset_after(true).build(&device)?;
/// let weights = keras::from_gru(&trained)?; // or `Weights::read(&device, "layer.safetensors")?`
/// assert_eq!(weights.get("bias")?.dims()[..], [2, 15]);
/// let cell = keras::gru(&weights, Activation::Tanh, true)?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape (that of the bias depends on
/// `reset_after`), or the types differ.
pub fn gru<B: Backend>(
    weights: &Weights<B>,
    activation: Activation,
    reset_after: bool,
) -> Result<GruCell<B>> {
    import("keras::gru", weights, GRU, reset_after)?.gru(activation, reset_after)
}

/// The cell of a `ConvLSTM1D`, `ConvLSTM2D` or `ConvLSTM3D` with `padding="same"`,
/// `recurrent_activation="sigmoid"` ([`ConvLstmCell::with_recurrent_activation`] sets another) and
/// otherwise Keras's defaults, for inputs with the lengths `space` along the spatial axes.
///
/// ```
/// use recurrent::convert::{Weights, keras};
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let entry = |name: &str, dims: &[usize]| {
///     Ok::<_, recurrent::Error>((name.to_owned(), Tensor::ones(&device, dims)?))
/// };
/// let kernel = entry("kernel", &[3, 3, 2, 16])?;
/// let weights = Weights::new([kernel, entry("recurrent_kernel", &[3, 3, 4, 16])?]);
/// let cell = keras::conv_lstm(&weights, &[6, 8])?; // images of 6 by 8 with 2 channels
/// # let _ = cell;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape, or the types differ.
pub fn conv_lstm<B: Backend>(weights: &Weights<B>, space: &[usize]) -> Result<ConvLstmCell<B>> {
    let weights = &named(weights, &["kernel", "recurrent_kernel", "bias"]);
    let mut entries = Entries::new("keras::conv_lstm", weights);
    let kernel = entries.get("kernel")?;
    let rank = space.len() + 2;
    let shape = kernel.shape();
    let dims = shape.dims();
    if dims.len() != rank || !dims[rank - 1].is_multiple_of(parts::LSTM.len()) {
        let expected = format!("{rank} axes are needed, the last a multiple of 4");
        return Err(entries.misshaped("kernel", expected));
    }
    let (window, input, wide) = (&dims[..rank - 2], dims[rank - 2], dims[rank - 1]);
    let units = wide / parts::LSTM.len();
    let kernel = entries.take("kernel", dims)?;
    let recurrent = entries.take("recurrent_kernel", &[window, &[units, wide]].concat())?;
    let bias = match entries.has("bias") {
        true => Some(entries.take("bias", &[wide])?),
        false => None,
    };
    entries.finish()?;
    let cell = ConvLstmCell::<B>::builder(&[space, &[input]].concat(), units, window)
        .forget_bias(0.0)
        .use_bias(bias.is_some())
        .dtype(kernel.dtype())
        .build(kernel.device())?;
    let kernel = Tensor::concat(&[&kernel, &recurrent], rank - 2)?;
    let params = [("kernel", Some(kernel)), ("biases", bias)].into_iter();
    let params = params.filter_map(|(name, param)| Some((name, reordered(&param?, parts::LSTM))));
    let params = params.map(|(name, param)| Ok((name, param?)));
    parts::filled(cell, params.collect::<Result<Vec<_>>>()?)
}

/// The weights of a `ConvLSTM1D`, `ConvLSTM2D` or `ConvLSTM3D` with `padding="same"` equivalent to
/// a cell; the bias includes the cell's forget bias. The layer's `recurrent_activation` must be set
/// to the cell's.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::ConvLstmCell;
/// use recurrent::convert::keras;
///
/// # fn main() -> recurrent::Result<()> {
/// // Images of 6 by 8 with 2 channels.
/// let cell = ConvLstmCell::new(&Device::cpu(), &[6, 8, 2], 4, &[3, 3])?;
/// let weights = keras::from_conv_lstm(&cell)?;
/// assert_eq!(weights.get("kernel")?.dims()[..], [3, 3, 2, 4 * 4]);
/// assert_eq!(weights.get("recurrent_kernel")?.dims()[..], [3, 3, 4, 4 * 4]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The cell has a skip connection, which Keras does not support.
pub fn from_conv_lstm<B: Backend>(cell: &ConvLstmCell<B>) -> Result<Weights<B>> {
    if cell.skip_connection() {
        let problem = "has a skip_connection, which the layer does not support";
        return Err(Error::argument("keras::from_conv_lstm", "cell", problem));
    }
    let mut params = Params::of(cell);
    let kernel = params.take("kernel")?;
    let dims = kernel.dims();
    let (axis, units) = (dims.len() - 2, dims[dims.len() - 1] / parts::LSTM.len());
    let (rows, input) = (dims[axis], dims[axis] - units);
    let zeros = || Tensor::zeros(kernel.device(), (&[4 * units], kernel.dtype()));
    let bias = params.take("biases").or_else(|_| zeros())?;
    export(
        &Parts {
            input: kernel.slice(axis, 0..input)?,
            recurrent: kernel.slice(axis, input..rows)?,
            biases: [
                parts::with_forget_bias(&bias, cell.forget_bias())?,
                zeros()?,
            ],
            projection: None,
        },
        parts::LSTM,
        false,
    )
}

/// The layer of a `Dense` with the given `activation`.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Activation, Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_dense(&Dense::new(&Device::cpu(), 3, 2)?)?;
/// let dense = keras::dense(&weights, Activation::Identity)?;
/// # let _ = dense;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape, or the types differ.
pub fn dense<B: Backend>(weights: &Weights<B>, activation: Activation) -> Result<Dense<B>> {
    let weights = &named(weights, &["kernel", "bias"]);
    let mut entries = Entries::new("keras::dense", weights);
    let [depth, units] = entries.matrix("kernel")?;
    let kernel = entries.take("kernel", &[depth, units])?;
    let bias = match entries.has("bias") {
        true => Some(entries.take("bias", &[units])?),
        false => None,
    };
    entries.finish()?;
    parts::dense(kernel, bias, activation)
}

/// The weights of a `Dense` equivalent to a layer. Its `activation` must be set to the layer's.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_dense(&Dense::new(&Device::cpu(), 3, 2)?)?;
/// assert_eq!(weights.get("kernel")?.shape().dims(), [3, 2]);
/// assert_eq!(weights.get("bias")?.shape().dims(), [2]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_dense<B: Backend>(dense: &Dense<B>) -> Result<Weights<B>> {
    let [kernel, bias] = parts::of_dense(dense)?;
    Ok(Weights::new([
        ("kernel".to_owned(), kernel),
        ("bias".to_owned(), bias),
    ]))
}

/// The table of a `keras.layers.Embedding`.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Device, Embedding};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_embedding(&Embedding::new(&Device::cpu(), 10, 4)?)?;
/// let embedding = keras::embedding(&weights)?;
/// # let _ = embedding;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape.
pub fn embedding<B: Backend>(weights: &Weights<B>) -> Result<Embedding<B>> {
    let weights = &named(weights, &["embeddings"]);
    parts::embedding(Entries::new("keras::embedding", weights), "embeddings")
}

/// The weights of a `keras.layers.Embedding` equal to a table.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Device, Embedding};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_embedding(&Embedding::new(&Device::cpu(), 10, 4)?)?;
/// assert_eq!(weights.get("embeddings")?.shape().dims(), [10, 4]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_embedding<B: Backend>(embedding: &Embedding<B>) -> Result<Weights<B>> {
    parts::of_embedding(embedding, "embeddings")
}

/// The layer of a `keras.layers.LayerNormalization` over the last axis. Keras's `epsilon` is 1e-3
/// by default.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Device, LayerNorm};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_layer_norm(&LayerNorm::new(&Device::cpu(), 4)?)?;
/// let norm = keras::layer_norm(&weights, 1e-3)?;
/// # let _ = norm;
/// # Ok(()) }
/// ```
///
/// # Errors
/// An entry is missing, unexpected or of the wrong shape, the types differ, or `epsilon` is
/// negative or not finite.
pub fn layer_norm<B: Backend>(weights: &Weights<B>, epsilon: f64) -> Result<LayerNorm<B>> {
    let weights = &named(weights, &["gamma", "beta"]);
    let entries = Entries::new("keras::layer_norm", weights);
    parts::layer_norm(entries, ["gamma", "beta"], epsilon)
}

/// The weights of a `keras.layers.LayerNormalization` equal to a layer, whose `epsilon` is not part
/// of them.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Device, LayerNorm};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_layer_norm(&LayerNorm::new(&Device::cpu(), 4)?)?;
/// assert_eq!(weights.get("gamma")?.to_vec::<f32>()?, [1.0; 4]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_layer_norm<B: Backend>(norm: &LayerNorm<B>) -> Result<Weights<B>> {
    parts::of_layer_norm(norm, ["gamma", "beta"])
}

/// The entries by their names, if they have only numbers, as in `NAME.weights.h5`.
fn named<B: Backend>(weights: &Weights<B>, names: &[&str]) -> Weights<B> {
    let number = |name: &str| name.parse::<usize>().ok().filter(|n| n.to_string() == name);
    if !weights.names().all(|name| number(name).is_some()) {
        return weights.clone();
    }
    let entries = weights.tensors.iter().map(|(old, tensor)| {
        let new = number(old).and_then(|number| names.get(number));
        (
            new.map_or(old.clone(), |new| (*new).to_owned()),
            tensor.clone(),
        )
    });
    Weights::new(entries)
}

/// The weights of a `SimpleRNN` equivalent to a cell. The layer's `activation` must be set to the
/// cell's.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{BasicRnnCell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_simple_rnn(&BasicRnnCell::new(&Device::cpu(), 3, 5)?)?;
/// // The order of `layer.set_weights`.
/// for (name, shape) in [("kernel", &[3, 5][..]), ("recurrent_kernel", &[5, 5]), ("bias", &[5])] {
///     assert_eq!(weights.get(name)?.shape().dims(), shape);
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_simple_rnn<B: Backend>(cell: &BasicRnnCell<B>) -> Result<Weights<B>> {
    export(&Parts::of_basic_rnn(cell)?, parts::PLAIN, false)
}

/// The weights of an `LSTM` equivalent to a cell; the bias includes the cell's forget bias. The
/// layer's `activation` and `recurrent_activation` must be set to the cell's.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Device, LstmCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let weights = keras::from_lstm(&LstmCell::new(&Device::cpu(), 3, 5)?)?;
/// assert_eq!(weights.get("kernel")?.dims()[..], [3, 4 * 5]);
/// // Keras's gates are i, f, c, o; the forget bias of 1 becomes part of the bias of f.
/// assert_eq!(weights.get("bias")?.at(5..10)?.to_vec::<f32>()?, [1.0; 5]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The cell clips, or has peepholes or a projection, which Keras does not support.
pub fn from_lstm<B: Backend>(cell: &LstmCell<B>) -> Result<Weights<B>> {
    let op = "keras::from_lstm";
    let parts = Parts::of_lstm(op, cell)?;
    if parts.projection.is_some() {
        let problem = "has a projection, which the layer does not support";
        return Err(Error::argument(op, "cell", problem));
    }
    export(&parts, parts::LSTM, false)
}

/// The weights of a `GRU` equivalent to a cell. The layer's `activation`, `recurrent_activation`
/// and `reset_after` must be set to the cell's.
///
/// ```
/// use recurrent::convert::keras;
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// // Keras's default, with a bias for the input and one for the state.
/// let cell = GruCell::builder(3, 5).reset_after(true).build(&device)?;
/// assert_eq!(keras::from_gru(&cell)?.get("bias")?.dims()[..], [2, 15]);
/// // For `GRU(5, reset_after=False)`:
/// let cell = GruCell::new(&device, 3, 5)?;
/// assert_eq!(keras::from_gru(&cell)?.get("bias")?.dims()[..], [15]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// The device failed.
pub fn from_gru<B: Backend>(cell: &GruCell<B>) -> Result<Weights<B>> {
    let (parts, reset_after) = Parts::of_gru(cell)?;
    export(&parts, GRU, reset_after)
}

/// `two_biases`: whether one entry stores both biases, as its rows.
fn import<B: Backend>(
    op: &'static str,
    weights: &Weights<B>,
    order: Order,
    two_biases: bool,
) -> Result<Parts<B>> {
    let weights = &named(weights, &["kernel", "recurrent_kernel", "bias"]);
    let mut entries = Entries::new(op, weights);
    let [depth, wide] = entries.matrix("kernel")?;
    let gates = order.len();
    if !wide.is_multiple_of(gates) {
        let expected = format!("a multiple of {gates} columns is needed, one part for each gate");
        return Err(entries.misshaped("kernel", expected));
    }
    let input = reordered(&entries.take("kernel", &[depth, wide])?, order)?;
    let recurrent = entries.take("recurrent_kernel", &[wide / gates, wide])?;
    if entries.has("bias") && entries.get("bias")?.shape().dims() == [2 * wide] {
        let bias = entries.take("bias", &[2 * wide])?;
        let bias = |half: usize| reordered(&bias.slice(0, half * wide..(half + 1) * wide)?, order);
        let biases = [bias(0)?, bias(1)?];
        entries.finish()?;
        return Ok(Parts {
            input: of_cudnn(&input, gates, true)?,
            recurrent: of_cudnn(&reordered(&recurrent, order)?, gates, false)?,
            biases,
            projection: None,
        });
    }
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

/// A kernel of cuDNN. Each gate's part is transposed; that of the input is the transposed one's
/// elements in the shape of the kernel.
fn of_cudnn<B: Backend>(kernel: &Tensor<B>, gates: usize, input: bool) -> Result<Tensor<B>> {
    let [rows, units] = [kernel.shape()[0], kernel.shape()[1] / gates];
    let parts = (0..gates).map(|gate| {
        let part = kernel.slice(1, gate * units..(gate + 1) * units)?;
        match input {
            true => part.contiguous()?.reshape(&[units, rows])?.transpose(0, 1),
            false => part.transpose(0, 1),
        }
    });
    let parts: Vec<_> = parts.collect::<Result<_>>()?;
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)
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
