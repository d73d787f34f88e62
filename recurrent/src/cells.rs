//! The contributed cells, instantiated for [`Device`]; the core cells are in the crate root.

use crate::Device;

/// See [`rnn_core::cells::BidirectionalGridLstmCell`].
pub type BidirectionalGridLstmCell = rnn_core::cells::BidirectionalGridLstmCell<Device>;

/// See [`rnn_core::cells::CfnCell`].
pub type CfnCell = rnn_core::cells::CfnCell<Device>;

/// See [`rnn_core::cells::ConvLstmCell`].
pub type ConvLstmCell = rnn_core::cells::ConvLstmCell<Device>;

/// See [`rnn_core::cells::CoupledInputForgetGateLstmCell`].
pub type CoupledInputForgetGateLstmCell = rnn_core::cells::CoupledInputForgetGateLstmCell<Device>;

/// See [`rnn_core::cells::CudnnCompatibleGruCell`].
pub type CudnnCompatibleGruCell = rnn_core::cells::CudnnCompatibleGruCell<Device>;

/// See [`rnn_core::cells::CudnnCompatibleLstmCell`].
pub type CudnnCompatibleLstmCell = rnn_core::cells::CudnnCompatibleLstmCell<Device>;

/// See [`rnn_core::cells::GlstmCell`].
pub type GlstmCell = rnn_core::cells::GlstmCell<Device>;

/// See [`rnn_core::cells::GridLstmCell`].
pub type GridLstmCell = rnn_core::cells::GridLstmCell<Device>;

/// See [`rnn_core::cells::GridLstmState`].
pub type GridLstmState = rnn_core::cells::GridLstmState<Device>;

/// See [`rnn_core::cells::GruBlockCell`].
pub type GruBlockCell = rnn_core::cells::GruBlockCell<Device>;

/// See [`rnn_core::cells::IndRnnCell`].
pub type IndRnnCell = rnn_core::cells::IndRnnCell<Device>;

/// See [`rnn_core::cells::IndyGruCell`].
pub type IndyGruCell = rnn_core::cells::IndyGruCell<Device>;

/// See [`rnn_core::cells::IndyLstmCell`].
pub type IndyLstmCell = rnn_core::cells::IndyLstmCell<Device>;

/// See [`rnn_core::cells::IntersectionRnnCell`].
pub type IntersectionRnnCell = rnn_core::cells::IntersectionRnnCell<Device>;

/// See [`rnn_core::cells::LayerNormBasicLstmCell`].
pub type LayerNormBasicLstmCell = rnn_core::cells::LayerNormBasicLstmCell<Device>;

/// See [`rnn_core::cells::LayerNormLstmCell`].
pub type LayerNormLstmCell = rnn_core::cells::LayerNormLstmCell<Device>;

/// See [`rnn_core::cells::LstmBlockCell`].
pub type LstmBlockCell = rnn_core::cells::LstmBlockCell<Device>;

/// See [`rnn_core::cells::LstmBlockFusedCell`].
pub type LstmBlockFusedCell = rnn_core::cells::LstmBlockFusedCell<Device>;

/// See [`rnn_core::cells::MinimalRnnCell`].
pub type MinimalRnnCell = rnn_core::cells::MinimalRnnCell<Device>;

/// See [`rnn_core::cells::NasCell`].
pub type NasCell = rnn_core::cells::NasCell<Device>;

/// See [`rnn_core::cells::PhasedLstmCell`].
pub type PhasedLstmCell = rnn_core::cells::PhasedLstmCell<Device>;

/// See [`rnn_core::cells::SruCell`].
pub type SruCell = rnn_core::cells::SruCell<Device>;

/// See [`rnn_core::cells::TimeFreqLstmCell`].
pub type TimeFreqLstmCell = rnn_core::cells::TimeFreqLstmCell<Device>;

/// See [`rnn_core::cells::UgrnnCell`].
pub type UgrnnCell = rnn_core::cells::UgrnnCell<Device>;

/// See [`rnn_core::cells::WeightNormLstmCell`].
pub type WeightNormLstmCell = rnn_core::cells::WeightNormLstmCell<Device>;
