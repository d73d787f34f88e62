//! The types of the underlying crates, instantiated for [`Device`].

use crate::Device;

#[doc(inline)]
pub use crate::cells::{BasicLstmCell, BasicRnnCell, GruCell, LstmCell};

#[doc = backend_api::tensor_doc!()]
pub type Tensor = backend_api::Tensor<Device>;

#[doc = rnn_core::param_doc!()]
pub type Param = rnn_core::Param<Device>;

#[doc = rnn_core::visitor_doc!()]
pub type Visitor<'a> = rnn_core::Visitor<'a, Device>;

#[doc = rnn_core::lengths_doc!()]
pub type Lengths = rnn_core::Lengths<Device>;

#[doc = rnn_core::lstm_state_doc!()]
pub type LstmState = rnn_core::LstmState<Device>;

#[doc = rnn_core::any_cell_doc!()]
pub type AnyCell = rnn_core::AnyCell<Device>;

#[doc = rnn_core::any_state_doc!()]
pub type AnyState = rnn_core::AnyState<Device>;

#[doc = rnn_core::dense_doc!()]
pub type Dense = rnn_core::Dense<Device>;

#[doc = rnn_core::embedding_doc!()]
pub type Embedding = rnn_core::Embedding<Device>;

#[doc = rnn_core::layer_norm_doc!()]
pub type LayerNorm = rnn_core::LayerNorm<Device>;

#[doc = rnn_train::gradients_doc!()]
pub type Gradients = rnn_train::Gradients<Device>;

#[doc = rnn_train::gradient_doc!()]
pub type Gradient = rnn_train::Gradient<Device>;

#[doc = rnn_train::indexed_slices_doc!()]
pub type IndexedSlices = rnn_train::IndexedSlices<Device>;

#[doc = rnn_train::adam_doc!()]
pub type Adam = rnn_train::optim::Adam<Device>;

#[doc = rnn_train::adam_w_doc!()]
pub type AdamW = rnn_train::optim::AdamW<Device>;

#[doc = rnn_train::param_groups_doc!()]
pub type ParamGroups<O> = rnn_train::optim::ParamGroups<Device, O>;

#[doc = rnn_train::sgd_doc!()]
pub type Sgd = rnn_train::optim::Sgd<Device>;

#[doc = rnn_train::momentum_doc!()]
pub type Momentum = rnn_train::optim::Momentum<Device>;

#[doc = rnn_train::rms_prop_doc!()]
pub type RmsProp = rnn_train::optim::RmsProp<Device>;

#[doc = rnn_train::adagrad_doc!()]
pub type Adagrad = rnn_train::optim::Adagrad<Device>;

#[doc = rnn_train::trainer_doc!()]
pub type Trainer = rnn_train::training::Trainer<Device>;
