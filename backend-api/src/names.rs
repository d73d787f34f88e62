//! The names of operations in messages.

use crate::{Binary, Compare, Fused, Op, Reduce, Unary};

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
    pub const NAMES: [&'static str; 16] = [
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
            Self::GruGates { .. } => "gru_gates",
            Self::GruGatesGrad { .. } => "gru_gates_grad",
            Self::GruOutput { .. } => "gru_output",
            Self::GruOutputGrad { .. } => "gru_output_grad",
            Self::MaskedUpdate { .. } => "masked_update",
            Self::ScatterUpdate => "scatter_update",
            Self::Scan(_) => "scan",
            Self::SoftmaxCrossEntropy => "softmax_cross_entropy",
            Self::SoftmaxCrossEntropyGrad => "softmax_cross_entropy_grad",
            Self::SquaredNorm => "squared_norm",
            Self::Sgd { .. } => "sgd",
            Self::Adam(_) => "adam",
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
    use std::sync::Arc;

    use super::*;
    use crate::trace::{CompiledStep, ScanPlan, StepGraph};
    use crate::{Activation, AdamStep, LstmGates};

    /// The index of a variant's name in [`Fused::NAMES`]. The match fails to compile for a new
    /// variant without an entry.
    fn index(fused: &Fused) -> usize {
        match fused {
            Fused::BiasActivation { .. } => 0,
            Fused::ActivationGrad { .. } => 1,
            Fused::LstmStep(_) => 2,
            Fused::LstmStepGrad(_) => 3,
            Fused::GruGates { .. } => 4,
            Fused::GruGatesGrad { .. } => 5,
            Fused::GruOutput { .. } => 6,
            Fused::GruOutputGrad { .. } => 7,
            Fused::MaskedUpdate { .. } => 8,
            Fused::ScatterUpdate => 9,
            Fused::Scan(_) => 10,
            Fused::SoftmaxCrossEntropy => 11,
            Fused::SoftmaxCrossEntropyGrad => 12,
            Fused::SquaredNorm => 13,
            Fused::Sgd { .. } => 14,
            Fused::Adam(_) => 15,
        }
    }

    /// A value of each variant.
    fn examples() -> Vec<Fused> {
        let activation = Activation::Tanh;
        let gates = LstmGates {
            recurrent_activation: Activation::Sigmoid,
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
        vec![
            Fused::BiasActivation { activation },
            Fused::ActivationGrad { activation },
            Fused::LstmStep(gates),
            Fused::LstmStepGrad(gates),
            Fused::GruGates { activation },
            Fused::GruGatesGrad { activation },
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
        ]
    }

    #[test]
    fn every_name_is_listed_once() {
        let all = examples();
        assert_eq!(all.len(), Fused::NAMES.len());
        for fused in &all {
            assert_eq!(Fused::NAMES[index(fused)], fused.name(), "{fused:?}");
        }
        let mut names = Fused::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
