//! The convolutional LSTM cell.

use backend_api::{Activation, Backend, DType, Error, LstmGates, Meta, Result, Shape, Tensor};
use serde::Deserialize;

use super::LstmState;
use super::conv::windows;
use crate::limits::{check_elements, check_sizes};
use crate::{Cell, CellConfig, Initializer, Nest, Param, StepContext};

backend_api::shared_doc! { conv_lstm_cell_doc:
/// The convolutional LSTM (Shi et al. 2015, <https://arxiv.org/abs/1506.04214>, without its
/// peepholes; TensorFlow's `tf.contrib.rnn.ConvLSTMCell` and `Conv1DLSTMCell`, `Conv2DLSTMCell`,
/// `Conv3DLSTMCell`), with one, two or three spatial axes. With `i, j, f, o` the four parts of
/// `conv([x, h], kernel) + biases` along the channels:
///
/// `c' = σ(f + forget_bias) * c + σ(i) * tanh(j)`, `h' = tanh(c') * σ(o)`; the output is `h'`, or
/// `[h', x]` along the channels with `skip_connection`. The convolution has stride 1 and zero
/// padding.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel` | `kernel_shape` + `[in + out, 4 out]`, columns `i, j, f, o` | Glorot uniform |
/// | `biases` | `[4 out]`, unless `use_bias` is false | 0 |
///
/// `in` and `out` are numbers of channels; the kernel's first `in` rows of each window position are
/// multiplied by `x`, the others by `h`. Input `[batch, space.., in]`; state `c`, `h` and output
/// `[batch, space.., out]`. With a skip connection TensorFlow also stores `[h', x]` as `h`, which
/// the next step of its own cell refuses; here `h` stays `h'`.
///
/// ```
/// use recurrent::cells::ConvLstmCellBuilder;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// // Images of 6 by 8 with 3 channels.
/// let cell = ConvLstmCellBuilder::new(&[6, 8, 3], 4, &[3, 3]).build(&Device::cpu())?;
/// assert_eq!(cell.zero_output(2)?.shape().dims(), [2, 6, 8, 4]);
/// # Ok(()) }
/// ```
}

#[doc = conv_lstm_cell_doc!()]
#[derive(Clone, Debug)]
pub struct ConvLstmCell<B: Backend> {
    scope: &'static str,
    /// Lengths of the spatial axes, then the number of channels of the input.
    input: Vec<usize>,
    window: Vec<usize>,
    gates: LstmGates,
    skip_connection: bool,
    kernel: Param<B>,
    biases: Option<Param<B>>,
}

/// The cell's name in messages.
const NAME: &str = "conv_lstm_cell";

impl<B: Backend> ConvLstmCell<B> {
    /// Creates a cell with TensorFlow's defaults: biases, `forget_bias` 1, no skip connection,
    /// `f32`.
    ///
    /// # Errors
    /// As [`ConvLstmCellBuilder::build`].
    pub fn new(
        device: &B,
        input_shape: &[usize],
        output_channels: usize,
        kernel_shape: &[usize],
    ) -> Result<Self> {
        ConvLstmCellBuilder::new(input_shape, output_channels, kernel_shape).build(device)
    }

    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(
        input_shape: &[usize],
        output_channels: usize,
        kernel_shape: &[usize],
    ) -> ConvLstmCellBuilder {
        ConvLstmCellBuilder::new(input_shape, output_channels, kernel_shape)
    }

    /// The activation of the gates.
    pub fn recurrent_activation(&self) -> Activation {
        self.gates.recurrent_activation
    }

    /// The cell with another activation of the gates and the same parameters. Default: sigmoid.
    ///
    /// ```
    /// use recurrent::cells::ConvLstmCell;
    /// use recurrent::{Activation, Device};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let cell = ConvLstmCell::new(&Device::cpu(), &[6, 8, 3], 4, &[3, 3])?;
    /// let cell = cell.with_recurrent_activation(Activation::HardSigmoid);
    /// assert_eq!(cell.recurrent_activation(), Activation::HardSigmoid);
    /// # Ok(()) }
    /// ```
    pub fn with_recurrent_activation(mut self, activation: Activation) -> Self {
        self.gates.recurrent_activation = activation;
        self
    }

    /// Value added to the forget gate before its sigmoid; it is not part of the biases.
    pub fn forget_bias(&self) -> f64 {
        self.gates.forget_bias
    }

    /// Whether the output includes the input.
    pub fn skip_connection(&self) -> bool {
        self.skip_connection
    }

    /// Number of spatial axes.
    fn ndims(&self) -> usize {
        self.input.len() - 1
    }

    fn channels_in(&self) -> usize {
        self.input[self.ndims()]
    }

    fn channels_out(&self) -> usize {
        self.kernel.shape().last() / 4
    }

    /// `[batch, space.., channels]`
    fn image(&self, batch: usize, channels: usize) -> Vec<usize> {
        let space = &self.input[..self.ndims()];
        [&[batch], space, &[channels]].concat()
    }

    fn zeros(&self, batch: usize, channels: usize) -> Result<Tensor<B>> {
        let shape = Shape::new(&self.image(batch, channels))?;
        Tensor::zeros(self.kernel.device(), Meta::new(shape, self.kernel.dtype()))
    }

    /// Checks an input or a state of one step, and returns the batch size.
    fn check(&self, arg: &str, found: Meta, channels: usize) -> Result<usize> {
        let dtype = self.kernel.dtype();
        if found.dtype != dtype {
            let expected = format!("the kernel is {dtype}");
            return Err(Error::dtype(NAME, arg, found.dtype, expected));
        }
        let batch = found.shape.dims().first().copied().unwrap_or(0);
        let needed = self.image(batch, channels);
        if found.shape.dims() != needed {
            let dims = format!("{:?}", &needed[1..]);
            let expected = format!("[batch, {} is needed", &dims[1..]);
            return Err(Error::shape(NAME, arg, found.shape, expected));
        }
        Ok(batch)
    }

    fn check_state(&self, state: &LstmState<B>, batch: usize) -> Result<()> {
        for (arg, t) in [("state c", &state.c), ("state h", &state.h)] {
            let rows = self.check(arg, t.meta(), self.channels_out())?;
            if rows != batch {
                let expected = format!("the input has {batch} rows");
                return Err(Error::shape(NAME, arg, t.shape(), expected));
            }
        }
        Ok(())
    }

    /// The rows of the kernel for a range of channels as a matrix, `[window * channels, 4 out]`.
    fn matrix(&self, channels: std::ops::Range<usize>) -> Result<Tensor<B>> {
        let width = self.kernel.shape().last();
        let part = self.kernel.slice(self.ndims(), channels)?;
        part.reshape(&[part.shape().count() / width, width])
    }
}

/// Options of a [`ConvLstmCell`]: each method sets one.
///
/// `ConvLstmCell::builder(input_shape, output_channels, kernel_shape)`
/// returns this builder; `build(&device)` checks the options, and makes the cell.
///
/// ```
/// use recurrent::Device;
/// use recurrent::cells::ConvLstmCell;
///
/// # fn main() -> recurrent::Result<()> {
/// let builder = ConvLstmCell::builder(&[6, 8, 3], 4, &[3, 3]).skip_connection(true);
/// let cell = builder.build(&Device::cpu())?;
/// # let _ = cell;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvLstmCellBuilder {
    #[serde(skip, default = "scope")]
    scope: &'static str,
    #[serde(skip)]
    dtype: DType,
    #[serde(default)]
    conv_ndims: Option<usize>,
    input_shape: Vec<usize>,
    output_channels: usize,
    kernel_shape: Vec<usize>,
    #[serde(default = "yes")]
    use_bias: bool,
    #[serde(default)]
    skip_connection: bool,
    #[serde(default = "one")]
    forget_bias: f64,
    #[serde(default = "sigmoid")]
    recurrent_activation: Activation,
    #[serde(default)]
    kernel_initializer: Option<Initializer>,
}

fn scope() -> &'static str {
    NAME
}

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn sigmoid() -> Activation {
    Activation::Sigmoid
}

impl ConvLstmCellBuilder {
    /// Creates a builder with TensorFlow's defaults. Inputs are `[batch, input_shape..]`, where the
    /// last axis of `input_shape` is the channels; `kernel_shape` is the size of the window.
    pub fn new(input_shape: &[usize], output_channels: usize, kernel_shape: &[usize]) -> Self {
        Self {
            scope: NAME,
            dtype: DType::F32,
            conv_ndims: None,
            input_shape: input_shape.to_vec(),
            output_channels,
            kernel_shape: kernel_shape.to_vec(),
            use_bias: true,
            skip_connection: false,
            forget_bias: 1.0,
            recurrent_activation: sigmoid(),
            kernel_initializer: None,
        }
    }

    /// Whether the cell has biases. Default: true.
    pub fn use_bias(mut self, use_bias: bool) -> Self {
        self.use_bias = use_bias;
        self
    }

    /// Whether to concatenate the input to the output, along the channels. Default: false.
    pub fn skip_connection(mut self, skip_connection: bool) -> Self {
        self.skip_connection = skip_connection;
        self
    }

    /// Value added to the forget gate before its sigmoid. Default: 1.
    pub fn forget_bias(mut self, forget_bias: f64) -> Self {
        self.forget_bias = forget_bias;
        self
    }

    /// Activation of the gates, `σ` in the equations. Default: sigmoid. Keras's layers have
    /// `hard_sigmoid`.
    pub fn recurrent_activation(mut self, activation: Activation) -> Self {
        self.recurrent_activation = activation;
        self
    }

    /// Initializer of the kernel. Default: Glorot uniform.
    pub fn kernel_initializer(mut self, initializer: Initializer) -> Self {
        self.kernel_initializer = Some(initializer);
        self
    }

    /// Sets the element type. Default: `f32`.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Builds the cell.
    ///
    /// # Errors
    /// A size is 0 or too large, the number of spatial axes is not 1, 2 or 3 or differs from the
    /// window's, the type is not a float, or the device is out of memory.
    pub fn build<B: Backend>(self, device: &B) -> Result<ConvLstmCell<B>> {
        let problem = |arg: &str, text: String| Err(Error::argument(NAME, arg, text));
        let (input, window) = (self.input_shape, self.kernel_shape);
        let ndims = window.len();
        if !(1..=3).contains(&ndims) {
            return problem(
                "kernel_shape",
                format!("is {window:?}, but must have 1, 2 or 3 axes"),
            );
        }
        if input.len() != ndims + 1 {
            let text = format!(
                "is {input:?}, but kernel_shape {window:?} needs its axes and the channels"
            );
            return problem("input_shape", text);
        }
        if let Some(other) = self.conv_ndims.filter(|&n| n != ndims) {
            let text = format!("is {other}, but kernel_shape is {window:?}");
            return problem("conv_ndims", text);
        }
        let named = |arg, sizes: &[usize]| sizes.iter().map(move |&size| (arg, size)).collect();
        let sizes: [Vec<_>; 3] = [
            named("input_shape", &input),
            named("kernel_shape", &window),
            named("output_channels", &[self.output_channels]),
        ];
        check_sizes(NAME, sizes.concat())?;
        if !self.dtype.is_float() {
            let expected = "a cell needs a float type";
            return Err(Error::dtype(NAME, "dtype", self.dtype, expected));
        }
        let rows = input[ndims] + self.output_channels;
        let weights = [&window[..], &[rows, self.output_channels]].concat();
        check_elements(NAME, "input_shape", &input)?;
        check_elements(NAME, "kernel_shape", &weights)?;
        let width = 4 * self.output_channels;
        let dims = [&window[..], &[rows, width]].concat();
        let first = self.kernel_initializer.unwrap_or_default();
        let biases = || Param::new(device, Initializer::ZEROS, &[width], self.dtype);
        Ok(ConvLstmCell {
            scope: self.scope,
            gates: LstmGates {
                recurrent_activation: self.recurrent_activation,
                forget_bias: self.forget_bias,
                activation: Activation::Tanh,
            },
            skip_connection: self.skip_connection,
            kernel: Param::new(device, first, &dims, self.dtype)?,
            biases: self.use_bias.then(biases).transpose()?,
            input,
            window,
        })
    }
}

impl CellConfig for ConvLstmCellBuilder {
    const CLASS: &'static str = "ConvLSTMCell";
    type Cell<B: Backend> = ConvLstmCell<B>;

    /// Ignores `input_size`: the input's shape is one of the options.
    fn build_for<B: Backend>(
        self,
        device: &B,
        _input_size: usize,
        dtype: DType,
    ) -> Result<ConvLstmCell<B>> {
        self.dtype(dtype).build(device)
    }
}

macro_rules! with_dimensions {
    ($($config:ident, $class:literal, $ndims:literal, $scope:literal;)*) => {$(
        #[doc = concat!("TensorFlow's `", $class, "`: a [`ConvLstmCell`] with another scope.")]
        ///
        /// ```
        /// use recurrent::serde_json::json;
        /// use recurrent::{Cell, DType, Device, cell_from_config};
        ///
        /// # fn main() -> recurrent::Result<()> {
        /// let options = json!({
        #[doc = concat!("    \"type\": \"", $class, "\",")]
        #[doc = concat!("    \"input_shape\": vec![6; ", $ndims, " + 1], // the last are channels")]
        ///     "output_channels": 2,
        #[doc = concat!("    \"kernel_shape\": vec![3; ", $ndims, "],")]
        /// });
        /// let cell = cell_from_config(&Device::cpu(), &options, 6, DType::F32)?;
        #[doc = concat!("assert_eq!(cell.output_size()?.total(), 2 * 6usize.pow(", $ndims, "));")]
        /// # Ok(()) }
        /// ```
        #[derive(Clone, Debug, Deserialize)]
        #[serde(transparent)]
        pub struct $config(ConvLstmCellBuilder);

        impl CellConfig for $config {
            const CLASS: &'static str = $class;
            type Cell<B: Backend> = ConvLstmCell<B>;

            fn build_for<B: Backend>(
                self,
                device: &B,
                input_size: usize,
                dtype: DType,
            ) -> Result<ConvLstmCell<B>> {
                let mut options = self.0;
                if options.conv_ndims.replace($ndims).is_some() {
                    let text = concat!("is not an option of ", $class);
                    return Err(Error::argument("cell_from_config", "conv_ndims", text));
                }
                options.scope = $scope;
                options.build_for(device, input_size, dtype)
            }
        }
    )*};
}

with_dimensions! {
    Conv1dLstmCellConfig, "Conv1DLSTMCell", 1, "conv_1d_lstm_cell";
    Conv2dLstmCellConfig, "Conv2DLSTMCell", 2, "conv_2d_lstm_cell";
    Conv3dLstmCellConfig, "Conv3DLSTMCell", 3, "conv_3d_lstm_cell";
}

crate::module!(ConvLstmCell<B> { kernel, biases });

impl<B: Backend> Cell for ConvLstmCell<B> {
    type Input = Tensor<B>;
    type State = LstmState<B>;
    type Output = Tensor<B>;

    fn scope(&self) -> String {
        self.scope.into()
    }

    fn zero_state(&self, batch: usize) -> Result<LstmState<B>> {
        let zeros = self.zeros(batch, self.channels_out())?;
        Ok(LstmState {
            c: zeros.clone(),
            h: zeros,
        })
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
        let skipped = if self.skip_connection {
            self.channels_in()
        } else {
            0
        };
        self.zeros(batch, self.channels_out() + skipped)
    }

    fn step(
        &self,
        _: &StepContext,
        x: &Tensor<B>,
        state: &LstmState<B>,
    ) -> Result<(Tensor<B>, LstmState<B>)> {
        let batch = self.check("x", x.meta(), self.channels_in())?;
        self.check_state(state, batch)?;
        let channels = self.channels_in();
        let of_x = self.matrix(0..channels)?;
        let of_h = self.matrix(channels..channels + self.channels_out())?;
        let mut z = windows(x, &self.window)?.matmul(&of_x)?;
        if let Some(biases) = &self.biases {
            z = z.add(biases)?;
        }
        let z = windows(&state.h, &self.window)?.matmul_add(&of_h, &z)?;
        // The gates treat each spatial position as a row.
        let dims = state.c.dims();
        let c = state.c.reshape(&[z.shape()[0], self.channels_out()])?;
        let state = LstmState::next(self.gates, &z, &c)?;
        let state = state.map(&mut |t| t.reshape(&dims))?;
        let output = if self.skip_connection {
            Tensor::concat(&[&state.h, x], dims.len() - 1)?
        } else {
            state.h.clone()
        };
        Ok((output, state))
    }
}
