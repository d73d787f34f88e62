//! The table of tolerances.

use backend_api::DType;

/// Classes of operations by their rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Elements are moved, counted or compared: bit for bit equal.
    Exact,
    /// One or two correctly rounded operations.
    Rounded,
    /// Functions computed in `f64` and rounded: within the last bit.
    LastPlace,
    /// An approximated function such as `exp`.
    Function,
    /// Sums of many elements.
    Sum,
    /// Matmuls.
    Product,
    /// Matmuls whose operands may be rounded to TensorFloat-32.
    Tf32,
    /// Matmuls whose operands may be rounded to bfloat16.
    Bf16,
    /// A few of the above in sequence: steps of cells, optimizers, losses.
    Step,
    /// Outputs and states of a network.
    Network,
    /// Gradients through a network.
    Gradient,
}

impl Class {
    /// The limit of `|a - b| / (1 + |b|)`. Integers and booleans are always exact.
    pub fn tolerance(self, dtype: DType) -> f64 {
        let (single, double) = match self {
            Self::Exact => return 0.0,
            Self::Rounded => (1.5e-7, 5e-16),
            Self::LastPlace => (1.5e-7, 3e-15),
            Self::Function => (1e-6, 2e-15),
            Self::Sum => (1e-5, 1e-12),
            Self::Product => (3e-5, 5e-13),
            Self::Tf32 => (8e-3, 1e-13),
            Self::Bf16 => (6e-2, 1e-13),
            Self::Step => (2e-6, 5e-15),
            Self::Network => (5e-6, 2e-14),
            Self::Gradient => (2e-5, 1e-13),
        };
        // 16-bit floats are computed in `f32`, with one rounding per result; default bodies round
        // after each of their operations. The relative error of a rounding is at most 2^-11 for
        // `f16` and 2^-8 for `bf16`.
        let roundings = match self {
            Self::Rounded => 2.0,
            Self::Step => 4.0,
            Self::Network | Self::Gradient => 16.0,
            _ => 1.0,
        };
        match dtype {
            DType::F32 => single,
            DType::F64 => double,
            DType::F16 => single + roundings * 5e-4,
            DType::Bf16 => single + roundings * 4e-3,
            _ => 0.0,
        }
    }
}
