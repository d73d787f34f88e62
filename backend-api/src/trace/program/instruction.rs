//! The instructions of tile programs.

use super::{Buffer, Memory};
use crate::{Activation, Binary, Compare, Reduce, Unary};

/// One instruction: computes `blocks * width` elements of every row of a tile. A tile is a few rows
/// of the batch, whose intermediate values stay in the first-level cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instruction<B = Buffer> {
    /// What it computes.
    pub code: Code,
    /// Runs of `width` elements in each row; usually 1.
    pub blocks: usize,
    /// Elements of a run.
    pub width: usize,
    /// Where the result is.
    pub out: Place<B>,
    /// The operands; unused ones are equal to `out`.
    pub ins: [Place<B>; 3],
}

/// Where the elements of an operand or a result are: element `(row, block, column)` is at
/// `offset + row * row_stride + block * block_stride + column * column_stride` of a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place<B = Buffer> {
    /// The buffer.
    pub buffer: B,
    /// The first element of a row.
    pub offset: usize,
    /// Elements from one row to the next.
    pub row: usize,
    /// Elements from one block to the next.
    pub block: usize,
    /// 1 for contiguous elements, 0 for one element that is repeated. Other strides are possible
    /// but slow. A result has 1.
    pub column: usize,
}

/// What an instruction computes. Truth values are the numbers 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the operations")]
pub enum Code {
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
    /// `(y, dy)`, as [`Fused::ActivationGrad`](crate::Fused::ActivationGrad).
    ActivationGrad(Activation),
    /// `a * b + c`, rounded twice, as `Mul` and `Add` do it.
    MulAdd,
    /// `c - a * b`, rounded twice.
    SubMul,
    /// `a * b - c`, rounded twice.
    MulSub,
    /// Reduces the columns of each block to one element, at column 0 of the result.
    Reduce(Reduce),
    /// The sum of `a * b` over the columns of each block, with each product rounded.
    Dot,
}

impl<B> Instruction<B> {
    /// The operands.
    pub fn operands(&self) -> &[Place<B>] {
        &self.ins[..self.code.operands()]
    }
}

impl Place {
    /// The register of which it selects elements.
    pub fn register(&self) -> Option<usize> {
        match self.buffer.memory {
            Memory::Register(id) => Some(id),
            _ => None,
        }
    }
}

impl Code {
    /// Whether it reduces the columns of a block to one element.
    pub fn reduces(&self) -> bool {
        matches!(self, Self::Reduce(_) | Self::Dot)
    }

    /// The number of operands.
    pub fn operands(&self) -> usize {
        match self {
            Self::Copy | Self::Affine { .. } | Self::Clamp { .. } => 1,
            Self::Unary(_) | Self::Reduce(_) => 1,
            Self::Binary(_) | Self::Compare(_) | Self::ActivationGrad(_) | Self::Dot => 2,
            Self::Select | Self::MulAdd | Self::SubMul | Self::MulSub => 3,
        }
    }
}
