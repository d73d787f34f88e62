//! Element offsets of operands, in the form that kernels read.

use backend_api::{Error, Layout, MAX_RANK, Result, Shape};
use cudarc::driver::DeviceRepr;

/// `N` operands of one shape. Mirrors `Strided` in `common.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Strided<const N: usize> {
    pub(crate) count: i64,
    rank: i64,
    dims: [i64; MAX_RANK],
    strides: [[i64; MAX_RANK]; N],
    offsets: [i64; N],
}

// SAFETY: plain numbers in C layout, as on the device.
unsafe impl<const N: usize> DeviceRepr for Strided<N> {}

impl<const N: usize> Strided<N> {
    /// Operands broadcast to a shape.
    pub(crate) fn new(shape: Shape, layouts: [Layout; N]) -> Result<Self> {
        let mut operands = layouts.map(Axes::new);
        for (to, layout) in operands.iter_mut().zip(layouts) {
            *to = Axes::new(layout.broadcast_to(shape)?);
        }
        Ok(Self::walk(shape, operands))
    }

    /// Operands that already have the axes of `shape`. Adjacent axes are merged if every operand's
    /// strides allow it.
    pub(crate) fn walk(shape: Shape, operands: [Axes; N]) -> Self {
        let mut all = Self {
            count: shape.count() as i64,
            rank: 0,
            dims: [1; MAX_RANK],
            strides: [[0; MAX_RANK]; N],
            offsets: operands.map(|x| x.offset),
        };
        for axis in (0..shape.rank()).filter(|&axis| shape[axis] != 1) {
            all.push(shape[axis] as i64, operands.map(|x| x.strides[axis]));
        }
        all.rank = all.rank.max(1);
        all
    }

    /// Adds an axis inside the existing ones.
    fn push(&mut self, len: i64, strides: [i64; N]) {
        let last = self.rank as usize;
        if last > 0 {
            let outer = last - 1;
            let joins = (0..N).all(|k| self.strides[k][outer] == strides[k] * len);
            if joins {
                self.dims[outer] *= len;
                for (all, stride) in self.strides.iter_mut().zip(strides) {
                    all[outer] = stride;
                }
                return;
            }
        }
        self.dims[last] = len;
        for (all, stride) in self.strides.iter_mut().zip(strides) {
            all[last] = stride;
        }
        self.rank += 1;
    }
}

/// A layout's strides, with changes that no view allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axes {
    rank: usize,
    strides: [i64; MAX_RANK],
    offset: i64,
}

impl Axes {
    pub(crate) fn new(layout: Layout) -> Self {
        let mut strides = [0; MAX_RANK];
        for (to, &stride) in strides.iter_mut().zip(layout.strides()) {
            *to = stride as i64;
        }
        Self {
            rank: layout.shape().rank(),
            strides,
            offset: layout.offset() as i64,
        }
    }

    /// Takes index 0 of an axis and removes the axis.
    pub(crate) fn without(mut self, axis: usize) -> Self {
        self.strides.copy_within(axis + 1.., axis);
        self.strides[MAX_RANK - 1] = 0;
        self.rank -= 1;
        self
    }

    /// Keeps an axis at index 0 by setting its stride to 0.
    pub(crate) fn standing(mut self, axis: usize) -> Self {
        self.strides[axis] = 0;
        self
    }

    /// Moves the axes to positions `first` and up of a larger shape; the operand is broadcast along
    /// the others.
    pub(crate) fn shifted(mut self, first: usize) -> Self {
        self.strides.copy_within(..MAX_RANK - first, first);
        self.strides[..first].fill(0);
        self.strides[(first + self.rank).min(MAX_RANK)..].fill(0);
        self.rank += first;
        self
    }
}

/// The broadcast shape of the operands.
pub(crate) fn broadcast(layouts: &[Layout]) -> Result<Shape> {
    let mut shape = Shape::SCALAR;
    for layout in layouts {
        shape = shape.broadcast(&layout.shape()).ok_or_else(|| {
            Error::shape(
                "run",
                "an operand",
                layout.shape(),
                format!("the other operands are {shape}"),
            )
        })?;
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_joined_where_all_operands_allow_it() {
        let shape = Shape::new(&[2, 3, 4]).unwrap();
        let row = Layout::contiguous(Shape::new(&[4]).unwrap());
        let plain = Layout::contiguous(shape);
        let turned = Layout::contiguous(Shape::new(&[3, 2, 4]).unwrap())
            .permute(&[1, 0, 2])
            .unwrap();
        let alone = Strided::new(shape, [plain]).unwrap();
        assert_eq!((alone.rank, alone.dims[0], alone.strides[0][0]), (1, 24, 1));
        let stretched = Strided::new(shape, [plain, row]).unwrap();
        assert_eq!(
            (stretched.rank, stretched.dims[..2].to_vec()),
            (2, vec![6, 4])
        );
        let three = Strided::new(shape, [plain, turned]).unwrap();
        assert_eq!(
            (three.rank, three.strides[1][..3].to_vec()),
            (3, vec![4, 8, 1])
        );
        assert_eq!(
            Strided::new(Shape::SCALAR, [Layout::contiguous(Shape::SCALAR)])
                .unwrap()
                .rank,
            1
        );
    }
}
