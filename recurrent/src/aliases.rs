//! The types of the underlying crates, instantiated for [`Device`].

use crate::Device;

/// An array of numbers on a device; see [`backend_api::Tensor`].
pub type Tensor = backend_api::Tensor<Device>;

/// A trainable tensor; see [`rnn_core::Param`].
pub type Param = rnn_core::Param<Device>;

/// The visitor of [`Module::params`](crate::Module::params); see [`rnn_core::Visitor`].
pub type Visitor<'a> = rnn_core::Visitor<'a, Device>;

/// The gradients of a model; see [`rnn_train::Gradients`].
pub type Gradients = rnn_train::Gradients<Device>;

/// The gradient of one parameter; see [`rnn_train::Gradient`].
pub type Gradient = rnn_train::Gradient<Device>;

/// The sparse gradient of an embedding table; see [`rnn_train::IndexedSlices`].
pub type IndexedSlices = rnn_train::IndexedSlices<Device>;

/// The plain recurrent cell; see [`rnn_core::BasicRnnCell`].
///
/// ```
/// use recurrent::{BasicRnnCell, Device, Module};
///
/// let cell = BasicRnnCell::new(&Device::cpu(), 28, 150)?;
/// assert_eq!(cell.param_count(), (28 + 150) * 150 + 150);
/// # Ok::<(), recurrent::Error>(())
/// ```
pub type BasicRnnCell = rnn_core::BasicRnnCell<Device>;

/// The LSTM cell without peepholes, clipping or projection; see [`rnn_core::BasicLstmCell`].
///
/// ```
/// use recurrent::{BasicLstmCell, Device, Module};
///
/// let cell = BasicLstmCell::new(&Device::cpu(), 28, 128)?;
/// assert_eq!(cell.named_params()[0].1.shape().dims(), [28 + 128, 4 * 128]);
/// # Ok::<(), recurrent::Error>(())
/// ```
pub type BasicLstmCell = rnn_core::BasicLstmCell<Device>;

/// The state of an LSTM cell; see [`rnn_core::LstmState`].
pub type LstmState = rnn_core::LstmState<Device>;

/// The gated recurrent unit; see [`rnn_core::GruCell`].
///
/// ```
/// use recurrent::{Device, GruCell, Module};
///
/// let cell = GruCell::new(&Device::cpu(), 28, 128)?;
/// let names: Vec<String> = cell.named_params().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"]);
/// # Ok::<(), recurrent::Error>(())
/// ```
pub type GruCell = rnn_core::GruCell<Device>;

/// The LSTM cell with peepholes, clipping and projection; see [`rnn_core::LstmCell`].
///
/// ```
/// use recurrent::{Device, LstmCell, Module};
///
/// let cell = LstmCell::builder(28, 128).use_peepholes(true).num_proj(64).build(&Device::cpu())?;
/// assert_eq!(cell.named_params()[0].1.shape().dims(), [28 + 64, 4 * 128]);
/// # Ok::<(), recurrent::Error>(())
/// ```
pub type LstmCell = rnn_core::LstmCell<Device>;

/// A cell of any kind, chosen at run time; see [`rnn_core::AnyCell`].
///
/// ```
/// use recurrent::{AnyCell, Device, GruCell, LstmCell, MultiRnnCell};
///
/// let device = Device::cpu();
/// let cells = vec![
///     AnyCell::new(GruCell::new(&device, 28, 64)?),
///     AnyCell::new(LstmCell::new(&device, 64, 128)?),
/// ];
/// let stack = MultiRnnCell::new(cells)?;
/// # let _ = stack;
/// # Ok::<(), recurrent::Error>(())
/// ```
pub type AnyCell = rnn_core::AnyCell<Device>;

/// The state of an [`AnyCell`]; see [`rnn_core::AnyState`].
pub type AnyState = rnn_core::AnyState<Device>;

/// The fully connected layer; see [`rnn_core::Dense`].
pub type Dense = rnn_core::Dense<Device>;

/// The Adam optimizer; see [`rnn_train::optim::Adam`].
pub type Adam = rnn_train::optim::Adam<Device>;

/// Gradient descent; see [`rnn_train::optim::Sgd`].
pub type Sgd = rnn_train::optim::Sgd<Device>;

/// Gradient descent with momentum; see [`rnn_train::optim::Momentum`].
pub type Momentum = rnn_train::optim::Momentum<Device>;

/// RMSProp; see [`rnn_train::optim::RmsProp`].
pub type RmsProp = rnn_train::optim::RmsProp<Device>;

/// Adagrad; see [`rnn_train::optim::Adagrad`].
pub type Adagrad = rnn_train::optim::Adagrad<Device>;

/// The training loop; see [`rnn_train::training::Trainer`].
pub type Trainer = rnn_train::training::Trainer<Device>;
