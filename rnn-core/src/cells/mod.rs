//! The cells of TensorFlow 1.x, one file per cell: equations, parameters, code. To add a cell, add
//! its file, and below its `mod`, its `pub use` and its line in `for_each_cell!`.

mod affine;
mod basic_lstm;
mod basic_rnn;
mod bidirectional_grid_lstm;
mod builder;
mod cfn;
mod conv;
mod conv_lstm;
mod coupled_lstm;
mod cudnn_compatible_gru;
mod cudnn_compatible_lstm;
mod frequency;
mod glstm;
mod grid;
mod grid_lstm;
mod grid_state;
mod gru;
mod gru_block;
mod ind_rnn;
mod independent;
mod indy_gru;
mod indy_lstm;
mod intersection_rnn;
mod layer_norm;
mod layer_norm_basic_lstm;
mod layer_norm_lstm;
mod lstm;
mod lstm_block;
mod lstm_block_fused;
mod lstm_core;
mod math;
mod minimal_rnn;
mod nas;
mod phased_lstm;
mod same_as;
mod sharded;
mod sizes;
mod sru;
mod time_freq_lstm;
mod ugrnn;
mod weight_norm_lstm;

pub(crate) use affine::{Affine, First};
pub use basic_lstm::{BasicLstmCell, BasicLstmCellBuilder, LstmState};
pub use basic_rnn::{BasicRnnCell, BasicRnnCellBuilder};
pub use bidirectional_grid_lstm::{BidirectionalGridLstmCell, BidirectionalGridLstmCellBuilder};
pub use cfn::{CfnCell, CfnCellBuilder};
pub use conv_lstm::{
    Conv1dLstmCellConfig, Conv2dLstmCellConfig, Conv3dLstmCellConfig, ConvLstmCell,
    ConvLstmCellBuilder,
};
pub use coupled_lstm::{CoupledInputForgetGateLstmCell, CoupledInputForgetGateLstmCellBuilder};
pub use cudnn_compatible_gru::{CudnnCompatibleGruCell, CudnnCompatibleGruCellBuilder};
pub use cudnn_compatible_lstm::{CudnnCompatibleLstmCell, CudnnCompatibleLstmCellBuilder};
pub use glstm::{GlstmCell, GlstmCellBuilder};
pub use grid_lstm::{GridLstmCell, GridLstmCellBuilder};
pub use grid_state::GridLstmState;
pub use gru::{GruCell, GruCellBuilder};
pub use gru_block::{GruBlockCell, GruBlockCellBuilder};
pub use ind_rnn::{IndRnnCell, IndRnnCellBuilder};
pub(crate) use independent::Independent;
pub use indy_gru::{IndyGruCell, IndyGruCellBuilder};
pub use indy_lstm::{IndyLstmCell, IndyLstmCellBuilder};
pub use intersection_rnn::{IntersectionRnnCell, IntersectionRnnCellBuilder};
pub use layer_norm_basic_lstm::{LayerNormBasicLstmCell, LayerNormBasicLstmCellBuilder};
pub use layer_norm_lstm::{LayerNormLstmCell, LayerNormLstmCellBuilder};
pub use lstm::{LstmCell, LstmCellBuilder};
pub use lstm_block::{LstmBlockCell, LstmBlockCellBuilder};
pub use lstm_block_fused::{LstmBlockFusedCell, LstmBlockFusedCellBuilder};
pub use minimal_rnn::{MinimalRnnCell, MinimalRnnCellBuilder};
pub use nas::{NasCell, NasCellBuilder};
pub use phased_lstm::{PhasedLstmCell, PhasedLstmCellBuilder};
pub(crate) use sizes::CellSize;
pub use sru::{SruCell, SruCellBuilder};
pub use time_freq_lstm::{TimeFreqLstmCell, TimeFreqLstmCellBuilder};
pub use ugrnn::{UgrnnCell, UgrnnCellBuilder};
pub use weight_norm_lstm::{WeightNormLstmCell, WeightNormLstmCellBuilder};

/// Calls a macro with every cell of the library, the macro of its documentation and its builders.
/// `registered` cells read and return single tensors, so
/// [`cell_from_config`](crate::cell_from_config) can build them.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_cell {
    ($callback:ident) => {
        $callback! {
            registered {
                BasicLstmCell basic_lstm_cell_doc: BasicLstmCellBuilder;
                BasicRnnCell basic_rnn_cell_doc: BasicRnnCellBuilder;
                BidirectionalGridLstmCell bidirectional_grid_lstm_cell_doc:
                    BidirectionalGridLstmCellBuilder;
                CfnCell cfn_cell_doc: CfnCellBuilder;
                ConvLstmCell conv_lstm_cell_doc:
                    ConvLstmCellBuilder, Conv1dLstmCellConfig, Conv2dLstmCellConfig,
                    Conv3dLstmCellConfig;
                CoupledInputForgetGateLstmCell coupled_input_forget_gate_lstm_cell_doc:
                    CoupledInputForgetGateLstmCellBuilder;
                CudnnCompatibleGruCell cudnn_compatible_gru_cell_doc: CudnnCompatibleGruCellBuilder;
                CudnnCompatibleLstmCell cudnn_compatible_lstm_cell_doc:
                    CudnnCompatibleLstmCellBuilder;
                GlstmCell glstm_cell_doc: GlstmCellBuilder;
                GridLstmCell grid_lstm_cell_doc: GridLstmCellBuilder;
                GruCell gru_cell_doc: GruCellBuilder;
                GruBlockCell gru_block_cell_doc: GruBlockCellBuilder;
                IndRnnCell ind_rnn_cell_doc: IndRnnCellBuilder;
                IndyGruCell indy_gru_cell_doc: IndyGruCellBuilder;
                IndyLstmCell indy_lstm_cell_doc: IndyLstmCellBuilder;
                IntersectionRnnCell intersection_rnn_cell_doc: IntersectionRnnCellBuilder;
                LayerNormBasicLstmCell layer_norm_basic_lstm_cell_doc:
                    LayerNormBasicLstmCellBuilder;
                LayerNormLstmCell layer_norm_lstm_cell_doc: LayerNormLstmCellBuilder;
                LstmCell lstm_cell_doc: LstmCellBuilder;
                LstmBlockCell lstm_block_cell_doc: LstmBlockCellBuilder;
                MinimalRnnCell minimal_rnn_cell_doc: MinimalRnnCellBuilder;
                NasCell nas_cell_doc: NasCellBuilder;
                SruCell sru_cell_doc: SruCellBuilder;
                TimeFreqLstmCell time_freq_lstm_cell_doc: TimeFreqLstmCellBuilder;
                UgrnnCell ugrnn_cell_doc: UgrnnCellBuilder;
                WeightNormLstmCell weight_norm_lstm_cell_doc: WeightNormLstmCellBuilder;
            }
            others {
                LstmBlockFusedCell lstm_block_fused_cell_doc: LstmBlockFusedCellBuilder;
                PhasedLstmCell phased_lstm_cell_doc: PhasedLstmCellBuilder;
            }
        }
    };
}
