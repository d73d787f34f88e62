//! Layouts of views: small inline arrays, like shapes.

use std::fmt;
use std::ops::Range;

use crate::shape::{MAX_RANK, Shape};
use crate::{Error, Result};

/// The position of a view's elements in its buffer: the element at index `i` is at
/// `offset + sum(i[k] * strides[k])`, all counted in elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    strides: [usize; MAX_RANK],
    offset: usize,
}

impl Layout {
    /// The layout of row-major elements without gaps, from the start of the buffer.
    pub fn contiguous(shape: Shape) -> Self {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for axis in (0..shape.rank()).rev() {
            strides[axis] = step;
            step *= shape[axis].max(1);
        }
        Self {
            shape,
            strides,
            offset: 0,
        }
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// One stride per axis, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides[..self.shape.rank()]
    }

    /// The offset of the first element in the buffer, in elements.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the elements are row-major and without gaps, at any offset.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1;
        for axis in (0..self.shape.rank()).rev() {
            let len = self.shape[axis];
            if len != 1 && self.strides[axis] != step {
                return self.shape.count() == 0;
            }
            step *= len;
        }
        true
    }

    /// Whether the layout covers a whole buffer of `count` elements, in order.
    pub fn is_whole(&self, count: usize) -> bool {
        self.offset == 0 && self.shape.count() == count && self.is_contiguous()
    }

    /// The indices `range` of one axis.
    ///
    /// # Errors
    /// The axis does not exist, or the range is out of bounds.
    pub fn slice(mut self, axis: usize, range: Range<usize>) -> Result<Self> {
        self.check_axis("slice", axis)?;
        let len = self.shape[axis];
        if range.start > range.end || range.end > len {
            return Err(Error::shape(
                "slice",
                "range",
                self.shape,
                format!("{}..{} of axis {axis} is requested", range.start, range.end),
            ));
        }
        self.offset += range.start * self.strides[axis];
        self.shape = self.shape.with(axis, range.len());
        Ok(self)
    }

    /// Takes one index of an axis and removes the axis.
    ///
    /// # Errors
    /// The axis does not exist, or `index` is out of bounds.
    pub fn select(self, axis: usize, index: usize) -> Result<Self> {
        self.check_axis("select", axis)?;
        let end = index.saturating_add(1);
        let cut = self.slice(axis, index..end)?;
        if cut.shape[axis] != 1 {
            let expected = format!("index {index} of axis {axis} is requested");
            return Err(Error::shape("select", "tensor", self.shape, expected));
        }
        let mut out = Self {
            shape: cut.shape.without(axis),
            strides: [0; MAX_RANK],
            offset: cut.offset,
        };
        let kept = cut.strides().iter().enumerate().filter(|(i, _)| *i != axis);
        for (to, (_, &s)) in out.strides.iter_mut().zip(kept) {
            *to = s;
        }
        Ok(out)
    }

    /// Reorders the axes: axis `i` of the result is axis `order[i]` of this layout.
    ///
    /// # Errors
    /// `order` is not a permutation of the axes.
    pub fn permute(self, order: &[usize]) -> Result<Self> {
        let rank = self.shape.rank();
        let valid = order.len() == rank && (0..rank).all(|axis| order.contains(&axis));
        if !valid {
            return Err(Error::shape(
                "permute",
                "tensor",
                self.shape,
                format!("the axis order is {order:?}"),
            ));
        }
        let mut out = self;
        for (i, &axis) in order.iter().enumerate() {
            out.shape = out.shape.with(i, self.shape[axis]);
            out.strides[i] = self.strides[axis];
        }
        Ok(out)
    }

    /// The same elements under another shape without a copy, or `None` if strides cannot express
    /// it.
    pub fn reshape(self, shape: Shape) -> Option<Self> {
        if shape.count() != self.shape.count() {
            return None;
        }
        if self.is_contiguous() {
            let mut out = Self::contiguous(shape);
            out.offset = self.offset;
            return Some(out);
        }
        // A layout that is not contiguous can only gain or lose axes of length 1.
        let mut out = Self {
            shape,
            strides: [0; MAX_RANK],
            offset: self.offset,
        };
        let mut old = (0..self.shape.rank()).filter(|&a| self.shape[a] != 1);
        for axis in (0..shape.rank()).filter(|&a| shape[a] != 1) {
            let from = old.next().filter(|&a| self.shape[a] == shape[axis])?;
            out.strides[axis] = self.strides[from];
        }
        old.next().is_none().then_some(out)
    }

    /// The layout broadcast to `shape` with strides of 0: for kernels that read broadcast operands.
    /// Tensors never have such a layout.
    pub fn broadcast_to(self, shape: Shape) -> Self {
        let mut out = Self {
            shape,
            strides: [0; MAX_RANK],
            offset: self.offset,
        };
        let shift = shape.rank() - self.shape.rank();
        for axis in 0..self.shape.rank() {
            if self.shape[axis] != 1 {
                out.strides[axis + shift] = self.strides[axis];
            }
        }
        out
    }

    fn check_axis(&self, op: &'static str, axis: usize) -> Result<()> {
        if axis < self.shape.rank() {
            return Ok(());
        }
        Err(Error::shape(
            op,
            "tensor",
            self.shape,
            format!("axis {axis} is requested"),
        ))
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} strides {:?} offset {}",
            self.shape,
            self.strides(),
            self.offset
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn views_address_the_same_elements() {
        let base = Layout::contiguous(shape(&[2, 3, 4]));
        let row = base.select(1, 2).unwrap();
        assert_eq!(
            (row.shape().dims(), row.strides(), row.offset()),
            (&[2, 4][..], &[12, 1][..], 8)
        );
        let turned = base.permute(&[2, 0, 1]).unwrap();
        assert_eq!(
            (turned.shape().dims(), turned.strides()),
            (&[4, 2, 3][..], &[1, 12, 4][..])
        );
        assert!(!turned.is_contiguous());
        assert!(turned.reshape(shape(&[24])).is_none());
        assert_eq!(
            turned.reshape(shape(&[4, 1, 2, 3])).unwrap().strides(),
            &[1, 0, 12, 4]
        );
        assert!(base.slice(1, 2..4).is_err());
        assert!(base.permute(&[0, 0, 1]).is_err());
        assert!(base.select(3, 0).is_err());
        assert!(base.select(0, usize::MAX - 1).is_err());
        assert!(base.select(0, usize::MAX).is_err());
    }

    #[test]
    fn a_whole_layout_covers_its_buffer() {
        let base = Layout::contiguous(shape(&[2, 3]));
        assert!(base.is_whole(6));
        assert!(!base.slice(0, 0..1).unwrap().is_whole(6));
        assert!(base.slice(0, 1..2).unwrap().is_contiguous());
    }
}
