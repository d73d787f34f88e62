//! Cells as recurrent nodes.

use backend_api::{Activation, Backend, Error, Result, Tensor};
use rnn_core::{BasicLstmCell, BasicRnnCell, GruCell, LstmCell, Module};

/// A cell that ONNX can express: [`Layer::of`] has the options.
///
/// Implemented for `BasicRnnCell`, `BasicLstmCell`, `LstmCell` and `GruCell`, and for [`Layer`]
/// itself, so that a stack can have cells of different types.
///
/// ```
/// use recurrent::interchange::onnx::{Exportable, Model, write};
/// use recurrent::{Device, GruCell};
///
/// fn save<C: Exportable>(cells: &[C], path: &std::path::Path) -> recurrent::Result<Model> {
///     write(path, cells)?;
///     Model::read(path)
/// }
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("gru.onnx");
/// let model = save(&[GruCell::new(&Device::cpu(), 3, 8)?], &path)?;
/// assert_eq!(model.weights()["R0"].dims(), [1, 24, 8]);
/// # Ok(()) }
/// ```
pub trait Exportable {
    /// The backend of the parameters.
    type Backend: Backend;

    /// The cell as a layer of ONNX.
    ///
    /// # Errors
    /// ONNX cannot express an option of the cell; the message names it.
    fn layer(&self) -> Result<Layer<Self::Backend>>;
}

/// A recurrent layer in ONNX's layout.
///
/// ```
/// use recurrent::interchange::onnx::{Layer, write};
/// use recurrent::cells::LstmCellBuilder;
/// use recurrent::{Device, GruCell, LstmCell};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("stack.onnx");
/// let device = Device::cpu();
/// let (gru, lstm) = (GruCell::new(&device, 3, 8)?, LstmCell::new(&device, 8, 4)?);
/// write(&path, &[Layer::of(&gru)?, Layer::of(&lstm)?])?;
///
/// let clipped = LstmCellBuilder::new(3, 8).cell_clip(1.0).build(&device)?;
/// let error = Layer::of(&clipped).unwrap_err().to_string();
/// assert!(error.contains("cell_clip"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Layer<B: Backend> {
    pub(super) operator: &'static str,
    pub(super) inputs: usize,
    pub(super) units: usize,
    pub(super) activations: Vec<Activation>,
    pub(super) reset_after: bool,
    /// `W [gates n, input]`, `R [gates n, n]`, `B [2 gates n]`
    pub(super) weights: [Tensor<B>; 3],
    /// `P [3 n]`
    pub(super) peepholes: Option<Tensor<B>>,
}

impl<B: Backend> Layer<B> {
    /// The layer of a cell.
    ///
    /// # Errors
    /// ONNX cannot express an option of the cell: `cell_clip` and `num_proj` of an LSTM, an
    /// activation other than tanh, sigmoid, relu, softsign, softplus, elu, hard_sigmoid and
    /// identity.
    pub fn of<C: Exportable<Backend = B>>(cell: &C) -> Result<Self> {
        cell.layer()
    }

    /// A layer from the parameters of a cell: its kernel and bias as blocks of columns, in ONNX's
    /// order.
    fn new(
        operator: &'static str,
        [kernel, bias]: [&Tensor<B>; 2],
        order: &[usize],
        activations: &[Activation],
    ) -> Result<Self> {
        for activation in activations {
            function(*activation)?;
        }
        let blocks = bias.dims()[0] / order.len();
        let units = blocks;
        let rows = kernel.dims()[0];
        let inputs = rows - units;
        let kernel = columns(&kernel.transpose(0, 1)?, order, units)?;
        let bias = columns(bias, order, units)?;
        let zeros = Tensor::zeros(bias.device(), bias.meta())?;
        Ok(Self {
            operator,
            inputs,
            units,
            activations: activations.to_vec(),
            reset_after: false,
            weights: [
                kernel.slice(1, 0..inputs)?,
                kernel.slice(1, inputs..rows)?,
                Tensor::concat(&[&bias, &zeros], 0)?,
            ],
            peepholes: None,
        })
    }

    fn lstm(
        [kernel, bias]: [&Tensor<B>; 2],
        forget_bias: f64,
        [gate, activation]: [Activation; 2],
    ) -> Result<Self> {
        let units = bias.dims()[0] / 4;
        let f = bias
            .slice(0, 2 * units..3 * units)?
            .affine(1.0, forget_bias)?;
        let parts = [
            &bias.slice(0, 0..2 * units)?,
            &f,
            &bias.slice(0, 3 * units..4 * units)?,
        ];
        let bias = Tensor::concat(&parts, 0)?;
        let activations = [gate, activation, activation];
        // i, j, f, o to i, o, f, c
        Self::new("LSTM", [kernel, &bias], &[0, 3, 2, 1], &activations)
    }
}

/// Blocks of `n` rows in another order.
fn columns<B: Backend>(of: &Tensor<B>, order: &[usize], n: usize) -> Result<Tensor<B>> {
    let parts: Vec<Tensor<B>> = order
        .iter()
        .map(|&i| of.slice(0, i * n..(i + 1) * n))
        .collect::<Result<_>>()?;
    Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)
}

/// ONNX's name of an activation, and its parameters.
pub(super) fn function(activation: Activation) -> Result<(&'static str, Vec<f32>, Vec<f32>)> {
    let plain = |name| Ok((name, vec![], vec![]));
    match activation {
        Activation::Tanh => plain("Tanh"),
        Activation::Sigmoid => plain("Sigmoid"),
        Activation::Relu => plain("Relu"),
        Activation::Softsign => plain("Softsign"),
        Activation::Softplus => plain("Softplus"),
        Activation::Elu => Ok(("Elu", vec![1.0], vec![])),
        Activation::HardSigmoid => Ok(("HardSigmoid", vec![0.2], vec![0.5])),
        Activation::Identity => Ok(("Affine", vec![1.0], vec![0.0])),
        other => Err(inexpressible("activation", other.name())),
    }
}

/// An error: ONNX has no such option.
fn inexpressible(option: &str, value: &str) -> Error {
    let problem = format!("is {value}, which the operators of ONNX cannot express");
    Error::argument("onnx", option, problem)
}

/// The parameter with a name, if there is one.
fn parameter<M: Module>(module: &M, name: &str) -> Option<Tensor<M::Backend>> {
    let mut params = module.named_params().into_iter();
    params
        .find(|(other, _)| other == name)
        .map(|(_, param)| param.value().clone())
}

/// The parameters with these names.
fn parameters<M: Module, const N: usize>(
    module: &M,
    names: [&str; N],
) -> Result<[Tensor<M::Backend>; N]> {
    let missing = |name: &str| Error::argument("onnx", name, "is not a parameter of the cell");
    let found = names
        .iter()
        .map(|name| parameter(module, name).ok_or_else(|| missing(name)));
    let found = found.collect::<Result<Vec<_>>>()?;
    found.try_into().map_err(|_| missing("parameters"))
}

impl<B: Backend> Exportable for Layer<B> {
    type Backend = B;
    fn layer(&self) -> Result<Self> {
        Ok(self.clone())
    }
}

impl<B: Backend> Exportable for BasicRnnCell<B> {
    type Backend = B;
    fn layer(&self) -> Result<Layer<B>> {
        let [kernel, bias] = parameters(self, ["kernel", "bias"])?;
        Layer::new("RNN", [&kernel, &bias], &[0], &[self.activation()])
    }
}

impl<B: Backend> Exportable for BasicLstmCell<B> {
    type Backend = B;
    fn layer(&self) -> Result<Layer<B>> {
        let [kernel, bias] = parameters(self, ["kernel", "bias"])?;
        let activations = [Activation::Sigmoid, self.activation()];
        Layer::lstm([&kernel, &bias], self.forget_bias(), activations)
    }
}

impl<B: Backend> Exportable for LstmCell<B> {
    type Backend = B;
    fn layer(&self) -> Result<Layer<B>> {
        if let Some(clip) = self.cell_clip() {
            return Err(inexpressible("cell_clip", &clip.to_string()));
        }
        if let Some(projection) = parameter(self, "projection/kernel") {
            return Err(inexpressible("num_proj", &projection.dims()[1].to_string()));
        }
        let [kernel, bias] = parameters(self, ["kernel", "bias"])?;
        let activations = [self.recurrent_activation(), self.activation()];
        let mut layer = Layer::lstm([&kernel, &bias], self.forget_bias(), activations)?;
        if parameter(self, "w_i_diag").is_some() {
            let [i, o, f] = parameters(self, ["w_i_diag", "w_o_diag", "w_f_diag"])?;
            layer.peepholes = Some(Tensor::concat(&[&i, &o, &f], 0)?);
        }
        Ok(layer)
    }
}

impl<B: Backend> Exportable for GruCell<B> {
    type Backend = B;
    fn layer(&self) -> Result<Layer<B>> {
        let activations = [self.recurrent_activation(), self.activation()];
        let [gates, gates_bias] = parameters(self, ["gates/kernel", "gates/bias"])?;
        let reset_after = parameter(self, "candidate/kernel").is_none();
        let (kernel, bias, of_state) = if reset_after {
            let candidate = "candidate/input_projection";
            let hidden = "candidate/hidden_projection";
            let names = [
                format!("{candidate}/kernel"),
                format!("{hidden}/kernel"),
                format!("{candidate}/bias"),
                format!("{hidden}/bias"),
            ];
            let [x, h, bias, of_state] = parameters(self, names.each_ref().map(|n| &**n))?;
            (Tensor::concat(&[&x, &h], 0)?, bias, Some(of_state))
        } else {
            let [kernel, bias] = parameters(self, ["candidate/kernel", "candidate/bias"])?;
            (kernel, bias, None)
        };
        let kernel = Tensor::concat(&[&gates, &kernel], 1)?;
        let bias = Tensor::concat(&[&gates_bias, &bias], 0)?;
        // r, u, candidate to z, r, h
        let mut layer = Layer::new("GRU", [&kernel, &bias], &[1, 0, 2], &activations)?;
        if let Some(of_state) = of_state {
            layer.reset_after = true;
            let [_, _, bias] = &mut layer.weights;
            let width = bias.dims()[0] - of_state.dims()[0];
            *bias = Tensor::concat(&[&bias.slice(0, 0..width)?, &of_state], 0)?;
        }
        Ok(layer)
    }
}
