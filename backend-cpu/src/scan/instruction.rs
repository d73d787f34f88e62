//! The instructions of tile programs.

use backend_api::{Activation, Binary, Compare, Reduce, Unary};

/// One instruction: computes `blocks * width` elements of every row of a tile. A tile is a few rows
/// of the batch, whose intermediate values stay in the first-level cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Instruction {
    pub(super) code: Code,
    /// Runs of `width` elements in each row; usually 1.
    pub(super) blocks: usize,
    pub(super) width: usize,
    pub(super) out: Place,
    /// The operands; unused ones are equal to `out`.
    pub(super) ins: [Place; 3],
}

/// Where the elements of an operand or a result are: element `(row, block, column)` is at
/// `offset + row * row_stride + block * block_stride + column * column_stride` of a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place {
    /// Index of the buffer.
    pub(super) buffer: usize,
    pub(super) offset: usize,
    pub(super) row: usize,
    pub(super) block: usize,
    /// 1 for contiguous elements, 0 for one element that is repeated. Other strides are possible
    /// but slow. A result has 1.
    pub(super) column: usize,
}

/// What an instruction computes. Truth values are the numbers 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Code {
    Copy,
    Affine {
        mul: f64,
        add: f64,
    },
    Clamp {
        min: f64,
        max: f64,
    },
    Unary(Unary),
    Binary(Binary),
    Compare(Compare),
    /// `a` is not 0 ? `b` : `c`
    Select,
    /// `(y, dy)`, as [`Fused::ActivationGrad`](backend_api::Fused::ActivationGrad).
    ActivationGrad(Activation),
    /// `a * b + c`, rounded twice, as `Mul` and `Add` do it.
    MulAdd,
    /// `c - a * b` and `a * b - c`, rounded twice.
    SubMul,
    MulSub,
    /// Reduces the columns of each block to one element, at column 0 of the result.
    Reduce(Reduce),
    /// The sum of `a * b` over the columns of each block, with each product rounded.
    Dot,
}

impl Code {
    /// The number of operands.
    pub(super) fn operands(&self) -> usize {
        match self {
            Self::Copy | Self::Affine { .. } | Self::Clamp { .. } => 1,
            Self::Unary(_) | Self::Reduce(_) => 1,
            Self::Binary(_) | Self::Compare(_) | Self::ActivationGrad(_) | Self::Dot => 2,
            Self::Select | Self::MulAdd | Self::SubMul | Self::MulSub => 3,
        }
    }
}
