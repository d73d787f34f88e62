//! The names of operations in messages.

use crate::{Binary, Compare, Fused, Op, Recurrence, Reduce, SequencePlan, Unary};

impl Op {
    /// The operation's name in messages: `add`, `matmul`, `lstm_step`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fill { .. } => "fill",
            Self::Random { .. } => "random",
            Self::Copy => "copy",
            Self::Cast { .. } => "cast",
            Self::Unary(f) => f.name(),
            Self::Affine { .. } => "affine",
            Self::Clamp { .. } => "clamp",
            Self::Binary(f) => f.name(),
            Self::Compare(f) => f.name(),
            Self::Select => "select",
            Self::Reduce { kind, .. } => match kind {
                Reduce::Sum => "sum",
                Reduce::Max => "max",
            },
            Self::ArgMax { .. } => "argmax",
            Self::MatMul { .. } => "matmul",
            Self::Concat { .. } => "concat",
            Self::Reverse { .. } => "reverse",
            Self::Gather => "gather",
            Self::ScatterAdd { .. } => "scatter_add",
            Self::Fused(f) => f.name(),
        }
    }
}

impl Fused {
    /// The names of all fused operations, as [`Op::name`] returns them: for tests that cover every
    /// one.
    pub const NAMES: [&'static str; 26] = [
        "bias_activation",
        "activation_grad",
        "lstm_step",
        "lstm_step_grad",
        "gru_gates",
        "gru_gates_grad",
        "gru_output",
        "gru_output_grad",
        "masked_update",
        "scatter_update",
        "basic_rnn_sequence",
        "lstm_sequence",
        "extended_lstm_sequence",
        "gru_sequence",
        "gru_reset_after_sequence",
        "basic_rnn_sequence_grad",
        "lstm_sequence_grad",
        "extended_lstm_sequence_grad",
        "gru_sequence_grad",
        "gru_reset_after_sequence_grad",
        "scan",
        "softmax_cross_entropy",
        "softmax_cross_entropy_grad",
        "squared_norm",
        "sgd",
        "adam",
    ];

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BiasActivation { .. } => "bias_activation",
            Self::ActivationGrad { .. } => "activation_grad",
            Self::LstmStep(_) => "lstm_step",
            Self::LstmStepGrad(_) => "lstm_step_grad",
            Self::GruGates => "gru_gates",
            Self::GruGatesGrad => "gru_gates_grad",
            Self::GruOutput { .. } => "gru_output",
            Self::GruOutputGrad { .. } => "gru_output_grad",
            Self::MaskedUpdate { .. } => "masked_update",
            Self::ScatterUpdate => "scatter_update",
            Self::Sequence(plan) => plan.names().0,
            Self::SequenceGrad(plan) => plan.names().1,
            Self::Scan(_) => "scan",
            Self::SoftmaxCrossEntropy => "softmax_cross_entropy",
            Self::SoftmaxCrossEntropyGrad => "softmax_cross_entropy_grad",
            Self::SquaredNorm => "squared_norm",
            Self::Sgd { .. } => "sgd",
            Self::Adam(_) => "adam",
        }
    }
}

impl SequencePlan {
    /// The names of the sequence operation and of its gradient.
    fn names(&self) -> (&'static str, &'static str) {
        match self.recurrence {
            Recurrence::Basic { .. } => ("basic_rnn_sequence", "basic_rnn_sequence_grad"),
            Recurrence::Lstm(_) => ("lstm_sequence", "lstm_sequence_grad"),
            Recurrence::ExtendedLstm(_) => {
                ("extended_lstm_sequence", "extended_lstm_sequence_grad")
            }
            Recurrence::Gru { .. } => ("gru_sequence", "gru_sequence_grad"),
            Recurrence::GruResetAfter { .. } => {
                ("gru_reset_after_sequence", "gru_reset_after_sequence_grad")
            }
        }
    }
}

impl Unary {
    fn name(self) -> &'static str {
        match self {
            Self::Neg => "neg",
            Self::Abs => "abs",
            Self::Sign => "sign",
            Self::Square => "square",
            Self::Sqrt => "sqrt",
            Self::Recip => "recip",
            Self::Exp => "exp",
            Self::Log => "log",
            Self::Floor => "floor",
            Self::Sin => "sin",
            Self::Cos => "cos",
            Self::Activation(f) => f.name(),
        }
    }
}

impl Binary {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Div => "div",
            Self::Max => "maximum",
            Self::Min => "minimum",
            Self::FloorMod => "floor_mod",
        }
    }
}

impl Compare {
    fn name(self) -> &'static str {
        match self {
            Self::Eq => "equal",
            Self::Ne => "not_equal",
            Self::Lt => "less",
            Self::Le => "less_equal",
            Self::Gt => "greater",
            Self::Ge => "greater_equal",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::*;
    use crate::trace::{CompiledStep, ScanPlan, StepGraph};
    use crate::{Activation, AdamStep, ExtendedLstm, LstmGates, SequencePath};

    /// The indices of a variant's names in [`Fused::NAMES`]. The match fails to compile for a new
    /// variant without an entry.
    fn indices(fused: &Fused) -> Range<usize> {
        match fused {
            Fused::BiasActivation { .. } => 0..1,
            Fused::ActivationGrad { .. } => 1..2,
            Fused::LstmStep(_) => 2..3,
            Fused::LstmStepGrad(_) => 3..4,
            Fused::GruGates => 4..5,
            Fused::GruGatesGrad => 5..6,
            Fused::GruOutput { .. } => 6..7,
            Fused::GruOutputGrad { .. } => 7..8,
            Fused::MaskedUpdate { .. } => 8..9,
            Fused::ScatterUpdate => 9..10,
            Fused::Sequence(_) => 10..15,
            Fused::SequenceGrad(_) => 15..20,
            Fused::Scan(_) => 20..21,
            Fused::SoftmaxCrossEntropy => 21..22,
            Fused::SoftmaxCrossEntropyGrad => 22..23,
            Fused::SquaredNorm => 23..24,
            Fused::Sgd { .. } => 24..25,
            Fused::Adam(_) => 25..26,
        }
    }

    /// At least one value of each variant.
    fn examples() -> Vec<Fused> {
        let activation = Activation::Tanh;
        let gates = LstmGates {
            forget_bias: 1.0,
            activation,
        };
        let step = AdamStep {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            step: 1,
            keep: 1.0,
        };
        let mut all = vec![
            Fused::BiasActivation { activation },
            Fused::ActivationGrad { activation },
            Fused::LstmStep(gates),
            Fused::LstmStepGrad(gates),
            Fused::GruGates,
            Fused::GruGatesGrad,
            Fused::GruOutput { activation },
            Fused::GruOutputGrad { activation },
            Fused::MaskedUpdate { time: 0 },
            Fused::ScatterUpdate,
            Fused::Scan(ScanPlan {
                step: Arc::new(CompiledStep::new(StepGraph::default(), Err(String::new()))),
                steps: 0,
                reverse: false,
                ragged: false,
                reuse: false,
                saved: 0,
            }),
            Fused::SoftmaxCrossEntropy,
            Fused::SoftmaxCrossEntropyGrad,
            Fused::SquaredNorm,
            Fused::Sgd { lr: 0.1 },
            Fused::Adam(step),
        ];
        for recurrence in [
            Recurrence::Basic { activation },
            Recurrence::Lstm(gates),
            Recurrence::ExtendedLstm(ExtendedLstm {
                gates,
                peepholes: true,
                cell_clip: None,
                projection: false,
                proj_clip: None,
            }),
            Recurrence::Gru { activation },
            Recurrence::GruResetAfter { activation },
        ] {
            let plan = SequencePlan {
                recurrence,
                path: SequencePath::Stepwise,
                ragged: false,
                save: false,
                reuse: false,
                input_grad: true,
            };
            all.extend([Fused::Sequence(plan), Fused::SequenceGrad(plan)]);
        }
        all
    }

    #[test]
    fn every_name_is_listed_once() {
        let mut found: Vec<&str> = Vec::new();
        for fused in examples() {
            let range = indices(&fused);
            assert!(Fused::NAMES[range].contains(&fused.name()), "{fused:?}");
            found.push(fused.name());
        }
        found.sort_unstable();
        let mut listed = Fused::NAMES;
        listed.sort_unstable();
        assert_eq!(found, listed);
    }
}
