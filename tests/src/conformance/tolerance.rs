//! How far results may be from the reference: the one table.

use backend_api::DType;

/// Operations by how they round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Elements are moved, counted or compared: the same bits.
    Exact,
    /// One or two operations that are rounded correctly.
    Rounded,
    /// Functions in `f64`, the result rounded: the last place.
    LastPlace,
    /// A function that is approximated, such as `exp`.
    Function,
    /// Sums of many elements.
    Sum,
    /// Sums of products.
    Product,
    /// Sums of products of operands that may be rounded to TensorFloat-32.
    Tf32,
    /// Sums of products of operands that may be rounded to bfloat16.
    Bf16,
    /// A few of the above in a row: steps of cells, optimizers, losses.
    Step,
    /// Outputs and states of a network.
    Network,
    /// Gradients through a network.
    Gradient,
}

impl Class {
    /// The limit of `|a - b| / (1 + |b|)`. Integers and truth values are always exact.
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
        // 16-bit floats are computed in `f32`, and each result rounded once; default bodies round after each of their
        // operations. A rounding to `f16` is one by 2^-11 at most, to `bf16` by 2^-8.
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
