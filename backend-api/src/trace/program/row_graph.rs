//! What a step computes for one row of the batch.

use crate::{DType, Layout};
use smallvec::{SmallVec, smallvec};

use super::instruction::Code;

/// Axes of one row: the lengths or the strides.
pub(super) type Axes = SmallVec<[usize; 6]>;

/// What a step computes for one row of the batch.
#[derive(Debug)]
pub(super) struct RowGraph {
    pub(super) batch: usize,
    pub(super) dtype: DType,
    /// Elements of a row of each input, state and output.
    pub(super) inputs: Vec<usize>,
    pub(super) states: Vec<usize>,
    pub(super) outputs: Vec<usize>,
    /// Elements of each captured tensor.
    pub(super) captured: Vec<usize>,
    pub(super) constants: Vec<f64>,
    /// Right sides of products: views of captured tensors.
    pub(super) matrices: Vec<Matrix>,
    /// In an order of computation: operands come first.
    pub(super) values: Vec<RowValue>,
    /// The step's outputs, then the new states.
    pub(super) results: Vec<Span>,
}

/// A right side `[k, n]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Index of the captured tensor.
    pub captured: usize,
    /// The view of it.
    pub layout: Layout,
    /// Whether it is multiplied with the rows of several steps at a time.
    pub chunked: bool,
}

/// A value of one row, of `width` elements without gaps.
#[derive(Debug)]
pub(super) struct RowValue {
    pub(super) width: usize,
    pub(super) work: RowWork,
}

/// How a value is computed.
#[derive(Debug)]
pub(super) enum RowWork {
    /// An instruction for each index of `axes`. A reduction reduces the last axis.
    Map {
        code: Code,
        axes: Axes,
        ins: SmallVec<[Span; 3]>,
    },
    /// `start` plus the products of the terms, in order.
    Product {
        terms: SmallVec<[Term; 2]>,
        start: Option<Span>,
    },
    /// Parts of other values, in order. If they are not `disjoint`, later ones replace earlier
    /// ones. Together, they cover the value.
    Parts { parts: Vec<Part>, disjoint: bool },
}

/// A product of contiguous elements of a row and a matrix.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) a: Span,
    /// Index of the matrix.
    pub(super) matrix: usize,
}

/// A part of a value: its elements, and where they go.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) from: Span,
    pub(super) at: usize,
    pub(super) strides: Axes,
}

/// Elements of a row of a source, of the shape `axes`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span {
    pub(super) source: Source,
    pub(super) offset: usize,
    pub(super) axes: Axes,
    pub(super) strides: Axes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Index of a [`RowValue`].
    Value(usize),
    Input(usize),
    State(usize),
    /// A captured tensor, and the distance of its rows; 0 if it is the same for all rows.
    Captured(usize, usize),
    /// Index of a constant; all strides are 0.
    Constant(usize),
}

/// Row-major strides.
pub(super) fn row_major(axes: &[usize]) -> Axes {
    let mut strides: Axes = smallvec![0; axes.len()];
    let mut step = 1;
    for (stride, &len) in strides.iter_mut().zip(axes).rev() {
        *stride = step;
        step *= len.max(1);
    }
    strides
}

/// Elements of the given axes.
pub(super) fn count(axes: &[usize]) -> usize {
    axes.iter().product()
}

/// Whether strides are row-major without gaps.
pub(super) fn is_dense(axes: &[usize], strides: &[usize]) -> bool {
    let wanted = row_major(axes);
    let mut all = axes.iter().zip(strides.iter().zip(&wanted));
    all.all(|(&len, (stride, wanted))| len == 1 || stride == wanted)
}

impl RowWork {
    /// Calls `f` with each span that a value reads.
    pub(super) fn for_each_span(&self, mut f: impl FnMut(&Span)) {
        match self {
            Self::Map { ins, .. } => ins.iter().for_each(f),
            Self::Product { terms, start } => {
                terms.iter().for_each(|term| f(&term.a));
                start.iter().for_each(f);
            }
            Self::Parts { parts, .. } => parts.iter().for_each(|part| f(&part.from)),
        }
    }
}

impl Span {
    pub(super) fn whole(source: Source, axes: &[usize]) -> Self {
        Self {
            source,
            offset: 0,
            axes: axes.into(),
            strides: row_major(axes),
        }
    }

    /// Whether the elements are contiguous and in order.
    pub(super) fn is_contiguous(&self) -> bool {
        let wanted = row_major(&self.axes);
        let mut pairs = self.axes.iter().zip(self.strides.iter().zip(&wanted));
        pairs.all(|(&len, (stride, wanted))| len == 1 || stride == wanted) || count(&self.axes) == 0
    }

    /// The value of which this is the whole row.
    pub(super) fn is_whole(&self, width: usize) -> bool {
        self.offset == 0 && count(&self.axes) == width && self.is_contiguous()
    }

    /// A range of the last axis.
    pub(super) fn cut(&self, start: usize, len: usize) -> Self {
        let mut cut = self.clone();
        if let (Some(last), Some(stride)) = (cut.axes.last_mut(), cut.strides.last()) {
            *last = len;
            cut.offset += start * stride;
        }
        cut
    }

    /// Equal parts of the last axis.
    pub(super) fn split<const N: usize>(&self) -> [Self; N] {
        let n = self.axes.last().copied().unwrap_or(0) / N;
        std::array::from_fn(|i| self.cut(i * n, n))
    }
}

impl RowGraph {
    pub(super) fn constant(&mut self, value: f64) -> Source {
        let same = |known: &f64| known.to_bits() == value.to_bits();
        let found = self.constants.iter().position(same);
        Source::Constant(found.unwrap_or_else(|| {
            self.constants.push(value);
            self.constants.len() - 1
        }))
    }

    /// The index of a matrix.
    pub(super) fn matrix(&mut self, matrix: Matrix) -> usize {
        let found = self.matrices.iter().position(|known| *known == matrix);
        found.unwrap_or_else(|| {
            self.matrices.push(matrix);
            self.matrices.len() - 1
        })
    }
}

/// Calls `f` with the offset of each element.
pub(super) fn for_each_index(
    axes: &[usize],
    strides: &[usize],
    at: usize,
    f: &mut impl FnMut(usize),
) {
    match (axes, strides) {
        ([len, axes @ ..], [stride, strides @ ..]) => {
            for i in 0..*len {
                for_each_index(axes, strides, at + i * stride, f);
            }
        }
        _ => f(at),
    }
}
